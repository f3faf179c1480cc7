"""model_info.py REPOSITORY FILE...: holds entries that `sora eval --model-info` wrote against RobustBench's own.

REPOSITORY is a git repository of RobustBench (its work tree is not needed). A field that all of its Linf and L2
entries have must be there, one that none has must not, and a value must be of a type that theirs have; fields that
are the authors' to fill in may be null. Prints a line for each departure.
"""

import json
import subprocess
import sys
from collections import defaultdict

OWN = {"link", "name", "authors", "additional_data", "venue", "architecture"}


def git(*words):
    return subprocess.run(["git", "-C", sys.argv[1], *words], check=True, capture_output=True, text=True).stdout


types, counts, entries = defaultdict(set), defaultdict(int), 0
for path in git("ls-tree", "-r", "--name-only", "HEAD", "model_info").split("\n"):
    if path.endswith(".json") and path.split("/")[-2] in ("Linf", "L2"):
        entries += 1
        for key, value in json.loads(git("show", f"HEAD:{path}")).items():
            types[key].add(type(value).__name__)
            counts[key] += 1

wrong = 0
for path in sys.argv[2:]:
    with open(path, encoding="utf-8") as file:
        entry = json.load(file)
    found = [f"{key} is missing" for key in counts if counts[key] == entries and key not in entry]
    found += [f"{key}: no entry has it" for key in entry if key not in counts]
    for key, value in entry.items():
        kind = type(value).__name__
        # An optional field without a value is as good as none.
        empty = value is None and (key in OWN or counts[key] < entries)
        if key in counts and kind not in types[key] and not empty:
            found.append(f"{key} is {kind}, theirs {sorted(types[key])}")
    for key in ("clean_acc", "reported", "autoattack_acc"):
        if not 0 <= float(entry.get(key) or "nan") <= 100:
            found.append(f"{key}: {entry.get(key)} is no percentage")
    print("\n".join(f"{path}: {problem}" for problem in found) or f"{path}: as {entries} entries of RobustBench")
    wrong += len(found)
sys.exit(bool(wrong))
