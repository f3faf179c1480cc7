"""The program under test: runs it, alone or with a fault, and says how it ended."""

import contextlib
import os
import resource
import shutil
import signal
import struct
import subprocess
import threading
from dataclasses import dataclass, field
from pathlib import Path

# A case takes a fraction of a second; what takes this long hangs.
HANGS = 120


@dataclass(frozen=True)
class Fault:
    """What the shim does, see shim.c: `do` happens at operation `at` (None: it only counts)."""

    at: int | None = None
    do: str = ""
    ops: str | None = None
    sticks: bool = False
    clock: tuple[int, int] | None = None
    locks: int | None = None

    def variables(self) -> dict[str, str]:
        found = {"FAULT_DO": self.do, "FAULT_STICKS": str(int(self.sticks))}
        if self.at is not None:
            found["FAULT_AT"] = str(self.at)
        if self.ops is not None:
            found["FAULT_OPS"] = self.ops
        if self.locks is not None:
            found["FAULT_LOCKS"] = str(self.locks)
        if self.clock is not None:
            found["FAULT_CLOCK"] = f"{self.clock[0]} {self.clock[1]}"
        return found


@dataclass(frozen=True)
class Ended:
    """How a call ended: its exit status (negative: the signal), what it wrote, operations counted."""

    status: int
    text: str
    counted: int = 0
    killed: bool = False

    def problem(self, allowed: tuple[int, ...] = (0,)) -> str | None:
        """What is wrong with it, where it was to end with one of `allowed`."""
        if "panicked at" in self.text:
            return f"a panic: {self.last_line()}"
        if self.status not in allowed:
            return f"exit status {self.status}: {self.last_line()}"
        if self.status in (1, 2) and "error:" not in self.text:
            return f"exit status {self.status} without a message"
        return None

    def warnings(self) -> int:
        return self.text.count("WARN")

    def last_line(self) -> str:
        lines = [line for line in self.text.splitlines() if line.strip()]
        errors = [line for line in lines if "error" in line or "panicked" in line]
        return " ".join((errors or lines or ["(nothing written)"])[-1].split())[:300]


@dataclass
class Room:
    """A folder for one case at a time: `files` is what the shim watches."""

    path: Path
    files: Path = field(init=False)

    def __post_init__(self) -> None:
        self.files = self.path / "files"

    def clear(self, template: Path | None = None) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.mkdir(parents=True)
        (self.path / "tmp").mkdir()
        if template is None:
            self.files.mkdir()
        else:
            shutil.copytree(template, self.files, symlinks=True)


def kill_all(process: subprocess.Popen[bytes]) -> None:
    """A SIGKILL to a process that `Program.start` began and to its children."""
    # It may end at this very moment.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


class Program:
    def __init__(self, sora: Path, shim: Path | None) -> None:
        self.sora, self.shim = sora, shim

    def run(
        self,
        arguments: list[str],
        room: Room,
        fault: Fault | None = None,
        memory: int | None = None,
        kill_after: float | None = None,
    ) -> Ended:
        """Runs `sora ARGUMENTS` in `room`, with a fault, a bound on its address space in bytes, or
        a SIGKILL to it and its children after some seconds."""
        process = self.start(arguments, room, fault, memory)
        killed = threading.Event()

        def kill() -> None:
            killed.set()
            kill_all(process)

        timer = threading.Timer(HANGS if kill_after is None else kill_after, kill)
        timer.start()
        try:
            text = process.communicate()[0].decode(errors="replace")
        finally:
            timer.cancel()
        status = process.returncode
        if killed.is_set() and kill_after is None:
            status, text = -99, text + f"\nerror: no end within {HANGS} s"
        counted = struct.unpack("q", (room.path / "counter").read_bytes())[0] if fault else 0
        return Ended(status, text, counted, status == -signal.SIGKILL)

    def start(
        self, arguments: list[str], room: Room, fault: Fault | None = None, memory: int | None = None
    ) -> subprocess.Popen[bytes]:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(room.path / "tmp"),
            "TMPDIR": str(room.path / "tmp"),
            "SORA_DATA": str(room.files / "data"),
            "NO_COLOR": "1",
        }
        if fault is not None and self.shim is not None:
            counter = room.path / "counter"
            counter.write_bytes(bytes(8))
            environment |= fault.variables()
            environment |= {
                "LD_PRELOAD": str(self.shim),
                "FAULT_DIR": str(room.files),
                "FAULT_COUNTER": str(counter),
            }

        def bound() -> None:
            if memory is not None:
                resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
                resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

        return subprocess.Popen(
            [self.sora, *arguments],
            env=environment,
            cwd=room.path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=bound if memory is not None else None,
        )


def compile_shim(folder: Path) -> Path:
    """Compiles shim.c with the machine's C compiler."""
    source, shim = Path(__file__).with_name("shim.c"), folder / "shim.so"
    compiler = os.environ.get("CC", "cc")
    subprocess.run(
        [compiler, "-O2", "-shared", "-fPIC", "-o", shim, source, "-ldl"], check=True
    )
    return shim
