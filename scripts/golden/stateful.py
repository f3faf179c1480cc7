"""Methods that keep perturbations from one update to the next: Free, ATAS, FGSM-PGI."""

import torch
from torch.nn import functional as F

import threat
from methods import Method
from threat import box, flat, per_sample, uniform


class Free(Method):
    """Shafahi et al. 2019, arXiv 1904.12843: three updates on the first batch, one on the second."""

    updates = 4
    replays = 3
    stored = ("grad_train",)

    def settings(self):
        return super().settings() | {"replays": self.replays}

    def batch(self, run):
        return run.batch(1 + (run.t - 1) // self.replays)

    def perturb(self, run, x, y):
        if run.t == 1:
            self.delta = uniform(run.draw("eta", x.shape), -self.eps, self.eps)
        if (run.t - 1) % self.replays == 0:
            self.delta, self.g = box(x, self.delta), None
        self.x = x
        return self.delta, self.g, self.eps

    def after(self, run, g, g_train):
        run.guard.sign(g_train)
        self.g = g_train
        self.delta = box(self.x, threat.ball(self.delta + self.eps * g_train.sign(), self.eps, "linf"))
        return {"next_delta": self.delta} if run.t == self.updates else {}


def crop(images, offsets, flips, pad):
    """Zero padding, then a crop of the original size at (row, column) = offsets, then a horizontal flip where asked."""
    height, width = images.shape[2:]
    padded = F.pad(images, (pad,) * 4)
    out = [
        padded[n, :, i : i + height, j : j + width].flip(2) if flip else padded[n, :, i : i + height, j : j + width]
        for n, ((i, j), flip) in enumerate(zip(offsets.tolist(), flips.tolist()))
    ]
    return torch.stack(out)


def uncrop(stored, cropped, offsets, flips, pad):
    """`stored` with the pixels that `crop` showed replaced by those of `cropped`."""
    height, width = stored.shape[2:]
    padded = F.pad(stored, (pad,) * 4)
    for n, ((i, j), flip) in enumerate(zip(offsets.tolist(), flips.tolist())):
        padded[n, :, i : i + height, j : j + width] = cropped[n].flip(2) if flip else cropped[n]
    return padded[:, :, pad : pad + height, pad : pad + width]


class Atas(Method):
    """Huang et al. 2022, arXiv 2206.02417: both updates on the samples of the first batch, augmented anew."""

    pad = 2
    decay = 0.5
    # 0.01 in the paper: a batch of 8 has larger gradients than one of 128.
    c = 0.6
    least, most = 0.5, 1.75
    # What step sizes are counted in; None: the radius.
    unit = None

    def settings(self):
        return super().settings() | {"pad": self.pad, "decay": self.decay, "c": self.c}

    def batch(self, run):
        x, y = run.batch(1)
        n = len(x)
        self.offsets = (run.draw("crop", (n, 2)) * (2 * self.pad + 1)).floor().long()
        self.flips = run.draw("flip", (n,)) >= 0.5
        if run.t == 1:
            self.memory = uniform(run.draw("delta", x.shape), -self.eps, self.eps)
            self.m = run.draw("m", (n,))
        x = crop(x, self.offsets, self.flips, self.pad)
        run.record(x=x)
        return x, y

    def perturb(self, run, x, y):
        run.model.eval()
        delta = box(x, crop(self.memory, self.offsets, self.flips, self.pad))
        g = run.input_grad(x, y, delta)
        run.model.train()
        self.m = self.decay * self.m + (1 - self.decay) * flat(g).square().sum(1)
        unit = self.unit or self.eps
        alpha = (2 * unit / (1 + self.m.sqrt() / self.c)).clamp(self.least * unit, self.most * unit)
        delta = box(x, threat.ball(delta + per_sample(alpha) * g.sign(), self.eps, "linf"))
        self.memory = uncrop(self.memory, delta, self.offsets, self.flips, self.pad)
        run.record(stored_delta=self.memory, m=self.m, alpha_sample=alpha)
        return delta, g, alpha.mean()


class FgsmPgi(Method):
    """Jia et al. 2022, arXiv 2207.08859 (FGSM-MEP): both updates on the samples of the first batch, not augmented."""

    weight = 10.0
    decay = 0.3

    def settings(self):
        return super().settings() | {"lambda": self.weight, "decay": self.decay}

    def batch(self, run):
        return run.batch(1)

    def perturb(self, run, x, y):
        if run.t == 1:
            sign = torch.where(run.draw("sign", x.shape) >= 0.5, 1.0, -1.0).to(run.dtype)
            self.prior, self.momentum = self.eps * sign, torch.zeros_like(x)
        self.start = box(x, self.prior)
        g = run.input_grad(x, y, self.start)
        self.momentum = self.decay * self.momentum + g / per_sample(flat(g).abs().sum(1).clamp_min(threat.TINY))
        run.guard.sign(self.momentum)
        self.prior = box(x, threat.ball(self.start + self.eps * self.momentum.sign(), self.eps, "linf"))
        run.record(prior=self.prior)
        return box(x, threat.ball(self.start + self.eps * g.sign(), self.eps, "linf")), g, self.eps

    def loss(self, run, x, y, delta):
        start_logits = run.model(x + self.start)
        loss, logits = super().loss(run, x, y, delta)
        reg = (logits - start_logits).square().mean()
        run.record(reg=reg)
        return loss + self.weight * reg, logits


class AtasOfficial(Atas):
    """The authors' repository: steps of 4/255 to 14/255 whatever the radius, here 12/255."""

    stored = ()
    eps = 12 / 255
    unit = 8 / 255


class FgsmPgiOfficial(FgsmPgi):
    """The authors' repository: smoothed labels in attack and loss, one pass at the start, the batch's l1 norm."""

    stored = ("grad_train",)
    share = 0.6

    def target(self, y, classes):
        rest = (1 - self.share) / (classes - 1)
        return torch.full((len(y), classes), rest, dtype=torch.float64).scatter(1, y[:, None], self.share)

    def cross_entropy(self, logits, y):
        target = self.target(y, logits.shape[1]).to(logits.dtype)
        return -(target * F.log_softmax(logits, dim=1)).sum(1).mean()

    def perturb(self, run, x, y):
        if run.t == 1:
            sign = torch.where(run.draw("sign", x.shape) >= 0.5, 1.0, -1.0).to(run.dtype)
            self.prior, self.momentum = self.eps * sign, torch.zeros_like(x)
        start = box(x, self.prior).requires_grad_(True)
        self.start_logits = run.model(x + start)
        g = torch.autograd.grad(self.cross_entropy(self.start_logits, y), start, retain_graph=True)[0]
        run.guard.sign(g)
        start = start.detach()
        self.momentum = self.decay * self.momentum + g / g.abs().sum()
        run.guard.sign(self.momentum)
        self.prior = box(x, threat.ball(start + self.eps * self.momentum.sign(), self.eps, "linf"))
        run.record(prior=self.prior)
        return box(x, threat.ball(start + self.eps * g.sign(), self.eps, "linf")), g, self.eps

    def loss(self, run, x, y, delta):
        logits = run.model(x + delta)
        reg = (logits - self.start_logits).square().mean()
        run.record(reg=reg)
        return self.cross_entropy(logits, y) + self.weight * reg, logits


METHODS = {
    "free": Free,
    "atas": Atas,
    "atas-official": AtasOfficial,
    "fgsm-pgi": FgsmPgi,
    "fgsm-pgi-official": FgsmPgiOfficial,
}
