"""GIO (Everaert and Potts, 2024): gradient information optimisation, its divergences, and a rival without gradient."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ...data import digits, textures
from ...data.synthetic import SPLITS
from ...loss import check_matrix, check_positive, raised

Rows = Float[Tensor, "n d"]
Index = Int[Tensor, " chosen"]


POLE = 1e-5  # distances below count as this much, as in the authors' code


def _rows(least: int = 1, **given: Tensor) -> list[Tensor]:
    """The matrices, of one width and finite, half precision raised; errors name what was given."""
    wide = next(iter(given.values()))
    for name, x in given.items():
        check_matrix(name, x, rows=least if x is wide else 1)
        if x.shape[1] != wide.shape[1]:
            raise ValueError(f"{name} must be as wide as {next(iter(given))}, {wide.shape[1]}, got {tuple(x.shape)}")
        if x.device.type == "cpu" and not bool(torch.isfinite(x).all()):
            raise ValueError(f"{name} must be finite, got NaN or infinity")
    return [raised(x) for x in given.values()]


def _distances(x: Tensor, y: Tensor) -> Tensor:
    """From differences, not from products, which lose the digits of points far from the origin."""
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


def _log(distance: Tensor) -> Tensor:
    return distance.clamp_min(torch.finfo(distance.dtype).tiny).log()


def knn_kl(target: Rows, chosen: Float[Tensor, "m d"], k: int = 1) -> Float[Tensor, ""]:
    """k-nearest-neighbour estimate of KL(target ‖ chosen), in nats (Wang, Kulkarni and Verdú, 2009).

    d/n Σᵢ log(νₖ(i)/ρₖ(i)) + log(m/(n-1)): ν to the k-th of the chosen, ρ to the k-th *other* target. A distance of 0
    counts as the smallest number there is: rows that occur k + 1 times in one set make the estimate huge.

    Raises ValueError for k above n - 1 or m, unlike widths, and on a CPU for rows that are not finite.
    """
    target, chosen = _rows(2, target=target, chosen=chosen)
    n, m = len(target), len(chosen)
    if not 1 <= k <= min(n - 1, m):
        raise ValueError(f"k must be between 1 and {min(n - 1, m)}, got {k}")
    within = _distances(target, target).kthvalue(k + 1, dim=1).values
    across = _distances(target, chosen).kthvalue(k, dim=1).values
    return target.shape[1] * (_log(across) - _log(within)).mean() + math.log(m / (n - 1))


def released_kl(target: Rows, chosen: Float[Tensor, "m d"], k: int = 5) -> Float[Tensor, ""]:
    """The authors' estimate: the distance term averaged over *all* neighbours among the chosen, not the k-th.

    d meanᵢⱼ log‖xᵢ - wⱼ‖ - d meanᵢ log ρₖ(xᵢ) + mean_{j<=m} log(k m/(j (n-1))). It is additive over the chosen, so it
    rewards closeness and does not see what is covered already. Raises as ``knn_kl`` does.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    target, chosen = _rows(k + 1, target=target, chosen=chosen)
    n, (m, d) = len(target), chosen.shape
    within = _log(_distances(target, target).kthvalue(k + 1, dim=1).values).mean()
    across = _log(_distances(target, chosen)).mean()
    ranks = torch.arange(1, m + 1, device=target.device, dtype=target.dtype)
    return d * (across - within) + (k * m / (ranks * (n - 1))).log().mean()


def released_path(
    target: Rows, pool: Float[Tensor, "m d"], order: Index, start: Float[Tensor, "s d"], k: int = 5
) -> Float[Tensor, " chosen_and_1"]:
    """``released_kl`` of the start alone and after each choice: what the authors' stopping rule looks at.

    order  rows of the pool as they were chosen, from ``gio``
    start  the uniform points that a selection from nothing begins with, s >= 1

    The estimate is a mean over the chosen, so all its values come from one table of distances, O(n · (s + m)).
    Raises as ``knn_kl`` does.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    target, pool, start = _rows(k + 1, target=target, pool=pool, start=start)
    n, d = target.shape
    within = _log(_distances(target, target).kthvalue(k + 1, dim=1).values).mean()
    pulls = _log(_distances(target, torch.cat([start, pool[order]]))).mean(0).cumsum(0)[len(start) - 1 :]
    m = torch.arange(len(start), len(start) + len(order) + 1, device=target.device, dtype=target.dtype)
    return d * (pulls / m - within) + (k * m / (n - 1)).log() - torch.lgamma(m + 1) / m


def before_rise(path: Float[Tensor, " n"]) -> int:
    """How many choices the authors' rule "increase" keeps: those before the first after which the estimate rises."""
    rises = path.diff() > 0
    return int(rises.int().argmax()) if bool(rises.any()) else len(rises)


def gio_gradient(v: Float[Tensor, " d"], target: Rows) -> Float[Tensor, " d"]:
    """Gradient in the free point v of ``released_kl`` for the chosen with v, up to a positive factor.

    The mean of (v - xᵢ)/‖v - xᵢ‖². What was chosen before does not appear in it, and every target is a pole: close to
    one, v falls into it. A target nearer than 1e-5 has no pull, as in the authors' code.
    """
    apart = v - target
    size = apart.norm(dim=1, keepdim=True)
    return torch.where(size > POLE, apart / size.clamp_min(POLE) / size.clamp_min(POLE), 0).mean(0)


def gio(
    target: Rows, pool: Float[Tensor, "m d"], count: int, start: str = "mean", steps: int = 50, first: int = 150,
    lr: float = 0.01, scale: float | None = None, uniform: int = 20, seed: int = 0,
) -> Index:  # fmt: skip
    """Gradient information optimisation: rows of the pool that bring KL(target ‖ selection) down, in order of choice.

    Everaert and Potts (2024): let a free point v descend the estimated divergence, v ← v - lr · scale · ∇, take the
    unused pool row nearest to it, repeat.

    target, pool  embeddings; quantise large sets with ``cluster.kmeans`` first and expand the chosen centroids
    count         rows to choose, 1 … m
    start         of v: "mean" of the target, then wherever it last stopped, the authors' "prev_opt"; "jump": a random
                  target every time, their choice at scale
    steps, first  descent steps for each choice and for the first, >= 0
    lr, scale     scale is fixed once, ‖v‖/‖∇‖ at the first v if None, as in the authors' code: a v at the origin, the
                  mean of a centred target, stays there
    uniform       the authors' uniform points that the selection starts from, of which only the number matters here:
                  the estimate is a mean over them and the chosen, so ∇ shrinks as 1/(uniform + 1 + chosen)

    Departure: a fixed count instead of stopping when the estimate rises; the uniform points are not returned, as the
    authors drop them at the end. Raises ValueError for an unknown start, a count out of range, unlike widths, and on a
    CPU for rows that are not finite.
    """
    target, pool = _rows(2, target=target, pool=pool)
    if start not in ("mean", "jump"):
        raise ValueError(f"start must be 'mean' or 'jump', got {start!r}")
    _count(count, pool)
    check_positive(lr=lr)
    if min(steps, first, uniform) < 0:
        raise ValueError(f"steps, first and uniform must be at least 0, got {steps}, {first} and {uniform}")
    generator = torch.Generator().manual_seed(seed)
    v, picked = target.mean(0), torch.zeros(len(pool), dtype=torch.bool, device=pool.device)
    order = torch.empty(count, dtype=torch.int64, device=pool.device)
    for turn in range(count):
        if start == "jump":
            v = target[torch.randint(len(target), (), generator=generator)]
        if turn == 0 and scale is None:
            scale = v.norm() / gio_gradient(v, target).norm().clamp_min(torch.finfo(v.dtype).tiny)
        rate = lr * scale * (uniform + 1) / (uniform + 1 + turn)
        for _ in range(steps if turn else first):
            v = v - rate * gio_gradient(v, target)
        order[turn] = (pool - v).norm(dim=1).masked_fill(picked, math.inf).argmin()
        picked[order[turn]] = True
    return order


def greedy_kl(target: Rows, pool: Float[Tensor, "m d"], count: int) -> Index:
    """The rival without a gradient: try every row of the pool and take the one that lowers ``knn_kl`` (k = 1) most.

    A target that a chosen row is near to is covered: only a nearer one would still help it. O(count · n · m).
    Raises ValueError for a count out of range, unlike widths, and on a CPU for rows that are not finite.
    """
    target, pool = _rows(2, target=target, pool=pool)
    _count(count, pool)
    apart = _log(_distances(target, pool))
    covered = torch.full_like(apart[:, :1], math.inf)
    used = torch.zeros(len(pool), dtype=torch.bool, device=pool.device)
    order = torch.empty(count, dtype=torch.int64, device=pool.device)
    for turn in range(count):
        order[turn] = torch.minimum(covered, apart).mean(0).masked_fill(used, math.inf).argmin()
        covered = torch.minimum(covered, apart[:, order[turn], None])
        used[order[turn]] = True
    return order


def _count(count: int, pool: Tensor) -> None:
    if not 1 <= count <= len(pool):
        raise ValueError(f"count must be between 1 and the {len(pool)} rows of pool, got {count}")


@dataclass(frozen=True)
class MixedPool:
    """A target, a pool that holds its kind and others, and an exam; rows are the 196 pixels of a 14×14 picture."""

    target: Rows
    pool: Float[Tensor, "m d"]
    labels: Int[Tensor, " m"]  # digits for the target's kind, drawn at random for the rest, as in a scraped set
    own: Bool[Tensor, " m"]  # which rows of the pool are of the target's kind
    exam: Float[Tensor, "e d"]
    exam_labels: Int[Tensor, " e"]

    def components(self, d: int) -> tuple[Rows, Float[Tensor, "m d"], Float[Tensor, "e d"]]:
        """Target, pool and exam by the first d principal components of target and pool."""
        both = torch.cat([self.target, self.pool])
        axes = torch.linalg.eigh(torch.cov(both.T)).eigenvectors[:, -d:]
        return tuple((rows - both.mean(0)) @ axes for rows in (self.target, self.pool, self.exam))


def mixed_pool(
    seed: int, wanted: int = 300, each: int = 800, splits: tuple[str, str] = ("train", "test")
) -> MixedPool:
    """Target: upright digits. Pool: as many upright digits, digits turned by a quarter, and patches of photographs.

    wanted, each  rows of the target, and of every kind in the pool
    splits        that the digits of target and pool, and those of the exam, are from

    Turned digits share strokes and principal components with upright ones, so that a choice can be more or less pure.
    """
    g, side = torch.Generator().manual_seed(seed), 14
    images, classes = digits()
    images = F.avg_pool2d(images[:, None], 2)[:, 0]
    (low, high), (first, last) = (SPLITS["mnist"][name] for name in splits)
    order = low + torch.randperm(high - low, generator=g)
    target, upright, turned = order[: wanted + 2 * each].split([wanted, each, each])
    patches = F.unfold(textures()[:, None], side, stride=side // 2).transpose(1, 2).flatten(0, 1)
    patches = patches[torch.randperm(len(patches), generator=g)[:each]].mul(0.25).add(0.5).clamp(0, 1)
    pool = torch.cat([images[upright].flatten(1), images[turned].rot90(1, (1, 2)).flatten(1), patches])
    labels = torch.cat([classes[upright], torch.randint(10, (2 * each,), generator=g)])
    own = torch.arange(3 * each) < each
    return MixedPool(images[target].flatten(1), pool, labels, own, images[first:last].flatten(1), classes[first:last])
