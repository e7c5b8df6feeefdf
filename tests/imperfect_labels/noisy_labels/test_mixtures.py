"""Beta and Gaussian mixtures of losses, and bootstrapping's parts."""

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.mixture import GaussianMixture

from labcode.imperfect_labels.noisy_labels import (
    bootstrapped,
    fit_two,
    mixing_shares,
    normalised,
    uniform_prior,
)  # fmt: skip


def two_bumps(seed=0, n=400):
    rng = np.random.default_rng(seed)
    x = np.concatenate([rng.beta(2, 12, n // 2), rng.beta(9, 3, n // 2)])
    return torch.from_numpy(x).clamp(1e-4, 1 - 1e-4)[None]


def test_beta_em_against_a_loop_with_scipy():
    x = two_bumps()
    a, b, w = np.array([1.0, 2.0]), np.array([2.0, 1.0]), np.array([0.5, 0.5])
    v = x[0].numpy()
    for _ in range(10):
        joint = np.stack([w[c] * stats.beta.pdf(v, a[c], b[c]) for c in (0, 1)], 1)
        share = joint / joint.sum(1, keepdims=True) + 1e-12
        for c in (0, 1):
            m = (share[:, c] * v).sum() / share[:, c].sum()
            var = (share[:, c] * (v - m) ** 2).sum() / share[:, c].sum()
            a[c] = m * (m * (1 - m) / var - 1)
            b[c] = a[c] * (1 - m) / m
        w = share.sum(0) / share.sum()
    found = fit_two(x)
    assert torch.allclose(found.a[0], torch.from_numpy(a), rtol=1e-6)
    assert torch.allclose(found.b[0], torch.from_numpy(b), rtol=1e-6)
    want = np.log(sum(w[c] * stats.beta.pdf(v, a[c], b[c]) for c in (0, 1))).mean()
    assert float(found.log_likelihood(x)[0]) == pytest.approx(want, rel=1e-6)


def test_bumps_are_found_and_ordered():
    x = two_bumps()
    found = fit_two(torch.cat([x, 1 - x]))
    assert bool((found.mean[:, 0] < found.mean[:, 1]).all())
    p = found.high(x.repeat(2, 1))[0]
    assert float((p[:200] < 0.5).double().mean()) > 0.9 and float((p[200:] > 0.5).double().mean()) > 0.9


def test_gaussians_agree_with_scikit_learn():
    g = torch.Generator().manual_seed(3)
    low, high = 0.2 + 0.05 * torch.randn(300, generator=g), 0.8 + 0.1 * torch.randn(200, generator=g)
    x = torch.cat([low, high])[None].double()
    found = fit_two(x, "gaussian", steps=200)
    theirs = GaussianMixture(2, reg_covar=5e-4, max_iter=500, tol=1e-9, random_state=0).fit(x[0, :, None].numpy())
    order = theirs.means_[:, 0].argsort()
    assert np.allclose(found.a[0], theirs.means_[order, 0], atol=1e-3)
    assert np.allclose(found.weight[0], theirs.weights_[order], atol=1e-3)


def test_the_table_never_falls_after_its_maximum():
    found = fit_two(two_bumps())
    grid = torch.linspace(1e-4, 1 - 1e-4, 100, dtype=torch.float64)[None]
    p = found.looked_up(grid)
    top = int(p.argmax())
    assert bool((p[0, top:] == p[0, top]).all())


def test_normalised_losses():
    x = normalised(torch.tensor([[0.0, 1.0, 2.0, 3.0, 4.0], [7.0] * 5]), (0.0, 1.0))
    assert x[0].tolist() == pytest.approx([1e-4, 0.25, 0.5, 0.75, 1 - 1e-4])
    assert x[1].tolist() == pytest.approx([1e-4] * 5)
    with pytest.raises(ValueError, match="loss"):
        normalised(torch.zeros(3))


def test_refusals():
    with pytest.raises(ValueError, match="kind"):
        fit_two(two_bumps(), "gamma")
    with pytest.raises(ValueError, match="normalised"):
        fit_two(torch.tensor([[0.0, 0.5]]))


def test_bootstrapped_targets():
    y, s = torch.eye(3)[None, :1], torch.tensor([[[0.0, 1.0, 0.0]]])
    assert torch.allclose(bootstrapped(y, s, torch.tensor([[0.25]])), torch.tensor([[[0.75, 0.25, 0.0]]]))
    z = torch.randn(1, 1, 3, requires_grad=True)
    out = bootstrapped(y, z.softmax(-1), torch.tensor([[0.5]]))
    assert not out.requires_grad


def test_uniform_prior_is_a_divergence():
    z = torch.randn(2, 6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    p = z.softmax(-1).mean(1)
    want = (0.25 * (0.25 / p).log()).sum(1)
    assert torch.allclose(uniform_prior(z), want)
    assert float(uniform_prior(torch.zeros(1, 3, 4))) == pytest.approx(0, abs=1e-6)
    assert torch.autograd.gradcheck(uniform_prior, z.clone().requires_grad_())


def test_mixing_shares_favour_the_trusted():
    share = mixing_shares(torch.tensor([[0.0, 1.0, 0.5]]), torch.tensor([[1, 0, 2]]))
    assert share[0].tolist() == pytest.approx([1, 0, 0.5], abs=1e-3)
