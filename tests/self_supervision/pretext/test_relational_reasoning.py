"""Pairs, loss and head against loops."""

import math

import pytest
import torch
from self_supervision.pretext.helpers import draw

from labcode.self_supervision import pretext as P


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_relation_loss_is_the_loop(gamma):
    scores, same = draw(9), torch.arange(9) % 2 == 0
    wanted = 0.0
    for s, t in zip(scores.tolist(), same.tolist(), strict=True):
        p = 1 / (1 + math.exp(-s))
        p = p if t else 1 - p
        wanted -= 0.5 * (1 - p) ** gamma * math.log(p) / 9
    assert float(P.relation_loss(scores, same, gamma)) == pytest.approx(wanted, rel=1e-9)
    assert float(P.relation_loss(torch.zeros(4), torch.ones(4, dtype=torch.bool), gamma)) == pytest.approx(
        0.5 * 0.5**gamma * math.log(2)
    )
    assert torch.isfinite(P.relation_loss(torch.tensor([500.0, -500.0]), torch.tensor([True, True]), gamma))


@pytest.mark.parametrize("m, k", [(2, 2), (3, 5), (7, 4)])
def test_pairs_are_the_loop(m, k):
    left, right, same = P.relation_pairs(m, k)
    positives, negatives, shift = [], [], 1
    for a in range(k):
        for b in range(a + 1, k):
            positives += [(a * m + i, b * m + i) for i in range(m)]
            negatives += [(a * m + i, b * m + (i + shift) % m) for i in range(m)]
            shift = shift + 1 if shift + 1 < m else 1
    assert list(zip(left.tolist(), right.tolist(), strict=True)) == positives + negatives
    assert len(left) == m * k * (k - 1) and int(same.sum()) * 2 == len(same)
    assert torch.equal(left % m == right % m, same)


def test_the_head_is_the_one_on_concatenated_pairs():
    torch.manual_seed(0)
    head, h = P.RelationHead(6, 5).double(), draw(8, 6)
    left, right, _ = P.relation_pairs(4, 2)
    weight = torch.cat([head.left.weight, head.right.weight], 1)
    slow = head.rest(torch.cat([h[left], h[right]], 1) @ weight.T + head.left.bias)[:, 0]
    assert torch.allclose(head(h, left, right), slow)


@pytest.mark.parametrize("gamma", [0.0, 0.25, 0.5, 1.0, 2.0, 60.0])
def test_sure_pairs_have_a_bounded_gradient_whatever_the_weight(gamma):
    """(1 - p)^γ has no slope at p = 1 for γ below 1, unless it is taken in the logarithm."""
    scores = torch.tensor([500.0, -500.0, 40.0, -40.0, 0.3], requires_grad=True)
    same = torch.tensor([True, False, False, True, True])
    loss = P.relation_loss(scores, same, gamma)
    slope = torch.autograd.grad(loss, scores)[0]
    assert loss.isfinite() and slope.isfinite().all() and slope.abs().max() < 5
    half = P.relation_loss(scores.detach().half(), same, gamma)
    assert half.dtype == torch.float32 and float(half) == pytest.approx(loss.item(), rel=1e-3)


@pytest.mark.bad_input
@pytest.mark.parametrize("dtype", [torch.int64, torch.float32])
def test_same_is_bool(dtype):
    with pytest.raises(ValueError, match="same must be bool"):
        P.relation_loss(torch.zeros(3), torch.ones(3).to(dtype))


def test_steady_views_keep_ink_and_ground_the_same_way_round():
    colours = torch.rand(20, 3, 2, 1, generator=torch.Generator().manual_seed(0))
    halves = colours.repeat_interleave(8, 2).expand(20, 3, 16, 16)
    g = lambda: torch.Generator().manual_seed(1)  # noqa: E731
    seen = P.steady_views(halves, g(), 3)
    assert seen.shape == (60, 3, 16, 16) and torch.equal(seen, P.steady_views(halves, g(), 3))
    step = lambda x: x[:, :, :4].mean((2, 3)) - x[:, :, 12:].mean((2, 3))  # noqa: E731
    before, after = step(halves).repeat(3, 1), step(seen)
    clear = before.abs() > 0.1
    assert torch.equal(before[clear].sign(), after[clear].sign()) and not torch.allclose(before, after, atol=0.02)
