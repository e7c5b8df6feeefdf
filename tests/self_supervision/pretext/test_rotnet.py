"""Rotation against the loop."""

import math

import pytest
import torch
from self_supervision.pretext.helpers import draw, log_softmax

from labcode.self_supervision import pretext as P


@pytest.mark.parametrize("n, k", [(1, 4), (5, 4), (3, 2)])
def test_rotation_loss_is_the_loop(n, k):
    scores = draw(n * k, k)
    wanted = -sum(log_softmax(scores[v * n + i].tolist())[v] for v in range(k) for i in range(n)) / (n * k)
    assert float(P.rotation_loss(scores)) == pytest.approx(wanted, rel=1e-12)
    assert float(P.rotation_loss(torch.zeros(n * k, k))) == pytest.approx(math.log(k))
