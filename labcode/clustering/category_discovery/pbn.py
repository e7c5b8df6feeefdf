"""PBN (Troisemaine et al., 2024): one plain net for tables, tuned by classes that are hidden on purpose."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from ...loss import check_finite, check_matrix, float32, unit_rows
from ...train import allowed
from ..many_kmeans import Partitions, many_kmeans
from ..spectral import spectral_vectors
from .protocol import Problem, discovery_accuracy, discovery_problem
from .stacked import StackedMLP


@float32
def pbn_loss(
    logits: Float[Tensor, "n c"],
    known: Int[Tensor, " n"],
    rebuilt: Float[Tensor, "n d"],
    x: Float[Tensor, "n d"],
    w: float = 0.5,
) -> Float[Tensor, ""]:
    """w CE(known rows) + (1 - w) mean_n ‖x - x̂‖²: PBN, eq. 1. All rows are rebuilt, known and novel.

    logits   of a linear classifier on the latent z
    known    class of known rows, -1 for the others
    rebuilt  the decoder's x̂
    w        in [0, 1]. The squared error is summed over columns, so a good w depends on how many there are

    CE is 0 without known rows. Raises ValueError for w out of range and shapes that do not fit.
    """
    check_matrix("logits", logits)
    check_matrix("x", x)
    if not 0 <= w <= 1:
        raise ValueError(f"w must be in [0, 1], got {w}")
    if rebuilt.shape != x.shape or known.shape != (len(x),) or len(logits) != len(x):
        raise ValueError(
            f"rebuilt must be like x, {tuple(x.shape)}, and known (n,), got {tuple(rebuilt.shape)}, "
            f"{tuple(known.shape)}"
        )
    fixed = (known >= 0).to(x.dtype)
    each = F.cross_entropy(logits, known.clamp_min(0).clamp_max(logits.shape[1] - 1), reduction="none")
    return w * (each * fixed).sum() / fixed.sum().clamp_min(1) + (1 - w) * (x - rebuilt).square().sum(1).mean()


class PBN(nn.Module):
    """Encoder, mirrored decoder and linear classifier for r settings at once.

    latent  width for each setting, at most ``width``: surplus coordinates are held at 0
    norm    rows of the latent are brought to length 1 ("l2") or left (None)
    """

    def __init__(
        self,
        d: int,
        classes: int,
        latent: list[int],
        *,
        generator: Generator,
        hidden: int = 64,
        norm: str | None = None,
    ):
        super().__init__()
        r, width = len(latent), max(latent)
        self.norm = norm
        self.encoder = StackedMLP([d, hidden, width], r, generator=generator, copies=True)
        self.decoder = StackedMLP([width, hidden, d], r, generator=generator, copies=True)
        self.classifier = StackedMLP([width, classes], r, generator=generator, copies=True)
        keep = torch.arange(width)[None] < torch.tensor(latent)[:, None]
        self.register_buffer("keep", keep.float()[:, None].to(generator.device), persistent=False)

    def encode(self, x: Float[Tensor, "r n d"]) -> Float[Tensor, "r n z"]:
        z = self.encoder(x) * self.keep
        return unit_rows(z, 2) if self.norm == "l2" else z


def train_pbn(
    x: Float[Tensor, "n d"],
    known: Int[Tensor, "r n"],
    w: Float[Tensor, " r"],
    latent: list[int],
    *,
    generator: Generator,
    steps: int = 300,
    batch: int = 128,
    lr: float = 3e-3,
    hidden: int = 64,
    norm: str | None = None,
) -> PBN:
    """One PBN for each row of ``known``: settings and folds side by side, on the same batches.

    known  class of the rows that a setting may know, -1 for the others; classes that a setting knows no row of are left
           out of its softmax, as if they did not exist

    AdamW as released; 64 hidden units. The released code normalises z in training but not when it predicts; here it
    does what ``norm`` says both times.
    """
    check_matrix("x", x)
    check_finite(x=x)
    r, classes = len(known), int(known.max()) + 1
    there = F.one_hot(known.clamp_min(0), classes).mul((known >= 0)[..., None]).amax(1).bool()
    model = PBN(x.shape[1], classes, latent, generator=generator, hidden=hidden, norm=norm)
    adam, w = torch.optim.AdamW(model.parameters(), lr, fused=True), w.to(x)
    for _ in range(allowed(steps)):
        at = torch.randint(len(x), (batch,), generator=generator, device=x.device)
        seen = x[at].expand(r, -1, -1)
        z, y = model.encode(seen), known[:, at]
        log_p = model.classifier(z).masked_fill(~there[:, None], -1e9).log_softmax(2)
        fixed = (y >= 0).to(x.dtype)
        taught = -(log_p.gather(2, y.clamp_min(0)[..., None])[..., 0] * fixed).sum(1) / fixed.sum(1).clamp_min(1)
        rebuilt = (seen - model.decoder(z)).square().sum(2).mean(1)
        loss = (w * taught + (1 - w) * rebuilt).sum()
        adam.zero_grad()
        loss.backward()
        adam.step()
    return model


def hidden_class_folds(old: int, hide: int, folds: int, *, generator: Generator) -> list[list[int]]:
    """Which known classes each fold hides: each time those that were hidden least often.

    Raises ValueError where nothing would be left to know.
    """
    if not 1 <= hide < old:
        raise ValueError(f"hide must be between 1 and {old - 1}, got {hide}")
    times, found = torch.zeros(old), []
    for _ in range(folds):  # those that were hidden least often, ties broken at random
        fold = (times + torch.rand(old, generator=generator)).argsort()[:hide]
        times[fold] += 1
        found.append(sorted(fold.tolist()))
    return found


def choose_by_hiding(p: Problem, options, cluster, *, hide: int = 2, folds: int = 3, generator: Generator):
    """The option under which a method clusters hidden known classes best: PBN's tuning, for any method.

    cluster  ``cluster(problem, option)``: clusters of the problem's unlabelled rows, which are of hidden classes alone

    Returns it and every option's mean accuracy over the folds; the first of equals.
    """
    dealt, scores = hidden_class_folds(p.old, hide, folds, generator=generator), {}
    for option in options:
        each = []
        for fold in dealt:
            rest = [c for c in range(p.old) if c not in fold]
            q = discovery_problem(p.x[p.labelled], p.y[p.labelled], rest, share=1.0, generator=generator)
            each.append(discovery_accuracy(cluster(q, option), q.y[~q.labelled], q.old)["New"])
        scores[option] = sum(each) / len(each)
    return max(scores, key=scores.get), scores


@torch.no_grad()
def ncd_kmeans(
    x: Float[Tensor, "n d"],
    known_means: Float[Tensor, "c d"],
    k: int,
    *,
    generator: Generator,
    restarts: int = 10,
    power: float = 1.0,
) -> Partitions:
    """k-means whose seeds keep away from the known classes: NCD k-means (Troisemaine et al., 2024), as released.

    Each seed is drawn in proportion to the distance from the nearest known mean or earlier seed; then the known means
    drop out, and Lloyd's iterations move the k new centroids on the novel rows alone.

    known_means  (c, d), c >= 1
    power        1 as released; 2 is k-means++'s square

    Inertia is the sum of squares. Raises ValueError for known_means of another width, and as ``many_kmeans``.
    """
    check_matrix("x", x)
    check_matrix("known_means", known_means)
    if known_means.shape[1] != x.shape[1]:
        raise ValueError(f"known_means must be as wide as x, {x.shape[1]}, got {known_means.shape[1]}")
    near = torch.cdist(x, known_means).amin(1).expand(restarts, -1)
    seeds = []
    for _ in range(k):
        at = near.double().pow(power).cumsum(1)
        draw = torch.rand(restarts, 1, generator=generator, device=x.device, dtype=torch.float64)
        pick = torch.searchsorted(at, draw * at[:, -1:]).clamp_(max=len(x) - 1)[:, 0]
        seeds.append(x[pick])
        near = torch.minimum(near, torch.cdist(x, seeds[-1]).T)
    return many_kmeans(x, k, restarts=restarts, generator=generator, start=torch.stack(seeds, 1))


@torch.no_grad()
def tree_affinity(x: Float[Tensor, "n d"], min_dist: float = 0.5) -> Float[Tensor, "n n"]:
    """A Gaussian kernel in which the longest edge of the minimum spanning tree has the affinity √min_dist.

    σ² = -max d² / log(min_dist) over the tree's edges and exp(-d² / 2σ²), as NCD spectral clustering is released; the
    diagonal is 0. An outlier stretches the tree and flattens the kernel.

    min_dist  in (0, 1). Raises ValueError outside.
    """
    from scipy.sparse.csgraph import minimum_spanning_tree

    if not 0 < min_dist < 1:
        raise ValueError(f"min_dist must be in (0, 1), got {min_dist}")
    square = torch.cdist(x, x).square()
    longest = float(minimum_spanning_tree(square.cpu().numpy()).max())
    affinity = (square * (math.log(min_dist) / (2 * max(longest, 1e-12)))).exp()
    return affinity.fill_diagonal_(0)


def ncd_spectral(
    novel: Float[Tensor, "n d"],
    known: Float[Tensor, "m d"],
    y: Int[Tensor, " m"],
    k: int,
    *,
    generator: Generator,
    min_dist: float = 0.5,
    components: int | None = None,
) -> Int[Tensor, " n"]:
    """Spectral embedding of novel and known rows together, then NCD k-means: NCD spectral clustering, as released.

    components  eigenvectors after the first; None is known and new classes together
    """
    both = torch.cat([novel, known])
    count = components or k + int(y.max()) + 1
    vectors = spectral_vectors(tree_affinity(both, min_dist), min(count + 1, len(both)))[:, 1:].float()
    means = torch.stack([vectors[len(novel) :][y == c].mean(0) for c in y.unique()])
    found = ncd_kmeans(vectors[: len(novel)], means, k, generator=generator)
    return found.labels[found.best]


@torch.no_grad()
def silhouette(x: Float[Tensor, "n d"], labels: Int[Tensor, " n"]) -> float:
    """Mean of (b - a) / max(a, b): distance to the nearest other cluster against that to the own; Rousseeuw (1987).

    0 for a row alone in its cluster. In [-1, 1]. Memory O(n²). Raises ValueError for one cluster, or one for each row.
    """
    check_matrix("x", x)
    names, labels = labels.unique(return_inverse=True)
    if not 2 <= len(names) < len(x):
        raise ValueError(f"labels must have 2 … n - 1 clusters, got {len(names)} of {len(x)} rows")
    member = F.one_hot(labels).to(x.dtype)
    count = member.sum(0)
    total = torch.cdist(x, x) @ member
    own = member.bool()
    a = total[own] / (count[labels] - 1).clamp_min(1)
    b = (total / count).masked_fill(own, torch.inf).amin(1)
    value = (b - a) / torch.maximum(a, b).clamp_min(1e-12)
    return float(torch.where(count[labels] > 1, value, 0).mean())


def validity(x: Float[Tensor, "n d"], labels: Int[Tensor, " n"], index: str = "silhouette") -> float:
    """How well separated clusters are; larger is better. ``index`` "silhouette", "calinski" or "davies" (negated)."""
    if index == "silhouette":
        return silhouette(x, labels)
    from sklearn.metrics import calinski_harabasz_score, davies_bouldin_score

    rows, names = x.cpu().numpy(), labels.cpu().numpy()
    if index not in ("calinski", "davies"):
        raise ValueError(f"index must be 'silhouette', 'calinski' or 'davies', got {index!r}")
    return (
        float(calinski_harabasz_score(rows, names))
        if index == "calinski"
        else -float(davies_bouldin_score(rows, names))
    )


@torch.no_grad()
def estimate_classes(
    x: Float[Tensor, "n d"],
    ks: tuple[int, ...],
    *,
    generator: Generator,
    indices: tuple[str, ...] = ("silhouette",),
    restarts: int = 5,
) -> dict[str, int]:
    """The k of k-means that each index likes best; "elbow" is the k farthest from the chord of the inertia's curve.

    ks  numbers tried, rising; the released notebook tries 2 … 29
    """
    runs = [many_kmeans(x, k, restarts=restarts, generator=generator, iterations=40) for k in ks]
    chosen = {}
    for index in indices:
        if index == "elbow":
            curve = torch.stack([run.inertia.min() for run in runs]).double()
            at = torch.linspace(0, 1, len(ks), dtype=torch.float64)
            scores = (1 - at - (curve - curve[-1]) / (curve[0] - curve[-1]).clamp_min(1e-12)).tolist()
        else:
            scores = [validity(x, run.labels[run.best], index) for run in runs]
        chosen[index] = ks[max(range(len(ks)), key=lambda i: scores[i])]
    return chosen


def known_split(p: Problem) -> tuple[Tensor, Tensor]:
    """Rows of known and of novel classes of a problem in which all old rows are labelled."""
    return p.x[p.labelled], p.x[~p.labelled]
