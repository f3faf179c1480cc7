"""Several processes at once in one place: each ends as promised, and the outcome is that of one."""

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench import Bench
from program import HANGS, Ended, Room, kill_all
from scenario import Scenario, difference, leftovers

PART = "at once"


@dataclass(frozen=True)
class Meeting:
    """`scenario` in `count` processes; all but one may end with one of `refused`."""

    scenario: Scenario
    count: int
    refused: tuple[int, ...]
    # Where each process writes, if not all to the same place.
    apart: Callable[[Path, int], list[str]] | None = None


def meetings(scenarios: list[Scenario]) -> list[Meeting]:
    by_name = {scenario.name: scenario for scenario in scenarios}
    # Two trainings in one folder: the second is refused.
    found = [Meeting(by_name[name], 2, (2,)) for name in ("train, sora", "train, atas")]
    found += [Meeting(by_name[name], 3, ()) for name in ("eval", "sweep", "report", "export, onnx")]
    found += [Meeting(by_name["import"], 2, (2,)), Meeting(by_name["grid"], 2, (1, 2))]
    images = by_name["decoded images"]

    def apart(folder: Path, i: int) -> list[str]:
        return [word.replace(str(folder / "run"), str(folder / f"run{i or ''}")) for word in images.command(folder)]

    return [*found, Meeting(images, 3, (), apart)]


def together(bench: Bench, meeting: Meeting, budget: int) -> None:
    bench.unbroken(meeting.scenario)
    for _ in range(budget):
        bench.submit(meet, meeting)


def meet(bench: Bench, room: Room, meeting: Meeting) -> None:
    scenario = meeting.scenario
    room.clear(scenario.template)
    call = meeting.apart or (lambda folder, _: scenario.command(folder))
    # All calls first: a process that has begun changes what the next one would be asked to do.
    calls = [call(room.files, i) for i in range(meeting.count)]
    started = [bench.program.start(words, room) for words in calls]
    ended = []
    for process in started:
        try:
            text = process.communicate(timeout=HANGS)[0].decode(errors="replace")
        except subprocess.TimeoutExpired:
            kill_all(process)
            text = process.communicate()[0].decode(errors="replace") + f"\nerror: no end within {HANGS} s"
        ended.append(Ended(process.returncode, text))
    problem = first(one.problem((0, *meeting.refused)) for one in ended)
    # Of two grids each may have found a run of the other's in use.
    if not problem and all(one.status for one in ended) and 1 not in meeting.refused:
        problem = f"none of {meeting.count} did it: {ended[0].last_line()}"
    verdict = f"{sum(one.status == 0 for one in ended)} of {meeting.count} done"
    if problem:
        return bench.tally.add(PART, scenario.name, "", problem)
    if meeting.apart:
        problem = first(
            difference(bench.unbroken(scenario).outcome, read_apart(scenario, room, i))
            for i in range(meeting.count)
        )
        left = leftovers(room.files)
        problem = problem or (f"left behind: {left[0]}" if left else None)
        return bench.tally.add(PART, scenario.name, verdict, problem)
    bench.settle(PART, scenario, room, f"{meeting.count} at once", verdict)


def read_apart(scenario: Scenario, room: Room, i: int) -> dict[str, bytes]:
    """The outcome of the process number `i`, whose folder takes the first one's place."""
    if i:
        shutil.rmtree(room.files / "run")
        (room.files / f"run{i}").rename(room.files / "run")
    return scenario.outcome(room.files)


def first(problems) -> str | None:
    return next((problem for problem in problems if problem), None)
