"""Scaling against SciPy's solvers, SwAV's and SeLa's loops, and its own certificate."""

import math
import warnings

import numpy as np
import pytest
import torch

from labcode.clustering import transport as T
from labcode.clustering.peers import convex_solution, linear_programme
from labcode.transport import sinkhorn_codes


def drawn(*shape, seed=0, size=1.0):
    return size * torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def loop(cost, eps, rows, columns, weight, rounds):
    """Scaling written out, in float64 and without logarithms."""
    kernel, v, weight = np.exp(-cost / eps), np.ones(cost.shape[1]), np.minimum(weight, 1e12)
    for _ in range(rounds):
        u = rows / (kernel @ v)
        v = (columns / (kernel.T @ u)) ** (weight / (weight + eps))
    u = rows / (kernel @ v)
    return u[:, None] * kernel * v


@pytest.mark.parametrize("weight", [math.inf, 0.3, 5.0])
def test_the_plan_is_that_of_the_plain_loop(weight):
    cost = drawn(9, 4)
    found = T.scale(cost, 0.1, weight=weight, tolerance=1e-12, rounds=5000)
    rows, columns, firm = np.full(9, 1 / 9), np.full(4, 0.25), np.full(4, weight)
    np.testing.assert_allclose(found.plan, loop(cost.numpy(), 0.1, rows, columns, firm, 3000), atol=1e-12)


def test_plans_are_those_of_the_pot_library():
    ot = pytest.importorskip("ot")
    cost, rows, columns = drawn(9, 4), np.full(9, 1 / 9), np.array([0.4, 0.3, 0.2, 0.1])
    exact = dict(columns=torch.from_numpy(columns), tolerance=1e-12, rounds=5000)
    theirs = ot.sinkhorn(rows, columns, cost.numpy(), 0.1, stopThr=1e-13, numItermax=5000)
    np.testing.assert_allclose(T.balanced_transport(cost, 0.1, **exact).plan, theirs, atol=1e-9)
    for weight in (0.3, 5.0):
        options = dict(reg_type="entropy", stopThr=1e-13, numItermax=5000)
        with warnings.catch_warnings(action="ignore"):  # that the entropy has no reference measure
            theirs = ot.unbalanced.sinkhorn_unbalanced(rows, columns, cost.numpy(), 0.1, (math.inf, weight), **options)
        np.testing.assert_allclose(T.unbalanced_transport(cost, 0.1, weight, **exact).plan, theirs, atol=1e-9)


@pytest.mark.parametrize("mass, weight", [(0.3, 1.0), (0.7, 0.2), (0.5, math.inf)])
def test_partial_transport_is_the_convex_optimum(mass, weight):
    cost = drawn(12, 3, seed=1)
    found = T.partial_transport(cost, mass, 0.1, weight, tolerance=1e-10, rounds=20000)
    value, plan = convex_solution(found)
    assert float(found.objective()) == pytest.approx(value, abs=1e-6)
    np.testing.assert_allclose(found.plan, plan, atol=2e-4)


def test_a_large_weight_on_cost_comes_near_the_linear_programme():
    cost = drawn(20, 4, seed=2)
    over = [float((T.balanced_transport(cost, eps, tolerance=1e-6, rounds=20000).plan * cost).sum())
            - linear_programme(cost) for eps in (0.3, 0.1, 0.03, 0.01)]  # fmt: skip
    assert all(a > b for a, b in zip(over, over[1:], strict=False)) and -1e-6 < over[-1] < 2e-3 < over[0]


@pytest.mark.parametrize("solve", [
    lambda c: T.balanced_transport(c, 0.1), lambda c: T.unbalanced_transport(c, 0.1, 0.5),
    lambda c: T.partial_transport(c, 0.4), lambda c: T.partial_transport(c, 1.0),
])  # fmt: skip
def test_the_certificate_closes_and_rows_are_exact(solve):
    found = solve(drawn(40, 5, size=4))
    assert abs(found.gap()) < 1e-6 and found.change <= 1e-6
    torch.testing.assert_close(found.plan.sum(1), torch.full((40,), 1 / 40, dtype=torch.float64))
    assert float(found.dual()) <= float(found.objective()) + 1e-6


def test_the_certificate_stays_open_when_the_plan_is_not_optimal():
    found = T.unbalanced_transport(drawn(40, 5, size=4), 0.05, 3.0, tolerance=None, rounds=1)
    assert found.gap() > 1e-3


@pytest.mark.parametrize("rho", [0.1, 0.5, 0.9])
def test_the_virtual_column_takes_what_is_not_transported(rho):
    found = T.partial_transport(drawn(60, 4, size=5), rho, tolerance=1e-8, rounds=5000)
    weights = 60 * found.plan[:, :-1].sum(1)
    assert float(found.plan[:, :-1].sum()) == pytest.approx(rho, abs=1e-7)
    assert float(weights.max()) <= 1 + 1e-9
    cheap = drawn(60, 4, size=5).amin(1)
    assert torch.corrcoef(torch.stack([cheap, weights]))[0, 1] < -0.5  # what is cheap to place is placed


def test_three_rounds_are_swavs_codes():
    scores = 2 * drawn(50, 7) - 1
    found = 50 * T.scale(-scores, 0.05, tolerance=None, rounds=3).plan
    torch.testing.assert_close(found, sinkhorn_codes(scores, 0.05, 3), atol=1e-9, rtol=0)


def test_stacked_problems_are_solved_as_alone():
    cost, rho = drawn(3, 20, 4, size=3), torch.tensor([0.2, 0.6, 1.0])
    found = T.partial_transport(cost, rho, weight=torch.tensor([1.0, 0.3, math.inf]), tolerance=1e-9, rounds=5000)
    for i, w in enumerate((1.0, 0.3, math.inf)):
        alone = T.partial_transport(cost[i], float(rho[i]), weight=w, tolerance=1e-9, rounds=5000)
        torch.testing.assert_close(found.plan[i], alone.plan, atol=1e-8, rtol=0)


def test_a_shift_of_a_row_changes_nothing_and_columns_may_be_swapped():
    cost, order = drawn(15, 4), torch.tensor([2, 0, 3, 1])
    plan = T.balanced_transport(cost, 0.1, tolerance=1e-10, rounds=5000).plan
    moved = T.balanced_transport(cost + 100 * drawn(15, 1, seed=3), 0.1, tolerance=1e-10, rounds=5000).plan
    swapped = T.balanced_transport(cost[:, order], 0.1, tolerance=1e-10, rounds=5000).plan
    torch.testing.assert_close(moved, plan, atol=1e-9, rtol=0)
    torch.testing.assert_close(swapped, plan[:, order], atol=1e-9, rtol=0)


@pytest.mark.parametrize("size", [1e-6, 1e3, 1e6])
def test_costs_of_any_size_neither_overflow_nor_vanish(size):
    cost = drawn(30, 4, size=size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        found = T.partial_transport(cost, 0.5, rounds=200)
    assert torch.isfinite(found.plan).all() and float(found.plan.sum()) == pytest.approx(1)


def test_a_start_saves_rounds_and_changes_nothing():
    cost = drawn(80, 6, size=3)
    first = T.partial_transport(cost, 0.3)
    again = T.partial_transport(cost, 0.3, start=first.g)
    assert again.rounds < first.rounds
    torch.testing.assert_close(again.plan, first.plan, atol=1e-6, rtol=0)


def test_one_row_one_column_and_half_precision():
    assert float(T.balanced_transport(drawn(1, 1)).plan) == pytest.approx(1)
    assert T.unbalanced_transport(drawn(1, 3)).plan.shape == (1, 3)
    torch.testing.assert_close(T.balanced_transport(torch.zeros(4, 3)).plan, torch.full((4, 3), 1 / 12).double())
    half = drawn(8, 3).half()
    assert torch.equal(T.balanced_transport(half).plan, T.balanced_transport(half.double()).plan)


def test_too_few_rounds_are_told():
    with pytest.warns(RuntimeWarning, match="rounds"):
        T.balanced_transport(drawn(50, 5, size=10), 0.01, rounds=2)


@pytest.mark.parametrize("how, named", [
    (lambda: T.scale(torch.zeros(3), 0.1), "cost"), (lambda: T.scale(torch.zeros(0, 3), 0.1), "cost"),
    (lambda: T.scale(torch.full((2, 2), math.nan), 0.1), "cost"), (lambda: T.scale(torch.zeros(2, 2), 0.0), "eps"),
    (lambda: T.scale(torch.zeros(2, 2), 0.1, rows=torch.tensor([1.0, 0.0])), "rows"),
    (lambda: T.scale(torch.zeros(2, 2), 0.1, columns=torch.ones(3)), "columns"),
    (lambda: T.scale(torch.zeros(2, 2), 0.1, columns=torch.ones(2)), "columns"),
    (lambda: T.scale(torch.zeros(2, 2), 0.1, weight=-1.0), "weight"),
    (lambda: T.partial_transport(torch.zeros(2, 2), 0.0), "mass"),
    (lambda: T.partial_transport(torch.zeros(2, 2), 1.1), "mass"),
])  # fmt: skip
@pytest.mark.bad_input
def test_bad_input_is_named(how, named):
    with pytest.raises(ValueError, match=named):
        how()
