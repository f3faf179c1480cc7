#!/usr/bin/env python3
"""Runs public attacks in PyTorch on weights and images that `sora` exported; one JSON file an attack, which is not
repeated for the same weights, images and settings.

    peer.py --weights model.safetensors --images images.npz --out DIR [--tool torchattacks] [--attacks fgsm,pgd-10,...]

Attacks are those of torchattacks 3.5.1 (PyPI) with the settings of the literature, which are not always its defaults:
100 steps in APGD and FAB, 9 target classes. `--tool auto-attack --auto-attack-path CHECKOUT` runs the official AutoAttack
from a checkout of its repository (it has no distribution on PyPI).

An image counts as robust if it is classified correctly clean and as attacked. A result that lies outside the ball or the
box by more than 1e-5 is a failure of the tool and ends the run.
"""

import argparse
import json
import os
import re
import sys
import time
from pathlib import Path

import numpy as np
import torch

from network import load
from subject import digest


def number(text):
    """A radius or size of a step, for example 8/255."""
    top, _, bottom = text.partition("/")
    return float(top) / float(bottom or 1)


def torchattack(name, model, norm, epsilon, classes, seed):
    """The attack called `name` by us, as torchattacks has it."""
    import torchattacks as ta
    from torchattacks.wrappers.multiattack import MultiAttack

    kind = {"linf": "Linf", "l2": "L2"}[norm]
    common = {"norm": kind, "eps": epsilon, "seed": seed}
    base, _, given = name.partition(":")
    steps = int(given) if given.isdigit() else 100

    def apgd(loss):
        return ta.APGD(model, steps=steps, loss=loss, n_restarts=1, **common)

    def apgd_t():
        return ta.APGDT(model, steps=steps, n_restarts=1, n_classes=classes, **common)

    def fab(targeted):
        return ta.FAB(model, steps=steps, multi_targeted=targeted, n_restarts=1, n_classes=classes, **common)

    def square(queries=5000):
        return ta.Square(model, n_queries=queries, p_init=0.8, n_restarts=1, loss="margin", resc_schedule=False, **common)

    if base == "fgsm":
        return ta.FGSM(model, eps=epsilon)
    if pgd := re.fullmatch(r"pgd-(\d+)(?:@(.+))?", base):
        steps, alpha = int(pgd[1]), number(pgd[2]) if pgd[2] else epsilon / 4
        return (ta.PGDL2 if norm == "l2" else ta.PGD)(model, eps=epsilon, alpha=alpha, steps=steps)
    if base == "square":
        return square(int(given) if given else 5000)
    if base == "autoattack":
        # With the schedule of the paper in each part.
        steps = 100
        return MultiAttack([apgd("ce"), apgd_t(), fab(True), square()])
    if base == "autoattack-default":
        return ta.AutoAttack(model, norm=kind, eps=epsilon, n_classes=classes, seed=seed)
    makers = {"apgd-ce": lambda: apgd("ce"), "apgd-dlr": lambda: apgd("dlr"), "apgd-t": apgd_t}
    makers |= {"fab": lambda: fab(False), "fab-t": lambda: fab(True)}
    if base in makers:
        return makers[base]()
    if base == "cw" and norm == "l2":
        # No binary search in torchattacks: several constants, an image is robust if it survives each.
        constants = [float(c) for c in given.split("/")] if given else [0.1, 1, 10, 100]
        return MultiAttack([ta.CW(model, c=c, kappa=0, steps=100, lr=0.01) for c in constants])
    sys.exit(f"peer.py: no attack '{name}' for norm {norm} in torchattacks")


def official(name, model, norm, epsilon, seed, path):
    """The attack called `name` as the official AutoAttack runs it; `square:500` with so many queries."""
    sys.path.insert(0, str(path))
    from autoattack import AutoAttack

    kind = {"linf": "Linf", "l2": "L2", "l1": "L1"}[norm]
    tool = AutoAttack(model, norm=kind, eps=epsilon, seed=seed, version="standard", device="cpu", verbose=True)
    if name != "autoattack":
        name, _, queries = name.partition(":")
        tool.attacks_to_run = [name]
        if queries:
            tool.square.n_queries = int(queries)
    return lambda x, y: tool.run_standard_evaluation(x, y, bs=len(x))


class PlainGradient(torch.autograd.Function):
    """The identity, whose gradient lies in memory as the l2 attacks of torchattacks expect it: they take views of it."""

    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        return grad.contiguous()


class WithPlainGradient(torch.nn.Module):
    """`model` with such gradients for the images."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(PlainGradient.apply(x))


def result_file(args, name, epsilon, n, of):
    """Where the result of the attack `name` is kept: everything that decides it is in the file's name."""
    attack = name.replace(":", "-").replace("/", "_")
    return args.out / f"{args.tool}-{attack}-{args.norm}-{epsilon:.6g}-n{n}-seed{args.seed}-{of}.json"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tool", choices=["torchattacks", "auto-attack"], default="torchattacks")
    parser.add_argument("--auto-attack-path", type=Path)
    parser.add_argument("--attacks", default="fgsm,pgd-10,apgd-ce,apgd-dlr,apgd-t,fab-t,square,autoattack")
    parser.add_argument("--norm", choices=["linf", "l2", "l1"], default="linf")
    parser.add_argument("--epsilon", default="8/255")
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=125)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    epsilon = number(args.epsilon)

    model = WithPlainGradient(load(args.weights).to(memory_format=torch.channels_last)).eval()
    arrays = np.load(args.images)
    pixels = arrays["x"][: args.n]
    pixels = pixels.astype(np.float32) / 255 if pixels.dtype == np.uint8 else pixels
    x = torch.from_numpy(pixels)
    y = torch.from_numpy(arrays["y"][: args.n].astype(np.int64))
    of = digest(args.weights, args.images)
    args.out.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        logits = torch.cat([model(part) for part in x.split(args.batch)])
    clean = logits.argmax(1) == y
    np.savez(args.out / "clean.npz", logits=logits.numpy(), robust=clean.numpy())

    for name in args.attacks.split(","):
        file = result_file(args, name, epsilon, len(x), of)
        if file.exists():
            print(file.read_text())
            continue
        torch.manual_seed(args.seed)
        robust = clean.clone()
        started = time.time()
        # Batches of the first images first, so that a run cut off has an answer for the images up to some point.
        for chunk in clean.nonzero().flatten().split(args.batch):
            if args.tool == "torchattacks":
                attack = torchattack(name, model, args.norm, epsilon, logits.shape[1], args.seed)
            else:
                attack = official(name, model, args.norm, epsilon, args.seed, args.auto_attack_path)
            adversarial = attack(x[chunk], y[chunk]).detach()
            with torch.no_grad():
                stands = model(adversarial).argmax(1) == y[chunk]
            delta = (adversarial - x[chunk]).flatten(1)
            distance = delta.norm(dim=1, p={"linf": float("inf"), "l2": 2, "l1": 1}[args.norm])
            if name.startswith("cw"):
                # It seeks the nearest adversarial image, whatever epsilon is.
                stands |= distance > epsilon
            elif distance.max() > epsilon * (1 + 1e-5) + 1e-5 or adversarial.min() < -1e-5 or adversarial.max() > 1 + 1e-5:
                sys.exit(f"{name}: the result lies outside the ball or the box by {distance.max() - epsilon}")
            robust[chunk] = stands
            np.savez(file.with_suffix(".part.npz"), robust=robust.numpy(), done=int(chunk[-1]) + 1)
            print(f"{name}: {int(robust.sum())} stand, {time.time() - started:.0f} s", file=sys.stderr, flush=True)
        result = {
            "tool": args.tool,
            "attack": name,
            "norm": args.norm,
            "epsilon": epsilon,
            "n": len(x),
            "of": of,
            "seed": args.seed,
            "threads": args.threads,
            "clean": clean.float().mean().item(),
            "accuracy": robust.float().mean().item(),
            "seconds": time.time() - started,
        }
        np.save(file.with_suffix(".npy"), robust.numpy())
        file.with_suffix(".part.npz").unlink(missing_ok=True)
        # Whole or not at all: what is there counts as done.
        written = file.with_suffix(".new")
        written.write_text(json.dumps(result) + "\n")
        os.replace(written, file)
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
