"""Training methods whose loss is the cross-entropy at the perturbed image; sources in README.md."""

import torch
from torch.nn import functional as F

import inputs
import threat
from threat import box, direction, per_sample, uniform

EPS = 8 / 255
EPS_L2 = 128 / 255


class Method:
    """A perturbation and a training loss. `settings` go into the file's metadata."""

    norm = "linf"
    eps = EPS
    updates = 2
    # Which gradients to store: none in variants of a method that has its own file, to keep the files small.
    stored = ("grad", "grad_train")

    def settings(self):
        return {"norm": self.norm, "epsilon": self.eps}

    def batch(self, run):
        """The images and labels of update run.t."""
        return run.batch(run.t)

    def perturb(self, run, x, y):
        """(delta, gradient of the last attack pass or None, step size)."""
        raise NotImplementedError

    def loss(self, run, x, y, delta):
        """(training loss, logits at the perturbed images)."""
        logits = run.model(x + delta)
        return F.cross_entropy(logits, y), logits

    def before_update(self, run):
        """Called between the backward pass and the optimizer's step."""

    def after(self, run, g, g_train):
        """State to record after the update."""
        return {}


class Clean(Method):
    def perturb(self, run, x, y):
        return torch.zeros_like(x), None, 0.0


class Fgsm(Method):
    def perturb(self, run, x, y):
        g = run.input_grad(x, y, torch.zeros_like(x), self.norm == "linf")
        return box(x, self.eps * direction(g, self.norm)), g, self.eps


class Fgm(Fgsm):
    norm = "l2"
    eps = EPS_L2


class FgsmRs(Method):
    step_factor = 1.25

    def perturb(self, run, x, y):
        alpha = self.step_factor * self.eps
        eta = box(x, uniform(run.draw("eta", x.shape), -self.eps, self.eps))
        g = run.input_grad(x, y, eta)
        return box(x, threat.ball(eta + alpha * g.sign(), self.eps, "linf")), g, alpha


class FgsmRsL2(Method):
    norm = "l2"
    eps = EPS_L2

    def perturb(self, run, x, y):
        alpha = 1.25 * self.eps
        eta = start(run, x, self.eps, self.norm)
        g = run.input_grad(x, y, eta, signed=False)
        return box(x, threat.ball(eta + alpha * direction(g, "l2"), self.eps, "l2")), g, alpha


class NFgsm(Method):
    def perturb(self, run, x, y):
        eta = box(x, uniform(run.draw("eta", x.shape), -2 * self.eps, 2 * self.eps))
        g = run.input_grad(x, y, eta)
        return box(x, eta + self.eps * g.sign()), g, self.eps


def start(run, x, eps, norm):
    """Random start in the ball: uniform in it for l-inf; for l2 a uniform direction times a uniform radius."""
    if norm == "linf":
        return box(x, uniform(run.draw("eta", x.shape), -eps, eps))
    away = direction(run.draw("dir", x.shape, inputs.normal), "l2")
    radius = run.draw("radius", x.shape[:1])
    return box(x, eps * per_sample(radius) * away)


class Pgd(Method):
    steps = 10
    alpha = EPS / 4

    def settings(self):
        return super().settings() | {"steps": self.steps, "alpha": self.alpha}

    def perturb(self, run, x, y):
        delta = start(run, x, self.eps, self.norm)
        for _ in range(self.steps):
            g = run.input_grad(x, y, delta, self.norm == "linf")
            delta = delta + self.alpha * direction(g, self.norm)
            delta = box(x, threat.ball(delta, self.eps, self.norm))
        return delta, g, self.alpha


class Pgd2(Pgd):
    stored = ()
    steps = 2
    alpha = EPS / 2


class PgdL2(Pgd):
    norm = "l2"
    eps = EPS_L2
    alpha = EPS_L2 / 4


class Sora(Method):
    """Step length from the linearity of the loss, which the training pass of the previous batches measured."""

    beta = 0.05
    alpha_fixed = None
    step_factor = "pixel"
    random_start = True

    def __init__(self):
        self.v = 0.99
        self.alpha_max = 2 * self.eps
        self.alpha_0 = 0.02 * self.alpha_max

    def settings(self):
        return super().settings() | {
            "beta": self.beta,
            "v0": 0.99,
            "alpha_max": self.alpha_max,
            "alpha_0": self.alpha_0,
            "alpha_fixed": self.alpha_fixed,
            "step_factor": self.step_factor,
            "random_start": str(self.random_start).lower(),
        }

    def alpha(self):
        if self.alpha_fixed is not None:
            return self.alpha_fixed
        if self.v >= 1:
            return self.alpha_max
        return min(self.alpha_max, self.alpha_0 / (1 - self.v))

    def factor(self, run, x):
        if self.step_factor == "pixel":
            return run.draw("r", x.shape)
        if self.step_factor == "sample":
            return per_sample(run.draw("r_sample", x.shape[:1]))
        return 1.0

    def perturb(self, run, x, y):
        alpha = self.alpha()
        eta = start(run, x, self.eps, self.norm) if self.random_start else torch.zeros_like(x)
        g = run.input_grad(x, y, eta, self.norm == "linf")
        return box(x, eta + alpha * self.factor(run, x) * direction(g, self.norm)), g, alpha

    def after(self, run, g, g_train):
        v_batch = run.out[f"linearity_batch{run.t}"].item()
        self.v = (1 - self.beta) * self.v + self.beta * v_batch
        return {"v": self.v}


class SoraL2(Sora):
    norm = "l2"
    eps = EPS_L2


class SoraFixedAlpha(Sora):
    stored = ()
    alpha_fixed = 12 / 255


class SoraFullStep(Sora):
    stored = ()
    step_factor = "one"


class SoraSampleStep(Sora):
    stored = ()
    step_factor = "sample"


class SoraNoStart(Sora):
    stored = ()
    random_start = False


METHODS = {
    "none": Clean,
    "fgsm": Fgsm,
    "fgm": Fgm,
    "fgsm-rs": FgsmRs,
    "fgsm-rs-l2": FgsmRsL2,
    "n-fgsm": NFgsm,
    "pgd": Pgd,
    "pgd-2": Pgd2,
    "pgd-l2": PgdL2,
    "sora": Sora,
    "sora-l2": SoraL2,
    "sora-fixed-alpha": SoraFixedAlpha,
    "sora-full-step": SoraFullStep,
    "sora-sample-step": SoraSampleStep,
    "sora-no-start": SoraNoStart,
}
