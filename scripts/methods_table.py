#!/usr/bin/env python3
"""Trains every method of the registry on the same budget and seed, evaluates each, and prints a Markdown table.

    cargo build --release && scripts/methods_table.py --dataset fashion-mnist > table.md

Runs that are already in --out are not repeated, and refused if their settings are others. Needs Python 3.11 and the
built program, nothing else.
"""

import argparse
import json
import pathlib
import subprocess
import sys

from run_settings import flags, refuse_others

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROGRAM = ROOT / "target" / "release" / "sora"


def sora(*words):
    done = subprocess.run([str(PROGRAM), *map(str, words)], stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"sora {' '.join(map(str, words))}: exit status {done.returncode}")
    return done.stdout


def cell(result):
    low, high = result["ci95"]
    return f"{100 * result['accuracy']:.1f} ({100 * low:.1f} - {100 * high:.1f})"


def folder(method, args):
    return args.out / f"{args.name}-{method}-{args.norm}-seed{args.seed}"


def settings(method, args):
    """Settings of the training, and options of its method."""
    # Free training updates several times on each batch: the same number of updates, in one epoch.
    epochs, options = (1, {"replays": args.epochs}) if method == "free" else (args.epochs, {})
    same = {key: getattr(args, key) for key in ("dataset", "norm", "width", "limit_train", "val", "epsilon", "seed")}
    return {**same, "method": method, "epochs": epochs}, options


def train(method, args):
    out = folder(method, args)
    if (out / "model.safetensors").exists():
        return
    if (out / "config.toml").exists():
        sora("resume", out)
    else:
        chosen, options = settings(method, args)
        more = [word for key, value in options.items() for word in ("--set", f"{key}={value}")]
        sora("train", *flags(chosen), *more, "--keep", 1, "--out", out)


def row(method, args):
    train(method, args)
    out = folder(method, args)
    summary = json.loads((out / "summary.json").read_text())
    report = json.loads(sora("eval", out, "--limit", args.n, "--json"))
    results, passes = report["results"], summary["passes"]
    co = summary["last_epoch"]["co"]
    collapsed = results["fgsm"]["accuracy"] >= 0.2 and results["pgd-10"]["accuracy"] < 0.5 * results["fgsm"]["accuracy"]
    backward = passes["backward_input"] + passes["backward_full"]
    return [
        method,
        cell(results["clean"]),
        cell(results["fgsm"]),
        cell(results["pgd-10"]),
        f"{summary['seconds']:.0f}",
        f"{passes['forward'] / summary['steps']:.1f} + {backward / summary['steps']:.1f}",
        str(summary["peak_rss_mib"]),
        f"step {co['step']}" if co else ("yes, by its pgd-10" if collapsed else "no"),
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="fashion-mnist")
    parser.add_argument("--name", help="name of the data set in run folders (default: the data set's)")
    parser.add_argument("--norm", default="linf")
    parser.add_argument("--epsilon", default="8/255")
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--limit-train", type=int, default=10000)
    parser.add_argument("--val", type=int, default=200)
    parser.add_argument("--n", type=int, default=1000, help="test images")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--methods", help="comma-separated (default: all that the norm allows)")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "runs" / "methods")
    args = parser.parse_args()
    args.name = args.name or args.dataset
    if args.methods:
        names = args.methods.split(",")
    else:
        names = [name for name, info in json.loads(sora("methods", "--json")).items() if args.norm in info["norms"]]
    for name in names:
        refuse_others(folder(name, args), *settings(name, args))
    head = ["method", "clean %", "fgsm %", "pgd-10 %", "seconds", "forward + backward passes a step", "peak MiB", "catastrophic overfitting"]
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head), flush=True)
    for name in names:
        print("| " + " | ".join(row(name, args)) + " |", flush=True)


if __name__ == "__main__":
    main()
