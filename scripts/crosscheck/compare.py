#!/usr/bin/env python3
"""Holds `sora eval --json` against the results of peer.py on the same weights and images, attack by attack.

    compare.py OURS.json PEER_DIR [--tool torchattacks] [--weights W.safetensors --images I.npz] [--attacks fgsm,pgd-10,...]

Prints a table and exits with 1 if an attack of ours leaves more than 0.3 points more standing than the public tool's, or differs from it by more than
0.5 points in the other direction where `--both` is given. An ensemble that the public tool was not run on as a whole is put together from its parts:
an image stands if it survives each. An attack without a row is a failure, too: one of --attacks, without these any that PEER_DIR has of the tool.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from subject import digest

STANDARD = ["apgd-ce", "apgd-t", "fab-t", "square"]


def parts(name):
    """The attacks of an ensemble of ours."""
    return STANDARD if name == "autoattack" else name.removeprefix("autoattack:").split("+")


def key(attack):
    """The name of an attack in our results."""
    return attack.replace(":", "-")


def found_of(args, ours):
    """(accuracy, images that stand) by attack: the tool's results that are of the same as ours; and the attacks of all."""
    of = digest(args.weights, args.images) if args.weights else None
    found, tried = {}, set()
    for file in sorted(args.peer.glob(f"{args.tool}-*.json")):
        result = json.loads(file.read_text())
        attack = key(result["attack"])
        tried.add(attack)
        same = result["n"] == ours["n"] and abs(result["epsilon"] - ours["epsilon"]) < 1e-6 and result["norm"] == ours["norm"]
        if not same or of not in (None, result.get("of")):
            continue
        if attack in found:
            sys.exit(f"compare.py: {file}: a second result of {attack}; name --weights and --images, or take one away")
        found[attack] = (result["accuracy"], np.load(file.with_suffix(".npy")))
    return found, tried


def put_together(found, ours):
    """Adds the ensembles of ours whose parts were found."""
    for name in ours["results"]:
        if name.startswith("autoattack") and name not in found and all(part in found for part in parts(name)):
            standing = np.logical_and.reduce([found[part][1] for part in parts(name)])
            found[name] = (float(standing.mean()), standing)


def table(args, ours, found):
    """Prints a row for each attack that both have; returns the attacks out of bounds."""
    failed = []
    print(f"n = {ours['n']}, {ours['norm']} epsilon {ours['epsilon'] * 255:.0f}/255, seed {ours['seed']}\n")
    print(f"| attack | sora % (95 % interval) | {args.tool} % | difference, points |\n|---|---|---|---|")
    for name, result in ours["results"].items():
        if name not in found:
            continue
        theirs = found[name][0]
        difference = 100 * (result["accuracy"] - theirs)
        low, high = (100 * end for end in result["ci95"])
        print(f"| {name} | {100 * result['accuracy']:.1f} ({low:.1f} - {high:.1f}) | {100 * theirs:.1f} | {difference:+.1f} |")
        if difference > 0.3 + 1e-9 or (args.both and difference < -0.5 - 1e-9):
            failed.append(name)
    return failed


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ours", type=Path)
    parser.add_argument("peer", type=Path)
    parser.add_argument("--tool", default="torchattacks")
    parser.add_argument("--both", action="store_true")
    parser.add_argument("--weights", type=Path, help="compare with results of these weights")
    parser.add_argument("--images", type=Path, help="and these images")
    parser.add_argument("--attacks", type=lambda text: {key(name) for name in text.split(",")}, help="what has to be compared")
    args = parser.parse_args()
    if (args.weights is None) != (args.images is None):
        parser.error("--weights and --images go together")
    return args


def main():
    args = arguments()
    ours = json.loads(args.ours.read_text())
    found, tried = found_of(args, ours)
    put_together(found, ours)
    failed = table(args, ours, found)
    compared = found.keys() & ours["results"].keys()
    passed_over = (args.attacks or tried) - compared
    if passed_over or not compared:
        sys.exit(f"compare.py: not compared: {', '.join(sorted(passed_over)) or 'any attack'}; expected in {args.ours} and, with the "
                 f"same weights, images, norm and epsilon, in {args.peer}")  # fmt: skip
    if failed:
        sys.exit(f"out of bounds: {', '.join(failed)}")


if __name__ == "__main__":
    main()
