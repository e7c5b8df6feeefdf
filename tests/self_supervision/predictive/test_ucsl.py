"""The terms of UCSL against loops, their symmetries and closed values."""

import math

import numpy as np
import pytest
import torch
from self_supervision.predictive.helpers import cosine, g, rows

from labcode import nets
from labcode.self_supervision import predictive as P


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


def exact_terms(x, y, z, here, there, later, tau):
    """The first three terms in float64 NumPy, in the logarithm, row by row."""
    unit = [(v / np.linalg.norm(v, axis=2, keepdims=True)) for v in (x, y, z)]
    lse = lambda v: (m := max(v)) + math.log(sum(math.exp(a - m) for a in v))  # noqa: E731

    def log_p(a, b, there):
        rows = []
        for u in a:
            score = [float(u @ w) / tau if on else -math.inf for w, on in zip(b, there, strict=True)]
            rows.append([s - lse([t for t in score if t > -math.inf]) for s in score])
        return rows

    sums, counts = [0.0] * 3, [0] * 3
    for n in range(len(x)):
        a, b, c = (u[n] for u in unit)
        on = [v[n].tolist() for v in (here, there, later)]
        k = range(len(a))
        xx, xy, yx = log_p(a, a, on[0]), log_p(a, b, on[1]), log_p(b, a, on[0])
        yz, xz = log_p(b, c, on[2]), log_p(a, c, on[2])
        back = {i: lse([xy[i][j] + yx[j][i] for j in k if on[1][j]]) for i in k if on[0][i]}
        two = {(i, j): lse([xy[i][m] + yz[m][j] for m in k if on[1][m]]) for i in back for j in k if on[2][j]}
        over = {i: lse([xz[i][j] + two[i, j] for j in k if on[2][j]]) for i in back}
        kept = [sorted(xx[i][i] for i in back), sorted(back.values())[-min(sum(on[0]), sum(on[1])):],
                sorted(over.values())[-min(map(sum, on)):]]  # fmt: skip
        for t, values in enumerate(kept):
            sums[t] -= sum(values)
            counts[t] += len(values)
    return [s / c for s, c in zip(sums, counts, strict=True)]


@pytest.mark.parametrize("tau", [1.0, 0.1, 1e-3, 1e-6])
def test_terms_are_right_and_trained_at_any_temperature(tau):
    (x, y, z), here = (objects(seed=s) for s in range(3)), torch.ones(3, 4, dtype=torch.bool)
    here[0, 3] = here[2, 0] = False
    there, later = here.roll(1, 0), here.roll(1, 1)
    wanted = exact_terms(*(v.double().numpy() for v in (x, y, z)), here, there, later, tau)
    x, y, z = (v.double().requires_grad_() for v in (x, y, z))
    found = [P.direct_contrast(x, here, tau), P.indirect_contrast(x, y, here, there, tau)]
    found.append(P.cross_contrast(x, y, z, here, there, later, tau))
    assert [float(f.detach()) for f in found] == pytest.approx(wanted, rel=1e-9, abs=1e-12)
    ambiguous = P.ambiguity_contrast(x, z, here, later, tau)
    (sum(found) + ambiguous).backward()
    for v in (x, y, z):
        assert torch.isfinite(v.grad).all()
    assert wanted[2] < 1e-6 or float(y.grad.abs().sum()) > 0, "a term that is not at its end has a gradient"


@pytest.mark.parametrize("tau", [1e-20, 1e-10, 1e-3, 0.1, 1e10])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_terms_are_finite_with_rows_of_zeros_empty_frames_and_in_half_precision(tau, dtype):
    x, y, z = (objects(seed=s).to(dtype) for s in range(3))
    x[0], y[1, 2] = 0, 0
    here = torch.ones(3, 4, dtype=torch.bool)
    here[1], here[2, 1:] = False, False
    x, y, z = (v.requires_grad_() for v in (x, y, z))
    terms = [P.direct_contrast(x, here, tau), P.indirect_contrast(x, y, here, here.roll(1, 0), tau)]
    terms += [P.cross_contrast(x, y, z, here, here, here.roll(1, 0), tau), P.ambiguity_contrast(x, z, here, here, tau)]
    for term in terms:
        assert term.dtype == torch.float32 and torch.isfinite(term)
    if tau >= 1e-3:
        sum(terms).backward()
        assert all(torch.isfinite(v.grad).all() for v in (x, y, z)) and not x.grad[0].any(), "zeros have no direction"
    p = P.match(x, y, here, tau).detach()
    assert torch.allclose(p.sum(2), here.any(1)[:, None].expand(-1, 4).float(), atol=1e-5)
    assert not p.masked_select(~here[:, None].expand_as(p)).any(), "nothing goes where no object is"


@pytest.mark.bad_input
def test_terms_name_what_is_not_finite_and_what_does_not_fit():
    x, here = objects(), torch.ones(3, 4, dtype=torch.bool)
    odd = x.clone()
    odd[0, 0, 0] = float("nan")
    for call, message in [
        (lambda: P.match(x, odd), "y must be finite"),
        (lambda: P.direct_contrast(odd, here), "x must be finite"),
        (lambda: P.indirect_contrast(x, odd, here, here), "y must be finite"),
        (lambda: P.cross_contrast(x, x, odd, here, here, here), "z must be finite"),
        (lambda: P.ambiguity_contrast(x, odd, here, here), "z must be finite"),
        (lambda: P.cross_contrast(x, x, x, here, here[:2], here), "there must say which of"),
        (lambda: P.direct_contrast(x, here.float()), "here must say which of"),
        (lambda: P.indirect_contrast(x, x[:, :, :2], here, here), "y must be of the videos and width of x"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
