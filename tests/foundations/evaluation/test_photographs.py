"""Patches of photographs: no pixel of a test patch is in a training patch."""


import pytest
import torch

from labcode.data.synthetic import textures
from labcode.foundations import evaluation as E


def test_patches_of_the_splits_come_from_blocks_of_their_own():
    """Every patch is found in its photograph, and its pixels belong to a block that no other split has."""
    photos, owner = textures(64), {}
    for split in ("fit", "validation", "test"):
        x, y = E.photo_patches(180, 0, split, 6, side=64)
        assert x.shape == (180, 1, 6, 6) and torch.bincount(y).tolist() == [20] * 9
        for patch, label in zip(x[:, 0], y.tolist(), strict=True):
            windows = photos[label].unfold(0, 6, 1).unfold(1, 6, 1)  # (59, 59, 6, 6)
            centred = windows - windows.mean((2, 3), keepdim=True)
            centred = 0.5 + 0.25 * centred / (windows.std((2, 3), keepdim=True) + 0.05)
            off = torch.minimum((centred - patch).abs().amax((2, 3)), (centred - patch.flip(1)).abs().amax((2, 3)))
            row, column = divmod(int(off.argmin()), 59)
            assert float(off.min()) < 1e-4
            assert row // 8 == (row + 5) // 8 and column // 8 == (column + 5) // 8
            assert owner.setdefault((label, row // 8, column // 8), split) == split
    a, b = E.photo_patches(30, 1)[0], E.photo_patches(30, 2)[0]
    assert not torch.equal(a, b) and torch.equal(a, E.photo_patches(30, 1)[0])


BAD = [
    (lambda: E.photo_patches(9, split="dev"), "split must be one of"),
    (lambda: E.photo_patches(0), "n must be at least 1, got 0"),
    (lambda: E.photo_patches(9, size=40), "size must be in 1 … 32"),
]


@pytest.mark.bad_input
@pytest.mark.parametrize("call,message", BAD, ids=range(len(BAD)))
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError) as raised:
        call()
    assert message in str(raised.value)
