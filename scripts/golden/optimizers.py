"""Optimizers on given gradients, and the learning rate of every step of each schedule."""

import math

import numpy as np
import torch

import inputs

LR_MIN, LR_MAX = 0.01, 0.2


def cyclic(t, total):
    """Up to the middle, back to the start: torch's CyclicLR with step_size_up = total // 2."""
    return float(np.interp(t, [0, total // 2, total], [LR_MIN, LR_MAX, LR_MIN]))


def multistep(t, total):
    return LR_MAX * 0.1 ** ((2 * t >= total) + (4 * t >= 3 * total))


def cosine(t, total):
    return LR_MAX * 0.5 * (1 + math.cos(math.pi * t / total))


def warmup_cosine(t, total):
    warm = total // 10
    return LR_MAX * t / warm if t < warm else cosine(t - warm, total - warm)


def constant(_t, _total):
    return LR_MAX


def stepped(optimizer, scheduler, total):
    """The learning rates of `total` steps of a torch scheduler."""
    rates = []
    for _ in range(total):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def milestones(total):
    """Torch's MultiStepLR: steps after 100 and 105 of 110 epochs."""
    sgd = torch.optim.SGD([torch.zeros(1, requires_grad=True)], LR_MAX)
    epochs = total // 110
    return stepped(sgd, torch.optim.lr_scheduler.MultiStepLR(sgd, [100 * epochs, 105 * epochs], 0.1), total)


def cosine_floor(total):
    """Torch's CosineAnnealingLR with eta_min 0.002."""
    sgd = torch.optim.SGD([torch.zeros(1, requires_grad=True)], LR_MAX)
    return stepped(sgd, torch.optim.lr_scheduler.CosineAnnealingLR(sgd, total, eta_min=0.002), total)


SCHEDULES = {
    "cyclic": cyclic,
    "multistep": multistep,
    "cosine": cosine,
    "warmup-cosine": warmup_cosine,
    "constant": constant,
}


def torch_cyclic(total):
    """Learning rate and momentum of torch's CyclicLR, which cycles the momentum too unless told not to."""
    sgd = torch.optim.SGD([torch.zeros(1, requires_grad=True)], LR_MIN, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CyclicLR(
        sgd, LR_MIN, LR_MAX, step_size_up=total // 2, step_size_down=total - total // 2
    )
    rates, momenta = [], []
    for _ in range(total):
        rates.append(sgd.param_groups[0]["lr"])
        momenta.append(sgd.param_groups[0]["momentum"])
        sgd.step()
        schedule.step()
    return rates, momenta


def schedules():
    """Tensors [T]: T = 40, and 41 for the names that end in `.odd`; `milestones` 110 and 330."""
    out = {}
    for name, rates, totals in (("milestones", milestones, (110, 330)), ("cosine-floor", cosine_floor, (40, 41))):
        for total, suffix in zip(totals, ("", ".odd")):
            out[name + suffix] = torch.tensor(rates(total), dtype=torch.float64)
    for name, rate in SCHEDULES.items():
        for total, suffix in ((40, ""), (41, ".odd")):
            out[name + suffix] = torch.tensor([rate(t, total) for t in range(total)], dtype=torch.float64)
    for total, suffix in ((40, ""), (41, ".odd")):
        rates, momenta = torch_cyclic(total)
        assert np.allclose(rates, out["cyclic" + suffix], rtol=1e-12), "CyclicLR differs from its formula"
        out["cyclic.momentum" + suffix] = torch.tensor(momenta, dtype=torch.float64)
    return out


STEPS = 6
OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, momentum=0.9, weight_decay=5e-4),
    "sgd-cyclic": lambda p: torch.optim.SGD(p, momentum=0.9, weight_decay=5e-4),
    "sgd-nesterov": lambda p: torch.optim.SGD(p, momentum=0.9, weight_decay=5e-4, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, weight_decay=5e-4),
    "adamw": lambda p: torch.optim.AdamW(p, weight_decay=1e-2),
}


def steps(dtype):
    """The given gradients and learning rates, and per optimizer the parameters [steps, 5] after every step."""
    generator = torch.Generator().manual_seed(9)
    out = {
        "start": inputs.normal(5, generator),
        "grads": inputs.normal((STEPS, 5), generator),
        "lr": torch.tensor([cyclic(t, STEPS) for t in range(STEPS)], dtype=torch.float64),
    }
    out["momentum"] = torch.tensor(torch_cyclic(STEPS)[1], dtype=torch.float64)
    for name, make in OPTIMIZERS.items():
        parameter = out["start"].to(dtype, copy=True).requires_grad_(True)
        optimizer = make([parameter])
        trail = []
        for rate, momentum, grad in zip(out["lr"].tolist(), out["momentum"].tolist(), out["grads"]):
            optimizer.param_groups[0]["lr"] = rate
            if name == "sgd-cyclic":
                optimizer.param_groups[0]["momentum"] = momentum
            parameter.grad = grad.to(dtype)
            optimizer.step()
            trail.append(parameter.detach().clone())
        out[name] = torch.stack(trail)
    return out
