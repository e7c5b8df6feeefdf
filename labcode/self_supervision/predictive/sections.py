"""An electron microscope: sections through packed cells, and how well frozen tokens tell their membranes.

What ``token_unify.py`` is judged by: ``membranes`` draws, ``membrane_dice`` reads with a ridge regression.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ...loss import check_finite
from ...nets.vit import patchify, unpatchify

Images = Float[Tensor, "n c h w"]


@dataclass
class Membranes:
    """Sections through packed cells, as an electron microscope shows them, and where the membranes are."""

    images: Tensor  # (n, 1, size, size) float32, mean 0 and variance 1
    mask: Tensor  # (n, size, size) bool
    cells: Tensor  # (n, size, size) int64, which cell a pixel belongs to

    def to(self, device: torch.device) -> "Membranes":
        return Membranes(self.images.to(device), self.mask.to(device), self.cells.to(device))


def membranes(
    n: int, seed: int = 0, size: int = 24, spacing: float = 8.0, stretch: float = 4.0, tilt: float = 0.3,
    thickness: float = 1.8, noise: float = 0.7, contrast: float = 0.5,
) -> Membranes:  # fmt: skip
    """Sections along a bundle of long cells: dark membranes between cells that have greys of their own.

    The cells are those of a Voronoi diagram about jittered centres, drawn out along an axis.

    spacing    between centres across the axis, in pixels
    stretch    how many times longer than wide cells are
    tilt       the axis lies within ±tilt of the vertical, in radians
    thickness  of a membrane, in pixels
    noise      standard deviation of the pixel noise, membranes being 1 darker than the cells
    contrast   standard deviation of the cells' own greys
    """
    g = torch.Generator().manual_seed(15_485_863 * (seed + 1))
    side = int(1.5 * size / spacing) + 3
    lattice = (torch.arange(side) - (side - 1) / 2) * spacing
    centres = torch.cartesian_prod(lattice, lattice) + spacing * (torch.rand(n, 1, 2, generator=g) - 0.5)
    centres = centres + 0.75 * spacing * (torch.rand(n, side * side, 2, generator=g) - 0.5)
    angle = tilt * (2 * torch.rand(n, 1, generator=g) - 1)
    down, right = (torch.cartesian_prod(torch.arange(size), torch.arange(size)) + 0.5 - size / 2).T
    along, across = down * angle.cos() + right * angle.sin(), right * angle.cos() - down * angle.sin()
    places = torch.stack([along / stretch, across], 2)
    parts = zip(places.split(128), centres.split(128), strict=True)  # all distances at once would not fit
    nearest = [torch.cdist(p, c).topk(2, dim=2, largest=False) for p, c in parts]
    near, which = (torch.cat(part) for part in zip(*nearest, strict=True))
    between = centres.gather(1, which.flatten(1)[..., None].expand(-1, -1, 2)).view(n, -1, 2, 2)
    gap = (between[:, :, 0] - between[:, :, 1]).norm(dim=2)
    # distance to the wall between the two nearest centres: (d₂² - d₁²) / 2 |c₂ - c₁|
    wall = (near[..., 1] ** 2 - near[..., 0] ** 2) / (2 * gap.clamp_min(1e-3))
    mask = wall < thickness / 2 + 0.2
    grey = contrast * torch.randn(n, side * side, generator=g).gather(1, which[..., 0])
    values = grey - mask.float() + noise * torch.randn(mask.shape, generator=g)
    images = values.view(n, 1, size, size)
    images = (images - images.mean((1, 2, 3), keepdim=True)) / images.std((1, 2, 3), keepdim=True)
    return Membranes(images, mask.view(n, size, size), which[..., 0].view(n, size, size))


@torch.no_grad()
def pixel_scores(
    tokens: Float[Tensor, "n k d"], mask: Bool[Tensor, "n h w"], new: Float[Tensor, "m k d"], patch: Sequence[int],
    l2: float = 0.01,
) -> Float[Tensor, "m h w"]:  # fmt: skip
    """How much each pixel of new sections looks like the mask: ridge regression of pixels on frozen tokens.

    Every patch is read from its own token, by one map for all places, in closed form.

    tokens, mask  of the labelled sections
    patch         sides of a patch, in pixels
    l2            weight of ‖W‖² against the mean squared error, for standardised tokens; the intercept is free

    Raises ValueError for tokens that are not those of the mask, or not finite.
    """
    check_finite(tokens=tokens, new=new)
    grid = tuple(side // p for side, p in zip(mask.shape[1:], patch, strict=True))
    if tokens.shape[:2] != (len(mask), grid[0] * grid[1]):
        raise ValueError(f"tokens must be {(len(mask), grid[0] * grid[1])} of some width, got {tuple(tokens.shape)}")
    z, wanted = tokens.flatten(0, 1).double(), patchify(mask[:, None].double(), patch).flatten(0, 1)
    mean, std, level = z.mean(0), z.std(0) + 1e-6, wanted.mean(0)
    z = (z - mean) / std
    weight = torch.linalg.solve(z.T @ z + l2 * len(z) * torch.eye(z.shape[1]).to(z), z.T @ (wanted - level))
    return unpatchify((new.double() - mean) / std @ weight + level, patch, grid)[:, 0].float()


def membrane_dice(
    tokens: Callable[[Images], Float[Tensor, "n k d"]], few: "Membranes", new: "Membranes", patch: Sequence[int]
) -> float:
    """Dice of the membranes that a linear map finds in the frozen tokens of new sections, learnt from a few.

    tokens  of images (n, 1, h, w)

    As many pixels are called membrane as the labelled sections hold.
    """
    score = pixel_scores(tokens(few.images), few.mask, tokens(new.images), patch)
    return dice(score - score.flatten().quantile(1 - few.mask.float().mean()), new.mask)


def dice(logits: Float[Tensor, "n h w"], mask: Bool[Tensor, "n h w"]) -> float:
    """2 |A ∩ B| / (|A| + |B|) of the pixels with a positive logit and those of the mask, over the whole set; in [0, 1].

    Two empty sets agree: 1.
    """
    if logits.shape != mask.shape or mask.dtype != torch.bool:
        raise ValueError(f"mask must be boolean {tuple(logits.shape)}, got {mask.dtype} {tuple(mask.shape)}")
    found = logits > 0
    total = int(found.sum() + mask.sum())
    return 2 * int((found & mask).sum()) / total if total else 1.0
