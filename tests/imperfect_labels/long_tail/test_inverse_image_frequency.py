"""Inverse image frequency: weights in closed form, losses against loops, what shifting the logits does."""

import math
from statistics import NormalDist

import pytest
import torch

from labcode.imperfect_labels import long_tail as L

COUNTS = torch.tensor([60, 25, 10, 5])


def test_weights_in_closed_form():
    n, total = COUNTS.tolist(), 100
    want = {
        "raw": [math.log(total / c) for c in n],
        "smooth": [math.log((total + 1) / (c + 1)) + 1 for c in n],
        "relative": [math.log((total - c) / c) for c in n],
        "normit": [-NormalDist().inv_cdf(c / total) for c in n],
        "gombit": [-math.log(-math.log(1 - c / total)) for c in n],
        "base2": [math.log2(total / c) for c in n],
        "base10": [math.log10(total / c) for c in n],
    }
    assert set(want) == set(L.VARIANTS)
    for variant, values in want.items():
        found = L.rarity(COUNTS, variant)
        assert torch.allclose(found, torch.tensor(values), atol=1e-5), variant
        assert bool((found.diff() > 0).all()), "rarer is larger"
    assert float(L.rarity(COUNTS, "relative")[0]) < 0, "a class with most of the images"


def test_even_classes_change_no_order():
    z, even = torch.randn(20, 4, generator=torch.Generator().manual_seed(0)), torch.full((4,), 25)
    for variant in L.VARIANTS:
        assert torch.equal(L.iif(z, even, variant).argmax(1), z.argmax(1))
    assert torch.allclose(L.adjusted(z, even).softmax(1), z.softmax(1), atol=1e-6)


def test_losses_against_the_loop():
    draw = torch.Generator().manual_seed(0)
    z, y = torch.randn(9, 4, dtype=torch.float64, generator=draw), torch.randint(4, (9,), generator=draw)
    multiplied, added = 0.0, 0.0
    for row, label in zip(z, y, strict=True):
        w = L.rarity(COUNTS, "smooth").double()
        multiplied -= float(w[label] * row[label] - (w * row).exp().sum().log()) / 9
        e = COUNTS * row.exp()
        added -= float((e[label] / e.sum()).log()) / 9
    assert float(L.iif_loss(z, y, COUNTS)) == pytest.approx(multiplied, rel=1e-5)
    assert float(L.balanced_softmax(z, y, COUNTS)) == pytest.approx(added, rel=1e-6)
    z.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: L.iif_loss(z, y, COUNTS), z)
    assert torch.autograd.gradcheck(lambda z: L.balanced_softmax(z, y, COUNTS), z)


def test_a_constant_matters_to_the_product_only():
    z = torch.randn(500, 4, generator=torch.Generator().manual_seed(1))
    assert torch.equal(L.adjusted(z, COUNTS).argmax(1), L.adjusted(z + 5, COUNTS).argmax(1))
    assert not torch.equal(L.iif(z, COUNTS).argmax(1), L.iif(z - 5, COUNTS).argmax(1))
    assert float((L.iif(z - 50, COUNTS).argmax(1) == 0).float().mean()) == 1, "negative logits: the head wins"
    assert float((L.iif(z + 50, COUNTS).argmax(1) == 3).float().mean()) == 1, "positive logits: the tail wins"


def test_balanced_softmax_is_logit_adjustment_at_the_optimum():
    """The minimiser of the loss, less nothing, is the log posterior less log prior: what adjustment makes of it."""
    joint = torch.rand(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * COUNTS
    posterior = (joint / joint.sum(1, keepdim=True)).log()
    z = posterior.clone() - COUNTS.log()
    p = (z + COUNTS.log()).softmax(1)
    assert torch.allclose(p, posterior.exp())
    assert torch.equal(L.adjusted(posterior, COUNTS).argmax(1), z.argmax(1))


def test_a_class_without_images_counts_as_one():
    empty, one = torch.tensor([9, 4, 0]), torch.tensor([9, 4, 1])
    z, y = torch.randn(5, 3, generator=torch.Generator().manual_seed(2)), torch.tensor([0, 1, 0, 1, 0])
    for variant in L.VARIANTS:
        assert torch.equal(L.rarity(empty, variant), L.rarity(one, variant))
    assert torch.equal(L.balanced_softmax(z, y, empty), L.balanced_softmax(z, y, one))


def test_half_precision_and_edges():
    z = torch.randn(3, 4).half()
    assert L.iif_loss(z, torch.tensor([0, 1, 3]), COUNTS).dtype == torch.float32
    assert L.iif(z[:0], COUNTS).shape == (0, 4) and L.adjusted(z[:1], COUNTS).shape == (1, 4)


@pytest.mark.bad_input
def test_bad_input_is_named():
    with pytest.raises(ValueError, match="variant"):
        L.rarity(COUNTS, "base3")
    with pytest.raises(ValueError, match="counts"):
        L.rarity(torch.tensor([3]))
    z, y = torch.zeros(2, 4), torch.tensor([0, 3])
    for loss in (L.iif_loss, L.balanced_softmax):
        with pytest.raises(ValueError, match="counts"):
            loss(z, y, COUNTS[:3])
        with pytest.raises(ValueError, match="y must"):
            loss(z, y + 1, COUNTS)
        with pytest.raises(ValueError, match="y must"):
            loss(z, y[:1], COUNTS)
