"""Rotation against the loop."""

import math

import pytest
import torch

from labcode.self_supervision import pretext as P


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def log_softmax(row):
    top = max(row)
    total = top + math.log(sum(math.exp(v - top) for v in row))
    return [v - total for v in row]


@pytest.mark.parametrize("n, k", [(1, 4), (5, 4), (3, 2)])
def test_rotation_loss_is_the_loop(n, k):
    scores = draw(n * k, k)
    wanted = -sum(log_softmax(scores[v * n + i].tolist())[v] for v in range(k) for i in range(n)) / (n * k)
    assert float(P.rotation_loss(scores)) == pytest.approx(wanted, rel=1e-12)
    assert float(P.rotation_loss(torch.zeros(n * k, k))) == pytest.approx(math.log(k))
