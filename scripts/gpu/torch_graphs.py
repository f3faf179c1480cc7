"""Runs a PyTorch step script whose compiled passes are CUDA graphs (--compile-mode reduce-overhead):

    python3 scripts/gpu/torch_graphs.py PEER.py [OPTIONS]

The results of a graph last until its next replay, and a step of SORA reads the gradient of its first pass after the
second. So each gradient is copied.
"""

import runpy
import sys

import torch

gradient = torch.autograd.grad


def copied(*args, **kwargs):
    return tuple(grad.clone() for grad in gradient(*args, **kwargs))


torch.autograd.grad = copied
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
