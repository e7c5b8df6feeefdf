"""The linear reader."""

import pytest
import torch

from labcode.self_supervision import contrastive_theory as T


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=gen(seed))


def test_ridge_accuracy_is_mean_recall():
    x = torch.eye(3).repeat(20, 1) + 0.01 * torch.randn(60, 3, generator=gen())
    y = torch.arange(3).repeat(20)
    assert T.ridge_accuracy(x, y, x, y) == 1
    rare = torch.cat([torch.zeros(95, dtype=torch.int64), torch.ones(5, dtype=torch.int64)])
    assert T.ridge_accuracy(torch.zeros(100, 2), rare, torch.zeros(100, 2), rare) == pytest.approx(0.5)


def test_ridge_accuracy_and_moments_take_any_labels():
    x, y = randn(60, 4), torch.arange(60) % 3
    ids = torch.tensor([10**12, -3, 5])[y]
    assert T.ridge_accuracy(x, ids, x, ids) == T.ridge_accuracy(x, y, x, y)
    for a, b in zip(T.moments(x, ids), T.moments(x, y), strict=True):
        torch.testing.assert_close(a, b)
