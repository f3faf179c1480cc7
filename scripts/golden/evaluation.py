"""Auto-PGD from fixed starts on a small smooth network, and the losses that it climbs; written from the paper (Croce and Hein 2020,
arXiv 2003.01690, algorithm 1 and section 4), image by image, in plain loops."""

import torch

SHAPE, HIDDEN, CLASSES, IMAGES, STEPS = (3, 2, 2), 16, 5, 2, 40
# Seed for which f32 and f64 take the same decisions throughout.
SEED = 26
EPSILON = {"linf": 0.2, "l2": 0.5}


def network(dtype, seed=0):
    """Weights of z = b2 + W2 tanh(b1 + W1 x), images, labels, targets, starts: the same numbers in every dtype."""
    draw = torch.Generator().manual_seed(20260602 + seed)

    def normal(*shape):
        return torch.randn(*shape, generator=draw).to(dtype)

    pixels = SHAPE[0] * SHAPE[1] * SHAPE[2]
    net = {"w1": normal(HIDDEN, pixels), "b1": normal(HIDDEN), "w2": normal(CLASSES, HIDDEN), "b2": normal(CLASSES) / 4}
    x = torch.rand(IMAGES, pixels, generator=draw).to(dtype)
    y = logits(net, x).argmax(1)
    target = (y + 1 + torch.arange(IMAGES) % (CLASSES - 1)) % CLASSES
    return net, x, y, target, torch.rand(IMAGES, pixels, generator=draw).to(dtype) * 2 - 1


def logits(net, x):
    return torch.tanh(x @ net["w1"].T + net["b1"]) @ net["w2"].T + net["b2"]


def loss(name, z, y, t):
    """The loss of one image's logits."""
    if name == "ce":
        return torch.logsumexp(z, 0) - z[y]
    order = z.sort(descending=True)[0]
    if name == "dlr":
        other = max(z[k] for k in range(CLASSES) if k != y)
        return -(z[y] - other) / (order[0] - order[2] + 1e-12)
    if name == "dlr-targeted":
        return -(z[y] - z[t]) / (order[0] - (order[2] + order[3]) / 2 + 1e-12)
    if name == "margin":
        return max(z[k] for k in range(CLASSES) if k != y) - z[y]
    raise ValueError(name)


def project(norm, x, point, epsilon):
    delta = point - x
    if norm == "linf":
        delta = delta.clamp(-epsilon, epsilon)
    else:
        length = delta.norm()
        delta = delta * (epsilon / length) if length > epsilon else delta
    return (x + delta).clamp(0, 1)


def checkpoints(steps):
    """w_j = ceil(p_j N) of the paper with the public code's rounding: intervals 0.22 N, shrinking by 0.03 N, at least 0.06 N, rounded down."""
    interval, shrink, least = max(int(0.22 * steps), 1), max(int(0.03 * steps), 1), max(int(0.06 * steps), 1)
    found, last = [], 0
    while last + interval <= steps:
        last += interval
        found.append((last, interval))
        interval = max(interval - shrink, least)
    return found


def climb(net, name, norm, x, y, t, start):
    """Algorithm 1: the best point, its loss and the last step size (in units of epsilon) of one image."""
    epsilon = EPSILON[norm]
    looks = dict(checkpoints(STEPS))

    def measure(point):
        point = point.clone().requires_grad_()
        value = loss(name, logits(net, point[None])[0], y, t)
        return value.item(), torch.autograd.grad(value, point)[0]

    def ascend(point, grad, size):
        direction = grad.sign() if norm == "linf" else grad / grad.norm()
        return project(norm, x, point + size * epsilon * direction, epsilon)

    size, previous, point = 2.0, start, start
    value, grad = measure(point)
    best, best_value, best_grad = point, value, grad
    rises, halved, looked = 0, True, value
    for k in range(1, STEPS + 1):
        z = ascend(point, grad, size)
        a = 1.0 if k == 1 else 0.75
        new = project(norm, x, point + a * (z - point) + (1 - a) * (point - previous), epsilon)
        previous, point = point, new
        old = value
        value, grad = measure(point)
        rises += value > old
        if value > best_value:
            best, best_value, best_grad = point, value, grad
        if k in looks:
            halved = rises <= 0.75 * looks[k] or (not halved and looked >= best_value)
            if halved:
                size, point, grad = size / 2, best, best_grad
            rises, looked = 0, best_value
    return best, best_value, size


def apgd(dtype, seed=SEED):
    net, x, y, target, noise = network(dtype, seed)
    out = dict(net) | {"x": x, "y": y, "target": target}
    for norm, epsilon in EPSILON.items():
        length = noise.abs().amax(1, keepdim=True) if norm == "linf" else noise.norm(dim=1, keepdim=True)
        starts = (x + epsilon * noise / length).clamp(0, 1)
        out[f"{norm}.start"] = starts
        for name in ("ce", "dlr", "dlr-targeted"):
            rows = [climb(net, name, norm, x[i], int(y[i]), int(target[i]), starts[i]) for i in range(IMAGES)]
            out[f"{norm}.{name}.best"] = torch.stack([best for best, _, _ in rows])
            out[f"{norm}.{name}.loss"] = torch.tensor([value for _, value, _ in rows], dtype=dtype)
            out[f"{norm}.{name}.step"] = torch.tensor([size for _, _, size in rows], dtype=dtype)
    return out


def losses(dtype):
    """Losses and their gradients for the logits, from autodiff."""
    draw = torch.Generator().manual_seed(20260603)
    z = (torch.randn(20, CLASSES, generator=draw) * 3).to(dtype).requires_grad_()
    y = torch.arange(20) % CLASSES
    t = (y + 1 + torch.arange(20) // CLASSES) % CLASSES
    out = {"z": z.detach(), "y": y, "target": t}
    for name in ("ce", "margin", "dlr", "dlr-targeted"):
        values = torch.stack([loss(name, z[i], int(y[i]), int(t[i])) for i in range(20)])
        out[f"{name}.loss"] = values.detach()
        out[f"{name}.grad"] = torch.autograd.grad(values.sum(), z)[0]
    return out
