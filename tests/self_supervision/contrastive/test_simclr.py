"""NT-Xent against a plain float64 loop, its peers and its closed forms."""

import pytest
import torch
from self_supervision.contrastive.helpers import dot, lse, rows

from labcode.self_supervision import contrastive as C

EPS = 1e-10


def loop_nt_xent(z, tau):
    n, total = len(z) // 2, 0.0
    for i in range(2 * n):
        scores = {k: dot(z[i], z[k]) / tau for k in range(2 * n) if k != i}
        total += lse(scores.values()) - scores[(i + n) % (2 * n)]
    return total / (2 * n)


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("tau", [1e-8, 0.011, 0.1, 0.5, 30.0])
def test_nt_xent_is_the_loop(n, tau):
    z = rows(2 * n)
    assert float(C.nt_xent(z, tau)) == pytest.approx(loop_nt_xent(z, tau), rel=EPS, abs=EPS)


def test_peer_agrees():
    lightly = pytest.importorskip("lightly.loss")
    z = rows(16, 8, dtype=torch.float32)
    theirs = float(lightly.NTXentLoss(temperature=0.3)(z[:8], z[8:]))
    assert float(C.nt_xent(z, 0.3)) == pytest.approx(theirs, rel=1e-4)
