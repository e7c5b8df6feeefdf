"""Choosing the data: which unlabelled images deserve a place in pre-training.

Hierarchical k-means and balanced sampling through its tree, selection by a surrogate's uncertainty, gradient
information optimisation, and SAS's subsets by augmentation similarity. The drawn faces, SwAV and fine-tuning are in
``faces.py`` and appear here too.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor

from ..cluster import kmeans
from ..loss import check_matrix, check_positive
from .faces import (
    FaceDifficulty,
    Faces,
    SwAV,
    face_video,
    faces,
    fine_tune,
    mean_squared_error,
    real_faces,
    swapped_prediction,
)

__all__ = [
    "FaceDifficulty", "Faces", "Level", "SwAV", "augmentation_similarity", "class_entropy", "face_video", "faces",
    "fine_tune", "gio", "gio_gradient", "graph_cut", "greedy_graph_cut", "greedy_kl", "hierarchical_kmeans",
    "hierarchical_sample", "inclusion", "knn_kl", "logistic", "long_tail", "mean_squared_error",
    "mislabelled_gaussians", "misspecified_error", "real_faces", "released_kl", "sas", "swapped_prediction",
    "two_squares", "water_fill",
]  # fmt: skip

Rows = Float[Tensor, "n d"]
Index = Int[Tensor, " chosen"]

# ---------------------------------------------------------------------------------------------------------------------
# Hierarchical k-means (Vo et al., 2024)
# ---------------------------------------------------------------------------------------------------------------------


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
    if not sizes or any(b >= a for a, b in zip((len(x) + 1, *sizes), sizes, strict=False)):
        raise ValueError(f"sizes must fall from at most {len(x)}, got {sizes}")
    resample = (0,) * len(sizes) if resample is None else resample
    if len(resample) != len(sizes) or min(resample) < 0:
        raise ValueError(f"resample must have one number >= 0 for each of the {len(sizes)} levels, got {resample}")
    levels, items = [], x
    for level, (k, keep) in enumerate(zip(sizes, resample, strict=True)):
        centroids, parent = kmeans(items, k, seed + level)
        for again in range(rounds if keep else 0):
            near = nearest_members(items, centroids, parent, keep)
            if len(near) < k:  # fewer items than clusters would be left: nothing to fit
                break
            centroids, _ = kmeans(items[near], k, seed + 1000 * (again + 1) + level)
            parent = torch.cdist(items, centroids).argmin(1)
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

    Raises ValueError for a budget out of range.
    """
    total = int(sizes.sum())
    if not 0 <= budget <= total:
        raise ValueError(f"budget must be between 0 and the {total} items there are, got {budget}")
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


def long_tail(labels: Int[Tensor, " n"], ratio: float = 100.0, seed: int = 0) -> Index:
    """Rows of a long-tailed pool: class c of C keeps a share ratio^(-c/(C-1)) of the smallest class's size."""
    if ratio < 1:
        raise ValueError(f"ratio must be at least 1, got {ratio}")
    count = labels.bincount()
    if int(count.min()) == 0:
        raise ValueError(f"labels must hold every class below {len(count)}, {int(count.argmin())} is missing")
    wanted = (int(count.min()) * ratio ** -torch.linspace(0, 1, len(count))).round().long().clamp_min(1)
    score = torch.rand(len(labels), generator=torch.Generator().manual_seed(seed)).to(labels.device)
    return _first(score, labels, wanted.to(labels.device))


def class_entropy(labels: Int[Tensor, " n"], classes: int) -> float:
    """Entropy of the class shares, in units of log(classes): 1 is perfect balance."""
    share = labels.bincount(minlength=classes).double() / len(labels)
    return float(torch.special.entr(share).sum() / math.log(classes))


# ---------------------------------------------------------------------------------------------------------------------
# Selection by a surrogate's uncertainty (Kolossov, Montanari and Tandon, 2024)
# ---------------------------------------------------------------------------------------------------------------------


def mislabelled_gaussians(
    replications: int, n: int, p: int, norm: float = 5.0, flip: float = 0.05, seed: int = 0
) -> tuple[Float[Tensor, "r n p"], Float[Tensor, "r n"], Float[Tensor, "r p"]]:
    """x ~ N(0, I_p), a parameter θ* of the given norm, and labels ±1, sign(θ*·x) except for a share ``flip``.

    Towards a statistical theory of data selection, section 3: the labels are *not* logistic, which is what lets a
    selection beat the full sample. Float64.
    """
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(replications, n, p, generator=g, dtype=torch.float64)
    theta = F.normalize(torch.randn(replications, p, generator=g, dtype=torch.float64), dim=1) * norm
    y = torch.einsum("rnp,rp->rn", x, theta).sign()
    return x, torch.where(torch.rand(replications, n, generator=g) < flip, -y, y), theta


def misspecified_error(
    theta: Float[Tensor, "*r p"], truth: Float[Tensor, "*r p"], flip: float = 0.05
) -> Float[Tensor, "*r"]:
    """The exact test error of sign(θ·x) on ``mislabelled_gaussians``: flip + (1 - 2 flip) · angle(θ, θ*)/π."""
    cosine = F.cosine_similarity(theta, truth, dim=-1).clamp(-1, 1)
    return flip + (1 - 2 * flip) * cosine.arccos() / math.pi


def inclusion(logits: Float[Tensor, "r n"], count: int, alpha: float) -> Float[Tensor, "r n"]:
    """Probability of choosing each sample: min(1, c · [p(1 - p)]^α), with c such that they sum to ``count``.

    logits  of the surrogate model, clipped to ±10; p = sigmoid
    count   expected number of samples, 1 … n
    alpha   above 0 prefers hard (uncertain) samples, below 0 easy ones, 0 is random

    c is found by bisection on its logarithm. Raises ValueError for a count out of range.
    """
    n = logits.shape[-1]
    if not math.isfinite(alpha):
        raise ValueError(f"alpha must be finite, got {alpha}")
    if not 1 <= count <= n:
        raise ValueError(f"count must be between 1 and the {n} samples, got {count}")
    logits = logits.clamp(-10, 10)
    score = alpha * (F.logsigmoid(logits) + F.logsigmoid(-logits))  # log of [p(1 - p)]^α
    low, high = -score.amax(-1, keepdim=True) - 50, -score.amin(-1, keepdim=True)
    for _ in range(80):
        middle = (low + high) / 2
        enough = (middle + score).exp().clamp(max=1).sum(-1, keepdim=True) >= count
        low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
    return (high + score).exp().clamp(max=1)


def logistic(
    x: Float[Tensor, "r n p"], y: Float[Tensor, "r n"], weight: Float[Tensor, "r n"], lam: float, steps: int = 30
) -> Float[Tensor, "r p"]:
    """Ridge logistic regressions, all replications at once: argmin Σ wᵢ log(1 + exp(-yᵢ θ·xᵢ)) + λ n/2 ‖θ‖².

    y       labels ±1
    weight  0 leaves a sample out; 1/π makes a selection unbiased
    lam     λ > 0. It multiplies the *pool's* size n, whatever was selected

    Damped Newton steps: each is halved until the objective does not rise. Raises ValueError for λ <= 0.
    """
    check_positive(lam=lam)
    r, n, p = x.shape
    theta = x.new_zeros(r, p)
    eye = lam * n * torch.eye(p, dtype=x.dtype, device=x.device)

    def objective(theta):
        margin = y * torch.einsum("rnp,rp->rn", x, theta)
        return (weight * F.softplus(-margin)).sum(1) + lam * n / 2 * theta.square().sum(1)

    for _ in range(steps):
        margin = y * torch.einsum("rnp,rp->rn", x, theta)
        slope, curve = weight * torch.sigmoid(-margin), weight * torch.sigmoid(margin) * torch.sigmoid(-margin)
        gradient = lam * n * theta - torch.einsum("rn,rnp->rp", slope * y, x)
        step = torch.linalg.solve((x * curve[:, :, None]).mT @ x + eye, gradient)
        size, before = x.new_ones(r, 1), objective(theta)
        for _ in range(6):
            worse = objective(theta - size * step) > before + 1e-12
            size = torch.where(worse[:, None], size / 2, size)
        theta = theta - size * step
        if bool(gradient.norm(dim=1).max() < 1e-8 * n):
            break
    return theta


# ---------------------------------------------------------------------------------------------------------------------
# Gradient information optimisation (Everaert and Potts, 2024)
# ---------------------------------------------------------------------------------------------------------------------


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


# ---------------------------------------------------------------------------------------------------------------------
# SAS: subsets by augmentation similarity (Joshi and Mirzasoleiman, 2023)
# ---------------------------------------------------------------------------------------------------------------------


def augmentation_similarity(views: Float[Tensor, "v n d"]) -> Float[Tensor, "n n"]:
    """Expected cosine of the augmented views of two images under a proxy encoder, negative values set to 0.

    views  features of v >= 2 views of n images; the estimate averages over pairs of *different* draws
    """
    if views.ndim != 3 or len(views) < 2:
        raise ValueError(f"views must be features (v, n, d) of at least two views, got shape {tuple(views.shape)}")
    unit = F.normalize(views, dim=2)
    v, total = len(unit), unit.sum(0)
    same = torch.einsum("vnd,vmd->nm", unit, unit)
    return ((total @ total.T - same) / (v * (v - 1))).clamp_min(0)


def graph_cut(similarity: Float[Tensor, "n n"], chosen: Index) -> float:
    """Σ_{i not chosen} Σ_{j chosen} s_ij: how well the chosen stand for those left out. SAS, eq. 7."""
    inside = torch.zeros(len(similarity), dtype=torch.bool, device=similarity.device)
    inside[chosen] = True
    return float(similarity[~inside][:, inside].sum())


def greedy_graph_cut(similarity: Float[Tensor, "n n"], count: int) -> Index:
    """``count`` rows that greedily maximise ``graph_cut``, in the order of choice.

    Adding e gains Σᵢ s_ie - s_ee - 2 Σ_{j chosen} s_je, so a choice lowers the gain of all that resemble it: one row
    of the matrix is subtracted a step, O(n · count). For symmetric similarities. Raises ValueError for a count out of
    range.

    Departure: the released code never subtracts, which leaves a ranking by row sums.
    """
    if not 1 <= count <= len(similarity):
        raise ValueError(f"count must be between 1 and the {len(similarity)} rows, got {count}")
    gain = similarity.sum(0) - similarity.diagonal()
    picked = torch.empty(count, dtype=torch.int64, device=similarity.device)
    used = torch.zeros(len(similarity), dtype=torch.bool, device=similarity.device)
    for i in range(count):
        best = gain.masked_fill(used, -math.inf).argmax()
        picked[i] = best
        used[best] = True
        gain = gain - 2 * similarity[best]
    return picked


def sas(
    similarity: Float[Tensor, "n n"], classes: Int[Tensor, " n"], share: float, greedy: bool = True, low: bool = False
) -> Index:
    """The subset for contrastive learning: the same share of every (approximate) class, by augmentation similarity.

    classes  labels, or clusters of proxy features: SAS never compares across them
    share    of every class, in (0, 1]
    greedy   the submodular choice; False ranks by row sums, as the released code does
    low      the least similar instead: the control

    Raises ValueError for a share out of range.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must be in (0, 1], got {share}")
    if classes.shape != similarity.shape[:1]:
        raise ValueError(f"classes must have one entry for each of the {len(similarity)} rows, got {len(classes)}")
    chosen = []
    for one in classes.unique().tolist():
        members = (classes == one).nonzero()[:, 0]
        block = similarity[members][:, members]
        count = max(1, round(share * len(members)))
        if greedy and not low:
            chosen.append(members[greedy_graph_cut(block, count)])
        else:
            chosen.append(members[(block.sum(0) - block.diagonal()).argsort(descending=not low)[:count]])
    return torch.cat(chosen).sort().values
