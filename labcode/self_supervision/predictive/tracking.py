"""Objects of a video: cut out, followed from frame to frame by the Hungarian method, and the score of that."""

import math

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Generator, Tensor

from ...augment import crop
from ...data.videos import Motion, moving_scenes
from ...loss import check_finite, unit_rows
from .clips import to_float


def crops(frames: Shaped[Tensor, "n t c h w"], boxes: Float[Tensor, "n t k 4"], size: int) -> Shaped[Tensor, "..."]:
    """Every box (left, top, right, bottom) of every frame, resized to size × size: (n, t, k, c, size, size).

    frames  uint8, or float in [0, 1], and so are the crops

    Boxes must have an area; what lies over the border is cut off. Raises ValueError for frames of another kind or
    range.
    """
    n, t, k = boxes.shape[:3]
    h, w = frames.shape[3:]
    bound = torch.tensor([w, h, w, h], device=boxes.device)
    boxes = torch.minimum(boxes.clamp_min(0), bound)
    left, top, right, bottom = boxes.flatten(0, 2).unbind(1)
    at = torch.stack([top, left, bottom - top, right - left], 1).view(n, t * k, 4)
    out = []
    for part, where in zip(frames.split(128), at.split(128), strict=True):  # whole frames, repeated k times, are large
        whole = to_float(part)[:, :, None].expand(-1, -1, k, -1, -1, -1).flatten(0, 2)
        cut = crop(whole, where.flatten(0, 1), size)
        out.append(cut if frames.is_floating_point() else cut.mul(255).round().to(torch.uint8))
    return torch.cat(out).view(n, t, k, *frames.shape[2:3], size, size)


def wander(
    n: int, frames: int, objects: int, size: int, step: float = 1.0, turn: float = 1.0, *, generator: Generator
) -> Float[Tensor, "n t k 2"]:
    """Paths that forget where they were going, for the ``path`` of ``moving_scenes``: only appearance persists.

    step  pixels a frame
    turn  standard deviation of the change of heading from frame to frame, in radians; 0 is a straight line
    """
    start = size * torch.rand(n, 1, objects, 2, generator=generator)
    heading = 2 * math.pi * torch.rand(n, 1, objects, generator=generator)
    heading = heading + (turn * torch.randn(n, frames - 1, objects, generator=generator)).cumsum(1)
    moves = step * torch.stack([heading.cos(), heading.sin()], 3).cumsum(1)
    return torch.cat([start, start + moves], 1)


def three_frames(x: Shaped[Tensor, "n t k c s s"], generator: Generator) -> Float[Tensor, "n 3 k c s s"]:
    """Three frames in a row of each film's objects, from a random place on, as floats in [0, 1]: views for ``UCSL``.

    x  uint8, or float in [0, 1]

    Raises ValueError for films of fewer than three frames, and for objects of another kind or range.
    """
    if x.ndim != 6 or x.shape[1] < 3:
        raise ValueError(f"x must be objects (n, t >= 3, k, c, s, s), got shape {tuple(x.shape)}")
    start = torch.randint(x.shape[1] - 2, (len(x),), generator=generator, device=x.device)
    frames = start[:, None] + torch.arange(3, device=x.device)
    return to_float(x[torch.arange(len(x), device=x.device)[:, None], frames].flatten(1, 2)).unflatten(1, (3, -1))


def shown_objects(
    n: int, seed: int, split: str, motion: Motion, step: float, size: int = 8, seen: float = 0.4
) -> tuple[Shaped[Tensor, "n t k 3 s s"], Bool[Tensor, "n t k"], Float[Tensor, "n t k 4"]]:
    """What a perfect detector hands to a tracker: crops, which objects are found, and boxes, of n videos.

    Objects wander ``step`` pixels a frame; the first two have one colour. One is found where at least ``seen`` of it
    is visible; the crop of one that is not found is all zero.
    """
    path = wander(n, motion.frames, motion.objects, motion.size, step, 0.6, generator=Generator().manual_seed(seed))
    ink = moving_scenes(n, seed, split, motion).factors["ink"].clone()
    ink[:, 1] = ink[:, 0]
    made = moving_scenes(n, seed, split, motion, path=path, ink=ink)
    found = made.factors["visible"] > seen
    cut_out = crops(made.frames, made.factors["boxes"], size).clamp_min(1)
    return cut_out * found[..., None, None, None], found, made.factors["boxes"]


def associate(
    present: Bool[Tensor, "t k"], embeddings: Float[Tensor, "t k d"] | None = None,
    boxes: Float[Tensor, "t k 4"] | None = None, keep: float = 0.5, seed: int = 0,
) -> Int[Tensor, "t k"]:  # fmt: skip
    """Track names for the detections of one video, -1 where there is none; frame by frame, by the Hungarian method.

    With embeddings a detection's score with a track is the cosine with the track's running embedding,
    u ← normalise(keep · u + (1 - keep) · z); tracks wait for ever, so an object may come back. With boxes alone it is
    the overlap (IoU) with the track's last box, and without any overlap there is no match. A detection that no track
    takes begins a new one. Detections are shuffled in every frame by the seed, so their order tells nothing.

    Raises ValueError unless exactly one of embeddings and boxes is given, finite, and as many as ``present``.
    """
    from scipy.optimize import linear_sum_assignment

    if (embeddings is None) == (boxes is None):
        raise ValueError("embeddings or boxes must be given, and not both")
    for name, given in (("embeddings", embeddings), ("boxes", boxes)):
        if given is not None:
            if given.shape[:2] != present.shape:
                raise ValueError(f"{name} must be {tuple(present.shape)} of some width, got {tuple(given.shape)}")
            check_finite(**{name: given})
    names = torch.full(present.shape, -1)
    g = torch.Generator().manual_seed(seed)
    seen = unit_rows(embeddings.double()) if boxes is None else boxes.double()
    tracks = seen.new_zeros(0, seen.shape[2])
    for frame in range(len(present)):
        found = present[frame].nonzero()[:, 0]
        found = found[torch.randperm(len(found), generator=g)]
        now = seen[frame, found]
        score = tracks @ now.T if boxes is None else iou(tracks, now)
        rows, columns = (torch.from_numpy(i) for i in linear_sum_assignment(score.numpy(), maximize=True))
        if boxes is not None:
            rows, columns = (i[score[rows, columns] > 0] for i in (rows, columns))
        moved = unit_rows(keep * tracks[rows] + (1 - keep) * now[columns])
        tracks[rows] = moved if boxes is None else now[columns]
        new = torch.ones(len(found), dtype=torch.bool)
        new[columns] = False
        names[frame, found[columns]] = rows
        names[frame, found[new]] = len(tracks) + torch.arange(int(new.sum()))
        tracks = torch.cat([tracks, now[new]])
    return names


def iou(a: Float[Tensor, "n 4"], b: Float[Tensor, "m 4"]) -> Float[Tensor, "n m"]:
    """Intersection over union of boxes (left, top, right, bottom)."""
    low, high = torch.maximum(a[:, None, :2], b[:, :2]), torch.minimum(a[:, None, 2:], b[:, 2:])
    both = (high - low).clamp_min(0).prod(2)
    area = [(x[:, 2:] - x[:, :2]).prod(1) for x in (a, b)]
    return both / (area[0][:, None] + area[1] - both).clamp_min(1e-9)


def identity_switches(names: Int[Tensor, "t k"], present: Bool[Tensor, "t k"]) -> tuple[int, int]:
    """How often an object is found under another name than when it was last seen: in all, and right after a gap."""
    switches = after_gap = 0
    last = torch.full((present.shape[1],), -1)
    for t in range(len(present)):
        changed = present[t] & (last >= 0) & (names[t] != last)
        switches += int(changed.sum())
        after_gap += int((changed & ~present[t - 1]).sum()) if t else 0
        last = torch.where(present[t], names[t], last)
    return switches, after_gap


def idf1(names: Int[Tensor, "t k"], present: Bool[Tensor, "t k"]) -> float:
    """The share of detections under the right name, with names given to objects one to one as well as possible.

    IDF1 (Ristani et al., 2016) where every detection is a true object: 2 IDTP / (2 IDTP + IDFP + IDFN) = IDTP / number
    of detections. In (0, 1]. Raises ValueError for a video without a detection.
    """
    from scipy.optimize import linear_sum_assignment

    if not present.any():
        raise ValueError("present must hold at least one detection")
    objects = torch.arange(present.shape[1]).expand(present.shape)[present]
    counts = torch.zeros(present.shape[1], int(names.max()) + 1)
    counts.index_put_((objects, names[present]), torch.ones(()), accumulate=True)
    rows, columns = linear_sum_assignment(counts.numpy(), maximize=True)
    return float(counts[rows, columns].sum() / present.sum())


def tracking_score(
    found: Bool[Tensor, "n t k"], embeddings: Float[Tensor, "n t k d"] | None = None,
    boxes: Float[Tensor, "n t k 4"] | None = None,
) -> tuple[float, float, float]:  # fmt: skip
    """IDF1, identity switches, and those right after a gap, of ``associate`` on n videos: means over the videos."""
    rows = []
    for i in range(len(found)):
        one = [None if given is None else given[i].cpu() for given in (embeddings, boxes)]
        names = associate(found[i].cpu(), *one, seed=i)
        rows.append((idf1(names, found[i].cpu()), *identity_switches(names, found[i].cpu())))
    return tuple(torch.tensor(rows, dtype=torch.float64).mean(0).tolist())
