"""Flipped bits and cut-off files: what is read is noticed (refused, or said in a line and made up
for), or the outcome has the same bits."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench import Bench, drawn, spread
from program import Fault, Program, Room
from scenario import Outcome, Scenario, difference


@dataclass(frozen=True)
class Subject:
    """Files to damage (below the folder of `scenario`), and calls that show whether a file that the
    scenario left as it was is noticed by what reads it."""

    scenario: Scenario
    files: tuple[str, ...]
    readers: tuple[Callable[[Path], list[str]], ...] = ()


def cut_off(program: Program, room: Room, scenario: Scenario, part: float, place: Path) -> Path:
    """What is left of `scenario` where it is killed after a part of its operations."""
    room.clear(scenario.template)
    operations = scenario.run(program, room, fault=Fault()).counted
    room.clear(scenario.template)
    scenario.run(program, room, fault=Fault(max(1, int(operations * part)), "kill"))
    shutil.copytree(room.files, place)
    return place


def damages(bench: Bench, subject: Subject, flips: int) -> None:
    """`flips` flipped bits of each file and half as many cut-off ones."""
    bench.unbroken(subject.scenario)
    template = subject.scenario.template
    paths = {path for glob in subject.files for path in template.glob(glob) if path.is_file()}
    for path in sorted(paths):
        size, name = path.stat().st_size, str(path.relative_to(template))
        if not size:
            continue
        draw = drawn(name)
        for at in spread(size * 8, flips):
            bit = min(at + draw.randrange(max(1, size * 8 // flips)), size * 8 - 1)
            bench.submit(damaged, subject, name, bit, None)
        for length in spread(size, flips // 2):
            bench.submit(damaged, subject, name, None, length)


def damaged(bench: Bench, room: Room, subject: Subject, name: str, bit: int | None, length: int | None) -> None:
    scenario = subject.scenario
    room.clear(scenario.template)
    data = bytearray((room.files / name).read_bytes())
    if bit is not None:
        part, words = "flipped bits", f"{name}, bit {bit % 8} of byte {bit // 8}"
        data[bit // 8] ^= 1 << bit % 8
    else:
        part, words = "cut-off files", f"{name}, cut to {length} of {len(data)} bytes"
        del data[length:]
    (room.files / name).write_bytes(data)
    kind = f"{scenario.name}: {general(name)}"
    verdict, problem = judge(bench, room, subject, name)
    bench.tally.add(part, kind, verdict, problem and f"{words}: {problem}")


def general(name: str) -> str:
    """The name without the number of its checkpoint and the digest of its record."""
    parts = name.split("/")
    if "checkpoints" in parts:
        return f"checkpoint's {parts[-1]}"
    stem, dot, ending = parts[-1].partition(".json")
    return parts[-1] if not dot else stem.split("-")[0] + dot + ending


def judge(bench: Bench, room: Room, subject: Subject, name: str) -> tuple[str, str | None]:
    scenario = subject.scenario
    ended = scenario.run(bench.program, room)
    if problem := ended.problem((0, 1, 2)):
        return "", problem
    if ended.status:
        return "refused", None
    found, expected = scenario.outcome(room.files), bench.unbroken(scenario).outcome
    problem = difference(expected, found)
    if warnings(found) > warnings(expected):
        return "said on the page", None
    if ended.warnings() > bench.unbroken(scenario).warnings:
        # Said: then nothing but the file itself may be another.
        return "said", difference(*without(name, expected, found))
    if not problem:
        return "harmless", None
    if difference(*without(name, expected, found)):
        return "", problem
    # The file itself is as it was damaged; what reads it has to notice.
    for reader in subject.readers:
        ended = bench.program.run(reader(room.files), room)
        if ended.problem((0, 1, 2)):
            return "", ended.problem((0, 1, 2))
        if ended.status and Path(name).name in ended.text:
            return "noticed by its reader", None
    return "", f"{problem}, and nothing that reads it notices"


def warnings(outcome: Outcome) -> int:
    """Warnings on a report's page."""
    page = outcome.get("report.html", b"")
    part = page.partition(b'<ul class="warnings">')[2].partition(b"</ul>")[0]
    return part.count(b"<li>") + page.count(b"other weights than the run")


def without(name: str, *outcomes: Outcome) -> tuple[Outcome, ...]:
    """Outcomes without the damaged file."""
    drop = lambda key: name == key or name.endswith("/" + key)
    return tuple({k: v for k, v in outcome.items() if not drop(k)} for outcome in outcomes)
