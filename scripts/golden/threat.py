"""Perturbation sets: box, balls, random starts, steps. Images in [0, 1], shape [N, C, H, W]."""

import torch

TINY = 1e-12


def flat(t):
    return t.flatten(1)


def per_sample(t):
    """[N] -> [N, 1, 1, 1]."""
    return t.view(-1, 1, 1, 1)


def uniform(u, low, high):
    """Maps a base draw u in [0, 1) to U(low, high)."""
    return low + (high - low) * u


def box(x, delta):
    return torch.maximum(torch.minimum(delta, 1 - x), -x)


def l2_norm(t):
    return per_sample(flat(t).norm(dim=1))


def ball(delta, eps, norm):
    if norm == "linf":
        return delta.clamp(-eps, eps)
    return delta * (eps / l2_norm(delta).clamp_min(TINY)).clamp(max=1)


def direction(g, norm):
    """Steepest ascent: sign(g), or g / ||g||_2 for each sample."""
    return g.sign() if norm == "linf" else g / l2_norm(g).clamp_min(TINY)
