"""A fluorescence microscope: cells whose genes were knocked out, and how much known biology embeddings find.

``cells`` draws; ``typical_variation`` takes batches off, ``relation_recall`` counts (Kraus et al., 2024).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...loss import check_finite, check_matrix, raised, unit_rows


@dataclass
class Cells:
    """Images of perturbed cells and what made them."""

    images: Tensor  # (n, 4, size, size) float32: nucleus, cytoplasm, granules, membrane
    perturbation: Tensor  # (n,) int64, which gene was knocked out
    batch: Tensor  # (n,) int64, which plate the image comes from
    pathway: Tensor  # (perturbations,) int64: perturbations of one pathway move the same factors, in either direction


FACTORS = ("nucleus size", "elongation", "cell size", "granules", "granule size", "membrane", "eccentricity")


def cells(
    per: int, perturbations: int = 80, pathways: int = 16, batches: int = 4, size: int = 16, effect: float = 3.0,
    own: float = 0.1, turn: float = 0.5, noise: float = 0.08, seed: int = 0, draw: int = 0,
) -> Cells:  # fmt: skip
    """``per`` images of every perturbation, spread over the batches.

    A pathway is a direction in the space of seven factors of shape. A perturbation moves its cells along the direction
    of its pathway, forwards or backwards, and a little on its own; single cells scatter around that. A batch changes
    gain, offset and illumination gradient of every channel, and every cell takes up its dyes as it likes.

    effect  distance that a pathway moves its cells, in standard deviations of single cells
    own     what a perturbation does beside its pathway, a standard deviation for each factor, as a share of ``effect``
    turn    cells lie at angles up to ±turn, in radians
    noise   of the camera; a cell's brightness in a channel is about 1
    seed    of the biology: pathways and perturbations
    draw    of the images and batches: equal biology, other cells and other plates

    Raises ValueError for fewer than two pathways or fewer perturbations than pathways.
    """
    if not 2 <= pathways <= perturbations:
        raise ValueError(f"pathways must be between 2 and the {perturbations} perturbations, got {pathways}")
    g = torch.Generator().manual_seed(7919 * seed + 1)
    f = len(FACTORS)
    pathway = torch.arange(perturbations) % pathways
    direction = unit_rows(torch.randn(pathways, f, generator=g))[pathway]
    sign = 1 - 2.0 * torch.randint(2, (perturbations, 1), generator=g)
    strength = 0.7 + 0.6 * torch.rand(perturbations, 1, generator=g)
    mean = effect * (sign * strength * direction + own * torch.randn(perturbations, f, generator=g))

    g = torch.Generator().manual_seed(7919 * seed + 104_729 * (draw + 1))
    n = per * perturbations
    which = torch.arange(perturbations).repeat(per)
    batch = torch.arange(per).repeat_interleave(perturbations) % batches
    z = mean[which] + torch.randn(n, f, generator=g)
    shapes = _draw_cells(z, size, turn, g)
    gain, offset = (
        (0.3 * torch.randn(batches, 4, 1, 1, generator=g)).exp(),
        0.3 * torch.rand(batches, 4, 1, 1, generator=g),
    )
    tilt = 0.25 * torch.randn(batches, 4, 2, generator=g)
    axis = torch.linspace(-1, 1, size)
    slope = 1 + tilt[..., 0, None, None] * axis[:, None] + tilt[..., 1, None, None] * axis
    stain = (0.4 * torch.randn(n, 4, 1, 1, generator=g)).exp()  # every cell takes up its dyes as it likes
    pixels = (gain * slope)[batch] * stain * shapes + offset[batch]
    pixels = pixels + noise * torch.randn(pixels.shape, generator=g)
    return Cells(pixels, which, batch, pathway)


def _draw_cells(
    z: Float[Tensor, "n f"], size: int, turn: float, g: torch.Generator
) -> Float[Tensor, "n 4 {size} {size}"]:
    """Cells with the factors z, standard deviations around the normal cell, in random orientation."""
    n, spots = len(z), 8
    nucleus, long, cell, count, grain, rim, off = (v[:, None, None] for v in (z / 2).tanh().T)  # in (-1, 1)
    axis = torch.linspace(-1, 1, size)
    place = 0.15 * torch.randn(n, 2, generator=g)
    turn = turn * (2 * torch.rand(n, generator=g) - 1)[:, None, None]
    dy, dx = axis[:, None] - place[:, 0, None, None], axis - place[:, 1, None, None]
    u, v = turn.cos() * dx + turn.sin() * dy, turn.cos() * dy - turn.sin() * dx  # along and across the cell
    stretch = (0.35 * long).exp()
    soft = 3.0 / size

    def ellipse(u, v, radius):
        return torch.sigmoid((radius - ((u / stretch) ** 2 + (v * stretch) ** 2 + 1e-6).sqrt()) / soft)

    outer = 0.65 + 0.15 * cell
    body = ellipse(u, v, outer)
    core = ellipse(u - 0.15 * (1 + off), v, 0.28 + 0.10 * nucleus)
    ring = (body * (1 - body) * 4) * (1 + 0.6 * rim)
    angle, reach = 6.2832 * torch.rand(n, spots, generator=g), torch.rand(n, spots, generator=g).sqrt()
    present = (torch.arange(spots) < 4 + 3.5 * count[:, :, 0]).float()[..., None, None]
    su, sv = reach * angle.cos() * outer[:, 0], reach * angle.sin() * outer[:, 0]
    far = (u[:, None] - su[..., None, None]) ** 2 + (v[:, None] - sv[..., None, None]) ** 2
    dots = (present * (-far / (2 * (0.10 + 0.04 * grain[:, None]) ** 2)).exp()).sum(1).clamp_max(1.5)
    return torch.stack([core, body * (1 - 0.6 * core), dots, ring], 1)


def centre_by_batch(z: Float[Tensor, "n d"], batch: Int[Tensor, " n"]) -> Float[Tensor, "n d"]:
    """Embeddings less the mean of their batch: what a plate adds to all its wells is gone.

    batch  of each image, any integers

    Half precision is computed and returned in float32. Raises ValueError for embeddings that are not finite, and
    batches that are not one an image.
    """
    z = raised(z)
    mean, batch = _means("batch", z, batch)
    return z - mean[batch]


def _means(name: str, z: Float[Tensor, "n d"], group: Int[Tensor, " n"]) -> tuple[Float[Tensor, "g d"], Tensor]:
    """The mean of each group, in ascending order of their numbers, and which of them each row belongs to."""
    check_matrix("z", z)
    check_finite(z=z)
    if group.shape != z.shape[:1] or group.is_floating_point():
        raise ValueError(f"{name} must be {len(z)} integers, got {group.dtype} {tuple(group.shape)}")
    names, group = group.unique(return_inverse=True)
    count = torch.bincount(group, minlength=len(names))[:, None]
    return z.new_zeros(len(names), z.shape[1]).index_add_(0, group, z) / count, group


def typical_variation(
    z: Float[Tensor, "n d"], perturbation: Int[Tensor, " n"], batch: Int[Tensor, " n"], shrink: float = 0.03
) -> Float[Tensor, "g d"]:
    """One embedding for each perturbation, in units of how much images of *one* perturbation differ.

    Typical variation normalisation (Ando et al., 2017), the batch correction of Kraus et al. (2024): centre by batch,
    take means over images, whiten by the scatter within. A direction in which cells differ anyway counts for little.

    perturbation, batch  any integers; rows of the result are in ascending order of the perturbations that occur
    shrink               of the scatter towards a multiple of the identity, as a share of its mean eigenvalue

    Raises ValueError as ``centre_by_batch``. Departure: the scatter is that within all perturbations, where the paper
    has wells of untreated cells.
    """
    z = centre_by_batch(z.double(), batch)
    mean, perturbation = _means("perturbation", z, perturbation)
    inside = z - mean[perturbation]
    values, vectors = torch.linalg.eigh(inside.T @ inside / len(z))
    return (mean @ vectors) / (values.clamp_min(0) + shrink * values.mean() + 1e-12).sqrt()


def relation_recall(z: Float[Tensor, "g d"], group: Int[Tensor, " g"], tail: float = 0.05) -> float:
    """Share of the known related pairs that lie in the two tails of all pairs' cosine similarity.

    Kraus et al. (2024). A pair is related if both belong to one group; it is found if its similarity is among the
    highest or the lowest ``tail`` of all pairs: two genes of a pathway may act in opposite directions. Embeddings that
    know nothing find 2 · tail.

    z      one embedding for each gene, its mean over images, corrected for batches
    group  its pathway, any integers
    tail   in (0, 0.5)

    Raises ValueError for embeddings that are not finite, a tail out of range and groups without a related pair.
    """
    check_matrix("z", z, rows=3)
    check_finite(z=z)
    if group.shape != z.shape[:1]:
        raise ValueError(f"group must be one for each of the {len(z)} rows, got {tuple(group.shape)}")
    if not 0 < tail < 0.5:
        raise ValueError(f"tail must be in (0, 0.5), got {tail}")
    z = unit_rows(z.double())
    row, column = torch.triu_indices(len(z), len(z), 1, device=z.device)
    similarity, related = (z[row] * z[column]).sum(1), group[row] == group[column]
    if not bool(related.any()):
        raise ValueError("group has no two rows in common: there is nothing to recall")
    rank = similarity.argsort().argsort()
    size = round(tail * len(rank))
    found = (rank < size) | (rank >= len(rank) - size)
    return float((found & related).sum() / related.sum())
