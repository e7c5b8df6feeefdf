"""InfoNCE against equation 4 in plain numbers, what its bound reaches, and the method on sequences."""

import math

import numpy as np
import pytest
import torch
from self_supervision.contrastive.helpers import rand, slow_info_nce

from labcode.self_supervision import contrastive as C


@pytest.mark.parametrize(("n", "d"), [(2, 1), (5, 3), (16, 8)])
def test_info_nce_is_equation_4(n, d):
    p, t = rand(n, d), rand(n, d, seed=1)
    assert float(C.info_nce(p, t)) == pytest.approx(slow_info_nce(p, t), rel=1e-12)


def test_pools_do_not_see_each_other():
    p, t = rand(3, 4, 5), rand(3, 4, 5, seed=1)
    apart = sum(slow_info_nce(p[i], t[i]) for i in range(3)) / 3
    assert float(C.info_nce(p, t)) == pytest.approx(apart, rel=1e-12)


def test_gradient_reaches_predictions_and_targets():
    p, t = rand(2, 4, 3).requires_grad_(), rand(2, 4, 3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(C.info_nce, (p, t))
    assert all(g.abs().sum() > 0 for g in torch.autograd.grad(C.info_nce(p, t), (p, t)))


def test_info_nce_ignores_a_shift_of_all_targets_and_a_common_order_but_not_scale():
    p, t, order = rand(6, 3), rand(6, 3, seed=1), torch.randperm(6, generator=torch.Generator().manual_seed(2))
    loss = C.info_nce(p, t)
    assert torch.allclose(C.info_nce(p, t + rand(1, 3, seed=3)), loss)
    assert torch.allclose(C.info_nce(p[order], t[order]), loss)
    assert not torch.allclose(C.info_nce(2 * p, t), loss)  # no normalisation


def test_info_nce_closed_forms():
    assert float(C.info_nce(torch.zeros(7, 2), rand(7, 2).float())) == pytest.approx(math.log(7), rel=1e-6)
    far = 50 * torch.eye(6)
    assert float(C.info_nce(far, far)) == pytest.approx(0, abs=1e-6)
    assert float(C.mi_bound(far, far)) == pytest.approx(math.log(6), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_info_nce_in_half_precision_is_float32_arithmetic(dtype):
    p, t = rand(8, 4).to(dtype), rand(8, 4, seed=1).to(dtype)
    loss = C.info_nce(p, t)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(slow_info_nce(p.double(), t.double()), rel=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert float(C.info_nce(p.float(), t.float())) == pytest.approx(float(loss), rel=1e-6)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("p", "t", "name"),
    [
        (torch.zeros(0, 3), torch.zeros(0, 3), r"predicted must .* shape \(0, 3\)"),
        (torch.zeros(2, 4, 0), torch.zeros(2, 4, 0), r"predicted must .* shape \(2, 4, 0\)"),
        (torch.zeros(3), torch.zeros(3), r"predicted must .* shape \(3,\)"),
        (torch.zeros(4, 3), torch.zeros(4, 2), "target"),
        (torch.zeros(2, 4, 3), torch.zeros(2, 3, 3), "target"),
        (torch.full((4, 3), math.nan), torch.zeros(4, 3), "predicted"),
        (torch.zeros(2, 4, 3), torch.full((2, 4, 3), math.inf), "target"),
    ],
)
def test_info_nce_refuses(p, t, name):
    with pytest.raises(ValueError, match=name):
        C.info_nce(p, t)


def test_pools_of_one_find_themselves():
    x = rand(3, 1, 4).requires_grad_()
    loss = C.info_nce(x, rand(3, 1, 4, seed=1))
    assert float(loss) == 0 and not torch.autograd.grad(loss, x)[0].any()


def test_a_constant_batch_gives_log_n():
    assert float(C.info_nce(torch.ones(5, 3), torch.ones(5, 3))) == pytest.approx(math.log(5), rel=1e-6)


def test_gaussian_information():
    assert C.gaussian_mi(0.0, 3) == 0
    assert C.gaussian_mi(math.sqrt(1 - math.exp(-2)), 5) == pytest.approx(5)
    with pytest.raises(ValueError, match="rho"):
        C.gaussian_mi(1.0, 2)


def test_the_fitted_bound_is_near_that_of_the_true_density_ratio():
    rho, n, dims = 0.8, 32, 4
    g = torch.Generator().manual_seed(5)
    x, e = torch.randn(2, 4096, dims, generator=g, dtype=torch.float64)
    y = rho * x + math.sqrt(1 - rho**2) * e
    c = torch.cat([x * rho / (1 - rho**2), torch.full_like(x, -0.5 * rho**2 / (1 - rho**2))], 1).view(-1, n, 2 * dims)
    best = float(C.mi_bound(c, torch.cat([y, y * y], 1).view(-1, n, 2 * dims)))
    assert C.gaussian_bound(rho, n, dims) == pytest.approx(best, abs=0.06)


def test_the_bound_refuses_candidates_that_do_not_divide():
    with pytest.raises(ValueError, match="candidates"):
        C.gaussian_bound(0.5, 3)


def test_the_context_has_not_heard_the_future():
    torch.manual_seed(0)
    net, x = C.SpeechEncoder(16), rand(2, 12 * C.FRAME, dtype=torch.float32)
    later = x.clone()
    later[:, 6 * C.FRAME :] += 1
    a, b = net(x), net(later)
    assert torch.equal(a[:, :6], b[:, :6])
    assert not torch.allclose(a[:, 6], b[:, 6])


def test_speech_loss_is_the_mean_over_horizons_of_slow_loops():
    torch.manual_seed(0)
    net = C.SpeechEncoder(8).double()
    model = C.SpeechCPC(net, horizon=2, pool=2, reach=3, every=2).double()
    x = rand(4, 16 * C.FRAME)
    z, c = net.latents(x), net(x)
    times, total = [8, 10, 12], []
    for k in (1, 2):
        for a in (0, 2):  # pools of two sequences
            rows = [(n, t) for n in (a, a + 1) for t in times]
            p = torch.stack([model.W[k - 1].T @ c[n, t] for n, t in rows])
            q = torch.stack([z[n, t + k] for n, t in rows])
            total.append(slow_info_nce(p, q))
    assert float(model(x, torch.arange(4)).detach()) == pytest.approx(sum(total) / 4, rel=1e-9)
    with pytest.raises(ValueError, match="multiple"):
        model(x[:3], torch.arange(3))


def test_found_counts_the_true_frames_that_score_highest():
    torch.manual_seed(0)
    model, signal = C.SpeechCPC(C.SpeechEncoder(8), horizon=3, pool=2), C.speech(8, frames=24, seed=3).signal
    model.encoder.features, model.W.data = 8, torch.randn(3, 8, 8)
    z, hits = model.encoder.latents(signal), [[] for _ in range(3)]
    c = model.encoder.ar(z)[0]
    t = range(8, 24 - 8, 3)
    for pool in range(4):
        both = (2 * pool, 2 * pool + 1)
        for k in range(3):
            targets = torch.stack([z[i, s + k + 1] for i in both for s in t])
            guesses = torch.stack([c[i, s] @ model.W[k] for i in both for s in t])
            hits[k] += [int(targets.mv(g).argmax()) == j for j, g in enumerate(guesses)]
    assert np.allclose(model.found(signal), [np.mean(h) for h in hits])
