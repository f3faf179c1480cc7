#!/usr/bin/env python3
"""The coefficients of the kernels' normal distribution function: erfcx(a) = erfc(a) exp(a^2) for a >= 0 as t Q(t) with t = 1 / (1 + 0.3 a),
Q of degree 8, by least squares of the relative error, weighted towards its largest values. Needs PyTorch and numpy."""

import numpy as np
import torch

C, DEGREE, LARGEST = 0.3, 8, 10.2


def erfcx(a):
    return torch.special.erfcx(torch.from_numpy(a)).numpy()


def powers(t):
    return np.vander(t, DEGREE + 1, increasing=True) * t[:, None]


least = 1 / (1 + C * LARGEST)
t = (1 + least) / 2 + (1 - least) / 2 * np.cos(np.pi * (np.arange(4000) + 0.5) / 4000)
y = erfcx((1 / t - 1) / C)
weight = 1 / y
for _ in range(60):
    q = np.linalg.lstsq(powers(t) * weight[:, None], y * weight, rcond=None)[0]
    error = np.abs(powers(t) @ q / y - 1)
    weight *= (error / error.mean() + 0.05) ** 0.5
    weight /= weight.mean()

a = np.linspace(0, LARGEST, 200_001)
exact = powers(1 / (1 + C * a)) @ q
single = np.zeros(len(a), np.float32)
t = np.float32(1) / (np.float32(1) + np.float32(C) * a.astype(np.float32))
for c in q[::-1].astype(np.float32):
    single = single * t + c
single *= t
for name, value in (("exact arithmetic", exact), ("f32", single)):
    print(f"largest relative error in {name}: {np.abs(value / erfcx(a) - 1).max():.2e}")
print(",\n".join(f"{np.float32(c):.9g}" for c in q))
