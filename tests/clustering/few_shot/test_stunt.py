"""STUNT: clusters of columns against a loop and scikit-learn, tasks that hide what made them."""

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from labcode.clustering import few_shot as F


def table(n=120, d=6, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.rand(n, d, generator=g)
    x[:, :2] += 3 * torch.randint(3, (n, 1), generator=g)
    return x


def test_subset_kmeans_sees_its_columns_only_and_ends_where_scikit_learn_does():
    x = table().double()
    columns = torch.zeros(4, 6, dtype=torch.bool)
    columns[:, :2], columns[3] = True, True
    g = torch.Generator().manual_seed(1)
    start = torch.rand(4, 120, generator=torch.Generator().manual_seed(1)).argsort(1)[:, :3]
    labels = F.subset_kmeans(x, columns, 3, g, iterations=100)
    for i in range(4):
        part = x[:, columns[i]].numpy()
        peer = KMeans(3, init=part[start[i]], n_init=1, max_iter=100, tol=0).fit(part)
        assert np.array_equal(labels[i], peer.labels_)
    other = x.clone()
    other[:, 2:] = torch.rand(120, 4, dtype=x.dtype)
    assert torch.equal(
        F.subset_kmeans(other, columns[:3], 3, torch.Generator().manual_seed(1))[0],
        F.subset_kmeans(x, columns[:3], 3, torch.Generator().manual_seed(1))[0],
    )
    with pytest.raises(ValueError, match="columns"):
        F.subset_kmeans(x, torch.zeros(1, 6, dtype=torch.bool), 3, g)
    with pytest.raises(ValueError, match="k must"):
        F.subset_kmeans(x, columns, 0, g)


@pytest.mark.parametrize("perturbed", ["marginal", "none", "noise"])
def test_only_the_drawn_columns_change(perturbed):
    x = torch.arange(120.0)[:, None] + torch.arange(6.0) / 10  # column and row can be read off
    t = F.Generator(3, shots=1, queries=4, ratio=(0.5, 0.5), perturbed=perturbed)(
        x, 20, torch.Generator().manual_seed(0)
    )
    rows = torch.cat([t.support, t.query], 1)
    floor = rows - torch.arange(6.0) / 10
    same = (floor - floor.median(2, keepdim=True).values).abs() < 1e-3
    if perturbed == "none":
        assert bool(same.all())
    else:
        assert abs(float(same.float().mean()) - 0.5) < 0.2
    if perturbed == "marginal":
        assert float((floor - floor.round()).abs().max()) < 1e-3  # values of the same column


def test_labels_are_clusters_and_shapes_are_right():
    x = table()
    t = F.Generator(3, shots=2, queries=5, ratio=(1.0, 1.0), perturbed="none")(x, 7, torch.Generator().manual_seed(0))
    assert t.support.shape == (7, 6, 6) and t.query.shape == (7, 15, 6) and t.ways == 3
    assert F.accuracy(F.nearest_prototype(t), t) > 0.8  # the clusters of all columns are easy to tell
    t = F.Generator(3, labels="random")(x, 7, torch.Generator().manual_seed(0))
    assert abs(F.accuracy(F.nearest_prototype(t), t) - 1 / 3) < 0.15
    t = F.Generator(3, queries=8, labels="column", perturbed="none")(x, 7, torch.Generator().manual_seed(0))
    assert t.query.shape[1] == 24
    with pytest.raises(ValueError, match="clusters"):
        F.Generator(3, queries=60)(x, 2, torch.Generator().manual_seed(0), tries=2)
    with pytest.raises(ValueError, match="labels"):
        F.Generator(3, labels="gmm")
    with pytest.raises(ValueError, match="ratio"):
        F.Generator(3, ratio=(0.5, 0.2))


def test_minmax_of_constant_and_new_rows():
    x = torch.tensor([[1.0, 5.0], [3.0, 5.0]])
    assert torch.equal(F.minmax(x), torch.tensor([[0.0, 0.0], [1.0, 0.0]]))
    assert torch.equal(F.minmax(torch.tensor([[5.0, 6.0]]), x), torch.tensor([[2.0, 1.0]]))


def test_labelled_tasks_and_the_nearest_neighbour():
    x, y = table(), torch.arange(120) % 3
    t = F.labelled_tasks(x[:90], y[:90], x[90:], y[90:], 2, 4, torch.Generator().manual_seed(0))
    assert t.support.shape == (4, 6, 6) and t.query.shape == (4, 30, 6)
    for i in range(4):
        for j in range(6):
            at = (x[:90] == t.support[i, j]).all(1).nonzero()
            assert int(y[at[0, 0]]) == int(t.support_y[i, j])
        near = torch.cdist(t.query[i], t.support[i]).argmin(1)
        assert torch.equal(F.nearest_neighbour(t)[i].argmax(1), t.support_y[i][near])


def test_training_looks_and_stops_at_the_best():
    made = F.stunt(table(), F.Generator(3, queries=5), 0, steps=20, hidden=16, looks=4)
    assert made.steps == [5, 10, 15, 20] and len(made.pseudo) == 4 and all(0 <= p <= 1 for p in made.pseudo)
    best = made.best().state_dict()
    at = made.states[max(range(4), key=made.pseudo.__getitem__)]
    assert all(torch.equal(best[k], v) for k, v in at.items())
    with pytest.raises(ValueError, match="tasks"):
        F.stunt(table(), F.Generator(3), 0, steps=1, tasks=3)
    assert F.corrupted_autoencoder(table(), 0, steps=2, hidden=8)(table()).shape == (120, 8)
