#!/usr/bin/env python3
"""Writes crates/sora/tests/golden/checkpoints: the weights of a small network (mnist-cnn, width 2, 8x8 images; `weight` of models.py, seed 5) in the
layouts in which PyTorch programs leave them. The archives' time stamps are PyTorch's own constants, so the bytes repeat.
"""

import torch
from safetensors.torch import save_file
from torch import nn

import models as golden
import store
from models import networks

FOLDER = store.FOLDER / "checkpoints"


class Wrapped(nn.Module):
    """A network behind a normalisation layer with the buffers mu and sigma."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.register_buffer("mu", torch.full((1, 1, 1, 1), 0.25))
        self.register_buffer("sigma", torch.full((1, 1, 1, 1), 0.75))


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    model = networks.build("mnist-cnn", 2, channels=1, size=8)
    model.load_state_dict({k: golden.weight(k, tuple(v.shape), 5) for k, v in model.state_dict().items()})
    state = model.state_dict()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    sum(p.sum() for p in model.parameters()).backward()
    optimizer.step()
    model.load_state_dict({k: golden.weight(k, tuple(v.shape), 5) for k, v in model.state_dict().items()})
    trained = {
        "epoch": 3,
        "best": 0.5,
        "state_dict": state,
        "optimizer": optimizer.state_dict(),
        "args": {"lr": 0.1, "name": "x"},
    }
    for name, saved, options in (
        ("bare.pt", state, {}),
        ("module.pt", {"state_dict": nn.DataParallel(model).state_dict(), "epoch": 7}, {}),
        ("model_state_dict.pth", {"model_state_dict": state}, {}),
        ("legacy.pt", {"net": state, "acc": 12.5}, {"_use_new_zipfile_serialization": False}),
        ("normalised.pt", Wrapped(model).state_dict(), {}),
        ("optimizer.pt", trained, {}),
        ("half.pt", {k: v.half() for k, v in state.items()}, {}),
    ):
        torch.save(saved, FOLDER / name, **options)
    save_file(state, FOLDER / "bare.safetensors")


if __name__ == "__main__":
    main()
