"""What is damaged: every file that a command reads of what an earlier one wrote."""

import dataclasses
import shutil
from pathlib import Path

from damage import Subject, cut_off
from others import EVAL
from program import Program, Room
from scenario import Scenario


def subjects(program: Program, room: Room, scenarios: list[Scenario], place: Path) -> list[Subject]:
    """`place`: a folder for what they begin with."""
    by_name = {scenario.name: scenario for scenario in scenarios}
    on = lambda name, template, called: dataclasses.replace(
        by_name[name], name=called, template=template
    )
    cut = lambda name, part: cut_off(program, room, by_name[name], part, place / f"cut {name}")
    best = lambda folder: ["eval", str(folder / "run"), "--weights", "best", *EVAL]
    report = lambda folder: ["report", str(folder / "run"), "--no-compute", "-q"]
    room.clear(by_name["decoded images"].template)
    by_name["decoded images"].run(program, room)
    shutil.rmtree(room.files / "run")
    shutil.copytree(room.files, place / "decoded")
    return [
        Subject(on("train, atas", cut("train, atas", 0.8), "resume"), ("run/**/*",), (best, report)),
        Subject(
            on("train, rollback", cut("train, rollback", 0.9), "resume after a rollback"),
            ("run/**/*",),
            (best, report),
        ),
        Subject(on("eval", cut("eval", 0.6), "eval"), ("run/*.safetensors", "run/*.toml", "run/eval/*")),
        Subject(on("sweep", cut("sweep", 0.6), "sweep"), ("run/eval/*",)),
        # Of weights a report reads the header only; whoever uses them reads all.
        Subject(by_name["report"], ("run/*.toml", "run/*.json*", "run/eval/*.json")),
        Subject(by_name["export, onnx"], ("run/*.safetensors", "run/*.toml")),
        Subject(by_name["import"], ("given.safetensors",)),
        Subject(
            on("grid", cut("grid", 0.8), "grid"),
            ("runs/*/*.json", "runs/*/*.toml", "runs/*/eval/*", "runs/*/checkpoints/*/*"),
        ),
        Subject(on("decoded images", place / "decoded", "decoded images"), ("data/**/*",)),
    ]
