"""PASS (Asano et al., 2021): pre-training without people. Pools in which content and source vary apart."""

from dataclasses import replace

import torch
from torch import Tensor

from ...data import EIGHT, scenes
from .faces import FaceDifficulty, faces


def pools(seed: int, n: int = 1500, size: int = 12, split: str = "train") -> dict[str, Tensor]:
    """Pre-training images by source and content, n of each: uint8 (n, 3, size, size).

    "objects" are scenes, "photos" crops of photographs in any colour, each also with a third of its images replaced by
    faces in the wild ("objects and people", "photos and people"); "noise" is noise.

    seed   same seed, same pools
    split  that the scenes' digits are from

    Departure: PASS is 1.4 million pictures in which detectors and people found no person, ImageNet the pool with them;
    there content and source change at once.
    """
    objects = scenes(n, seed=20 + seed, split=split, difficulty=replace(EIGHT, size=size)).images
    people = faces(n, seed, difficulty=FaceDifficulty.clutter(size)).images
    empty = FaceDifficulty(size, zoom=(1e-3, 2e-3), texture=1.0, blobs=0)  # faces too small to be seen
    photos = faces(n, seed + 1, difficulty=empty).images
    noise = torch.randint(0, 256, objects.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)

    def mixed(source: Tensor) -> Tensor:
        return torch.cat([source[: 2 * n // 3], people[: n - 2 * n // 3]])

    return {
        "objects": objects,
        "objects and people": mixed(objects),
        "photos": photos,
        "photos and people": mixed(photos),
        "noise": noise,
    }
