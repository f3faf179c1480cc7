#!/usr/bin/env python3
"""Runs every fuzz target until it has made a number of executions, and writes what was run into the
table of docs/reliability.md.

Usage: scripts/fuzz_campaign.py [--goal N] [--seconds S] [--table-only] [TARGET...]

A target gets at most S seconds a round; call again for another round. Rounds are kept in
fuzz/rounds.jsonl, one a line: what was fuzzed (the last commit that changed the target or the crate
it calls), executions, edges covered. A finding ends the round, is kept in fuzz/artifacts and gives
exit status 1."""

import argparse
import datetime
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROUNDS = ROOT / "fuzz/rounds.jsonl"
PAGE = ROOT / "docs/reliability.md"
BEGIN, END = "<!-- fuzz: written by scripts/fuzz_campaign.py -->\n", "<!-- fuzz: end -->\n"

# What each target reads or calls.
TARGETS = {
    "kernels_api": "every public function of `crates/kernels`, with sizes, strides and lengths of all kinds",
    "onnx": "ONNX files; what is read is run, forwards and backwards",
    "data_image": "PNG and JPEG files, grey or coloured, turned or not",
    "data_idx": "IDX files, plain and gzipped",
    "data_cifar": "CIFAR archives, binary and of pickles",
    "data_pickle": "a batch of a CIFAR archive in Python's form",
    "data_npz": "MedMNIST archives, into memory and unpacked to disk",
    "data_mat": "MATLAB files of SVHN",
    "data_parquet": "Parquet shards of image sets",
    "data_tar": "Imagenette's archive and WebDataset shards, with decoded images kept or not",
    "data_zip": "Tiny ImageNet's archive",
    "data_cache": "files of decoded images",
    "evaluation_state": "the state of an evaluation with its examples",
    "evaluation_words": "names of attacks, radii",
    "served_messages": "what models behind a command or a URL send: descriptions, arrays, answers",
    "run_config": "settings, config.toml, recipes and grids",
    "run_logs": "logs, summary, records and settings of a run, as `diagnose`, `watch` and `report` read them",
    "run_checkpoint": "checkpoints, and what weights, optimizers and methods take of them",
    "run_weights": "weights files with their descriptions",
    "run_pytorch": "weights of PyTorch, old form and new, and the import",
}
CRATES = {"kernels": "kernels", "onnx": "onnx", "data": "data", "evaluation": "robustness", "served": "served", "run": "sora"}


def commit(target: str) -> str:
    """The last commit that changed what `target` runs; `+` marks changes that are not committed."""
    crate = CRATES[target.split("_")[0]]
    # The reader of ONNX files runs what it has read on the kernels.
    crates = [crate, "kernels"] if crate == "onnx" else [crate]
    paths = [f"crates/{name}/src" for name in crates]
    paths += ["fuzz/fuzz_targets", "fuzz/src", "fuzz/Cargo.toml", "fuzz/Cargo.lock"]
    git = lambda *words: subprocess.check_output(["git", *words, "--", *paths], cwd=ROOT, text=True)
    return git("log", "-1", "--format=%h").strip() + ("+" if git("status", "--porcelain") else "")


def rounds() -> list[dict]:
    lines = ROUNDS.read_text().splitlines() if ROUNDS.exists() else []
    return [json.loads(line) for line in lines]


def fuzz(target: str, executions: int, seconds: int) -> bool:
    """A round of `target`; returns whether it had no finding."""
    # A change while it runs is no part of it.
    started, of = time.monotonic(), commit(target)
    log = ROOT / f"fuzz/corpus/{target}.log"
    log.parent.mkdir(exist_ok=True)
    with log.open("wb") as out:
        call = ["scripts/fuzz.sh", target, str(seconds), f"-runs={executions}"]
        status = subprocess.call(call, cwd=ROOT, stdout=out, stderr=out)
    text = log.read_text(errors="replace")
    done = re.findall(r"stat::number_of_executed_units:\s+(\d+)", text)
    seen = re.findall(r"^#\d+\s+\w+\s+cov: (\d+) ft: (\d+) corp: (\d+)/", text, re.M)
    if not done or (not seen and status == 0):
        sys.exit(f"{target}: no round was made, see {log.relative_to(ROOT)}")
    # An input that ends the program while the corpus is read leaves no figures.
    edges, features, inputs = map(int, seen[-1]) if seen else (None, None, None)
    found = {
        "target": target,
        "date": datetime.date.today().isoformat(),
        "commit": of,
        "executions": int(done[-1]),
        "seconds": round(time.monotonic() - started),
        "edges": edges,
        "features": features,
        "inputs": inputs,
        "finding": status != 0,
    }
    with ROUNDS.open("a") as out:
        out.write(json.dumps(found) + "\n")
    print(json.dumps(found), flush=True)
    return status == 0


def table() -> str:
    rows = ["| target | what it reads or calls | executions | edges | inputs kept | commits |"]
    rows.append("|---|---|---|---|---|---|")
    for target, what in TARGETS.items():
        own = [found for found in rounds() if found["target"] == target]
        commits = ", ".join(dict.fromkeys(found["commit"] + " (a finding)" * found["finding"] for found in own)) or "-"
        # Null where a round did not note it.
        noted = lambda key: [found[key] for found in own if found[key] is not None]
        most = lambda key: f"{max(noted(key)):,}" if noted(key) else "-"
        made = sum(found["executions"] for found in own)
        words = f"{made:,}" if made else "seeds only"
        rows.append(
            f"| `{target}` | {what} | {words} | {most('edges')} | {most('inputs')} | {commits} |"
        )
    return "\n".join(rows) + "\n"


def write_table() -> None:
    page = PAGE.read_text()
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    if not after:
        sys.exit(f"{PAGE.relative_to(ROOT)} has no place for the table")
    PAGE.write_text(before + BEGIN + table() + END + after)


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    words.add_argument("targets", nargs="*", metavar="TARGET")
    words.add_argument("--goal", type=int, default=1_000_000, help="executions of each target")
    words.add_argument("--seconds", type=int, default=900, help="the longest round of a target")
    words.add_argument("--table-only", action="store_true")
    given = words.parse_args()
    if unknown := set(given.targets) - set(TARGETS):
        words.error(f"no target {', '.join(sorted(unknown))}; expected {', '.join(TARGETS)}")
    os.nice(4)
    clean = True
    for target in [] if given.table_only else given.targets or TARGETS:
        made = sum(found["executions"] for found in rounds() if found["target"] == target)
        if made < given.goal:
            clean &= fuzz(target, given.goal - made, given.seconds)
    write_table()
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
