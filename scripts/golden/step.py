"""Two training steps of a method, with everything recorded that a test compares."""

import copy

import torch
from torch.nn import functional as F

import model as network
import threat
from guard import Guard

LEARNING_RATE = 0.05
MOMENTUM = 0.9
WEIGHT_DECAY = 5e-4
# Parameters whose values are stored after the second step; of the others, only the L2 norm.
STORED = (
    "conv1.weight",
    "layer1.0.bn1.weight",
    "layer1.1.conv2.weight",
    "layer2.0.shortcut.0.weight",
    "layer4.1.bn2.bias",
    "bn.bias",
    "linear.weight",
    "linear.bias",
)


class Run:
    """The state of one run: model, optimizer, base draws and the tensors recorded so far."""

    def __init__(self, method, seed, dtype, batches, margin):
        self.method, self.dtype, self.batches = method, dtype, batches
        self.guard = Guard(margin, dtype)
        self.model = self.guard.watch(network.build().to(dtype).train())
        self.initial = copy.deepcopy(self.model.state_dict())
        self.generator = torch.Generator().manual_seed(seed)
        self.optimizer = torch.optim.SGD(self.model.parameters(), LEARNING_RATE, MOMENTUM, weight_decay=WEIGHT_DECAY)
        self.t = 0
        self.out = {}
        # The network's newest logits, of whatever pass.
        self.newest = None
        self.model.register_forward_hook(lambda _model, _images, logits: setattr(self, "newest", logits.detach()))

    def batch(self, index):
        return self.batches[f"x{index}"].to(self.dtype), self.batches[f"y{index}"]

    def draw(self, name, shape, kind=torch.rand, k=None):
        """A base draw: f32 whatever the run's precision, recorded under its name."""
        u = kind(shape, generator=self.generator)
        self.out[f"draw.{name}.{self.t}" + (f".{k}" if k else "")] = u
        return u.to(self.dtype)

    def input_grad(self, x, y, delta, signed=True):
        """The attack pass: gradient of the mean cross-entropy for delta."""
        return self.grad_of(lambda d: F.cross_entropy(self.model(x + d), y), delta, signed)

    def grad_of(self, loss, delta, signed=True, strict=1):
        delta = delta.detach().requires_grad_(True)
        g = torch.autograd.grad(loss(delta), delta)[0]
        if signed:
            self.guard.sign(g, self.model.training, strict)
        return g

    def record(self, **values):
        for name, value in values.items():
            value = value.detach() if torch.is_tensor(value) else torch.tensor(value, dtype=torch.float64)
            self.out[f"{name}{self.t}"] = value.clone().reshape(-1) if value.dim() == 0 else value.clone()

    def step(self):
        """One step: attack pass, training pass, metrics, update."""
        self.t += 1
        x, y = self.method.batch(self)
        self.newest = None
        delta, g, alpha = self.method.perturb(self, x, y)
        attacked = self.newest
        delta = delta.detach().requires_grad_(True)
        loss, logits = self.method.loss(self, x, y, delta)
        self.guard.argmax(logits)
        self.optimizer.zero_grad()
        loss.backward()
        g_train = delta.grad
        g = g_train if g is None else g
        self.method.before_update(self)
        self.optimizer.step()
        gradients = {"grad": g, "grad_train": g_train}
        self.record(**{name: gradients[name] for name in self.method.stored})
        self.record(
            delta=delta,
            loss=loss,
            logits=logits,
            adv_acc=(logits.argmax(1) == y).double().mean(),
            alpha=alpha,
            linearity_batch=linearity(g, g_train, self.method.norm),
            pert_align=pert_align(g, g_train),
            **growth(g, g_train, self.method.norm),
            **abnormal(attacked, logits.detach(), y),
        )
        self.record(**self.method.after(self, g, g_train))

    def store(self, state, prefix=""):
        """The values of running statistics and of a few parameters, the L2 norms of all parameters."""
        for name, value in state.items():
            if "running" in name:
                self.out[f"{prefix}buffer.{name}"] = value
            elif value.is_floating_point():
                self.out[f"{prefix}norm.{name}"] = value.norm().reshape(1)
                if name in STORED:
                    self.out[f"{prefix}param.{name}"] = value

    def finish(self):
        """Everything recorded, with the network after the last update."""
        self.store(self.model.state_dict())
        self.out["num_batches_tracked"] = self.model.bn.num_batches_tracked.reshape(1)
        return self.out


def linearity(g, g_train, norm):
    """SORA's v_batch: slope along the attack direction at the training point over the slope at the start."""
    along = threat.flat(g.sign() if norm == "linf" else g)
    slope = (along * threat.flat(g)).sum(1).clamp_min(threat.TINY)
    return ((along * threat.flat(g_train)).sum(1) / slope).mean().clamp(-1, 1)


def growth(g, g_train, norm):
    """What goes into the linearity: unclipped, as a ratio of sums, and the ratio of the gradients' summed lengths."""
    a, b = threat.flat(g), threat.flat(g_train)
    along = a.sign() if norm == "linf" else a
    before, after = (along * a).sum(1), (along * b).sum(1)
    return {
        "linearity_raw": (after / before.clamp_min(threat.TINY)).mean(),
        "linearity_of_sums": after.sum() / before.sum(),
        "grad_ratio": b.norm(dim=1).sum() / a.norm(dim=1).sum(),
    }


def abnormal(attacked, logits, y):
    """The share of samples whose loss is lower than at the attack's point, where f32 can tell."""
    if attacked is None:
        return {}
    before, after = (F.cross_entropy(z, y, reduction="none") for z in (attacked, logits))
    if (before - after).abs().min() < 1e-4 * before.abs().max():
        return {}
    return {"abnormal": (after < before).double().mean()}


def pert_align(g, g_train):
    a, b = threat.flat(g), threat.flat(g_train)
    return ((a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)).clamp_min(threat.TINY)).mean()


def train(method, batches, seed, dtype, margin):
    run = Run(method(), seed, dtype, batches, margin)
    for _ in range(run.method.updates):
        run.step()
    return run.finish()
