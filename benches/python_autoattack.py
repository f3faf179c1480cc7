"""AutoAttack `standard` on one PyTorch module: sora from Python (calls of the module in f32 and in bf16, a copy in
sora's engine, and exported to ONNX before), torchattacks, and, from a checkout, the official AutoAttack. Robust
accuracy, seconds, CPU seconds, ratios of both.

    python benches/python_autoattack.py WEIGHTS.safetensors IMAGES.npz [--n 64] [--epsilon 8/255] [--threads N]
        [--official CHECKOUT] [--tools module,bf16,copy,onnx,torchattacks,auto-attack]

WEIGHTS is a preact-resnet18 that `sora train` wrote, IMAGES an archive with `x` [n, 3, 32, 32] and `y`. Needs torch,
torchattacks, onnx, safetensors and the installed wheel. The peers run with the schedule of the paper (100 steps).
Each tool runs in a process of its own, on --threads threads of PyTorch and of sora's engine (default: the cores that
this process may use). On a busy machine take `--threads 1`, and the CPU seconds.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts" / "crosscheck"))
import peer  # noqa: E402
from network import load  # noqa: E402


def sora_of(model, x, y, epsilon, **options):
    import sora_robust as sora

    report = sora.evaluate(model, x, y, epsilon=epsilon, suite="autoattack", progress=False, **options)
    return report.accuracy["autoattack"]


def export(module, x, path):
    torch.onnx.export(module, (x[:2],), path, dynamo=False, opset_version=17, input_names=["x"],
                      dynamic_axes={"x": {0: "n"}})  # fmt: skip


def peer_of(attack, module, x, y):
    """Robust accuracy: what is correct clean and after the attack."""
    with torch.no_grad():
        right = (module(x).argmax(1) == y).nonzero().flatten()
        adversarial = attack(x[right], y[right]).detach()
        return int((module(adversarial).argmax(1) == y[right]).sum()) / len(x)


def cores():
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def surroundings(threads):
    """The environment of a tool: sora's engine asks it how many threads to start, and so does PyTorch."""
    return os.environ | {"RAYON_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--n", type=int, default=64)
    parser.add_argument("--epsilon", default="8/255")
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--official", type=Path)
    parser.add_argument("--tools", default="module,bf16,copy,onnx,torchattacks")
    parser.add_argument("--tool", help="measure this tool alone, here: accuracy, seconds and CPU seconds as JSON")
    return parser.parse_args()


def measure(args):
    torch.set_num_threads(args.threads)
    top, _, bottom = args.epsilon.partition("/")
    epsilon = float(top) / float(bottom or 1)
    archive = np.load(args.images)
    pixels = archive["x"][: args.n]
    x = torch.from_numpy(pixels.astype(np.float32) / 255 if pixels.dtype == np.uint8 else pixels)
    y = torch.from_numpy(archive["y"][: args.n].astype(np.int64))
    module = load(args.weights).to(memory_format=torch.channels_last).eval()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        if args.tool == "onnx":
            export(module, x, Path(folder) / "m.onnx")
        started, worked = time.time(), time.process_time()
        if args.tool == "module":
            accuracy = sora_of(module, x, y, epsilon)
        elif args.tool == "bf16":
            accuracy = sora_of(module, x, y, epsilon, attack_precision="bf16")
        elif args.tool == "copy":
            accuracy = sora_of(module, x, y, epsilon, engine="sora")
        elif args.tool == "onnx":
            accuracy = sora_of(Path(folder) / "m.onnx", x, y, epsilon)
        elif args.tool == "torchattacks":
            accuracy = peer_of(peer.torchattack("autoattack", module, "linf", epsilon, 10, 0), module, x, y)
        else:
            accuracy = peer_of(peer.official("autoattack", module, "linf", epsilon, 0, args.official), module, x, y)
        print(json.dumps([accuracy, time.time() - started, time.process_time() - worked]))


def main():
    args = arguments()
    if args.tool:
        return measure(args)
    print(f"Threads of each tool: {args.threads}\n")
    print("| tool | robust accuracy | seconds | CPU seconds |\n|---|---|---|---|")
    times = {}
    for tool in args.tools.split(","):
        call = [sys.executable, __file__, *sys.argv[1:], "--tool", tool]
        output = subprocess.run(call, check=True, stdout=subprocess.PIPE, text=True, env=surroundings(args.threads)).stdout
        accuracy, *times[tool] = json.loads(output.splitlines()[-1])
        print(f"| {tool} | {accuracy:.4f} | {times[tool][0]:.1f} | {times[tool][1]:.1f} |", flush=True)
    for tool in ("module", "bf16", "copy", "onnx"):
        for other in ("torchattacks", "auto-attack"):
            if tool in times and other in times:
                ratios = [ours / theirs for ours, theirs in zip(times[tool], times[other])]
                print(f"{tool} / {other}: {ratios[0]:.2f}, in CPU seconds {ratios[1]:.2f}")


if __name__ == "__main__":
    main()
