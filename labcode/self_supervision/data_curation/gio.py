"""GIO (Everaert and Potts, 2024): gradient information optimisation, its divergences, and a rival without gradient."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...loss import check_matrix, check_positive

Rows = Float[Tensor, "n d"]
Index = Int[Tensor, " chosen"]


def knn_kl(target: Rows, chosen: Float[Tensor, "m d"], k: int = 1) -> Float[Tensor, ""]:
    """k-nearest-neighbour estimate of KL(target ‖ chosen), in nats (Wang, Kulkarni and Verdú, 2009).

    d/n Σᵢ log(νₖ(i)/ρₖ(i)) + log(m/(n-1)): ν to the k-th of the chosen, ρ to the k-th *other* target.

    Raises ValueError for k above n - 1 or m.
    """
    check_matrix("target", target, rows=2)
    check_matrix("chosen", chosen)
    n, m = len(target), len(chosen)
    if not 1 <= k <= min(n - 1, m):
        raise ValueError(f"k must be between 1 and {min(n - 1, m)}, got {k}")
    within = torch.cdist(target, target).kthvalue(k + 1, dim=1).values
    across = torch.cdist(target, chosen).kthvalue(k, dim=1).values
    tiny = torch.finfo(target.dtype).tiny
    ratio = across.clamp_min(tiny).log() - within.clamp_min(tiny).log()
    return target.shape[1] * ratio.mean() + math.log(m / (n - 1))


def released_kl(target: Rows, chosen: Float[Tensor, "m d"], k: int = 5) -> Float[Tensor, ""]:
    """The authors' estimate: the distance term averaged over *all* neighbours among the chosen, not the k-th.

    d meanᵢⱼ log‖xᵢ - wⱼ‖ - d meanᵢ log ρₖ(xᵢ) + mean_{j<=m} log(k m/(j (n-1))). It is additive over the chosen, so it
    rewards closeness and does not see what is covered already.
    """
    check_matrix("target", target, rows=k + 1)
    check_matrix("chosen", chosen)
    n, (m, d) = len(target), chosen.shape
    tiny = torch.finfo(target.dtype).tiny
    within = torch.cdist(target, target).kthvalue(k + 1, dim=1).values.clamp_min(tiny).log().mean()
    across = torch.cdist(target, chosen).clamp_min(tiny).log().mean()
    ranks = torch.arange(1, m + 1, device=target.device, dtype=target.dtype)
    return d * (across - within) + (k * m / (ranks * (n - 1))).log().mean()


def gio_gradient(v: Float[Tensor, " d"], target: Rows) -> Float[Tensor, " d"]:
    """Gradient in the free point v of ``released_kl`` for the chosen with v, up to a positive factor.

    The mean of (v - xᵢ)/‖v - xᵢ‖². What was chosen before does not appear in it, and every target is a pole: close to
    one, v falls into it.
    """
    apart = v - target
    return (apart / apart.square().sum(1, keepdim=True).clamp_min(torch.finfo(v.dtype).tiny)).mean(0)


def gio(
    target: Rows, pool: Float[Tensor, "m d"], count: int, start: str = "mean", steps: int = 50, first: int = 150,
    lr: float = 0.01, seed: int = 0,
) -> Index:  # fmt: skip
    """Gradient information optimisation: rows of the pool that bring KL(target ‖ selection) down, in order of choice.

    Everaert and Potts (2024): let a free point v descend the estimated divergence, take the unused pool row nearest to
    it, repeat.

    target, pool  embeddings; quantise large sets with ``cluster.kmeans`` first and expand the chosen centroids
    count         rows to choose, 1 … m
    start         of v: "mean" of the target, then wherever it last stopped; "jump": a random target every time, the
                  authors' choice at scale
    steps, first  descent steps for each choice and for the first, >= 0; lr > 0 moves v by that share of its own norm,
                  as in the authors' code: a v at the origin, the mean of a centred target, stays there

    Departure: a fixed count instead of stopping when the estimate rises, and no uniform starting points (the authors
    drop them at the end). Raises ValueError for an unknown start and a count out of range.
    """
    check_matrix("target", target, rows=2)
    check_matrix("pool", pool)
    if start not in ("mean", "jump"):
        raise ValueError(f"start must be 'mean' or 'jump', got {start!r}")
    _count(count, pool)
    check_positive(lr=lr)
    generator = torch.Generator().manual_seed(seed)
    v, picked = target.mean(0), torch.zeros(len(pool), dtype=torch.bool, device=pool.device)
    order = torch.empty(count, dtype=torch.int64, device=pool.device)
    for turn in range(count):
        if start == "jump":
            v = target[torch.randint(len(target), (), generator=generator)]
            v = v + 1e-3 * torch.randn(v.shape, generator=generator).to(v)  # off the pole
        for _ in range(steps if turn else first):
            slope = gio_gradient(v, target)
            v = v - lr * v.norm() * slope / slope.norm().clamp_min(torch.finfo(v.dtype).tiny)
        order[turn] = (pool - v).norm(dim=1).masked_fill(picked, math.inf).argmin()
        picked[order[turn]] = True
    return order


def greedy_kl(target: Rows, pool: Float[Tensor, "m d"], count: int) -> Index:
    """The rival without a gradient: try every row of the pool and take the one that lowers ``knn_kl`` (k = 1) most.

    A target that a chosen row is near to is covered: only a nearer one would still help it. O(count · n · m).
    """
    check_matrix("target", target, rows=2)
    check_matrix("pool", pool)
    _count(count, pool)
    apart = torch.cdist(target, pool).clamp_min(torch.finfo(pool.dtype).tiny).log()
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
