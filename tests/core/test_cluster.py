"""k-means beside scikit-learn's."""

import warnings

import pytest
import torch
from accelerator import accelerator
from sklearn.cluster import KMeans

from labcode import cluster


def clumps(n=600, d=5, k=8, spread=0.6, seed=0):
    g = torch.Generator().manual_seed(seed)
    centres = torch.randn(k, d, generator=g)
    return centres[torch.randint(k, (n,), generator=g)] + spread * torch.randn(n, d, generator=g)


def inertia(x, centroids):
    return float(torch.cdist(x, centroids).amin(1).square().sum())


@pytest.mark.parametrize("k", [1, 2, 8, 40])
def test_lloyd_from_the_same_seeds_ends_where_scikit_learn_ends(k):
    x = clumps().double()
    middle = x.mean(0)
    seeds = cluster._seeds(x - middle, k, torch.Generator().manual_seed(3)) + middle
    wanted = KMeans(k, init=seeds.numpy(), n_init=1, max_iter=50, tol=0, algorithm="lloyd").fit(x.numpy())
    found, which = cluster.kmeans(x, k, seed=3)
    torch.testing.assert_close(found, torch.from_numpy(wanted.cluster_centers_))
    assert which.tolist() == wanted.labels_.tolist()
    assert torch.equal(which, torch.cdist(x, found).argmin(1))


def test_seeds_are_as_good_as_scikit_learns():
    """Mean over draws of what is left after one Lloyd step; from rows drawn uniformly far more is left."""
    x, left = clumps(spread=0.2), {"ours": [], "theirs": [], "uniform": []}

    def theirs(**how):
        return torch.from_numpy(KMeans(8, n_init=1, max_iter=1, **how).fit(x.numpy()).cluster_centers_)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one step does not converge
        for seed in range(30):
            drawn = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:8]]
            left["ours"].append(inertia(x, cluster.kmeans(x, 8, seed, iterations=1)[0]))
            left["theirs"].append(inertia(x, theirs(random_state=seed)))
            left["uniform"].append(inertia(x, theirs(init=drawn.numpy())))
    ours, sklearn, uniform = (sum(values) / 30 for values in left.values())
    assert ours == pytest.approx(sklearn, rel=0.05) and uniform > 1.5 * ours


def test_rows_far_from_the_origin_keep_their_clusters():
    x = clumps(spread=0.05, k=4)
    near = cluster.kmeans(x, 4)[1]
    for offset in (1e3, 1e4):
        assert torch.equal(near, cluster.kmeans(x + offset, 4)[1])
    assert torch.equal(near, cluster.kmeans(x.double() + 1e10, 4)[1])


def test_clusters_much_closer_than_the_spread_are_found():
    """Two pairs, 1 apart within a pair and 1,000 between them; with 10⁵ between them in float64."""
    y = torch.arange(400) % 4
    noise = 0.05 * torch.randn(400, 5, generator=torch.Generator().manual_seed(0))
    for far, dtype in ((1e3, torch.float32), (1e5, torch.float64)):
        x = noise.to(dtype).clone()
        x[:, 0] += y // 2 * far
        x[:, 1] += y % 2
        which = cluster.kmeans(x, 4)[1]
        assert len({(a, b) for a, b in zip(which.tolist(), y.tolist(), strict=True)}) == 4


def test_size_and_precision_of_the_rows_do_not_matter():
    x = clumps(spread=0.05, k=4)
    centroids, which = cluster.kmeans(x, 4)
    for factor in (1e20, 1e-25, 3e37):
        found, same = cluster.kmeans(x * factor, 4)
        assert torch.equal(same, which) and torch.allclose(found / factor, centroids, rtol=1e-4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(cluster.kmeans(x, 4)[1], which)


def test_as_many_clusters_as_rows_and_more_than_different_ones():
    x = clumps(20)
    assert sorted(cluster.kmeans(x, 20)[1].tolist()) == list(range(20))
    found, which = cluster.kmeans(torch.ones(6, 2), 3)
    assert torch.isfinite(found).all() and torch.allclose(found[which], torch.ones(6, 2))


def test_a_centroid_without_rows_moves_to_the_row_farthest_from_its_own():
    x = torch.tensor([[0.0], [1.0], [9.0], [20.0]])
    which, near = cluster._nearest(x, torch.tensor([[0.5], [9.0], [100.0]]))
    assert cluster._means(x, which, near, 3).flatten().tolist() == [0.5, 14.5, 20.0]


def test_blocks_change_nothing(monkeypatch):
    x = clumps()
    whole = cluster.kmeans(x, 8)
    monkeypatch.setattr(cluster, "BLOCK", 100)
    assert all(torch.allclose(a.double(), b.double()) for a, b in zip(whole, cluster.kmeans(x, 8), strict=True))


def test_on_another_device_it_is_the_same():
    x = clumps()
    with accelerator():
        found, which = cluster.kmeans(x.to("gpu"), 8, seed=1)
        assert found.device.type == which.device.type == "gpu"
        assert torch.equal(which.cpu(), cluster.kmeans(x, 8, seed=1)[1])


@pytest.mark.bad_input
def test_what_it_refuses():
    x = clumps(20)
    for name, call in [
        ("k", lambda: cluster.kmeans(x, 0)), ("k", lambda: cluster.kmeans(x, 21)),
        ("x", lambda: cluster.kmeans(x[0], 2)), ("x", lambda: cluster.kmeans(x / 0, 2)),
        ("iterations", lambda: cluster.kmeans(x, 2, iterations=0)),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=f"^{name} must"):
            call()
