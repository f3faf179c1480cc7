"""Additions to any method, here to N-FGSM: adversarial weight perturbation, averaged weights, label smoothing."""

import copy

import torch
from torch.nn import functional as F

from methods import NFgsm


class Awp(NFgsm):
    """Wu et al. 2020, arXiv 2004.05884: gradients are taken at weights moved by gamma ||w|| along their own gradient."""

    gamma = 0.01

    def settings(self):
        return super().settings() | {"gamma": self.gamma}

    def loss(self, run, x, y, delta):
        proxy = copy.deepcopy(run.model)
        proxy_loss = F.cross_entropy(proxy(x + delta.detach()), y)
        weights = [p for p in proxy.parameters() if p.dim() > 1]
        ascent = dict(zip((id(p) for p in weights), torch.autograd.grad(proxy_loss, weights)))
        self.saved = []
        with torch.no_grad():
            for w, w_proxy in zip(run.model.parameters(), proxy.parameters()):
                if w.dim() > 1:
                    g = ascent[id(w_proxy)]
                    self.saved.append((w, w.clone()))
                    w.add_(g * (self.gamma * w.norm() / g.norm()))
        return super().loss(run, x, y, delta)

    def before_update(self, run):
        with torch.no_grad():
            for w, value in self.saved:
                w.copy_(value)


class Ema(NFgsm):
    """Exponential moving average of weights and running statistics, from the initial values on."""

    stored = ()
    decay = 0.7

    def settings(self):
        return super().settings() | {"decay": self.decay}

    def after(self, run, g, g_train):
        weights = run.model.state_dict()
        self.average = {
            name: self.decay * average + (1 - self.decay) * weights[name]
            for name, average in getattr(self, "average", run.initial).items()
            if average.is_floating_point()
        }
        run.store(self.average, "ema.")
        return {}


class LabelSmoothing(NFgsm):
    stored = ("grad_train",)
    smoothing = 0.1

    def settings(self):
        return super().settings() | {"smoothing": self.smoothing}

    def loss(self, run, x, y, delta):
        logits = run.model(x + delta)
        return F.cross_entropy(logits, y, label_smoothing=self.smoothing), logits


METHODS = {"awp": Awp, "ema": Ema, "label-smoothing": LabelSmoothing}
