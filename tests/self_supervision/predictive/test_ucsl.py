"""The terms of UCSL against loops, their symmetries and closed values."""

import math

import numpy as np
import pytest
import torch

from labcode import nets
from labcode.self_supervision import predictive as P


def rows(n, d=6, seed=0):
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def g(seed=0):
    return torch.Generator().manual_seed(seed)


def cosine(a, b):
    a, b = np.asarray(a), np.asarray(b)
    return float((a * b).sum() / math.sqrt((a * a).sum() * (b * b).sum()))


def objects(b=3, k=4, seed=0):
    return rows(b * k, 5, seed).view(b, k, 5)


def softmax_rows(x, y, here, tau):
    out = np.zeros((len(x), len(y)))
    for i in range(len(x)):
        e = [math.exp(cosine(x[i], y[j]) / tau) if here[j] else 0.0 for j in range(len(y))]
        out[i] = [v / sum(e) for v in e]
    return out


def test_the_terms_are_their_loops():
    x, y, z = (objects(seed=s) for s in range(3))
    here = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 1], [0, 1, 1, 0]]).bool()
    there = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 1]]).bool()
    later = torch.tensor([[1, 0, 1, 1], [0, 1, 1, 1], [1, 1, 1, 1]]).bool()
    direct, indirect, cross = [], [], []
    for b in range(3):
        h, t, w = here[b], there[b], later[b]
        xx, xy = softmax_rows(x[b], x[b], h, 0.3), softmax_rows(x[b], y[b], t, 0.3)
        yx, yz = softmax_rows(y[b], x[b], h, 0.3), softmax_rows(y[b], z[b], w, 0.3)
        xz = softmax_rows(x[b], z[b], w, 0.3)
        direct += [-math.log(xx[i, i]) for i in range(4) if h[i]]
        back = sorted(((xy @ yx)[i, i] for i in range(4) if h[i]), reverse=True)
        indirect += [-math.log(v) for v in back[: min(int(h.sum()), int(t.sum()))]]
        both = sorted(((xz * (xy @ yz)).sum(1)[i] for i in range(4) if h[i]), reverse=True)
        cross += [-math.log(v) for v in both[: min(int(h.sum()), int(t.sum()), int(w.sum()))]]
    assert float(P.direct_contrast(x, here, 0.3)) == pytest.approx(np.mean(direct), rel=1e-6)
    assert float(P.indirect_contrast(x, y, here, there, 0.3)) == pytest.approx(np.mean(indirect), rel=1e-6)
    assert float(P.cross_contrast(x, y, z, here, there, later, 0.3)) == pytest.approx(np.mean(cross), rel=1e-6)


def test_terms_do_not_know_the_order_of_detections():
    x, y, z = (objects(seed=s) for s in range(3))
    here, there, later = torch.rand(3, 3, 4, generator=g()) > 0.2
    p, q, r = [2, 0, 3, 1], [1, 3, 0, 2], [3, 2, 1, 0]
    for f, a, b in (
        (P.direct_contrast, (x, here), (x[:, p], here[:, p])),
        (P.indirect_contrast, (x, y, here, there), (x[:, p], y[:, q], here[:, p], there[:, q])),
        (P.cross_contrast, (x, y, z, here, there, later),
         (x[:, p], y[:, q], z[:, r], here[:, p], there[:, q], later[:, r])),
        (P.ambiguity_contrast, (x, z, here, later), (x[:, p], z[:, r], here[:, p], later[:, r])),
    ):  # fmt: skip
        assert torch.allclose(f(*a), f(*b)), f.__name__


def test_closed_values_and_gradients_of_the_terms():
    every = torch.ones(1, 4, dtype=torch.bool)
    eye = torch.eye(4, dtype=torch.float64)[None]
    one = math.exp(10) / (math.exp(10) + 3)
    assert float(P.direct_contrast(eye, every)) == pytest.approx(-math.log(one), rel=1e-6)
    assert float(P.indirect_contrast(eye, eye[:, [2, 0, 3, 1]], every, every)) == pytest.approx(0, abs=1e-3)
    same = torch.ones(1, 4, 3)
    assert float(P.indirect_contrast(same, same, every, every)) == pytest.approx(math.log(4), rel=1e-5)
    assert float(P.ambiguity_contrast(same, same, every, every)) == pytest.approx(1, rel=1e-5)
    assert float(P.ambiguity_contrast(eye, eye, every, every)) == 0  # nothing is in doubt
    none = torch.zeros(1, 4, dtype=torch.bool)
    for value in (P.direct_contrast(same, none), P.indirect_contrast(same, same, none, none),
                  P.cross_contrast(same, same, same, every, none, every)):  # fmt: skip
        assert float(value) == 0
    x, y, z = (objects(1, 3, s).requires_grad_() for s in range(3))
    full = torch.ones(1, 3, dtype=torch.bool)
    assert torch.autograd.gradcheck(lambda a: P.direct_contrast(a, full, 0.5), x)
    assert torch.autograd.gradcheck(lambda a, b: P.indirect_contrast(a, b, full, full, 0.5), (x, y))
    assert torch.autograd.gradcheck(lambda a, b, c: P.cross_contrast(a, b, c, full, full, full, 0.5), (x, y, z))


@pytest.mark.parametrize("terms", [("direct",), ("direct", "indirect", "cross", "ambiguity"), ("supervised",)])
def test_ucsl_module(terms):
    torch.manual_seed(0)
    model = P.UCSL(nets.SmallNet(16, 16), terms, 10, dim=8, late=0.0).train()
    x = torch.rand(3, 3, 4, 3, 8, 8, generator=g())
    x[1, 1, 2] = 0.0
    loss = model(x, torch.arange(3))
    loss.backward()
    assert torch.isfinite(loss) and all(p.grad is not None for p in model.encoder.parameters())
    with pytest.raises(ValueError, match="terms"):
        P.UCSL(nets.SmallNet(16, 16), ("cycle",), 10)


@pytest.mark.bad_input
def test_bad_shapes_are_named():
    with pytest.raises(ValueError, match="tracks"):
        P.track_vote(torch.zeros(6, dtype=torch.long), torch.zeros(5, dtype=torch.long), 4)
    with pytest.raises(ValueError, match="here"):
        P.match(objects(), objects(), torch.ones(3, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match="target"):
        P.jepa_loss(objects(), objects(2))
