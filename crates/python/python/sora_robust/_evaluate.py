"""Accuracy of a model, clean and under attack."""

from __future__ import annotations

import html
import json
import operator
import tempfile
from types import SimpleNamespace
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np

from . import _native
from ._copy import confirmed, copied, is_module
from ._models import adapt
from ._progress import Progress, listener

SUITES = {
    "quick": ["clean", "fgsm", "pgd-10"],
    "paper": ["clean", "fgsm", "pgd-10", "pgd-50x10", "autoattack"],
    "autoattack": ["clean", "autoattack"],
}
# What is left of them for a model without gradients.
FROM_LOGITS = {
    "quick": ["clean", "square-1000"],
    "paper": ["clean", "square-1000", "square"],
    "autoattack": ["clean", "square"],
}

NORMALISE = "mean and std: are for ONNX files; normalise in the model"
# The largest radius: what is more is infinite in f32.
F32_MAX = float(np.finfo(np.float32).max)
# Images on which a model's output is looked at before the attacks.
LOOKED_AT = 64


class Report:
    """The results of an evaluation.

    Attributes:
        accuracy: share of images classified correctly, by attack, in [0, 1].
        interval: 95 % Wilson interval of the accuracy, by attack, in [0, 1].
        warnings: remarks to read before the figures are trusted, such as signs of masked gradients.
        notes: where an attack departed from its definition, and why.
        adversarial: by attack, arrays `x`, `x_adv` [n, c, h, w], `y`, `pred` [n], `fallen` [n];
            empty unless `evaluate` was called with `adversarial=True`.
        n: number of images.
        epsilon: radius in pixel units.
        norm: "linf", "l2" or "l1".
        seed: seed of the random draws.
    """

    def __init__(self, data: Dict[str, Any], adversarial: Dict[str, Dict[str, np.ndarray]]):
        self._data = data
        results = data["results"]
        self.accuracy: Dict[str, float] = {k: v["accuracy"] for k, v in results.items()}
        self.interval: Dict[str, Tuple[float, float]] = {k: tuple(v["ci95"]) for k, v in results.items()}
        self.warnings: List[str] = data["warnings"]
        self.notes: List[str] = data["notes"]
        self.adversarial = adversarial
        self.n: int = data["n"]
        self.epsilon: float = data["epsilon"]
        self.norm: str = data["norm"]
        self.seed: int = data["seed"]

    def to_dict(self) -> Dict[str, Any]:
        """All values except the adversarial examples, with the keys of the program's JSON."""
        return json.loads(json.dumps(self._data))

    def __str__(self) -> str:
        lines = [f"n = {self.n}, {self.norm}, epsilon {self.epsilon:.5f}, seed {self.seed}"]
        for name, accuracy in self.accuracy.items():
            low, high = self.interval[name]
            lines.append(f"{name:16} {100 * accuracy:6.2f} %  ({100 * low:.2f} - {100 * high:.2f})")
        lines += [f"note: {text}" for text in self.notes]
        lines += [f"warning: {text}" for text in self.warnings]
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(name)}</td><td>{100 * accuracy:.2f} %</td>"
            f"<td>{100 * self.interval[name][0]:.2f} - {100 * self.interval[name][1]:.2f} %</td></tr>"
            for name, accuracy in self.accuracy.items()
        )
        remarks = "".join(f"<p>{html.escape(text)}</p>" for text in [*self.notes, *self.warnings])
        head = f"<p>n = {self.n}, {html.escape(self.norm)}, epsilon {self.epsilon:.5f}, seed {self.seed}</p>"
        return (
            f"{head}<table><thead><tr><th>attack</th><th>accuracy</th><th>95 % interval</th></tr></thead>"
            f"<tbody>{rows}</tbody></table>{remarks}"
        )


def _numpy(values: Any) -> np.ndarray:
    if not hasattr(values, "detach"):
        return np.asarray(values)
    tensor = values.detach().cpu()
    # NumPy has no bf16, and nothing narrower.
    narrow = tensor.is_floating_point() and tensor.element_size() <= 2
    return (tensor.float() if narrow else tensor).numpy()


def _images(x: Any) -> np.ndarray:
    images = _numpy(x)
    if images.ndim != 4 or 0 in images.shape:
        raise ValueError(f"x: shape {images.shape}, expected [n, channels, height, width] and at least one image")
    if not np.issubdtype(images.dtype, np.floating):
        raise ValueError(f"x: {images.dtype}, expected floating-point pixels in [0, 1]; divide bytes by 255")
    images = np.ascontiguousarray(images, dtype=np.float32)
    if not np.isfinite(images).all() or images.min() < 0 or images.max() > 1:
        raise ValueError(
            f"x: values from {images.min():g} to {images.max():g}, expected pixels in [0, 1];"
            " a normalisation belongs into the model"
        )
    return images


def _labels(y: Any, n: int) -> np.ndarray:
    labels = _numpy(y)
    if labels.shape != (n,) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"y: {labels.dtype} of shape {labels.shape}, expected {n} whole numbers")
    if labels.min() < 0:
        raise ValueError(f"y: {labels.min()}, expected classes from 0")
    return labels


def _radius(epsilon: Any, norm: str) -> float:
    try:
        radius = float(epsilon)
    except (TypeError, ValueError):
        raise ValueError(f"epsilon {epsilon!r}: expected a number, such as 8 / 255") from None
    if not 0 <= radius <= F32_MAX or (norm == "linf" and radius >= 1):
        hint = f"; did you mean {radius:g} / 255?" if 1 <= radius <= 255 else ""
        raise ValueError(f"epsilon {radius:g}: expected a finite radius, in pixel units on [0, 1]{hint}")
    return radius


def _whole(value: Any, what: str, least: int, most: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = -1
    if not least <= number <= most:
        raise ValueError(f"{what} {value!r}: expected a whole number from {least} to {most}")
    return number


def _channels(values: Any, what: str) -> List[float]:
    try:
        return [float(value) for value in values]
    except (TypeError, ValueError):
        raise ValueError(f"{what} {values!r}: expected a list of numbers, one for each channel") from None


def evaluate(
    model: Any,
    x: Any,
    y: Any,
    *,
    epsilon: float,
    norm: str = "linf",
    suite: Optional[str] = None,
    attacks: Optional[Sequence[str]] = None,
    seed: int = 0,
    batch_size: Optional[int] = None,
    progress: Progress = True,
    adversarial: bool = False,
    mean: Optional[Sequence[float]] = None,
    std: Optional[Sequence[float]] = None,
    one_output: Optional[str] = None,
    engine: Optional[str] = None,
    attack_precision: str = "f32",
) -> Report:
    """Accuracy of `model` on images `x` with classes `y`, clean and under attacks.

    Args:
        model: a `torch.nn.Module` that gives logits (any device; taken in eval mode; on a CPU called by several
            threads at once, unless it keeps something on itself or its logits on the first images change by that),
            a path (an ONNX file, a weights file or run folder of sora), a `Run`, or a pair of functions of NumPy arrays
            `(logits(x) -> [n, k], pull_back(x, cotangent [n, k]) -> gradient like x)`, for JAX and others.
            `logits` alone is a black box: suites then take what needs no gradient, and a note says so.
        x: [n, c, h, w], floating point in [0, 1]; NumPy or torch. Normalisation belongs into the model.
        y: [n] whole numbers from 0.
        epsilon: radius in pixel units, such as 8 / 255; in linf below 1.
        norm: "linf", "l2" or "l1".
        suite: "quick", "paper" or "autoattack"; default "quick".
        attacks: names instead of a suite, such as ["clean", "pgd-50x10", "square-5000"].
        seed: seed of all random draws. The batches of the images do not change the result.
        batch_size: images at a time; default 256.
        progress: True for bars (tqdm, if installed), False, or a function (what, done, total, remark).
        adversarial: keep the adversarial examples in the report.
        mean, std: mean and standard deviation of each channel, in [0, 1], for ONNX files that expect
            normalised images.
        one_output: what a model of two classes with one output [n, 1] gives: "logit" (the log-odds of
            class 1) or "probability" (of class 1); default "logit" where the values leave no doubt, and a
            note says so.
        engine: "sora" exports a torch module and attacks the copy in sora's engine on the CPU, which takes
            about a third of the time there. The copy's logits and gradients are compared with the module's on the
            first images, and its adversarial examples are shown to the module. Default: calls of the module.
        attack_precision: "bf16" lets attacks search in bf16: a torch module under `torch.autocast`, a run or
            weights file by sora's engine. What they find is scored in f32, and an image that only the search takes
            for fooled is attacked again in f32. Faster on processors with bf16 arithmetic; default "f32".

    Raises:
        ValueError: a wrong argument or file, or a module of which there is no true copy.
        RuntimeError: work that fails.
        Any exception that the model raises.
    """
    if suite is not None and attacks is not None:
        raise ValueError("suite and attacks: give one of them")
    if suite is not None and suite not in SUITES:
        raise ValueError(f"suite {suite!r}: expected one of {', '.join(SUITES)}")
    if isinstance(attacks, str):
        raise ValueError(f"attacks {attacks!r}: expected a list of names, such as ['clean', 'pgd-10']")
    images = _images(x)
    labels = _labels(y, len(images))
    epsilon = _radius(epsilon, norm)
    seed = _whole(seed, "seed", 0, 2**64 - 1)
    batch = 256 if batch_size is None else _whole(batch_size, "batch_size", 1, 2**31 - 1)
    if one_output not in (None, "logit", "probability"):
        raise ValueError(f"one_output {one_output!r}: expected 'logit' or 'probability'")
    if (mean is None) != (std is None):
        raise ValueError("mean and std: give both or none")
    normalisation = None if mean is None else (_channels(mean, "mean"), _channels(std, "std"))
    if engine not in (None, "sora"):
        raise ValueError(f"engine {engine!r}: expected 'sora', or none")
    if attack_precision not in ("f32", "bf16"):
        raise ValueError(f"attack_precision {attack_precision!r}: expected 'f32' or 'bf16'")
    in_bf16 = attack_precision == "bf16"
    if engine is not None:
        if in_bf16:
            raise ValueError("attack_precision 'bf16': not with engine='sora', which computes the copy in f32")
        if not is_module(model):
            raise ValueError("engine='sora': for a torch.nn.Module; files and runs are attacked in it as they are")
        if normalisation is not None:
            raise ValueError(NORMALISE)
        with copied(model, images[:LOOKED_AT], one_output) as (path, taken):
            report = evaluate(
                path, images, labels, epsilon=epsilon, norm=norm, suite=suite, attacks=attacks, seed=seed,
                batch_size=batch, progress=progress, adversarial=True, one_output=taken.one_output.said,
            )  # fmt: skip
            report.notes += ["attacked in sora's engine, as a copy of the module"]
            report.notes += confirmed(taken, report.adversarial, batch)
        if not adversarial:
            report.adversarial = {}
        return report
    subject = adapt(model, images.shape[1:], one_output)
    if in_bf16 and not isinstance(subject, str) and not hasattr(subject, "near"):
        raise ValueError("attack_precision 'bf16': for a torch.nn.Module, a run or a weights file")
    black_box = not getattr(subject, "gradients", True)
    names = list(attacks) if attacks is not None else (FROM_LOGITS if black_box else SUITES)[suite or "quick"]
    try:
        if isinstance(subject, str):
            size = images.shape[2] if images.shape[2] == images.shape[3] else None
            *found, classes = _native.shape_of(subject, normalisation, size)
            if tuple(found) != images.shape[1:]:
                raise ValueError(f"x: images of {images.shape[1:]}, the network takes {tuple(found)}")
        else:
            if normalisation is not None:
                raise ValueError(NORMALISE)
            classes = subject.classes(images[:LOOKED_AT])
        if labels.max() >= classes:
            raise ValueError(f"y: class {labels.max()}, the model has {classes} classes")
        with tempfile.TemporaryDirectory() as folder:
            request = SimpleNamespace(
                x=images.tobytes(), y=labels.astype(np.uint32).tolist(), shape=[*images.shape[1:], classes],
                epsilon=epsilon, norm=norm, attacks=names, seed=seed, batch=batch,
                keep=folder if adversarial else None, normalisation=normalisation, one_output=one_output,
                in_bf16=in_bf16,
            )  # fmt: skip
            show = listener(progress)
            try:
                text, kept = _native.evaluate(subject, request, show)
            finally:
                if hasattr(show, "close"):
                    show.close()
            examples = {}
            for name, path in kept:
                with np.load(path) as archive:
                    examples[name] = {key: archive[key] for key in archive.files}
    finally:
        if hasattr(subject, "close"):
            subject.close()
    found = json.loads(text)
    note = getattr(getattr(subject, "one_output", None), "note", None)
    if note is not None:
        found["notes"].append(note)
    if black_box:
        instead = "" if attacks is not None else f": {', '.join(names[1:])} in place of the attacks of the suite"
        found["notes"].append(
            f"the model gives logits without gradients{instead}; accuracies are upper bounds, an attacker who has"
            " the weights finds more"
        )
    return Report(found, examples)
