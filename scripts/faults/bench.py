"""What all parts share: the program, folders to work in, unbroken outcomes, the tally."""

import queue
import random
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from program import Ended, Fault, Program, Room
from scenario import Outcome, Scenario, difference, leftovers
from tally import Tally

M = TypeVar("M")


@dataclass(frozen=True)
class Unbroken:
    """A scenario without faults."""

    outcome: Outcome
    operations: int
    seconds: float
    warnings: int


class Bench:
    def __init__(self, program: Program, work: Path, jobs: int) -> None:
        self.program, self.tally = program, Tally()
        self.rooms: queue.SimpleQueue[Room] = queue.SimpleQueue()
        for i in range(jobs):
            self.rooms.put(Room(work / f"room-{i}"))
        # For what is done without faults, one at a time.
        self.spare = Room(work / "room-x")
        self.spare.clear()
        self.least_memory = 0
        self.pool = ThreadPoolExecutor(jobs)
        self.futures: list[Future] = []
        self.known: dict[str, Unbroken] = {}
        self.lock = threading.Lock()

    def submit(self, case: Callable, *arguments) -> None:
        """Runs `case(bench, room, *arguments)` when a room is free."""
        self.futures.append(self.pool.submit(self.guarded, case, *arguments))

    def guarded(self, case: Callable, *arguments) -> None:
        room = self.rooms.get()
        try:
            case(self, room, *arguments)
        except Exception as problem:  # a fault of this script is a mismatch, too
            traceback.print_exc()
            self.tally.add(case.__module__, "(this script)", "", repr(problem))
        finally:
            self.rooms.put(room)

    def wait(self) -> None:
        for future in self.futures:
            future.result()
        self.futures.clear()

    def unbroken(self, scenario: Scenario) -> Unbroken:
        """How `scenario` ends without faults, found once, and that it does so twice."""
        with self.lock:
            if scenario.name not in self.known:
                self.known[scenario.name] = self.find_unbroken(scenario)
            return self.known[scenario.name]

    def find_unbroken(self, scenario: Scenario) -> Unbroken:
        outcomes, seconds, ended, room = [], [], Ended(0, ""), self.spare
        for _ in range(2):
            room.clear(scenario.template)
            started = time.monotonic()
            ended = scenario.run(self.program, room, fault=Fault())
            seconds.append(time.monotonic() - started)
            if problem := ended.problem():
                raise RuntimeError(f"{scenario.name}, without a fault: {problem}\n{ended.text}")
            outcomes.append(scenario.outcome(room.files))
        if problem := difference(*outcomes):
            raise RuntimeError(f"{scenario.name}: two runs without a fault: {problem}")
        if not outcomes[0] or not ended.counted:
            raise RuntimeError(f"{scenario.name}: nothing to compare, or no operation counted")
        return Unbroken(outcomes[0], ended.counted, min(seconds), ended.warnings())

    def settle(
        self, part: str, scenario: Scenario, room: Room, words: str, verdict: str, times: int = 1
    ) -> None:
        """Repeats the command of `scenario` without a fault and holds what comes of it against the
        unbroken outcome."""
        ended = scenario.run(self.program, room)
        problem = ended.problem() or difference(
            self.unbroken(scenario).outcome, scenario.outcome(room.files)
        )
        if not problem and (left := leftovers(room.files)):
            problem = f"left behind: {left[0]}"
        self.tally.add(part, scenario.name, verdict, problem and f"{words}: {problem}", times)


def spread(count: int, budget: int) -> list[int]:
    """At most `budget` of the numbers 0 to count - 1, evenly."""
    if count <= budget:
        return list(range(count))
    return sorted({i * count // budget for i in range(budget)})


def faults_of(operations: int, manners: Sequence[M], budget: int) -> list[tuple[int, M]]:
    """About `budget` pairs of an operation, from 1, and a manner: evenly in both."""
    count = operations * len(manners)
    cases = range(count)
    if count > budget:
        cases = [(2 * i + 1) * count // (2 * budget) for i in range(budget)]
    return [(1 + case % operations, manners[case // operations]) for case in cases]


def drawn(*key: object) -> random.Random:
    """Random numbers that are the same in every run of this script."""
    return random.Random(" ".join(map(str, key)))


def said(ended: Ended, *words: str) -> bool:
    """Whether what a program wrote names one of `words`."""
    return any(word in ended.text for word in words)
