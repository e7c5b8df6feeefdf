"""JULE (Yang, Parikh and Batra, 2016): agglomeration as the steps of a recurrent network, features learnt in between.

The linkage is that of a directed neighbour graph (Zhang et al., 2012, "Graph degree linkage").
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from ...loss import check_index, check_matrix, check_positive, float32, unit_rows
from .autoencoder import descend

Rows = Float[Tensor, "n d"]
Graph = Float[Tensor, "n n"]
Labels = Int[Tensor, " n"]


def neighbour_graph(x: Rows, neighbours: int = 20, a: float = 1.0) -> Graph:
    """Directed weights W_ij = exp(-‖x_i - x_j‖² / σ²) to the nearest rows of each row, 0 elsewhere; no gradient.

    JULE, eq. 1; σ² is ``a`` times the mean squared distance to a neighbour. Dense: n² numbers. At most n - 1
    neighbours are taken.

    Raises ValueError for fewer than two rows and fewer than one neighbour.
    """
    check_matrix("x", x, rows=2)
    check_positive(a=a, neighbours=neighbours)
    with torch.no_grad():
        distance = torch.cdist(x, x).square().fill_diagonal_(math.inf)
        near, where = distance.topk(min(int(neighbours), len(x) - 1), largest=False)
        weights = torch.exp(-near / (a * near.mean()).clamp_min(1e-12))
        return torch.zeros_like(distance).scatter_(1, where, weights)


def directed_affinity(graph: Graph, labels: Labels, k: int) -> Float[Tensor, "k k"]:
    """1ᵀ W_ij W_ji 1 of all pairs of k clusters at once, before any division by sizes: row i, column j.

    JULE, eq. 2. With M the (n, k) table of members it is Mᵀ((Wᵀ M) ∘ (W M)), transposed: what of cluster i goes to a
    sample of j, times what comes back from it, summed over j's samples. The diagonal means nothing.
    """
    check_index("labels", labels, k)
    member = torch.zeros(len(labels), k, dtype=graph.dtype, device=graph.device).scatter_(1, labels[:, None], 1)
    return (member.T @ ((graph.T @ member) * (graph @ member))).T


def _summed(table: Tensor, labels: Labels, dim: int, k: int) -> Tensor:
    """Rows (dim 0) or columns (dim 1) of a table, summed within each of k clusters."""
    shape = list(table.shape)
    shape[dim] = k
    return table.new_zeros(shape).index_add_(dim, labels, table)


class Linkage:
    """Clusters on a graph that are merged one pair after another; the affinities follow exactly, O(n + k) a merge.

    A(i, j) = S_ij / |i|² + S_ji / |j|² with S of ``directed_affinity``. A merge adds columns: what two clusters send
    and receive together is the sum; only the product of the two has to be made anew. Each cluster's nearest are kept
    too, and looked up again only where the merge touched them. ``to`` leaves gone clusters out of the tables from time
    to time.
    """

    def __init__(self, graph: Graph, labels: Labels):
        k = int(labels.max()) + 1
        self.labels, self.alive = labels.clone(), torch.ones(k, dtype=torch.bool)
        self.sent, self.back = (_summed(w, labels, 0, k) for w in (graph, graph.T))  # (k, n): there and back
        self.s = _summed(self.sent * self.back, labels, 1, k)
        self.size = _summed(graph.new_ones(len(labels)), labels, 0, k)
        half = self.s / self.size.square()[:, None]
        self.a = (half + half.T).fill_diagonal_(-math.inf)
        self.near = None  # values and places of each cluster's nearest, once ``best`` has asked for them

    def __len__(self) -> int:
        return int(self.alive.sum())

    def affinity(self) -> Float[Tensor, "k k"]:
        """A of all pairs; -∞ on the diagonal and for clusters that are gone."""
        return self.a.clone()

    def best(self, local: int = 5) -> tuple[int, int]:
        """The pair to merge: cluster i and its nearest, where A(i, N₁) + Σ_{m ≥ 2} (A(i, N₁) - A(i, N_m)) / (Kc - 1)
        is largest, N_m the m-th nearest of Kc = ``local``: near to one another, and far from the rest.

        JULE, eq. 4 and 6. local = 1 takes the largest affinity.
        """
        count = min(local, len(self) - 1)
        if self.near is None or self.near[0].shape[1] != count:
            self.near = tuple(self.a.topk(count, dim=1))
        value, where = self.near
        score = value[:, 0]
        if count > 1:
            score = score + (value[:, :1] - value[:, 1:]).sum(1) / (count - 1)
        i = int(torch.where(self.alive, score, -math.inf).argmax())
        return i, int(where[i, 0])

    def merge(self, i: int, j: int) -> None:
        """Cluster j becomes part of i."""
        for table in (self.sent, self.back):
            table[i] += table[j]
        self.s[:, i] += self.s[:, j]  # more samples of i to meet
        self.labels[self.labels == j] = i
        product, row = self.sent[i] * self.back[i], torch.zeros(len(self.size), dtype=self.s.dtype)
        self.s[i] = row.index_add_(0, self.labels, product)
        self.size[i] += self.size[j]
        self.alive[j] = False
        self._follow(i, j)

    def _follow(self, i: int, j: int) -> None:
        """Affinities to the merged cluster, and the nearest of those that had i or j among them or now have i."""
        to_i = self.s[i] / self.size[i].square() + self.s[:, i] / self.size.square()
        to_i[i] = -math.inf
        to_i[~self.alive] = -math.inf
        self.a[i], self.a[:, i] = to_i, to_i
        self.a[j], self.a[:, j] = -math.inf, -math.inf
        if self.near is not None:
            value, where = self.near
            rows = ((where == i) | (where == j)).any(1) | (to_i > value[:, -1])
            rows[[i, j]] = True
            value[rows], where[rows] = self.a[rows].topk(value.shape[1], dim=1)

    def compact(self) -> None:
        """Forget the clusters that are gone; the others keep their order and get new numbers."""
        kept = self.alive
        self.labels = (kept.cumsum(0) - 1)[self.labels]
        self.sent, self.back = self.sent[kept], self.back[kept]
        self.s, self.a = (table[kept][:, kept] for table in (self.s, self.a))
        self.size, self.alive, self.near = self.size[kept], kept[kept], None

    def to(self, k: int, local: int = 5) -> Labels:
        """Merge until k clusters are left; their labels, 0 … k - 1."""
        while (left := len(self)) > k:
            if left < 0.8 * len(self.alive):
                self.compact()
            self.merge(*self.best(local))
        self.compact()
        return self.labels


def chains(x: Rows) -> Labels:
    """The first clusters: samples linked by nearest neighbours, the parts that hang together."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    nearest = torch.cdist(x, x).fill_diagonal_(math.inf).argmin(1)
    n = len(x)
    links = coo_array((torch.ones(n).numpy(), (torch.arange(n).numpy(), nearest.cpu().numpy())), shape=(n, n))
    return torch.from_numpy(connected_components(links, directed=False)[1]).long()


def agglomerate(x: Rows, k: int, *, neighbours: int = 20, local: int = 5) -> Labels:
    """Graph degree linkage from nearest-neighbour chains down to k clusters: JULE without learning; (n,) labels."""
    x = x.detach().cpu()
    return Linkage(neighbour_graph(x, neighbours), chains(x)).to(k, local)


@float32
def triplet_loss(
    anchor: Float[Tensor, "n d"], positive: Float[Tensor, "n d"], negatives: Float[Tensor, "n m d"],
    gamma: float = 1.0, margin: float = 0.2,
) -> Float[Tensor, ""]:  # fmt: skip
    """Mean of max(0, γ ‖a - p‖² - ‖a - n‖² + margin) over anchors and their negatives, all rows brought to length 1.

    JULE, eq. 12, with the constants of the release. Raises ValueError for shapes that do not fit.
    """
    check_matrix("anchor", anchor)
    check_matrix("positive", positive, like=anchor)
    if negatives.ndim != 3 or not negatives.numel() or negatives.shape[::2] != anchor.shape:
        raise ValueError(f"negatives must be (n, m, d), n and d of {tuple(anchor.shape)}, got {tuple(negatives.shape)}")
    if not negatives.is_floating_point():
        raise ValueError(f"negatives must be floating point, got {negatives.dtype}")
    a, p, n = unit_rows(anchor), unit_rows(positive), unit_rows(negatives)
    pulled, pushed = (a - p).square().sum(1), (a[:, None] - n).square().sum(2)
    return (gamma * pulled[:, None] - pushed + margin).clamp_min(0).mean()


@dataclass
class Unrolled:
    """What a training left behind."""

    clusters: Labels
    net: nn.Module
    history: list[Labels]  # labels after each period's merges; the last period has k clusters


def jule(
    net: nn.Module, x: Rows, k: int, *, generator: Generator, eta: float = 0.5, steps: int = 300, batch: int = 100,
    negatives: int = 20, neighbours: int = 20, local: int = 5, gamma: float = 1.0, margin: float = 0.2,
    lr: float = 1e-3, learn: bool = True,
) -> Unrolled:  # fmt: skip
    """Periods of merges (forward) and of triplet steps on the clusters they gave (backward), until k are left.

    eta    share of the clusters merged in a period: 0.9, or 0.2 for faces. Small ones have more, shorter periods: all
           have ``steps`` together, where the release gives every period 20 epochs
    learn  False never updates the network: the ablation

    The first clusters are nearest-neighbour chains of the raw rows; the last labels come from a new agglomeration of
    the final features, as in the release. An anchor's partner is any sample of its cluster, its negatives are random
    samples of other clusters in the batch: no weights of neighbouring clusters, as in the release. Adam, not SGD.
    """
    labels, history = chains(x.detach().cpu()), []
    counts = [int(labels.max()) + 1]
    while counts[-1] > k:
        counts.append(max(k, counts[-1] - math.ceil(eta * counts[-1])))
    for target in counts[1:]:
        with torch.no_grad():
            graph = neighbour_graph(unit_rows(net(x)).cpu(), neighbours)
        labels = Linkage(graph, labels).to(target, local)
        history.append(labels)
        if learn:
            _learn(net, x, labels.to(x.device), generator, max(1, steps // (len(counts) - 1)), batch, negatives, gamma,
                   margin, lr)  # fmt: skip
    with torch.no_grad():
        return Unrolled(agglomerate(unit_rows(net(x)), k, neighbours=neighbours, local=local), net, history)


def _learn(net, x, labels, generator, steps, batch, negatives, gamma, margin, lr) -> None:
    def loss(rows, _):
        mates = _partner(labels, rows, generator)
        z = net(torch.cat([x[rows], x[mates]]))
        a, every = z[: len(rows)], torch.cat([labels[rows], labels[mates]])
        draw = torch.rand(len(rows), len(every), generator=generator, device=x.device)
        draw = draw.masked_fill(labels[rows][:, None] == every[None], -1)
        found = draw.topk(min(negatives, len(every)), dim=1)
        keep = (found.values >= 0).all(1)  # anchors with enough samples of other clusters in the batch
        if not bool(keep.any()):
            return 0 * z.sum()
        return triplet_loss(a[keep], z[len(rows) :][keep], z[found.indices[keep]], gamma, margin)

    descend(net.parameters(), loss, len(x), generator=generator, steps=steps, batch_size=batch // 2, lr=lr)


def _partner(labels: Labels, rows: Int[Tensor, " b"], generator: Generator) -> Int[Tensor, " b"]:
    """A random sample of each row's cluster, another one where there is one."""
    draw = torch.rand(len(rows), len(labels), generator=generator, device=labels.device)
    other = labels[rows][:, None] == labels[None]
    draw = torch.where(other, draw, -1).scatter_(1, rows[:, None], -0.5)
    return draw.argmax(1)


def jule_clusters(x: Rows, k: int, *, generator: Generator, views=None, steps: int = 200, batch_size: int = 256,
                  hidden: int = 128, code: int = 64) -> Labels:  # fmt: skip
    """JULE with a perceptron on rows x; (n,) labels."""
    torch.manual_seed(generator.initial_seed() % 2**31)
    net = nn.Sequential(nn.Linear(x.shape[1], hidden), nn.ReLU(), nn.Linear(hidden, code)).to(x.device)
    return jule(net, x, k, generator=generator, eta=0.9, steps=steps, batch=batch_size).clusters.to(x.device)
