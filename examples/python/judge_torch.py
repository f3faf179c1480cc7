"""Robust accuracy of a PyTorch module. Replace `model`, `x` and `y` by your own: any module that gives logits, on any
device; images [n, c, h, w] with pixels in [0, 1]; classes [n]. A normalisation belongs into the module.
"""

import torch
import sora_robust as sora


class Normalised(torch.nn.Module):
    """A network that was trained on normalised images, as one that takes pixels in [0, 1]."""

    def __init__(self, network, mean, std):
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, x):
        return self.network((x - self.mean) / self.std)


def small_network():
    """Stands for `torchvision.models.resnet18(weights="DEFAULT")` and the like."""
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 3, padding=1), torch.nn.BatchNorm2d(16), torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten(), torch.nn.Linear(256, 10),
    )  # fmt: skip


if __name__ == "__main__":
    model = Normalised(small_network(), [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]).eval()
    x = torch.rand(64, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    y = model(x).argmax(1)

    report = sora.evaluate(model, x, y, epsilon=1 / 255, suite="autoattack")
    print(report)
    print("robust accuracy:", report.accuracy["autoattack"], report.interval["autoattack"])
