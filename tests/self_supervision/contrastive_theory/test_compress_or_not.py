"""The bottleneck's divergence, and the toys' answers."""

import math

import pytest
import torch
from self_supervision.contrastive_theory.helpers import randn

from labcode.self_supervision import contrastive_theory as T


def test_symmetric_kl_is_that_of_distributions():
    mu1, s1, mu2, s2 = (randn(5, 3, seed=i) for i in range(4))
    a, b = torch.distributions.Normal(mu1, s1.exp()), torch.distributions.Normal(mu2, s2.exp())
    kl = torch.distributions.kl_divergence
    want = (kl(a, b) + kl(b, a)).sum(1).mean() / 2
    assert torch.allclose(T.symmetric_kl(mu1, s1, mu2, s2), want)
    assert float(T.symmetric_kl(mu1, s1, mu1, s1)) == pytest.approx(0, abs=1e-12)
    inputs = tuple(v.requires_grad_() for v in (mu1, s1, mu2, s2))
    assert torch.autograd.gradcheck(T.symmetric_kl, inputs)


def test_toys_share_what_they_say():
    x, y, symbols = T.token_pairs(3000, 3, seed=1, noise=0.0)
    assert x.shape == y.shape == (3000, 48) and symbols.shape == (3000, 3)
    assert T.ridge_accuracy(x, symbols[:, 1], x, symbols[:, 1]) > 0.9
    assert T.ridge_accuracy(y, symbols[:, 1], y, symbols[:, 1]) > 0.9
    data = T.shared_and_private(3000, seed=0)
    for view, task, good in (("x1", "shared", 1), ("x2", "shared", 1), ("x1", "private", 1), ("x2", "private", 0)):
        found = T.ridge_accuracy(data[view][:2000], data[task][:2000], data[view][2000:], data[task][2000:])
        assert (found > 0.5) == bool(good)


def test_symmetric_kl_keeps_small_differences_and_is_never_negative():
    """Of N(0, s²) and N(0, s² e^{2h}) it is sinh² h a dimension; 1e-8 and less are lost where 2 is taken off."""
    for h in (1e-6, 1e-4, 0.3):
        mu, log_sd = torch.zeros(5, 3), torch.full((5, 3), -2.0)
        log_sd2 = torch.full((5, 3), -2.0 + h)
        step = float(log_sd2[0, 0].double() - log_sd[0, 0].double())
        assert float(T.symmetric_kl(mu, log_sd, mu, log_sd2)) == pytest.approx(3 * math.sinh(step) ** 2, rel=1e-5)
    for seed in range(20):
        mu, log_sd = randn(4, 3, seed=seed).float(), randn(4, 3, seed=seed + 99).float()
        assert float(T.symmetric_kl(mu, log_sd, mu, log_sd)) == 0
