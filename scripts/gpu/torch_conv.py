"""The convolutions of preact-resnet18 by PyTorch (cuDNN on a card): the JSON lines of `sora bench conv`, and the peak of
the device's matrix products, which both are held against.

    python3 scripts/gpu/torch_conv.py --device cuda --width 64 --batch 128 --seconds 0.05
"""

import argparse
import json
import time

import torch

PRECISIONS = ("f32", "tf32", "bf16")


def shapes(width, image):
    """(count, in, out, image, kernel, stride, padding) of each kind of convolution."""
    found = [(1, 3, width, image, 3, 1, 1)]
    for stage in range(4):
        c, size = width << stage, image >> stage
        if stage:
            found.append((1, c // 2, c, size * 2, 3, 2, 1))
            found.append((1, c // 2, c, size * 2, 1, 2, 0))
        found.append((4 if stage == 0 else 3, c, c, size, 3, 1, 1))
    return found


def best(run, sync, seconds):
    """Shortest of at least three calls, and as many as take `seconds`, after two that do not count."""
    for _ in range(2):
        run()
    sync()
    times = []
    while len(times) < 3 or sum(times) < seconds:
        start = time.perf_counter()
        run()
        sync()
        times.append(time.perf_counter() - start)
    return min(times)


def settle(precision):
    allowed = precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
    return torch.bfloat16 if precision == "bf16" else torch.float32


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=0.05)
    parser.add_argument("--matrix", type=int, default=8192)
    args = parser.parse_args()
    cuda = args.device.startswith("cuda")
    torch.backends.cudnn.benchmark = True
    sync = torch.cuda.synchronize if cuda else lambda: None
    name = torch.cuda.get_device_name() if cuda else "cpu"
    common = {"framework": f"torch {torch.__version__}", "device": args.device, "card": name}
    for precision in PRECISIONS if cuda else ("f32", "bf16"):
        dtype = settle(precision)
        a, b = (torch.randn(args.matrix, args.matrix, device=args.device, dtype=dtype) for _ in range(2))
        seconds = best(lambda: a @ b, sync, 4 * args.seconds)
        gflops = 2 * args.matrix**3 / seconds / 1e9
        print(json.dumps({"kind": "peak", "precision": precision, "matrix": args.matrix, "gflops": gflops, **common}), flush=True)
        del a, b
        for count, cin, cout, image, kernel, stride, padding in shapes(args.width, args.image_size):
            make = lambda *shape: torch.randn(*shape, device=args.device, dtype=dtype).to(memory_format=torch.channels_last)
            x, w = make(args.batch, cin, image, image), make(cout, cin, kernel, kernel)
            forward = lambda: torch.nn.functional.conv2d(x, w, None, stride, padding)
            y = forward()
            dy = torch.randn_like(y)
            backward = lambda of_x, of_w: torch.ops.aten.convolution_backward(
                dy, x, w, None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1, [of_x, of_w, False]
            )
            operations = 2 * y.numel() * cin * kernel**2
            for direction, run in (
                ("forward", forward),
                ("input-grad", lambda: backward(True, False)),
                ("weight-grad", lambda: backward(False, True)),
            ):
                seconds = best(run, sync, args.seconds)
                line = {"kind": "conv", "count": count, "in": cin, "out": cout, "image": [image] * 2, "kernel": kernel}
                line |= {"stride": stride, "batch": args.batch, "precision": precision, "direction": direction}
                print(json.dumps({**line, "ms": seconds * 1e3, "gflops": operations / seconds / 1e9, **common}), flush=True)


if __name__ == "__main__":
    main()
