#!/usr/bin/env python3
"""Measures the detector of catastrophic overfitting: trains runs that collapse and runs that do not, and prints what it said of each, with
precision, recall and how many steps before the loss of half of pgd accuracy it spoke.

    cargo build --release && scripts/co_study.py --dataset folder:PATH --out runs/co-study > study.md

Runs that are already in --out are not repeated; those that were cut off are resumed; those with other settings (--dataset, too) are refused.
--only-report trains nothing. Needs Python 3.11 and the built program, nothing else. The thresholds were set on the runs of `SET` and are judged on those of `JUDGED`.
"""

import argparse
import json
import pathlib
import subprocess
import sys

from run_settings import flags, refuse_others

ROOT = pathlib.Path(__file__).resolve().parent.parent

# Settings of a group of runs.
GROUPS = {
    "a": {"batch": 128, "limit_train": 10500, "val": 500},
    "b": {"batch": 64, "limit_train": 5300, "val": 300},
}

# (group, method, epsilon * 255, seed, width, epochs); first those on which the thresholds were set.
SET = [
    ("a", "fgsm", 16, 0, 16, 6), ("a", "sora", 16, 0, 16, 6), ("a", "fgsm", 16, 0, 8, 4), ("a", "fgsm", 8, 0, 8, 6), ("a", "fgsm-rs", 16, 0, 8, 4),
    ("a", "n-fgsm", 16, 0, 8, 4), ("a", "fgsm", 16, 1, 16, 4), ("b", "fgsm", 16, 2, 16, 3),
]  # fmt: skip
JUDGED = [
    ("a", "fgsm", 16, 2, 16, 6), ("a", "fgsm", 12, 0, 16, 6), ("a", "fgsm", 12, 1, 16, 6), ("a", "fgsm", 10, 0, 16, 6), ("a", "fgsm", 8, 1, 16, 6),
    ("a", "zerograd", 16, 0, 16, 6), ("a", "fgsm", 16, 3, 16, 6), ("a", "fgsm", 12, 2, 16, 6), ("a", "fgsm-rs", 16, 1, 16, 6), ("a", "sora", 16, 1, 16, 6),
    ("a", "n-fgsm", 16, 1, 16, 6), ("a", "pgd-2", 16, 0, 16, 6), ("a", "sora", 8, 1, 16, 6), ("a", "fgsm-rs", 8, 1, 16, 6), ("a", "pgd-2", 8, 1, 16, 6),
]  # fmt: skip


def name(run):
    return "{}-{}-e{}-s{}-w{}-n{}".format(*run)


def settings(run, args):
    group, method, epsilon, seed, width, epochs = run
    chosen = {"dataset": args.dataset, "method": method, "epsilon": f"{epsilon}/255", "seed": seed, "width": width, "epochs": epochs}
    return {**chosen, **GROUPS[group], "val_steps": 10}


def train(program, run, args):
    out = args.out / name(run)
    if (out / "summary.json").exists():
        return
    if (out / "config.toml").exists():
        call = ["resume", out]
    else:
        call = ["train", *flags(settings(run, args)), "--out", out]
        call += ["--data-dir", args.data_dir] if args.data_dir else []
        call += ["--threads", args.threads] if args.threads else []
    subprocess.run([str(word) for word in [program, *call]], check=True)


def wilson(k, n):
    if n == 0:
        return "-"
    z, p = 1.96, k / n
    centre, half, scale = p + z * z / (2 * n), z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5, 1 + z * z / n
    return f"{k}/{n} (95 % interval {max(0, (centre - half) / scale):.2f} - {min(1, (centre + half) / scale):.2f})"


def report(program, done, args):
    output = subprocess.run([str(program), "diagnose", "--json", *(str(args.out / name(run)) for run in done)], check=True, stdout=subprocess.PIPE)
    found = json.loads(output.stdout)["runs"]
    print("| run | set on | pgd-10 peak | below half for good | first below half | noticed | sign | ahead of the lasting half | ahead of the first |")
    print("|---|---|---|---|---|---|---|---|---|")
    for run, said in zip(done, found):
        lost, co = said["collapse"], said["co"]
        group, method, epsilon, seed, width, epochs = run
        risen = lost and lost["risen"]
        cells = [
            f"{method} {epsilon}/255, seed {seed}, width {width}, {GROUPS[group]['batch']} x {said['steps']} steps",
            "yes" if run in SET else "",
            f"{lost['peak']:.3f} at {lost['peak_step']}" if lost else "-",
            (str(lost["half_step"]) if risen else "never rose") if lost else "no",
            str(lost["first_half_step"]) if risen else "-",
            str(co["step"]) if co else "-",
            co["sign"] if co else "-",
            str(lost["half_step"] - co["step"]) if risen and co else "-",
            str(lost["first_half_step"] - co["step"]) if risen and co else "-",
        ]
        print("| " + " | ".join(cells) + " |")
    for title, chosen in [("runs the thresholds were set on", True), ("other runs", False)]:
        pairs = [said for run, said in zip(done, found) if (run in SET) == chosen]
        hits = sum(1 for said in pairs if said["co"] and said["collapse"])
        ahead = sorted(said["ahead"] for said in pairs if said["ahead"] is not None)
        print(f"\n{title} ({len(pairs)}): precision {wilson(hits, sum(1 for said in pairs if said['co']))}, "
              f"recall {wilson(hits, sum(1 for said in pairs if said['collapse']))}, steps ahead of the lasting half {ahead}")  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--data-dir")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "runs" / "co-study")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--program", type=pathlib.Path, default=ROOT / "target" / "release" / "sora")
    parser.add_argument("--only-report", action="store_true")
    parser.add_argument("--judged", action="store_true", help="train only the runs on which the thresholds are judged")
    args = parser.parse_args()
    for run in SET + JUDGED:
        refuse_others(args.out / name(run), settings(run, args))
    if not args.only_report:
        for run in (JUDGED if args.judged else SET + JUDGED):
            train(args.program, run, args)
    done = [run for run in SET + JUDGED if (args.out / name(run) / "metrics.jsonl").exists()]
    if not done:
        sys.exit(f"{args.out}: no runs there")
    report(args.program, done, args)


main()
