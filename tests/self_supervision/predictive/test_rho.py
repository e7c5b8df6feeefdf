"""Several clips of a video in four frameworks, against loops and their two-view forms."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from self_supervision.predictive.helpers import cosine, g, rows

from labcode.data import Motion, moving_scenes
from labcode.self_supervision import contrastive
from labcode.self_supervision import predictive as P


@pytest.mark.parametrize("rho", [1, 2, 4])
def test_rho_clips_stay_in_their_span(rho):
    frames = torch.arange(20).view(1, 20, 1, 1, 1).expand(50, -1, -1, -1, -1)
    starts = P.rho_clips(frames, rho, 4, 6, generator=g())[:, 0].view(max(2, rho), 50)
    assert starts.max() <= 16 and (starts.amax(0) - starts.amin(0)).max() <= 6
    assert (starts[0] == starts[1]).all() == (rho == 1)
    assert len(starts.unique()) > 8


@pytest.mark.parametrize("rho, n", [(2, 3), (3, 4), (4, 2)])
def test_the_four_losses_are_their_loops(rho, n):
    z, k, queue = rows(rho * n), rows(rho * n, seed=1), rows(5, seed=2)
    simclr = moco = byol = 0.0
    pairs = [(a, b) for a in range(rho * n) for b in range(rho * n) if a != b and a % n == b % n]
    for a, b in pairs:
        others = [math.exp(cosine(z[a], z[c]) / 0.2) for c in range(rho * n) if c % n != a % n]
        own = math.exp(cosine(z[a], z[b]) / 0.2)
        simclr -= math.log(own / (own + sum(others))) / len(pairs)
        own = math.exp(cosine(z[a], k[b]) / 0.2)
        moco -= math.log(own / (own + sum(math.exp(cosine(z[a], m) / 0.2) for m in queue))) / len(pairs)
        byol += (2 - 2 * cosine(z[a], k[b])) / len(pairs)
    assert float(P.rho_nt_xent(z, rho, 0.2)) == pytest.approx(simclr, rel=1e-9)
    assert float(P.rho_moco(z, k, queue, rho, 0.2)) == pytest.approx(moco, rel=1e-9)
    assert float(P.rho_byol(z, k, rho)) == pytest.approx(byol, rel=1e-9)


@pytest.mark.parametrize("rho", [2, 3])
def test_swav_is_its_loop(rho):
    n, k = 4, 3
    scores = torch.tanh(rows(rho * n, k))
    wanted, count = 0.0, 0
    for code in range(2):
        q = np.exp(scores[code * n : (code + 1) * n].numpy() / 0.05)
        for _ in range(3):
            q = q / q.sum(0)
            q = q / q.sum(1, keepdims=True)
        for clip in range(rho):
            if clip != code:
                p = scores[clip * n : (clip + 1) * n].numpy() / 0.1
                log_p = p - np.log(np.exp(p).sum(1, keepdims=True))
                wanted, count = wanted - (q * log_p).sum(1).mean(), count + 1
    assert float(P.rho_swav(scores, rho)) == pytest.approx(wanted / count, rel=1e-9)


def test_two_clips_are_nt_xent_and_order_of_clips_does_not_matter():
    z, k, queue = rows(12), rows(12, seed=1), rows(5, seed=2)
    assert torch.allclose(P.rho_nt_xent(z, 2, 0.3), contrastive.nt_xent(z, 0.3))
    turn = lambda x: x.view(3, 4, -1)[[2, 0, 1]].flatten(0, 1)  # noqa: E731
    assert torch.allclose(P.rho_nt_xent(turn(z), 3), P.rho_nt_xent(z, 3))
    assert torch.allclose(P.rho_moco(turn(z), turn(k), queue, 3), P.rho_moco(z, k, queue, 3))
    assert float(P.rho_byol(z, z.roll(6, 0), 2)) == pytest.approx(0, abs=1e-9)
    same = torch.ones(6, 3)
    assert float(P.rho_nt_xent(same, 2)) == pytest.approx(math.log(5))


@pytest.mark.parametrize("name", ["simclr", "moco", "byol", "swav"])
def test_rho_gradients(name):
    z, k, queue = rows(6, 4).requires_grad_(), rows(6, 4, 1).requires_grad_(), rows(3, 4, 2)
    loss = {"simclr": lambda a: P.rho_nt_xent(a, 3), "moco": lambda a: P.rho_moco(a, k, queue, 3),
            "byol": lambda a: P.rho_byol(a, k, 3), "swav": lambda a: P.rho_swav(a.tanh(), 3)}[name]  # fmt: skip
    if name != "swav":  # the codes have no gradient, so finite differences see more than autograd
        assert torch.autograd.gradcheck(loss, z)
    loss(z).backward()
    assert z.grad.abs().sum() > 0 and k.grad is None  # no gradient reaches the keys
    k, queue = k.detach().half(), queue.half()
    half = loss(z.detach().half())
    assert half.dtype == torch.float32 and torch.isfinite(half)


@pytest.mark.parametrize("framework", ["simclr", "moco", "byol", "swav"])
@pytest.mark.parametrize("rho", [1, 2, 3])
def test_rho_modules_learn_from_all_parts(framework, rho):
    torch.manual_seed(0)
    model = P.Rho(P.ClipNet(8, 16), framework, rho, dim=8, queue=16).train()
    x = P.recoloured(P.rho_clips(moving_scenes(6, motion=Motion(frames=8)).frames, rho, 4, generator=g()), g())
    model(x, torch.arange(6)).backward()
    for name, p in model.named_parameters():
        assert (p.grad is not None) == p.requires_grad, name
    if framework == "moco":
        keys = max(2, rho) * 6
        assert model.queue.norm(dim=1).allclose(torch.ones(16)) and len(model.queue) == 16
        first = model.queue.clone()
        model(x, torch.arange(6))
        assert keys >= 16 or torch.allclose(model.queue[keys:], first[: 16 - keys])


def test_one_video_is_enough_where_nothing_else_is_compared():
    p, k = rows(3), rows(3, seed=1)
    unit = lambda v: v / v.norm(dim=1, keepdim=True)  # noqa: E731
    mean = sum(float(unit(p)[a] @ unit(k)[b]) for a in range(3) for b in range(3) if a != b) / 6
    assert float(P.rho_byol(p, k, 3)) == pytest.approx(2 - 2 * mean, rel=1e-9)
    assert float(P.rho_byol(p[:2], k[:2])) == pytest.approx(
        2 - float(unit(p)[0] @ unit(k)[1]) - float(unit(p)[1] @ unit(k)[0]), rel=1e-9
    )
    assert torch.isfinite(P.rho_moco(p[:2], k[:2], rows(5, seed=2), tau=0.1)), "the queue holds what it is told from"


@pytest.mark.bad_input
def test_one_video_alone_is_refused_with_the_reason_where_videos_are_compared():
    for loss, name in ((P.rho_nt_xent, "z"), (P.rho_swav, "scores")):
        with pytest.raises(ValueError, match=f"{name} must hold 2 videos or more, since one alone has nothing"):
            loss(rows(2))


@pytest.mark.parametrize("tau", [1e-20, 1e-8, 1e-3, 1e4])
def test_any_temperature_gives_a_finite_value_and_gradient(tau):
    z, k, queue = (rows(6, seed=s).float() for s in range(3))
    for loss in (lambda z: P.rho_nt_xent(z, 3, tau), lambda z: P.rho_moco(z, k, queue, 3, tau),
                 lambda z: P.rho_swav(F.normalize(z, dim=1) @ F.normalize(queue, dim=1).T, 3, tau)):  # fmt: skip
        x = z.clone().requires_grad_()
        value = loss(x)
        value.backward()
        assert torch.isfinite(value) and torch.isfinite(x.grad).all()


def test_low_temperature_is_right():
    z = rows(6).float()
    unit = F.normalize(z.double(), dim=1).numpy()
    tau, total = 1e-3, 0.0
    for a in range(6):
        others = [unit[a] @ unit[c] / tau for c in range(6) if c % 3 != a % 3]
        own = unit[a] @ unit[(a + 3) % 6] / tau
        top = max(own, *others)
        total += top + math.log(sum(math.exp(v - top) for v in (own, *others))) - own
    assert float(P.rho_nt_xent(z, 2, tau)) == pytest.approx(total / 6, rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_rows_of_zeros_get_no_gradient_and_the_others_a_bounded_one(dtype):
    z, k, queue = (rows(6, seed=s).to(dtype) for s in range(3))
    z[1] = 0
    for loss in (lambda z: P.rho_nt_xent(z), lambda z: P.rho_moco(z, k, queue), lambda z: P.rho_byol(z, k)):
        x = z.clone().requires_grad_()
        value = loss(x)
        value.backward()
        assert value.dtype == torch.float32 and torch.isfinite(value)
        assert not x.grad[1].any() and torch.isfinite(x.grad).all() and x.grad.abs().max() < 100
