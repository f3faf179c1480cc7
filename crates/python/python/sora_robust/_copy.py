"""Copies of PyTorch modules in sora's engine, and whether they are what they copy."""

from __future__ import annotations

import contextlib
import tempfile
import warnings
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple

import numpy as np

from . import _native
from ._models import Torch

# Largest difference of logits, relative to the largest logit (at least 1).
LOGITS = 1e-4
# Largest difference of the gradients of all images looked at, relative to their length (l2).
GRADIENTS = 1e-2
OPSET = 17


def is_module(model: Any) -> bool:
    return all(hasattr(model, name) for name in ("parameters", "modules", "state_dict")) and callable(model)


@contextlib.contextmanager
def copied(module: Any, images: np.ndarray, one_output: Optional[str]) -> Iterator[Tuple[str, Torch]]:
    """Exports a `torch.nn.Module` to an ONNX file. While the block runs it has the file's path, and the module, with
    what was decided of it on `images`.

    Raises:
        ValueError: what cannot be exported, or a copy whose logits or input gradients on `images` are not the module's.
    """
    import torch

    subject = Torch(module, images.shape[1:], one_output)
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "module.onnx")
            sample = torch.from_numpy(images[:2].copy()).to(subject._device, subject._dtype)
            try:
                with warnings.catch_warnings():
                    # The exporter by tracing is deprecated; the other needs a package of its own.
                    warnings.simplefilter("ignore")
                    torch.onnx.export(
                        module, (sample,), path, dynamo=False, opset_version=OPSET, input_names=["x"],
                        dynamic_axes={"x": {0: "n"}},
                    )  # fmt: skip
                compare(subject, path, images, one_output)
            except Exception as e:
                text = str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
                raise ValueError(f"engine='sora': no copy of this module: {text}; leave out engine") from e
            yield path, subject
    finally:
        subject.close()


def compare(subject: Torch, path: str, images: np.ndarray, one_output: Optional[str]) -> None:
    classes = subject.classes(images)
    data = images.tobytes()
    # One direction for all logits, with both signs.
    cotangent = np.ascontiguousarray(np.tile(np.cos(np.arange(classes)), (len(images), 1)), dtype=np.float32)
    own, pull = subject.record(data)
    own_gradient = np.frombuffer(pull(cotangent.tobytes()), np.float32)
    size = images.shape[2] if images.shape[2] == images.shape[3] else None
    logits, gradient = _native.pull_back(path, data, cotangent.tobytes(), size, one_output)
    own, logits = (np.frombuffer(values, np.float32) for values in (own, logits))
    gradient = np.frombuffer(gradient, np.float32)
    away = float(np.abs(own - logits).max() / max(1.0, np.abs(own).max()))
    turned = float(np.linalg.norm(own_gradient - gradient) / max(float(np.linalg.norm(own_gradient)), 1e-30))
    # Written so that what is not a number is refused, too.
    if not away <= LOGITS:
        raise ValueError(f"its logits differ by {away:.1e} of the largest on {len(images)} images")
    if not turned <= GRADIENTS:
        raise ValueError(f"its input gradients differ by {turned:.1e} of their length on {len(images)} images")


def confirmed(subject: Torch, adversarial: Dict[str, Dict[str, np.ndarray]], batch: int) -> List[str]:
    """Shows the adversarial examples of a copy to the module; returns a note for each attack that it withstands.

    What its output is was decided on the clean images: that of an adversarial example may look like something else.
    """
    notes = []
    for name, found in adversarial.items():
        fallen = found["fallen"].astype(bool)
        x, y = found["x_adv"][fallen], found["y"][fallen]
        if len(x) == 0:
            continue
        parts = [subject.logits(x[i : i + batch].tobytes()) for i in range(0, len(x), batch)]
        withstood = int((np.frombuffer(b"".join(parts), np.float32).reshape(len(x), -1).argmax(1) == y).sum())
        if withstood:
            notes.append(f"{name}: {withstood} of {len(x)} adversarial examples of the copy do not fool the module itself")
    return notes
