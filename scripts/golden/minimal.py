"""The nearest adversarial points that DeepFool and the fast minimum-norm attack find on a small smooth network, written
from the papers (Moosavi-Dezfooli et al. 2016, arXiv 1511.04599, algorithm 2; Pintor et al. 2021, arXiv 2102.12827,
algorithm 1), image by image, in plain loops. One departure: until a point is adversarial the radius goes beyond the
linear estimate by its change."""

import math

import evaluation
import torch

# Seed for which f32 and f64 take the same decisions throughout.
SEED = 15
STEPS = {"fmn": 40, "deepfool": 50}


def length(norm, v):
    return (v.abs().max() if norm == "linf" else v.norm()).item()


def dual(norm, v):
    return (v.abs().sum() if norm == "linf" else v.norm()).item()


def annealed(first, last, k):
    return last + (first - last) * (1 + math.cos(math.pi * k / STEPS["fmn"])) / 2


def fmn(net, norm, x, y):
    """The nearest adversarial point, or the image."""
    best, nearest, radius, point = x, math.inf, math.inf, x
    for k in range(STEPS["fmn"] + 1):
        leaf = point.clone().requires_grad_()
        margin = evaluation.loss("margin", evaluation.logits(net, leaf[None])[0], y, None)
        grad = torch.autograd.grad(margin, leaf)[0]
        distance, gamma = length(norm, point - x), annealed(0.05, 0.001, k)
        if margin.item() > 0:
            if distance < nearest:
                best, nearest = point, distance
            radius = min(radius * (1 - gamma), nearest)
        elif nearest < math.inf:
            radius = radius * (1 + gamma)
        else:
            radius = (distance + abs(margin.item()) / dual(norm, grad)) * (1 + gamma)
        point = point + annealed(1, 0.01, k) * grad / grad.norm()
        point = evaluation.project(norm, x, point, radius)
    return best


def deepfool(net, norm, x, y):
    """The first adversarial point."""
    way, point = torch.zeros_like(x), x
    for _ in range(STEPS["deepfool"]):
        z = evaluation.logits(net, point[None])[0]
        if z.argmax() != y:
            return point
        steps = []
        for k in range(len(z)):
            if k != y:
                leaf = point.clone().requires_grad_()
                logits = evaluation.logits(net, leaf[None])[0]
                gap = logits[k] - logits[y]
                w = torch.autograd.grad(gap, leaf)[0]
                steps.append((abs(gap.item()) / dual(norm, w), w))
        distance, w = min(steps, key=lambda step: step[0])
        way = way + distance * (w.sign() if norm == "linf" else w / w.norm())
        point = (x + 1.02 * way).clamp(0, 1)
    return point


def minimal(dtype, seed=SEED):
    net, x, y, _, _ = evaluation.network(dtype, seed)
    out = dict(net) | {"x": x, "y": y}
    for norm in ("linf", "l2"):
        for name, attack in (("fmn", fmn), ("deepfool", deepfool)):
            out[f"{norm}.{name}"] = torch.stack([attack(net, norm, x[i], int(y[i])) for i in range(len(x))])
    return out
