"""RCAL: outliers, statistics, borrowing, virtual features."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import LocalOutlierFactor

from labcode.imperfect_labels.noisy_labels import (
    borrow,
    class_statistics,
    estimation_error,
    inliers,
    local_outlier_factor,
    prior_flips,
    virtual_features,
)  # fmt: skip


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_outlier_factor_agrees_with_scikit_learn():
    z = draw(60, 3)
    theirs = LocalOutlierFactor(n_neighbors=7).fit(z.numpy())
    assert np.allclose(local_outlier_factor(z, 7).numpy(), -theirs.negative_outlier_factor_, rtol=1e-6)


def test_outlier_factor_of_few_points():
    assert local_outlier_factor(draw(1, 3)).tolist() == [1]
    assert bool(torch.isfinite(local_outlier_factor(torch.zeros(5, 2))).all())
    assert torch.allclose(local_outlier_factor(draw(9, 2), 50), local_outlier_factor(draw(9, 2), 8))


def test_far_points_are_dropped():
    z = torch.cat([draw(40, 2), 20 + draw(4, 2, seed=1) * 5, draw(3, 2, seed=2)])
    y = torch.tensor([0] * 44 + [1] * 3)
    kept = inliers(z, y, 3, 4 / 44, k=10)
    assert kept.tolist() == [True] * 40 + [False] * 4 + [True] * 3
    with pytest.raises(ValueError, match="share"):
        inliers(z, y, 2, 1.0)


def test_statistics_against_numpy():
    z, y = draw(30, 4), torch.arange(30) % 3
    kept = torch.arange(30) >= 6
    mean, cov, count = class_statistics(z, y, 4, kept)
    for c in range(3):
        rows = z[(y == c) & kept].numpy()
        assert np.allclose(mean[c], rows.mean(0)) and np.allclose(cov[c], np.cov(rows.T, bias=True))
    assert count.tolist() == [8, 8, 8, 0] and float(cov[3].abs().sum()) == 0
    pooled = class_statistics(z, y, 4, kept, shrink=1.0)[1]
    assert torch.allclose(pooled[0], cov[:3].mean(0)) and torch.allclose(pooled[0], pooled[3])


def test_tails_borrow_and_heads_do_not():
    mean = torch.tensor([[0.0, 0.0], [10.0, 0.0], [1.0, 0.0]])
    cov = torch.stack([torch.eye(2), 4 * torch.eye(2), 9 * torch.eye(2)])
    new_mean, new_cov = borrow(mean, cov, torch.tensor([50.0, 40.0, 2.0]), head=2, near=1, own=0.6)
    assert torch.equal(new_mean[:2], mean[:2]) and torch.equal(new_cov[:2], cov[:2])
    assert new_mean[2].tolist() == pytest.approx([0.6, 0.0])
    assert torch.allclose(new_cov[2], (0.6 * 9 + 0.4) * torch.eye(2))
    same, _ = borrow(mean, cov, torch.tensor([50.0, 40.0, 2.0]), head=3)
    assert torch.equal(same, mean)
    with pytest.raises(ValueError, match="own"):
        borrow(mean, cov, torch.ones(3), own=1.5)


def test_virtual_features_have_the_moments():
    root = draw(3, 3)
    mean, cov = draw(2, 3, seed=1), torch.stack([root @ root.T, torch.zeros(3, 3, dtype=torch.float64)])
    x, y = virtual_features(mean, cov, torch.tensor([20_000, 2]), generator=torch.Generator().manual_seed(0))
    assert y.bincount().tolist() == [20_000, 2]
    assert torch.allclose(x[y == 0].mean(0), mean[0], atol=0.1)
    assert torch.allclose(torch.cov(x[y == 0].T), cov[0], atol=0.3)
    assert torch.allclose(x[y == 1], mean[1].expand(2, 3))


def test_flips_go_to_the_head():
    t = prior_flips(torch.tensor([80, 15, 5]), 0.2)
    assert torch.allclose(t.sum(1), torch.ones(3, dtype=torch.float64))
    assert float(t[1, 0] / t[1, 2]) == pytest.approx(16) and float(t[0, 0]) == pytest.approx(0.8)


def test_errors_of_the_truth_are_zero():
    m, s = draw(3, 2), torch.eye(2).double().expand(3, 2, 2)
    assert estimation_error(m, s, m, s, torch.arange(3)) == (0, 0)
    assert estimation_error(m + 3, 2 * s, m, s, torch.tensor([1]))[1] == pytest.approx(1)
