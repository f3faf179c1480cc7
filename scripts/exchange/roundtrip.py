#!/usr/bin/env python3
"""roundtrip.py SORA FOLDER [--n 500] [--size 16] [TRAIN FLAGS...]: train here, export, evaluate in PyTorch with torchattacks, import back.

Trains with `sora train` on an image folder that both sides read (FOLDER/images, drawn here), exports safetensors, loads the weights in PyTorch and
measures the clean accuracy and PGD-10 of torchattacks on the test images. Then the weights go through a PyTorch checkpoint (.pt, behind DataParallel and a normalisation
layer) back into the program. The clean accuracy must be the same in PyTorch, all accuracies the same
after the import, and torchattacks' PGD-10 within the interval of this program's.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy
import torch
import torchattacks
from PIL import Image
from safetensors.torch import load_file
from torch import nn

import networks

EPSILON = 8 / 255


def draw(folder, n_train, n_test, size, classes, seed=0):
    """A set of PNG images: a pattern for each class, shifted and under noise."""
    rng = numpy.random.default_rng(seed)
    patterns = rng.uniform(0.2, 0.8, (classes, size, size, 3))
    for split, count in (("train", n_train), ("test", n_test)):
        for k in range(count):
            label = k % classes
            shift = rng.integers(0, 3, 2)
            image = numpy.roll(patterns[label], shift, (0, 1)) + rng.normal(0, 0.12, patterns[label].shape)
            path = folder / split / f"class{label}" / f"{k:05}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((image.clip(0, 1) * 255).round().astype(numpy.uint8)).save(path)


def test_images(folder):
    """Images and labels of the test split, class folders in the order of their names."""
    images, labels = [], []
    for label, path in enumerate(sorted((folder / "test").iterdir())):
        for file in sorted(path.iterdir()):
            images.append(numpy.asarray(Image.open(file).convert("RGB")))
            labels.append(label)
    x = torch.from_numpy(numpy.stack(images)).permute(0, 3, 1, 2).float() / 255
    return x, torch.tensor(labels)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sora")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--n", type=int, default=500, help="test images")
    parser.add_argument("--size", type=int, default=16)
    args, more = parser.parse_known_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    images, run, back = args.folder / "images", args.folder / "run", args.folder / "back"
    draw(images, 1500, args.n, args.size, 10)
    call = lambda *words: subprocess.run([args.sora, *map(str, words)], check=True, stdout=subprocess.PIPE).stdout
    flags = more or ["--model", "preact-resnet18", "--width", "8", "--epochs", "4", "--batch", "32", "--lr-max", "0.05",
                     "--augment", "none", "--val", "100", "--epsilon", "8/255"]  # fmt: skip
    call(
        "train",
        "--dataset",
        f"folder:{images}",
        "--image-size",
        args.size,
        "--data-dir",
        args.folder / "cache",
        "--out",
        run,
        *flags,
    )
    evaluate = lambda subject: json.loads(
        call("eval", subject, "--attacks", "clean,fgsm,pgd-10", "--data-dir", args.folder / "cache", "--json")
    )["results"]
    first = evaluate(run)

    call("export", run, "--format", "safetensors", "--samples", 64)
    exported = run / "export" / "model.safetensors"
    model = networks.load(exported).eval()
    x, y = test_images(images)
    with torch.no_grad():
        clean = (model(x).argmax(1) == y).sum().item()
        samples = load_file(f"{exported}.samples.safetensors")
        gap = ((model(samples["images"]) - samples["logits"]).abs().max() / samples["logits"].abs().max()).item()
    attack = torchattacks.PGD(model, eps=EPSILON, alpha=EPSILON / 4, steps=10, random_start=True)
    robust = sum((model(attack(a, b)).argmax(1) == b).sum().item() for a, b in zip(x.split(100), y.split(100)))

    # Back through a checkpoint as PyTorch programs leave it.
    wrapped = nn.Sequential(nn.Identity(), nn.DataParallel(model.model))
    wrapped[0].register_buffer("mean", model.mean), wrapped[0].register_buffer("std", model.std)
    checkpoint = args.folder / "checkpoint.pt"
    torch.save({"state_dict": wrapped.state_dict(), "epoch": 3}, checkpoint)
    about = json.loads(networks.metadata(exported))["network"]
    call("import", checkpoint, "--model", about["name"], "--dataset", f"folder:{images}", "--image-size", args.size, "--out", back,
         "--data-dir", args.folder / "cache")  # fmt: skip
    again = evaluate(back)

    print(f"images {len(y)}, largest logit difference {gap:.1e} of the largest logit")
    print(f"clean     sora {first['clean']['correct']}  torch {clean}  imported {again['clean']['correct']}")
    print(f"fgsm      sora {first['fgsm']['correct']}  imported {again['fgsm']['correct']}")
    print(f"pgd-10    sora {first['pgd-10']['correct']}  torchattacks {robust}  imported {again['pgd-10']['correct']}")
    low, high = first["pgd-10"]["ci95"]
    same = all(first[name]["correct"] == again[name]["correct"] for name in first)
    good = gap < 1e-5 and clean == first["clean"]["correct"] and same and low <= robust / len(y) <= high
    print("the same" if good else "DIFFERENT")
    return not good


if __name__ == "__main__":
    sys.exit(main())
