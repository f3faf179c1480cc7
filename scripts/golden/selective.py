"""ZeroGrad and MultiGrad (Golgooni et al. 2021, arXiv 2103.15476): steps where the gradient's sign can be trusted."""

import torch

import threat
from methods import Method
from threat import box, flat, per_sample, uniform


class ZeroGrad(Method):
    quantile = 0.35

    def settings(self):
        return super().settings() | {"alpha": 2 * self.eps, "quantile": self.quantile}

    def perturb(self, run, x, y):
        alpha = 2 * self.eps
        eta = box(x, uniform(run.draw("eta", x.shape), -self.eps, self.eps))
        g = run.input_grad(x, y, eta)
        threshold = per_sample(torch.quantile(flat(g.abs()), self.quantile, dim=1))
        run.guard.sign(g.abs() - threshold)
        kept = torch.where(g.abs() < threshold, torch.zeros_like(g), g)
        return box(x, threat.ball(eta + alpha * kept.sign(), self.eps, "linf")), g, alpha


class MultiGrad(Method):
    starts = 3

    def settings(self):
        return super().settings() | {"starts": self.starts}

    def perturb(self, run, x, y):
        gradients = []
        for k in range(1, self.starts + 1):
            eta = box(x, uniform(run.draw("eta", x.shape, k=k), -self.eps, self.eps))
            gradients.append(run.input_grad(x, y, eta))
        votes = sum(g.sign() for g in gradients)
        agreed = torch.where(votes.abs() == self.starts, votes.sign(), torch.zeros_like(votes))
        return box(x, self.eps * agreed), sum(gradients) / self.starts, self.eps


METHODS = {"zerograd": ZeroGrad, "multigrad": MultiGrad}
