"""VICReg against the loop of its equations."""

import math

import numpy as np
import pytest
import torch

from labcode.self_supervision import redundancy as R

SHAPES = [(2, 3), (5, 4), (6, 15), (12, 2)]


def pair(n, d, seed=0):
    z = torch.randn(2, n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return z[0], z[0] * 0.6 + 0.8 * z[1]


def covariance(a, b):
    n, d = a.shape
    ma, mb = a.mean(0), b.mean(0)
    return np.array([[sum((a[k, i] - ma[i]) * (b[k, j] - mb[j]) for k in range(n)) / (n - 1) for j in range(d)]
                     for i in range(d)])  # fmt: skip


@pytest.mark.parametrize("n, d", SHAPES)
@pytest.mark.parametrize("gram", [None, False, True])
def test_vicreg_is_the_loop(n, d, gram):
    z1, z2 = pair(n, d)
    wanted = 0.0
    for k in range(n):
        wanted += 7 * sum((float(z1[k, i]) - float(z2[k, i])) ** 2 for i in range(d)) / (n * d)
    for z in (z1.numpy(), z2.numpy()):
        c = covariance(z, z)
        wanted += 3 / 2 * sum(max(0, 1 - math.sqrt(c[i, i] + 1e-4)) for i in range(d)) / d
        wanted += 2 * sum(c[i, j] ** 2 for i in range(d) for j in range(d) if i != j) / d
    assert float(R.vicreg(z1, z2, 7, 3, 2, gram)) == pytest.approx(wanted, rel=1e-9)
