"""Kills at counted and at random points: the repeated command ends in the outcome of an unbroken
one, and nothing half-written stays."""

from bench import Bench, drawn, faults_of
from program import Fault, Room
from scenario import Scenario

MANNERS = ("kill", "torn", "power")
PART = "kills"


def kills(bench: Bench, scenario: Scenario, budget: int) -> None:
    """About `budget` kills: half spread over the operations of the command, a quarter at two or
    three of them one after the other, a quarter by the clock."""
    unbroken = bench.unbroken(scenario)
    for at, manner in faults_of(unbroken.operations, MANNERS, budget // 2):
        bench.submit(counted, scenario, [Fault(at, manner)])
    for case in range(budget // 4 // 3):
        draw = drawn(scenario.name, case)
        # What goes on from a kill has less to do.
        ats = [1 + draw.randrange(unbroken.operations // n or 1) for n in (1, 2, 3)]
        bench.submit(counted, scenario, [Fault(at, draw.choice(MANNERS)) for at in ats])
    for case in range(budget // 4):
        part = drawn(scenario.name, "clock", case).random()
        bench.submit(by_clock, scenario, unbroken.seconds * part)


def counted(bench: Bench, room: Room, scenario: Scenario, faults: list[Fault]) -> None:
    """Kills the command, and then what goes on, at counted operations."""
    room.clear(scenario.template)
    words = " then ".join(f"{fault.do} at operation {fault.at}" for fault in faults)
    met = 0
    for fault in faults:
        ended = scenario.run(bench.program, room, fault=fault)
        if not ended.killed:
            # It was done before.
            if problem := ended.problem():
                return bench.tally.add(PART, scenario.name, "", f"{words}: {problem}")
            break
        met += 1
    bench.settle(PART, scenario, room, words, "the same bits", met)


def by_clock(bench: Bench, room: Room, scenario: Scenario, seconds: float) -> None:
    """Kills the command between any two instructions."""
    room.clear(scenario.template)
    words = f"killed after {seconds:.3f} s"
    ended = scenario.run(bench.program, room, kill_after=seconds)
    if not ended.killed and (problem := ended.problem()):
        return bench.tally.add(PART, scenario.name, "", f"{words}: {problem}")
    bench.settle(PART, scenario, room, words, "the same bits", int(ended.killed))
