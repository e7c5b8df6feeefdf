"""The loss at a temperature against a loop, and its limits."""

import math

import pytest
import torch

from labcode.self_supervision import contrastive as C
from labcode.self_supervision import contrastive_theory as T
from labcode.self_supervision.contrastive_theory.temperature import _negatives


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=gen(seed))


@pytest.mark.parametrize("share, simple", [(1.0, False), (0.5, False), (1.0, True), (0.5, True), (0.01, False)])
def test_temperature_loss_is_the_loop(share, simple):
    z, n, tau = randn(8, 3), 4, 0.3
    u = (z / z.norm(dim=1, keepdim=True)).tolist()
    dot = [[sum(a * b for a, b in zip(u[i], u[j], strict=True)) for j in range(8)] for i in range(8)]
    want = 0.0
    for i in range(8):
        partner = (i + n) % 8
        others = sorted((dot[i][j] for j in range(8) if j not in (i, partner)), reverse=True)
        others = others[: max(1, round(share * 6))]
        if simple:
            want += (sum(others) / len(others) - dot[i][partner]) / 8
        else:
            total = sum(math.exp(v / tau) for v in [*others, dot[i][partner]])
            want += (math.log(total) - dot[i][partner] / tau) / 8
    assert float(T.temperature_loss(z, tau, share, simple)) == pytest.approx(want, rel=1e-9)


def test_temperature_loss_is_nt_xent_and_has_its_limits():
    z = randn(12, 5)
    assert torch.allclose(T.temperature_loss(z, 0.2), C.nt_xent(z, 0.2))
    assert torch.autograd.gradcheck(lambda v: T.temperature_loss(v, 0.2, 0.5), z.clone().requires_grad_())
    grads = []
    for tau in (None, 1e3):
        v = z.clone().requires_grad_()
        loss = T.temperature_loss(v, simple=True) if tau is None else tau * T.temperature_loss(v, tau)
        grads.append(torch.autograd.grad(loss, v)[0])
    assert torch.allclose(grads[0] * 10 / 11, grads[1], atol=1e-3)  # ten negatives: 10/11 of the simple loss's gradient


def test_relative_penalty_is_the_share_of_the_gradient():
    z, tau = randn(10, 4), 0.3
    positive, negatives = _negatives(z)
    s = negatives.clone().requires_grad_()
    logits = torch.cat([positive[:, None], s], 1) / tau
    slope = torch.autograd.grad((logits.logsumexp(1) - logits[:, 0]).sum(), s)[0]
    assert torch.allclose(slope / slope.sum(1, keepdim=True), T.relative_penalty(z, tau))


def test_tolerance_is_the_loop():
    z, y = randn(9, 3), torch.arange(3).repeat(3)
    u = z / z.norm(dim=1, keepdim=True)
    want = [float(u[i] @ u[j]) * (y[i] == y[j]).item() for i in range(9) for j in range(9) if i != j]
    assert T.tolerance(z, y) == pytest.approx(sum(want) / len(want))
