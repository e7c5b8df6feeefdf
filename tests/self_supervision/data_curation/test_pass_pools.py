"""Pools in which content and source vary apart."""

import torch

from labcode.self_supervision import data_curation as D


def test_pools_differ_in_what_their_names_say():
    made = D.pools(3, n=30)
    assert {images.shape for images in made.values()} == {(30, 3, 12, 12)}
    assert {images.dtype for images in made.values()} == {torch.uint8}
    people = D.faces(30, 3, difficulty=D.FaceDifficulty.clutter(12)).images
    for source in ("objects", "photos"):
        mixed = made[f"{source} and people"]
        assert torch.equal(mixed[:20], made[source][:20]) and torch.equal(mixed[20:], people[:10])
    again, other = D.pools(3, n=30), D.pools(4, n=30)
    assert all(torch.equal(again[name], images) for name, images in made.items())
    assert not any(torch.equal(other[name], images) for name, images in made.items())
    assert not torch.equal(D.pools(3, n=30, split="test")["objects"], made["objects"])
