"""Roots and polar factors against decompositions, and what a linear BYOL does."""

import math

import pytest
import torch
from self_supervision.redundancy.helpers import views

from labcode import nets
from labcode.self_supervision import redundancy as R


def test_roots_and_polar_factor():
    z = torch.randn(100, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    s = z.T @ z / (z.T @ z).norm()
    root, inverse = R.newton_schulz(s, 15)
    assert torch.allclose(root @ root, s, atol=1e-8)
    assert torch.allclose(root @ inverse, torch.eye(8).double(), atol=1e-8)
    p = R.visser(s, 300)
    assert torch.allclose(p @ p, s, atol=1e-6)
    a = torch.randn(8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    u, _, vt = torch.linalg.svd(a)
    # the paper's B_n Sᵀ for a general S is the polar factor of Sᵀ, vtᵀ uᵀ
    assert torch.allclose(R.newton_schulz(a.T @ a, 60)[1] @ a.T, vt.T @ u.T, atol=1e-4)


@pytest.mark.parametrize("kind", ["ne", "visser", "ns", "stiefel"])
def test_predictors(kind):
    z = torch.randn(300, 6, generator=torch.Generator().manual_seed(0)) * torch.tensor([3, 1, 1, 1, 1, 0.3])
    p = R.closed_form_predictor(z, z, kind)
    assert torch.allclose(R.closed_form_predictor(5 * z, 0.1 * z, kind), p, atol=1e-5)  # rows are normalised
    assert torch.allclose(R.closed_form_predictor(z, z, kind, 0.3), p + 0.3 * torch.eye(6), atol=1e-6)
    assert torch.allclose(p, p.T, atol=1e-4) and torch.linalg.eigvalsh((p + p.T) / 2).min() > 0
    directions = torch.nn.functional.normalize(z, dim=1)
    s = directions.T @ directions
    assert (p @ s - s @ p).norm() < 1e-3 * (p @ s).norm()  # functions of S commute with it
    assert R.closed_form_predictor(z.bfloat16(), z.bfloat16(), kind).dtype == torch.float32
    with pytest.raises(ValueError, match="kind"):
        R.closed_form_predictor(z, z, "svd")


def test_stable_rank_and_polar_distance():
    assert R.stable_rank(torch.eye(9) * (torch.arange(9) < 4)) == pytest.approx(4)
    q = torch.linalg.qr(torch.randn(6, 6))[0]
    assert R.polar_distance(5 * q) == pytest.approx(0, abs=1e-3)
    assert R.polar_distance(torch.ones(4, 4)) == pytest.approx(math.sqrt(3) / 2, rel=1e-6)


def test_byol_target_follows_and_gets_no_gradient():
    torch.manual_seed(0)
    model = R.LinearBYOL(nets.SmallNet(), 8, momentum=0.75).train()
    with torch.no_grad():
        for p in model.encoder.parameters():
            p.add_(1.0)
    before = [p.clone() for p in model.target[0].parameters()]
    model(views(8), torch.arange(8)).backward()
    for old, new, online in zip(before, model.target[0].parameters(), model.encoder.parameters(), strict=True):
        assert torch.allclose(new, 0.75 * old + 0.25 * online, atol=1e-6)
        assert new.grad is None and not new.requires_grad
    assert all(p.grad is not None for p in model.encoder.parameters()) and model.predictor.grad is not None


def test_byol_closed_form_predictor_is_remembered_and_frozen_in_evaluation():
    model = R.LinearBYOL(nets.SmallNet(), 8, "ns", memory=0.5).train()
    model(views(8), torch.arange(8))
    first = model.predictor.clone()
    assert not torch.allclose(first, torch.eye(8))
    model(views(8, 1), torch.arange(8))
    z = model.project(views(8, 1)).detach()
    fresh = R.closed_form_predictor(z, z, "ns")
    assert torch.allclose(model.predictor, (first + fresh) / 2, atol=1e-4)
    held = model.predictor.clone()
    model.eval()(views(8, 2), torch.arange(8))
    assert torch.equal(model.predictor, held) and "predictor" in model.state_dict()


def test_stop_gradient_matters():
    grads = []
    for stop in (True, False):
        torch.manual_seed(0)
        model = R.LinearBYOL(nets.SmallNet(), 8, "identity", stop_gradient=stop).train()
        model(views(8), torch.arange(8)).backward()
        grads.append(model.head[0].weight.grad.norm())
    assert not torch.allclose(grads[0], grads[1], rtol=1e-2)
