"""Images, labels and weights that the cases share."""

import torch

import model as network

BATCH = 8
SIZE = 10
# The first seed for which the methods without random draws meet no ambiguous value.
BATCH_SEED = 38


def images(generator, channels, height, width):
    """Uniform in [0, 1], about a tenth each at exactly 0 and 1, so that the box is active."""
    u = torch.rand(BATCH, channels, height, width, generator=generator)
    return (u * 1.25 - 0.125).clamp(0, 1)


def labels(generator):
    return torch.randint(0, network.CLASSES, (BATCH,), generator=generator)


def batches(seed=BATCH_SEED):
    """The two batches that the training steps run on."""
    generator = torch.Generator().manual_seed(1000 + seed)
    tensors = {}
    for t in (1, 2):
        tensors[f"x{t}"] = images(generator, 3, SIZE, SIZE)
        tensors[f"y{t}"] = labels(generator)
    return tensors
