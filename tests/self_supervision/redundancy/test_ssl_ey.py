"""Eckart-Young losses against loops, exact answers and their bias."""


import numpy as np
import pytest
import torch
from self_supervision.redundancy.helpers import SHAPES, covariance, pair

from labcode.self_supervision import redundancy as R


@pytest.mark.parametrize("n, d", SHAPES)
def test_ssl_ey_is_the_loop(n, d):
    z1, z2 = pair(n, d)
    y1, y2 = pair(n + 1, d, 3)
    within = [covariance(u.numpy(), u.numpy()) + covariance(v.numpy(), v.numpy()) for u, v in ((z1, z2), (y1, y2))]
    cross = 2 * sum(covariance(z1.numpy(), z2.numpy())[i, i] for i in range(d))
    for other, second in ((None, within[0]), ((y1, y2), within[1])):
        trace = sum(within[0][i, j] * second[j, i] for i in range(d) for j in range(d))
        assert float(R.ssl_ey(z1, z2, other)) == pytest.approx(-2 * cross + trace, rel=1e-9)


def test_eckart_young_of_two_batches_is_unbiased_and_of_one_is_not():
    z = torch.randn(800, 4, 16, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    one = torch.stack([R.ssl_ey(a, b) for a, b, _, _ in z])
    two = torch.stack([R.ssl_ey(a, b, (c, d)) for a, b, c, d in z])
    truth, bias = 4 * 3, 2 * (9 + 3) / 15
    assert abs(float(two.mean()) - truth) < 4 * float(two.std()) / len(two) ** 0.5
    assert float(one.mean()) == pytest.approx(truth + bias, abs=4 * float(one.std()) / len(one) ** 0.5)


def test_canonical_correlations_against_scikit_learn_eigenvalues():
    x1, x2 = (x.double() for x in R.planted_views(400, 6, (0.9, 0.5)))
    full = np.cov(torch.cat([x1, x2], 1).numpy().T)
    a, b, c = full[:6, :6], full[6:, 6:], full[:6, 6:]
    squares = np.linalg.eigvals(np.linalg.solve(a, c) @ np.linalg.solve(b, c.T)).real
    assert np.allclose(np.sort(np.sqrt(squares))[::-1], R.canonical_correlations(x1, x2), atol=1e-8)
    mix = torch.randn(6, 6, dtype=torch.float64)
    assert torch.allclose(R.canonical_correlations(x1 @ mix, x2), R.canonical_correlations(x1, x2))
    with pytest.raises(ValueError, match="x1"):
        R.canonical_correlations(x1[:6], x2[:6])


def test_linear_cca_finds_the_planted_subspace():
    x1, x2 = R.planted_views(1000, 8, (0.9, 0.7))
    w1, w2 = R.linear_cca(R.ssl_ey, x1, x2, 2, 300, 1000, 0.05)
    exact = R.canonical_correlations(x1, x2)[:2]
    assert torch.allclose(R.canonical_correlations(x1 @ w1, x2 @ w2), exact, atol=5e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-18, 1e-20, 1e-22, 1e-30])
def test_whitened_correlation_of_tiny_views_is_all_ridge(dtype, scale):
    z = torch.randn(2, 12, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(dtype) * scale
    found = R.whitened_correlation(*z.requires_grad_())
    assert -1e-6 <= float(found.detach()) <= 0
    assert torch.isfinite(torch.autograd.grad(found, z)[0]).all()


@pytest.mark.parametrize("n, d", SHAPES)
def test_the_hebbian_rival_has_the_algorithms_step_as_its_gradient(n, d):
    x1, x2 = pair(n + 2, d)
    w1, w2 = (w.requires_grad_() for w in torch.randn(2, d, 2, dtype=torch.float64).unbind())
    found = torch.autograd.grad(R.sgha(x1 @ w1, x2 @ w2), (w1, w2))
    zero, w = np.zeros((d, d)), torch.cat([w1, w2]).detach().numpy()
    c12, c11, c22 = (covariance(a.numpy(), b.numpy()) for a, b in ((x1, x2), (x1, x1), (x2, x2)))
    a, b = np.block([[zero, c12], [c12.T, zero]]), np.block([[c11, zero], [zero, c22]])
    assert np.allclose(torch.cat(found), -4 * a @ w + 2 * b @ w @ (w.T @ a @ w), atol=1e-9)
