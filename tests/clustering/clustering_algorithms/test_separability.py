"""H0 bars against SciPy's spanning tree and single linkage; the score and its companions in closed form."""

import numpy as np
import pytest
import torch
from scipy.cluster.hierarchy import linkage
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial.distance import pdist, squareform

from labcode.clustering.clustering_algorithms import (
    ManyMLPs,
    fisher_ratio,
    persistence,
    plateau,
    separability,
    thornton,
)


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def test_bars_are_the_spanning_tree_and_single_linkage():
    x = torch.randn(3, 40, 5, generator=draw(), dtype=torch.float64)
    for cloud, bars in zip(x, persistence(x), strict=False):
        table = pdist(cloud.numpy())
        np.testing.assert_allclose(bars, np.sort(minimum_spanning_tree(squareform(table)).data), rtol=1e-9)
        np.testing.assert_allclose(bars, np.sort(linkage(table, "single")[:, 2]), rtol=1e-9)


def test_large_clouds_go_on_with_who_is_left():
    """Points that have joined are dropped on the way; equal points stay at distance 0, far from the origin too."""
    x = torch.randn(2, 400, 3, generator=draw(), dtype=torch.float64)
    for cloud, bars in zip(x, persistence(x), strict=True):
        edges = minimum_spanning_tree(squareform(pdist(cloud.numpy()))).data
        np.testing.assert_allclose(bars, np.sort(edges), rtol=1e-9)
    twice = torch.cat([x[0], x[0]]).float() + 1000
    bars = persistence(twice)
    assert int((bars == 0).sum()) == 400
    torch.testing.assert_close(bars[400:], persistence(x[0].float() + 1000), rtol=1e-5, atol=1e-5)


def test_agrees_with_hdbscan():
    hdbscan = pytest.importorskip("hdbscan")
    x = torch.randn(500, 8, generator=draw(), dtype=torch.float64)
    tree = hdbscan.HDBSCAN(min_samples=1, min_cluster_size=2).fit(x.numpy()).single_linkage_tree_
    np.testing.assert_allclose(persistence(x), np.sort(tree.to_numpy()[:, 2]), rtol=1e-9)


def test_the_score_does_not_change_with_place_scale_and_order():
    x = torch.randn(30, 3, generator=draw(), dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=draw(1), dtype=torch.float64))[0]
    one = separability(persistence(x))
    torch.testing.assert_close(one, separability(persistence(7 * x[torch.randperm(30, generator=draw())] @ turn + 3)))


def test_values_by_hand():
    line = torch.tensor([[0.0], [1], [2], [9]])
    assert persistence(line).tolist() == [1, 1, 7] and float(separability(persistence(line))) == pytest.approx(
        1 - 3 / 7
    )
    assert float(separability(torch.full((9,), 2.0))) == 0 and float(separability(torch.zeros(4))) == 0
    bars = torch.ones(200)
    bars[-1] = 1000  # one far point
    assert float(separability(bars)) > 0.9 and float(separability(bars, 0.99)) == pytest.approx(0, abs=1e-6)


def test_edges():
    assert persistence(torch.zeros(5, 2)).tolist() == [0] * 4
    assert persistence(torch.randn(2, 3).half()).dtype == torch.float32
    for bad in (torch.zeros(1, 2), torch.zeros(3), torch.full((3, 2), torch.nan)):
        with pytest.raises(ValueError, match="x must"):
            persistence(bad)
    with pytest.raises(ValueError, match="quantile"):
        separability(torch.ones(3), 0.0)


def test_fisher_and_thornton():
    x = torch.tensor([[0.0], [2], [10], [12]])
    y = torch.tensor([3, 3, 5, 5])
    assert float(fisher_ratio(x, y)) == pytest.approx(100 / 4) and float(thornton(x, y)) == 1
    assert float(thornton(x, torch.tensor([0, 1, 0, 1]))) == 0
    torch.testing.assert_close(fisher_ratio(torch.stack([x, 3 * x]), y)[0], fisher_ratio(torch.stack([x, 3 * x]), y)[1])


def test_plateau():
    assert plateau([0, 0.5, 0.8, 0.801, 0.8, 0.802], 3, 0.01) == 2 and plateau([0.0, 0.1, 0.2]) == 2
    assert plateau([0.5, 0.1, 0.1, 0.1], 3) == 0 and plateau([0.5, 0.1, 0.1, 0.6], 3) == 3


def test_networks_of_a_batch_do_not_see_each_other():
    nets = ManyMLPs(4, 8, 3, [True, False], draw())
    x = torch.randn(2, 5, 4, generator=draw())
    one = nets(x)
    x[1] += 1
    two = nets(x)
    assert torch.equal(one[0], two[0]) and not torch.equal(one[1], two[1])
    assert float(nets.embed(x)[0].detach().mean(1).abs().max()) < 1e-5
