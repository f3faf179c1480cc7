"""The network alone: logits, loss, gradients and running statistics in train and in eval mode."""

import torch
from torch.nn import functional as F

import inputs
import model as network
from guard import Guard
from step import STORED

FULL_GRADIENTS = STORED + ("layer4.1.conv2.weight",)


def outputs(model, x, y, margin):
    """Tensors of one forward and backward in each mode; the gradients of the weights are those of train mode."""
    guard = Guard(margin, x.dtype)
    guard.watch(model)
    out = {}
    for mode in ("eval", "train"):
        model.train(mode == "train").zero_grad()
        leaf = x.clone().requires_grad_(True)
        logits = model(leaf)
        guard.argmax(logits)
        loss = F.cross_entropy(logits, y)
        loss.backward()
        out |= {
            f"logits_{mode}": logits.detach(),
            f"loss_{mode}": loss.detach().reshape(1),
            f"input_grad_{mode}": leaf.grad,
        }
    for name, parameter in model.named_parameters():
        out[f"grad_norm.{name}"] = parameter.grad.norm().reshape(1)
        if name in FULL_GRADIENTS:
            out[f"grad.{name}"] = parameter.grad
    for name, buffer in model.state_dict().items():
        if "running" in name:
            out[f"buffer.{name}"] = buffer
    return out


def colour(seed, dtype, margin):
    generator = torch.Generator().manual_seed(2000 + seed)
    x, y = inputs.images(generator, 3, inputs.SIZE, inputs.SIZE), inputs.labels(generator)
    out = {"x": x, "y": y, "mean": torch.tensor(network.MEAN), "std": torch.tensor(network.STD)}
    return out | outputs(network.build().to(dtype), x.to(dtype), y, margin)


def gray(seed, dtype, margin):
    """One channel, odd height and width; every weight but the first convolution's as in the colour network."""
    generator = torch.Generator().manual_seed(3000 + seed)
    x, y = inputs.images(generator, 1, 7, 9), inputs.labels(generator)
    first = inputs.normal((network.WIDTH, 1, 3, 3), generator) / 3
    mean, std = [0.286], [0.353]
    model = network.build(mean, std)
    model.load_state_dict(network.build().state_dict() | {"conv1.weight": first})
    out = {"x": x, "y": y, "conv1.weight": first, "mean": torch.tensor(mean), "std": torch.tensor(std)}
    return out | outputs(model.to(dtype), x.to(dtype), y, margin)
