"""Sinkhorn's balanced assignments against alternating normalisation in NumPy, and where plain exponentials overflow."""

import numpy as np
import pytest
import torch

from labcode.transport import sinkhorn_codes


def scores(n=12, k=5, seed=0):
    return torch.randn(n, k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("iterations", [1, 3, 10])
def test_equals_alternating_normalisation(iterations):
    s = scores()
    q = np.exp(s.numpy() / 0.3)
    for _ in range(iterations):
        q = q / q.sum(0)
        q = q / q.sum(1, keepdims=True)
    assert np.allclose(sinkhorn_codes(s, 0.3, iterations).numpy(), q, rtol=1e-10)


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
