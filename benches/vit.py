#!/usr/bin/env python3
"""Times one fgsm training step of ViT-tiny on random 32x32 images in PyTorch; the peer of

    sora bench step --model vit-tiny --method fgsm --width WIDTH --batch BATCH

Attack pass (gradient for the images alone), training pass, SGD. Prints one JSON line with median_s and min_s.
"""

import argparse
import json
import statistics
import time

import torch
import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        n, tokens, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(n, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, tokens, width)
        x = x + self.proj(y)
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class ViT(nn.Module):
    def __init__(self, width, heads=3, depth=12, patch=4):
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.zeros(1, (32 // patch) ** 2 + 1, width))
        self.blocks = nn.Sequential(*[Block(width, heads) for _ in range(depth)])
        self.norm, self.head = nn.LayerNorm(width, eps=1e-6), nn.Linear(width, 10)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1) + self.position
        return self.head(self.norm(self.blocks(x))[:, 0])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", choices=["f32", "bf16", "autocast"], default="f32",
                        help="bf16: all weights and activations; autocast: torch.autocast's choice")
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    model = ViT(args.width)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=5e-4)
    half = {"f32": torch.float32}.get(args.precision, torch.bfloat16)
    if args.precision == "bf16":
        model = model.to(half)
    forward = torch.autocast("cpu", half, enabled=args.precision == "autocast")(
        lambda x: model(x.to(half) if args.precision == "bf16" else x).float())
    images, labels = torch.rand(args.batch, 3, 32, 32), torch.randint(0, 10, (args.batch,))
    seconds = []
    for _ in range(2 + args.steps):
        started = time.perf_counter()
        x = images.clone().requires_grad_()
        model.requires_grad_(False)
        (grad,) = torch.autograd.grad(F.cross_entropy(forward(x), labels), x)
        model.requires_grad_(True)
        adversarial = (images + 8 / 255 * grad.sign()).clamp(0, 1)
        optimizer.zero_grad()
        F.cross_entropy(forward(adversarial), labels).backward()
        optimizer.step()
        seconds.append(time.perf_counter() - started)
    print(json.dumps({"median_s": statistics.median(seconds[2:]), "min_s": min(seconds[2:]), **vars(args)}))


if __name__ == "__main__":
    main()
