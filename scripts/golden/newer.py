"""lp-FGSM (arXiv 2505.02360) and LAP (arXiv 2405.16262)."""

import copy
import math

import torch
from torch.nn import functional as F

from methods import Method
from threat import box, flat, per_sample, uniform


class LpFgsm(Method):
    """Each image's step is the steepest in an lp ball whose p its gradient chooses."""

    beta = 0.005
    p = None
    stored = ("grad_train",)

    def settings(self):
        return super().settings() | {"beta": self.beta} | ({"p": self.p} if self.p else {})

    def q(self, size):
        if self.p:
            return torch.full((len(size),), self.p / (self.p - 1), dtype=size.dtype)
        rho = size / size.sum(1, keepdim=True)
        gap = -rho.log().mean(1) + (rho * rho.log()).sum(1)
        return (1 + self.beta / gap).clamp(1 + 1 / 1024, 2)

    def perturb(self, run, x, y):
        g = run.input_grad(x, y, torch.zeros_like(x))
        size = flat(g).abs() + 1e-12
        q = self.q(size)[:, None]
        norm = size.pow(q).sum(1, keepdim=True).pow(1 / q)
        step = (size / norm).pow(q - 1).reshape(x.shape)
        return box(x, self.eps * g.sign() * step), g, self.eps


class LpFgsmFixed(LpFgsm):
    stored = ()
    p = 2.4


class Lap(Method):
    """By the authors' code: torch's own optimizer takes the step whose direction the weights are moved along."""

    beta = 0.02
    gamma = 0.3

    def settings(self):
        return super().settings() | {"beta": self.beta, "gamma": self.gamma}

    def perturb(self, run, x, y):
        eta = box(x, uniform(run.draw("eta", x.shape), -2 * self.eps, 2 * self.eps)).requires_grad_(True)
        run.optimizer.zero_grad()
        F.cross_entropy(run.model(x + eta), y).backward()
        g = eta.grad
        run.guard.sign(g)
        before = {name: p.detach().clone() for name, p in run.model.named_parameters()}
        saved = copy.deepcopy(run.optimizer.state_dict())
        run.optimizer.step()
        update = {name: p.detach() - before[name] for name, p in run.model.named_parameters()}
        run.optimizer.load_state_dict(saved)
        layers = [name for name, p in before.items() if p.dim() > 1]
        with torch.no_grad():
            for k, (name, p) in enumerate(run.model.named_parameters()):
                p.copy_(before[name])
            for k, name in enumerate(layers, 1):
                share = 1 - (math.log(k) / math.log(len(layers))) ** self.gamma
                move = before[name].norm() / (update[name].norm() + 1e-20) * update[name]
                run.model.get_parameter(name).add_(share * self.beta * move)
        eta = eta.detach()
        return box(x, eta + self.eps * g.sign()), g, self.eps


METHODS = {"lp-fgsm": LpFgsm, "lp-fgsm-p": LpFgsmFixed, "lap": Lap}
