"""Faults by count: see docs/reliability.md. `scripts/faults.sh` calls this."""

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from bench import Bench
from damage import damages
from disk import disks
from errors import errors
from kills import kills
from others import make_templates, others
from program import Program, Room, compile_shim
from scenario import Scenario
from subjects import subjects
from surroundings import clock, locks, memory
from together import meetings, together
from trainings import trainings


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("sora", type=Path)
    words.add_argument("--short", action="store_true", help="about a minute instead of all")
    words.add_argument("--jobs", type=int, default=2, help="cases at a time")
    words.add_argument("--only", default="", help="parts whose name holds this")
    words.add_argument("--scenario", default="", help="scenarios whose name holds this")
    words.add_argument("--table", type=Path, help="also write the table there")
    given = words.parse_args()
    if not any(given.only in part for part in LONG):
        print(f"faults: --only {given.only}: expected a piece of {', '.join(LONG)}", file=sys.stderr)
        return 2
    work = Path(tempfile.mkdtemp(prefix="sora-faults-", dir=in_memory()))
    # Apart: containers often forbid code in /dev/shm, and a library there would be passed over.
    library = Path(tempfile.mkdtemp(prefix="sora-faults-"))
    try:
        bench = Bench(Program(given.sora.resolve(), compile_shim(library)), work, given.jobs)
        templates = make_templates(bench.program, Room(work / "room-t"), work / "templates")
        run(bench, [*trainings(), *others(templates)], work, given)
    finally:
        shutil.rmtree(work, ignore_errors=True)
        shutil.rmtree(library, ignore_errors=True)
    print(bench.tally.table())
    if given.table:
        given.table.write_text(bench.tally.table() + "\n")
    if not bench.tally.count():
        print(f"faults: no case ran: no scenario of --only '{given.only}' has '{given.scenario}' in its name", file=sys.stderr)
        return 1
    return 1 if bench.tally.mismatches else 0


# Bytes that all folders together may take; cases of the short form take 4 MiB.
MOST_TAKEN = 64 << 20


def in_memory() -> str | None:
    """A folder in memory, where there is one with room: thousands of runs wait for the disk else."""
    shared = "/dev/shm"
    roomy = os.access(shared, os.W_OK) and shutil.disk_usage(shared).free >= MOST_TAKEN
    return shared if roomy else None


# Budgets of each part: of one scenario, file, or meeting.
SHORT = {"kills": 12, "errors": 5, "disks": 2, "damage": 2, "memory": 3, "clock": 4, "locks": 1, "together": 2}
LONG = {"kills": 80, "errors": 60, "disks": 50, "damage": 40, "memory": 30, "clock": 40, "locks": 3, "together": 20}


def run(bench: Bench, scenarios: list[Scenario], work: Path, given: argparse.Namespace) -> None:
    def each(name: str, part, things: list) -> None:
        if given.only in name:
            started, before = time.monotonic(), bench.tally.count()
            for thing in things:
                part(bench, thing, (SHORT if given.short else LONG)[name])
            bench.wait()
            cases = bench.tally.count() - before
            print(f"{name}: {cases} cases in {time.monotonic() - started:.0f} s", flush=True)

    picked = [s for s in scenarios if given.scenario in s.name]
    each("kills", kills, picked)
    each("errors", errors, picked)
    each("disks", disks, picked)
    each("memory", memory, picked)
    each("clock", clock, picked)
    each("locks", locks, picked)
    each("together", together, [m for m in meetings(scenarios) if m.scenario in picked])
    if given.only in "damage":
        found = subjects(bench.program, Room(work / "room-s"), scenarios, work / "cut")
        each("damage", damages, [s for s in found if given.scenario in s.scenario.name])


if __name__ == "__main__":
    sys.exit(main())
