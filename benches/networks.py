#!/usr/bin/env python3
"""Times an fgsm training step of ours and of PyTorch for several networks, in turn, on random images, and prints a table of ratios.

    python benches/networks.py run LOG.jsonl [--pairs 3] [--steps 3] [--networks resnet50,vit-tiny]
    python benches/networks.py table LOG.jsonl

A step is attack pass (gradient for the images alone), training pass and SGD. A pair is one run of each: ours in f32 and bf16, PyTorch's f32 and
bf16 (autocast), both channels-last, which is PyTorch's faster layout, each the median of --steps steps in a process of its own, on as many
threads (--threads; default: the cores that this process may use). LOG collects the pairs of all calls. Needs torch and numpy; SORA names the program (target/release/sora). The peer's networks are those of
scripts/exchange/networks.py, attention as `scaled_dot_product_attention`.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NETWORKS = {
    "preact-resnet18": dict(width=64, size=32, batch=128),
    "resnet18": dict(width=64, size=224, batch=32),
    "resnet50": dict(width=64, size=224, batch=16),
    "wideresnet-28-10": dict(width=160, size=32, batch=32),
    "senet18": dict(width=64, size=32, batch=128),
    "vgg16-bn": dict(width=64, size=32, batch=128),
    "vit-tiny": dict(width=192, size=32, batch=64),
}
PRECISIONS = ["f32", "bf16"]


def cores():
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def peer(name, precision, steps, threads):
    """The peer's measurement, printed as one JSON line."""
    sys.path.insert(0, str(ROOT / "scripts" / "exchange"))
    import networks
    import torch
    from torch.nn import functional as F

    def attention(self, x):
        n, tokens, width = x.shape
        q, k, v = self.qkv(x).view(n, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, tokens, width))

    networks.Attention.forward = attention
    case = NETWORKS[name]
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    size = case["size"]
    stem = "imagenet" if name.startswith("resnet") and size >= 96 else None
    net = networks.build(name, case["width"], size=size, stem=stem, shortcut="input").train()
    net = net.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    x = torch.rand(case["batch"], 3, size, size).contiguous(memory_format=torch.channels_last)
    y = torch.randint(0, 10, (case["batch"],))

    def loss_at(z):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            return F.cross_entropy(net(z), y)

    def step():
        leaf = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss_at(leaf), leaf)
        adversarial = (x + 8 / 255 * gradient.sign()).clamp(0, 1)
        optimizer.zero_grad()
        loss_at(adversarial).backward()
        optimizer.step()

    seconds = []
    for _ in range(2 + steps):
        started = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps({"median_s": statistics.median(seconds[2:]), "peak_rss_mib": peak, "torch": torch.__version__}))


def sides(name, precision, args):
    """The commands of our measurement and of the peer's."""
    sora = os.environ.get("SORA", str(ROOT / "target" / "release" / "sora"))
    same = ["--precision", precision, "--steps", str(args.steps), "--threads", str(args.threads)]
    case = NETWORKS[name]
    options = f"--model {name} --width {case['width']} --image-size {case['size']} --batch {case['batch']}".split()
    return [sora, "bench", "step", "--method", "fgsm", *same, *options], [sys.executable, __file__, "peer", name, *same]


def measured(command):
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def run(args):
    with open(args.log, "a") as log:
        for pair in range(args.pairs):
            for name in args.networks:
                result = {}
                for precision in PRECISIONS:
                    ours, theirs = sides(name, precision, args)
                    result["ours " + precision] = measured(ours)
                    result["peer " + precision] = measured(theirs)
                log.write(json.dumps({"network": name, "pair": pair, "threads": args.threads, **result}) + "\n")
                log.flush()


def table(args):
    lines = [json.loads(line) for line in open(args.log)]

    def of(name, ours, theirs, key):
        found = [line[ours][key] / line[theirs][key] for line in lines if line["network"] == name]
        return f"{statistics.median(found):.2f} ({min(found):.2f} - {max(found):.2f})"

    threads = sorted({str(line.get("threads", "not recorded")) for line in lines})
    print(f"Threads of each side: {', '.join(threads)}\n")
    print("| network | pixels, batch | f32 / f32 | bf16 / bf16 | memory, f32 / f32 | memory, bf16 / bf16 | pairs |")
    print("|---|---|---|---|---|---|---|")
    for name, case in NETWORKS.items():
        pairs = sum(line["network"] == name for line in lines)
        if pairs:
            cells = [of(name, f"ours {p}", f"peer {p}", key) for key in ("median_s", "peak_rss_mib") for p in PRECISIONS]
            print(f"| {name}, width {case['width']} | {case['size']}, {case['batch']} | {' | '.join(cells)} | {pairs} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "table", "peer"])
    parser.add_argument("log", metavar="LOG", help="for `peer`, which `run` calls: the network")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--networks", type=lambda text: text.split(","), default=list(NETWORKS))
    parser.add_argument("--precision", choices=PRECISIONS, default="f32")
    args = parser.parse_args()
    if args.what == "peer":
        peer(args.log, args.precision, args.steps, args.threads)
    else:
        {"run": run, "table": table}[args.what](args)


if __name__ == "__main__":
    main()
