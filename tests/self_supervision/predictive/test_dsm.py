"""Scene against motion: the loss against its loop, what each disturbance breaks and keeps."""

import math

import pytest
import torch
from self_supervision.predictive.helpers import clips, cosine, g, rows

from labcode.self_supervision import contrastive
from labcode.self_supervision import predictive as P


def test_dsm_loss_is_the_loop():
    q, k, own, queue = rows(4).requires_grad_(), rows(4, seed=1).requires_grad_(), rows(4, seed=2), rows(3, seed=3)
    own.requires_grad_()
    for with_own in (True, False):
        wanted = 0.0
        for i in range(4):
            negatives = [queue[j] for j in range(3)] + ([own[i].detach()] if with_own else [])
            scores = [math.exp(cosine(q[i].detach(), z) / 0.2) for z in (k[i].detach(), *negatives)]
            wanted -= math.log(scores[0] / sum(scores)) / 4
        loss = P.dsm_loss(q, k, queue, own if with_own else None, 0.2)
        assert float(loss.detach()) == pytest.approx(wanted, rel=1e-9)
    assert torch.allclose(P.dsm_loss(q, k, queue, tau=0.2), contrastive.moco_loss(q, k, queue, 0.2))
    P.dsm_loss(q, k, queue, own).backward()
    assert k.grad is None and q.grad.abs().sum() > 0 and own.grad.abs().sum() > 0
    assert torch.autograd.gradcheck(lambda a, b: P.dsm_loss(a, k, queue, b, 0.5), (q, own))


def test_the_scene_is_broken_alike_in_all_frames_and_motion_elsewhere():
    x = clips(5)
    out = P.spatial_disturbance(x, 0.2, generator=g())
    assert (out - x).abs().mean() > 0.005
    assert torch.allclose(P.spatial_disturbance(x, 0.0, generator=g()), x, atol=1e-5)
    still = x[:, :1].expand(-1, 4, -1, -1, -1)
    warped = P.spatial_disturbance(still, 0.2, generator=g())
    assert torch.equal(warped[:, 0], warped[:, 3])
    broken = P.temporal_disturbance(x, generator=g())
    for a, b in zip(x, broken, strict=True):  # the same frames in another order
        order = [int((a - f).abs().flatten(1).sum(1).argmin()) for f in b]
        assert sorted(order) == [0, 1, 2, 3] and all(torch.equal(a[o], f) for o, f in zip(order, b, strict=True))
    assert torch.equal(P.temporal_disturbance(still, generator=g()), still)
    with pytest.raises(ValueError, match="frames"):
        P.temporal_disturbance(x[:, :1], generator=g())


@pytest.mark.parametrize("disturb, negative", [(False, False), (True, False), (False, True), (True, True)])
def test_dsm_module(disturb, negative):
    torch.manual_seed(0)
    model = P.DSM(P.ClipNet(8, 16), disturb, negative, dim=8, queue=16, momentum=0.5).train()
    x = clips(6)
    before = model.queue.clone()
    model(torch.cat([x, x]), torch.arange(6)).backward()
    assert torch.allclose(model.queue[6:], before[:10])
    assert all(p.grad is None for p in model.slow.parameters())
    assert all(p.grad is not None for p in model.encoder.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("tau", [1e-20, 1e-6, 0.07, 1e4])
def test_any_temperature_any_precision_and_rows_of_zeros_are_survived(dtype, tau):
    q, k, queue, own = (rows(5, seed=s).to(dtype) for s in range(4))
    if tau > 1e-10:
        q[2] = own[3] = 0
    q, own = q.requires_grad_(), own.requires_grad_()
    loss = P.dsm_loss(q, k, queue, own, tau)
    assert loss.dtype == torch.float32 and torch.isfinite(loss)
    if tau >= 0.07:
        loss.backward()
        for x, row in ((q, 2), (own, 3)):
            assert torch.isfinite(x.grad).all() and not x.grad[row].any() and x.grad.abs().max() < 100
    else:
        wide = q.detach().float().requires_grad_()
        assert torch.isfinite(torch.autograd.grad(P.dsm_loss(wide, k, queue, own, tau), wide)[0]).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_bent_scene_in_half_precision_is_the_scene_bent_and_rounded(dtype):
    x = clips(3).to(dtype)
    bent = P.spatial_disturbance(x, generator=g())
    exact = P.spatial_disturbance(x.float(), generator=g())
    assert bent.dtype == dtype and torch.equal(bent, exact.to(dtype))


@pytest.mark.bad_input
def test_what_is_no_clip_is_refused_by_name():
    for disturb in (P.spatial_disturbance, P.temporal_disturbance):
        with pytest.raises(ValueError, match=r"x must be .*clips \(n, t, c, h, w\), got .*\(3, 32, 32\)"):
            disturb(torch.rand(3, 32, 32), generator=g())
    with pytest.raises(ValueError, match="x must be float clips"):
        P.spatial_disturbance((clips(2) * 255).byte(), generator=g())
    odd = rows(4)
    odd[0, 0] = float("inf")
    with pytest.raises(ValueError, match="own must be finite"):
        P.dsm_loss(rows(4), rows(4), rows(3), odd)


def test_recall_counts_who_has_one_of_its_kind_near():
    z, new = rows(12, 3), rows(7, 3, seed=1)
    y, new_y = torch.arange(12) % 3, torch.arange(7) % 3
    for k in (1, 2, 12):
        hits = 0
        for row, label in zip(new - z.mean(0), new_y, strict=True):
            order = sorted(range(12), key=lambda i, row=row: -cosine(row, z[i] - z.mean(0)))
            hits += any(y[i] == label for i in order[:k])
        assert P.recall_at(z, y, new, new_y, k) == pytest.approx(hits / 7)
    with pytest.raises(ValueError, match="k must be between"):
        P.recall_at(z, y, new, new_y, 13)
