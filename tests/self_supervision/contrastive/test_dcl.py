"""Decoupled contrastive learning."""

import math

import pytest
import torch
from self_supervision.contrastive.helpers import rows

from labcode.self_supervision import contrastive as C


def loop_dcl(z, tau, sigma):
    z = [(row / row.norm()).tolist() for row in z]
    n, total = len(z) // 2, 0.0
    dot = lambda a, b: sum(p * q for p, q in zip(a, b, strict=True))  # noqa: E731
    pull = [dot(z[i], z[i + n]) for i in range(n)]
    mean = 1.0 if sigma is None else math.fsum(math.exp((s - 1) / sigma) for s in pull) / n
    for i in range(2 * n):
        s = pull[i % n]
        weight = 1.0 if sigma is None else 2 - math.exp((s - 1) / sigma) / mean
        others = [dot(z[i], z[k]) / tau for k in range(2 * n) if k % n != i % n]
        top = max(others)
        total += top + math.log(math.fsum(math.exp(o - top) for o in others)) - weight * s / tau
    return total / (2 * n)


@pytest.mark.parametrize("n", [2, 5])
@pytest.mark.parametrize("sigma", [None, 0.5, 0.01])
@pytest.mark.parametrize("tau", [1e-8, 0.1, 2.0])
def test_dcl_is_the_loop(n, sigma, tau):
    z = rows(2 * n)
    assert float(C.dcl(z, tau, sigma)) == pytest.approx(loop_dcl(z, tau, sigma), rel=1e-10)


def test_dcl_in_closed_form():
    z = torch.tensor([[1.0, 0], [0, 1]]).repeat(2, 1)  # aligned views, images at right angles
    assert float(C.dcl(z, 0.25)) == pytest.approx(math.log(2) - 4)
    assert float(C.dcl(torch.ones(6, 3), 0.25)) == pytest.approx(math.log(4))


def test_dcl_is_nt_xent_without_the_coupling():
    """The gradient of an NT-Xent row is the coupling times that of the DCL row: Proposition 1."""
    z = rows(8, dtype=torch.float32)
    leaf = z.clone().requires_grad_()
    plain = torch.autograd.grad(C.dcl(leaf, 0.3), leaf)[0]
    unit = torch.nn.functional.normalize(leaf, dim=1)
    score = unit @ unit.T / 0.3
    wanted = 0
    for i in range(8):
        own, rest = score[i, (i + 4) % 8], [score[i, k] for k in range(8) if k % 4 != i % 4]
        logits = torch.stack([own, *rest])
        row = torch.autograd.grad(logits.logsumexp(0) - own, leaf, retain_graph=True)[0]
        wanted = wanted + row / C.coupling(logits.detach()) / 8
    torch.testing.assert_close(plain, wanted, rtol=1e-4, atol=1e-6)


def test_dcl_gradients_and_weights_without_one():
    z = rows(6, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: C.dcl(z, 0.5), z)
    weighted = torch.autograd.grad(C.dcl(z, 0.5, 0.3), z)[0]
    unit = torch.nn.functional.normalize(z, dim=1)
    s = (unit[:3] * unit[3:]).sum(1)
    w = 2 - 3 * (s.detach() / 0.3).softmax(0)
    wanted = torch.autograd.grad(C.dcl(z, 0.5) + ((1 - w) * s).mean() / 0.5, z)[0]
    torch.testing.assert_close(weighted, wanted)


@pytest.mark.bad_input
def test_dcl_says_what_is_wrong():
    with pytest.raises(ValueError, match="z must have at least 4 rows, two views of 2 images: one alone has nothing"):
        C.dcl(rows(2))
    for name, call in (("tau", lambda: C.dcl(rows(4), 0.0)), ("sigma", lambda: C.dcl(rows(4), 0.1, -1.0))):
        with pytest.raises(ValueError, match=f"^{name} must"):
            call()


@pytest.mark.parametrize("tau", [0.05, 0.1, 0.7])
@pytest.mark.parametrize("n, d", [(2, 3), (6, 16)])
def test_dcl_peer_agrees(n, d, tau):
    lightly = pytest.importorskip("lightly.loss")
    z = rows(2 * n, d, dtype=torch.float32)
    for sigma, theirs in ((None, lightly.DCLLoss(tau)), (0.5, lightly.DCLWLoss(tau, sigma=0.5))):
        assert float(C.dcl(z, tau, sigma)) == pytest.approx(float(theirs(z[:n], z[n:])), rel=1e-5, abs=1e-5)


def test_the_coupling_is_exact_where_it_is_tiny():
    logits = torch.tensor([[50.0, 0.0, 0.0], [0.0, 50.0, -9.0], [3.0, -1e4, -1e4]])
    exact = [2 / (math.exp(50) + 2), 1 - 1 / (1 + math.exp(50) + math.exp(-9)), 0.0]
    assert C.coupling(logits).tolist() == pytest.approx(exact, rel=1e-6)
    assert C.coupling(torch.zeros(2, 1)).tolist() == [0.0, 0.0]


def test_coupling_is_the_factor_between_the_two_gradients():
    logits = rows(3, 6).requires_grad_()
    (coupled,) = torch.autograd.grad((logits.logsumexp(1) - logits[:, 0]).sum(), logits)
    (free,) = torch.autograd.grad((logits[:, 1:].logsumexp(1) - logits[:, 0]).sum(), logits)
    assert torch.allclose(coupled, C.coupling(logits.detach())[:, None] * free)
