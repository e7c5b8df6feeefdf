"""TypiClust: label typical rows of clusters that have no label yet; and the theory of two learners behind it."""

from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...cluster import kmeans
from .acquisition import Labelled, Pool, Probabilities, check_pool, largest

NEIGHBOURS, MOST, SMALL = 20, 500, 5  # K, clusters at most, and a cluster of so few rows is left out


def typicality(x: Float[Tensor, "n d"], k: int) -> Float[Tensor, " n"]:
    """1 / (mean distance to the k nearest other rows + 1e-5): large where rows lie dense.

    TypiClust, eq. 4. Distances are Euclidean, as the paper has them; the released code averages squared ones.

    k  1 … n - 1; one row alone has typicality 1

    Raises ValueError for k outside that range.
    """
    if len(x) == 1:
        return torch.ones_like(x[:, 0])
    if not 1 <= k < len(x):
        raise ValueError(f"k must be 1 … {len(x) - 1}, got {k}")
    distance = torch.cdist(x, x).fill_diagonal_(torch.inf)
    return 1 / (distance.topk(k, dim=1, largest=False).values.mean(1) + 1e-5)


def typiclust(
    features: Pool, probabilities: Probabilities, labelled: Labelled, budget: int, *, generator: torch.Generator,
    member: str = "typical", partition=kmeans,
) -> Int[Tensor, " budget"]:  # fmt: skip
    """One row from each of the largest clusters that have the fewest labels: the one in the densest place.

    TypiClust, algorithm 1. The pool is cut into min(labelled + budget, 500) clusters, anew each round. Clusters of
    five rows or fewer are left out. They are visited from the fewest labels to the most, and from the largest to the
    smallest, again from the first where the budget is larger. Typicality is computed among a cluster's rows without a
    label, with K = min(20, half of them). No classifier is used.

    member     "typical"; "atypical", the sparsest row, or "random", for the ablations
    partition  ``(features, k, seed) -> (anything, cluster of each row)``

    The released code takes mini-batches for k-means from 51 clusters on; here it is Lloyd's throughout. Clusters whose
    rows have all been chosen are passed over.
    """
    if member not in ("typical", "atypical", "random"):
        raise ValueError(f"member must be 'typical', 'atypical' or 'random', got {member!r}")
    free = check_pool(features, probabilities, labelled, budget)
    k = min(len(labelled) + budget, MOST, len(features))
    seed = int(torch.randint(2**31, (1,), generator=generator, device=generator.device))
    cluster = partition(features, k, seed)[1]
    count = torch.bincount(cluster, minlength=k)
    covered = torch.bincount(cluster[labelled], minlength=k)
    order = sorted((i for i in range(k) if count[i] > SMALL), key=lambda i: (int(covered[i]), -int(count[i])))
    order = order or list(range(k))
    chosen, turn = [], 0
    while len(chosen) < budget:
        rows = ((cluster == order[turn % len(order)]) & free).nonzero()[:, 0]
        turn += 1
        if not len(rows):
            if turn > 2 * len(order) + len(features):
                break
            continue
        if member == "random":
            at = int(torch.randint(len(rows), (1,), generator=generator, device=generator.device))
        else:
            dense = typicality(features[rows], min(NEIGHBOURS, max(1, len(rows) // 2)))
            at = int(dense.argmax() if member == "typical" else dense.argmin())
        chosen.append(int(rows[at]))
        free[rows[at]] = False
    rest = budget - len(chosen)  # every kept cluster is used up: any of the others
    more = largest(torch.zeros_like(features[:, 0]), free, rest, generator) if rest else labelled[:0]
    return torch.cat([torch.tensor(chosen, dtype=torch.int64, device=features.device), more])


cluster_random = partial(typiclust, member="random")  # the clusters without typicality
cluster_atypical = partial(typiclust, member="atypical")  # the opposite choice in the same clusters


def typical_only(
    features: Pool, probabilities: Probabilities, labelled: Labelled, budget: int, *, generator: torch.Generator
) -> Int[Tensor, " budget"]:
    """The most typical rows of the whole pool, without clusters: dense, and all alike."""
    free = check_pool(features, probabilities, labelled, budget)
    return largest(typicality(features, min(NEIGHBOURS, len(features) - 1)), free, budget, generator)


def lloyd(features: Float[Tensor, "n d"], k: int, seed: int):
    """k-means that ends after 12 iterations at most: what the rounds of this chapter can pay for."""
    return kmeans(features, k, seed, iterations=12)


def two_learners(
    m: Float[Tensor, " m"], share: Float[Tensor, "..."], p: float, alpha: float, rate: float = 1.0
) -> Float[Tensor, " m"]:
    """Expected error p·E(share·m) + (1 - p)·E(α(1 - share)·m) of a mixture of two learners, with E(m) = exp(-rate·m).

    TypiClust, section 3: region 1, a share p of the data, is learnt from few labels; region 2 needs 1/α times as many.

    share  of the m labels that goes to region 1; p is what random choice gives it

    Raises ValueError for p, alpha outside (0, 1) and rate <= 0.
    """
    if not (0 < p < 1 and 0 < alpha < 1 and rate > 0):
        raise ValueError(f"p and alpha must lie in (0, 1) and rate above 0, got {p}, {alpha}, {rate}")
    return p * torch.exp(-rate * share * m) + (1 - p) * torch.exp(-rate * alpha * (1 - share) * m)


def over_sample_typical(m: Float[Tensor, " m"], p: float, alpha: float, rate: float = 1.0):
    """Whether a few labels more for region 1 lower the error at budget m: E'(pm) / E'(α(1-p)m) > α(1-p)/p.

    TypiClust, the threshold test of section 3; the derivative of ``two_learners`` in the share at p, rearranged.
    """
    ratio = torch.exp(-rate * m * (p - alpha * (1 - p)))
    return ratio > alpha * (1 - p) / p


def transition(p: float, alpha: float, rate: float = 1.0) -> float:
    """The budget at which the test changes its answer, for exponential errors: ln(p / α(1-p)) / (rate·(p - α(1-p))).

    Below it typical rows are the better choice, above it atypical ones. Raises ValueError where p <= α(1-p): then
    region 2 is the one that is learnt first.
    """
    easy, hard = p, alpha * (1 - p)
    if easy <= hard:
        raise ValueError(f"p must be above alpha (1 - p) = {hard:.4g}, got {p}")
    return float(torch.log(torch.tensor(easy / hard, dtype=torch.float64)) / (rate * (easy - hard)))


def cells_error(
    m: int, share: float, *, p: float, cells: int, draws: int, generator: torch.Generator
) -> Float[Tensor, " draws"]:
    """Error of a learner by heart on two regions: two cells that are easy, and ``cells`` cells that are hard.

    A cell's label is known once a row of it has one; else the learner guesses between two classes. Region 1 has two
    cells and a share p of the data, region 2 has ``cells``. ``share`` of the m labels fall into region 1 at random.
    The exact error of each draw of labelled rows, no test set.
    """
    easy = round(share * m)
    errors = []
    for count, size, weight in ((easy, 2, p), (m - easy, cells, 1 - p)):
        seen = torch.zeros(draws, size, dtype=torch.bool)
        if count:
            seen.scatter_(1, torch.randint(size, (draws, count), generator=generator), True)
        errors.append(weight * 0.5 * (1 - seen.double().mean(1)))
    return errors[0] + errors[1]


def spreading(features: Float[Tensor, "n d"], k: int = 10, alpha: float = 0.95) -> Float[Tensor, "n n"]:
    """(1 - α)(I - αS)⁻¹ of the graph of k nearest neighbours: what one label says about every row.

    Label spreading (Zhou et al. 2004), the semi-supervised learner that takes FlexMatch's place here. S is the
    symmetric graph, normalised by its degrees. One inverse serves every choice of labelled rows.
    """
    distance = torch.cdist(features, features).fill_diagonal_(torch.inf)
    near = distance.topk(k, dim=1, largest=False).indices
    graph = torch.zeros_like(distance).scatter_(1, near, 1)
    graph = (graph + graph.T) / 2
    degree = graph.sum(1).rsqrt()
    s = degree[:, None] * graph * degree
    return (1 - alpha) * torch.linalg.inv(torch.eye(len(s), dtype=s.dtype, device=s.device) - alpha * s)


def spread_accuracy(
    kernel: Float[Tensor, "n n"], labels: Int[Tensor, " n"], chosen: Int[Tensor, "r m"], classes: int = 10
) -> Float[Tensor, " r"]:
    """Share of the rows without a label that label spreading gets right, for each draw of labelled rows."""
    target = torch.nn.functional.one_hot(labels[chosen], classes).to(kernel.dtype)
    target = target / target.sum(1, keepdim=True).clamp(min=1)  # a class with many labels does not outvote the others
    scores = torch.einsum("nrm,rmc->rnc", kernel[:, chosen], target)
    right = (scores.argmax(2) == labels).double()
    right.scatter_(1, chosen, 0)
    return right.sum(1) / (len(labels) - chosen.shape[1])
