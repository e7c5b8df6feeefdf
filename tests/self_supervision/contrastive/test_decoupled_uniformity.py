"""Decoupled uniformity and its kernel."""

import math

import numpy as np
import pytest
import torch
from self_supervision.contrastive.helpers import Tiny, pictures, rows

from labcode.self_supervision import contrastive as C


def slow_uniformity(z, weights, t):
    n = len(z) // 2
    unit = [np.array(row) / np.linalg.norm(row) for row in z.tolist()]
    mu = [(unit[i] + unit[i + n]) / 2 for i in range(n)]
    if weights is not None:
        mu = [sum(float(weights[i, j]) * mu[j] for j in range(n)) for i in range(n)]
    pairs = [math.exp(-t * np.sum((mu[i] - mu[j]) ** 2)) for i in range(n) for j in range(n) if i != j]
    return math.log(sum(pairs) / len(pairs))


@pytest.mark.parametrize("n", [2, 3, 7])
@pytest.mark.parametrize("t", [0.5, 2.0])
@pytest.mark.parametrize("mixed", [False, True])
def test_decoupled_uniformity_equals_a_loop(n, t, mixed):
    z = rows(2 * n, 5)
    weights = C.kernel_weights(rows(n, 3, 1)) if mixed else None
    assert float(C.decoupled_uniformity(z, weights, t)) == pytest.approx(slow_uniformity(z, weights, t), rel=1e-10)


def test_decoupled_uniformity_gradient():
    z = rows(8, 3).requires_grad_()
    assert torch.autograd.gradcheck(C.decoupled_uniformity, z)
    weights = C.kernel_weights(rows(4, 2, 1))
    assert torch.autograd.gradcheck(lambda z: C.decoupled_uniformity(z, weights), z)


def test_decoupled_uniformity_in_closed_form():
    agree, opposed = torch.eye(4).repeat(2, 1), torch.cat([torch.eye(4), -torch.eye(4)])
    assert C.decoupled_uniformity(agree) == pytest.approx(-4)  # distance² 2, t = 2
    assert C.decoupled_uniformity(opposed) == pytest.approx(0)  # centroids of length 0: not renormalised
    assert C.decoupled_uniformity(torch.ones(8, 3)) == pytest.approx(0, abs=1e-6)


def test_decoupled_uniformity_ignores_scale_rotation_and_order():
    z, turn = rows(10, 4), torch.linalg.qr(rows(4, 4, 1)).Q
    order = torch.tensor([3, 0, 4, 1, 2])
    want = C.decoupled_uniformity(z)
    for other in (3 * z, z @ turn, z.view(2, 5, 4)[:, order].reshape(10, 4)):
        assert torch.allclose(C.decoupled_uniformity(other), want)


def test_kernel_weights_solve_the_ridge_system():
    p = rows(6, 2)
    kernel = np.array([[math.exp(-float((a - b).square().sum()) / (2 * 0.7**2)) for b in p] for a in p])
    want = np.linalg.inv(kernel + 0.05 * np.eye(6)) @ kernel
    found = C.kernel_weights(p, sigma=0.7, lam=0.05)
    assert np.allclose(found, want, atol=1e-12) and torch.allclose(found, found.T)


def test_kernel_weights_at_both_ends():
    p = rows(5, 2)
    assert torch.allclose(C.kernel_weights(p, sigma=1e-3), torch.eye(5, dtype=p.dtype) / 1.01)
    assert torch.allclose(C.kernel_weights(p, sigma=1e6), torch.full((5, 5), 1 / 5.01, dtype=p.dtype), atol=1e-6)


def test_kernel_weights_give_no_gradient_and_survive_a_constant_prior():
    p = rows(5, 2).requires_grad_()
    assert not C.kernel_weights(p).requires_grad
    assert torch.isfinite(C.kernel_weights(torch.ones(5, 2))).all()
    weights = C.kernel_weights(rows(5, 2)).requires_grad_()
    C.decoupled_uniformity(rows(10, 3).requires_grad_(), weights).backward()
    assert weights.grad is None


def test_median_width_is_the_default():
    p = rows(7, 3)
    median = torch.tensor([float((p[i] - p[j]).square().sum()) for i in range(7) for j in range(7) if i != j]).median()
    assert torch.allclose(C.kernel_weights(p), C.kernel_weights(p, sigma=float(median) ** 0.5), atol=1e-6)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("call", "named"),
    [(lambda: C.decoupled_uniformity(rows(5, 3)), "z"), (lambda: C.decoupled_uniformity(rows(2, 3)), "z"),
     (lambda: C.decoupled_uniformity(rows(6, 3), t=0), "t must"), (lambda: C.kernel_weights(rows(1, 3)), "prior"),
     (lambda: C.decoupled_uniformity(rows(6, 3), torch.eye(2)), "weights"),
     (lambda: C.decoupled_uniformity(rows(6, 3) * torch.nan), "z"),
     (lambda: C.kernel_weights(rows(4, 3), lam=0), "lam"),
     (lambda: C.kernel_weights(rows(4, 3), 0.0), "sigma"), (lambda: C.kernel_weights(rows(4, 3) * torch.nan), "prior")],
)  # fmt: skip
def test_decoupled_uniformity_names_the_wrong_argument(call, named):
    with pytest.raises(ValueError, match=named):
        call()


def test_decoupled_uniformity_module_uses_the_rows_of_its_batch():
    prior = rows(20, 3, dtype=torch.float32)
    model = C.DecoupledUniformity(Tiny(), prior, dim=4)
    index = torch.tensor([7, 1, 19])
    want = C.decoupled_uniformity(model.head(model.encoder(pictures(6))), C.kernel_weights(prior[index]))
    assert torch.allclose(model(pictures(6), index), want)


def test_equal_centroids_have_no_distance_below_zero():
    z = rows(1, 16, dtype=torch.float32).repeat(8, 1)
    for t in (2.0, 1e4, 1e9):
        assert -1e-3 * t <= float(C.decoupled_uniformity(z, t=t)) <= 0


@pytest.mark.parametrize("size", [1e-15, 1e-3, 1e20, 1e30])
def test_kernel_weights_of_priors_of_any_size(size):
    prior = rows(6, 3, dtype=torch.float32)
    torch.testing.assert_close(C.kernel_weights(prior * size), C.kernel_weights(prior), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(C.kernel_weights(prior * size, 0.7 * size), C.kernel_weights(prior, 0.7),
                               rtol=1e-4, atol=1e-5)  # fmt: skip


def test_attributes_are_ink_profiles_or_principal_components():
    mask = torch.rand(300, 4, 5, generator=torch.Generator().manual_seed(0))
    clean = C.attributes(torch.zeros(300, 3, 4, 5), {"mask": mask}, grain=0)
    wanted = torch.cat([mask.sum(1), mask.sum(2)], 1)
    wanted = (wanted - wanted.mean(0)) / wanted.std(0)
    assert clean.shape == (300, 9) and torch.allclose(clean, wanted)
    noise = C.attributes(torch.zeros(300, 3, 4, 5), {"mask": mask}, grain=2.0) - clean
    assert abs(float(noise.std()) - 2) < 0.1
    images = torch.randint(256, (60, 3, 4, 4), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    pixels = images.flatten(1).double() / 255
    pixels = pixels - pixels.mean(0)
    u, s, _ = torch.linalg.svd(pixels, full_matrices=False)
    found = C.attributes(images, {}).double().flip(1)  # the largest first
    assert torch.allclose(found.abs(), (u * s)[:, :32].abs(), atol=1e-4)


def test_shifted_views_move_and_nothing_else():
    flat = torch.tensor([[0.2, 0.5, 0.9]]).view(1, 3, 1, 1).expand(4, 3, 8, 8)
    draws = torch.Generator().manual_seed(0)
    assert torch.allclose(C.shifted_views(flat, draws), flat.repeat(2, 1, 1, 1), atol=1e-5)  # one colour stays
    ramp = torch.linspace(0, 1, 8).expand(1, 3, 8, 8)
    seen = C.shifted_views(ramp.repeat(50, 1, 1, 1), draws)[:, 0, :, 3:5].mean((1, 2))
    assert seen.std() > 0.02 and (seen - 0.5).abs().max() < 0.1 * 8 / 7 + 1e-3  # at most a tenth of the side
