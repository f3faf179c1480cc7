"""Full disks: the folder lies on a file system of a given size; what does not fit is said, and with
room the repeated command ends in the unbroken outcome. Mounting needs root: elsewhere writing fails
from a given operation on, which the shim does."""

import errno
import os
import shutil
import subprocess
from pathlib import Path

from bench import Bench, spread
from program import Fault, Room
from scenario import Scenario
from errors import fails

PART = "full disk"
# Blocks of the file system.
BLOCK = 4096


def disks(bench: Bench, scenario: Scenario, budget: int) -> None:
    """`budget` sizes, from almost nothing to almost enough."""
    operations = bench.unbroken(scenario).operations
    if not can_mount(bench):
        for point in spread(operations, budget):
            bench.submit(fails, scenario, Fault(1 + point, str(errno.ENOSPC), "wort", sticks=True))
        return
    bench.wait()
    begins, needed = (blocks(bench, scenario, run) for run in (False, True))
    for i in range(budget):
        size = begins + 2 + i * (needed - begins) // budget
        bench.submit(full, scenario, BLOCK * size)


def can_mount(bench: Bench) -> bool:
    if os.geteuid() != 0:
        return False
    bench.spare.clear()
    done = mount(bench.spare.files, 1 << 20)
    if done:
        unmount(bench.spare.files)
    return done


def mount(path: Path, size: int) -> bool:
    call = ["mount", "-t", "tmpfs", "-o", f"size={size}", "sora-faults", str(path)]
    return subprocess.run(call, capture_output=True).returncode == 0


def unmount(path: Path) -> None:
    # Lazily: whoever looks at the memory of a process that has just ended (monitors do) keeps the
    # files that it had mapped for a moment.
    subprocess.run(["umount", "--lazy", str(path)], check=True)


def blocks(bench: Bench, scenario: Scenario, run: bool) -> int:
    """Blocks that the folder takes before an unbroken command, or after it."""
    bench.spare.clear(scenario.template)
    if run:
        scenario.run(bench.program, bench.spare)
    # A folder takes a block, too.
    return sum(max(1, -(-path.lstat().st_size // BLOCK)) for path in bench.spare.files.rglob("*"))


def full(bench: Bench, room: Room, scenario: Scenario, size: int) -> None:
    room.clear()
    words = f"a disk of {size // 1024} KiB"
    if not mount(room.files, size):
        return bench.tally.add(PART, scenario.name, "", f"{words}: cannot be mounted")
    try:
        try:
            if scenario.template:
                shutil.copytree(scenario.template, room.files, dirs_exist_ok=True)
        except (OSError, shutil.Error):
            return bench.tally.add(PART, scenario.name, "too small to begin with")
        ended = scenario.run(bench.program, room)
        kept = room.path / "kept"
        shutil.copytree(room.files, kept)
    finally:
        unmount(room.files)
    room.files.rmdir()
    kept.rename(room.files)
    problem = ended.problem((0, 1, 2))
    if not problem and ended.status and "No space left" not in ended.text:
        problem = f"the reason is not said: {ended.last_line()}"
    if problem:
        return bench.tally.add(PART, scenario.name, "", f"{words}: {problem}")
    verdict = "enough, or a warning" if ended.status == 0 else f"exit status {ended.status}"
    bench.settle(PART, scenario, room, words, verdict)
