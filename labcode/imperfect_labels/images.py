"""Small real images for trainings of a second: handwritten digits as rows, and pictures that are no digits."""

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ..data.batches import mixed_seed
from ..data.synthetic import SPLITS, _crop, _installed, check_split, textures
from ..data.synthetic import digits as all_digits

CLASSES = 10


def _check_size(size: int, largest: int = 28) -> None:
    if not 1 <= size <= largest:
        raise ValueError(f"size must be in 1 … {largest} pixels a side, got {size}")


def _area(images: Float[Tensor, "n h h"], size: int) -> Float[Tensor, "n p"]:
    """Images at size × size pixels, each the mean of what it covers, parts of pixels by their share; as rows."""
    side = images.shape[1]
    edges = torch.arange(size + 1) * (side / size)
    pixel = torch.arange(side)
    covered = torch.minimum(edges[1:, None], pixel + 1) - torch.maximum(edges[:-1, None], pixel)
    share = covered.clamp_min(0) * (size / side)
    return (share @ images @ share.T).clamp(0, 1).flatten(1)


def digits(split: str = "train", size: int = 14) -> tuple[Float[Tensor, "n p"], Int[Tensor, " n"]]:
    """The MNIST digits of a split as rows of size² pixels in [0, 1], and their labels 0 … 9.

    split  "train" (4,000) or "test" (1,000); "fit" and "validation" part the training digits where settings are chosen
    size   pixels a side, 1 … 28: the mean of each pixel's area of the 28×28 image

    Classes are alike in number, row i being of class i mod 10. Raises ValueError for an unknown split or size.
    """
    check_split(split)
    _check_size(size)
    images, labels = all_digits("mnist")
    part = slice(*SPLITS["mnist"][split])
    return _area(images[part], size), labels[part].clone()


@lru_cache(1)
def _faces() -> Tensor:
    """One hundred faces of 25×25 pixels (Labeled Faces in the Wild, as they come with scikit-image), in [0, 1]."""
    return torch.from_numpy(np.load(_installed("skimage", "data", "lfw_subset.npy"))[:100]).float()


def foreign(n: int, size: int = 14, *, seed: int, kind: str = "textures") -> Float[Tensor, "n p"]:
    """n images that show no digit, as rows of size² pixels in [0, 1].

    size  pixels a side, 1 … 25
    seed  same seed, same images
    kind  "textures": squares of nine photographs, a tenth to four tenths of a side wide, each stretched to [0, 1];
          "faces": one hundred faces, drawn with replacement, moved by up to a pixel and mirrored at random;
          "mixed": as many of each, in turn

    Raises ValueError for n below 1, an unknown kind or size.
    """
    _check_size(size, 25)
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    if kind not in ("textures", "faces", "mixed"):
        raise ValueError(f"kind must be 'textures', 'faces' or 'mixed', got {kind!r}")
    g = torch.Generator().manual_seed(mixed_seed(seed, 14))
    parts = []
    if kind != "faces":
        photo = torch.randint(9, (n,), generator=g)
        corner, side = torch.rand(n, 2, generator=g), 0.1 + 0.3 * torch.rand(n, generator=g)
        patches = F.avg_pool2d(_crop(textures(), photo, corner, side, 2 * size)[:, None], 2).flatten(1)
        low, high = patches.aminmax(dim=1, keepdim=True)
        parts.append((patches - low) / (high - low).clamp_min(1e-6))
    if kind != "textures":
        which, shift = torch.randint(100, (n,), generator=g), torch.randint(3, (n, 2), generator=g)
        faces = F.pad(_faces()[:, None], (1, 1, 1, 1), mode="replicate")[which, 0]
        index = torch.arange(n)[:, None, None]
        rows, columns = (shift[:, i, None] + torch.arange(25) for i in (0, 1))
        faces = faces[index, rows[:, :, None], columns[:, None]]
        mirrored = torch.where((torch.rand(n, generator=g) < 0.5)[:, None, None], faces.flip(2), faces)
        parts.append(_area(mirrored, size))
    if len(parts) == 1:
        return parts[0]
    return torch.stack(parts, 1).flatten(0, 1)[:n]
