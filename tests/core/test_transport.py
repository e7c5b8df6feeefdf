"""Sinkhorn's balanced assignments against alternating normalisation in NumPy, and where plain exponentials overflow."""

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
