"""Cells and squares turned, and how far they leave the images."""

import math

import pytest
import torch

from labcode.self_supervision import pretext as P


def pictures(n=3, side=16, seed=0):
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(seed))


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def log_softmax(row):
    top = max(row)
    total = top + math.log(sum(math.exp(v - top) for v in row))
    return [v - total for v in row]


@pytest.mark.parametrize("grid", [1, 2, 4])
def test_turn_cell_turns_that_cell_alone(grid):
    n, s = 4 * grid**2, 16 // grid
    x, label = pictures(n), torch.arange(n)
    found, given = P.turn_cell(x, grid, label)
    assert torch.equal(given, label)
    for i in range(n):
        wanted, (row, column) = x[i].clone(), divmod(i // 4, grid)
        box = (slice(None), slice(row * s, row * s + s), slice(column * s, column * s + s))
        wanted[box] = torch.rot90(x[i][box], i % 4, (1, 2))
        assert torch.equal(found[i], wanted)


def test_a_quarter_of_the_cells_labels_leave_the_image_alone():
    x = pictures(1).expand(1600, 3, 16, 16)
    found, label = P.turn_cell(x)
    same = (found == x).flatten(1).all(1)
    assert torch.equal(same, label % 4 == 0) and 0.2 < same.float().mean() < 0.3


def test_turn_patch_turns_that_square_alone():
    x = pictures(4)
    found, label = P.turn_patch(x, (3, 5, 6), torch.arange(4))
    for i in range(4):
        wanted = x[i].clone()
        wanted[:, 3:9, 5:11] = torch.rot90(x[i, :, 3:9, 5:11], i, (1, 2))
        assert torch.equal(found[i], wanted)
    torch.manual_seed(0)
    sides = [int((P.turn_patch(x, label=torch.full((4,), 2))[0] != x).any(1).any(0).any(0).sum()) for _ in range(200)]
    assert min(sides) == 2 and 7 <= max(sides) <= 8


def test_affinity_is_one_for_a_task_that_changes_nothing():
    images = (pictures(8) * 255).to(torch.uint8)
    correct = lambda x: float((x[:, :, :8].mean((1, 2, 3)) > x[:, :, 8:].mean((1, 2, 3))).float().mean())  # noqa: E731
    assert P.affinity(correct, images, lambda x: (x, None)) == pytest.approx(1)
    upside_down = lambda x: (x.flip(2), None)  # noqa: E731
    right = correct(images / 255)
    assert 0 < right < 1 and P.affinity(correct, images, upside_down) == pytest.approx((1 - right) / right)


def test_images_that_are_not_square_are_refused():
    for task in (P.rotations, P.turn_all, P.turn_cell, P.turn_patch):
        with pytest.raises(ValueError, match="square"):
            task(torch.zeros(4, 3, 8, 6))
    with pytest.raises(ValueError, match="grid"):
        P.turn_cell(torch.zeros(4, 3, 9, 9), 2)


def test_distance_from_uniform():
    scores = draw(4, 5)
    for row, found in zip(scores.tolist(), P.distance_from_uniform(scores), strict=True):
        assert float(found) == pytest.approx(sum((math.log(1 / 5) - v) / 5 for v in log_softmax(row)))
    assert float(P.distance_from_uniform(torch.ones(1, 5))) == pytest.approx(0, abs=1e-6)
