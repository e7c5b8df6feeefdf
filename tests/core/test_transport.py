"""Sinkhorn's balanced assignments against alternating normalisation in NumPy, and where plain exponentials overflow."""

import warnings

import numpy as np
import pytest
import torch

from labcode.transport import sinkhorn_codes


def scores(n=12, k=5, seed=0):
    return torch.randn(n, k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("iterations", [1, 3, 10])
@pytest.mark.parametrize("eps", [0.3, 0.05])  # scores within 40 eps of one another, and not
def test_equals_alternating_normalisation(iterations, eps):
    s = scores()
    assert (float(s.max() - s.min()) < 40 * eps) == (eps == 0.3)
    q = np.exp(s.numpy() / eps)
    for _ in range(iterations):
        q = q / q.sum(0)
        q = q / q.sum(1, keepdims=True)
    assert np.allclose(sinkhorn_codes(s, eps, iterations).numpy(), q, rtol=1e-10)


@pytest.mark.parametrize("spread", [39.9, 40.1, 150.0])
def test_float32_where_the_two_ways_meet(spread):
    s = scores(200, 30)
    s = (s - s.min()) / (s.max() - s.min()) * spread * 0.05
    s[:, 0] = s.min()  # a prototype that nobody likes
    wanted, found = sinkhorn_codes(s), sinkhorn_codes(s.float()).double()
    assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-7)


def test_finite_where_a_peer_is_not():
    peer = pytest.importorskip("lightly.loss.swav_loss").sinkhorn
    s = 10 * scores().float()  # scores / eps reach 400: exp overflows
    assert not peer(s).isfinite().all() and sinkhorn_codes(s).isfinite().all()
    assert torch.allclose(peer(s / 20), sinkhorn_codes(s / 20), atol=1e-6)


def test_marginals_and_no_overflow():
    assert torch.allclose(sinkhorn_codes(1e6 * scores()).sum(1), torch.ones(12, dtype=torch.float64))
    even = sinkhorn_codes(scores(), 0.3, iterations=300).sum(0)
    assert torch.allclose(even, torch.full((5,), 12 / 5, dtype=torch.float64), rtol=1e-6)
    half = sinkhorn_codes(300 * scores().to(torch.bfloat16))
    assert half.dtype == torch.float32 and half.isfinite().all()


def test_no_gradient_and_bad_arguments():
    assert not sinkhorn_codes(scores().requires_grad_()).requires_grad
    for bad in (dict(eps=0), dict(iterations=0), dict(eps=float("nan"))):
        with pytest.raises(ValueError, match=next(iter(bad))):
            sinkhorn_codes(scores(), **bad)
    with pytest.raises(ValueError, match="scores"):
        sinkhorn_codes(scores()[0])


@pytest.mark.parametrize("n, k, iterations", [(4096, 10, 15), (2, 1000, 10), (256, 16, 28), (4096, 10, 999), (1, 7, 9)])
def test_many_iterations_of_equal_scores_stay_even(n, k, iterations):
    """u and v used to grow apart by n/K an iteration, until one overflowed."""
    for value in (0.0, 3.0):
        codes = sinkhorn_codes(torch.full((n, k), value), iterations=iterations)
        torch.testing.assert_close(codes, torch.full((n, k), 1 / k), rtol=1e-5, atol=0)


@pytest.mark.parametrize("n, k", [(600, 4), (4, 300), (50, 50)])
@pytest.mark.parametrize("iterations", [40, 500])
def test_many_iterations_over_the_whole_range_are_those_of_float64_logarithms(n, k, iterations):
    s = scores(n, k, 3)
    s = (s - s.min()) / (s.max() - s.min()) * 39 * 0.05
    q = s / 0.05
    for _ in range(iterations):
        q = q - q.logsumexp(0)
        q = q - q.logsumexp(1, keepdim=True)
    torch.testing.assert_close(sinkhorn_codes(s.float(), iterations=iterations).double(), q.exp(), rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("eps", [0.3, 0.1])  # by products, and in logarithms
def test_a_tolerance_stops_when_the_columns_are_even_enough(eps):
    s = scores(200, 8, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = sinkhorn_codes(s, eps, iterations=100_000, tolerance=0.02)
    off = lambda q: float((q.sum(0) * 8 / 200 - 1).abs().max())  # noqa: E731
    assert 0 < off(found) <= 0.02
    needed = next(i for i in range(1, 100_000) if off(sinkhorn_codes(s, eps, i)) <= 0.02)
    assert needed > 1 and torch.equal(found, sinkhorn_codes(s, eps, needed))  # neither fewer nor more
    assert torch.equal(sinkhorn_codes(s, eps, needed, tolerance=0.02), found)


@pytest.mark.parametrize("eps", [0.3, 0.01])
def test_a_tolerance_that_is_not_reached_is_told(eps):
    with pytest.warns(RuntimeWarning, match="away from even after 2 iterations, tolerance is 1e-09") as told:
        found = sinkhorn_codes(scores(200, 8, 1), eps, iterations=2, tolerance=1e-9)
    assert told[0].filename == __file__
    assert torch.equal(found, sinkhorn_codes(scores(200, 8, 1), eps, iterations=2))


@pytest.mark.bad_input
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_scores_that_are_not_finite_are_named(value):
    s = scores().float()
    s[2, 3] = value
    with pytest.raises(ValueError, match="scores must be finite"):
        sinkhorn_codes(s)


@pytest.mark.parametrize("eps", [1e-3, 1e-10, 1e-20, 1e10, 1e38])
def test_any_eps_gives_rows_of_sum_one(eps):
    codes = sinkhorn_codes(scores().float(), eps, iterations=5)
    torch.testing.assert_close(codes.sum(1), torch.ones(12), rtol=1e-5, atol=0)
    if eps > 1:
        torch.testing.assert_close(codes, torch.full_like(codes, 1 / 5))


def test_autocast_does_not_reach_the_codes():
    s = torch.rand(300, 20, generator=torch.Generator().manual_seed(0))
    wanted = sinkhorn_codes(s)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(sinkhorn_codes(s), wanted)


def test_bad_stopping_rules_are_named():
    for bad in (dict(tolerance=0.0), dict(tolerance=-1.0), dict(tolerance=float("nan")), dict(iterations=2.5)):
        with pytest.raises(ValueError, match=next(iter(bad))):
            sinkhorn_codes(scores(), **bad)
