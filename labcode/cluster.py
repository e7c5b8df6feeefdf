"""k-means on the device where the rows are."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .loss import check_matrix

BLOCK = 2**24  # distances that are held at a time


def kmeans(
    x: Float[Tensor, "n d"], k: int, seed: int = 0, iterations: int = 50
) -> tuple[Float[Tensor, "k d"], Int[Tensor, " n"]]:
    """Centroids (k, d) and the nearest one of every row: Lloyd's iterations from greedy k-means++ seeds.

    seed        of the seeds, drawn as in Arthur and Vassilvitskii (2007) with 2 + ⌊log k⌋ candidates each, of which
                the best stays. Uniformly drawn seeds would copy the density of the rows
    iterations  at most; it ends before when no row changes its centroid

    Rows are centred first, so a common offset costs no digit. Clusters that are closer to one another than a thousandth
    of the rows' spread want float64, as they do in scikit-learn.

    A centroid that loses all its rows moves to the row farthest from its own. What scikit-learn's ``KMeans`` computes,
    without its copy to the host. On a GPU products are in the precision that PyTorch is set to. No gradient.

    Raises ValueError for k outside 1 … n, for iterations < 1 and for rows that are not finite.
    """
    check_matrix("x", x)
    if not 1 <= k <= len(x):
        raise ValueError(f"k must be between 1 and the {len(x)} rows of x, got {k}")
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1, got {iterations}")
    rows = x.detach().float() if x.dtype in (torch.float16, torch.bfloat16) else x.detach()
    if not bool(torch.isfinite(rows).all()):
        raise ValueError("x must be finite, got NaN or infinity")
    with torch.autocast(x.device.type, enabled=False):
        size = torch.frexp(rows.abs().max()).exponent  # a power of two: squares stay in range, and no digit changes
        rows = torch.ldexp(rows, -size)
        middle = rows.mean(0)
        centroids, which = _lloyd(rows - middle, k, seed, iterations)  # centred, distances keep their digits
        return torch.ldexp(centroids + middle, size).to(x.dtype), which


def _lloyd(rows: Tensor, k: int, seed: int, iterations: int) -> tuple[Tensor, Tensor]:
    centroids, which = _seeds(rows, k, torch.Generator(rows.device).manual_seed(seed)), None
    for _ in range(iterations):
        before, (which, near) = which, _nearest(rows, centroids)
        if before is not None and torch.equal(before, which):
            break
        centroids = _means(rows, which, near, k)
    else:
        which, _ = _nearest(rows, centroids)
    return centroids, which


def _seeds(x: Tensor, k: int, generator: torch.Generator) -> Tensor:
    trials, square = 2 + int(math.log(k)), x.square().sum(1)
    first = torch.randint(len(x), (1,), generator=generator, device=x.device)
    chosen, closest = [x[first]], _squared(x, square, x[first])[0]
    for _ in range(k - 1):
        at = closest.cumsum(0)
        draws = torch.rand(trials, generator=generator, device=x.device, dtype=x.dtype) * at[-1]
        tried = torch.searchsorted(at, draws).clamp_(max=len(x) - 1)
        left = torch.minimum(_squared(x, square, x[tried]), closest)
        best = left.sum(1).argmin().view(1)
        closest = left.index_select(0, best)[0]
        chosen.append(x[tried.index_select(0, best)])
    return torch.cat(chosen)


def _squared(x: Tensor, square: Tensor, to: Tensor) -> Tensor:
    """Squared distances (m, n) of all rows from some of them."""
    return torch.addmm(square + to.square().sum(1)[:, None], to, x.T, alpha=-2).clamp_(min=0)


def _nearest(x: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest centroid of every row, and xᵀc - ‖c‖²/2 there: the larger, the nearer."""
    half = centroids.square().sum(1) / -2
    parts = [torch.addmm(half, some, centroids.T).max(1) for some in x.split(max(1, BLOCK // len(centroids)))]
    return torch.cat([p.indices for p in parts]), torch.cat([p.values for p in parts])


def _means(x: Tensor, which: Tensor, near: Tensor, k: int) -> Tensor:
    count = torch.zeros(k, dtype=x.dtype, device=x.device).index_add_(0, which, torch.ones_like(near))
    means = torch.zeros(k, x.shape[1], dtype=x.dtype, device=x.device).index_add_(0, which, x)
    means /= count.clamp(min=1)[:, None]
    empty = count == 0
    if bool(empty.any()):
        far = (x.square().sum(1) / 2 - near).topk(int(empty.sum())).indices
        means[empty] = x[far]
    return means
