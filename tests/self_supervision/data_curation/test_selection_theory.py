"""Selection by uncertainty against SciPy and simulation."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from self_supervision.data_curation.helpers import gen

from labcode.self_supervision import data_curation as D


@pytest.mark.parametrize("alpha", [-1.0, 0.0, 0.5, 1.0])
@pytest.mark.parametrize("count", [3, 50, 99, 100])
def test_inclusion_sums_to_the_count_and_follows_the_power(alpha, count):
    logits = 4 * torch.randn(2, 100, generator=gen(), dtype=torch.float64)
    pi = D.inclusion(logits, count, alpha)
    assert pi.sum(1).tolist() == pytest.approx([count] * 2, rel=1e-6) and pi.max() <= 1
    p = logits.clamp(-10, 10).sigmoid()
    score = (p * (1 - p)) ** alpha
    free = pi < 1 - 1e-9
    for row in range(2):
        constant = (pi / score)[row][free[row]]
        assert len(constant) < 2 or constant.max() / constant.min() == pytest.approx(1, rel=1e-6)


def test_logistic_is_what_scipy_finds():
    x, y, _ = D.mislabelled_gaussians(3, 40, 4, seed=2)
    weight = torch.rand(3, 40, generator=gen(), dtype=torch.float64) * 2
    got = D.logistic(x, y, weight, lam=0.02)
    for r in range(3):

        def objective(theta, r=r):
            margin = y[r].numpy() * (x[r].numpy() @ theta)
            return (weight[r].numpy() * np.logaddexp(0, -margin)).sum() + 0.02 * 40 / 2 * (theta**2).sum()

        assert got[r].numpy() == pytest.approx(minimize(objective, np.zeros(4), tol=1e-12).x, abs=1e-4)


def test_the_test_error_is_the_share_of_wrong_signs():
    x, y, truth = D.mislabelled_gaussians(1, 100_000, 3, flip=0.1, seed=4)
    for theta in (truth, -truth, truth + 4 * torch.randn(1, 3, generator=gen(), dtype=torch.float64)):
        counted = (torch.einsum("rnp,rp->rn", x, theta).sign() != y).double().mean().item()
        assert float(D.misspecified_error(theta, truth, flip=0.1)) == pytest.approx(counted, abs=0.005)
    assert float(D.misspecified_error(truth, truth)) == pytest.approx(0.05)


@pytest.mark.parametrize("alpha", [-1e4, -30.0, 1e6])
def test_inclusion_takes_any_power_and_half_precision(alpha):
    """In the limit the surest, or the least sure, alone are kept."""
    logits = torch.linspace(-3, 2.5, 60).roll(7)[None]
    pi = D.inclusion(logits, 12, alpha)
    surest = logits[0].abs().argsort(descending=alpha < 0)[:12]
    assert float(pi.sum()) == pytest.approx(12, rel=1e-4) and (abs(alpha) < 100 or (pi[0, surest] > 0.999).all())
    assert torch.allclose(D.inclusion(logits.half(), 12, 0.5).float(), D.inclusion(logits, 12, 0.5), atol=2e-3)


@pytest.mark.bad_input
def test_what_a_regression_cannot_take_is_named():
    x, y, _ = D.mislabelled_gaussians(1, 20, 2)
    weight = torch.ones_like(y)
    for given, name in (
        ((x, (y > 0).double(), weight), "y must hold labels"),
        ((x, y[:, :5], weight), "y and weight"),
        ((x / 0, y, weight), "x must be finite"),
        ((x, y, weight / 0), "weight must be finite"),
    ):
        with pytest.raises(ValueError, match=name):
            D.logistic(*given, lam=0.1)
    with pytest.raises(ValueError, match="logits must be finite"):
        D.inclusion(x[:, :, 0] / 0, 2, 1.0)
