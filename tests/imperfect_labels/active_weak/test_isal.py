"""Influence against autograd, finite differences and training again."""

import pytest
import torch

from labcode.imperfect_labels import active_weak as A


def problem(n=30, d=3, c=4, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, dtype=torch.float64, generator=g)
    w = 0.3 * torch.randn(d, c, dtype=torch.float64, generator=g)
    return x, torch.randint(c, (n,), generator=g), w, g


def loss(w, x, y, l2=0.0):
    return torch.nn.functional.cross_entropy(x @ w, y) + l2 / 2 * w.square().sum()


def test_gradients_and_hessian_are_autograds():
    x, y, w, _ = problem()
    p, target = torch.softmax(x @ w, 1), torch.nn.functional.one_hot(y, 4).double()
    got = A.gradients(x, p, target)
    for i in range(4):
        want = torch.func.grad(lambda v, i=i: loss(v, x[i : i + 1], y[i : i + 1]))(w)
        assert torch.allclose(got[i], want.flatten(), atol=1e-12)
    want = torch.func.hessian(lambda v: loss(v, x, y, 0.2))(w).reshape(12, 12)
    assert torch.allclose(A.hessian(x, p, 0.2), want, atol=1e-12)
    with pytest.raises(ValueError, match="l2"):
        A.hessian(x, p, 0.0)


def test_influence_is_minus_the_product_and_linear_in_the_target():
    x, y, w, g = problem()
    p, s = torch.softmax(x @ w, 1), torch.randn(12, dtype=torch.float64, generator=g)
    target = torch.nn.functional.one_hot(y, 4).double()
    assert torch.allclose(A.influence(x, p, target, s), -A.gradients(x, p, target) @ s)
    half = (target + 0.25) / 2
    mixed = (A.influence(x, p, target, s) + A.influence(x, p, torch.full_like(p, 0.25), s)) / 2
    assert torch.allclose(A.influence(x, p, half, s), mixed)
    assert float(A.influence(x, p, p, s).abs().max()) == 0  # all classes in proportion: no gradient


def test_influence_predicts_a_small_weight_and_training_again():
    x, y, _, _ = problem(60, 3, 3, 1)
    rows, ref, cand = torch.arange(30), torch.arange(30, 45), torch.arange(45, 60)
    change, p = A.retrained_changes(x, y, rows, cand, ref, 3, 0.1)
    fitted = A.predict(A.fit_heads(x[None, rows, :2], y[None, rows], 3, 0.1, 3000), x[:, :2])[0]
    same, q = A.retrained_changes(A.with_bias(x[:, :2]), y, rows, cand, ref, 3, 0.1)
    assert torch.allclose(q, fitted, atol=1e-6) and torch.isfinite(same).all()
    s = A.reference_direction(x, p, rows, ref, y[ref], 0.1)
    value = A.influence(x[cand], p[cand], torch.nn.functional.one_hot(y[cand], 3).double(), s) / 30
    assert A.spearman(value, change) > 0.95 and 0.8 < float(value.abs().sum() / change.abs().sum()) < 1.8


def test_lissa_goes_to_the_damped_inverse():
    x, y, w, g = problem()
    p = torch.softmax(x @ w, 1)
    h, b = A.hessian(x, p, 0.3), torch.randn(12, dtype=torch.float64, generator=g)
    got = A.lissa(lambda i, v: h @ v, b, 1, generator=g, iterations=4000, repeats=1, damping=0.01, scale=5.0)
    assert torch.allclose(got, A.solve(h + 0.05 * torch.eye(12, dtype=torch.float64), b), atol=1e-6)
    assert torch.allclose(h @ A.solve(h, b), b)
    with pytest.raises(ValueError, match="scale"):
        A.lissa(lambda i, v: v, b, 1, generator=g, scale=0.0)


def test_targets_and_strategy():
    x, y, w, g = problem()
    p = torch.softmax(x @ w, 1)
    assert torch.equal(A.expected_target(p).argmax(1), p.argmax(1)) and float(A.expected_target(p).sum()) == 30
    two = A.expected_target(p, "top2")
    assert torch.allclose(two.sum(1), torch.ones(30).double()) and ((two > 0).sum(1) == 2).all()
    near = A.expected_target(p, "nearest", x, torch.arange(30), y)
    assert torch.equal(near.argmax(1), y)
    with pytest.raises(ValueError, match="how"):
        A.expected_target(p, "odd")
    ref = torch.tensor([5, 6])
    chosen = A.isal(ref, y[ref])(x, p, torch.tensor([0, 1, 2]), 10, generator=g)
    assert not torch.isin(chosen, ref).any()
    z = A.with_bias(x)
    s = A.reference_direction(z, p, torch.tensor([0, 1, 2]), ref, y[ref])
    value = A.influence(z, p, A.expected_target(p), s)
    value[[0, 1, 2, 5, 6]] = torch.inf
    assert chosen.tolist() == value.argsort()[:10].tolist()
