"""Entropies from spacings against the loop."""

import math

import pytest
import torch

from labcode.self_supervision import redundancy as R


def test_m_spacing_is_the_loop():
    u = torch.rand(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for column, found in zip(u.T.tolist(), R.m_spacing_entropy(u), strict=True):
        x, m = sorted(column), 7
        wanted = sum(math.log(51 / m * (x[i + m] - x[i]) + 1e-7) for i in range(50 - m)) / (50 - m)
        assert float(found) == pytest.approx(wanted, rel=1e-9)


def test_m_spacing_moves_with_scale_as_entropy_does():
    u = torch.rand(200, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(R.m_spacing_entropy(3 * u + 5), R.m_spacing_entropy(u) + math.log(3), atol=1e-4)
    assert torch.allclose(R.m_spacing_entropy(torch.zeros(20, 2)), torch.tensor(math.log(1e-7)))  # ties


def test_e2mc_averages_entropies_and_sums_covariances():
    """As the authors' code: a view more or less uniform counts half, a view's covariances in full."""
    z1, z2 = torch.randn(2, 30, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    entropy, cov = 0.0, 0.0
    for u in (z1.sigmoid(), z2.sigmoid()):
        entropy += float(R.m_spacing_entropy(u).mean()) / 2
        c = torch.cov(u.T)
        cov += sum(float(c[i, j]) ** 2 for i in range(4) for j in range(4) if i != j) / 4
    assert float(R.e2mc(z1, z2, 7.0, 3.0)) == pytest.approx(3 * cov - 7 * entropy, rel=1e-9)
    assert float(R.e2mc(z1, z2, 0.0, 1.0)) == pytest.approx(cov, rel=1e-9)
