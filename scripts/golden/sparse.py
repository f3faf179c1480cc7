"""The l1 ball cut by the box, and Auto-PGD in it from a fixed start on the small network of evaluation.py; written from the paper (Croce
and Hein 2021, arXiv 2103.01208, proposition 2.1 and algorithm 1), image by image, in plain loops. The projection is found by bisection on
its multiplier."""

import math

import torch

from evaluation import loss

SHAPE, HIDDEN, CLASSES, IMAGES, STEPS, EPSILON = (3, 4, 4), 16, 5, 2, 100, 1.5
# Seed for which f32 and f64 take the same decisions throughout.
SEED = 13


def project(x, point, epsilon):
    """The point of ball and box nearest to `point` in l2."""
    delta = (point - x).double()
    low, high = -x.double(), 1 - x.double()

    def shrunk(t):
        return torch.maximum(torch.minimum(delta.sign() * (delta.abs() - t).clamp(min=0), high), low)

    if shrunk(0.0).abs().sum() <= epsilon:
        return (x.double() + shrunk(0.0)).to(x.dtype)
    below, above = 0.0, float(delta.abs().max())
    for _ in range(60):
        middle = (below + above) / 2
        below, above = (middle, above) if shrunk(middle).abs().sum() > epsilon else (below, middle)
    # What the threshold takes whole is exactly 0.
    return (x.double() + shrunk(above)).to(x.dtype)


def network(dtype, seed):
    draw = torch.Generator().manual_seed(20260701 + seed)

    def normal(*shape):
        return torch.randn(*shape, generator=draw).to(dtype)

    pixels = math.prod(SHAPE)
    net = {"w1": normal(HIDDEN, pixels) / 2, "b1": normal(HIDDEN), "w2": normal(CLASSES, HIDDEN), "b2": normal(CLASSES) / 4}
    x = torch.rand(IMAGES, pixels, generator=draw).to(dtype)
    y = logits(net, x).argmax(1)
    target = (y + 1 + torch.arange(IMAGES) % (CLASSES - 1)) % CLASSES
    return net, x, y, target, x + normal(IMAGES, pixels)


def logits(net, x):
    return torch.tanh(x @ net["w1"].T + net["b1"]) @ net["w2"].T + net["b2"]


def stage(net, name, x, y, t, start, epsilon, steps):
    """Algorithm 1 within one radius: the best point, its loss and the last step over the radius."""
    n = x.numel()

    def measure(point):
        point = point.clone().requires_grad_()
        value = loss(name, logits(net, point[None])[0], y, t)
        return value.item(), torch.autograd.grad(value, point)[0]

    def changes(point):
        return int((point != x).sum())

    point = project(x, start, epsilon)
    value, grad = measure(point)
    best, best_value, best_grad = point, value, grad
    before = changes(point)
    size, interval = 1.0, max(int(0.04 * steps), 1)
    for k in range(1, steps + 1):
        order = grad.abs().sort()[0]
        place = n - max(math.ceil(2 * before / 3), 1)
        sparse = torch.where(grad.abs() >= order[place], grad, torch.zeros_like(grad)).sign()
        point = project(x, point + size * epsilon * sparse / sparse.abs().sum(), epsilon)
        value, grad = measure(point)
        if value > best_value:
            best, best_value, best_grad = point, value, grad
        if k % interval == 0:
            now = changes(best)
            if now / before < 0.95:
                size, point, grad = 1.0, best, best_grad
            else:
                size = max(size / 1.5, 0.1)
            before = now
    return best, best_value, size


def climb(net, name, x, y, t, start):
    first = math.ceil(0.3 * STEPS)
    point = start
    for radius, steps in ((3, first), (2, first), (1, STEPS - 2 * first)):
        point, value, size = stage(net, name, x, y, t, point, radius * EPSILON, steps)
    return point, value, size


def apgd(dtype, seed=SEED):
    net, x, y, target, start = network(dtype, seed)
    out = dict(net) | {"x": x, "y": y, "target": target, "start": start}
    for name in ("ce", "dlr", "dlr-targeted"):
        rows = [climb(net, name, x[i], int(y[i]), int(target[i]), start[i]) for i in range(IMAGES)]
        out[f"{name}.best"] = torch.stack([best for best, _, _ in rows])
        out[f"{name}.loss"] = torch.tensor([value for _, value, _ in rows], dtype=dtype)
        out[f"{name}.step"] = torch.tensor([size for _, _, size in rows], dtype=dtype)
    return out


def projections(dtype):
    """Points projected on balls of several radii."""
    draw = torch.Generator().manual_seed(20260702)
    x = torch.rand(24, 48, generator=draw).to(dtype)
    points = x + torch.randn(24, 48, generator=draw).to(dtype) * 0.4
    epsilons = torch.tensor([0.0, 0.05, 0.5, 2.0, 6.0, 100.0]).repeat(4).to(dtype)
    found = torch.stack([project(x[i], points[i], float(epsilons[i])) for i in range(24)])
    return {"x": x, "point": points, "epsilon": epsilons, "projected": found}
