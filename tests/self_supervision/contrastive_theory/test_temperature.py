"""The loss at a temperature against a loop, and its limits."""

import math

import pytest
import torch
from self_supervision.contrastive_theory.helpers import randn

from labcode.self_supervision import contrastive as C
from labcode.self_supervision import contrastive_theory as T


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
    positive, negatives = T.positive_and_negatives(z)
    s = negatives.clone().requires_grad_()
    logits = torch.cat([positive[:, None], s], 1) / tau
    slope = torch.autograd.grad((logits.logsumexp(1) - logits[:, 0]).sum(), s)[0]
    assert torch.allclose(slope / slope.sum(1, keepdim=True), T.relative_penalty(z, tau))


def test_tolerance_is_the_loop():
    z, y = randn(9, 3), torch.arange(3).repeat(3)
    u = z / z.norm(dim=1, keepdim=True)
    want = [float(u[i] @ u[j]) * (y[i] == y[j]).item() for i in range(9) for j in range(9) if i != j]
    assert T.tolerance(z, y) == pytest.approx(sum(want) / len(want))


@pytest.mark.parametrize("share", [1.0, 0.4])
@pytest.mark.parametrize("tau", [1e-20, 1e-6, 0.011, 1.0, 1e6])
def test_any_temperature_gives_what_float64_gives(share, tau):
    z = randn(8, 5).float().requires_grad_()
    twin = z.detach().double().requires_grad_()
    value, exact = T.temperature_loss(z, tau, share), T.temperature_loss(twin, tau, share)
    grad, slope = torch.autograd.grad(value, z)[0], torch.autograd.grad(exact, twin)[0]
    torch.testing.assert_close(value.double(), exact, rtol=2e-5, atol=1e-6)
    torch.testing.assert_close(grad.double(), slope, rtol=1e-3, atol=1e-5 * float(slope.abs().max()))
    push = T.relative_penalty(z, tau).detach()
    assert torch.isfinite(push).all() and push.sum(1).tolist() == pytest.approx([1.0] * 8)


def test_zero_rows_have_no_gradient_and_half_precision_is_single():
    z = randn(8, 5).float()
    z[2] = 0
    leaf = z.clone().requires_grad_()
    grad = torch.autograd.grad(T.temperature_loss(leaf), leaf)[0]
    assert not grad[2].any() and grad.half().isfinite().all()
    half = z.bfloat16()
    assert torch.equal(T.temperature_loss(half), T.temperature_loss(half.float()))


def test_tolerance_takes_any_labels_and_rows_of_zeros():
    z, y = randn(12, 4), torch.arange(12) % 3
    ids = torch.tensor([10**15, -7, 0])[y]
    assert T.tolerance(z, ids) == pytest.approx(T.tolerance(z, y))
    z[0] = 0
    unit = z / z.norm(dim=1, keepdim=True).clamp_min(1e-9)
    wanted = sum(float(unit[i] @ unit[j]) for i in range(12) for j in range(12) if i != j and y[i] == y[j]) / 132
    assert T.tolerance(z, y) == pytest.approx(wanted)


@pytest.mark.bad_input
def test_what_cannot_be_compared_is_refused():
    for name, call in (("z must have at least 4 rows, two views of 2 images", lambda: T.temperature_loss(randn(2, 3))),
                       ("z must", lambda: T.tolerance(randn(1, 3), torch.zeros(1))),
                       ("y must", lambda: T.tolerance(randn(4, 3), torch.zeros(3)))):  # fmt: skip
        with pytest.raises(ValueError, match=name):
            call()


def test_local_separation_is_the_loop():
    z = randn(10, 3)
    u = (z / z.norm(dim=1, keepdim=True)).tolist()
    dot = [[sum(a * b for a, b in zip(p, q, strict=True)) for q in u] for p in u]
    want = 0.0
    for i in range(10):
        near = sorted((dot[i][j] for j in range(10) if j not in (i, (i + 5) % 10)), reverse=True)[:3]
        want += (dot[i][(i + 5) % 10] - sum(near) / 3) / 10
    assert T.local_separation(*T.nearest_negatives(z, 3)) == pytest.approx(want)
    with pytest.raises(ValueError, match="k must"):
        T.nearest_negatives(z, 9)


@pytest.mark.parametrize("tau", [0.05, 0.3, 2.0])
def test_gradients_of_similarities_are_those_of_the_loop(tau):
    """The positive's is -Σ P_k/τ, a negative's P_k/τ, so each negative has the positive's times its weight."""
    own, others = randn(5).tanh(), randn(5, 4, seed=1).tanh()
    pull, push = T.similarity_gradients(own, others, tau)
    weights = T.boltzmann(others, tau)
    for i in range(5):
        e = [math.exp(float(v) / tau) for v in others[i]]
        total = math.exp(float(own[i]) / tau) + sum(e)
        assert float(pull[i]) == pytest.approx(-sum(v / total for v in e))
        for k in range(4):
            assert float(push[i, k]) == pytest.approx(e[k] / total)
            assert float(weights[i, k]) == pytest.approx(e[k] / sum(e))
            assert float(push[i, k]) == pytest.approx(-float(pull[i]) * float(weights[i, k]))


def test_gradients_of_similarities_have_both_limits():
    own, others = (t.requires_grad_() for t in (randn(6).tanh(), randn(6, 5, seed=1).tanh()))
    triplet = torch.autograd.grad(torch.relu(others.amax(1) - own).sum(), (own, others))
    cold, hot, simple = (T.similarity_gradients(own, others, *o) for o in ((1e-6,), (1e6,), (1, True)))
    for a, b, c, d in zip(cold, triplet, hot, simple, strict=True):
        torch.testing.assert_close(a, b)
        torch.testing.assert_close(c, 5 / 6 * d, rtol=1e-5, atol=1e-6)  # five negatives


@pytest.mark.parametrize("tau", [1e-3, 0.2, 10.0])
def test_penalty_at_is_the_loop(tau):
    others, places = randn(4, 6).tanh(), [-1.0, 0.0, 0.7, 1.0]
    found = T.penalty_at(torch.tensor(places, dtype=torch.float64), others, tau).tolist()
    for place, value in zip(places, found, strict=True):
        rows = others.tolist()
        want = sum(1 / (1 + sum(math.exp(min(700, (v - place) / tau)) for v in row)) for row in rows) / len(rows)
        assert value == pytest.approx(want, abs=1e-12)
    assert found == sorted(found) and 0 <= found[0] <= found[-1] <= 1


def test_nearest_negatives_and_shares_are_the_loop():
    z, k = randn(10, 3), 3
    u = (z / z.norm(dim=1, keepdim=True)).tolist()
    dot = [[sum(a * b for a, b in zip(p, q, strict=True)) for q in u] for p in u]
    positive, nearest = T.nearest_negatives(z, k)
    before = 0
    for i in range(10):
        partner = (i + 5) % 10
        near = sorted((dot[i][j] for j in range(10) if j not in (i, partner)), reverse=True)[:k]
        assert float(positive[i]) == pytest.approx(dot[i][partner])
        assert sorted(nearest[i].tolist(), reverse=True) == pytest.approx(near)
        before += sum(dot[i][partner] > v for v in near)
    assert T.share_before(positive, nearest) == pytest.approx(before / 30)
    counted = [0] * 8
    for v in nearest.flatten().tolist():
        counted[min(7, int((v + 1) / 0.25))] += 1
    assert T.similarity_shares(nearest, 8) == pytest.approx([c / 30 for c in counted])


def test_similarity_shares_keep_what_rounding_carries_over_the_edge():
    found = T.similarity_shares(torch.tensor([[1.0000001, 1.0], [-1.0000001, 0.0]]), 4)
    assert found == pytest.approx([0.25, 0, 0.25, 0.5])
