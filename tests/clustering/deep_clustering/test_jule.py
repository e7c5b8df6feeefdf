"""JULE's graph, affinities and merges against loops; the triplet loss; what learning does to clumps."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from labcode.clustering import deep_clustering as D


def rows(n=40, d=3, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def test_graph_is_the_loop():
    x = rows(12)
    graph = D.neighbour_graph(x, 4)
    near = {i: sorted((float((x[i] - x[j]).square().sum()), j) for j in range(12) if j != i)[:4] for i in range(12)}
    mean = sum(d for pairs in near.values() for d, _ in pairs) / 48
    for i in range(12):
        wanted = {j: math.exp(-d / mean) for d, j in near[i]}
        assert graph[i].tolist() == pytest.approx([wanted.get(j, 0) for j in range(12)], rel=1e-4)
    assert torch.allclose(D.neighbour_graph(x + 3, 4), graph, atol=1e-4)
    assert D.neighbour_graph(x, 99).count_nonzero() == 12 * 11
    with pytest.raises(ValueError, match="x"):
        D.neighbour_graph(x[:1])


def affinity(graph, labels, i, j):
    a, b = (labels == i).nonzero()[:, 0], (labels == j).nonzero()[:, 0]
    forth, back = graph[a][:, b], graph[b][:, a]
    return float((forth @ back).sum()) / len(a) ** 2 + float((back @ forth).sum()) / len(b) ** 2


def test_affinities_are_the_loop_before_and_after_merges():
    graph, labels = D.neighbour_graph(rows(), 6).double(), torch.arange(40) % 9
    link = D.Linkage(graph, labels)
    for turn in range(4):
        found, names = link.affinity(), link.labels.unique().tolist()
        for i in names:
            for j in names:
                if i != j:
                    assert float(found[i, j]) == pytest.approx(affinity(graph, link.labels, i, j), abs=1e-12)
        i, j = link.best(local=1)
        assert float(found[i, j]) == float(found.max())
        link.merge(i, j)
        assert len(link) == 8 - turn


def test_leaving_out_clusters_that_are_gone_changes_no_merge():
    graph = D.neighbour_graph(torch.randn(80, 3, generator=torch.Generator().manual_seed(1)), 8)
    plain, short = (D.Linkage(graph, torch.arange(80) % 40) for _ in range(2))
    while len(plain) > 6:
        plain.merge(*plain.best())
    found = short.to(6)
    assert len(short.alive) == 6 and torch.equal(found, plain.labels.unique(return_inverse=True)[1])


def test_the_pair_to_merge_is_near_and_far_from_the_rest():
    graph, labels = D.neighbour_graph(rows(60), 8).double(), torch.arange(60) % 12
    link = D.Linkage(graph, labels)
    table = link.affinity()
    scores = {}
    for i in range(12):
        ordered = sorted((float(v) for v in table[i] if v > -math.inf), reverse=True)[:5]
        scores[i] = ordered[0] + sum(ordered[0] - v for v in ordered[1:]) / 4
    i, j = link.best(local=5)
    assert scores[i] == pytest.approx(max(scores.values())) and int(table[i].argmax()) == j


def test_linkage_finds_rings_that_kmeans_cannot():
    turn = torch.linspace(0, 2 * math.pi, 101)[:100]
    ring = torch.stack([turn.cos(), turn.sin()], 1)
    x, labels = torch.cat([ring, 3 * ring]) + 0.02 * rows(200, 2), torch.arange(200) // 100
    assert D.measures(D.agglomerate(x, 2, neighbours=8), labels, 2)["ACC"] > 0.99
    assert D.measures(D.best_kmeans(x, 2)[1], labels, 2)["ACC"] < 0.7
    order = torch.randperm(200, generator=torch.Generator().manual_seed(1))
    again = D.agglomerate(x[order], 2, neighbours=8)
    assert D.measures(again, labels[order], 2)["ACC"] > 0.99  # the order of the rows does not matter


def test_chains_hang_together_by_nearest_neighbours():
    x = torch.tensor([[0.0], [1.0], [1.9], [10.0], [11.0]])
    assert D.chains(x).tolist() in ([0, 0, 0, 1, 1], [1, 1, 1, 0, 0])


def test_triplet_loss_is_the_loop():
    g = torch.Generator().manual_seed(0)
    a, p, n = (torch.randn(*s, generator=g).double() for s in ((5, 3), (5, 3), (5, 4, 3)))
    total = 0.0
    for i in range(5):
        pulled = float((F.normalize(a[i], dim=0) - F.normalize(p[i], dim=0)).square().sum())
        for m in range(4):
            pushed = float((F.normalize(a[i], dim=0) - F.normalize(n[i, m], dim=0)).square().sum())
            total += max(0.0, 2 * pulled - pushed + 0.2)
    assert float(D.triplet_loss(a, p, n, gamma=2.0)) == pytest.approx(total / 20, rel=1e-10)
    assert gradcheck(D.triplet_loss, (a.requires_grad_(), p.requires_grad_(), n.requires_grad_()))
    assert float(D.triplet_loss(a, a, a[:, None].expand(-1, 2, -1))) == pytest.approx(0.2)
    with pytest.raises(ValueError, match="negatives"):
        D.triplet_loss(a, p, n[:, :, :2])
    with pytest.raises(ValueError, match="positive"):
        D.triplet_loss(a, p[:2], n)


def test_learning_changes_the_network_and_keeps_clumps_apart():
    labels = torch.arange(120) % 3
    x = 0.3 * rows(120, 6) + 2 * torch.eye(6)[labels]
    torch.manual_seed(0)
    net = torch.nn.Linear(6, 4)
    before = net.weight.detach().clone()
    found = D.jule(net, x, 3, generator=torch.Generator().manual_seed(0), steps=30, eta=0.9)
    assert D.measures(found.clusters, labels, 3)["ACC"] > 0.95 and not torch.equal(before, net.weight)
    assert int(found.history[-1].max()) == 2
    still = D.jule(net, x, 3, generator=torch.Generator().manual_seed(0), steps=30, eta=0.3, learn=False)
    sizes = [int(h.max()) + 1 for h in still.history]
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] == 3 and len(sizes) > len(found.history)
