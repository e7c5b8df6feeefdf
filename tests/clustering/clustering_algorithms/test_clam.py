"""ClAM: the recursion is descent on its energy, hidden coordinates alone move, and training clusters."""

import pytest
import torch
from sklearn.metrics import silhouette_score

from labcode.clustering.clustering_algorithms import clam, energy, many_kmeans, recall, self_trained, soft_kmeans
from labcode.clustering.clustering_algorithms.trials import silhouettes
from labcode.evaluate import ari

f64 = dict(dtype=torch.float64)


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def blobs(n=90):
    y = torch.arange(n) % 3
    x = 0.3 * torch.randn(n, 4, generator=draw()) + 3 * torch.eye(4)[y]
    return (x - x.mean(0)) / x.std(0), y


def test_a_step_is_the_loop_and_the_gradient_of_the_energy():
    v, r = torch.randn(6, 3, generator=draw(), **f64).requires_grad_(), torch.randn(4, 3, generator=draw(1), **f64)
    beta, rate = 1.7, 0.1
    slow = []
    for row in v.detach():
        weight = torch.exp(-beta / 2 * (row - r).square().sum(1))
        slow.append(row + rate * (weight[:, None] * (r - row)).sum(0) / weight.sum())
    found = recall(v, r, beta, steps=1, rate=rate)
    torch.testing.assert_close(found.detach(), torch.stack(slow))
    slope = torch.autograd.grad(energy(v, r, beta).sum(), v)[0]
    torch.testing.assert_close(found.detach(), v.detach() - rate * slope)


def test_the_energy_falls_and_visible_coordinates_stay():
    v, r = torch.randn(9, 5, generator=draw(), **f64), torch.randn(4, 5, generator=draw(1), **f64)
    path = [energy(recall(v, r, 2.0, steps=s, rate=0.1), r, 2.0) for s in (0, 1, 5, 20)]
    assert all(bool((b <= a + 1e-12).all()) for a, b in zip(path, path[1:], strict=False))
    mask = torch.rand(9, 5, generator=draw()) < 0.4
    out = recall(v, r, 2.0, mask)
    assert torch.equal(out[~mask], v[~mask]) and not torch.equal(out[mask], v[mask])


def test_gradients_reach_the_prototypes_through_all_steps():
    v, r = torch.randn(2, 3, generator=draw(), **f64), torch.randn(3, 3, generator=draw(1), **f64).requires_grad_()
    mask = torch.tensor([[True, False, True], [False, True, True]])
    assert torch.autograd.gradcheck(lambda r: recall(v, r, 1.3, mask, 4), (r,))


@pytest.mark.parametrize("beta", [1e-6, 1e6])
def test_extreme_temperatures(beta):
    v, r = torch.randn(7, 3, generator=draw()), torch.randn(4, 3, generator=draw(1))
    out = recall(v, r, beta, steps=40, rate=1.0)
    want = r.mean(0).expand_as(v) if beta < 1 else r[torch.cdist(v, r).argmin(1)]
    torch.testing.assert_close(out, want, rtol=0, atol=1e-4)


def test_it_clusters_and_so_do_its_rivals():
    x, y = blobs()
    beta = torch.full((4,), 2.0)
    found = clam(x, 3, beta=beta, generator=draw(), epochs=25)
    assert ari(found.labels(x)[int(found.loss.argmin())], y) > 0.95
    soft = soft_kmeans(x, 3, beta=torch.full((4,), 4.0), generator=draw(), iterations=60)
    assert ari(soft.labels(x)[int(soft.loss.argmin())], y) > 0.9
    start = many_kmeans(x, 3, restarts=2, generator=draw()).centroids
    assert self_trained(x, start, 20).labels(x).shape == (2, 90)


def test_runs_of_a_batch_do_not_disturb_each_other_and_edges_are_finite():
    x, _ = blobs(30)
    for start in ("rows", "normal"):
        found = clam(x, 2, beta=torch.tensor([1.0, 3.0]), generator=draw(), epochs=3, start=start, masked=0.0)
        assert torch.isfinite(found.prototypes).all() and found.labels(x).shape == (2, 30)
    assert torch.isfinite(clam(x[:1], 1, beta=torch.ones(1), generator=draw(), epochs=2).prototypes).all()
    assert torch.isfinite(clam(torch.zeros(4, 2).half(), 2, beta=torch.ones(1), generator=draw(), epochs=2).loss).all()
    for wrong, name in (
        (dict(k=0), "k"),
        (dict(masked=1.0), "masked"),
        (dict(start="mean"), "start"),
        (dict(lr=0.0), "lr"),
    ):
        with pytest.raises(ValueError, match=name):
            clam(x, **dict(k=2, beta=torch.ones(1), generator=draw()) | wrong)


def test_silhouettes_of_many_partitions_are_scikit_learns():
    x, labels = torch.randn(40, 3, generator=draw()), torch.randint(4, (5, 40), generator=draw(1))
    labels[1, labels[1] == 2] = 0  # an empty cluster
    labels[2], labels[3] = 0, torch.where(torch.arange(40) == 7, 3, 0)  # a single one; a singleton
    theirs = [float(silhouette_score(x.double(), row)) if len(row.unique()) > 1 else -1.0 for row in labels]
    assert silhouettes(x, labels) == pytest.approx(theirs)
