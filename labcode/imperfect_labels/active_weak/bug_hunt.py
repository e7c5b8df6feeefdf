"""The experiment on visual bugs: one world, one set of frozen features, all ways to train a detector in one stack."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .game import Game, box_masks, cluster_filter, describe, geometric_filter, paste, play, segment
from .visual_bugs import average_precision, bug_scores, detector, fine_tune, labelled_draws, pretrain

# what is pasted: a patch as it is; enlarged, a random box, any mask, masks by rule, masks by k-means
ROUTES = ("small patch", "boxes", "any mask", "geometry", "clusters")


@dataclass(frozen=True)
class World:
    """Features of played frames (n, d), of those frames pasted over by each route, and of test frames."""

    played: Game
    test: Game
    own: Float[Tensor, "n d"]
    pasted: dict[str, Float[Tensor, "n d"]]
    test_x: Float[Tensor, "t d"]
    described: Float[Tensor, "n k 6"]
    pictures: dict[str, Float[Tensor, "m 3 h w"]]


def filter_bank(frames: Float[Tensor, "n 3 h w"], cells: int = 4) -> Float[Tensor, "n d"]:
    """Features of fixed filters, in place of a large pretrained network: mean colour and texture energy of each cell.

    Five differences of neighbouring pixels (across, down, both diagonals, centre against its neighbours) at
    two scales; the log of their mean size in each of cells² cells. d = cells² · (3 + 10).
    """
    grey = frames.mean(1, keepdim=True)
    kernels = torch.zeros(5, 1, 3, 3, dtype=frames.dtype)
    for i, (r, c) in enumerate(((1, 2), (2, 1), (2, 2), (2, 0))):
        kernels[i, 0, 1, 1], kernels[i, 0, r, c] = -1, 1
    kernels[4, 0] = -1 / 8
    kernels[4, 0, 1, 1] = 1
    pool = lambda x: F.adaptive_avg_pool2d(x, cells).flatten(1)  # noqa: E731
    maps = [pool(F.conv2d(level, kernels).abs()).add(0.02).log() for level in (grey, F.avg_pool2d(grey, 2))]
    return torch.cat([pool(frames), *maps], 1)


def choose_masks(
    masks: Bool[Tensor, "n k h w"], allowed: Bool[Tensor, "n k"], generator: torch.Generator
) -> tuple[Int[Tensor, " n"], Bool[Tensor, "n h w"]]:
    """For every frame a source frame and one of its allowed masks, uniform over all allowed masks of the set."""
    places = allowed.nonzero()
    if not len(places):
        raise ValueError("allowed must keep a mask, got none")
    pick = places[torch.randint(len(places), (len(masks),), generator=generator)]
    return pick[:, 0], masks[pick[:, 0], pick[:, 1]]


def make_world(
    seed: int, *, frames: int = 1500, tests: int = 1500, size: int = 24, prevalence: float = 0.03,
    seam: bool = False,
) -> World:  # fmt: skip
    """Play, segment, filter, paste, and take the features of all.

    prevalence  of bugs among the played frames, which nobody has looked at, and among the test frames
    seam        a hard edge of what is pasted, the ablation
    """
    g = torch.Generator().manual_seed(seed)
    played, test = (play(n, prevalence, generator=g, size=size) for n in (frames, tests))
    masks = segment(played.frames)
    described = describe(played.frames, masks)
    everything = masks.flatten(2).any(2)
    filters = {"any mask": everything, "geometry": geometric_filter(described) & everything,
               "clusters": cluster_filter(described, seed=seed) & everything}  # fmt: skip
    pictures = {}
    for route in ROUTES:
        if route in ("small patch", "boxes"):
            source = torch.randint(frames, (frames,), generator=g)
            mask = box_masks(frames, size, size, g)
        else:
            source, mask = choose_masks(masks, filters[route], g)
        if route == "small patch":  # not enlarged: CutPaste (Li et al. 2021), which knows nothing of cameras
            pictures[route] = torch.where(mask[:, None], played.frames[source], played.frames)
            continue
        pictures[route] = paste(played.frames, played.frames[source], mask, generator=g, seam=seam)
    x = filter_bank(played.frames)
    mean, std = x.mean(0), x.std(0).clamp(min=1e-4)
    look = lambda images: (filter_bank(images) - mean) / std  # noqa: E731
    pasted = {route: look(images) for route, images in pictures.items()}
    few = {route: images[:8] for route, images in pictures.items()}
    return World(played, test, (x - mean) / std, pasted, look(test.frames), described, few)


def hunt(
    world: World, labels: int, draws: int, seed: int, *, routes: tuple[str, ...] = ROUTES, lam: float = 1.0,
    warm: int = 100, tune: int = 60, hidden: int = 64, multitask: tuple[str, ...] = ("geometry",),
    plain_lr: float = 3e-4,
) -> dict[str, Float[Tensor, "draws t"]]:  # fmt: skip
    """Scores of the test frames by every arm, each on the same draws of labelled frames: {arm: (draws, t)}.

    "supervised" sees the labels alone; "<route>, pretrained" is trained on pasted frames first; "<route>, both" has
    both losses at once; "<route>, alone" sees no label. All arms of a draw begin at the same weights.

    plain_lr  of the supervised arm: the best of 3e-4 … 1e-2 on other seeds, so that it is no weak rival
    """
    g = torch.Generator().manual_seed(seed)
    labelled = labelled_draws(world.played.bug, labels, draws, g)
    pasted = torch.stack([world.pasted[r] for r in routes])
    groups = torch.arange(len(routes)).repeat_interleave(draws).tolist()
    make = lambda n: detector(n, world.own.shape[1], seed, hidden, same=draws)  # noqa: E731
    warmed = pretrain(make(len(groups)), world.own, pasted, steps=warm, generator=g, groups=groups)
    found = dict(zip([f"{r}, alone" for r in routes], bug_scores(warmed, world.test_x).split(draws), strict=True))
    y = world.played.bug.long()
    every = labelled.repeat(len(routes), 1)
    tuned = fine_tune(warmed, world.own, y, every, steps=tune, generator=g)
    found |= dict(zip([f"{r}, pretrained" for r in routes], bug_scores(tuned, world.test_x).split(draws), strict=True))
    plain = fine_tune(make(draws), world.own, y, labelled, steps=warm + tune, generator=g, lr=plain_lr)
    found["supervised"] = bug_scores(plain, world.test_x)
    for route in multitask:
        both = fine_tune(make(draws), world.own, y, labelled, steps=warm + tune, generator=g, lam=lam, own=world.own,
                         pasted=world.pasted[route])  # fmt: skip
        found[f"{route}, both"] = bug_scores(both, world.test_x)
    return found


def precision_of(scores: dict[str, Tensor], bug: Tensor) -> dict[str, float]:
    """The mean average precision over draws of each arm."""
    return {name: float(average_precision(s, bug).mean()) for name, s in scores.items()}
