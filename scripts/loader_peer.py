"""The same work in PyTorch: images a second of a DataLoader over ImageFolder with RandomResizedCrop(224) and a flip.

python loader_peer.py FOLDER [--workers 2 --batch 128 --batches 20]; prints one JSON line, to set beside `sora bench data`.
"""

import argparse
import json
import time

import torch
from torchvision import transforms as T
from torchvision.datasets import ImageFolder

parser = argparse.ArgumentParser()
parser.add_argument("folder")
parser.add_argument("--workers", type=int, default=2)
parser.add_argument("--batch", type=int, default=128)
parser.add_argument("--batches", type=int, default=20)
args = parser.parse_args()

torch.manual_seed(0)
data = ImageFolder(f"{args.folder}/train", T.Compose([T.RandomResizedCrop(224), T.RandomHorizontalFlip(), T.ToTensor()]))
loader = torch.utils.data.DataLoader(data, args.batch, shuffle=True, drop_last=True, num_workers=args.workers, prefetch_factor=2)
batches = iter(loader)
next(batches)
start = time.perf_counter()
images = sum(len(next(batches)[0]) for _ in range(args.batches))
seconds = time.perf_counter() - start
print(json.dumps({"framework": f"torch {torch.__version__}", "workers": args.workers, "batch": args.batch, "images_per_s": images / seconds}))
