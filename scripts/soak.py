#!/usr/bin/env python3
"""A long training, whose memory and open files are sampled from /proc: neither may grow.

Usage: scripts/soak.py PROGRAM [STEPS [WIDTH]]; exit status 1 where something grew. Linux only."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PER_EPOCH = 250
# Growth of the last tenth over the second, in the median, that still counts as flat.
FLAT_MIB = 2.0
PAGE = os.sysconf("SC_PAGESIZE")


def sample(pid: int) -> tuple[float, int, int] | None:
    """Resident memory in MiB, open files and threads of a process; None once it has ended."""
    proc = Path(f"/proc/{pid}")
    try:
        pages = int((proc / "statm").read_text().split()[1])
        return pages * PAGE / (1 << 20), len(os.listdir(proc / "fd")), len(os.listdir(proc / "task"))
    except (OSError, ValueError, IndexError):
        return None


def main() -> int:
    sora, steps, width = sys.argv[1], int((sys.argv[2:] or ["50000"])[0]), (sys.argv[3:] or ["4"])[0]
    with tempfile.TemporaryDirectory() as work:
        words = (
            f"train --dataset synthetic --image-size 8 --model mnist-cnn --width {width} --augment none"
            f" --batch 16 --val 16 --lr-max 0.05"
            f" --limit-train {16 * PER_EPOCH + 16} --limit-test 16 --epochs {-(-steps // PER_EPOCH)}"
            f" --checkpoint-steps 100 --tensorboard --threads 2 -q --out {work}/run"
        )
        started = time.monotonic()
        training = subprocess.Popen([sora, *words.split()])
        samples = []
        while training.poll() is None:
            found = sample(training.pid)
            if found:
                samples.append(found)
            time.sleep(0.5)
        took = time.monotonic() - started
        done = sum(1 for _ in open(f"{work}/run/metrics.jsonl"))
    if training.returncode or len(samples) < 40:
        print(f"exit status {training.returncode}, {len(samples)} samples")
        return 1
    return report(samples, done, took)


def report(samples: list[tuple[float, int, int]], steps: int, took: float) -> int:
    tenth = len(samples) // 10
    early, late = samples[tenth : 2 * tenth], samples[-tenth - 1 : -1]
    grew = False
    print(f"{steps} steps in {took:.0f} s, {len(samples)} samples")
    for at, (what, flat) in enumerate([("MiB resident", FLAT_MIB), ("open files", 0), ("threads", 0)]):
        values = [statistics.median(sample[at] for sample in part) for part in (early, late)]
        most = max(sample[at] for sample in samples)
        print(f"{what}: {values[0]:.1f} in the second tenth, {values[1]:.1f} in the last, most {most:.1f}")
        grew |= values[1] > values[0] + flat
    print("grew" if grew else "flat")
    return int(grew)


if __name__ == "__main__":
    sys.exit(main())
