"""A machine that does not do as it should: too little memory, a clock that jumps, a file system
without locks."""

import errno
import signal

from bench import Bench
from program import Fault, Room
from scenario import Scenario, difference

MIB = 1 << 20
# Jumps of the wall clock in seconds: an hour, and to before 1970, and beyond the year 2106.
JUMPS = (-3600, 3600, -4_000_000_000, 3_000_000_000)


def memory(bench: Bench, scenario: Scenario, budget: int) -> None:
    """`budget` bounds on the address space, from less than the program itself takes."""
    bench.unbroken(scenario)
    least = takes_itself(bench)
    for i in range(budget):
        bench.submit(in_little_memory, scenario, least + 200 * i // budget * MIB)


def takes_itself(bench: Bench) -> int:
    """The address space without which the program does not even start."""
    if not bench.least_memory:
        while bench.program.run(["--version"], bench.spare, memory=bench.least_memory).status:
            bench.least_memory += 2 * MIB
    return bench.least_memory


def in_little_memory(bench: Bench, room: Room, scenario: Scenario, size: int) -> None:
    room.clear(scenario.template)
    part, words = "little memory", f"{size // MIB} MiB"
    ended = scenario.run(bench.program, room, memory=size)
    # An allocation that fails ends a Rust program with SIGABRT and a line.
    if ended.status == -signal.SIGABRT and "memory allocation of" in ended.text:
        verdict = "an allocation failed"
    elif problem := ended.problem((0, 1, 2)):
        return bench.tally.add(part, scenario.name, "", f"{words}: {problem}")
    else:
        verdict = "enough" if ended.status == 0 else f"exit status {ended.status}"
    bench.settle(part, scenario, room, words, verdict)


def clock(bench: Bench, scenario: Scenario, budget: int) -> None:
    """`budget` jumps, at the first readings of the clock and later ones."""
    bench.unbroken(scenario)
    for case in range(budget):
        at = 1 + case // len(JUMPS)
        bench.submit(with_a_jump, scenario, (JUMPS[case % len(JUMPS)], at))


def with_a_jump(bench: Bench, room: Room, scenario: Scenario, jump: tuple[int, int]) -> None:
    room.clear(scenario.template)
    words = f"the clock jumps by {jump[0]} s at reading {jump[1]}"
    ended = scenario.run(bench.program, room, fault=Fault(clock=jump))
    problem = ended.problem() or difference(
        bench.unbroken(scenario).outcome, scenario.outcome(room.files)
    )
    bench.tally.add("clock", scenario.name, "the same bits", problem and f"{words}: {problem}")


# What file systems answer that have no locks.
REFUSED = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


def locks(bench: Bench, scenario: Scenario, budget: int) -> None:
    """`budget` of the answers of file systems without locks."""
    bench.unbroken(scenario)
    for answer in REFUSED[:budget]:
        bench.submit(without_locks, scenario, answer)


def without_locks(bench: Bench, room: Room, scenario: Scenario, answer: int) -> None:
    room.clear(scenario.template)
    ended = scenario.run(bench.program, room, fault=Fault(locks=answer))
    problem = ended.problem() or difference(
        bench.unbroken(scenario).outcome, scenario.outcome(room.files)
    )
    # Whatever two processes could spoil says so.
    if not problem and scenario.name.startswith(("train", "eval", "sweep")):
        problem = None if "has no locks" in ended.text else "not said"
    verdict = "said" if "has no locks" in ended.text else "the same bits"
    name = errno.errorcode[answer]
    bench.tally.add("no locks", scenario.name, verdict, problem and f"{name}: {problem}")
