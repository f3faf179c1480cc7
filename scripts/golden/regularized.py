"""Methods that add a regulariser to the loss: GradAlign, NuAT, ELLE, ELLE-A, AAER."""

import numpy as np
import torch
from torch.nn import functional as F

import threat
from methods import EPS, FgsmRs, Method, NFgsm
from threat import box, flat, per_sample, uniform


class GradAlign(Method):
    """Andriushchenko & Flammarion 2020, arXiv 2007.02617."""

    weight = 0.2

    def settings(self):
        return super().settings() | {"lambda": self.weight}

    def perturb(self, run, x, y):
        alpha = 1.25 * self.eps
        clean = run.input_grad(x, y, torch.zeros_like(x), signed=False)
        eta = box(x, uniform(run.draw("eta", x.shape), -self.eps, self.eps)).requires_grad_(True)
        noisy = torch.autograd.grad(F.cross_entropy(run.model(x + eta), y), eta, create_graph=True)[0]
        g = noisy.detach()
        run.guard.sign(g)
        a, b = flat(clean), flat(noisy)
        cosine = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)).clamp_min(threat.TINY)
        self.reg = 1 - cosine.mean()
        return box(x, threat.ball(eta.detach() + alpha * g.sign(), self.eps, "linf")), g, alpha

    def loss(self, run, x, y, delta):
        run.record(reg=self.reg)
        loss, logits = super().loss(run, x, y, delta)
        return loss + self.weight * self.reg, logits


class GradAlignOfficial(GradAlign):
    """The authors' repository: a step from the image, both gradients differentiated."""

    stored = ()

    def perturb(self, run, x, y):
        def gradient(at):
            at = at.requires_grad_(True)
            return torch.autograd.grad(F.cross_entropy(run.model(x + at), y), at, create_graph=True)[0]

        clean = gradient(torch.zeros_like(x))
        noisy = gradient(box(x, uniform(run.draw("eta", x.shape), -self.eps, self.eps)))
        g = clean.detach()
        run.guard.sign(g)
        a, b = flat(clean), flat(noisy)
        self.reg = 1 - ((a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)).clamp_min(threat.TINY)).mean()
        alpha = 1.25 * self.eps
        return box(x, threat.ball(alpha * g.sign(), self.eps, "linf")), g, alpha


class NuAt(Method):
    """Sriramanan et al. 2021, "Towards Efficient and Effective Adversarial Training"."""

    weight = 4.0

    def settings(self):
        return super().settings() | {"lambda": self.weight}

    def distance(self, run, clean, logits):
        run.guard.rank(clean - logits)
        return torch.linalg.matrix_norm(clean - logits, ord="nuc") / len(clean)

    def perturb(self, run, x, y):
        self.clean = run.model(x)
        constant = self.clean.detach()
        sign = torch.where(run.draw("sign", x.shape) >= 0.5, 1.0, -1.0).to(run.dtype)
        start = box(x, self.eps / 2 * sign)

        def ascent(delta):
            logits = run.model(x + delta)
            return F.cross_entropy(logits, y) + self.weight * self.distance(run, constant, logits)

        g = run.grad_of(ascent, start)
        return box(x, threat.ball(start + self.eps * g.sign(), self.eps, "linf")), g, self.eps

    def loss(self, run, x, y, delta):
        logits = run.model(x + delta)
        reg = self.distance(run, self.clean, logits)
        run.record(reg=reg)
        return F.cross_entropy(self.clean, y) + self.weight * reg, logits


class NuAtOfficial(NuAt):
    """The authors' repository: two neighbouring batches of epoch 10 of 30, the first of them the epoch's first."""

    stored = ("grad_train",)
    final = 4.5
    weight = final * 10 / 20

    def settings(self):
        return super().settings() | {"lambda": self.final}

    def perturb(self, run, x, y):
        constant = run.model(x).detach()
        sign = torch.where(run.draw("sign", x.shape) >= 0.5, 1.0, -1.0).to(run.dtype)
        start = box(x, 4 / 255 * sign)

        def ascent(delta):
            logits = run.model(x + delta)
            loss = F.cross_entropy(logits, y)
            return loss if run.t == 1 else loss + self.weight * self.distance(run, constant, logits)

        run.model.eval()
        g = run.grad_of(ascent, start)
        run.model.train()
        return box(x, threat.ball(start + self.eps * g.sign(), self.eps, "linf")), g, self.eps

    def loss(self, run, x, y, delta):
        logits = run.model(x + delta)
        clean = run.model(x)
        reg = self.distance(run, clean, logits)
        run.record(reg=reg)
        return F.cross_entropy(clean, y) + self.weight * reg, logits


class Elle(FgsmRs):
    """Abad Rocamora et al. 2024, arXiv 2401.11618; one update, with a radius at which f32 can tell the error from 0."""

    eps = 32 / 255
    updates = 1
    step_factor = 1.0
    # The paper's 1000 would swamp every other gradient of this untrained network.
    weight = 1.0
    boxed = True

    def settings(self):
        return super().settings() | {"lambda": self.weight}

    def strength(self, run, error):
        return self.weight

    def loss(self, run, x, y, delta):
        n = len(x)
        ends = [uniform(run.draw("elle", x.shape, k=k), -self.eps, self.eps) for k in (1, 2)]
        ends = [box(x, end) for end in ends] if self.boxed else ends
        t = run.draw("t", (n,))
        a, b = x + ends[0], x + ends[1]
        c = (1 - per_sample(t)) * a + per_sample(t) * b
        losses = F.cross_entropy(run.model(torch.cat([a, b, c])), y.repeat(3), reduction="none")
        residual = losses[2 * n :] - (1 - t) * losses[:n] - t * losses[n : 2 * n]
        error = residual.square().mean()
        strength = self.strength(run, error.item())
        run.record(**{"lambda": getattr(self, "current", strength)} | ({"residual": residual} if self.stored else {}))
        loss, logits = super().loss(run, x, y, delta)
        return loss + strength * error, logits


class ElleA(Elle):
    """ELLE-A: the regulariser is switched on when its error rises above its past by two standard deviations."""

    eps = EPS
    updates = 2
    stored = ()
    decay = 0.99
    sensitivity = 2.0
    past = 8

    def __init__(self):
        self.current = 0.0
        self.errors = None

    def settings(self):
        return super().settings() | {"decay": self.decay, "sensitivity": self.sensitivity}

    def strength(self, run, error):
        if self.errors is None:
            self.errors = (1e-6 * run.draw("past", (self.past,))).tolist()
        if error > np.mean(self.errors) + self.sensitivity * np.std(self.errors):
            self.current = self.weight
        else:
            self.current *= self.decay
        self.errors.append(error)
        run.guard.require((self.current == self.weight) == (run.t == 1), "the switch is to go on, then to decay")
        return self.current


class FromTheImage:
    """The authors' examples: one step from the image."""

    boxed = False

    def perturb(self, run, x, y):
        g = run.input_grad(x, y, torch.zeros_like(x))
        return box(x, self.eps * g.sign()), g, self.eps


class ElleOfficial(FromTheImage, Elle):
    stored = ("grad_train",)


class ElleAOfficial(FromTheImage, ElleA):
    """A loss takes the lambda that the step before left."""

    def strength(self, run, error):
        before = self.current
        super().strength(run, error)
        return before


class NFgsmElleA(ElleAOfficial):
    def perturb(self, run, x, y):
        return NFgsm.perturb(self, run, x, y)


class Aaer(NFgsm):
    """Lin et al. 2024, arXiv 2404.08154; with a radius at which the step overshoots on some samples."""

    eps = 16 / 255
    weights = (1.0, 1.5, 0.15)
    wide, step_factor = 2, 1.0

    def settings(self):
        return super().settings() | {f"lambda{i}": w for i, w in enumerate(self.weights, 1)}

    def perturb(self, run, x, y):
        eta = box(x, uniform(run.draw("eta", x.shape), -self.wide * self.eps, self.wide * self.eps))
        leaf = eta.clone().requires_grad_(True)
        logits = run.model(x + leaf)
        g = torch.autograd.grad(F.cross_entropy(logits, y), leaf)[0]
        run.guard.sign(g)
        self.start_logits = logits.detach()
        alpha = self.step_factor * self.eps
        return box(x, self.bound(eta + alpha * g.sign())), g, alpha

    def bound(self, delta):
        return delta

    def loss(self, run, x, y, delta):
        loss, logits = super().loss(run, x, y, delta)
        before = F.cross_entropy(self.start_logits, y, reduction="none")
        after = F.cross_entropy(logits.detach(), y, reduction="none")
        run.guard.apart(before, after)
        abnormal = before > after
        run.guard.require(abnormal.any() and not abnormal.all(), "both kinds of samples are to occur")
        change = (logits - self.start_logits).square().sum(1)
        fall = (before - after)[abnormal].mean()
        excess = (change[abnormal].mean() - change[~abnormal].mean().detach()).clamp(min=0)
        share = abnormal.double().mean().to(run.dtype)
        reg = fall * self.weights[1] + excess * self.weights[2]
        run.guard.require((excess > 0) == (run.t == 1), "the excess is to be positive, then cut off at 0")
        run.record(abnormal=share, excess=excess, reg=share * reg)
        return loss + self.weights[0] * share * reg, logits


class AaerRs(Aaer):
    """The authors' weights at 16/255 with the examples of FGSM-RS."""

    weights = (1.0, 7.0, 3.25)
    wide, step_factor = 1, 1.25
    stored = ("grad_train",)

    def settings(self):
        return NFgsm.settings(self)

    def bound(self, delta):
        return delta.clamp(-self.eps, self.eps)


METHODS = {
    "gradalign": GradAlign,
    "gradalign-official": GradAlignOfficial,
    "nuat": NuAt,
    "nuat-official": NuAtOfficial,
    "elle": Elle,
    "elle-official": ElleOfficial,
    "elle-a": ElleA,
    "elle-a-official": ElleAOfficial,
    "n-fgsm-elle-a": NFgsmElleA,
    "aaer": Aaer,
    "aaer-rs": AaerRs,
}
