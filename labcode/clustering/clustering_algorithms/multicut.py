"""Multicut on the complete graph whose edge costs are inner products: no cluster count, and no n×n matrix."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...loss import check_finite, check_matrix


@dataclass(frozen=True)
class Cut:
    """A clustering: labels (n,), how many merges made it, and how many products of features or costs were looked at."""

    labels: Int[Tensor, " n"]
    merges: int
    looked: int
    held: int  # numbers that were kept in memory at a time

    @property
    def clusters(self) -> int:
        """How many clusters there are."""
        return int(self.labels.max()) + 1


def pair_costs(f: Float[Tensor, "n d"], alpha: float) -> Float[Tensor, "n n"]:
    """c_ij = ⟨f_i, f_j⟩ - α: positive pairs attract. The diagonal is 0."""
    return (f @ f.T - alpha).fill_diagonal_(0)


def multicut_value(f: Float[Tensor, "n d"], labels: Int[Tensor, " n"], alpha: float) -> float:
    """Σ c_ij over the pairs that are cut, on the complete graph; lower is better. From cluster sums, O(nd)."""
    sums = torch.zeros(int(labels.max()) + 1, f.shape[1], dtype=f.dtype, device=f.device).index_add_(0, labels, f)
    count = torch.bincount(labels).to(f.dtype)
    total = (f.sum(0).square().sum() - sums.square().sum()) / 2  # Σ of products across clusters
    pairs = (len(f) ** 2 - count.square().sum()) / 2
    return float(total - alpha * pairs)


def explicit_gaec(c: Float[Tensor, "n n"]) -> Cut:
    """Greedy additive edge contraction (Keuper et al. 2015) on a matrix of costs, absent edges 0: O(n²) memory.

    Contract the pair with the largest cost while it is positive; costs of parallel edges add.
    """
    n = len(c)
    c = c.clone().fill_diagonal_(-torch.inf)
    labels, looked = torch.arange(n), n * n
    best, partner = c.max(1)
    for merges in range(n):  # noqa: B007
        a = int(best.argmax())
        if not float(best[a]) > 0:
            break
        b = int(partner[a])
        row = c[a] + c[b]
        row[[a, b]] = -torch.inf
        c[a], c[:, a] = row, row
        c[b], c[:, b] = -torch.inf, -torch.inf
        labels[labels == b] = a
        stale = (partner == a) | (partner == b)
        stale[a] = True
        best[b] = -torch.inf
        stale[b] = False
        better = row > best
        best, partner = torch.where(better, row, best), torch.where(better, a, partner)
        where = stale.nonzero()[:, 0]
        best[where], partner[where] = c[where].max(1)
        looked += n * (1 + len(where))
    else:
        merges = n
    return Cut(labels.unique(return_inverse=True)[1], merges, looked, n * n)


class _Nodes:
    """Clusters as vectors: the sum of their members' features and a last coordinate √α n_A that counts minus."""

    def __init__(self, f: Tensor, alpha: float):
        self.v = torch.cat([f, torch.full_like(f[:, :1], alpha**0.5)], 1)
        self.alive = torch.ones(len(f), dtype=torch.bool)
        self.labels = torch.arange(len(f))
        self.merges = self.looked = 0
        self.sign = torch.ones(f.shape[1] + 1, dtype=f.dtype)
        self.sign[-1] = -1

    def costs(self, rows) -> Tensor:
        """Costs of some nodes to all, -inf to themselves and to what is merged: exhaustive search, O(nd) a row."""
        found = (self.v[rows] * self.sign) @ self.v.T
        found[:, ~self.alive] = -torch.inf
        found[torch.arange(len(rows)), torch.as_tensor(rows)] = -torch.inf
        self.looked += found.numel()
        return found

    def merge(self, a: int, b: int) -> None:
        """b goes into a: vectors add, and with them all costs to others."""
        self.v[a] += self.v[b]
        self.alive[b] = False
        self.labels[self.labels == b] = a
        self.merges += 1

    def cut(self, extra: int = 0) -> Cut:
        return Cut(self.labels.unique(return_inverse=True)[1], self.merges, self.looked, self.v.numel() + extra)


def dense_gaec(f: Float[Tensor, "n d"], alpha: float, neighbours: int = 1) -> Cut:
    """Greedy contraction on the complete graph in feature space: the same clusters as ``explicit_gaec``, O(nd) memory.

    ClusterFuG (Abbas and Swoboda 2023): DGAEC with ``neighbours`` 1, DGAECInc above. Costs to a merged node are sums
    of the costs to its members, so that its vector is the sum of theirs, never normalised.

    f           features (n, d); α is subtracted from every product
    neighbours  how many best partners each node remembers. All others cost at most ``bound`` of that node, and a merged
                node enters the lists of those for whom it is better than that: only a node whose list falls below its
                bound looks at all nodes again

    Raises ValueError for a negative alpha, neighbours below 1 and rows that are not finite.
    """
    check_matrix("f", f)
    check_finite(f=f)
    if not 0 <= alpha < float("inf") or neighbours < 1:
        raise ValueError(f"alpha must be at least 0 and neighbours at least 1, got {alpha} and {neighbours}")
    n, k = len(f), min(neighbours, len(f))
    nodes = _Nodes(f.detach().double().clone(), alpha)
    best, partner = torch.empty(n, k, dtype=torch.float64), torch.empty(n, k, dtype=torch.long)
    for rows in torch.arange(n).split(256):
        best[rows], partner[rows] = nodes.costs(rows).topk(k, 1)
    bound = best[:, -1].clone()
    while True:
        top = torch.where(nodes.alive, best[:, 0], -torch.inf)
        a = int(top.argmax())
        if not float(top[a]) > 0:
            return nodes.cut(2 * n * k + n)
        b = int(partner[a, 0])
        nodes.merge(a, b)
        gone = (partner == a) | (partner == b)
        best[gone] = -torch.inf
        changed = gone.any(1) & nodes.alive
        cost = nodes.costs([a])[0]  # what the merged node costs to all others
        enters = (cost > bound) & nodes.alive
        where = (changed | enters).nonzero()[:, 0]
        new = torch.where(enters[where], cost[where], -torch.inf)[:, None]
        values = torch.cat([best[where], new], 1)
        names = torch.cat([partner[where], torch.full_like(partner[where, :1], a)], 1)
        order = values.argsort(1, descending=True)
        bound[where] = torch.maximum(bound[where], values.gather(1, order[:, k:])[:, 0])  # whoever is pushed out
        best[where], partner[where] = values.gather(1, order[:, :k]), names.gather(1, order[:, :k])
        best[a], partner[a] = cost.topk(k)
        bound[a] = best[a, -1]
        poor = ((best[:, 0] < bound) & nodes.alive & (bound > 0)).nonzero()[:, 0]
        if len(poor):
            best[poor], partner[poor] = nodes.costs(poor).topk(k, 1)
            bound[poor] = best[poor, -1]


def lazy_gaec(f: Float[Tensor, "n d"], alpha: float, neighbours: int = 5) -> Cut:
    """DLAEC: contract the best edge of a kNN graph while it is positive, and only then look for neighbours again.

    The order of contraction is another than that of ``dense_gaec``, and the clustering may be better or worse.
    """
    check_matrix("f", f)
    check_finite(f=f)
    nodes, most = _Nodes(f.detach().double().clone(), alpha), 0
    while True:
        alive = nodes.alive.nonzero()[:, 0]
        edges: dict[int, set[int]] = {i: set() for i in alive.tolist()}
        k = min(neighbours, len(alive) - 1)
        for rows in alive.split(256) if k else ():
            value, name = nodes.costs(rows).topk(k, 1)
            for i, costs, others in zip(rows.tolist(), value.tolist(), name.tolist(), strict=True):
                for cost, j in zip(costs, others, strict=True):
                    if cost > 0:
                        edges[i].add(j)
                        edges[j].add(i)
        before, most = nodes.merges, max(most, sum(map(len, edges.values())))
        _contract(nodes, edges)
        if nodes.merges == before:
            return nodes.cut(most)


def sparse_gaec(f: Float[Tensor, "n d"], alpha: float, neighbours: int = 5) -> Cut:
    """The usual way: GAEC on a kNN graph alone; what is no edge of it costs nothing, whatever the features say."""
    c = pair_costs(f.double(), alpha)
    keep = torch.zeros_like(c, dtype=torch.bool).scatter_(
        1, c.fill_diagonal_(-torch.inf).topk(neighbours, 1).indices, True
    )
    return explicit_gaec(torch.where(keep | keep.T, c, 0.0).fill_diagonal_(0))


def _contract(nodes: _Nodes, edges: dict[int, set[int]]) -> None:
    """Greedy contraction along the edges of a graph, with the exact cost of the complete graph for each edge."""
    import heapq

    def cost(i, j):
        nodes.looked += 1
        return float((nodes.v[i] * nodes.sign) @ nodes.v[j])

    heap = [(-cost(i, j), i, j) for i, others in edges.items() for j in others if i < j]
    version = dict.fromkeys(edges, 0)
    heap = [(c, i, j, 0, 0) for c, i, j in heap]
    heapq.heapify(heap)
    while heap:
        c, a, b, at_a, at_b = heapq.heappop(heap)
        if c >= 0:
            return
        if a not in edges or b not in edges or version[a] != at_a or version[b] != at_b:
            continue  # one of the two was merged since
        nodes.merge(a, b)
        joined = (edges.pop(b) | edges[a]) - {a, b}
        edges[a], version[a] = joined, version[a] + 1
        for j in joined:
            edges[j].discard(b)
            edges[j].add(a)
            heapq.heappush(heap, (-cost(a, j), a, j, version[a], version[j]))


def exact_multicut(c: Float[Tensor, "n n"]) -> Int[Tensor, " n"]:
    """The multicut of least cost on a small complete graph: an integer programme with all triangle inequalities, HiGHS.

    y_ij = 1 where i and j are joined; y_ij + y_jk - y_ik ≤ 1 for every triple. Raises ValueError for n > 24.
    """
    import numpy as np
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array

    n = len(c)
    if n > 24:
        raise ValueError(f"c must have at most 24 nodes, got {n}")
    if n < 2:
        return torch.zeros(n, dtype=torch.long)
    pairs = [(i, j) for i in range(n) for j in range(i + 1, n)]
    place = {pair: at for at, pair in enumerate(pairs)}
    rows = []
    for i in range(n):
        for j in range(i + 1, n):
            for k in range(j + 1, n):
                three = [place[i, j], place[j, k], place[i, k]]
                rows += [(three, [-1.0 if t == other else 1.0 for t in range(3)]) for other in range(3)]
    cost = -np.array([float(c[i, j]) for i, j in pairs])
    options = {}
    if rows:
        columns, values = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
        a = csr_array((values.ravel(), (np.arange(len(rows)).repeat(3), columns.ravel())), (len(rows), len(pairs)))
        options = dict(constraints=LinearConstraint(a, -np.inf, 1))
    joined = milp(cost, integrality=np.ones(len(pairs)), bounds=Bounds(0, 1), **options).x > 0.5
    labels = torch.arange(n)
    for (i, j), together in zip(pairs, joined, strict=True):
        if together:
            labels[j] = labels[i]
    return labels.unique(return_inverse=True)[1]
