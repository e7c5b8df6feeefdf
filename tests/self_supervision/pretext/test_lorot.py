"""Cells and squares turned, and how far they leave the images."""

import math

import pytest
import torch
from self_supervision.pretext.helpers import draw, log_softmax, pictures

from labcode.self_supervision import pretext as P


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


def test_distance_from_uniform_keeps_its_digits_and_its_sign():
    """KL is half the variance of nearly equal scores: 1e-9 beside logarithms near 1."""
    scores = 1e-4 * draw(50, 6).float()
    s = scores.double() - scores.double().mean(1, keepdim=True)
    exact = s.exp().mean(1).log()
    found = P.distance_from_uniform(scores)
    assert (found >= 0).all() and torch.allclose(found.double(), exact, rtol=1e-2, atol=1e-12)
    for scale in (1.0, 30.0, 1e4):
        wide = scale * draw(20, 4).float()
        wanted = [sum(math.log(1 / 4) - v for v in log_softmax(row)) / 4 for row in wide.tolist()]
        assert P.distance_from_uniform(wide).tolist() == pytest.approx(wanted, rel=1e-4, abs=1e-6)
    assert P.distance_from_uniform(torch.zeros(3, 4).half()).tolist() == [0, 0, 0]


@pytest.mark.bad_input
def test_squares_and_labels_that_leave_the_image_are_named():
    x = pictures(2)
    for call, name in (
        (lambda: P.turn_patch(x, (10, 0, 8)), "box must lie in the image of 16×16"),
        (lambda: P.turn_patch(x[..., :2, :2]), r"at least 4 pixels, got shape \(2, 3, 2, 2\)"),
        (lambda: P.turn_cell(x, 2, torch.tensor([0, 16])), "label must lie in 0 … 15"),
        (lambda: P.turn_all(pictures(6)), r"x must hold 4 copies of every image, got shape \(6, 3, 16, 16\)"),
        (lambda: P.distance_from_uniform(torch.zeros(4)), r"scores must be a matrix \(n, d\), got shape \(4,\)"),
    ):
        with pytest.raises(ValueError, match=name):
            call()


def test_auroc_is_the_share_of_pairs_in_order():
    inside, outside = draw(7), draw(5, seed=1)
    pairs = [float(a > b) + 0.5 * float(a == b) for a in inside for b in outside]
    assert P.auroc(inside, outside) == pytest.approx(sum(pairs) / 35)
