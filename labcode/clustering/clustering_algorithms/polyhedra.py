"""Clusters explained by few half-spaces with small integer coefficients: a set cover, solved by column generation."""

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...loss import check_finite, check_matrix
from ..many_kmeans import many_kmeans


def directions(d: int, bound: int = 1, support: int = 2) -> Int[np.ndarray, "w d"]:
    """All integer vectors with entries up to ``bound`` in size and at most ``support`` of them nonzero, no multiples.

    Raises ValueError for a bound or support below 1.
    """
    if bound < 1 or support < 1:
        raise ValueError(f"bound and support must be at least 1, got {bound} and {support}")
    values = [v for v in range(-bound, bound + 1) if v]
    found = []
    for size in range(1, min(support, d) + 1):
        weights = np.array([w for w in itertools.product(values, repeat=size) if np.gcd.reduce(w) == 1])
        for where in itertools.combinations(range(d), size):
            block = np.zeros((len(weights), d), dtype=int)
            block[:, where] = weights
            found.append(block)
    return np.concatenate(found)


@dataclass(frozen=True)
class Polyhedron:
    """{x : w x ≤ b for every row}, what describes one cluster, and how it was found.

    relaxed, value  the linear relaxation's optimum over all half-spaces, and that of the integer programme over the
                    generated ones
    columns         half-spaces that were generated; candidates is how many there are
    """

    w: Int[Tensor, "h d"]
    b: Float[Tensor, " h"]
    relaxed: float
    value: float
    columns: int
    candidates: int

    @property
    def complexity(self) -> int:
        """Half-spaces plus nonzero coefficients."""
        return len(self.w) + int((self.w != 0).sum())

    @property
    def features(self) -> int:
        """Distinct features that it speaks of."""
        return int((self.w != 0).any(0).sum()) if len(self.w) else 0

    def violation(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """How far outside the worst half-space x lies, in units of x; at most 0 inside, -inf for no half-space."""
        if not len(self.w):
            return torch.full((len(x),), -torch.inf, dtype=x.dtype)
        w = self.w.to(x.dtype)
        return ((x @ w.T - self.b.to(x.dtype)) / w.norm(dim=1)).amax(1)


class _Side:
    """One cluster against the rest: for every direction where its groups end and where the others' begin."""

    def __init__(self, x, inside, groups, w):
        project = x @ w.T  # (n, w)
        names, at = np.unique(groups, return_inverse=True)
        low, high = np.full((len(names), len(w)), np.inf), np.full((len(names), len(w)), -np.inf)
        np.minimum.at(low, at, project)
        np.maximum.at(high, at, project)
        size = np.bincount(at).astype(float)
        own = np.zeros(len(names), dtype=bool)
        own[at] = inside
        self.w, self.cost = w, 1.0 + (w != 0).sum(1)
        order = np.argsort(high[own], axis=0)  # candidate thresholds: where one of the cluster's own groups ends
        self.ends = np.take_along_axis(high[own], order, 0).T  # (w, inside groups)
        heavy = size[own][order].T
        self.missed = heavy.sum(1, keepdims=True) - heavy.cumsum(1)  # rows of the cluster beyond each threshold
        self.begins, self.size = low[~own].T, size[~own]  # (w, outside groups)
        self.order = np.argsort(self.begins, axis=1)
        self.sorted = np.take_along_axis(self.begins, self.order, 1)
        # how many outside groups begin at or before each threshold: rows of one direction are shifted apart
        self.before = np.stack(
            [np.searchsorted(s, e, side="right") for s, e in zip(self.sorted, self.ends, strict=False)]
        )

    def price(self, dual, penalty):
        """Reduced costs (w, inside groups) of all half-spaces at once, for duals of the outside groups."""
        paid = np.zeros((len(self.w), len(dual) + 1))
        paid[:, 1:] = dual[self.order].cumsum(1)
        cut = paid[:, -1:] - np.take_along_axis(paid, self.before, 1)
        return self.cost[:, None] + penalty * self.missed - cut

    def column(self, h, t):
        """Which outside groups half-space (h, t) cuts off, and its threshold, half-way to what comes next."""
        cuts = self.begins[h] > self.ends[h, t]
        after = np.concatenate([self.begins[h][cuts], self.ends[h][self.ends[h] > self.ends[h, t]]])
        gap = after.min() if len(after) else self.ends[h, t] + 1
        return cuts, (self.ends[h, t] + gap) / 2


def _master(covers, cost, size, penalty, integer, features=None):
    """min Σ cost z + penalty Σ size ξ with every outside group cut off or paid for; HiGHS. Value, z, duals."""
    from scipy.optimize import Bounds, LinearConstraint, linprog, milp
    from scipy.sparse import csr_array, eye_array, hstack, vstack

    cover = csr_array(covers.T.astype(float))
    m, h = cover.shape
    if not integer:
        a = hstack([-cover, -eye_array(m)])
        solved = linprog(np.concatenate([cost, penalty * size]), a, -np.ones(m), bounds=(0, None), method="highs")
        return solved.fun, solved.x[:h], -solved.ineqlin.marginals
    f = 0 if features is None else features.shape[1]
    objective = np.concatenate([cost, penalty * size, np.ones(f)])
    rows, least = hstack([cover, eye_array(m), csr_array((m, f))]), np.ones(m)
    if f:  # a feature is paid for once: it is used where any chosen half-space uses it
        column, feature = np.nonzero(features)
        links = csr_array((np.ones(len(column)), (np.arange(len(column)), feature)), (len(column), f))
        used = csr_array((-np.ones(len(column)), (np.arange(len(column)), column)), (len(column), h))
        rows = vstack([rows, hstack([used, csr_array((len(column), m)), links])])
        least = np.concatenate([least, np.zeros(len(column))])
    whole = np.concatenate([np.ones(h), np.zeros(m), np.zeros(f)])
    solved = milp(objective, integrality=whole, bounds=Bounds(0, 1), options={"mip_rel_gap": 1e-4, "time_limit": 10},
                  constraints=LinearConstraint(rows.tocsr(), least, np.inf))  # fmt: skip
    return solved.fun, solved.x[:h], None


def describe(
    x: Float[Tensor, "n d"], labels: Int[Tensor, " n"], cluster: int, *, bound: int = 1, support: int = 2,
    penalty: float = 1.0, groups: Int[Tensor, " n"] | None = None, sparse: bool = False, rounds: int = 60,
    everything: bool = False,
) -> Polyhedron:  # fmt: skip
    """The polyhedron around one cluster: few simple half-spaces that cut the others off; Lawless and Günlük (2023).

    min Σ_h (1 + ‖w_h‖₀ + penalty · missed_h) z_h + penalty · Σ_i ξ_i with Σ_{h cuts i off} z_h + ξ_i ≥ 1 for each row i
    outside. Its linear relaxation is solved by column generation: duals price every candidate half-space in one scan.
    The integer programme then takes the generated ones; ``relaxed`` and ``value`` show what that loses.

    x         scale the columns first: coefficients are integers
    bound     largest coefficient, support the number of nonzero ones (``directions``)
    penalty   of a row on the wrong side, in units of complexity
    groups    names of small groups within clusters that are on one side as a whole; default every row alone
    sparse    Sp-PDP: features are paid for once (and complexity a hundredth), over the columns of LC-PDP (ours)
    everything  put all candidates into the relaxation at once instead of generating them: to check

    Ours where the paper could not be read: a row of the cluster that two chosen half-spaces leave out counts twice, and
    pricing enumerates the candidates. Raises ValueError for a cluster without rows and for groups across clusters.
    """
    check_matrix("x", x)
    check_finite(x=x)
    inside = (labels == cluster).cpu().numpy()
    if not inside.any():
        raise ValueError(f"cluster must be one of the labels, got {cluster}")
    names = np.arange(len(x)) if groups is None else groups.cpu().numpy()
    if groups is not None and len(set(zip(names.tolist(), labels.tolist(), strict=False))) != len(set(names.tolist())):
        raise ValueError("groups must lie within clusters, got one with rows of two")
    w = directions(x.shape[1], bound, support)
    side = _Side(x.detach().double().cpu().numpy(), inside, names, w)
    candidates, total = side.missed.size, side.size
    if not len(total):
        return Polyhedron(torch.zeros(0, x.shape[1], dtype=torch.long), torch.zeros(0), 0.0, 0.0, 0, candidates)
    chosen, cuts, dual = [], [], penalty * total
    relaxed = penalty * total.sum()
    for _ in range(rounds):
        price = side.price(dual, penalty)
        if everything:
            new = [divmod(int(i), price.shape[1]) for i in range(price.size)]
        else:  # the best threshold of each of the best directions
            best = price.argmin(1)
            order = np.argsort(price[np.arange(len(w)), best])[:20]
            new = [(int(h), int(best[h])) for h in order if price[h, best[h]] < -1e-7]
        new = [c for c in new if c not in set(chosen)]
        if not new:
            break
        chosen += new
        cuts += [side.column(*c)[0] for c in new]
        covers = np.stack(cuts)
        cost = np.array([side.cost[h] + penalty * side.missed[h, t] for h, t in chosen])
        relaxed, _, dual = _master(covers, cost, total, penalty, False)
        if everything:
            break
    if not chosen:
        return Polyhedron(torch.zeros(0, x.shape[1], dtype=torch.long), torch.zeros(0), relaxed, relaxed, 0, candidates)
    features = None
    if sparse:
        features = np.stack([w[h] != 0 for h, _ in chosen])
        cost = np.array([0.01 * side.cost[h] + penalty * side.missed[h, t] for h, t in chosen])
    value, z, _ = _master(covers, cost, total, penalty, True, features)
    kept = [c for c, z_c in zip(chosen, z, strict=True) if z_c > 0.5]
    rows = torch.from_numpy(np.array([w[h] for h, _ in kept]).reshape(len(kept), -1)).long()
    b = torch.tensor([side.column(*c)[1] for c in kept], dtype=torch.float64)
    return Polyhedron(rows.view(len(kept), x.shape[1]), b, float(relaxed), float(value), len(chosen), candidates)


def describe_all(x: Float[Tensor, "n d"], labels: Int[Tensor, " n"], **options) -> list[Polyhedron]:
    """A polyhedron for each cluster 0 … k - 1; options as for ``describe``."""
    return [describe(x, labels, cluster, **options) for cluster in range(int(labels.max()) + 1)]


def described(polyhedra: list[Polyhedron], x: Float[Tensor, "n d"]) -> Int[Tensor, " n"]:
    """The cluster whose polyhedron holds a row, or that it violates least (ours, where none or several do)."""
    return torch.stack([p.violation(x) for p in polyhedra]).argmin(0)


def small_groups(
    x: Float[Tensor, "n d"], labels: Int[Tensor, " n"], count: int, generator: torch.Generator
) -> Int[Tensor, " n"]:
    """Names of about ``count`` groups of near rows, made within each cluster by k-means."""
    names, taken = torch.empty_like(labels), 0
    for cluster in labels.unique().tolist():
        where = labels == cluster
        k = max(1, min(int(where.sum()), round(count * float(where.float().mean()))))
        made = many_kmeans(x[where], k, restarts=1, generator=generator, iterations=20)
        names[where] = made.labels[0] + taken
        taken += k
    return names


@dataclass(frozen=True)
class ThresholdTree:
    """A binary tree of questions x[feature] ≤ threshold: (feature, threshold, left, right), leaves are labels."""

    root: tuple | int

    def predict(self, x: Float[Tensor, "n d"]) -> Int[Tensor, " n"]:
        """The label of the leaf that a row falls into."""
        out = torch.zeros(len(x), dtype=torch.long)

        def fill(node, where):
            if isinstance(node, int):
                out[where] = node
            else:
                low = x[:, node[0]] <= node[1]
                fill(node[2], where & low)
                fill(node[3], where & ~low)

        fill(self.root, torch.ones(len(x), dtype=torch.bool))
        return out

    @property
    def complexity(self) -> int:
        """Half-spaces plus nonzero coefficients, over the paths to all leaves: two for a question."""

        def walk(node, depth):
            return 2 * depth if isinstance(node, int) else sum(walk(n, depth + 1) for n in node[2:])

        return walk(self.root, 0)


def mistake_tree(x: Float[Tensor, "n d"], labels: Int[Tensor, " n"]) -> ThresholdTree:
    """IMM (Dasgupta et al. 2020): a leaf for each cluster; each question parts the centres at the fewest mistakes.

    A mistake is a row on another side than its centre; it is dropped.
    """
    centres = torch.stack([x[labels == c].mean(0) for c in range(int(labels.max()) + 1)])

    def grow(rows, names):
        if len(names) == 1:
            return names[0]
        best = None
        for feature in range(x.shape[1]):
            at = torch.tensor([float(centres[c, feature]) for c in names])
            value, centre = x[rows, feature], centres[labels[rows], feature]
            ends = torch.unique(torch.cat([value[(value >= at.min()) & (value < at.max())], at[at < at.max()]]))
            wrong = ((value[:, None] <= ends) != (centre[:, None] <= ends)).sum(0)
            i = int(wrong.argmin())
            if best is None or wrong[i] < best[0]:
                best = (wrong[i], feature, float(ends[i]))
        _, feature, threshold = best
        low, near = x[rows, feature] <= threshold, centres[labels[rows], feature] <= threshold
        sides = []
        for side in (True, False):
            keep = [c for c in names if (float(centres[c, feature]) <= threshold) == side]
            sides.append(grow(rows[(low == side) & (near == side)], keep))
        return (feature, threshold, *sides)

    return ThresholdTree(grow(torch.arange(len(x)), list(range(len(centres)))))


def cart(x: Float[Tensor, "n d"], labels: Int[Tensor, " n"], leaves: int, seed: int = 0) -> ThresholdTree:
    """CART with a number of leaves, as scikit-learn grows it."""
    from sklearn.tree import DecisionTreeClassifier

    tree = DecisionTreeClassifier(max_leaf_nodes=leaves, random_state=seed).fit(x.numpy(), labels.numpy()).tree_

    def node(i):
        if tree.children_left[i] < 0:
            return int(tree.value[i].argmax())
        return (
            int(tree.feature[i]),
            float(tree.threshold[i]),
            node(tree.children_left[i]),
            node(tree.children_right[i]),
        )

    return ThresholdTree(node(0))
