"""Calls that fail with ENOSPC or EIO, once or from there on: one message and exit status 1 (2 while
nothing has begun), or a warning; the repeated command ends in the unbroken outcome."""

import errno

from bench import Bench, faults_of
from program import Fault, Room
from scenario import Scenario, difference

ERRORS = (errno.ENOSPC, errno.EIO)


def errors(bench: Bench, scenario: Scenario, budget: int) -> None:
    """About `budget` operations that fail, spread over the command."""
    manners = [(error, sticks) for error in ERRORS for sticks in (False, True)]
    operations = bench.unbroken(scenario).operations
    for at, (error, sticks) in faults_of(operations, manners, budget):
        bench.submit(fails, scenario, Fault(at, str(error), sticks=sticks))


def fails(bench: Bench, room: Room, scenario: Scenario, fault: Fault) -> None:
    room.clear(scenario.template)
    name = errno.errorcode[int(fault.do)]
    part = f"{name}{' from there on' if fault.sticks else ''}"
    words = f"{name} at operation {fault.at}{' and after' if fault.sticks else ''}"
    ended = scenario.run(bench.program, room, fault=fault)
    if problem := ended.problem((0, 1, 2)):
        return bench.tally.add(part, scenario.name, "", f"{words}: {problem}")
    if ended.status == 0 and ended.warnings() <= bench.unbroken(scenario).warnings:
        # Nothing is said to be wrong, so nothing may be.
        problem = difference(bench.unbroken(scenario).outcome, scenario.outcome(room.files))
        if problem:
            return bench.tally.add(part, scenario.name, "", f"{words}: exit status 0, and {problem}")
    verdict = "without consequence" if ended.status == 0 else f"exit status {ended.status}"
    bench.settle(part, scenario, room, words, verdict)
