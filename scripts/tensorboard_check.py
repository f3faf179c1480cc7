#!/usr/bin/env python3
"""Reads a run's TensorBoard event files back with the tensorboard package and compares them with metrics.jsonl and epochs.jsonl.

    pip install tensorboard && scripts/tensorboard_check.py RUN

The run must have been made with `sora train --tensorboard`. Exit status 1 and one line where anything differs.
"""

import json
import pathlib
import struct
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

TAGS = {
    "train/loss": "loss",
    "train/adv_acc": "adv_acc",
    "train/lr": "lr",
    "attack/alpha": "alpha",
    "attack/delta_mean": "delta_mean",
    "diagnose/pert_align": "pert_align",
    "diagnose/linearity": "linearity",
    "speed/images_per_s": "images_per_s",
}
VALIDATION = {"clean": "clean", "fgsm": "fgsm", "pgd-10": "pgd"}


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def f32(value):
    return struct.unpack("f", struct.pack("f", value))[0]


def main():
    run = pathlib.Path(sys.argv[1])
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()

    def check(tag, expected):
        expected = [(step, f32(value)) for step, value in expected]
        found = [(event.step, event.value) for event in events.Scalars(tag)] if expected else []
        if found != expected:
            first = next((pair for pair in zip(found, expected) if pair[0] != pair[1]), None)
            sys.exit(f"{run}: {tag}: {len(found)} values, expected {len(expected)}; first difference: {first}")

    steps, epochs = lines(run / "metrics.jsonl"), lines(run / "epochs.jsonl")
    for tag, key in TAGS.items():
        check(tag, [(line["step"], line[key]) for line in steps])
    for name, key in VALIDATION.items():
        check(f"val_step/{name}", [(line["step"], line["val"][key]["accuracy"]) for line in steps if line.get("val")])
        check(f"val/{name}", [(line["step"] - 1, line["val"][key]["accuracy"]) for line in epochs if line.get("val")])
    print(f"{run}: {len(steps)} steps and {len(epochs)} epochs agree")


main()
