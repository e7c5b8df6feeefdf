"""The bottleneck's divergence, and the toys' answers."""


import pytest
import torch

from labcode.self_supervision import contrastive_theory as T


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=gen(seed))


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
