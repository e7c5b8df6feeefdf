"""The information objective against a loop and its bounds."""

import math

import pytest
import torch

from labcode.clustering import category_discovery as C


def loop(logits, known, lam):
    p = [[math.exp(v) / sum(map(math.exp, row)) for v in row] for row in logits.tolist()]
    free = [row for row, y in zip(p, known.tolist(), strict=True) if y < 0]
    conditional = sum(-sum(v * math.log(v) for v in row) for row in free) / len(free)
    mean = [sum(row[c] for row in p) / len(p) for c in range(len(p[0]))]
    taught = [-math.log(row[y]) for row, y in zip(p, known.tolist(), strict=True) if y >= 0]
    return lam * conditional + sum(v * math.log(v) for v in mean) + sum(taught) / len(taught)


def test_loss_is_the_loop_and_has_its_gradient():
    g = torch.Generator().manual_seed(0)
    logits, known = torch.randn(9, 4, dtype=torch.float64, generator=g), torch.tensor([0, 1, -1, -1, 2, -1, -1, -1, 0])
    assert float(C.pim_loss(logits, known, 0.3)) == pytest.approx(loop(logits, known, 0.3), rel=1e-9)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda a: C.pim_loss(a, known, 0.3), logits)
    assert float(C.pim_loss(logits + 5, known)) == pytest.approx(float(C.pim_loss(logits, known)), rel=1e-9)


def test_sure_and_even_predictions_are_the_minimum_without_labels():
    free = torch.full((8,), -1)
    sure = 100 * torch.eye(4).repeat(2, 1)
    assert float(C.pim_loss(sure, free, 1.0)) == pytest.approx(-math.log(4), abs=1e-5)
    assert float(C.pim_loss(torch.zeros(8, 4), free, 1.0)) == pytest.approx(0, abs=1e-5)  # undecided: no information
    one = torch.zeros(8, 4)
    one[:, 0] = 100
    assert float(C.pim_loss(one, free, 1.0)) == pytest.approx(0, abs=1e-5)  # all in one class


def test_edges():
    for logits in (torch.zeros(1, 3), 1e4 * torch.ones(4, 3), torch.randn(4, 3).half()):
        assert torch.isfinite(C.pim_loss(logits, torch.full((len(logits),), -1)))
        assert torch.isfinite(C.pim_loss(logits, torch.zeros(len(logits), dtype=torch.int64)))
    for bad in (dict(lam=-1.0), dict(marginal=float("nan"))):
        with pytest.raises(ValueError, match="lam"):
            C.pim_loss(torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64), **bad)


def test_arms_side_by_side_are_arms_alone_and_find_two_groups():
    g = torch.Generator().manual_seed(0)
    x = torch.nn.functional.normalize(
        torch.randn(40, 2, generator=g) * 0.1 + torch.tensor([[1.0, 0], [0, 1.0]]).repeat(20, 1), dim=1
    )
    known = torch.full((40,), -1)
    known[:4:2] = 0
    weights, start = torch.tensor([[0.2, 1.0, 1.0], [1.0, 1.0, 1.0]]), torch.tensor([[1.0, 0.1], [0.1, 1.0]])
    both = C.train_pim(x, known, start, weights, steps=10)
    for i in range(2):
        torch.testing.assert_close(
            both[i : i + 1], C.train_pim(x, known, start, weights[i : i + 1], steps=10), rtol=1e-4, atol=1e-4
        )
    assert torch.equal(both[1].argmax(1), torch.arange(2).repeat(20))
