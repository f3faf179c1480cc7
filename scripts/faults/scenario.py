"""Scenarios: a command, what must be there before it, and the outcome that has to be the same
whatever happened on the way."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from program import Program, Room

# Figures of the wall clock and the machine's load.
VOLATILE = re.compile(
    rb'"(seconds|val_seconds|images_per_s|peak_rss_mib|seconds_per_image)":\s*[^,}\]\n]*'
)
# Digests of texts with such figures in them.
DIGESTS = re.compile(rb'"(metrics\.jsonl|epochs\.jsonl|abandoned\.jsonl|sum)": "[0-9a-f]{64}"')
ROOM = re.compile(rb"room-[0-9a-z]")

Outcome = dict[str, bytes]


@dataclass(frozen=True)
class Scenario:
    """`command` of a folder is what is called, and called again after a fault; `template` is what
    the folder holds before; `outcome` reads what counts of the folder afterwards."""

    name: str
    command: Callable[[Path], list[str]]
    outcome: Callable[[Path], Outcome]
    template: Path | None = None

    def run(self, program: Program, room: Room, **fault):
        return program.run(self.command(room.files), room, **fault)


def read(folder: Path, *patterns: str) -> Outcome:
    """The files of `folder` that match, without volatile figures and without its own path."""
    found = {}
    for pattern in patterns:
        for path in sorted(folder.glob(pattern)):
            if path.is_file():
                # Rooms have names of one length, so that no header changes.
                data = ROOM.sub(b"room-", path.read_bytes())
                if path.suffix in (".json", ".jsonl"):
                    data = DIGESTS.sub(b"", VOLATILE.sub(b"", data))
                found[str(path.relative_to(folder))] = data
    return found


def leftovers(folder: Path) -> list[str]:
    """Files and folders that something was being written to."""
    return [
        str(path.relative_to(folder))
        for path in folder.rglob(".*")
        if path.name.endswith((".sora-tmp", ".tmp", ".old"))
        or path.name.startswith((".decoded-", ".unpacked-"))
    ]


def difference(expected: Outcome, found: Outcome) -> str | None:
    """The first thing in which two outcomes differ."""
    if expected.keys() != found.keys():
        return f"files {sorted(expected.keys() ^ found.keys())}"
    for name, data in expected.items():
        if data != found[name]:
            at = next((i for i, (a, b) in enumerate(zip(data, found[name])) if a != b), None)
            return f"{name} differs at byte {at if at is not None else 'of its end'}"
    return None
