#!/usr/bin/env python3
"""Writes crates/sora/tests/golden/checkpoints: the weights of a small network (mnist-cnn, width 2, 8x8 images; `weight` of models.py, seed 5) in the
layouts in which PyTorch programs leave them. The archives' time stamps are PyTorch's own constants, so the bytes repeat.
"""

import collections
import warnings
from unittest import mock

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


class Settings(dict):
    """A dictionary whose keys are attributes, too, as settings libraries have them."""

    def __init__(self, **values):
        super().__init__(**values)
        self.__dict__.update(values)


def beside(state):
    """The weights with what training scripts leave beside them."""
    quantised = torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.qint8)
    groups = collections.defaultdict(list)
    groups["decay"].append(torch.ones(2))
    return {
        "state_dict": state,
        "config": Settings(lr=0.1, inner=Settings(mean=torch.ones(1))),
        "groups": groups,
        "window": collections.deque([1.0, torch.zeros(1)], maxlen=5),
        "scores": {("pgd", 10): 0.5, ("fgsm", 1): torch.tensor(0.7), None: 1},
        "sparse": torch.eye(3).to_sparse(),
        "complex": torch.ones(2, dtype=torch.complex64),
        "quantised": quantised,
        "float8": torch.ones(4).to(torch.float8_e4m3fn),
        "optimizer": torch.optim.Adam([nn.Parameter(torch.ones(2))]),
        "seen": {1, 2, 3},
    }


def main():
    warnings.filterwarnings("ignore")
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
    other = {k: torch.full_like(v, 0.5) for k, v in state.items()}
    turned = {k: v.T.contiguous().T if v.dim() == 2 else v.to(memory_format=torch.channels_last) if v.dim() == 4 else v for k, v in state.items()}
    for name, saved in (
        ("average.pt", {"model": state, "EMA": other}),
        ("best.pt", {"state_dict": state, "best": other}),
        ("alias.pt", {"state_dict": state, "best": state}),
        ("beside.pt", beside(state)),
        ("whole.pt", model),
        ("turned.pt", turned),
    ):
        torch.save(saved, FOLDER / name)
    # The old format keeps the source text of classes; that of PyTorch does not belong here.
    with mock.patch.object(torch.serialization, "get_source_lines_and_file", return_value=(["..."], 0, "layers.py")):
        torch.save(model, FOLDER / "whole_legacy.pt", _use_new_zipfile_serialization=False)


if __name__ == "__main__":
    main()
