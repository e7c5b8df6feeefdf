"""Selection by uncertainty against SciPy and simulation."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from labcode.self_supervision import data_curation as D


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


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
