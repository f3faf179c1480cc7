#!/usr/bin/env python3
"""Holds `sora eval --json` against the results of peer.py on the same weights and images, attack by attack.

    compare.py OURS.json PEER_DIR [--tool torchattacks]

Prints a table and exits with 1 if an attack of ours leaves more than 0.3 points more standing than the public tool's, or differs from it by more than
0.5 points in the other direction where `--both` is given. An ensemble that the public tool was not run on as a whole is put together from its parts:
an image stands if it survives each.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

STANDARD = ["apgd-ce", "apgd-t", "fab-t", "square"]


def parts(name):
    """The attacks of an ensemble of ours."""
    return STANDARD if name == "autoattack" else name.removeprefix("autoattack:").split("+")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ours", type=Path)
    parser.add_argument("peer", type=Path)
    parser.add_argument("--tool", default="torchattacks")
    parser.add_argument("--both", action="store_true")
    args = parser.parse_args()
    ours = json.loads(args.ours.read_text())
    found = {}
    for file in sorted(args.peer.glob(f"{args.tool}-*.json")):
        result = json.loads(file.read_text())
        if result["n"] == ours["n"] and abs(result["epsilon"] - ours["epsilon"]) < 1e-6 and result["norm"] == ours["norm"]:
            found[result["attack"].replace(":", "-")] = (result["accuracy"], np.load(file.with_suffix(".npy")))
    for name in ours["results"]:
        if name.startswith("autoattack") and name not in found and all(part in found for part in parts(name)):
            standing = np.logical_and.reduce([found[part][1] for part in parts(name)])
            found[name] = (float(standing.mean()), standing)
    failed = []
    print(f"n = {ours['n']}, {ours['norm']} epsilon {ours['epsilon'] * 255:.0f}/255, seed {ours['seed']}\n")
    print(f"| attack | sora % (95 % interval) | {args.tool} % | difference, points |\n|---|---|---|---|")
    for name, result in ours["results"].items():
        peer = found.get(name)
        if peer is None:
            continue
        difference = 100 * (result["accuracy"] - peer[0])
        low, high = (100 * end for end in result["ci95"])
        print(f"| {name} | {100 * result['accuracy']:.1f} ({low:.1f} - {high:.1f}) | {100 * peer[0]:.1f} | {difference:+.1f} |")
        if difference > 0.3 + 1e-9 or (args.both and difference < -0.5 - 1e-9):
            failed.append(name)
    if failed:
        sys.exit(f"out of bounds: {', '.join(failed)}")


if __name__ == "__main__":
    main()
