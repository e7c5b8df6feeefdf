"""SP²OT: the graph, the objective against a loop, and a descent that is guaranteed."""

import math

import pytest
import torch
import torch.nn.functional as F

from labcode.clustering import measures
from labcode.clustering.deep_clustering import p2ot, sp2ot


def logits(*shape, seed=0, size=2.0):
    return size * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def blobs(k=4, d=8, seed=0, counts=(120, 60, 30, 15)):
    g = torch.Generator().manual_seed(seed)
    y = torch.cat([torch.full((c,), i) for i, c in enumerate(counts)])
    return F.normalize(3 * torch.eye(k, d)[y] + 0.6 * torch.randn(len(y), d, generator=g), dim=1), y


@pytest.mark.parametrize("k, symmetric", [(3, False), (3, True), (19, False)])
def test_the_graph_is_the_gaussian_of_the_nearest(k, symmetric):
    z = logits(20, 6)
    far = ((z[:, None] - z[None]) ** 2).sum(2)
    wanted = torch.zeros(20, 20, dtype=torch.float64)
    for i in range(20):
        for j in sorted((j for j in range(20) if j != i), key=lambda j: float(far[i, j]))[:k]:
            wanted[i, j] = math.exp(-far[i, j] / (2 * 4 * 6))
    wanted = (wanted + wanted.T) / 2 if symmetric else wanted
    torch.testing.assert_close(sp2ot.similarity_graph(z, k, symmetric=symmetric), wanted)


def test_without_the_semantic_term_it_is_p2ot_and_sparse_is_dense():
    z, graph = logits(40, 4), sp2ot.similarity_graph(logits(40, 6, seed=2), 5)
    plain = p2ot.p2ot_labels(z, 0.4, tolerance=1e-6, rounds=5000)
    torch.testing.assert_close(sp2ot.sp2ot_labels(z, graph, 0.0, 0.4).labels, plain, atol=1e-5, rtol=0)
    dense, sparse = (sp2ot.sp2ot_labels(z, g, 20.0, 0.4, outer=3).labels for g in (graph, graph.to_sparse_csr()))
    torch.testing.assert_close(dense, sparse)


def test_the_objective_is_the_loop_and_falls_for_a_semidefinite_graph():
    z, w = logits(12, 3), logits(12, 6, seed=2)
    graph = (-torch.cdist(w, w).square() / 20).exp()
    found = sp2ot.sp2ot_labels(z, graph, 15.0, 0.6, outer=6, inner=3000, inner_tolerance=1e-8)
    steps = found.objectives.diff()
    assert len(steps) > 2 and float(steps.max()) < 1e-7 and float(steps.min()) < -1e-4
    plan, cost = found.last.plan, -z.log_softmax(1)
    q = plan[:, :3]
    wanted = float((q * cost).sum()) - 15 * sum(
        float(graph[i, j] * (q[i] * q[j]).sum()) for i in range(12) for j in range(12)
    )
    wanted += sum(float(m) * math.log(float(m) / 0.2) - float(m) + 0.2 for m in q.sum(0))
    wanted += 0.1 * sum(p * (math.log(p) - 1) for p in plan.flatten().tolist() if p > 0)
    assert float(found.objectives[-1]) == pytest.approx(wanted, rel=1e-9)


def test_neighbours_agree_more_with_the_semantic_term():
    x, y = blobs()
    graph, z = sp2ot.similarity_graph(x, 5), logits(len(x), 4)
    agree = []
    for semantic in (0.0, 0.3 * len(x)):
        found = sp2ot.sp2ot_labels(z, graph, semantic, 0.7, outer=10, inner_tolerance=1e-3).labels
        hard = found.argmax(1)
        agree.append(float((graph * (hard[:, None] == hard)).sum() / graph.sum()))
    assert agree[1] > agree[0] + 0.1


def test_clusters_of_unequal_size_are_found():
    x, y = blobs()
    found = sp2ot.sp2ot_clusters(x, 4, generator=torch.Generator().manual_seed(0), steps=100)
    assert measures.measures(found, y, 4)["ACC"] > 0.6


@pytest.mark.bad_input
def test_bad_input_is_named():
    z = torch.zeros(4, 2)
    for how, named in ((lambda: sp2ot.similarity_graph(z, 4), "k"),
                       (lambda: sp2ot.sp2ot_labels(z, torch.zeros(3, 3), 1.0, 0.5), "graph"),
                       (lambda: sp2ot.sp2ot_labels(z, torch.zeros(4, 4), -1.0, 0.5), "semantic")):  # fmt: skip
        with pytest.raises(ValueError, match=named):
            how()
