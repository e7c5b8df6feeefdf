"""The contrasts against the library's, and semi-supervised k-means against scikit-learn and a loop."""

import math

import pytest
import torch

from labcode.clustering import category_discovery as C
from labcode.self_supervision.contrastive import nt_xent, sup_con


def test_one_function_is_infonce_and_supcon():
    g = torch.Generator().manual_seed(0)
    z, y = torch.randn(2, 12, 5, dtype=torch.float64, generator=g), torch.randint(3, (2, 6), generator=g)
    info = [nt_xent(each, 0.3) for each in z]
    assert float(C.weighted_contrast(z, C.same_view(6, 2).double(), 0.3)) == pytest.approx(
        float(sum(info)) / 2, rel=1e-9
    )
    taught = [sup_con(each, labels.repeat(2), 0.1) for each, labels in zip(z, y, strict=True)]
    assert float(C.weighted_contrast(z, C.same_class(y).double(), 0.1)) == pytest.approx(
        float(sum(taught)) / 2, rel=1e-9
    )


def test_weights_are_the_loop():
    g = torch.Generator().manual_seed(1)
    z, w = torch.randn(1, 5, 3, dtype=torch.float64, generator=g), torch.rand(1, 5, 5, dtype=torch.float64, generator=g)
    w[0, 2] = 0  # a row that is drawn to none
    u, total = torch.nn.functional.normalize(z[0], dim=1), []
    for i in (0, 1, 3, 4):
        others = [j for j in range(5) if j != i]
        norm = sum(math.exp(float(u[i] @ u[j]) / 0.2) for j in others)
        total.append(-sum(float(w[0, i, j]) * (float(u[i] @ u[j]) / 0.2 - math.log(norm)) for j in others) / 4)
    assert float(C.weighted_contrast(z, w, 0.2)) == pytest.approx(sum(total) / 4, rel=1e-9)
    z.requires_grad_()
    assert torch.autograd.gradcheck(lambda a: C.weighted_contrast(a, w, 0.5), z)


def test_edges_of_the_contrast():
    nothing = torch.zeros(1, 4, 4)
    assert float(C.weighted_contrast(torch.randn(1, 4, 3), nothing)) == 0
    for z in (torch.zeros(1, 4, 3), torch.ones(1, 4, 3), 1e4 * torch.randn(1, 4, 3).half()):
        assert torch.isfinite(C.weighted_contrast(z, torch.ones(1, 4, 4), 1e-3))
    assert torch.equal(C.same_class(torch.tensor([[-1, -1]])), torch.zeros(1, 4, 4))


def test_semi_supervised_kmeans_without_labels_is_kmeans():
    from sklearn.cluster import KMeans

    g = torch.Generator().manual_seed(0)
    x, start = torch.randn(80, 3, generator=g), torch.randn(4, 3, generator=g)
    found = C.semi_supervised_kmeans(x, torch.full((80,), -1), 4, generator=g, start=start[None])
    wanted = KMeans(4, init=start.numpy(), n_init=1, max_iter=50, tol=0).fit(x.numpy())
    assert torch.equal(found.labels[0], torch.from_numpy(wanted.labels_).long())
    assert float(found.inertia[0]) == pytest.approx(wanted.inertia_, rel=1e-4)


def test_labelled_rows_stay_and_pull():
    x = torch.tensor([[0.0], [10.0], [0.1], [9.0]])
    known = torch.tensor([0, 0, -1, -1])  # a class with a far row
    found = C.semi_supervised_kmeans(x, known, 2, generator=torch.Generator().manual_seed(0), restarts=4)
    assert bool((found.labels[:, :2] == 0).all())
    for bad in (dict(k=0), dict(k=5)):
        with pytest.raises(ValueError, match="k must"):
            C.semi_supervised_kmeans(x, known, generator=torch.Generator(), **bad)
