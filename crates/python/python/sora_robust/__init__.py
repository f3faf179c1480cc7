"""Robust accuracy of any image classifier, and fast adversarial training.

>>> import sora_robust as sora
>>> report = sora.evaluate(model, x, y, epsilon=8 / 255, suite="autoattack")   # doctest: +SKIP
>>> report.accuracy["autoattack"]                                             # doctest: +SKIP
0.281
"""

from ._evaluate import Report, evaluate
from ._native import __version__
from ._train import Run, train

__all__ = ["Report", "Run", "__version__", "evaluate", "train"]
