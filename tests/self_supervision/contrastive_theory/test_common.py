"""The linear reader."""

import pytest
import torch
from self_supervision.contrastive_theory.helpers import gen, randn

from labcode.self_supervision import contrastive_theory as T
from labcode.self_supervision.contrastive_theory._common import class_means


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


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32])
def test_class_means_of_labels_of_any_width(dtype):
    f, y = randn(9, 2), torch.arange(9) % 2
    wanted = torch.stack([f[y == c].mean(0) for c in (0, 1)])
    assert torch.allclose(class_means(f, y.to(dtype), 2), wanted)
