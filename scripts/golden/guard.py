"""Refuses values so near to a discontinuity that correct f32 programs may differ there."""

import torch
from torch import nn

from store import Ambiguous

# Distances that a case keeps, before its factor: of a gradient's sign from flipping (relative to the largest entry of
# the batch, or of the sample where batch norm does not couple the samples), of a ReLU's input from 0, of the two
# largest logits and other compared values from each other; of a matrix's smallest singular value from 0 (relative to its
# largest), where the nuclear norm has no gradient.
SIGN = 5e-6
RELU = 1e-6
COMPARED = 1e-4
RANK = 2e-3


class Guard:
    """The checks of one run; `factor` widens the margins. In f32, the comparison with f64 judges signs and ReLUs."""

    def __init__(self, factor, dtype):
        self.factor = factor if dtype == torch.float64 else 0

    def watch(self, model):
        for module in model.modules():
            if isinstance(module, nn.ReLU):
                module.register_forward_pre_hook(lambda _module, args: self.relu(args[0]))
        return model

    def relu(self, h):
        if h.abs().min() < self.factor * RELU:
            raise Ambiguous("a ReLU input is too near to 0")

    def sign(self, g, coupled=True, strict=1):
        size = g.abs().flatten(1)
        scale = size.max() if coupled else size.max(dim=1, keepdim=True).values
        if (size <= strict * self.factor * SIGN * scale).any():
            raise Ambiguous("the sign of a gradient entry is uncertain")

    def argmax(self, logits):
        top = logits.topk(2, dim=1).values
        self.apart(top[:, 0], top[:, 1])

    def apart(self, a, b):
        if (a - b).abs().min() < COMPARED:
            raise Ambiguous("a comparison is uncertain")

    def rank(self, matrix):
        values = torch.linalg.svdvals(matrix.detach())
        if values[-1] < self.factor * RANK * values[0]:
            raise Ambiguous("a singular value is too near to 0")

    def require(self, condition, reason):
        """Refuses a case that would leave a branch of its method untried."""
        if not condition:
            raise Ambiguous(reason)
