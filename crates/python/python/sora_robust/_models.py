"""Adapters from models of other libraries to the interface of the compiled part."""

from __future__ import annotations

import os
from typing import Any, Callable, Optional, Tuple

import numpy as np

Pull = Callable[[bytes], bytes]


def _array(data: bytes, shape: Tuple[int, ...]) -> np.ndarray:
    return np.frombuffer(data, dtype=np.float32).reshape(shape)


def _bytes(values: Any, rows: int, what: str) -> bytes:
    array = np.ascontiguousarray(np.asarray(values), dtype=np.float32)
    if array.ndim != 2 or array.shape[0] != rows:
        raise ValueError(f"{what}: shape {array.shape}, expected [{rows}, classes]")
    return array.tobytes()


class Callables:
    """A pair `(logits(x), pull_back(x, cotangent))` of functions of NumPy arrays, or `logits` alone.

    With one sigmoid output (logits `[n, 1]`) the classes are 0 and 1.
    """

    def __init__(self, logits: Callable, pull_back: Optional[Callable], image: Tuple[int, int, int]):
        self._logits, self._pull_back, self._image = logits, pull_back, image
        self.gradients = pull_back is not None

    def _images(self, data: bytes) -> np.ndarray:
        return _array(data, (-1, *self._image))

    def classes(self, x: np.ndarray) -> int:
        found = np.asarray(self._logits(x)).shape
        if len(found) != 2 or found[0] != len(x):
            raise ValueError(f"logits: shape {found}, expected [{len(x)}, classes]")
        self.single = found[1] == 1
        return 2 if self.single else int(found[1])

    def _two(self, logits: np.ndarray) -> np.ndarray:
        return np.concatenate([np.zeros_like(logits), logits], axis=1) if self.single else logits

    def logits(self, data: bytes) -> bytes:
        x = self._images(data)
        return _bytes(self._two(np.asarray(self._logits(x))), len(x), "logits")

    def record(self, data: bytes) -> Tuple[bytes, Pull]:
        x = self._images(data)
        logits = self._two(np.asarray(self._logits(x)))

        def pull(cotangent: bytes) -> bytes:
            c = _array(cotangent, logits.shape)
            gradient = np.asarray(self._pull_back(x, c[:, 1:] if self.single else c))
            if gradient.shape != x.shape:
                raise ValueError(f"gradient: shape {gradient.shape}, expected {x.shape}")
            return np.ascontiguousarray(gradient, dtype=np.float32).tobytes()

        return _bytes(logits, len(x), "logits"), pull


class Torch:
    """A `torch.nn.Module` in eval mode, on the device of its parameters.

    Parameters get no gradient; `close` restores the module's mode and its parameters' flags.
    """

    gradients = True

    def __init__(self, module: Any, image: Tuple[int, int, int]):
        import torch

        self._torch, self._module, self._image = torch, module, image
        first = next(iter(module.parameters()), None)
        self._device = torch.device("cpu") if first is None else first.device
        self._dtype = torch.float32 if first is None else first.dtype
        self._training = [(m, m.training) for m in module.modules()]
        self._flags = [(p, p.requires_grad) for p in module.parameters()]
        module.eval()
        for parameter, _ in self._flags:
            parameter.requires_grad_(False)

    def close(self) -> None:
        for module, training in self._training:
            module.training = training
        for parameter, flag in self._flags:
            parameter.requires_grad_(flag)

    def _images(self, data: bytes) -> Any:
        array = _array(data, (-1, *self._image)).copy()
        return self._torch.from_numpy(array).to(self._device, self._dtype)

    def _forward(self, x: Any) -> Any:
        logits = self._module(x)
        if isinstance(logits, (tuple, list)):
            logits = logits[0]
        logits = getattr(logits, "logits", logits)
        if logits.ndim != 2:
            raise ValueError(f"the module gives shape {tuple(logits.shape)}, expected [n, classes]")
        if logits.shape[1] == 1:
            logits = self._torch.cat([self._torch.zeros_like(logits), logits], dim=1)
        return logits

    def classes(self, x: np.ndarray) -> int:
        with self._torch.no_grad():
            return int(self._forward(self._images(x.tobytes())).shape[1])

    def logits(self, data: bytes) -> bytes:
        x = self._images(data)
        with self._torch.no_grad():
            return _bytes(self._forward(x).float().cpu().numpy(), len(x), "logits")

    def record(self, data: bytes) -> Tuple[bytes, Pull]:
        torch = self._torch
        x = self._images(data).requires_grad_()
        with torch.enable_grad():
            logits = self._forward(x)

        def pull(cotangent: bytes) -> bytes:
            c = torch.from_numpy(_array(cotangent, tuple(logits.shape)).copy()).to(logits)
            (gradient,) = torch.autograd.grad(logits, x, c)
            return gradient.detach().float().contiguous().cpu().numpy().tobytes()

        return _bytes(logits.detach().float().cpu().numpy(), len(x), "logits"), pull


def adapt(model: Any, image: Tuple[int, int, int]) -> Any:
    """Converts `model` for the compiled part: to an object with `logits` and `record`, or to a path."""
    if isinstance(model, (str, os.PathLike)):
        return os.fspath(model)
    if hasattr(model, "path") and hasattr(model, "summary"):
        return os.fspath(model.path)
    if isinstance(model, tuple) and len(model) == 2 and all(map(callable, model)):
        return Callables(model[0], model[1], image)
    if hasattr(model, "parameters") and hasattr(model, "modules") and callable(model):
        return Torch(model, image)
    if callable(model):
        return Callables(model, None, image)
    raise TypeError(
        "model: expected a torch.nn.Module, a path (.onnx, .safetensors or a run folder), a Run, a pair"
        " (logits(x), pull_back(x, cotangent)), or logits(x) alone"
    )
