"""PASS (Asano et al., 2021): pre-training without people. Pools in which content and source vary apart."""

import torch
import torch.nn.functional as F
from jaxtyping import Int, Shaped
from torch import Tensor

from ...data import mixed_seed, textures
from ...data.synthetic import TEXTURES, _crop
from .faces import FaceDifficulty, faces


def photographs(
    n: int, seed: int = 0, size: int = 16, half: str = "left"
) -> tuple[Shaped[Tensor, "n 3 s s"], Int[Tensor, " n"]]:
    """Crops of scikit-image's photographs in any colour, uint8, and which of the nine each is from.

    size  of the crops in pixels; they show 10 to 40 % of a photograph's width
    half  "left" or "right": of the photographs, so that what is learnt on one is tested on the other

    Raises ValueError for another half.
    """
    if half not in ("left", "right"):
        raise ValueError(f"half must be 'left' or 'right', got {half!r}")
    g = torch.Generator().manual_seed(mixed_seed(seed, half == "right"))
    which, side = torch.randint(len(TEXTURES), (n,), generator=g), 0.1 + 0.3 * torch.rand(n, generator=g)
    centre = side / 2 + (0.5 - side) * torch.rand(n, generator=g) + 0.5 * (half == "right")
    corner = torch.stack([(centre - side / 2) / (1 - side), torch.rand(n, generator=g)], 1)
    photo = _crop(textures(), which, corner, side, size)
    ground, ink = torch.rand(n, 3, generator=g), 0.25 * F.normalize(torch.randn(n, 3, generator=g), dim=1)
    picture = ground[:, :, None, None] + ink[:, :, None, None] * photo[:, None]
    return (picture.clamp(0, 1) * 255).round().to(torch.uint8), which


def pools(objects: Shaped[Tensor, "n 3 s s"], seed: int) -> dict[str, Shaped[Tensor, "n 3 s s"]]:
    """Pre-training images by source and content, as many of each as there are objects, uint8.

    "objects" as given, "photographs" in any colour, each also with a third of its images replaced by faces in the wild
    ("objects and people", "photographs and people"); "people" are such faces alone, "noise" is noise.

    seed  same seed, same pools

    Departure: PASS is 1.4 million pictures in which detectors and people found no person, ImageNet the pool with them;
    there content and source change at once.
    """
    n, size = len(objects), objects.shape[-1]
    people = faces(n, seed, difficulty=FaceDifficulty.clutter(size)).images.to(objects.device)
    photos = photographs(n, seed, size)[0].to(objects.device)
    noise = torch.randint(0, 256, objects.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return {
        "objects": objects,
        "objects and people": with_people(objects, people),
        "photographs": photos,
        "photographs and people": with_people(photos, people),
        "people": people,
        "noise": noise.to(objects.device),
    }


def with_people(source: Shaped[Tensor, "n ..."], people: Shaped[Tensor, "m ..."], share: float = 1 / 3) -> Tensor:
    """As many images as the source has, the last ``share`` of them faces."""
    if not 0 <= share <= 1 or round(share * len(source)) > len(people):
        raise ValueError(f"share must be in [0, 1], and of {len(people)} people or fewer, got {share}")
    return torch.cat([source[: len(source) - round(share * len(source))], people[: round(share * len(source))]])
