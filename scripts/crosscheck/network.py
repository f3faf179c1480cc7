"""PreActResNet-18 of any width from a weights file of `sora`: plain PyTorch, nothing of ours in it."""

import json

import torch
from safetensors import safe_open
from torch import nn


class Block(nn.Module):
    """Pre-activation basic block; the shortcut convolution takes the block's input, or the activated one."""

    def __init__(self, channels_in, channels_out, stride, shortcut):
        super().__init__()
        self.activated = shortcut == "activated"
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False)
        if stride != 1 or channels_in != channels_out:
            self.shortcut = nn.Sequential(nn.Conv2d(channels_in, channels_out, 1, stride, bias=False))

    def forward(self, x):
        active = torch.relu(self.bn1(x))
        skip = self.shortcut(active if self.activated else x) if hasattr(self, "shortcut") else x
        return self.conv2(torch.relu(self.bn2(self.conv1(active)))) + skip


class PreActResNet18(nn.Module):
    """Logits [N, classes] of images [N, C, H, W] in [0, 1]."""

    def __init__(self, width, classes, mean, std, shortcut="activated"):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)
        self.conv1 = nn.Conv2d(len(mean), width, 3, 1, 1, bias=False)
        channels = width
        for stage in range(4):
            out = width << stage
            blocks = [Block(channels, out, 1 if stage == 0 else 2, shortcut), Block(out, out, 1, shortcut)]
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
            channels = out
        self.bn = nn.BatchNorm2d(channels)
        self.linear = nn.Linear(channels, classes)

    def forward(self, x):
        # The quicker layout on a CPU; the attacks of torchattacks need the plain one outside.
        x = x.contiguous(memory_format=torch.channels_last)
        x = self.conv1((x - self.mean) / self.std)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.linear(torch.relu(self.bn(x)).mean((2, 3)))


def load(path):
    """The network in eval mode; its structure is in the file's metadata."""
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["sora"])["network"]
        state = {name: file.get_tensor(name) for name in file.keys()}
    if about["name"] != "preact-resnet18":
        raise SystemExit(f"{path}: network {about['name']}; this script knows preact-resnet18")
    model = PreActResNet18(about["width"], about["shape"]["classes"], about["mean"], about["std"],
                           about["options"].get("shortcut", "activated"))
    missing, unexpected = model.load_state_dict(state, strict=False)
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise SystemExit(f"{path}: missing {missing}, unexpected {list(unexpected)}")
    # The attacks need gradients for the images alone.
    return model.requires_grad_(False).eval()
