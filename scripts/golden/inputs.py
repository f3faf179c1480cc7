"""Images, labels and weights that the cases share."""

import torch

import model as network

BATCH = 8
SIZE = 10
# A seed for which the methods without random draws meet no ambiguous value.
BATCH_SEED = 20


def images(generator, channels, height, width):
    """Uniform in [0, 1], about a tenth each at exactly 0 and 1, so that the box is active."""
    u = torch.rand(BATCH, channels, height, width, generator=generator)
    return (u * 1.25 - 0.125).clamp(0, 1)


def normal(shape, generator):
    """Standard normal values, computed in f64: in f32 their last digit depends on the processor."""
    return torch.randn(shape, generator=generator, dtype=torch.float64).float()


def labels(generator):
    return torch.randint(0, network.CLASSES, (BATCH,), generator=generator)


def batches(seed=BATCH_SEED):
    """The two batches that the training steps run on; every other label is what the initial network predicts."""
    generator = torch.Generator().manual_seed(1000 + seed)
    tensors = {}
    for t in (1, 2):
        x, y = images(generator, 3, SIZE, SIZE), labels(generator)
        with torch.no_grad():
            predicted = network.build().double()(x.double()).argmax(1)
        y[::2] = predicted[::2]
        tensors |= {f"x{t}": x, f"y{t}": y}
    return tensors
