"""SelMix: gains against finite differences of an exact step, slopes against autograd, fine-tuning against a loop."""

import math

import pytest
import torch

from labcode.imperfect_labels import long_tail as L


def g(seed=0):
    return torch.Generator().manual_seed(seed)


def world(b=2, k=4, d=6, n=40, seed=0):
    """Class centres, features of balanced validation samples with a column of ones, and last layers."""
    draw = g(seed)
    centre = 1.5 * torch.randn(b, k, d, dtype=torch.float64, generator=draw)
    y = torch.arange(k).repeat_interleave(n // k)
    z = centre[:, y] + torch.randn(b, n, d, dtype=torch.float64, generator=draw)
    z = torch.cat([z, torch.ones(b, n, 1, dtype=torch.float64)], 2)
    return z, y, 0.3 * torch.randn(b, k, d + 1, dtype=torch.float64, generator=draw)


def test_confusion_against_the_loop():
    z, y, w = world()
    logits = z @ w.mT
    for soft in (False, True):
        c = L.confusion(logits, y, soft)
        for b in range(2):
            for q in range(4):
                rows = logits[b, y == q]
                shown = rows.softmax(1).mean(0) if soft else torch.bincount(rows.argmax(1), minlength=4) / len(rows)
                assert torch.allclose(c[b, q], shown.double() / 4)
    assert torch.allclose(c.sum(2), torch.full((2, 4), 0.25).double())
    uneven = torch.cat([torch.arange(len(y)), (y == 1).nonzero()[:, 0]])  # class 1 twice over
    assert torch.allclose(L.confusion(logits[:, uneven], y[uneven]), L.confusion(logits, y)), "classes weigh alike"


def metric(kind, c):
    r = L.recalls(c)
    return {
        "mean": lambda: r.mean(1), "h": lambda: L.power_mean(r, -1), "g": lambda: L.power_mean(r, 0),
        "cover": lambda: r.mean(1) + (weights() * c.sum(1)).sum(1),
    }[kind]()  # fmt: skip


def weights():
    return torch.tensor([0.0, 2.0, 0.0, 1.0], dtype=torch.float64)


def slope(kind, c):
    if kind == "cover":
        return torch.eye(4, dtype=torch.float64) + weights()[None, None, :].expand(len(c), 1, -1)
    return L.mean_slope(c, {"mean": 1, "h": -1, "g": 0}[kind])


@pytest.mark.parametrize("kind", ["mean", "h", "g", "cover"])
def test_slopes_are_those_of_the_softmax(kind):
    """dψ/dA through autograd: C is a softmax of A, row by row, over K."""
    a = torch.randn(3, 4, 4, dtype=torch.float64, generator=g(0), requires_grad=True)
    c = a.softmax(2) / 4
    (want,) = torch.autograd.grad(metric(kind, c).sum(), a)
    assert torch.allclose(L.logit_slope(c.detach(), slope(kind, c.detach())), want, atol=1e-10)


@pytest.mark.parametrize("kind", ["mean", "h", "g", "cover"])
def test_gains_are_finite_differences(kind):
    """A small SGD step on one mixture of class means changes the metric of the means' logits by its gain."""
    z, y, w = world()
    means = L.class_means(z, y, 4)
    measure = lambda w: metric(kind, (means @ w.mT).softmax(2) / 4)  # noqa: E731
    c = (means @ w.mT).softmax(2) / 4
    found, rate = L.gains(means, w, c, slope(kind, c)), 1e-5
    for i in range(4):
        for j in range(4):
            mixed = 0.8 * means[:, i] + 0.2 * means[:, j]
            p = torch.einsum("bd,bld->bl", mixed, w).softmax(1)
            step = torch.einsum("bl,bd->bld", p - torch.eye(4, dtype=torch.float64)[i], mixed)
            change = (measure(w - rate * step) - measure(w + rate * step)) / (2 * rate)
            assert torch.allclose(found[:, i, j], change, rtol=1e-4, atol=1e-7)


def test_multipliers():
    c = torch.diag_embed(torch.tensor([[0.2, 0.1, 0.25]])) / 1.0
    m = L.min_recall_slope(c, eta=50.0)[0]
    assert float(m[1, 1]) == pytest.approx(3.0, abs=1e-4) and float(m[0, 0]) < 1e-4, "the worst class has it all"
    assert torch.allclose(L.min_recall_slope(c, eta=0.0)[0], torch.eye(3))
    even = torch.full((1, 4, 4), 1 / 16)
    assert torch.equal(L.coverage_slope(even)[0], torch.eye(4)), "a constraint that is met has no multiplier"
    bare = torch.zeros(1, 2, 2)
    bare[:, :, 0] = 0.5
    found = L.coverage_slope(bare, share=0.95, most=100.0, tau=0.1)[0]
    assert float(found[0, 1]) == pytest.approx(100 * (1 - math.exp(-9.5)), rel=1e-5) and float(found[1, 0]) == 0


def test_power_means():
    r = torch.tensor([[0.2, 0.5, 0.8]])
    assert float(L.power_mean(r, -1)) == pytest.approx(3 / (5 + 2 + 1.25), rel=1e-5)
    assert float(L.power_mean(r, 0)) == pytest.approx((0.2 * 0.5 * 0.8) ** (1 / 3), rel=1e-5)
    assert float(L.power_mean(r, 1)) == pytest.approx(0.5, rel=1e-5)


def test_shares_of_pairs():
    gain = torch.tensor([[[1.0, 0.5], [-2.0, 0.0]]])
    p = L.pair_shares(gain, 0.5)[0]
    assert p[1].tolist() == [0.0, 0.0] and float(p.sum()) == pytest.approx(1)
    assert float((p[0, 0] / p[0, 1]).log()) == pytest.approx((1.0 - 0.5) / 0.5, rel=1e-5)
    assert torch.allclose(L.pair_shares(7 * gain, 0.5)[0], p), "scale"
    assert torch.allclose(L.pair_shares(-gain.abs()), torch.full((1, 2, 2), 0.25)), "no positive gain"


def test_fine_tuning_is_the_loop():
    z, y, w = world()
    got = L.fine_tune(w, z, y, z, y, L.selective(L.min_recall_slope), steps=3, lr=0.1, generator=g(5), batch=4, every=2)
    draw, want, first = g(5), w.clone(), torch.arange(4) * 10
    for step in range(3):
        if step % 2 == 0:
            c = L.confusion(z @ want.mT, y)
            p = L.pair_shares(L.gains(L.class_means(z, y, 4), want, c, L.min_recall_slope(c)))
        pair = torch.multinomial(p.flatten(1), 4, replacement=True, generator=draw)
        u = torch.rand(2, 2, 4, generator=draw)
        mix = 0.6 + 0.4 * torch.rand(2, 4, 1, generator=draw)
        old = want.clone()
        for b in range(2):
            for s in range(4):
                i, j = divmod(int(pair[b, s]), 4)
                one, two = z[b, first[i] + int(10 * u[0, b, s])], z[b, first[j] + int(10 * u[1, b, s])]
                x = mix[b, s] * one + (1 - mix[b, s]) * two
                off = (old[b] @ x).softmax(0)
                off[i] -= 1
                rate = 0.1 * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * step / 3)))
                want[b] -= rate / 4 * torch.outer(off, x)
    assert torch.allclose(got, want, atol=1e-6)
    assert not torch.equal(got, w), "the caller's weights stay"


def test_a_policy_without_gains():
    z, y, w = world()
    c = L.confusion(z @ w.mT, y)
    p = L.worst_first(50.0)(None, None, c)
    assert torch.allclose(p.sum((1, 2)), torch.ones(2).double())
    assert torch.equal(p.sum(2).argmax(1), L.recalls(c).argmin(1))
    plain = L.fine_tune(w, z, y, z, y, L.worst_first(), steps=2, lr=0.1, generator=g(1), mix=(1.0, 1.0))
    assert plain.isfinite().all() and not torch.equal(plain, w)


@pytest.mark.bad_input
def test_bad_input_is_named():
    z, y, w = world()
    with pytest.raises(ValueError, match="sorted"):
        L.fine_tune(w, z, y.flip(0), z, y, steps=1, lr=0.1, generator=g())
    with pytest.raises(ValueError, match="temperature"):
        L.pair_shares(torch.ones(1, 2, 2), 0.0)
