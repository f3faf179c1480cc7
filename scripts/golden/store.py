"""Writes golden files, and holds a computation in f32 against the same one in f64."""

import json
import warnings
from pathlib import Path

import torch

CRATES = Path(__file__).resolve().parents[2] / "crates"
FOLDER = CRATES / "sora" / "tests" / "golden"
# Of attacks, which are a crate of their own.
ATTACKS = CRATES / "robustness" / "tests" / "golden"
DTYPES = {torch.float32: "F32", torch.int64: "I64"}
AGREEMENT = 2e-5
# Said on every change of torch.backends.mkldnn, about a device that is not used.
warnings.filterwarnings("ignore", message="TF32 acceleration")


class Ambiguous(Exception):
    """A value lies so near to a discontinuity that correct f32 programs may differ."""


def disagreement(low, high):
    """The largest max|a - b| / max|b| over the tensors of two runs, and the name of its tensor."""
    worst, where = 0.0, ""
    for name, b in high.items():
        a, b = low[name].double(), b.double()
        gap, scale = (a - b).abs().max().item(), b.abs().max().item()
        relative = gap / scale if scale > 0 else gap
        if relative > worst:
            worst, where = relative, name
    return worst, where


def both(run, slack=1):
    """`run(dtype)` in f64, checked against f32 with two sets of kernels; gives the f64 tensors and the disagreement."""
    high, worst = run(torch.float64), 0.0
    for onednn in (True, False):
        with torch.backends.mkldnn.flags(enabled=onednn):
            gap, where = disagreement(run(torch.float32), high)
        if gap > slack * AGREEMENT:
            raise Ambiguous(f"{where}: f32 and f64 differ by {gap:.1e}")
        worst = max(worst, gap)
    return high, worst


def write(name, tensors, folder=FOLDER, **settings):
    """Saves f64 values as f32, integers as i64. Written by hand: the library's header order changes from run to run."""
    header, chunks, offset = {"__metadata__": {k: str(v) for k, v in sorted(settings.items()) if v is not None}}, [], 0
    for key in sorted(tensors):
        tensor = tensors[key].detach().contiguous()
        tensor = tensor.float() if tensor.is_floating_point() else tensor
        data = tensor.numpy().tobytes()
        header[key] = {
            "dtype": DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + len(data)],
        }
        chunks.append(data)
        offset += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(chunks))
    return path.stat().st_size
