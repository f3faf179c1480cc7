"""PreActResNet-18 (He et al. 2016, arXiv 1603.05027) with a CIFAR stem, in the usual PyTorch parameter names."""

import torch
from torch import nn

CLASSES = 10
WIDTH = 4
MEAN = [0.4914, 0.4822, 0.4465]
STD = [0.2471, 0.2435, 0.2616]


class Block(nn.Module):
    """Pre-activation basic block; the shortcut convolution sees the activated input."""

    def __init__(self, channels_in, channels_out, stride):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False)
        self.relu = nn.ReLU()
        if stride != 1 or channels_in != channels_out:
            self.shortcut = nn.Sequential(nn.Conv2d(channels_in, channels_out, 1, stride, bias=False))

    def forward(self, x):
        active = self.relu(self.bn1(x))
        skip = self.shortcut(active) if hasattr(self, "shortcut") else x
        return self.conv2(self.relu(self.bn2(self.conv1(active)))) + skip


class PreActResNet18(nn.Module):
    """Logits [N, 10] of images [N, C, H, W] in [0, 1]."""

    def __init__(self, mean, std):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)
        self.conv1 = nn.Conv2d(len(mean), WIDTH, 3, 1, 1, bias=False)
        channels = WIDTH
        for stage in range(4):
            out = WIDTH << stage
            stride = 1 if stage == 0 else 2
            blocks = [Block(channels, out, stride), Block(out, out, 1)]
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
            channels = out
        self.bn = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.linear = nn.Linear(channels, CLASSES)

    def forward(self, x):
        x = self.conv1((x - self.mean) / self.std)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.linear(self.relu(self.bn(x)).mean((2, 3)))


def build(mean=MEAN, std=STD):
    """The network of every case, in train mode: PyTorch's initial weights from a fixed seed, normalisation layers moved
    off 1 and 0, running statistics near those of uniform noise, so that the network responds in eval mode too, and
    logits that are far from equal."""
    torch.manual_seed(20260601)
    model = PreActResNet18(mean, std).double()
    with torch.no_grad():
        model.linear.weight *= 4
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, 0.0, 0.1)
        norm.momentum = 1.0
    with torch.no_grad():
        model(torch.rand(64, len(mean), 12, 12).double())
    for norm in norms:
        norm.momentum = 0.1
        norm.num_batches_tracked.zero_()
        norm.running_mean += 0.2 * norm.running_var.sqrt() * torch.randn_like(norm.running_mean)
        norm.running_var *= torch.empty_like(norm.running_var).uniform_(0.7, 1.4)
    return model.float()
