"""What the tests of this chapter share: pairs of views, and slow ways to the same numbers."""

import math

import numpy as np
import torch

SHAPES = [(2, 3), (5, 4), (6, 15), (12, 2)]


def pair(n, d, seed=0):
    z = torch.randn(2, n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return z[0], z[0] * 0.6 + 0.8 * z[1]


def views(n, seed=0):
    return torch.rand(2 * n, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def scores(z, eps=1e-5):
    """Standard scores, one number after the other."""
    z = np.asarray(z)
    out = np.zeros_like(z)
    for j in range(z.shape[1]):
        mean = sum(z[:, j]) / len(z)
        variance = sum((v - mean) ** 2 for v in z[:, j]) / len(z)
        out[:, j] = [(v - mean) / math.sqrt(variance + eps) for v in z[:, j]]
    return out


def correlation(a, b):
    n, d = a.shape
    return np.array([[sum(a[k, i] * b[k, j] for k in range(n)) / n for j in range(d)] for i in range(d)])


def covariance(a, b):
    n, d = a.shape
    ma, mb = a.mean(0), b.mean(0)
    return np.array([[sum((a[k, i] - ma[i]) * (b[k, j] - mb[j]) for k in range(n)) / (n - 1) for j in range(d)]
                     for i in range(d)])  # fmt: skip
