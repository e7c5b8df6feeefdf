"""Swapped prediction against the loop."""

import numpy as np
import pytest
import torch
from self_supervision.data_curation.helpers import gen

from labcode.nets import SmallNet
from labcode.self_supervision import data_curation as D


def slow_swap(z, c, tau, eps):
    z, c = (np.asarray(torch.nn.functional.normalize(t, dim=1)) for t in (z, c))
    scores, n = z @ c.T, len(z) // 2

    def assign(s):
        q = np.exp(s / eps)
        for _ in range(3):
            q = q / q.sum(0, keepdims=True) / q.shape[1]
            q = q / q.sum(1, keepdims=True) / q.shape[0]
        return q * q.shape[0]

    codes, total = [assign(scores[:n]), assign(scores[n:])], 0.0
    for i in range(2 * n):
        p = np.exp(scores[i] / tau) / np.exp(scores[i] / tau).sum()
        total -= (codes[i < n][i % n] * np.log(p)).sum()
    return total / (2 * n)


@pytest.mark.parametrize("n, k", [(1, 3), (4, 5), (6, 2)])
def test_swapped_prediction_is_the_loop(n, k):
    z, c = (
        torch.randn(2 * n, 4, generator=gen(), dtype=torch.float64),
        torch.randn(k, 4, generator=gen(1), dtype=torch.float64),
    )
    assert float(D.swapped_prediction(z, c)) == pytest.approx(slow_swap(z, c, 0.1, 0.05), rel=1e-8)
    halves = z.roll(n, 0)
    assert float(D.swapped_prediction(halves, c)) == pytest.approx(float(D.swapped_prediction(z, c)), rel=1e-12)


def test_swapped_prediction_has_no_gradient_through_its_targets():
    z = torch.randn(6, 3, generator=gen(), dtype=torch.float64).requires_grad_()
    c = torch.randn(4, 3, generator=gen(1), dtype=torch.float64)
    unit = torch.nn.functional.normalize(c, dim=1)
    scores = torch.nn.functional.normalize(z, dim=1) @ unit.T
    with torch.no_grad():
        from labcode.transport import sinkhorn_codes

        codes = torch.cat([sinkhorn_codes(h) for h in scores.chunk(2)]).roll(3, 0)
    wanted = torch.autograd.grad(-(codes * (scores / 0.1).log_softmax(1)).sum(1).mean(), z)[0]
    assert torch.allclose(torch.autograd.grad(D.swapped_prediction(z, c), z)[0], wanted)


def test_prototypes_stay_until_they_are_let_go():

    torch.manual_seed(0)
    model = D.SwAV(SmallNet(16, 32), prototypes=8, dim=16, freeze=1).train()
    views = torch.rand(8, 3, 8, 8, generator=gen())
    moved = []
    for _ in range(2):
        model.zero_grad()
        model(views, torch.arange(4)).backward()
        moved.append(float(model.prototypes.grad.abs().sum()))
    assert moved[0] == 0 < moved[1]


def test_any_temperature_and_a_row_of_zeros():
    z, c = torch.randn(6, 4, generator=gen()), torch.randn(5, 4, generator=gen(1))
    for tau, eps in ((1e-6, 0.05), (0.1, 1e-6), (1e-20, 1e-20), (1e6, 1e6)):
        leaf = z.clone().requires_grad_()
        loss = D.swapped_prediction(leaf, c, tau, eps)
        assert loss.isfinite() and torch.autograd.grad(loss, leaf)[0].isfinite().all()
    z[2] = 0
    leaf = z.clone().requires_grad_()
    assert torch.autograd.grad(D.swapped_prediction(leaf, c), leaf)[0].abs().max() < 100
    double = D.swapped_prediction(z.double(), c.double(), 0.001, 0.05)
    assert float(D.swapped_prediction(z, c, 0.001, 0.05)) == pytest.approx(float(double), rel=1e-4)
