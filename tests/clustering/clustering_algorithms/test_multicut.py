"""Multicut: contraction in feature space against the matrix, against brute force, and its costs by hand."""

import networkx as nx
import pytest
import torch

from labcode.clustering.clustering_algorithms import (
    dense_gaec,
    exact_multicut,
    explicit_gaec,
    lazy_gaec,
    leiden,
    modularity,
    multicut_value,
    neighbour_graph,
    pair_costs,
    sparse_gaec,
)  # fmt: skip

f64 = dict(dtype=torch.float64)


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def features(n=60, d=6, seed=0):
    f = torch.randn(n, d, generator=draw(seed), **f64) + 2 * torch.eye(d, **f64)[torch.arange(n) % d]
    return f / f.norm(dim=1, keepdim=True)


def partitions(n):
    if n == 0:
        yield []
    else:
        for rest in partitions(n - 1):
            for name in range(max(rest, default=-1) + 2):
                yield [*rest, name]


@pytest.mark.parametrize("alpha", [0.0, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("neighbours", [1, 3, 8])
def test_feature_space_gives_what_the_matrix_gives(alpha, neighbours):
    for seed in range(3):
        f = features(50, 5, seed)
        matrix, dense = explicit_gaec(pair_costs(f, alpha)), dense_gaec(f, alpha, neighbours)
        together = [cut.labels[:, None] == cut.labels for cut in (matrix, dense)]
        assert torch.equal(*together) and matrix.merges == dense.merges


def test_the_value_is_the_sum_over_cut_pairs():
    f, labels = features(20), torch.randint(4, (20,), generator=draw())
    c = pair_costs(f, 0.3)
    slow = sum(float(c[i, j]) for i in range(20) for j in range(i) if labels[i] != labels[j])
    assert multicut_value(f, labels, 0.3) == pytest.approx(slow)


def test_a_merged_node_is_the_sum_of_its_members():
    f, alpha = features(6), 0.4
    c = pair_costs(f, alpha)
    augmented = torch.cat([f, torch.full((6, 1), alpha**0.5, **f64)], 1)
    joined = augmented[0] + augmented[1]
    joined[-1] *= -1
    torch.testing.assert_close(augmented[2:] @ joined, c[0, 2:] + c[1, 2:])


def test_the_exact_multicut_is_the_best_of_all_partitions():
    for seed in range(4):
        c = torch.randn(6, 6, generator=draw(seed), **f64)
        c = c + c.T

        def value(y, c=c):
            return sum(float(c[i, j]) for i in range(6) for j in range(i) if y[i] != y[j])

        assert value(exact_multicut(c).tolist()) == pytest.approx(min(map(value, partitions(6))))


def test_lazy_and_sparse_end_no_better_than_the_optimum_and_in_no_attractive_pair():
    f, alpha = features(14, 4), 0.35
    best = multicut_value(f, exact_multicut(pair_costs(f, alpha)), alpha)
    for cut in (dense_gaec(f, alpha), lazy_gaec(f, alpha, 3), sparse_gaec(f, alpha, 3)):
        assert multicut_value(f, cut.labels, alpha) >= best - 1e-9
    y = lazy_gaec(features(40), 0.3, 3).labels
    sums = torch.zeros(int(y.max()) + 1, 6, **f64).index_add_(0, y, features(40))
    count = torch.bincount(y).double()
    cost = sums @ sums.T - 0.3 * count[:, None] * count
    assert float(cost.fill_diagonal_(-1).max()) <= 1e-9


def test_edges():
    one = torch.eye(3, **f64)[:1]
    for solve in (dense_gaec, lazy_gaec):
        assert solve(one, 0.5).labels.tolist() == [0]
        assert solve(torch.ones(5, 2), 0.0).clusters == 1 and solve(torch.eye(5), 0.5).clusters == 5
        assert torch.equal(solve(features(10).half(), 0.3).labels, solve(features(10).half().double(), 0.3).labels)
    assert exact_multicut(torch.zeros(1, 1)).tolist() == [0] and exact_multicut(
        torch.tensor([[0, 2.0], [2, 0]])
    ).tolist() == [0, 0]
    with pytest.raises(ValueError, match="c must"):
        exact_multicut(torch.zeros(30, 30))
    with pytest.raises(ValueError, match="alpha"):
        dense_gaec(features(), -1.0)
    with pytest.raises(ValueError, match="f must"):
        dense_gaec(torch.full((3, 2), torch.nan), 0.1)


def graph_of(g):
    return [{j: 1.0 for j in g[i]} for i in range(len(g))]


def test_modularity_is_networkxs():
    g = nx.karate_club_graph()
    labels = torch.arange(34) % 3
    groups = [set((labels == c).nonzero()[:, 0].tolist()) for c in range(3)]
    for gamma in (0.5, 1.0, 2.0):
        want = nx.community.modularity(g, groups, weight=None, resolution=gamma)
        assert modularity(graph_of(g), labels, gamma) == pytest.approx(want)


@pytest.mark.parametrize("refine", [True, False])
def test_leiden_on_the_karate_club_and_on_cliques(refine):
    g = nx.karate_club_graph()
    best = max(modularity(graph_of(g), leiden(graph_of(g), generator=draw(s), refine=refine)) for s in range(8))
    assert best == pytest.approx(0.4198, abs=5e-3)  # the known optimum
    ring = nx.ring_of_cliques(8, 6)
    y = leiden(graph_of(ring), generator=draw(), refine=refine)
    assert int(y.max()) == 7 and all(len(set(y[6 * i : 6 * i + 6].tolist())) == 1 for i in range(8))


def test_leidens_communities_are_connected():
    x = torch.randn(150, 8, generator=draw())
    graph = neighbour_graph(x, 4)
    for s in range(3):
        y = leiden(graph, resolution=0.3, generator=draw(s)).tolist()
        g = nx.Graph([(i, j) for i, row in enumerate(graph) for j in row])
        assert all(nx.is_connected(g.subgraph([i for i in range(150) if y[i] == c])) for c in set(y))


def test_graph_edges():
    graph = neighbour_graph(torch.tensor([[0.0], [1.0], [5.0]]), 1)
    assert graph == [{1: 2.0}, {0: 2.0, 2: 1.0}, {1: 1.0}]
    assert leiden([{}, {}], generator=draw()).tolist() == [0, 1]
    with pytest.raises(ValueError, match="neighbours"):
        neighbour_graph(torch.zeros(3, 1), 3)
