"""Multi-step methods whose loss compares clean and perturbed predictions: TRADES and MART."""

import torch
from torch.nn import functional as F

import inputs
import threat
from methods import EPS, Method
from threat import box


def divergence(clean, logits):
    """KL(softmax(clean) || softmax(logits)) of each sample, [N]."""
    p = F.log_softmax(clean, dim=1)
    return (p.exp() * (p - F.log_softmax(logits, dim=1))).sum(1)


class Trades(Method):
    """Zhang et al. 2019, arXiv 1901.08573."""

    steps = 10
    alpha = EPS / 4
    start = 0.001
    weight = 6.0
    strict_start = 40

    def settings(self):
        return super().settings() | {
            "steps": self.steps,
            "alpha": self.alpha,
            "start": self.start,
            "lambda": self.weight,
        }

    def ascent(self, run, x, y):
        """The loss that the attack climbs, as a function of delta."""
        clean = run.model(x).detach()
        return lambda delta: divergence(clean, run.model(x + delta)).mean()

    def perturb(self, run, x, y):
        run.model.eval()
        ascent = self.ascent(run, x, y)
        delta = box(x, self.start * run.draw("start", x.shape, inputs.normal))
        for k in range(self.steps):
            # The divergence nearly vanishes at the start, so its gradient there suffers from cancellation.
            g = run.grad_of(ascent, delta, strict=self.strict_start if k == 0 else 1)
            delta = box(x, threat.ball(delta + self.alpha * g.sign(), self.eps, "linf"))
        run.model.train()
        return delta, g, self.alpha

    def loss(self, run, x, y, delta):
        clean = run.model(x)
        logits = run.model(x + delta)
        reg = divergence(clean, logits).mean()
        run.record(reg=reg)
        return F.cross_entropy(clean, y) + self.weight * reg, logits


class Mart(Trades):
    """Wang et al. 2020, "Improving Adversarial Robustness Requires Revisiting Misclassified Examples"."""

    weight = 5.0
    strict_start = 1

    def ascent(self, run, x, y):
        return lambda delta: F.cross_entropy(run.model(x + delta), y)

    def loss(self, run, x, y, delta):
        clean = run.model(x)
        logits = run.model(x + delta)
        others = logits.masked_fill(F.one_hot(y, logits.shape[1]).bool(), -torch.inf)
        run.guard.argmax(others)
        rival = others.argmax(1, keepdim=True)
        rest = logits.scatter(1, rival, -torch.inf)
        margin = logits.logsumexp(1) - rest.logsumexp(1)
        missed = 1 - F.softmax(clean, dim=1).gather(1, y[:, None])[:, 0]
        reg = (divergence(clean, logits) * missed).mean()
        run.record(reg=reg)
        return F.cross_entropy(logits, y) + margin.mean() + self.weight * reg, logits


METHODS = {"trades": Trades, "mart": Mart}
