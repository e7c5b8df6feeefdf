"""Hierarchical k-means (Vo et al., 2024): cluster the clusters, and draw a balanced sample down the tree."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from ...cluster import kmeans
from ...loss import check_matrix, check_positive, raised

Rows = Float[Tensor, "n d"]
Index = Int[Tensor, " chosen"]


@dataclass(frozen=True)
class Level:
    """One level of the tree: its centroids and, for every item of the level below, the centroid it belongs to."""

    centroids: Float[Tensor, "k d"]
    parent: Int[Tensor, " m"]


def hierarchical_kmeans(
    x: Rows, sizes: tuple[int, ...], resample: tuple[int, ...] | None = None, rounds: int = 10, seed: int = 0
) -> list[Level]:
    """Cluster the rows, then the centroids, then theirs: each level spreads more evenly over the support of the data.

    Automatic Data Curation (Vo et al., 2024), section 3. Centroids of k-means have density p^(d/(d+2)), so those of
    T levels have p^((d/(d+2))^T): the uniform distribution in the end.

    sizes     clusters of each level, falling, the first at most n
    resample  per level, how many items nearest to every centroid are kept for the next fit; 0 or None for no
              resampling. The authors take about half of the mean cluster's size.
    rounds    of resampling and fitting anew; 10 in the released configurations. They end early where fewer items than
              clusters would be kept

    Returns the levels from the bottom up. Raises ValueError for sizes that do not fall and lengths that differ.
    """
    check_matrix("x", x)
    if rounds < 0:
        raise ValueError(f"rounds must be at least 0, got {rounds}")
    if not sizes or any(b >= a for a, b in zip((len(x) + 1, *sizes), sizes, strict=False)):
        raise ValueError(f"sizes must fall from at most {len(x)}, got {sizes}")
    resample = (0,) * len(sizes) if resample is None else resample
    if len(resample) != len(sizes) or min(resample) < 0:
        raise ValueError(f"resample must have one number >= 0 for each of the {len(sizes)} levels, got {resample}")
    levels, items, middle = [], raised(x), raised(x).mean(0)  # centred, distances keep their digits
    for level, (k, keep) in enumerate(zip(sizes, resample, strict=True)):
        centroids, parent = kmeans(items, k, seed + level)
        for again in range(rounds if keep else 0):
            near = nearest_members(items, centroids, parent, keep)
            if len(near) < k:  # fewer items than clusters would be left: nothing to fit
                break
            centroids, _ = kmeans(items[near], k, seed + 1000 * (again + 1) + level)
            parent = torch.cdist(items - middle, centroids - middle).argmin(1)
        levels.append(Level(centroids, parent))
        items = centroids
    return levels


def _first(score: Float[Tensor, " n"], group: Int[Tensor, " n"], wanted: Int[Tensor, " k"]) -> Index:
    """Rows with the lowest scores of every group, ``wanted`` of each, in the order of rows."""
    order = score.argsort()
    order = order[group[order].argsort(stable=True)]  # by group, the lowest first
    count = group.bincount(minlength=len(wanted))
    rank = torch.arange(len(group), device=group.device) - (count.cumsum(0) - count)[group[order]]
    return order[rank < wanted[group[order]]].sort().values


def nearest_members(x: Rows, centroids: Float[Tensor, "k d"], parent: Int[Tensor, " n"], keep: int) -> Index:
    """Rows that are among the ``keep`` nearest to their own centroid; a smaller cluster is kept whole."""
    distance = (x - centroids[parent]).norm(dim=1)
    return _first(distance, parent, torch.full((len(centroids),), keep, device=x.device))


def water_fill(sizes: Int[Tensor, " k"], budget: int, generator: Generator | None = None) -> Int[Tensor, " k"]:
    """Shares of the budget: min(c, size) for the cap c that uses it up; what whole numbers leave over goes at random.

    sizes   items available in each place, >= 0
    budget  0 … sum of sizes

    Raises ValueError for a budget out of range, and for sizes that are negative or no whole numbers.
    """
    if sizes.is_floating_point() or sizes.ndim != 1 or (len(sizes) and int(sizes.min()) < 0):
        raise ValueError(f"sizes must be whole numbers >= 0, (k,), got {sizes.dtype} of shape {tuple(sizes.shape)}")
    sizes = sizes.long()
    total = int(sizes.sum())
    if not 0 <= budget <= total:
        raise ValueError(f"budget must be between 0 and the {total} items there are, got {budget}")
    if budget == 0:
        return torch.zeros_like(sizes)
    ordered = sizes.sort().values
    below = torch.cat([ordered.new_zeros(1), ordered.cumsum(0)[:-1]])  # used up by the smaller places
    places = len(sizes) - torch.arange(len(sizes), device=sizes.device)
    cap = (budget - below).div(places, rounding_mode="floor")  # if all places from here on are cut
    full = cap >= ordered  # filled: the cap lies above its size
    cap = int(cap[~full][0]) if bool((~full).any()) else int(ordered[-1])
    share = sizes.clamp(max=cap)
    left = budget - int(share.sum())
    if left:
        open_places = (sizes > cap).nonzero()[:, 0]
        order = torch.randperm(len(open_places), generator=generator).to(sizes.device)
        share[open_places[order[:left]]] += 1
    return share


def hierarchical_sample(levels: list[Level], budget: int, seed: int = 0, nearest: Rows | None = None) -> Index:
    """A balanced sample of the bottom's rows: the budget runs down the tree, evenly at every level.

    levels   from ``hierarchical_kmeans``; a single one gives flat balanced sampling
    budget   rows to choose, at most all
    nearest  the rows themselves: then each leaf gives those nearest to its centroid instead of random ones

    A cluster counts by the *rows* under it, not by its child clusters, or small branches would promise what they
    do not have. Raises ValueError for a budget out of range.
    """
    generator = torch.Generator().manual_seed(seed)
    leaf = levels[0].parent
    holds = [leaf.bincount(minlength=len(levels[0].centroids))]  # rows under every cluster, level by level
    for level in levels[1:]:
        above = torch.zeros(len(level.centroids), dtype=torch.int64, device=leaf.device)
        holds.append(above.index_add_(0, level.parent, holds[-1]))
    share = water_fill(holds[-1], budget, generator)
    for depth in range(len(levels) - 1, 0, -1):
        below = torch.zeros_like(holds[depth - 1])
        for cluster in share.nonzero()[:, 0].tolist():
            children = (levels[depth].parent == cluster).nonzero()[:, 0]
            below[children] = water_fill(holds[depth - 1][children], int(share[cluster]), generator)
        share = below
    if nearest is None:
        score = torch.rand(len(leaf), generator=generator).to(leaf.device)
    else:
        score = (nearest - levels[0].centroids[leaf]).norm(dim=1)
    return _first(score, leaf, share)


def two_squares(n: int, ratio: float = 16.0, seed: int = 0) -> Float[Tensor, "n 2"]:
    """n points on two unit squares side by side, the left one ``ratio`` times as dense; x < 1 is the left one."""
    check_positive(ratio=ratio)
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(n, 2, generator=generator)
    left = torch.rand(n, generator=generator) < ratio / (1 + ratio)
    points[:, 0] += ~left
    return points


def agglomerate(x: Rows, k: int) -> Float[Tensor, "k d"]:
    """Centroids of the k clusters that Ward's agglomeration ends with (scikit-learn): the paper's other rival."""
    from sklearn.cluster import AgglomerativeClustering

    check_matrix("x", x, rows=k)
    which = torch.as_tensor(AgglomerativeClustering(k).fit_predict(x.cpu().numpy()), device=x.device)
    total = torch.zeros(k, x.shape[1], dtype=x.dtype, device=x.device).index_add_(0, which, x)
    return total / which.bincount(minlength=k)[:, None]


def log_skew(points: Float[Tensor, "n 2"]) -> float:
    """log₂ of how many times as many of the points lie in the left square of ``two_squares`` as in the right."""
    left = int((points[:, 0] < 1).sum())
    return math.log2(max(left, 1) / max(len(points) - left, 1))


def long_tail(labels: Int[Tensor, " n"], ratio: float = 100.0, seed: int = 0) -> Index:
    """Rows of a long-tailed pool: class c of C keeps a share ratio^(-c/(C-1)) of the smallest class's size.

    labels  any whole numbers; classes are those that occur, in rising order

    Raises ValueError for no labels and a ratio below 1.
    """
    if not 1 <= ratio < math.inf:
        raise ValueError(f"ratio must be at least 1, got {ratio}")
    which, count = _counted(labels)
    wanted = (int(count.min()) * ratio ** -torch.linspace(0, 1, len(count))).round().long().clamp_min(1)
    score = torch.rand(len(labels), generator=torch.Generator().manual_seed(seed)).to(labels.device)
    return _first(score, which, wanted.to(labels.device))


def class_entropy(labels: Int[Tensor, " n"], classes: int) -> float:
    """Entropy of the class shares, in units of log(classes): 1 is perfect balance, also of a single class.

    labels  any whole numbers, of at most ``classes`` kinds. Raises ValueError for more, and for none
    """
    count = _counted(labels)[1]
    if len(count) > classes:
        raise ValueError(f"classes must be at least the {len(count)} kinds of labels there are, got {classes}")
    if classes == 1:
        return 1.0
    share = count.double() / len(labels)
    return float(torch.special.entr(share).sum() / math.log(classes))


def _counted(labels: Tensor) -> tuple[Int[Tensor, " n"], Int[Tensor, " classes"]]:
    """Labels as 0 … C - 1, whatever numbers they are, and how often each occurs."""
    if labels.is_floating_point() or labels.ndim != 1 or not len(labels):
        raise ValueError(f"labels must be whole numbers, (n,), got {labels.dtype} of shape {tuple(labels.shape)}")
    _, which, count = labels.unique(return_inverse=True, return_counts=True)
    return which, count
