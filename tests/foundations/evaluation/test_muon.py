"""Muon against the SVD, torch's own and by hand."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from foundations.evaluation.helpers import g
from torch import nn

from labcode.foundations import evaluation as E


@pytest.mark.parametrize("shape", [(6, 6), (5, 12), (12, 5), (1, 7)])
def test_newton_schulz_is_near_the_polar_factor_of_the_svd(shape):
    x = torch.randn(shape, generator=g(1), dtype=torch.float64)
    u, s, v = torch.linalg.svd(x, full_matrices=False)
    for steps in (0, 1, 5):
        wanted = s / s.norm()  # the quintic on the singular values, by the SVD
        for _ in range(steps):
            wanted = 3.4445 * wanted - 4.7750 * wanted**3 + 2.0315 * wanted**5
        torch.testing.assert_close(E.newton_schulz(x, steps), u @ torch.diag(wanted) @ v, atol=1e-6, rtol=0)
    there = E.newton_schulz(x, 5)
    polar = u @ v
    assert float((there * polar).sum() / there.norm() / polar.norm()) > 0.95
    torch.testing.assert_close(E.newton_schulz(1000 * x), there, atol=1e-5, rtol=0)  # the scale does not matter
    assert E.newton_schulz(torch.zeros(3, 4)).abs().max() == 0


def test_muon_agrees_with_torchs_on_a_matrix_whose_norm_is_held():
    """torch.optim.Muon in bfloat16, which never touches the norm, beside ours with the norm put back every step."""
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("torch.optim.Muon came with torch 2.9")
    start = torch.randn(8, 12, generator=g(2))
    start *= len(start) ** 0.5 / start.norm()
    a, b = nn.Parameter(start.clone()), nn.Parameter(start.clone().view(8, 3, 2, 2))
    theirs = torch.optim.Muon([a], lr=0.1, momentum=0.6, weight_decay=0.0, ns_steps=5)
    ours = E.Muon([b], lr=0.1, momentum=0.6, steps=5)
    for i in range(3):
        a.grad = torch.randn(8, 12, generator=g(10 + i))
        b.grad = (1 if i == 0 else 1.0) * a.grad.view_as(b)
        with torch.no_grad():
            a *= len(a) ** 0.5 / a.norm()
        a_before, b_before = a.detach().clone(), b.detach().clone()
        theirs.step()
        ours.step()
        torch.testing.assert_close(b_before.flatten(1), a_before, atol=0.1, rtol=0)
        x, y = (a - a_before).flatten(), (b - b_before * len(b) ** 0.5 / b_before.norm()).flatten()
        assert float(F.cosine_similarity(x.detach(), y.detach(), dim=0)) > 0.99


def test_muon_step_by_hand():
    w, grads = (
        torch.randn(4, 2, 3, 3, generator=g(), dtype=torch.float64),
        torch.randn(2, 4, 2, 3, 3, generator=g(1)).double(),
    )
    p = nn.Parameter(w.clone())
    muon, buffer = E.Muon([p], lr=0.3, momentum=0.5, steps=3), torch.zeros_like(w)
    for grad in grads:
        p.grad = grad
        muon.step()
        buffer = 0.5 * buffer + grad
        w = w * 2 / w.norm()
        w = w - 0.3 * E.newton_schulz((grad + 0.5 * buffer).reshape(4, 18), 3).view_as(w)
    torch.testing.assert_close(p.detach(), w)


def test_muons_recipe_gives_each_layer_its_rate_and_schedule():
    net = E.SpeedNet((4, 4), 1, 8, 3, scale=None)
    net.whiten(torch.randn(20, 1, 8, 8, generator=g()))
    sgd, muon = E.optimisers_of(net, replace(E.MUON, batch=10), 20, 5)
    first, norms, head = sgd.param_groups
    assert [group["factor"](s) for group in (first, head) for s in (0, 5, 19)] == pytest.approx(
        [1, 0, 0, 1, 0.75, 0.05]
    )
    assert all(p.ndim == 4 and p is not net.first.weight for p in muon.param_groups[0]["params"])
    assert (first["lr"], norms["lr"], head["lr"], muon.param_groups[0]["lr"]) == (0.053, 0.053, 0.67, 0.24)
    assert float(net.head.weight.std()) == pytest.approx(1.0) and net.scale == 0.25


BAD = [
    (lambda: E.newton_schulz(torch.zeros(2, 2, 2)), "g must be a matrix"),
    (lambda: E.Muon([nn.Parameter(torch.zeros(2, 2))], lr=0), "lr must be positive, got 0"),
    (lambda: E.Muon([nn.Parameter(torch.zeros(2, 2))], momentum=1), "momentum must be in"),
]


@pytest.mark.bad_input
@pytest.mark.parametrize("call,message", BAD, ids=range(len(BAD)))
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError) as raised:
        call()
    assert message in str(raised.value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_made_orthogonal_in_float32(dtype):
    x = torch.randn(6, 9, generator=g()).to(dtype)
    found = E.newton_schulz(x)
    assert found.dtype == dtype and torch.equal(found, E.newton_schulz(x.float()).to(dtype))


def test_weights_of_zeros_stay_finite():
    p = nn.Parameter(torch.zeros(3, 2, 1, 1))
    p.grad = torch.randn(p.shape, generator=g())
    E.Muon([p]).step()
    assert torch.isfinite(p).all() and p.abs().sum() > 0
