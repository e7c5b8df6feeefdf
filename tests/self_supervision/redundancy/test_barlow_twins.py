"""Barlow Twins against the loop of its equation, its invariances and closed values."""

import math

import numpy as np
import pytest
import torch

from labcode.self_supervision import redundancy as R

SHAPES = [(2, 3), (5, 4), (6, 15), (12, 2)]


def pair(n, d, seed=0):
    z = torch.randn(2, n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return z[0], z[0] * 0.6 + 0.8 * z[1]


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


@pytest.mark.parametrize("n, d", SHAPES)
@pytest.mark.parametrize("gram", [None, False, True])
def test_barlow_twins_is_the_loop(n, d, gram):
    z1, z2 = pair(n, d)
    c = correlation(scores(z1), scores(z2))
    on = sum((1 - c[i, i]) ** 2 for i in range(d))
    off = sum(c[i, j] ** 2 for i in range(d) for j in range(d) if i != j)
    assert float(R.barlow_twins(z1, z2, 0.03, gram=gram)) == pytest.approx(on + 0.03 * off, rel=1e-9)
    assert float(R.barlow_twins(z1, z2, 0.03, on=0.0, gram=gram)) == pytest.approx(0.03 * off, rel=1e-9, abs=1e-12)
    assert np.allclose(R.cross_correlation(z1, z2), c)
    own = [correlation(scores(z), scores(z)) for z in (z1, z2)]
    off = sum(c[i, j] ** 2 for c in own for i in range(d) for j in range(d) if i != j) / 2
    assert float(R.barlow_twins(z1, z2, 0.03, gram=gram, within=True)) == pytest.approx(on + 0.03 * off, rel=1e-9)


def test_barlow_twins_ignores_scale_and_shift_and_row_order():
    z1, z2 = pair(30, 5)
    base = R.barlow_twins(z1, z2)
    assert torch.allclose(R.barlow_twins(1000 * z1 - 7, z2), base, rtol=1e-4)
    order = torch.randperm(30)
    assert torch.allclose(R.barlow_twins(z1[order], z2[order]), base)
    assert not torch.allclose(R.barlow_twins(z1[order], z2), base)  # pairs matter
