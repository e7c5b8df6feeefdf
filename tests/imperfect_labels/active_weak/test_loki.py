"""Loki's rule against a loop, loci against linear programmes and brute force."""

import pytest
import torch

from labcode.imperfect_labels import active_weak as A


def test_rule_is_the_loop():
    g = torch.Generator().manual_seed(0)
    p, d = torch.rand(8, 3, dtype=torch.float64, generator=g), torch.rand(6, 3, dtype=torch.float64, generator=g)
    for power in (1.0, 2.0):
        got = A.frechet_mean(p, d, power)
        for i in range(8):
            costs = [sum(float(p[i, k]) * float(d[y, k]) ** power for k in range(3)) for y in range(6)]
            assert int(got[i]) == costs.index(min(costs))
    assert torch.equal(A.frechet_mean(p, d), A.frechet_mean(5 * p, 3 * d))


@pytest.mark.bad_input
def test_rule_names_what_does_not_fit():
    with pytest.raises(ValueError, match="labels, k"):
        A.frechet_mean(torch.rand(8, 3), torch.rand(6, 2))


def test_complete_graph_and_certainty_are_argmax():
    g = torch.Generator().manual_seed(0)
    p = torch.softmax(torch.randn(50, 5, generator=g), 1)
    assert torch.equal(A.frechet_mean(p, 1 - torch.eye(5)), p.argmax(1))
    sharp = A.with_temperature(p, 1e-3)
    assert torch.equal(A.frechet_mean(sharp, A.cycle_distances(5)), p.argmax(1))
    assert torch.allclose(A.with_temperature(p, 1.0), p, atol=1e-6)
    with pytest.raises(ValueError, match="t must"):
        A.with_temperature(p, 0.0)


def test_distances_are_metrics():
    d = A.tree_distances(torch.tensor([0, 0, 1, 1, 0]))
    assert d.tolist()[2] == [2, 1, 0, 2, 3] and torch.equal(d, d.T)
    for d in (A.grid_distances(3), A.cycle_distances(7), A.hierarchy_distances((0, 0, 1, 1))):
        assert torch.equal(d, d.T) and float(d.diagonal().abs().max()) == 0
        assert (d[:, :, None] <= d[:, None, :] + d.T[None] + 1e-9).all()
    assert len(A.CIFAR100_SUPER) == 100 and torch.bincount(torch.tensor(A.CIFAR100_SUPER)).tolist() == [5] * 20
    assert A.squared_distance(torch.tensor([0, 2]), torch.tensor([0, 0]), A.cycle_distances(7)) == 2.0
    with pytest.raises(ValueError, match="parent"):
        A.tree_distances(torch.tensor([0, 2, 0]))


@pytest.mark.parametrize("seed", range(3))
def test_locus_of_a_tree_is_its_paths(seed):
    g = torch.Generator().manual_seed(seed)
    d = A.tree_distances(A.random_tree(9, g))
    seen = torch.randperm(9, generator=g)[:3]
    inside = A.tree_locus(d, seen)
    assert torch.equal(A.locus(d, seen), inside) and A.tree_locus(d, A.leaves(d)).all()
    drawn = torch.distributions.Dirichlet(torch.full((3,), 0.5, dtype=torch.float64)).sample((3000,))
    assert inside[A.frechet_mean(drawn, d[:, seen])].all()  # no probabilities lead out of it


def test_next_class_adds_most():
    g = torch.Generator().manual_seed(0)
    for _ in range(5):
        d = A.tree_distances(A.random_tree(12, g))
        seen = torch.randperm(12, generator=g)[:2]
        if A.tree_locus(d, seen).all():
            continue
        gains = [int(A.tree_locus(d, torch.cat([seen, torch.tensor([v])])).sum()) for v in range(12)]
        assert gains[A.next_class(d, seen)] == max(gains)
    sizes = A.locus_sizes(d, seen, 12)
    assert sizes == sorted(sizes) and sizes[-1] == 12
    with pytest.raises(ValueError, match="observed"):
        A.next_class(d, torch.arange(12))
    assert A.knn_probabilities(torch.eye(3), torch.arange(3), torch.eye(3), 3, 1).tolist() == torch.eye(3).tolist()
