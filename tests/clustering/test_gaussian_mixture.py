"""Mixtures by EM: against scikit-learn from the same start, a loop in float64, and what must not change them."""

import math

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.datasets import load_iris
from sklearn.mixture import GaussianMixture

from labcode.clustering.gaussian_mixture import gaussian_mixture
from labcode.clustering.many_kmeans import many_kmeans

X = torch.from_numpy(load_iris().data)
NAMES = {"full": "full", "diagonal": "diag", "spherical": "spherical"}


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


class From(GaussianMixture):
    """scikit-learn's mixture from given labels."""

    labels = None

    def _initialize_parameters(self, X, random_state, xp=None):
        self._initialize(X, np.eye(self.n_components)[self.labels])


@pytest.mark.parametrize("covariance", NAMES)
@pytest.mark.parametrize("iterations", [1, 7])
def test_it_is_scikit_learns_from_the_same_start(covariance, iterations):
    start = torch.randint(3, (3, len(X)), generator=draw())
    ours = gaussian_mixture(X, 3, restarts=3, covariance=covariance, generator=draw(), start=start,
                            iterations=iterations, tolerance=0.0)  # fmt: skip
    for r in range(3):
        theirs = From(3, covariance_type=NAMES[covariance], tol=0.0, max_iter=iterations)
        theirs.labels = start[r].numpy()
        with pytest.warns(UserWarning):
            theirs.fit(X.numpy())
        np.testing.assert_allclose(ours.means[r], theirs.means_, atol=1e-8)
        np.testing.assert_allclose(ours.covariances[r], theirs.covariances_, atol=1e-8)
        np.testing.assert_allclose(ours.weights[r], theirs.weights_, atol=1e-10)
        np.testing.assert_allclose(ours[r].log_prob(X)[0], theirs.score_samples(X.numpy()), atol=1e-7)
        assert float(ours[r].bic(len(X))) == pytest.approx(
            theirs.bic(X.numpy()) if iterations > 50 else -2 * len(X) * float(ours.score[r])
            + theirs._n_parameters() * math.log(len(X)))  # fmt: skip


@pytest.mark.parametrize("covariance", NAMES)
def test_the_likelihood_never_falls_and_restarts_do_not_disturb_each_other(covariance):
    start = torch.randint(3, (4, len(X)), generator=draw(1))
    options = dict(covariance=covariance, generator=draw(), tolerance=0.0)
    scores = [gaussian_mixture(X, 3, restarts=4, start=start, iterations=i, **options).score for i in (1, 2, 4, 8, 16)]
    assert all(bool((b >= a - 1e-7).all()) for a, b in zip(scores, scores[1:], strict=False))
    alone = gaussian_mixture(X, 3, restarts=1, start=start[2:3], iterations=16, **options)
    torch.testing.assert_close(alone.score[0], scores[-1][2])


def test_students_t_is_a_gaussian_at_many_degrees_and_listens_less_to_far_rows_at_few():
    start = (X[:, 2] > 2.5).long()[None]
    options = dict(restarts=1, covariance="full", generator=draw(), start=start, tolerance=1e-9)
    gauss, wide = gaussian_mixture(X, 2, **options), gaussian_mixture(X, 2, dof=1e8, **options)
    torch.testing.assert_close(gauss.means, wide.means, rtol=1e-5, atol=1e-5)
    far = torch.cat([X, X[:1] + 60])
    options["start"] = torch.cat([start, start[:, :1]], 1)
    moved = [
        float((gaussian_mixture(far, 2, dof=dof, **options).means[0, 0] - gauss.means[0, 0]).norm())
        for dof in (None, 3.0)
    ]
    assert moved[1] < moved[0] / 5


def test_students_density_integrates_to_one():
    x = torch.linspace(-400, 400, 400_001, dtype=torch.float64)[:, None]
    fitted = gaussian_mixture(torch.randn(50, 1, generator=draw(), dtype=torch.float64), 2, restarts=2,
                              covariance="spherical", generator=draw(), dof=3.0)  # fmt: skip
    assert torch.trapezoid(fitted.log_prob(x).exp(), x[:, 0]).tolist() == pytest.approx([1, 1], abs=1e-4)


def test_shift_and_scale_of_the_rows_shift_and_scale_the_means():
    start = torch.randint(2, (1, len(X)), generator=draw(2))
    options = dict(
        restarts=1, covariance="full", generator=draw(), start=start, iterations=10, tolerance=0.0, floor=0.0
    )
    one, two = gaussian_mixture(X, 2, **options), gaussian_mixture(3 * X + 5, 2, **options)
    torch.testing.assert_close(3 * one.means + 5, two.means)


@pytest.mark.parametrize("covariance", NAMES)
def test_edges(covariance):
    options = dict(restarts=2, covariance=covariance, generator=draw())
    assert torch.isfinite(gaussian_mixture(X[:1], 1, **options).score).all()
    assert torch.isfinite(gaussian_mixture(torch.ones(6, 2), 2, **options).score).all()
    assert torch.isfinite(gaussian_mixture(X[:30].half(), 2, **options | dict(floor=1e-3)).score).all()
    assert gaussian_mixture(X, 1, **options).predict(X).unique().tolist() == [0]


@pytest.mark.parametrize("wrong, name", [
    (dict(k=0), "k"), (dict(k=200), "k"), (dict(covariance="tied"), "covariance"), (dict(restarts=0), "restarts"),
    (dict(x=X[:, 0]), "x"), (dict(x=X * float("nan")), "x"), (dict(dof=0.0), "dof"), (dict(floor=-1.0), "floor"),
    (dict(start="best"), "start"), (dict(start=torch.zeros(1, 3, dtype=torch.long)), "start"),
])  # fmt: skip
def test_bad_input_is_named(wrong, name):
    given = dict(x=X, k=2, restarts=1, covariance="full", generator=draw()) | wrong
    with pytest.raises(ValueError, match=name):
        gaussian_mixture(given.pop("x"), given.pop("k"), **given)


def test_many_kmeans_ends_where_scikit_learn_does():
    start = torch.stack([X[torch.randperm(len(X), generator=draw(i))[:4]] for i in range(5)])
    ours = many_kmeans(X, 4, restarts=5, generator=draw(), start=start)
    for r in range(5):
        theirs = KMeans(4, init=start[r].numpy(), n_init=1, tol=0.0, algorithm="lloyd").fit(X.numpy())
        assert float(ours.inertia[r]) == pytest.approx(theirs.inertia_, rel=1e-9)
        np.testing.assert_allclose(ours.centroids[r], theirs.cluster_centers_, atol=1e-9)


def test_many_kmeans_edges():
    assert many_kmeans(torch.ones(5, 2), 3, restarts=2, generator=draw()).inertia.tolist() == [0, 0]
    every = many_kmeans(X[:7].float(), 7, restarts=3, generator=draw(), seeding="rows")
    assert float(every.inertia.max()) < 1e-6 and len(every.labels[0].unique()) == 7
    plus = many_kmeans(X, 8, restarts=40, generator=draw(), iterations=1).inertia.mean()
    assert plus < many_kmeans(X, 8, restarts=40, generator=draw(), iterations=1, seeding="rows").inertia.mean()
    for wrong in (dict(k=0), dict(seeding="far"), dict(restarts=0)):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            many_kmeans(X, **dict(k=2, restarts=1, generator=draw()) | wrong)
