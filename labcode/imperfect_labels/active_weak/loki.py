"""Loki: replace argmax by the Fréchet mean in the space of labels, and reach classes that were never trained on."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def frechet_mean(
    p: Float[Tensor, "n k"], d: Float[Tensor, "labels k"], power: float = 2.0
) -> Int[Tensor, " n"]:
    """argmin over *all* labels y of Σ_k P(λ_k | x) d(y, λ_k)²: Loki's prediction rule.

    Loki, eq. 2. One matrix product and no training.

    p      probabilities of the k observed classes
    d      distances from every label to the observed ones, in any unit
    power  2 in the paper; 1 gives the Fréchet median

    Equal sums go to the label that comes first. Raises ValueError where the numbers of classes differ.
    """
    if p.ndim != 2 or d.ndim != 2 or p.shape[1] != d.shape[1]:
        raise ValueError(f"p must be (n, k) and d (labels, k), got {tuple(p.shape)} and {tuple(d.shape)}")
    return (p @ d.to(p.dtype).pow(power).T).argmin(1)


def with_temperature(p: Float[Tensor, "n k"], t: float) -> Float[Tensor, "n k"]:
    """Probabilities with their logits divided by t > 0: towards 0 the largest alone is left."""
    if t <= 0:
        raise ValueError(f"t must be positive, got {t}")
    return torch.softmax(p.clamp(min=1e-30).log() / t, 1)


def squared_distance(
    predicted: Int[Tensor, " n"], truth: Int[Tensor, " n"], d: Float[Tensor, "labels labels"]
) -> float:
    """Mean squared distance of prediction and truth: the paper's measure, not accuracy."""
    return float(d[predicted, truth].double().square().mean())


def grid_distances(side: int) -> Float[Tensor, "labels labels"]:
    """Euclidean distances between the cells of a square grid, row by row."""
    at = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij"), -1).reshape(-1, 2).double()
    return torch.cdist(at, at)


def cycle_distances(n: int) -> Float[Tensor, "labels labels"]:
    """Steps between the places of a ring of n."""
    i = torch.arange(n)
    away = (i[:, None] - i).abs()
    return torch.minimum(away, n - away).double()


def tree_distances(parent: Int[Tensor, " n"]) -> Float[Tensor, "n n"]:
    """Edges between the vertices of a tree; ``parent[i] < i`` for i >= 1, and vertex 0 is the root.

    Raises ValueError for a parent that does not come before its child.
    """
    n = len(parent)
    if n > 1 and bool((parent[1:] >= torch.arange(1, n)).any()):
        raise ValueError("parent must name an earlier vertex for every vertex but the first")
    d = torch.zeros(n, n, dtype=torch.float64)
    for i in range(1, n):
        d[i, :i] = d[int(parent[i]), :i] + 1
        d[:i, i] = d[i, :i]
    return d


def random_tree(n: int, generator: torch.Generator) -> Int[Tensor, " n"]:
    """Parents of a random recursive tree: each vertex hangs on one of those before it, drawn uniformly."""
    draws = torch.rand(n, generator=generator)
    return torch.tensor([0] + [int(draws[i] * i) for i in range(1, n)])


def tree_locus(d: Float[Tensor, "n n"], observed: Int[Tensor, " k"]) -> Tensor:
    """Mask (n,) of the vertices of a tree that some probabilities over the observed ones can predict.

    Loki, theorem on trees: all vertices on the paths between observed ones. y lies on the path of u and v where
    d(u, y) + d(y, v) = d(u, v).
    """
    to = d[observed]
    return (to[:, None, :] + to[None, :, :] <= to[:, observed][..., None] + 1e-9).any(0).any(0)


def locus(d: Float[Tensor, "n n"], observed: Int[Tensor, " k"]) -> Tensor:
    """Mask (n,) of the labels of any finite metric that are a Fréchet mean for some probabilities.

    y is one where weights w >= 0 of sum 1 exist with Σ w_k (d(y, k)² - d(z, k)²) <= 0 for all z: a linear programme
    a label (SciPy). A label that is a mean only together with others counts.
    """
    import numpy as np
    from scipy.optimize import linprog

    square = d[:, observed].double().square().numpy()
    k = square.shape[1]
    ok = []
    for y in range(len(square)):
        found = linprog(np.zeros(k), square[y] - square, np.full(len(square), 1e-9), np.ones((1, k)), [1.0])
        ok.append(found.status == 0)
    return torch.tensor(ok)


def next_class(d: Float[Tensor, "n n"], observed: Int[Tensor, " k"]) -> int:
    """The vertex of a tree that is farthest from the present locus: the class to observe next.

    Loki, algorithm 1: the locus grows by the whole path to it, so that no other single vertex adds more. The first of
    equals. Raises ValueError where the locus is the whole tree.
    """
    reached = tree_locus(d, observed)
    if bool(reached.all()):
        raise ValueError(f"observed reaches all {len(d)} vertices already")
    return int(d[:, reached].amin(1).argmax())


def locus_sizes(
    d: Float[Tensor, "n n"], start: Int[Tensor, " k"], steps: int, generator: torch.Generator | None = None
) -> list[int]:
    """Vertices reached after each further class: chosen by ``next_class``, or at random with a generator."""
    observed, sizes = start, [int(tree_locus(d, start).sum())]
    for _ in range(steps):
        rest = [i for i in range(len(d)) if i not in observed.tolist()]
        if not rest:
            sizes.append(sizes[-1])
            continue
        if generator is not None:
            new = rest[int(torch.randint(len(rest), (1,), generator=generator))]
        else:
            new = next_class(d, observed) if sizes[-1] < len(d) else rest[0]
        observed = torch.cat([observed, torch.tensor([new])])
        sizes.append(int(tree_locus(d, observed).sum()))
    return sizes


def leaves(d: Float[Tensor, "n n"]) -> Int[Tensor, " l"]:
    """Vertices of a tree with one neighbour."""
    return ((d == 1).sum(1) == 1).nonzero()[:, 0]


def knn_probabilities(
    train: Float[Tensor, "m d"], labels: Int[Tensor, " m"], test: Float[Tensor, "t d"], k_classes: int, k: int = 5
) -> Float[Tensor, "t c"]:
    """Shares of the observed classes among the k nearest rows: the paper's second base classifier."""
    near = torch.cdist(test, train).topk(k, dim=1, largest=False).indices
    return torch.nn.functional.one_hot(labels[near], k_classes).double().mean(1)


CIFAR100_SUPER = (
    4, 1, 14, 8, 0, 6, 7, 7, 18, 3, 3, 14, 9, 18, 7, 11, 3, 9, 7, 11, 6, 11, 5, 10, 7, 6, 13, 15, 3, 15, 0, 11, 1, 10,
    12, 14, 16, 9, 11, 5, 5, 19, 8, 8, 15, 13, 14, 17, 18, 10, 16, 4, 17, 4, 2, 0, 17, 4, 18, 17, 10, 3, 2, 12, 12, 16,
    12, 1, 9, 19, 2, 10, 0, 1, 16, 12, 9, 13, 15, 13, 16, 19, 2, 4, 6, 19, 5, 5, 8, 19, 18, 1, 2, 15, 6, 0, 17, 8, 14,
    13,
)  # fmt: skip


def hierarchy_distances(group: tuple[int, ...] = CIFAR100_SUPER) -> Float[Tensor, "n n"]:
    """Edges between the leaves of a tree of two levels: 0 for a class itself, 2 within a group, 4 between groups."""
    g = torch.tensor(group)
    d = torch.where(g[:, None] == g, 2.0, 4.0).double()
    return d.fill_diagonal_(0)
