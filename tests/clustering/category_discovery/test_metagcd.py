"""Soft neighbours by hand, and the meta-gradient against finite differences through the inner step."""

import copy

import pytest
import torch

from labcode.clustering import category_discovery as C
from labcode.clustering.category_discovery import metagcd


def test_soft_neighbours_by_hand():
    z = torch.tensor(
        [[[1.0, 0], [0.9, 0.1], [0, 1.0], [1.0, 0.05], [0.8, 0.1], [0, 1.0]]]
    )  # samples 0, 1, 2, two views
    w = C.soft_neighbours(z, 0.85, 0.5)[0]
    assert float(w[2].sum()) == 0 and float(w[:3, 2].sum()) == 0  # sample 2 is alone
    u = torch.nn.functional.normalize(z[0], dim=1)
    near = max(float(u[i] @ u[j]) for i in (0, 3) for j in (1, 4))
    itself = 1.0  # the largest cosine of a sample with itself
    assert float(w[0, 1]) == pytest.approx(float(torch.tensor((near - itself) / 0.5).exp()), rel=1e-5)
    assert float(w[0, 3]) == 1.0  # the other view
    assert torch.equal(w, w.roll(3, 0)) and torch.equal(w, w.roll(3, 1))
    hard = C.soft_neighbours(z, 0.85, soft=False)[0]
    assert set(hard.unique().tolist()) == {0.0, 1.0} and torch.equal(hard > 0, w > 0)
    assert float(C.soft_neighbours(z, 1.1).sum()) == 0
    assert torch.isfinite(C.soft_neighbours(torch.zeros(1, 4, 3))).all()


def toy():
    g = torch.Generator().manual_seed(0)
    labels = torch.arange(6).repeat(20)
    x = torch.nn.functional.one_hot(labels, 6).float() * 2 + 0.3 * torch.randn(120, 6, generator=g)
    views = x + 0.1 * torch.randn(3, 120, 6, generator=g)
    orders = torch.stack([torch.arange(6), torch.arange(6).flip(0)])
    return C.continual(x, views, labels, orders, (3, 4, 6), generator=g), g


def test_sessions_deal_rows_after_their_class_has_come():
    c, _ = toy()
    assert bool((c.part[c.y >= 3] > 0).all()) and bool((c.part[c.y >= 4] == 2).all())
    assert bool((c.y[c.part == 0] < 3).all())
    with pytest.raises(ValueError, match="upto"):
        C.continual(
            c.x, c.views, torch.arange(6).repeat(20), torch.arange(6)[None], (3, 5), generator=torch.Generator()
        )


def test_the_second_order_gradient_is_that_of_the_whole_step():
    """Finite differences of outer(θ - β ∇ session(θ)) along a direction, on fixed batches."""
    c, g = toy()
    heads = C.Heads(6, 2, generator=g, hidden=8, out=4, project=4).double()
    z = torch.randn(2, 12, 6, dtype=torch.float64, generator=g)
    y = torch.randint(3, (2, 6), generator=g)

    def value(values, create):
        inner = metagcd._sgd(
            heads,
            values,
            C.session_loss(torch.func.functional_call(heads, values, (z,))[1], threshold=2.0),
            0.1,
            create,
        )
        return C.outer_loss(torch.func.functional_call(heads, inner, (z,))[1], y)

    theta = {k: v.detach().clone().requires_grad_() for k, v in heads.named_parameters()}
    slopes = torch.autograd.grad(value(theta, True), list(theta.values()))
    step = {k: torch.randn(v.shape, dtype=v.dtype, generator=g) for k, v in theta.items()}

    def moved(t):
        return float(value({k: (v.detach() + t * step[k]).requires_grad_() for k, v in theta.items()}, False))

    wanted = (moved(1e-5) - moved(-1e-5)) / 2e-5
    assert sum(float((s * d).sum()) for s, d in zip(slopes, step.values(), strict=True)) == pytest.approx(
        wanted, rel=1e-4
    )


def test_training_runs_in_both_orders_and_measures_every_session():
    c, g = toy()
    base = C.Heads(6, 2, generator=g, hidden=8, out=4, project=4)
    weights = {}
    for order in (1, 2):
        heads = C.meta_train(
            copy.deepcopy(base), c, generator=torch.Generator().manual_seed(1), tasks=3, batch=16, order=order
        )
        weights[order] = heads.trunk.weights[0].detach()
    assert not torch.equal(weights[1], weights[2]) and not torch.equal(weights[1], base.trunk.weights[0])
    found = C.run_sessions(heads, c, generator=g, steps=2, batch=16)
    assert len(found) == 3 and all(len(v) == 2 for f in found for v in f.values())
    assert all(0 <= v <= 1 for v in found[-1]["All"])
