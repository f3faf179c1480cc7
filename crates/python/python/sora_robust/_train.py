"""Adversarial training on sora's own networks."""

from __future__ import annotations

import json
import os
import tempfile
from typing import Any, Dict, Optional, Union

from . import _native
from ._progress import Progress, listener

_KEEP = []


class Run:
    """A finished training.

    Attributes:
        path: the run folder: `config.toml`, `metrics.jsonl`, `checkpoints/`, `model.safetensors`, ...
        summary: the final figures, with the keys of `summary.json`.
    """

    def __init__(self, path: str, summary: Dict[str, Any]):
        self.path, self.summary = path, summary

    def state_dict(self) -> Dict[str, Any]:
        """The final weights as torch tensors, with PyTorch's names."""
        from safetensors.torch import load_file

        return load_file(os.path.join(self.path, "model.safetensors"))

    def __repr__(self) -> str:
        return f"Run({self.path!r}, {self.summary['steps']} steps of {self.summary['method']})"


def _text(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{value!a}: expected valid Unicode; rename what has this name") from None
    # TOML's escapes are those of JSON, but for surrogate pairs; it has no bare U+007F.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _toml(value: Any, key: str) -> str:
    if hasattr(value, "tolist"):  # of NumPy and torch
        value = value.tolist()
    if isinstance(value, bool):
        return "true" if value else "false"
    # Subclasses have other forms than their numbers.
    if isinstance(value, int):
        return repr(int(value))
    if isinstance(value, float):
        return repr(float(value))
    if isinstance(value, (str, os.PathLike)):
        return _text(os.fsdecode(value))
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_toml(item, key) for item in value)}]"
    raise ValueError(
        f"{key}: expected a text, a number, a truth value or a list of them, found {type(value).__name__};"
        " leave out what keeps its default"
    )


def train(
    dataset: Union[str, "os.PathLike[str]"],
    *,
    method: str = "sora",
    out: Optional[Union[str, "os.PathLike[str]"]] = None,
    options: Optional[Dict[str, Any]] = None,
    progress: Progress = True,
    **settings: Any,
) -> Run:
    """Trains a network adversarially.

    Args:
        dataset: a name that `sora data list` knows, or "folder:PATH" with train/CLASS/*.png and test/CLASS/*.png.
        method: "sora", "fgsm", "pgd", ...; `sora methods` lists them.
        out: a new folder for the run; by default a temporary folder that is removed when the process ends.
        options: the method's hyperparameters, such as {"beta": 0.05}.
        progress: as in `evaluate`.
        settings: any key of config.toml: epsilon="8/255", epochs=30, model="preact-resnet18", milestones=[15, 25], ...;
            numbers may be of NumPy or torch.

    Raises:
        ValueError: a wrong setting.
        RuntimeError: training that fails.
    """
    if out is None:
        _KEEP.append(tempfile.TemporaryDirectory(prefix="sora-"))
        out = os.path.join(_KEEP[-1].name, "run")
    given = {"dataset": dataset, "method": method, **settings}
    lines = [f"{key} = {_toml(value, key)}" for key, value in given.items()]
    if options:
        lines += ["[options]"] + [f"{_text(key)} = {_toml(value, key)}" for key, value in options.items()]
    show = listener(progress)
    try:
        summary = _native.train("\n".join(lines), os.fspath(out), show)
    finally:
        if hasattr(show, "close"):
            show.close()
    return Run(os.fspath(out), json.loads(summary))
