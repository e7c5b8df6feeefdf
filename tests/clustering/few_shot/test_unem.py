"""Unrolled EM: a layer of the loop, EM at one and one, Dirichlets against SciPy, learning that lowers the loss."""

import math

import numpy as np
import pytest
import torch
from clustering.few_shot.helpers import tasks
from scipy import special, stats

from labcode.clustering import few_shot as F


def test_layers_are_the_loop():
    t, s = tasks(), F.Settings(torch.tensor([1.5, 0.5]), torch.tensor([1.0, 2.0]), torch.tensor(0.7))
    found = F.generalised_em(t, s)
    for i in range(4):
        z, sup = 0.7 * t.query[i], 0.7 * t.support[i]
        w, v = torch.stack([sup[t.support_y[i] == k].mean(0) for k in range(3)]), torch.zeros(3, dtype=z.dtype)
        for gamma, temperature in ((1.5, 1.0), (0.5, 2.0)):
            logits = torch.stack([-0.5 * (z - w[k]).square().sum(1) for k in range(3)], 1)
            u = ((logits + gamma * v) / temperature).softmax(1)
            v = (u.mean(0) + 1e-6).log() + 1
            w = torch.stack([(u[:, k] @ z + sup[t.support_y[i] == k].sum(0)) / (u[:, k].sum() + 2) for k in range(3)])
        assert torch.allclose(found[i], u, atol=1e-6)


def test_gradients_reach_every_setting():
    t = tasks(count=2)
    values = [
        torch.tensor([1.0, 2.0], dtype=torch.float64),
        torch.tensor([1.2, 1.5], dtype=torch.float64),
        torch.tensor(0.8, dtype=torch.float64),
    ]
    values = [v.requires_grad_() for v in values]
    assert torch.autograd.gradcheck(lambda *v: F.generalised_em(t, F.Settings(*v)), values)


def test_classes_may_change_places_and_extremes_stay_finite():
    t = tasks()
    s = F.Settings.fixed(2.0)
    turned = F.Tasks(t.support, (t.support_y + 1) % 3, t.query, t.query_y, 3)
    assert torch.allclose(F.generalised_em(turned, s).roll(-1, 2), F.generalised_em(t, s))
    for extreme in (
        F.Settings.fixed(1e4),
        F.Settings.fixed(1.0, 1e-3),
        F.Settings.fixed(1.0, 1e6),
        F.Settings.fixed(1.0, 1.0, 1e3),
    ):
        assert torch.isfinite(F.generalised_em(t, extreme)).all()
    with pytest.raises(ValueError, match="gamma"):
        F.Settings.fixed(-1.0)
    with pytest.raises(ValueError, match="model"):
        F.generalised_em(t, s, "student")


def test_dirichlet_density_is_scipys_and_the_fit_is_a_maximum():
    g = np.random.default_rng(0)
    z = torch.tensor(g.dirichlet([2.0, 0.5, 4.0], 400))
    alpha = F.fit_dirichlet(z.log().mean(0)[None], steps=500)[0]
    assert torch.allclose(alpha, torch.tensor([2.0, 0.5, 4.0], dtype=alpha.dtype), rtol=0.2)
    gap = special.digamma(alpha.numpy()) - special.digamma(float(alpha.sum())) - z.log().mean(0).numpy()
    assert np.abs(gap).max() < 1e-6  # the stationary point
    found = F.log_dirichlet(z[None].log(), alpha[None, None])[0, :, 0]
    assert np.allclose(found, [stats.dirichlet.logpdf(row / row.sum(), alpha.numpy()) for row in z.numpy()], atol=1e-8)


def test_inverse_digamma_is_one():
    x = torch.logspace(-4, 4, 60, dtype=torch.float64)
    assert torch.allclose(F.inverse_digamma(torch.digamma(x)), x, rtol=1e-6)


def test_each_step_of_the_dirichlet_fit_raises_the_likelihood():
    z = torch.distributions.Dirichlet(torch.tensor([1.0, 3.0, 0.7], dtype=torch.float64)).sample((50,))
    alpha, last = torch.ones(1, 3, dtype=torch.float64), -math.inf
    for _ in range(20):
        now = float(F.log_dirichlet(z[None].log(), alpha[None])[0].mean())
        assert now >= last - 1e-12
        last, alpha = now, F.fit_dirichlet(z.log().mean(0)[None], alpha, 1)


def test_learning_lowers_the_loss_and_leaves_what_is_not_learnt():
    t = tasks(count=8, ways=4, queries=12, present=2).map(lambda z: z.float())
    start = F.Settings.fixed(1.0, 1.5, 0.5, layers=3)
    loss = lambda s: -float(F.generalised_em(t, s).gather(2, t.query_y[..., None]).log().mean())  # noqa: E731
    found = F.unroll(t, start=start, steps=25)
    assert loss(found) < loss(start) - 0.01 and float(found.temperature.min()) > 1
    only = F.unroll(t, start=start, steps=3, learn=("gamma", "scale"), per_layer=False)
    assert torch.equal(only.temperature, start.temperature) and len(only.gamma.unique()) == 1
    with pytest.raises(ValueError, match="learn"):
        F.unroll(t, start=start, learn=("beta",))


def test_searched_is_the_best_of_the_grid():
    t, grid = tasks(count=6), [F.Settings.fixed(g, scale=s) for g in (0.0, 1.0, 30.0) for s in (0.1, 1.0)]
    right = [F.accuracy(F.generalised_em(t, settings), t) for settings in grid]
    assert len(set(right)) > 1 and F.searched(t, grid) is grid[right.index(max(right))]


def test_tim_is_the_limit_of_alpha_tim_and_raises_the_mutual_information():
    t = tasks()
    assert torch.allclose(F.alpha_tim(t, 1.0, steps=5), F.alpha_tim(t, 1 + 1e-4, steps=5), atol=1e-3)
    p, q = F.alpha_tim(t, 1.0, steps=0), F.alpha_tim(t, 1.0, steps=40)
    mutual = lambda p: torch.special.entr(p.mean(1)).sum(1) - torch.special.entr(p).sum(2).mean(1)  # noqa: E731
    assert float(mutual(q).mean()) > float(mutual(p).mean())
    with pytest.raises(ValueError, match="alpha"):
        F.alpha_tim(t, 0.5)


def test_names_give_cosines():
    t = tasks()
    names = torch.randn(4, 3, 4, dtype=torch.float64)
    found = F.name_probabilities(t, names).query[1, 2]
    want = [float(torch.cosine_similarity(t.query[1, 2], names[1, k], dim=0)) for k in range(3)]
    assert np.allclose(found, want)
