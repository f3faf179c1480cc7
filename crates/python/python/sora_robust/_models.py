"""Adapters from models of other libraries to the interface of the compiled part."""

from __future__ import annotations

import copy
import os
from typing import Any, Callable, List, Optional, Tuple

import numpy as np

from ._shares import Shares, assigns, held, is_same

Pull = Callable[[bytes], bytes]


def _array(data: bytes, shape: Tuple[int, ...]) -> np.ndarray:
    return np.frombuffer(data, dtype=np.float32).reshape(shape)


def _bytes(values: Any, rows: int, what: str) -> bytes:
    array = np.ascontiguousarray(np.asarray(values), dtype=np.float32)
    if array.ndim != 2 or array.shape[0] != rows:
        raise ValueError(f"{what}: shape {array.shape}, expected [{rows}, classes]")
    return array.tobytes()


class OneOutput:
    """A model of two classes with one output an image: its logits are 0 and the log-odds of class 1."""

    # The nearest to 0 and 1 that a probability counts as, so that its log-odds are finite.
    NEAREST = 2.0**-24

    def __init__(self, said: Optional[str]):
        self.found, self.said = False, said

    @property
    def is_probability(self) -> bool:
        return self.found and self.said == "probability"

    def look(self, values: np.ndarray) -> int:
        """The number of classes of a model that gives these values for the first images."""
        if values.shape[1] > 1:
            if self.said is not None:
                raise ValueError(f"one_output: the model gives {values.shape[1]} values an image, not one")
            return int(values.shape[1])
        self.found = True
        within = bool(((values >= 0) & (values <= 1)).all())
        if self.said is None and within:
            raise ValueError(
                "the model has one output, from 0 to 1 on all images that were looked at: is it the probability of"
                " class 1, or its log-odds? Say one_output='probability' or one_output='logit'"
            )
        if self.said == "probability" and not within:
            raise ValueError("one_output='probability': the model's output is not always from 0 to 1")
        # What is decided on the first images holds for all that follow.
        self.said = self.said or "logit"
        return 2

    @property
    def note(self) -> Optional[str]:
        if not self.found:
            return None
        if self.is_probability:
            return "the network's one output is the probability p of class 1: its logits are 0 and ln(p / (1 - p))"
        return "the network's one output z is the log-odds of class 1: its logits are 0 and z"


class Callables:
    """A pair `(logits(x), pull_back(x, cotangent))` of functions of NumPy arrays, or `logits` alone.

    With one output (`[n, 1]`) the classes are 0 and 1.
    """

    def __init__(
        self, logits: Callable, pull_back: Optional[Callable], image: Tuple[int, int, int], said: Optional[str]
    ):
        self._logits, self._pull_back, self._image = logits, pull_back, image
        self.gradients = pull_back is not None
        self.one_output = OneOutput(said)

    def _images(self, data: bytes) -> np.ndarray:
        return _array(data, (-1, *self._image))

    def classes(self, x: np.ndarray) -> int:
        values = np.asarray(self._logits(x))
        if values.ndim != 2 or len(values) != len(x):
            raise ValueError(f"logits: shape {values.shape}, expected [{len(x)}, classes]")
        return self.one_output.look(values)

    def _probability(self, values: np.ndarray) -> np.ndarray:
        return np.clip(values.astype(np.float64), OneOutput.NEAREST, 1 - OneOutput.NEAREST)

    def _two(self, values: np.ndarray) -> np.ndarray:
        if not self.one_output.found:
            return values
        if self.one_output.is_probability:
            p = self._probability(values)
            # What is no probability is no answer: NaN counts as misclassified.
            values = np.where((values >= 0) & (values <= 1), np.log(p) - np.log1p(-p), np.nan)
        return np.concatenate([np.zeros_like(values), values], axis=1)

    def logits(self, data: bytes) -> bytes:
        x = self._images(data)
        return _bytes(self._two(np.asarray(self._logits(x))), len(x), "logits")

    def record(self, data: bytes) -> Tuple[bytes, Pull]:
        x = self._images(data)
        values = np.asarray(self._logits(x))
        logits = self._two(values)

        def pull(cotangent: bytes) -> bytes:
            c = _array(cotangent, logits.shape)
            if self.one_output.found:
                c = c[:, 1:]
            if self.one_output.is_probability:
                p = self._probability(values)
                c = (c / (p * (1 - p))).astype(np.float32)
            gradient = np.asarray(self._pull_back(x, c))
            if gradient.shape != x.shape:
                raise ValueError(f"gradient: shape {gradient.shape}, expected {x.shape}")
            return np.ascontiguousarray(gradient, dtype=np.float32).tobytes()

        return _bytes(logits, len(x), "logits"), pull


class Torch:
    """A `torch.nn.Module` in eval mode, on the device of its parameters.

    Parameters get no gradient; `close` restores the module's mode and its parameters' flags. On the CPU several threads
    call the module at once, each with a share of the batch, unless that changes what it gives or the module keeps
    something on itself, which another thread would overwrite.
    """

    gradients = True
    # Largest difference, relative to the largest value (at least 1), of values that count as the same.
    SAME = 1e-4

    def __init__(self, module: Any, image: Tuple[int, int, int], said: Optional[str]):
        import torch

        self.one_output = OneOutput(said)

        self._torch, self._module, self._image = torch, module, image
        first = next(iter(module.parameters()), None)
        self._device = torch.device("cpu") if first is None else first.device
        self._dtype = torch.float32 if first is None else first.dtype
        # A frozen module has no mode, and its weights are constants.
        self._training = [(m, m.training) for m in module.modules() if hasattr(m, "training")]
        # The flags of tensors of inference mode cannot be put back.
        self._flags = [(p, p.requires_grad) for p in module.parameters() if not p.is_inference()]
        if self._training:
            module.eval()
        for parameter, _ in self._flags:
            parameter.requires_grad_(False)
        if self._device.type == "cpu":
            # glibc gives freed blocks above a size back to the system, which clears them for the next pass. The size
            # grows to that of the largest block that was freed, up to 32 MiB.
            torch.empty(31 << 20, dtype=torch.uint8)
        self._shares = Shares(torch, self._device)
        self._in_bf16 = False

    @property
    def near(self) -> "Torch":
        """The same calls under autocast to bf16, for as long as this one is open."""
        near = copy.copy(self)
        near._in_bf16 = True
        return near

    def close(self) -> None:
        self._shares.close()
        for module, training in self._training:
            module.training = training
        for parameter, flag in self._flags:
            parameter.requires_grad_(flag)

    def _images(self, data: bytes) -> Any:
        array = _array(data, (-1, *self._image)).copy()
        return self._torch.from_numpy(array).to(self._device, self._dtype)

    def _values(self, x: Any) -> Any:
        if self._in_bf16:
            with self._torch.autocast(self._device.type, self._torch.bfloat16):
                logits = self._module(x)
        else:
            logits = self._module(x)
        if isinstance(logits, (tuple, list)):
            logits = logits[0]
        logits = getattr(logits, "logits", logits)
        if logits.ndim != 2:
            raise ValueError(f"the module gives shape {tuple(logits.shape)}, expected [n, classes]")
        return logits

    def _forward(self, x: Any) -> Any:
        values = self._values(x)
        if not self.one_output.found:
            return values
        if self.one_output.is_probability:
            p = values.double().clamp(OneOutput.NEAREST, 1 - OneOutput.NEAREST)
            is_one = (values >= 0) & (values <= 1)
            values = self._torch.where(is_one, p.log() - (-p).log1p(), float("nan"))
        return self._torch.cat([self._torch.zeros_like(values), values], dim=1)

    def classes(self, x: np.ndarray) -> int:
        images = self._images(x.tobytes())
        values = self._without_gradient(self._values, images)
        if self._keeps_something(images) or not self._is_same_in_shares(images, values):
            self._shares.close()
        return self.one_output.look(values.numpy())

    def _keeps_something(self, images: Any) -> bool:
        """Whether a pass leaves something of its images on the module, which threads would overwrite: that changes
        values only now and then. What a first pass makes once, as masks and compiled code, is there already.
        """
        if assigns(self._module):
            return True
        before = held(self._torch, self._module)
        # Other images and another number of them, so that what is kept of them differs.
        self._without_gradient(self._values, 1 - images.flip(0)[min(1, len(images) - 1) :])
        return not is_same(self._torch, before, held(self._torch, self._module))

    def _is_same_in_shares(self, images: Any, values: Any) -> bool:
        """Not of a module that draws numbers, nor of one whose images depend on each other, nor of too few images."""
        if self._shares.of(len(images)) < 2:
            return False
        parts = self._torch.cat(self._in_shares(self._values, images))
        return bool((parts - values).abs().max() <= self.SAME * values.abs().max().clamp(min=1))

    def _without_gradient(self, function: Callable, x: Any) -> Any:
        with self._torch.no_grad():
            return function(x).float().cpu()

    def _in_shares(self, function: Callable, x: Any) -> List[Any]:
        return self._shares.map(lambda share: self._without_gradient(function, share), self._split(x))

    def _split(self, x: Any) -> Tuple[Any, ...]:
        return x.tensor_split(self._shares.of(len(x)))

    def logits(self, data: bytes) -> bytes:
        x = self._images(data)
        return _bytes(self._torch.cat(self._in_shares(self._forward, x)).numpy(), len(x), "logits")

    def record(self, data: bytes) -> Tuple[bytes, Pull]:
        torch = self._torch
        batch = self._images(data)
        shares = [share.requires_grad_() for share in self._split(batch)]

        def forward(x: Any) -> Any:
            with torch.enable_grad():
                return self._forward(x)

        def backward(x: Any, logits: Any, cotangent: Any) -> Any:
            (gradient,) = torch.autograd.grad(logits, x, cotangent.to(logits))
            return gradient.detach().float().cpu()

        outputs = self._shares.map(forward, shares)

        def pull(cotangent: bytes) -> bytes:
            c = torch.from_numpy(_array(cotangent, (len(batch), outputs[0].shape[1])).copy())
            gradients = self._shares.map(backward, shares, outputs, c.split([len(share) for share in shares]))
            return torch.cat(gradients).contiguous().numpy().tobytes()

        logits = torch.cat([part.detach() for part in outputs]).float().cpu()
        return _bytes(logits.numpy(), len(batch), "logits"), pull


def adapt(model: Any, image: Tuple[int, int, int], one_output: Optional[str]) -> Any:
    """Converts `model` for the compiled part: to an object with `logits` and `record`, or to a path."""
    if isinstance(model, (str, os.PathLike)):
        return os.fspath(model)
    if hasattr(model, "path") and hasattr(model, "summary"):
        return os.fspath(model.path)
    if isinstance(model, tuple) and len(model) == 2 and all(map(callable, model)):
        return Callables(model[0], model[1], image, one_output)
    if hasattr(model, "parameters") and hasattr(model, "modules") and callable(model):
        return Torch(model, image, one_output)
    if callable(model):
        return Callables(model, None, image, one_output)
    raise TypeError(
        "model: expected a torch.nn.Module, a path (.onnx, .safetensors or a run folder), a Run, a pair"
        " (logits(x), pull_back(x, cotangent)), or logits(x) alone"
    )
