"""Lloyd's k-means from many starts at once: one batched product an iteration, whatever the number of starts."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..loss import check_finite, check_matrix


@dataclass(frozen=True)
class Partitions:
    """Several partitions of the same rows: labels (r, n), centroids (r, k, d) and inertia (r,), the sum of squares."""

    labels: Int[Tensor, "r n"]
    centroids: Float[Tensor, "r k d"]
    inertia: Float[Tensor, " r"]

    @property
    def best(self) -> int:
        """The partition with the least inertia."""
        return int(self.inertia.argmin())


def many_kmeans(
    x: Float[Tensor, "n d"], k: int, *, restarts: int, generator: torch.Generator, seeding: str = "plus",
    iterations: int = 100, start: Float[Tensor, "r k d"] | None = None,
) -> Partitions:  # fmt: skip
    """Lloyd's iterations from ``restarts`` starts in one batch; all results come back, not only the best.

    seeding     "plus" for k-means++ (Arthur and Vassilvitskii 2007), one candidate a seed; "rows" for k rows drawn
                without replacement, the start that poor local minima are told of
    iterations  at most; it ends before when no row of any start changes its centroid
    start       first centroids, instead of drawn ones

    A centroid that loses its rows moves to the row that is farthest from its own. ``labcode.cluster.kmeans`` is the
    function for one start; scikit-learn's ``KMeans`` from the same start ends in the same place.

    Raises ValueError for k outside 1 … n, restarts or iterations below 1, an unknown seeding, rows that are not finite.
    """
    check_matrix("x", x)
    check_finite(x=x)
    if not 1 <= k <= len(x):
        raise ValueError(f"k must be between 1 and the {len(x)} rows of x, got {k}")
    if restarts < 1 or iterations < 1:
        raise ValueError(f"restarts and iterations must be at least 1, got {restarts} and {iterations}")
    if seeding not in ("plus", "rows"):
        raise ValueError(f"seeding must be 'plus' or 'rows', got {seeding!r}")
    rows = x.detach().float() if x.dtype in (torch.float16, torch.bfloat16) else x.detach()
    middle = rows.mean(0)
    rows = rows - middle  # centred, distances keep their digits
    labels, square = None, rows.square().sum(1)
    if start is None:
        draw = _plus if seeding == "plus" else _rows
        centroids = draw(rows, k, restarts, generator)
    else:
        centroids = start.to(rows) - middle
    for _ in range(iterations):
        before, (near, labels) = labels, _distances(rows, centroids).min(1)
        if before is not None and torch.equal(before, labels):
            break
        centroids = _means(rows, labels, near + square, k)
    near, labels = _distances(rows, centroids).min(1)
    inertia = (near + square).clamp_(min=0).sum(1)
    return Partitions(labels, (centroids + middle).to(x.dtype), inertia)


def _distances(x: Tensor, centroids: Tensor) -> Tensor:
    """Squared distances (r, k, n), less the squares of the rows, which no choice between centroids depends on."""
    r, k, d = centroids.shape
    square = centroids.square().sum(2).view(r * k, 1)
    return torch.addmm(square, centroids.reshape(r * k, d), x.T, alpha=-2).view(r, k, -1)


def _means(x: Tensor, labels: Tensor, near: Tensor, k: int) -> Tensor:
    member = (labels[:, None] == torch.arange(k, device=x.device)[:, None]).to(x.dtype)  # (r, k, n)
    count = member.sum(2)[..., None]
    means = (member.view(-1, len(x)) @ x).view(*count.shape[:2], -1) / count.clamp(min=1)
    if bool((count > 0).all()):
        return means
    farthest = x[near.topk(k, dim=1).indices]  # an empty cluster takes a row of its own
    return torch.where(count == 0, farthest, means)


def _rows(x: Tensor, k: int, restarts: int, generator: torch.Generator) -> Tensor:
    order = torch.rand(restarts, len(x), generator=generator, device=x.device).argsort(1)
    return x[order[:, :k]]


def _plus(x: Tensor, k: int, restarts: int, generator: torch.Generator) -> Tensor:
    """k-means++: each next seed is drawn in proportion to the squared distance from those that are there."""
    square = x.square().sum(1)
    draws = torch.rand(k, restarts, 1, generator=generator, device=x.device, dtype=x.dtype)
    chosen = [x[(draws[0, :, 0] * len(x)).long().clamp(max=len(x) - 1)]]
    closest = None
    for draw in draws[1:]:
        distance = (_distances(x, chosen[-1][:, None])[:, 0] + square).clamp_(min=0)
        closest = distance if closest is None else torch.minimum(closest, distance)
        at = closest.cumsum(1)
        pick = torch.searchsorted(at, draw * at[:, -1:]).clamp_(max=len(x) - 1)
        chosen.append(x[pick[:, 0]])
    return torch.stack(chosen, 1)
