"""Pools in which content and source vary apart."""

import pytest
import torch

from labcode.data import scenes
from labcode.self_supervision import data_curation as D


def test_pools_differ_in_what_their_names_say():
    objects = scenes(30, 5).images
    made, people = D.pools(objects, 3), D.faces(30, 3, difficulty=D.FaceDifficulty.clutter()).images
    assert {(images.shape, images.dtype) for images in made.values()} == {((30, 3, 16, 16), torch.uint8)}
    assert torch.equal(made["objects"], objects) and torch.equal(made["people"], people)
    for source in ("objects", "photographs"):
        mixed = made[f"{source} and people"]
        assert torch.equal(mixed[:20], made[source][:20]) and torch.equal(mixed[20:], people[:10])
    again, other = D.pools(objects, 3), D.pools(objects, 4)
    assert all(torch.equal(again[name], images) for name, images in made.items())
    assert not any(torch.equal(other[name], made[name]) for name in ("photographs", "people", "noise"))


def test_crops_are_of_the_photograph_and_half_that_they_say():
    """Paint every photograph in its own two greys: a crop then shows which one it is from, and of which half."""
    from labcode.self_supervision.data_curation import pass_pools

    plain, real = torch.zeros(9, 192, 192), pass_pools.textures
    plain[:, :, 96:] = 1
    for half, value in (("left", 0.0), ("right", 1.0)):
        pass_pools.textures = lambda: plain
        try:
            flat = D.photographs(50, 2, half=half)[0].float().flatten(2)
            pass_pools.textures = lambda value=value: torch.full((9, 192, 192), value)
            want = D.photographs(50, 2, half=half)[0].float().flatten(2)
        finally:
            pass_pools.textures = real
        assert (flat - want).abs().mean() < 1.5  # the edge alone is blurred into the crops that touch it
    which = D.photographs(600, 0)[1]
    assert which.unique().tolist() == list(range(9)) and not torch.equal(which, D.photographs(600, 1)[1])


@pytest.mark.bad_input
def test_shares_and_halves_that_cannot_be_are_named():
    with pytest.raises(ValueError, match="half"):
        D.photographs(3, half="top")
    for share in (-0.1, 0.8):
        with pytest.raises(ValueError, match="share"):
            D.with_people(torch.zeros(10, 1), torch.zeros(5, 1), share)
