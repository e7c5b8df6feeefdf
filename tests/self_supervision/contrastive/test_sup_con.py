"""The supervised contrastive loss against a plain float64 loop and a peer."""

import math

import pytest
import torch
from self_supervision.contrastive.helpers import dot, lse, rows

from labcode.self_supervision import contrastive as C

EPS = 1e-10


def loop_sup_con(z, labels, tau):
    terms = []
    for i in range(len(z)):
        scores = {j: dot(z[i], z[j]) / tau for j in range(len(z)) if j != i}
        same = [j for j in scores if labels[j] == labels[i]]
        if same:
            terms.append(sum(lse(scores.values()) - scores[p] for p in same) / len(same))
    return sum(terms) / len(terms) if terms else 0.0


@pytest.mark.parametrize("labels", [[0, 0, 1, 1, 1, 7], [-3, 5, 5, -3, 0, 1], [2] * 6, [0, 1, 2, 3, 4, 5],
                                    [10**8, -(2**62), 10**8, 2**62, -(2**62), 7]])  # fmt: skip
@pytest.mark.parametrize("tau", [1e-8, 0.01, 0.1, 0.5])
def test_sup_con_is_the_loop(labels, tau):
    z = rows(6)
    wanted = loop_sup_con(z, labels, tau)
    assert float(C.sup_con(z, torch.tensor(labels), tau)) == pytest.approx(wanted, rel=EPS, abs=EPS)


def test_sup_con_with_a_label_an_image_is_nt_xent():
    z, image = rows(10), torch.tensor([4, 1, 0, 3, 2]).repeat(2)
    assert float(C.sup_con(z, image, 0.2)) == pytest.approx(float(C.nt_xent(z, 0.2)), abs=EPS)
    assert float(C.sup_con(rows(6)[:1].repeat(4, 1), image[:2].repeat(2))) == pytest.approx(math.log(3))  # equal rows


def test_peer_agrees_on_sup_con():
    peers = pytest.importorskip("pytorch_metric_learning.losses")
    z, labels = rows(12, 8, dtype=torch.float32), torch.arange(4).repeat(3)
    theirs = float(peers.SupConLoss(temperature=0.3)(z, labels))
    assert float(C.sup_con(z, labels, 0.3)) == pytest.approx(theirs, rel=1e-5)
