"""Clusters from random pairs: agglomeration by connected components, and a baseline with side information."""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Pairs = Int[Tensor, "m 2"]
Bits = Bool[Tensor, " m"]


def hidden_partition(sizes: list[int]) -> Int[Tensor, " n"]:
    """Items 0 … n - 1 in classes of these sizes, one class after another."""
    return torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))


def skewed_sizes(n: int, k: int, ratio: float = 2.0) -> list[int]:
    """k class sizes that fall geometrically from the largest to the smallest, by ``ratio`` in all, of sum n."""
    shares = ratio ** (-torch.arange(k).double() / max(1, k - 1))
    sizes = (shares / shares.sum() * n).floor().long()
    sizes[0] += n - sizes.sum()
    return sizes.tolist()


def draw_pairs(y: Int[Tensor, " n"], m: int, generator: torch.Generator) -> tuple[Pairs, Bits]:
    """m pairs of different items, uniform with replacement, and whether their classes are the same."""
    i = torch.randint(len(y), (m,), generator=generator)
    j = (i + 1 + torch.randint(len(y) - 1, (m,), generator=generator)) % len(y)
    return torch.stack([i, j], 1), y[i] == y[j]


def components(n: int, pairs: Pairs) -> Int[Tensor, " n"]:
    """The smallest item of the connected component of each item.

    Hooking and pointer jumping in place of union-find: each round is a few passes over the pairs and items, and there
    are about log n of them, so many problems may be laid side by side in one call.
    """
    root = torch.arange(n)
    if not len(pairs):
        return root
    while True:
        low = torch.minimum(root[pairs[:, 0]], root[pairs[:, 1]])
        new = root.clone()
        for side in (0, 1):
            new.scatter_reduce_(0, root[pairs[:, side]], low, "amin")
        while not torch.equal(new, new[new]):
            new = new[new]
        if torch.equal(new, root):
            return root
        root = new


def saca(n: int, pairs: Pairs, same: Bits, k: int | None = None) -> Int[Tensor, " n"]:
    """Agglomerative clustering from pair bits: clusters are the components of the "same" pairs.

    On Pairwise Clustering with Side Information, the algorithm SACA as far as its abstract and secondary sources tell:
    simple, agglomerative, in near-linear time.

    k  with a number of clusters the components beyond the k largest are merged greedily, from the largest on, each
       into the largest cluster that no "different" pair forbids; None leaves them as they are, singletons too. The
       greedy rule is ours: the full text was not at hand

    Raises ValueError for pairs outside 0 … n - 1, bits of another number and k < 1.
    """
    if len(pairs) and not 0 <= int(pairs.min()) <= int(pairs.max()) < n:
        raise ValueError(f"pairs must hold items 0 … {n - 1}, got {int(pairs.min())} … {int(pairs.max())}")
    if len(same) != len(pairs) or (k is not None and k < 1):
        raise ValueError(f"same must have {len(pairs)} bits and k be at least 1, got {len(same)} and {k}")
    root = components(n, pairs[same])
    if k is None:
        return root
    names, which, count = root.unique(return_inverse=True, return_counts=True)
    rank = count.argsort(descending=True, stable=True).argsort(stable=True)  # 0 for the largest
    part = rank[which]
    apart = part[pairs[~same]]
    apart = apart[(apart >= k).any(1)].unique(dim=0) if len(apart) else apart  # of large ones it goes without saying
    forbidden: dict[int, set[int]] = {}
    for a, b in apart.tolist():
        forbidden.setdefault(a, set()).add(b)
        forbidden.setdefault(b, set()).add(a)
    final = list(range(len(names)))
    against = [set(forbidden.get(c, ())) for c in range(min(k, len(names)))]  # components that a cluster must not take
    for c in range(k, len(names)):
        to = next((i for i in range(len(against)) if c not in against[i]), 0)
        final[c] = to
        against[to] |= forbidden.get(c, set())
    return torch.tensor(final)[part]


def two_colouring(n: int, pairs: Pairs, same: Bits) -> Int[Tensor, " n"]:
    """For two classes: "different" bits say as much as "same" ones. Items of a component of *all* pairs get one of two
    colours that agree with every bit; components of which only one may be right keep names of their own.

    Each item is doubled, (i, 0) and (i, 1): same joins equal copies, different joins opposite ones.
    """
    i, j = pairs[:, 0], pairs[:, 1]
    flip = (~same).long() * n
    doubled = torch.cat([torch.stack([i, j + flip], 1), torch.stack([i + n, (j + n + flip) % (2 * n)], 1)])
    return components(2 * n, doubled)[:n]


def items_wrong(found: Int[Tensor, " n"], y: Int[Tensor, " n"]) -> int:
    """Items outside of the best matching of clusters and classes, each cluster matched to one class at most.

    The paper's measure. Clusters without a class, singletons above all, count as wrong with all of their items.
    """
    from scipy.optimize import linear_sum_assignment

    _, a = found.unique(return_inverse=True)
    _, b = y.unique(return_inverse=True)
    table = torch.zeros(int(a.max()) + 1, int(b.max()) + 1, dtype=torch.int64)
    table.index_put_((a, b), torch.ones_like(a), accumulate=True)
    rows, columns = linear_sum_assignment(table.numpy(), maximize=True)
    return len(y) - int(table[rows, columns].sum())


def pairs_wrong(found: Int[Tensor, " n"], y: Int[Tensor, " n"]) -> float:
    """Share of all pairs on which two partitions disagree: the measure that the paper argues against."""
    a, b = found[:, None] == found, y[:, None] == y
    return float((a != b).double().sum() / (len(y) * (len(y) - 1)))


def expected_missing(sizes: list[int], m: int) -> float:
    """Expected items without any "same" pair: Σ s (1 - 2(s - 1) / (n(n - 1)))^m, near Σ s·exp(-2ms/n²)."""
    n = sum(sizes)
    return sum(s * (1 - 2 * (s - 1) / (n * (n - 1))) ** m for s in sizes)


def bound(n: int, k: int, m: int) -> float:
    """k n² / (2 e m): what ``expected_missing`` is at most, whatever the sizes, since s·exp(-cs) <= 1 / (ce)."""
    return k * n * n / (2 * math.e * m)


def planted_graph(
    y: Int[Tensor, " n"], degree: float, agreement: float, generator: torch.Generator
) -> Float[Tensor, "n n"]:
    """A symmetric random graph: a share ``agreement`` of the edges lies within classes, the rest anywhere."""
    n, count = len(y), round(len(y) * degree / 2)
    i = torch.randint(n, (count,), generator=generator)
    anywhere = torch.randint(n, (count,), generator=generator)
    order = torch.rand(count, n, generator=generator).masked_fill(y[i][:, None] != y, -1).argmax(1)  # of i's class
    j = torch.where(torch.rand(count, generator=generator) < agreement, order, anywhere)
    w = torch.zeros(n, n, dtype=torch.float64)
    w[i, j] = 1
    w = torch.maximum(w, w.T)
    return w.fill_diagonal_(0)


def effective_resistance(w: Float[Tensor, "n n"]) -> Float[Tensor, "n n"]:
    """The resistance between all pairs of a graph of unit resistors, weights being conductances.

    R_ij = L⁺_ii + L⁺_jj - 2 L⁺_ij, with a faint conductance of 1e-6 between all, so that separate parts
    have a finite one.
    """
    n = len(w)
    laplacian = torch.diag(w.sum(1)) - w
    inverse = torch.linalg.inv(laplacian + 1e-6 * (n * torch.eye(n, dtype=w.dtype) - 1) + torch.full_like(w, 1 / n))
    inverse = inverse - 1 / n  # the constant vector has eigenvalue 1 there: taken off again
    diagonal = inverse.diagonal()
    return (diagonal[:, None] + diagonal - 2 * inverse).clamp(min=0)


def resistance_cut(w: Float[Tensor, "n n"], y: Int[Tensor, " n"]) -> float:
    """Σ over edges between classes of weight · resistance: the expected number of them in a random spanning tree.

    The quantity on which the paper's bound for RGCA is said to depend.
    """
    return float((w * effective_resistance(w))[y[:, None] != y].sum() / 2)


def side_information(
    w: Float[Tensor, "n n"], pairs: Pairs, same: Bits, k: int, groups: int | None = None, seed: int = 0
) -> Int[Tensor, " n"]:
    """A baseline that takes a graph: fine groups by the graph's spectrum, merged by the majority of the pairs' bits.

    This is *not* the paper's RGCA, whose text was not at hand. k-means on the first k eigenvectors of the normalised
    Laplacian makes 3k groups; of any two groups the pairs between them vote "same" or "different", and the two with
    the largest surplus for "same" a pair are merged, until k are left.
    """
    from ...cluster import kmeans

    degree = w.sum(1).clamp(min=1e-9).rsqrt()
    vectors = torch.linalg.eigh(degree[:, None] * w * degree).eigenvectors[:, -k:]
    vectors = torch.nn.functional.normalize(vectors, dim=1)
    which = kmeans(vectors, groups or 3 * k, seed)[1]
    count = int(which.max()) + 1
    votes = torch.zeros(count, count, dtype=torch.float64)
    sign = same.double() * 2 - 1
    i, j = which[pairs[:, 0]], which[pairs[:, 1]]
    votes.index_put_((i, j), sign, accumulate=True)
    seen = torch.zeros_like(votes).index_put_((i, j), torch.ones_like(sign), accumulate=True)
    votes, seen = votes + votes.T, seen + seen.T
    left, name = list(range(count)), torch.arange(count)
    while len(left) > k:
        rate = (votes / (seen + 1))[left][:, left].fill_diagonal_(-torch.inf)
        a, b = divmod(int(rate.argmax()), len(left))
        a, b = left[a], left[b]
        for table in (votes, seen):
            table[a] += table[b]
            table[:, a] += table[:, b]
        name[name == b] = a
        left.remove(b)
    return name[which]


def signed_spectral(n: int, pairs: Pairs, same: Bits, k: int, seed: int = 0) -> Int[Tensor, " n"]:
    """A rival that uses "different" bits too: k-means on the leading eigenvectors of the matrix of signs."""
    from ...cluster import kmeans

    a = torch.zeros(n, n, dtype=torch.float64)
    sign = same.double() * 2 - 1
    a.index_put_((pairs[:, 0], pairs[:, 1]), sign, accumulate=True)
    a = a + a.T
    degree = a.abs().sum(1).clamp(min=1).rsqrt()
    vectors = torch.linalg.eigh(degree[:, None] * a * degree).eigenvectors[:, -max(1, k - 1) :]
    return kmeans(vectors, k, seed)[1]
