"""A small game world for visual bugs: rendered corridors with objects, and cameras that stand inside of something.

A frame is seen along a corridor: back wall, floor, ceiling and side walls, shaded by depth, with striped or chequered
surfaces, and one to three objects that stand on the floor. In a frame with a *clipping bug* the camera has entered an
object: a surface too near to be in focus hides a large part of the view. Ordinary frames may hold a large object too,
close and in focus: a detector must not take size alone for a bug.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

Frames = Float[Tensor, "n 3 h w"]


@dataclass(frozen=True)
class Game:
    """Frames (n, 3, size, size) in [0, 1], whether each shows a bug (n,), and what share of the view is hidden (n,)."""

    frames: Frames
    bug: Bool[Tensor, " n"]
    hidden: Float[Tensor, " n"]


def play(n: int, prevalence: float, *, generator: torch.Generator, size: int = 24, near: float = 0.35) -> Game:
    """Render n frames.

    prevalence  share of frames with a bug, rounded to a whole number of frames, which are spread at random
    size        pixels a side
    near        share of ordinary frames with a large object in focus

    Raises ValueError for n < 1 and shares outside [0, 1].
    """
    if n < 1 or not (0 <= prevalence <= 1 and 0 <= near <= 1):
        raise ValueError(f"n must be at least 1 and shares lie in [0, 1], got {n}, {prevalence}, {near}")
    rand = lambda *shape: torch.rand(*shape, generator=generator)  # noqa: E731
    at = (torch.arange(size) + 0.5) / size
    y, x = torch.meshgrid(at, at, indexing="ij")
    palette = 0.2 + 0.6 * rand(n, 7, 3)  # floor, walls, ceiling, back, three objects
    frames = _corridor(palette, x, y, rand, n)
    close = rand(n) < near
    for i in range(3):
        frames = _object(frames, palette[:, 4 + i], x, y, rand, n, close & (i == 2), i > 0)
    bug = torch.zeros(n, dtype=torch.bool)
    bug[torch.randperm(n, generator=generator)[: round(prevalence * n)]] = True
    inside, alpha = _inside(palette[:, 4], x, y, rand, n)
    shown = (alpha * bug[:, None, None])[:, None]
    frames = frames * (1 - shown) + inside * shown
    noise = torch.randn(frames.shape, generator=generator) * 0.02
    return Game((frames + noise).clamp(0, 1), bug, shown[:, 0].mean((1, 2)))


def _corridor(palette, x, y, rand, n):
    cx, cy = 0.35 + 0.3 * rand(n, 1, 1), 0.35 + 0.3 * rand(n, 1, 1)
    w, h = 0.1 + 0.12 * rand(n, 1, 1), 0.1 + 0.1 * rand(n, 1, 1)
    across, down = (x - cx).abs() / w, (y - cy).abs() / h
    depth = 1 / torch.maximum(across, down).clamp(min=1)  # 1 at the back wall, small near the camera
    part = torch.where(down >= across, torch.where(y > cy, 0, 2), 1)
    part = torch.where(torch.maximum(across, down) < 1, 3, part)
    colour = palette[torch.arange(n)[:, None, None], part].permute(0, 3, 1, 2)
    wave = torch.sin((4 + 6 * rand(n, 1, 1)) / depth.clamp(min=0.05).sqrt() + 6 * rand(n, 1, 1))
    stripes = 1 + 0.18 * torch.sign(wave)
    light = (1.1 - 0.6 * depth) * torch.where(part == 3, 1.0, stripes)
    return colour * light[:, None]


def _object(frames, colour, x, y, rand, n, close, optional):
    width, height = 0.14 + 0.16 * rand(n, 1, 1), 0.16 + 0.24 * rand(n, 1, 1)
    width = torch.where(close[:, None, None], 0.5 + 0.25 * rand(n, 1, 1), width)
    height = torch.where(close[:, None, None], 0.55 + 0.3 * rand(n, 1, 1), height)
    left, foot = rand(n, 1, 1) * (1.2 - width) - 0.1, 0.65 + 0.4 * rand(n, 1, 1)
    inside = (x > left) & (x < left + width) & (y < foot) & (y > foot - height)
    inside &= (rand(n, 1, 1) < 0.6) | close[:, None, None] if optional else torch.ones_like(inside)
    turn = rand(n, 1, 1) * 3.1416
    wave = torch.sin(30 * (x * turn.cos() + y * turn.sin()))  # fine stripes: the object is in focus
    pattern = 1 + 0.3 * torch.sign(wave)
    return torch.where(inside[:, None], colour[:, :, None, None] * pattern[:, None], frames)


def _inside(colour, x, y, rand, n):
    """A surface at the camera: blurred waves, darker to one side, over 40 to 70 % of the view from some direction."""
    turn = rand(n, 1, 1) * 6.2832
    along = (x - 0.5) * turn.cos() + (y - 0.5) * turn.sin()
    reach = along.flatten(1).sort(1).values
    share = 0.4 + 0.3 * rand(n, 1)
    edge = reach.gather(1, ((1 - share) * (reach.shape[1] - 1)).long())[:, :, None]
    alpha = torch.sigmoid((along - edge) * 24)
    wave = torch.sin(4 * (x * (turn + 1).cos() + y * (turn + 1).sin()) + 6 * rand(n, 1, 1))
    light = 1 + 0.2 * wave - 0.5 * (along - edge).clamp(min=0)
    return colour[:, :, None, None] * light[:, None], alpha


def segment(frames: Frames, k: int = 5, iterations: int = 8, place: float = 0.5) -> Bool[Tensor, "n k h w"]:
    """Masks of k regions a frame: k-means on colour and position, all frames at once.

    It takes the place of a pretrained segmenter: regions of one colour that lie together. Deterministic: centres begin
    at pixels spread over the frame.

    place  weight of the position in [0, 1] coordinates beside the colour
    """
    n, _, h, w = frames.shape
    at = torch.stack(torch.meshgrid(torch.arange(h) / h, torch.arange(w) / w, indexing="ij")).expand(n, -1, -1, -1)
    rows = torch.cat([F.avg_pool2d(frames, 3, 1, 1, count_include_pad=False), place * at], 1).flatten(2).mT
    begin = torch.linspace(0, h * w - 1, k + 2)[1:-1].long() + w // 3
    centres = rows[:, begin.clamp(max=h * w - 1)]
    for _ in range(iterations):
        member = F.one_hot(torch.cdist(rows, centres).argmin(2), k).to(rows.dtype)
        count = member.sum(1)[..., None]
        centres = torch.where(count > 0, member.mT @ rows / count.clamp(min=1), centres)
    return member.mT.view(n, k, h, w).bool()


def describe(frames: Frames, masks: Bool[Tensor, "n k h w"]) -> Float[Tensor, "n k 6"]:
    """Geometry and texture of each mask: area, share of its bounding box, border contact, height of its centre,
    contrast inside, and how far its colour is from the frame's mean."""
    h, w = masks.shape[2:]
    m = masks.float()
    area = m.mean((2, 3))
    rows, columns = m.amax(3).sum(2) / h, m.amax(2).sum(2) / w
    edge = torch.zeros(h, w)
    edge[[0, -1]], edge[:, [0, -1]] = 1, 1
    contact = (m * edge).sum((2, 3)) / edge.sum()
    centre = (m * (torch.arange(h)[:, None] / h)).sum((2, 3)) / m.sum((2, 3)).clamp(min=1)
    total = m.sum((2, 3)).clamp(min=1)[:, :, None]
    mean = torch.einsum("nchw,nkhw->nkc", frames, m) / total
    square = torch.einsum("nchw,nkhw->nkc", frames.square(), m) / total
    contrast = (square - mean.square()).clamp(min=0).mean(2).sqrt()
    apart = (mean - frames.mean((2, 3))[:, None]).norm(dim=2)
    return torch.stack([area, area / (rows * columns).clamp(min=1e-6), contact, centre, contrast, apart], 2)


def geometric_filter(described: Float[Tensor, "n k 6"]) -> Bool[Tensor, "n k"]:
    """Masks that may be an object or a surface: 4 to 45 % of the view, half of their box, low border contact."""
    area, fill, contact = described[..., 0], described[..., 1], described[..., 2]
    return (area > 0.04) & (area < 0.45) & (fill > 0.5) & (contact < 0.35)


def cluster_filter(
    described: Float[Tensor, "n k 6"], kept: int = 3, groups: int = 8, seed: int = 0
) -> Bool[Tensor, "n k"]:
    """The autonomous route: k-means on what describes the masks; the ``kept`` groups that fill their boxes best."""
    from ...cluster import kmeans

    flat = described.flatten(0, 1)
    which = kmeans((flat - flat.mean(0)) / flat.std(0).clamp(min=1e-6), groups, seed)[1]
    fill = torch.stack([flat[which == g, 1].mean() for g in range(groups)])
    best = fill.nan_to_num(0).topk(kept).indices
    return torch.isin(which, best).view(described.shape[:2])


def paste(
    frames: Frames, sources: Frames, masks: Bool[Tensor, "n h w"], *, generator: torch.Generator, seam: bool = False
) -> Frames:
    """Put an enlarged piece of another frame over the view: what a clipping camera might show. No bug is needed for it.

    frames   what is covered
    sources  frames from which the pieces come, one a frame, with the mask of the piece
    seam     True leaves a hard edge; else the edge is blended, so that it is no shortcut

    The mask's box is stretched to the whole view, which blurs it; what lies outside of the mask takes the mask's mean
    colour. It covers 40 to 70 % of the view from a random direction.
    """
    n, _, h, w = frames.shape
    m = masks.float()
    up, left = m.amax(2), m.amax(1)  # rows and columns that the mask touches
    grid = []
    for touched, length in ((left, w), (up, h)):
        first = touched.argmax(1).float()
        last = length - 1 - touched.flip(1).argmax(1).float()
        steps = torch.linspace(0.25, 0.75, length)  # the middle half: magnified further
        grid.append(((first[:, None] + (last - first)[:, None] * steps) + 0.5) / length * 2 - 1)
    where = torch.stack([grid[0][:, None, :].expand(n, h, w), grid[1][:, :, None].expand(n, h, w)], -1)
    mean = torch.einsum("nchw,nhw->nc", sources, m) / m.sum((1, 2)).clamp(min=1)[:, None]
    filled = torch.where(masks[:, None], sources, mean[:, :, None, None])
    piece = F.grid_sample(F.avg_pool2d(filled, 3, 1, 1, count_include_pad=False), where, align_corners=False,
                          padding_mode="border")  # fmt: skip
    piece = F.avg_pool2d(piece, 5, 1, 2, count_include_pad=False)
    alpha = slab(n, h, w, generator, 1e3 if seam else 24.0)[:, None]
    light = 0.75 + 0.5 * torch.rand(n, 1, 1, 1, generator=generator)
    return (frames * (1 - alpha) + piece * light * alpha).clamp(0, 1)


def slab(n: int, h: int, w: int, generator: torch.Generator, sharp: float) -> Float[Tensor, "n h w"]:
    """Coverage of 40 to 70 % of the view from a random direction, with an edge of width 1 / sharp of a side."""
    y, x = torch.meshgrid((torch.arange(h) + 0.5) / h, (torch.arange(w) + 0.5) / w, indexing="ij")
    turn = torch.rand(n, 1, 1, generator=generator) * 6.2832
    along = (x - 0.5) * turn.cos() + (y - 0.5) * turn.sin()
    reach = along.flatten(1).sort(1).values
    share = 0.4 + 0.3 * torch.rand(n, 1, generator=generator)
    edge = reach.gather(1, ((1 - share) * (reach.shape[1] - 1)).long())[:, :, None]
    return torch.sigmoid((along - edge) * sharp)


def box_masks(n: int, h: int, w: int, generator: torch.Generator) -> Bool[Tensor, "n h w"]:
    """Random rectangles of 15 to 60 % of each side: masks that know nothing of the picture."""
    y, x = torch.meshgrid(torch.arange(h) / h, torch.arange(w) / w, indexing="ij")
    size = 0.15 + 0.45 * torch.rand(n, 2, 1, 1, generator=generator)
    corner = torch.rand(n, 2, 1, 1, generator=generator) * (1 - size)
    inside = lambda at, i: (at >= corner[:, i]) & (at < corner[:, i] + size[:, i])  # noqa: E731
    return inside(y, 0) & inside(x, 1)
