"""Reducers against scikit-learn, the generator's customers, the mixture VAE's densities."""

import math

import numpy as np
import pytest
import torch
from sklearn.cluster import AgglomerativeClustering
from sklearn.decomposition import FastICA, KernelPCA

from labcode.clustering.clustering_algorithms import (
    MixtureVAE,
    agglomerate,
    customers,
    density_peaks,
    encode_digits,
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


def test_the_prior_is_a_density_and_the_kl_is_right_for_a_single_component():
    model = MixtureVAE(6, 1, 1.0, components=3).double()
    z = torch.linspace(-40, 40, 8001, **f64)[:, None]
    assert float(torch.trapezoid(model.log_prior(z).exp(), z[:, 0]).detach()) == pytest.approx(1, abs=1e-6)
    torch.manual_seed(0)
    one = MixtureVAE(4, 2, 1.0, components=1).double()
    x = torch.rand(1, 4, generator=draw(), **f64).expand(20_000, 4)
    with torch.no_grad():
        mean, scale = one.encode(x[:1])
        q = torch.distributions.Normal(mean[0], scale[0])
        p = torch.distributions.Normal(one.means[0], one.log_scales[0].exp())
        draws = mean + scale * torch.randn(20_000, 2, **f64)
        sampled = (q.log_prob(draws).sum(1) - one.log_prior(draws)).mean()
        assert float(sampled) == pytest.approx(float(torch.distributions.kl_divergence(q, p).sum()), abs=0.4)
        free = one.step(x)["loss"]
        one.beta = 0.0
        assert float(free - one.step(x)["loss"]) == pytest.approx(float(sampled), abs=0.8)


def test_encodings_repeat_and_leave_the_callers_random_numbers_alone():
    x = torch.rand(40, 9, generator=draw())
    torch.manual_seed(3)
    state = torch.get_rng_state()
    one = encode_digits(x, x[:7], 2, 0.5, steps=3, seed=1, batch=8)
    state_after = torch.get_rng_state()
    two = encode_digits(x, x[:7], 2, 0.5, steps=3, seed=1, batch=8)
    assert torch.equal(one, two) and one.shape == (7, 2) and len(state) == len(state_after)
    assert not torch.equal(one, encode_digits(x, x[:7], 2, 0.5, steps=3, seed=1, batch=8, sampled=False))


def test_density_peaks_counts_blobs():
    y = torch.arange(300) % 4
    x = 0.3 * torch.randn(300, 2, generator=draw()) + 4 * torch.stack([y // 2, y % 2], 1)
    assert density_peaks(x, 20, 97.0) == 4
    assert density_peaks(torch.randn(80, 2, generator=draw()), 40) >= 1
    assert math.isfinite(density_peaks(torch.zeros(30, 2)))
