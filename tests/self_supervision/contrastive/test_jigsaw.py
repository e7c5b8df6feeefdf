"""The jigsaw of quarters: what stands where, and what the loss asks."""

import math

import pytest
import torch
from self_supervision.contrastive.helpers import Flat, pictures

from labcode.self_supervision import contrastive as C


def test_quarters_move_as_the_order_says():
    x = torch.arange(2 * 3 * 4 * 6, dtype=torch.float32).view(2, 3, 4, 6)
    order = torch.tensor([[0, 1, 2, 3], [3, 1, 0, 2]])
    moved = C.tiled(x, order)
    assert torch.equal(moved[0], x[0])
    place = {0: (0, 0), 1: (0, 3), 2: (2, 0), 3: (2, 3)}  # corner of each quarter, row by row
    for j in range(4):
        (top, left), (y, u) = place[j], place[int(order[1, j])]
        assert torch.equal(moved[1, :, top : top + 2, left : left + 3], x[1, :, y : y + 2, u : u + 3])


def test_the_inverse_order_puts_the_picture_back():
    x, order = pictures(24), C.Jigsaw(Flat()).orders
    assert len({tuple(o) for o in order.tolist()}) == 24 and (order.sort(1)[0] == torch.arange(4)).all()
    assert torch.equal(C.tiled(C.tiled(x, order), order.argsort(1)), x)


def test_the_loss_is_that_of_guessing_until_something_is_learnt_and_reads_one_view():
    model = C.Jigsaw(Flat())
    torch.nn.init.zeros_(model.head.weight), torch.nn.init.zeros_(model.head.bias)
    assert abs(float(model(pictures(16), torch.arange(8))) - math.log(24)) < 1e-6
    torch.nn.init.normal_(model.head.weight)
    losses = []
    for second in (1, 2):
        torch.manual_seed(0)
        losses.append(float(model(torch.cat([pictures(8), pictures(8, seed=second)]), torch.arange(8))))
    assert losses[0] == losses[1]


@pytest.mark.bad_input
def test_odd_sides_and_other_orders_are_refused():
    with pytest.raises(ValueError, match="even"):
        C.tiled(torch.zeros(1, 3, 3, 4), torch.zeros(1, 4, dtype=torch.int64))
    with pytest.raises(ValueError, match="order"):
        C.tiled(torch.zeros(2, 3, 4, 4), torch.zeros(1, 4, dtype=torch.int64))
