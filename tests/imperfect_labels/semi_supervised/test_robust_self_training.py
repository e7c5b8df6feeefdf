"""The robust loss in closed form, the objective as a loop, the estimators on two Gaussians."""

import math

import pytest
import torch

from labcode.imperfect_labels.semi_supervised import comparison_theory as C
from labcode.imperfect_labels.semi_supervised import robust_self_training as S


@pytest.mark.parametrize("gamma", [0.05, 0.5, 3.0])
@pytest.mark.parametrize("length", [0.6, 2.0])
def test_robust_loss_is_the_supremum(gamma, length):
    margin = torch.linspace(-1, 4, 51, dtype=torch.float64)
    way = torch.linspace(0, 12, 20001, dtype=torch.float64)
    moved = (1 - 0.5 * (margin[:, None] - length * way)).clamp(0, 1) - gamma * way.square()
    assert torch.allclose(S.robust_loss(margin, length, gamma), moved.amax(1), atol=4e-4)


def test_robust_loss_by_hand_and_at_its_ends():
    margin = torch.tensor([-1.0, 0.0, 1.0, 1.9, 5.0])
    assert torch.equal(S.robust_loss(margin, 1.0, math.inf), S.clipped_hinge(margin))
    assert float(S.robust_loss(torch.tensor(1.0), 1.0, 1.0)) == pytest.approx(1 - 0.5 + 0.25 / 4)  # hinge + s²/4γ
    assert float(S.robust_loss(torch.tensor(2.0), 1.0, 0.1)) == pytest.approx(1 - 0.1 * 4)  # moved to the boundary
    both = S.robust_loss(torch.ones(4, 2), torch.ones(2), torch.tensor([1.0, math.inf]))
    assert torch.allclose(both[0], torch.tensor([0.5625, 0.5]))
    assert S.robust_loss(torch.zeros(0), 1.0, 1.0).shape == (0,)
    assert S.robust_loss(torch.tensor([1.0], dtype=torch.bfloat16), 1.0, 1.0).dtype == torch.bfloat16
    for bad in (dict(gamma=0.0), dict(gamma=1.0, slope=-1.0), dict(gamma=torch.tensor([1.0, -1.0]))):
        with pytest.raises(ValueError, match="slope" if "slope" in bad else "gamma"):
            S.robust_loss(margin[:2], 1.0, **bad)


def test_gradient_and_none_that_is_not_finite():
    margin = torch.tensor([0.2, 0.8, 1.7, 2.2], dtype=torch.float64, requires_grad=True)
    length = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda m, n: S.robust_loss(m, n, 0.4), [margin, length])
    flat = torch.tensor([0.0, -1.0, 9.0], requires_grad=True)
    for gamma in (math.inf, 1e-6):
        S.robust_loss(flat, 1.0, gamma).sum().backward()
        assert bool(torch.isfinite(flat.grad).all())


def test_ascent_finds_it():
    w = torch.tensor([0.6, -0.8], dtype=torch.float64)
    x = torch.tensor([[0.5, -0.2], [1.0, -0.7], [-1.0, 0.3]], dtype=torch.float64)
    found = S.ascend(lambda z: S.clipped_hinge(z @ w), x, 2.0, rate=0.01, steps=400)
    assert torch.allclose(found, S.robust_loss(x @ w, 1.0, 2.0), atol=1e-3)
    far = torch.tensor([[3.0, -3.0]], dtype=torch.float64)  # flat there: a lower bound
    assert float(S.ascend(lambda z: S.clipped_hinge(z @ w), far, 2.0)) == 0
    with pytest.raises(ValueError, match="steps"):
        S.ascend(lambda z: z.sum(-1), x, 1.0, steps=0)


def test_objective_is_the_loop_and_draws_do_not_mix():
    g = torch.Generator().manual_seed(0)
    x, y, u = S.gaussian_pair(3, 4, 6, 5, generator=g)
    w, b, weight = torch.randn(3, 2, 5, generator=g), torch.randn(3, 2, generator=g), C.nested((2, 4))
    lam, price = torch.tensor([1.7, 0.4]), torch.tensor([0.3, math.inf])
    found = S.rss_objective(w, b, x, y, u, weight, gamma=2.0, gamma_u=price, lam=lam)
    for r in range(3):
        for a, m in enumerate((2, 4)):
            length = float(w[r, a].norm())
            seen, others = ([z @ w[r, a] + b[r, a] for z in part] for part in (x[r], u[r]))
            known = sum(float(S.robust_loss(y[r, i] * seen[i], length, 2.0)) for i in range(m)) / m
            own = sum(float(S.robust_loss(z.abs(), length, float(price[a]))) for z in others) / 6
            assert float(found[r, a]) == pytest.approx(known + float(lam[a]) * own, rel=1e-5)
    assert torch.allclose(S.rss(x, y, u)[0][1], S.rss(x[1:2], y[1:2], u[1:2])[0][0], atol=1e-5)
    assert torch.equal(S.rss_objective(w, b, x, y, u[:, :0]), S.rss_objective(w, b, x, y))
    with pytest.raises(ValueError, match="y"):
        S.rss(x, y * 2, u)


def test_steps_lower_the_objective_and_arms_are_those_alone():
    g = torch.Generator().manual_seed(4)
    x, y, u = S.gaussian_pair(2, 6, 60, 8, generator=g)
    start, (w, b) = S.mean_direction(x, y), S.rss(x, y, u, lam=3.0)
    assert bool((S.rss_objective(w, b, x, y, u, lam=3.0) < S.rss_objective(start, 0.0, x, y, u, lam=3.0)).all())
    two = S.rss(x, y, u, lam=torch.tensor([0.0, 3.0]))[0]
    assert two.shape == (2, 2, 8) and torch.allclose(two[:, 1], w[:, 0], atol=1e-5)
    assert torch.equal(b, torch.zeros(2, 1)) and bool((S.rss(x, y, u, lam=3.0, bias=True)[1] != 0).all())


def test_estimators_are_unit_vectors_and_turn_with_the_data():
    g = torch.Generator().manual_seed(1)
    x, y, u = S.gaussian_pair(2, 6, 40, 8, generator=g)
    turn = torch.linalg.qr(torch.randn(8, 8, generator=g)).Q
    for fit in (lambda *a: S.rss(*a)[0], S.self_training, lambda *a: S.self_training(*a, soft=True)):
        w = fit(x, y, u)
        assert torch.allclose(w.norm(dim=2), torch.ones(2, 1), atol=1e-5)
        assert torch.allclose(fit(x @ turn, y, u @ turn), w @ turn, atol=1e-3)
        assert torch.allclose(fit(x, -y, u), -w, atol=1e-4)
    assert torch.allclose(S.self_training(x, y, u, rounds=0), S.mean_direction(x, y))


def test_self_training_is_the_loop():
    g = torch.Generator().manual_seed(5)
    x, y, u = S.gaussian_pair(1, 4, 9, 3, generator=g)
    for soft in (False, True):
        mean = sum(y[0, i] * x[0, i] for i in range(2)) / 2
        for _ in range(3):
            guess = [torch.tanh(mean @ z) if soft else torch.sign(mean @ z) for z in u[0]]
            others = sum(k * z for k, z in zip(guess, u[0], strict=True))
            mean = (sum(y[0, i] * x[0, i] for i in range(2)) + others) / 11
        found = S.self_training(x, y, u, C.nested((2, 4)), 3, soft)
        assert torch.allclose(found[0, 0], mean / mean.norm(), atol=1e-5)


def test_data_and_exact_accuracy():
    g = torch.Generator().manual_seed(2)
    spread = torch.tensor([1.0, 2.0, 1.0, 1.0])
    x, y, u = S.gaussian_pair(1, 40000, 20000, 4, 0.5, generator=g, spread=spread)
    mean = (y[..., None] * x).mean(1)[0]
    assert torch.allclose(mean, torch.tensor([1.0, 0, 0, 0]), atol=0.05)
    assert float(x[0, :, 1].std()) == pytest.approx(2, rel=0.03)
    apart = (u[0, ::2].mean(0) - u[0, 1::2].mean(0)) / 2
    assert float((apart - torch.tensor([1.0, 0, 0, 0])).norm()) == pytest.approx(0.5, abs=0.06)
    w = torch.nn.functional.normalize(torch.tensor([[1.0, 0.4, 0.2, 0]]), dim=1)
    for budget, b in ((0.0, 0.0), (0.3, 0.0), (0.0, 0.5)):
        right = ((y * (x @ w[0] + b)) > budget).double().mean()
        assert float(S.gaussian_accuracy(w, b, spread=spread, budget=budget)) == pytest.approx(float(right), abs=0.01)
    x, y, _ = S.one_blob(1, 40000, 1, 3, generator=g)
    w = torch.nn.functional.normalize(torch.tensor([[1.0, 1.0, 0]]), dim=1)
    assert float(S.blob_accuracy(w)) == pytest.approx(0.75)
    assert float((y * (x @ w[0]) > 0).double().mean()) == pytest.approx(0.75, abs=0.01)
    for d, shift in ((4, -0.1), (1, 0.0)):
        with pytest.raises(ValueError, match="shift"):
            S.gaussian_pair(1, 2, 2, d, shift, generator=g)


def test_the_mean_is_off_by_the_root_of_d_over_m():
    x, y, _ = S.gaussian_pair(40, 25, 0, 100, generator=torch.Generator().manual_seed(6))
    off = (y[..., None] * x).mean(1) - torch.eye(100)[0]
    assert float(off.square().sum(1).mean()) == pytest.approx(100 / 25, rel=0.1)
