"""Scenarios of what is done with a run: judged, drawn, written in other forms; grids; the cache of
decoded images."""

import shutil
import struct
import zlib
from pathlib import Path

from program import Program, Room
from scenario import Outcome, Scenario, read
from trainings import SHORT, SMALL

GRID = """attacks = ["clean", "pgd-10"]
limit = 16
[train]
dataset = "synthetic"
image_size = 8
model = "mnist-cnn"
width = 2
limit_train = 48
limit_test = 16
val = 8
batch = 16
epochs = 2
checkpoint_steps = 1
augment = "none"
lr_max = 0.05
threads = 1
[[runs]]
method = ["fgsm-rs", "atas"]
seed = [0, 1]
"""

EVAL = "--attacks clean,fgsm,pgd-10,square-40 --limit 16 --batch 4 --threads 2 --save-adv -q".split()
SWEEP = "--epsilons 2/255,8/255 --limit 16 --threads 2 -q".split()
FOLDER = (
    "--image-size 8 --model mnist-cnn --width 2 --augment none --lr-max 0.05 --threads 2 -q"
    " --val 8 --batch 16 --epochs 1 --method fgsm-rs"
).split()


def png(values: bytes, side: int) -> bytes:
    """A grey image of side x side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + values[i * side : (i + 1) * side] for i in range(side))
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def make_folder(path: Path) -> None:
    """Two classes, dark and bright, 24 + 8 images each."""
    for split, count in (("train", 24), ("test", 8)):
        for name, shade in (("dark", 40), ("bright", 200)):
            folder = path / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                values = bytes((shade + (7 * i + 3 * k) % 50) % 256 for k in range(144))
                (folder / f"{i}.png").write_bytes(png(values, 12))


def make_templates(program: Program, room: Room, place: Path) -> dict[str, Path]:
    """Folders that scenarios begin with: a finished run, its exported weights, a grid's file, a
    folder of images."""
    room.clear()
    run = room.files / "run"
    for call in (
        ["train", *SMALL, *SHORT, "--limit-test", "32", "--out", str(run)],
        ["eval", str(run), *EVAL],
        ["sweep", str(run), *SWEEP],
    ):
        ended = program.run(call, room)
        if problem := ended.problem():
            raise SystemExit(f"sora {' '.join(call)}: {problem}")
    names = {name: place / name for name in ("run", "judged", "weights", "grid", "images")}
    shutil.copytree(room.files, names["judged"])
    shutil.copytree(room.files, names["run"], ignore=shutil.ignore_patterns("eval", "plots"))
    names["weights"].mkdir()
    shutil.copy(run / "model.safetensors", names["weights"] / "given.safetensors")
    names["grid"].mkdir()
    (names["grid"] / "grid.toml").write_text(GRID)
    make_folder(names["images"] / "images")
    return names


def evaluation(folder: Path) -> Outcome:
    return read(folder / "run", "eval/*", "eval/.*")


def grid(folder: Path) -> Outcome:
    return read(folder / "runs", "*/*.safetensors", "*/metrics.jsonl", "*/summary.json", "*/eval/*.json")


def others(templates: dict[str, Path]) -> list[Scenario]:
    run, judged, weights = templates["run"], templates["judged"], templates["weights"]
    at_run = lambda *words: lambda folder: [words[0], str(folder / "run"), *words[1:]]
    return [
        Scenario("eval", at_run("eval", *EVAL), evaluation, run),
        Scenario("sweep", at_run("sweep", *SWEEP), evaluation, run),
        Scenario(
            "report",
            at_run("report", "-q", "--threads", "1", "--no-compute"),
            lambda folder: read(folder / "run", "report.html", "csv/*", "plots/*.svg"),
            judged,
        ),
        Scenario(
            "landscape",
            at_run("landscape", "-q", "--threads", "1", "--grid", "3", "--limit", "4"),
            lambda folder: read(folder / "run", "plots/*"),
            run,
        ),
        Scenario(
            "grid",
            lambda folder: ["grid", str(folder / "grid.toml"), "--out", str(folder / "runs"), "-q"],
            grid,
            templates["grid"],
        ),
        Scenario(
            "import",
            import_unless_done,
            lambda folder: read(folder / "taken", "*"),
            weights,
        ),
        Scenario(
            "export, safetensors",
            at_run("export", "--format", "safetensors", "--samples", "2", "-q"),
            lambda folder: read(folder / "run", "export/*"),
            run,
        ),
        Scenario(
            "export, onnx",
            at_run("export", "--format", "onnx", "-q"),
            lambda folder: read(folder / "run", "export/*"),
            run,
        ),
        Scenario(
            "decoded images",
            train_on_images,
            lambda folder: read(folder / "run", "*.safetensors"),
            templates["images"],
        ),
    ]


def import_unless_done(folder: Path) -> list[str]:
    taken = folder / "taken"
    if (taken / "model.safetensors").exists():
        return ["methods", "-q"]
    words = "--model mnist-cnn --dataset synthetic --image-size 8 -q".split()
    return ["import", str(folder / "given.safetensors"), *words, "--out", str(taken)]


def train_on_images(folder: Path) -> list[str]:
    run = folder / "run"
    if (run / "config.toml").exists():
        return ["resume", str(run), "-q"]
    return ["train", "--dataset", f"folder:{folder / 'images'}", *FOLDER, "--out", str(run)]
