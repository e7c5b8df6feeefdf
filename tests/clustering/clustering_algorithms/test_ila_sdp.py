"""The lifted programme: its affinity against the likelihood, its projection, its certificate, small exact optima."""

import itertools
import math

import pytest
import torch

from labcode.clustering.clustering_algorithms import (
    group_covariances,
    ila_sdp,
    kmeans_sdp,
    likelihood_affinity,
    solve_lifted,
)
from labcode.clustering.clustering_algorithms.ila_sdp import _affine

f64 = dict(dtype=torch.float64)


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def planted(n=16, gap=6.0, d=2):
    y = torch.arange(n) % 2
    x = torch.randn(n, d, generator=draw(), **f64) * torch.tensor([[3.0, 0.3], [0.5, 0.5]], **f64)[y]
    x[:, 1] += gap * y
    return x - x.mean(0), y


def test_the_affinity_is_the_profile_likelihood_of_a_group():
    x, y = planted()
    s = group_covariances(x, y, 2)
    a = likelihood_affinity(x, s)
    for k in range(2):
        rows = x[y == k]
        inside = a[k][y == k][:, y == k].sum() / len(rows)
        normal = torch.distributions.MultivariateNormal(rows.mean(0), s[k])
        likelihood = normal.log_prob(rows).sum() * 2 + len(rows) * 2 * math.log(2 * math.pi)
        torch.testing.assert_close(inside, likelihood)


def test_group_covariances_are_the_usual_ones():
    x, y = planted()
    for k, s in enumerate(group_covariances(x, y, 2, floor=0.0)):
        torch.testing.assert_close(s, torch.cov(x[y == k].T, correction=0))


def test_the_affine_projection_is_feasible_and_orthogonal():
    y = torch.randn(3, 6, 6, generator=draw(), **f64)
    y, trace = y + y.mT, torch.tensor([1.0, 1.0, 1.0], **f64)
    z, *_ = _affine(y, trace)
    torch.testing.assert_close(z.sum((-3, -1)), torch.ones(6, **f64))
    torch.testing.assert_close(z.diagonal(dim1=-2, dim2=-1).sum(-1), trace)
    any_ = torch.randn(3, 6, 6, generator=draw(1), **f64)
    other, *_ = _affine(any_ + any_.mT, trace)
    assert abs(float(((y - z) * (other - z)).sum())) < 1e-9


def test_it_finds_the_best_of_all_partitions_and_certifies_it():
    x, y = planted(10)
    a = likelihood_affinity(x, group_covariances(x, y, 2))
    values = {}
    for rest in itertools.product((0, 1), repeat=10):
        names = torch.tensor(rest)
        if 0 < int(names.sum()) < 10:
            values[rest] = float(sum(a[k][names == k][:, names == k].sum() / (names == k).sum() for k in (0, 1)))
    solved = solve_lifted(a, steps=600, tolerance=1e-6)
    best = max(values, key=values.get)
    assert solved.labels.tolist() == list(best)
    assert values[best] == pytest.approx(float(solved.bound), rel=1e-3)
    assert float(solved.bound) >= values[best] - 1e-9  # a bound in any case


def test_the_bound_holds_after_any_number_of_steps():
    x, y = planted(12, gap=1.0)
    a = likelihood_affinity(x, group_covariances(x, y, 2))
    best = float(solve_lifted(a, steps=400, tolerance=1e-7).value)
    for steps in (1, 5, 40):
        assert float(solve_lifted(a, steps=steps).bound) > best - 1e-3 * abs(best)


def test_with_equal_covariances_it_is_the_relaxation_of_k_means():
    x, _ = planted(14)
    eye = torch.eye(2, **f64).expand(2, 2, 2)
    lifted = solve_lifted(likelihood_affinity(x, eye), steps=900, tolerance=1e-6)
    one = solve_lifted(likelihood_affinity(x, eye[:1]), traces=(2.0,), steps=900, tolerance=1e-6)
    assert float(lifted.value) == pytest.approx(float(one.value), rel=1e-3)
    torch.testing.assert_close(lifted.z.sum(-3), one.z[0], rtol=0, atol=0.01)
    assert kmeans_sdp(x, 2).z.shape == (1, 14, 14)


def test_a_batch_is_each_of_its_problems_and_rows_may_come_in_any_order():
    x, y = planted()
    start = torch.stack([y, (y + (torch.arange(16) < 5)) % 2])
    both = ila_sdp(x, 2, start, rounds=2, steps=40)
    alone = ila_sdp(x, 2, start[1:], rounds=2, steps=40)
    torch.testing.assert_close(both.z[1], alone.z[0], rtol=1e-6, atol=1e-8)
    order = torch.randperm(16, generator=draw())
    assert torch.equal(ila_sdp(x[order], 2, start[0][order]).labels, ila_sdp(x, 2, start[0]).labels[order])
    torch.testing.assert_close(both.memberships.sum(-1), torch.ones(2, 16, **f64))


def test_edges():
    assert torch.isfinite(ila_sdp(torch.ones(4, 2), 2, torch.tensor([0, 1, 0, 1]), rounds=1, steps=5).z).all()
    for wrong, name in ((torch.tensor([0, 2, 0]), "start"), (torch.zeros(5, dtype=torch.long), "start")):
        with pytest.raises(ValueError, match=name):
            ila_sdp(torch.randn(3, 2), 2, wrong)
    with pytest.raises(ValueError, match="a must"):
        solve_lifted(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="traces"):
        solve_lifted(torch.zeros(2, 3, 3), traces=(1.0,))
