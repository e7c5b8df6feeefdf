"""The debiased loss and its oracle against plain float64 loops, and the ring against its integral."""

import math

import numpy as np
import pytest
import torch
from self_supervision.contrastive.helpers import Flat, dot, lse, pictures, rows

from labcode.self_supervision import contrastive as C

EPS = 1e-10


def loop_debiased(z, tau_plus, t, views):
    """Every exponential with the row's largest score taken off, so that 1/t may be in the hundreds."""
    n, terms = len(z) // views, []
    for a in range(len(z)):
        score = {b: dot(z[a], z[b]) / t for b in range(len(z)) if b != a}
        top = max(score.values())
        pos = [math.exp(s - top) for b, s in score.items() if b % n == a % n]
        neg = [math.exp(s - top) for b, s in score.items() if b % n != a % n]
        g = (math.fsum(neg) / len(neg) - tau_plus * math.fsum(pos) / len(pos)) / (1 - tau_plus)
        g = max(g, math.exp(-1 / t - top))
        terms += [math.log1p(len(neg) * g / p) for p in pos]
    return sum(terms) / len(terms)


def loop_oracle(z, labels, tau, rescale):
    n, total = len(z) // 2, 0.0
    for i in range(2 * n):
        own = dot(z[i], z[(i + n) % (2 * n)]) / tau
        true = [dot(z[i], z[k]) / tau for k in range(2 * n) if labels[k % n] != labels[i % n]]
        if true:
            total += lse([own, lse(true) + (math.log((2 * n - 2) / len(true)) if rescale else 0)]) - own
    return total / (2 * n)


@pytest.mark.parametrize("views", [2, 3])
@pytest.mark.parametrize("tau_plus, t", [(0.0, 0.5), (0.1, 0.5), (0.6, 0.2), (0.0, 0.003), (0.1, 0.004)])
def test_debiased_is_the_loop(views, tau_plus, t):
    z = rows(4 * views)
    wanted = loop_debiased(z, tau_plus, t, views)
    assert float(C.debiased_nt_xent(z, tau_plus, t, views)) == pytest.approx(wanted, rel=1e-9, abs=EPS)


@pytest.mark.parametrize("rescale", [True, False])
@pytest.mark.parametrize("labels", [[0, 1, 2, 3], [0, 0, 1, 1], [2, 2, 2, 2], [10**12, -5, -5, 10**12]])
@pytest.mark.parametrize("tau", [1e-8, 0.5])
def test_oracle_is_the_loop(rescale, labels, tau):
    z, y = rows(8), torch.tensor(labels)
    wanted = loop_oracle(z, labels, tau, rescale)
    assert float(C.oracle_nt_xent(z, y, tau, rescale)) == pytest.approx(wanted, rel=EPS, abs=EPS)


def test_debiased_at_a_low_temperature_in_closed_form():
    """Two images on a cross: both positives opposite, both negatives at right angles."""
    z = torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1]], requires_grad=True)
    for tau in (0.011, 1e-3, 1e-20):
        loss = C.debiased_nt_xent(z, 0.0, tau)
        assert loss.item() == pytest.approx(1 / tau + math.log(2 + math.exp(-1 / tau)), rel=1e-6)
        assert not torch.autograd.grad(loss, z)[0].any()  # every push has its opposite
        leaf = rows(8, dtype=torch.float32).requires_grad_()
        found, wanted = (torch.autograd.grad(loss, leaf)[0]
                         for loss in (C.debiased_nt_xent(leaf, 0.0, tau), C.nt_xent(leaf, tau)))  # fmt: skip
        assert found.abs().max() > 0.01 / tau
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3 / tau)


def test_debiased_where_nothing_is_left_is_the_smallest_value_and_has_no_gradient_through_it():
    """Aligned views among opposite images, half of all negatives false: g is e^(-1/t), the loss log(1 + 2 e^(-2/t))."""
    z = torch.tensor([[1.0, 0], [-1, 0], [1, 0], [-1, 0]], requires_grad=True)
    for tau in (0.5, 0.1, 0.005):
        loss = C.debiased_nt_xent(z, 0.5, tau)
        assert float(loss) == pytest.approx(math.log1p(2 * math.exp(-2 / tau)), rel=1e-5)
        assert torch.isfinite(torch.autograd.grad(loss, z)[0]).all()


def test_the_logarithm_of_the_debiased_mean_is_that_of_the_mean():
    negative, positive = rows(7, 6), rows(7, 2, seed=1)
    for tau_plus in (0.0, 0.05, 0.4):
        plain = C.debiased_mean(negative.exp(), positive.exp(), tau_plus, 1.0)
        torch.testing.assert_close(C.debiased_log_mean(negative, positive, tau_plus, 1.0), plain.log())
    check = torch.autograd.gradcheck
    inputs = (negative.clone().requires_grad_(), positive.clone().requires_grad_())
    assert check(lambda a, b: C.debiased_log_mean(a, b, 0.05, 1.0), inputs)


@pytest.mark.bad_input
def test_the_ring_refuses_what_no_number_can_hold():
    angle = torch.tensor([0.3])
    pairs = zip(C.ring_means(angle, 10, 200.0, 0.02), C.ring_means(angle.double(), 10, 200.0, 0.02), strict=True)
    for found, exact in pairs:
        assert float(found) == pytest.approx(float(exact), rel=1e-4)
    for call in (lambda: C.ring_means(angle, tau=0.01), lambda: C.ring_scores(angle, 3, 3, tau=0.01)):
        with pytest.raises(ValueError, match="tau must be so large"):
            call()


def test_the_debiased_mean_is_exact_on_exact_expectations():
    own, true, share = 5.0, 2.0, 0.3
    mixed = torch.tensor([[share * own + (1 - share) * true]])
    assert float(C.debiased_mean(mixed, torch.tensor([[own]]), share)) == pytest.approx(true, rel=1e-5)


def test_the_debiased_mean_is_clamped_and_the_clamp_has_no_gradient():
    negative = torch.full((1, 4), math.exp(-1.5), requires_grad=True)
    positive = torch.full((1, 1), math.exp(2.0), requires_grad=True)
    g = C.debiased_mean(negative, positive, 0.5, 0.5)
    assert g.item() == pytest.approx(math.exp(-2), rel=1e-6)
    g.sum().backward()
    assert negative.grad.abs().max() == 0 and positive.grad.abs().max() == 0


def test_the_ring_in_closed_form_is_the_integral_and_the_samples_agree():
    angle = torch.tensor([0.0, 0.7], dtype=torch.float64)
    own, other = C.ring_means(angle, classes=4, kappa=3.0, tau=0.5)
    grid = np.linspace(-math.pi, math.pi, 20001)[:-1]
    weight = np.exp(3 * np.cos(grid)) / np.exp(3 * np.cos(grid)).sum()
    for i, a in enumerate(angle.tolist()):
        mean = [(weight * np.exp(np.cos(grid + c * math.pi / 2 - a) / 0.5)).sum() for c in range(4)]
        assert float(own[i]) == pytest.approx(mean[0], rel=1e-6)
        assert float(other[i]) == pytest.approx(sum(mean[1:]) / 3, rel=1e-6)
    torch.manual_seed(0)
    mixed, positive = C.ring_scores(angle, 40000, 40000, classes=4, kappa=3.0, tau=0.5)
    assert torch.allclose(positive.mean(1), own, rtol=0.02)
    assert torch.allclose(mixed.mean(1), (own + 3 * other) / 4, rtol=0.03)


def test_the_oracle_module_uses_the_labels_of_its_images():
    model = C.Oracle(Flat(), torch.tensor([0, 1, 0, 1, 2]), rescale=False)
    views, index = pictures(6), torch.tensor([4, 0, 2])
    wanted = C.oracle_nt_xent(model.head(model.encoder(views)), torch.tensor([2, 0, 0]), 0.2, rescale=False)
    assert torch.allclose(model(views, index), wanted)
