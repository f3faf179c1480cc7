"""Scenarios of trainings: every method that keeps a state, and what else a checkpoint holds."""

from pathlib import Path

from scenario import Outcome, Scenario, read

SMALL = (
    "--dataset synthetic --image-size 8 --model mnist-cnn --width 2 --augment none --lr-max 0.05"
    " --threads 1 -q --seed 3"
).split()
SHORT = (
    "--limit-train 72 --limit-test 16 --val 8 --batch 16 --epochs 2 --checkpoint-steps 3 --keep 2"
).split()

# Each of these keeps something besides the weights, or writes something besides checkpoints.
TRAININGS = {
    "sora": "",
    "free": "--method free --set replays=2",
    "atas": "--method atas",
    "fgsm-pgi": "--method fgsm-pgi",
    "elle-a": "--method elle --set adaptive=true",
    "lap": "--method lap",
    "average": "--method fgsm-rs --ema 0.9 --awp 0.005",
    "adam": "--method n-fgsm --optimizer adam --lr-max 0.001 --accumulate 2 --epsilon-warmup 1",
    "early stop": "--method fgsm-rs --early-stop 1 --val-steps 2 --tensorboard --epochs 3",
    "bf16": "--method pgd-2 --precision bf16 --model preact-resnet18",
}

# It falls to catastrophic overfitting within a hundred steps, and is rolled back.
ROLLBACK = (
    "--dataset synthetic --image-size 8 --model mnist-cnn --width 4 --limit-train 320 --limit-test 16"
    " --val 16 --batch 8 --epochs 6 --augment none --method fgsm --epsilon 16/255 --lr-max 0.3"
    " --checkpoint-steps 16 --keep 1 --threads 1 --on-co rollback -q"
).split()


def outcome(folder: Path) -> Outcome:
    found = read(
        folder / "run",
        "*.safetensors",
        "metrics.jsonl",
        "abandoned.jsonl",
        "epochs.jsonl",
        "summary.json",
        "config.toml",
        "checkpoints/*/*.safetensors",
    )
    # After a stop a run may keep checkpoints that an unbroken one does not write; the newest is the
    # same.
    kept = sorted({name.split("/")[1] for name in found if name.startswith("checkpoints/")})
    return {
        name: data
        for name, data in found.items()
        if not name.startswith("checkpoints/") or name.split("/")[1] == kept[-1]
    }


def command(settings: list[str]):
    """What a user calls: `train`, and `resume` once there is a run."""

    def of(folder: Path) -> list[str]:
        run = folder / "run"
        if (run / "config.toml").exists():
            return ["resume", str(run), "-q"]
        return ["train", *settings, "--out", str(run)]

    return of


def trainings() -> list[Scenario]:
    found = [
        Scenario(f"train, {name}", command([*SMALL, *SHORT, *more.split()]), outcome)
        for name, more in TRAININGS.items()
    ]
    return [*found, Scenario("train, rollback", command(ROLLBACK), outcome)]
