"""Divergences against loops, greedy choices against trying."""

import math

import pytest
import torch
from self_supervision.data_curation.helpers import gen

from labcode.self_supervision import data_curation as D


def slow_kl(target, chosen, k):
    n, m, total = len(target), len(chosen), 0.0
    for i in range(n):
        own = sorted(float((target[i] - target[j]).norm()) for j in range(n) if j != i)[k - 1]
        other = sorted(float((target[i] - w).norm()) for w in chosen)[k - 1]
        total += math.log(other / own)
    return target.shape[1] * total / n + math.log(m / (n - 1))


def test_nearest_neighbour_divergence_is_the_loop_and_near_the_truth():
    x, w = (
        torch.randn(12, 3, generator=gen(), dtype=torch.float64),
        torch.randn(9, 3, generator=gen(1), dtype=torch.float64),
    )
    for k in (1, 4):
        assert float(D.knn_kl(x, w, k)) == pytest.approx(slow_kl(x, w, k), rel=1e-9)
    x, w = torch.randn(4000, 2, generator=gen()), 1 + torch.randn(4000, 2, generator=gen(1))
    assert float(D.knn_kl(x, w, 5)) == pytest.approx(1.0, abs=0.15)  # ‖shift‖²/2 for unit Gaussians


def test_the_released_estimate_is_its_formula_and_its_gradient_ignores_the_chosen():
    x, w = (
        torch.randn(15, 3, generator=gen(), dtype=torch.float64),
        torch.randn(4, 3, generator=gen(1), dtype=torch.float64),
    )
    own = [sorted(float((a - b).norm()) for b in x)[5] for a in x]
    across = sum(math.log(float((a - b).norm())) for a in x for b in w) / 60
    tail = sum(math.log(5 * 4 / (j * 14)) for j in range(1, 5)) / 4
    wanted = 3 * (across - sum(map(math.log, own)) / 15) + tail
    assert float(D.released_kl(x, w)) == pytest.approx(wanted, rel=1e-9)
    v = torch.randn(3, generator=gen(2), dtype=torch.float64).requires_grad_()
    slopes = [torch.autograd.grad(D.released_kl(x, torch.cat([some, v[None]])), v)[0] for some in (w, 9 * w, w[:1])]
    direction = D.gio_gradient(v.detach(), x)
    for slope in slopes:
        assert torch.nn.functional.cosine_similarity(slope, direction, dim=0).item() == pytest.approx(1, abs=1e-12)


def test_greedy_divergence_takes_what_every_trial_would():
    x, pool = (
        torch.randn(10, 2, generator=gen(), dtype=torch.float64),
        torch.randn(14, 2, generator=gen(1), dtype=torch.float64),
    )
    order, taken = D.greedy_kl(x, pool, 5).tolist(), []
    for pick in order:
        trials = {c: float(D.knn_kl(x, pool[[*taken, c]], 1)) for c in range(14) if c not in taken}
        assert pick == min(trials, key=trials.get)
        taken.append(pick)


@pytest.mark.parametrize("start", ["mean", "jump"])
def test_gio_chooses_near_the_target_and_nothing_twice(start):
    target = torch.randn(30, 4, generator=gen()) + 5
    pool = torch.cat([torch.randn(40, 4, generator=gen(1)) + 5, 10 * torch.randn(40, 4, generator=gen(2)) - 20])
    picked = D.gio(target, pool, 15, start)
    assert len(picked.unique()) == 15 and (picked < 40).all()
    assert torch.equal(picked, D.gio(target, pool, 15, start))


def test_every_candidate_is_taken_once_even_when_none_helps():
    target, pool = (
        torch.tensor([[0.0, 0.0], [1.0, 0.0]]),
        torch.tensor([[0.0, 0.0], [1.0, 0.0], [5.0, 5.0], [6, 6], [7, 7]]),
    )
    assert sorted(D.greedy_kl(target, pool, 5).tolist()) == [0, 1, 2, 3, 4]


@pytest.mark.bad_input
def test_gio_refuses():
    x = torch.randn(6, 2)
    with pytest.raises(ValueError, match="start"):
        D.gio(x, x, 2, "random")
    for count in (0, 7):
        with pytest.raises(ValueError, match="count"):
            D.gio(x, x, count)
    with pytest.raises(ValueError, match="k must"):
        D.knn_kl(x, x[:2], 3)


@pytest.mark.parametrize("start", ["mean", "jump"])
def test_gio_is_the_authors_descent(start):
    """Their rule, written with autograd on their estimate: 20 uniform points, one scale for good, v moved by it."""
    target, pool = (torch.randn(n, 3, generator=gen(n), dtype=torch.float64) + 1 for n in (25, 18))
    drawn, chosen = gen(4), torch.rand(20, 3, generator=gen(9), dtype=torch.float64) * 2 - 1
    left, v, scale, order = list(range(18)), target.mean(0), None, []

    def slope(v):
        leaf = v.clone().requires_grad_()
        apart = (target[:, None] - torch.cat([chosen, leaf[None]])).square().sum(2).clamp_min(1e-10).sqrt()
        return torch.autograd.grad(3 * apart.log().mean(), leaf)[0]  # without their 1e-8 in the logarithm

    for turn in range(6):
        if start == "jump":
            v = target[torch.randint(25, (), generator=drawn)]
        scale = v.norm() / slope(v).norm() if scale is None else scale
        for _ in range(20 if turn else 60):
            v = v - 0.01 * scale * slope(v)
        order.append(min(left, key=lambda i: float((pool[i] - v).norm())))
        left.remove(order[-1])
        chosen = torch.cat([chosen, pool[order[-1]][None]])
    assert D.gio(target, pool, 6, start, steps=20, first=60, seed=4).tolist() == order
    if start == "jump":  # the descent matters
        assert D.gio(target, pool, 6, start, steps=0, first=0, seed=4).tolist() != order


def test_divergences_keep_their_digits_far_from_the_origin_and_take_half_precision():
    x, w = torch.randn(40, 3, generator=gen()), torch.randn(30, 3, generator=gen(1))
    far, there = (x + 3000, w + 3000)  # float32 rounds the rows; distances of these rows are what is asked for
    assert float(D.knn_kl(far, there)) == pytest.approx(slow_kl(far.double(), there.double(), 1), rel=1e-4)
    assert float(D.knn_kl(1e-20 * x, 1e-20 * w)) == pytest.approx(slow_kl(x.double(), w.double(), 1), rel=1e-3)
    for dtype in (torch.float16, torch.bfloat16):
        a, b = x.to(dtype), w.to(dtype)
        assert float(D.knn_kl(a, b)) == pytest.approx(float(D.knn_kl(a.double(), b.double())), rel=1e-4)
        assert torch.equal(D.gio(a, b, 3), D.gio(a.float(), b.float(), 3))
        assert torch.equal(D.greedy_kl(a, b, 3), D.greedy_kl(a.float(), b.float(), 3))
    assert torch.equal(D.greedy_kl(far, there, 9), D.greedy_kl(far.double(), there.double(), 9))
    assert D.gio_gradient(x[0], x).isfinite().all()  # on a pole


@pytest.mark.bad_input
def test_divergences_name_what_is_not_finite_or_of_another_width():
    x = torch.randn(6, 2)
    for call in (D.knn_kl, lambda a, b: D.released_kl(a, b, 2), lambda a, b: D.gio(a, b, 2),
                 lambda a, b: D.greedy_kl(a, b, 2)):  # fmt: skip
        with pytest.raises(ValueError, match="target must be finite"):
            call(x.where(x != x[0, 0], torch.nan), x)
        with pytest.raises(ValueError, match=r"(pool|chosen) must be finite"):
            call(x, x.where(x != x[0, 0], torch.inf))
        with pytest.raises(ValueError, match=r"(pool|chosen) must be as wide as target, 2, got \(6, 3\)"):
            call(x, torch.randn(6, 3))


def test_the_path_is_the_estimate_after_each_choice_and_ends_before_it_rises():
    x, pool, start = (torch.randn(n, 2, generator=gen(n), dtype=torch.float64) for n in (20, 12, 6))
    order = D.gio(x, pool, 8)
    slow = [float(D.released_kl(x, torch.cat([start, pool[order[:i]]]))) for i in range(9)]
    assert D.released_path(x, pool, order, start).tolist() == pytest.approx(slow, rel=1e-9)
    for path, kept in (([3.0, 2.0, 1.0], 2), ([3.0, 2.0, 2.5, 1.0], 1), ([1.0, 2.0], 0), ([1.0], 0)):
        assert D.before_rise(torch.tensor(path)) == kept


def test_a_mixed_pool_holds_what_it_says():
    m = D.mixed_pool(3, wanted=20, each=30, splits=("fit", "validation"))
    assert m.target.shape == (20, 196) and m.pool.shape == (90, 196) and m.own.tolist() == [True] * 30 + [False] * 60
    assert m.exam.shape == (800, 196) and m.exam_labels[:10].tolist() == list(range(10))
    upright, turned = m.pool[:30].view(30, 14, 14), m.pool[30:60].view(30, 14, 14)
    tall = lambda pictures: float(pictures.mean((0, 2)).var() - pictures.mean((0, 1)).var())  # noqa: E731
    assert tall(upright) * tall(turned) < 0  # rows and columns have changed places
    x, z, exam = m.components(5)
    both = torch.cat([m.target, m.pool])
    scale = torch.linalg.svdvals(both - both.mean(0))[:5]
    assert torch.cat([x, z]).norm(dim=0).flip(0).tolist() == pytest.approx(scale.tolist(), rel=1e-3)
    assert exam.shape == (800, 5)
