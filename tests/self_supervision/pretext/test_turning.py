"""Quarter turns against NumPy's."""

import numpy as np
import pytest
import torch
from self_supervision.pretext.helpers import pictures

from labcode.self_supervision import pretext as P


def test_rotations_are_numpys_and_four_give_the_image_back():
    x = pictures(2)
    turned = P.rotations(x)
    for v in range(4):
        for i in range(2):
            assert np.array_equal(turned[i + 2 * v], np.rot90(x[i].numpy(), v, (1, 2)))
    assert torch.equal(P.turn(P.turn(x, torch.tensor([1, 3])), torch.tensor([3, 1])), x)


@pytest.mark.parametrize("quarters", [[0, 1, 2, 3], [3, 3, 0, 2], [5, 4, 7, 6]])
def test_turn_turns_each_image_by_its_own(quarters):
    x = pictures(4)
    found = P.turn(x, torch.tensor(quarters))
    for image, q, new in zip(x, quarters, found, strict=True):
        assert torch.equal(new, torch.rot90(image, q, (1, 2)))


def test_a_mirror_swaps_the_quarter_turns():
    """Why a flip must come before the turn: after it, left and right labels change places."""
    x = pictures(2)
    assert torch.equal(torch.rot90(x, 1, (2, 3)).flip(3), torch.rot90(x.flip(3), 3, (2, 3)))


def test_turn_all_follows_the_copies():
    x = pictures(8)
    found, label = P.turn_all(x)
    assert label.tolist() == [0, 0, 1, 1, 2, 2, 3, 3] and torch.equal(found[4:6], x[4:6].flip(2, 3))
