"""Polyhedra: pricing against a loop, column generation against all columns, covers against brute force."""

import itertools

import numpy as np
import pytest
import torch
from sklearn.tree import DecisionTreeClassifier

from labcode.clustering.clustering_algorithms import (
    cart,
    describe,
    describe_all,
    described,
    directions,
    mistake_tree,
    small_groups,
)
from labcode.clustering.clustering_algorithms.polyhedra import _Side


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def rows(n=40, d=2, seed=0):
    x = torch.randn(n, d, generator=draw(seed), dtype=torch.float64)
    return x, (x[:, 0] + x[:, 1] > 0.5).long() + (x[:, 0] - x[:, 1] > 1).long()


def test_directions_have_small_coprime_entries():
    w = directions(4, 2, 2)
    assert len({tuple(r) for r in w.tolist()}) == len(w) and abs(w).max() == 2
    assert all(0 < np.count_nonzero(r) <= 2 and np.gcd.reduce(r) == 1 for r in w)
    assert len(directions(4)) == 8 + 6 * 4
    with pytest.raises(ValueError, match="bound"):
        directions(3, 0)


def test_prices_are_those_of_a_loop():
    x, y = rows()
    w = directions(2, 1, 2)
    side = _Side(x.numpy(), (y == 1).numpy(), np.arange(len(x)), w)
    dual = np.random.default_rng(0).uniform(size=int((y != 1).sum()))
    price = side.price(dual, 0.7)
    inside, outside = x[y == 1].numpy(), x[y != 1].numpy()
    for h, t in ((0, 0), (3, 2), (5, 7)):
        b = np.sort(inside @ w[h])[t]
        want = 1 + np.count_nonzero(w[h]) + 0.7 * (inside @ w[h] > b + 1e-12).sum() - dual[outside @ w[h] > b].sum()
        assert price[h, t] == pytest.approx(want)
        assert np.array_equal(side.column(h, t)[0], outside @ w[h] > b)


def test_column_generation_reaches_the_relaxation_over_all_columns():
    x, y = rows(24)
    for cluster in range(3):
        few, all_ = (describe(x, y, cluster, everything=e) for e in (False, True))
        assert few.relaxed == pytest.approx(all_.relaxed, abs=1e-6) and few.columns < all_.columns == all_.candidates
        assert few.relaxed <= few.value + 1e-6 and all_.value <= few.value + 1e-6


def test_the_integer_programme_is_the_best_of_all_pairs_of_half_spaces():
    x, y = rows(12, seed=3)
    w = directions(2, 1, 1)
    side = _Side(x.numpy(), (y == 0).numpy(), np.arange(len(x)), w)
    columns = [
        (side.cost[h] + side.missed[h, t], side.column(h, t)[0])
        for h in range(len(w))
        for t in range(side.ends.shape[1])
    ]
    m = int((y != 0).sum())
    best = min([m] + [sum(c for c, _ in some) + m - np.any([k for _, k in some], axis=0).sum()
                      for r in (1, 2) for some in itertools.combinations(columns, r)])  # fmt: skip
    assert describe(x, y, 0, support=1, everything=True).value <= best + 1e-9


def test_separable_clusters_are_described_without_a_mistake():
    y = torch.arange(60) % 3
    x = torch.randn(60, 2, generator=draw(), dtype=torch.float64) * 0.3 + 5 * torch.stack([(y == 1), (y == 2)], 1)
    found = describe_all(x, y)
    assert torch.equal(described(found, x), y)
    for p in found:
        assert p.complexity <= 6 and p.features <= 2 and len(p.w) <= 2
    both = torch.stack([p.violation(x) <= 0 for p in found])
    assert torch.equal(both, torch.nn.functional.one_hot(y).bool().T)


def test_groups_and_sparse():
    x, y = rows(60, 5)
    groups = small_groups(x, y, 20, draw())
    assert all(len(y[groups == g].unique()) == 1 for g in groups.unique()) and len(groups.unique()) <= 22
    p = describe(x, y, 1, groups=groups)
    loose = describe(x, y, 1)
    assert p.relaxed >= loose.relaxed - 1e-6  # what groups may do, single rows may do too
    sparse = describe(x, y, 1, sparse=True)
    assert sparse.features <= loose.features
    with pytest.raises(ValueError, match="groups"):
        describe(x, y, 1, groups=torch.zeros(60, dtype=torch.long))
    with pytest.raises(ValueError, match="cluster"):
        describe(x, y, 7)


def test_edges():
    x = torch.zeros(6, 2)
    y = torch.tensor([0, 0, 0, 1, 1, 1])
    assert describe(x, y, 0).complexity == 0  # nothing tells them apart: all are paid for
    assert describe(x[:3], y[:3], 0).complexity == 0
    assert describe(torch.tensor([[0.0], [1.0]]), torch.tensor([0, 1]), 0, penalty=9.0).w.tolist() == [[1]]


def test_trees():
    x, y = rows(80)
    tree = cart(x, y, 5)
    theirs = DecisionTreeClassifier(max_leaf_nodes=5, random_state=0).fit(x.numpy(), y.numpy())
    assert tree.predict(x).tolist() == theirs.predict(x.numpy().astype(np.float32)).tolist()
    y = torch.arange(60) % 3
    x = torch.randn(60, 2, generator=draw()) * 0.3 + 5 * torch.stack([(y == 1), (y == 2)], 1)
    imm = mistake_tree(x, y)
    assert torch.equal(imm.predict(x), y) and imm.complexity == 2 * (1 + 2 + 2)
