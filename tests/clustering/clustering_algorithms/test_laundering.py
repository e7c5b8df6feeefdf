"""Reducers against scikit-learn, the generator's customers."""


import numpy as np
import pytest
import torch
from sklearn.cluster import AgglomerativeClustering
from sklearn.decomposition import FastICA, KernelPCA

from labcode.clustering.clustering_algorithms import (
    agglomerate,
    customers,
    ica,
    indices,
    kernel_pca,
    locality_preserving,
    standardise,
    svd,
)  # fmt: skip

f64 = dict(dtype=torch.float64)


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


X = torch.randn(40, 6, generator=draw(), **f64) @ torch.randn(6, 6, generator=draw(1), **f64)


def test_kernel_pca_is_scikit_learns_up_to_signs():
    theirs = KernelPCA(3, kernel="rbf", gamma=0.05).fit_transform(X.numpy())
    np.testing.assert_allclose(kernel_pca(X, 3, 0.05).abs(), abs(theirs), atol=1e-8)
    with pytest.raises(ValueError, match="gamma"):
        kernel_pca(X, 2, 0.0)


def test_ica_finds_the_sources_that_scikit_learn_finds():
    s = torch.stack([torch.rand(400, generator=draw(), **f64), torch.rand(400, generator=draw(1), **f64) ** 3], 1)
    mixed = s @ torch.tensor([[1.0, 0.5], [0.4, 1.0]], **f64)
    ours = ica(mixed, 2, draw())
    theirs = torch.from_numpy(FastICA(2, whiten="unit-variance", random_state=0).fit_transform(mixed.numpy()))
    for found in (theirs, s):
        between = torch.corrcoef(torch.cat([ours, found], 1).T)[:2, 2:].abs()
        assert between.max(1).values.min() > 0.98


def test_locality_preserving_solves_its_eigenproblem_and_keeps_two_blobs_apart():
    x = torch.cat([torch.randn(30, 5, generator=draw(), **f64), torch.randn(30, 5, generator=draw(1), **f64) + 8])
    y = locality_preserving(x, 1, neighbours=5, first=5)
    split = agglomerate(y, 2)
    assert len(split[:30].unique()) == 1 and split[0] != split[-1]
    torch.testing.assert_close(locality_preserving(3 * x + 1, 1, 5, 5).abs(), y.abs(), rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="neighbours"):
        locality_preserving(X, 2, 40)


def test_svd_and_standardise():
    z = standardise(X)
    torch.testing.assert_close(z.std(0, correction=0), torch.ones(6, **f64))
    torch.testing.assert_close(svd(X, 6) @ svd(X, 6).T, (X - X.mean(0)) @ (X - X.mean(0)).T)
    assert standardise(torch.ones(4, 2)).tolist() == [[0, 0]] * 4


@pytest.mark.parametrize("linkage", ["ward", "average"])
def test_agglomeration_is_scikit_learns(linkage):
    ours = agglomerate(X, 4, linkage)
    theirs = AgglomerativeClustering(4, linkage=linkage).fit_predict(X.numpy())
    assert len(set(zip(ours.tolist(), theirs.tolist(), strict=False))) == 4
    assert indices(X, torch.zeros(40, dtype=torch.long))["silhouette"] == -1


def test_customers():
    one, two = customers(300, draw()), customers(300, draw())
    assert torch.equal(one.features, two.features) and one.features.shape == (300, 150)
    assert int(one.launders.sum()) == 9 and bool((one.segment[one.launders] % 2 == 0).all())
    assert torch.isfinite(one.features).all() and one.transactions > 20_000
    under = one.features.view(300, 5, 6, 5)[:, :, 0, 4].mean(1)  # cash deposits just under the limit
    assert float(under[one.launders].max()) > 10 * float(under[~one.launders].mean())
    related = torch.corrcoef(standardise(one.features).T).abs().nan_to_num()
    assert float(related.mean()) > 0.1
    with pytest.raises(ValueError, match="share"):
        customers(100, draw(), share=1.0)
