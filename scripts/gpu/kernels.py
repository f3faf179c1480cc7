"""Adds up a table of Nsight Compute (--csv --page raw, gpu__time_duration.sum) by kernel: python3 kernels.py TABLE STEPS"""

import collections
import csv
import json
import sys

TIME = "gpu__time_duration.sum"
SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}
# By these CubeCL measures the card when it starts.
NOT_OF_A_STEP = ("memory_direct_throughput", "launch_overhead", "prime_buffer")


def main():
    path, steps = sys.argv[1], int(sys.argv[2])
    with open(path, newline="") as file:
        # The first row behind the names holds the units.
        units, *rows = csv.DictReader(line for line in file if not line.startswith("=="))
    seconds, launches = collections.Counter(), collections.Counter()
    for row in rows:
        # What follows is the hash of what a kernel was compiled for.
        name = row["Kernel Name"].rsplit("_", 1)[0]
        if name.startswith(NOT_OF_A_STEP):
            continue
        seconds[name] += float(row[TIME].replace(",", "")) * SECONDS[units[TIME]]
        launches[name] += 1
    for name, all_steps in seconds.most_common():
        each = {"ms": round(1e3 * all_steps / steps, 4), "launches": round(launches[name] / steps, 2)}
        print(json.dumps({"kind": "kernel", "name": name, **each}))


if __name__ == "__main__":
    main()
