"""What the tests of this chapter share: random rows and pictures, small encoders, plain float64 arithmetic."""

import math

import numpy as np
import torch
from torch import nn


def rows(n, d=5, seed=0, dtype=torch.float64):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def rand(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def pictures(n, seed=0):
    return torch.rand(n, 3, 2, 2, generator=torch.Generator().manual_seed(seed))


def unit(v):
    return np.asarray(v) / math.sqrt(sum(float(a) ** 2 for a in v))


def dot(a, b):
    return sum(float(p) * float(q) for p, q in zip(unit(a), unit(b), strict=True))


def cosine(a, b):
    return float(np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b)))


def lse(scores):
    top = max(scores)
    return top + math.log(math.fsum(math.exp(s - top) for s in scores))


def slow_info_nce(predicted, target):
    """Equation 4 with plain Python numbers."""
    p, t = predicted.tolist(), target.tolist()
    total = 0.0
    for i in range(len(p)):
        f = [math.exp(sum(a * b for a, b in zip(p[i], row, strict=True))) for row in t]
        total -= math.log(f[i] / sum(f))
    return total / len(p)


class Flat(nn.Module):
    """A linear encoder of 2×2 images, with BatchNorm if asked for."""

    def __init__(self, norm=False):
        super().__init__()
        self.features = 6
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(12, 6), *[nn.BatchNorm1d(6)] * norm)

    def forward(self, x):
        return self.body(x)


class Tiny(nn.Module):
    features = 6

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(12, 6)

    def forward(self, x):
        return self.layer(x.flatten(1))
