"""Conditional means, landmarks and the linear model."""

import math

import pytest
from self_supervision.contrastive_theory.helpers import gen, randn

from labcode.self_supervision import contrastive_theory as T


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_conditional_means_are_those_of_the_draws(dims):
    world, g = T.TwoViews(dims, 0.8, private=0.5), gen()
    x, z, y = world.draw(200_000, g)
    of_y = [(found, y) for found in (world.given_x(x), world.given_z(z), world.both(x, z))]
    for found, told in [*of_y, (world.mu(x), world.given_z(z))]:
        rest = told - found  # uncorrelated with the conditional mean, and of mean 0
        assert abs(float(rest.mean())) < 0.02 and abs(float((rest * found).mean())) < 0.03


def test_landmarks_average_to_the_conditional_mean_and_the_bound_holds():
    world, g = T.TwoViews(2, 0.8), gen()
    x, z, _ = world.draw(2000, g)
    landmarks = world.draw(20_000, g)[1]
    ratio = T.landmark_features(T.gaussian_log_ratio(x[:200, :2], landmarks, 0.8), clip=50)
    average = ratio @ world.given_z(landmarks) / len(landmarks)
    assert float((average - world.mu(x[:200])).abs().median()) < 0.03
    target = world.both(x, z)
    eps = [float((m - target).square().mean()) for m in (world.given_x(x), world.given_z(z))]
    assert float((world.mu(x) - target).square().mean()) <= T.redundancy_bound(*eps)


def test_linear_mse_is_least_squares():
    a, w = randn(200, 3), randn(3, seed=1)
    assert T.linear_mse(a[:100], a[:100] @ w + 2, a[100:], a[100:] @ w + 2, ridge=1e-12) < 1e-12
    assert T.linear_mse(a[:100], a[:100] @ w, a[100:], a[100:] @ w, ridge=1e9) > 0.5


def test_the_ratio_of_topics_is_that_of_the_sums():
    world = T.Topics(words=4, topics=3, vocabulary=6)
    x, z, _ = world.draw(2, gen())
    for i in range(2):
        for j in range(2):
            px, pz = ([math.prod(float(p) ** float(c) for p, c in zip(row, v, strict=True)) for row in world.book]
                      for v in (x[i], z[j]))  # fmt: skip
            both = sum(a * b for a, b in zip(px, pz, strict=True)) / 3
            assert float(world.log_ratio(x, z)[i, j]) == pytest.approx(math.log(both / (sum(px) / 3) / (sum(pz) / 3)))
    told = T.topic_errors(6, 0, m=20, labels=50, n=500)
    assert told["μ(X)"] <= told["bound"] and told["E[Y|X]"] < told["word counts"]
