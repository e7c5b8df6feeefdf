"""RePRI: its terms of the loop, the fit against a slow gradient descent, IoU by hand, and what the KL prevents."""

import math
from functools import partial

import pytest
import torch

from labcode.clustering import few_shot as F


def pixels(seed=0, b=3, s=7, q=5):
    g = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.rand(*shape, generator=g, dtype=torch.float64)  # noqa: E731
    y = torch.randint(2, (b, s), generator=g)
    y[:, 0] = 255
    return draw(b, s), y, draw(b, q), draw(b)


def test_terms_are_the_loop():
    p, y, q, prior = pixels()
    found = F.repri_terms(p, y, q, prior)
    for b in range(3):
        known = [math.log(float(p[b, i]) if y[b, i] == 1 else 1 - float(p[b, i])) for i in range(7) if y[b, i] != 255]
        assert float(found["ce"][b]) == pytest.approx(-sum(known) / len(known), rel=1e-6)
        h = [-float(v) * math.log(float(v)) - (1 - float(v)) * math.log(1 - float(v)) for v in q[b]]
        assert float(found["entropy"][b]) == pytest.approx(sum(h) / 5, rel=1e-6)
        m, pi = float(q[b].mean()), float(prior[b])
        assert float(found["kl"][b]) == pytest.approx(
            m * math.log(m / pi) + (1 - m) * math.log((1 - m) / (1 - pi)), rel=1e-6
        )


def test_gradients_edges_and_errors():
    p, y, q, prior = pixels()
    total = lambda p, q: sum(v.sum() for v in F.repri_terms(p, y, q, prior).values())  # noqa: E731
    assert torch.autograd.gradcheck(total, (p.requires_grad_(), q.requires_grad_()))
    sure = F.repri_terms(torch.ones(1, 2), torch.tensor([[1, 255]]), torch.ones(1, 3), torch.ones(1))
    assert all(abs(float(v)) < 1e-6 for v in sure.values())
    assert all(
        torch.isfinite(v).all()
        for v in F.repri_terms(torch.zeros(1, 2), torch.tensor([[1, 1]]), torch.ones(1, 3), torch.zeros(1)).values()
    )
    assert F.repri_terms(p.detach().half(), y, q.detach().half(), prior.half())["kl"].dtype == torch.float32
    with pytest.raises(ValueError, match="prior"):
        F.repri_terms(p, y, q, prior[:2])


def features(seed=0, t=2, shots=2, d=5, h=4):
    g = torch.Generator().manual_seed(seed)
    mask = torch.zeros(t, shots, h, h, dtype=torch.long)
    mask[..., :2] = 1
    way = torch.randn(d, generator=g, dtype=torch.float64)
    noise = lambda *s: torch.randn(*s, generator=g, dtype=torch.float64)  # noqa: E731
    zs = noise(t, shots, d, h, h) + 0.5 * mask[:, :, None] * way[:, None, None]
    truth = torch.zeros(t, h, h, dtype=torch.long)
    truth[:, 0] = 1
    return zs, mask, noise(t, d, h, h) + 0.5 * truth[:, None] * way[:, None, None], truth


def test_fit_is_autograd_on_each_task_alone():
    zs, mask, zq, _ = features()
    found = F.repri(zs, mask, zq, steps=15)
    for i in range(2):
        s = torch.nn.functional.normalize(zs[i].permute(0, 2, 3, 1).reshape(-1, 5), dim=1)
        q = torch.nn.functional.normalize(zq[i].permute(1, 2, 0).reshape(-1, 5), dim=1)
        y = mask[i].flatten()
        w = s[y == 1].mean(0)
        cos = lambda w, z: 20 * z @ w / w.norm()  # noqa: E731
        b = cos(w, q).mean()
        pi, weight = torch.sigmoid(cos(w, q) - b).mean(), 0.5
        for step in range(1, 15):
            w, b = w.detach().requires_grad_(), b.detach().requires_grad_()
            p, r = torch.sigmoid(cos(w, q) - b), torch.sigmoid(cos(w, s) - b)
            if step == 10:
                pi, weight = p.mean().detach(), 1.5
            m = p.mean()
            kl = m * (m / pi).log() + (1 - m) * ((1 - m) / (1 - pi)).log()
            h = -(p * p.log() + (1 - p) * (1 - p).log()).mean()
            ce = -(y * r.log() + (1 - y) * (1 - r).log()).mean()
            gw, gb = torch.autograd.grad(ce + weight * kl + 0.5 * h, (w, b))
            w, b = w - 0.025 * gw, b - 0.025 * gb
        assert torch.allclose(found[i].flatten(), torch.sigmoid(cos(w, q) - b), atol=1e-4)


def test_a_given_share_is_approached_and_without_terms_nothing_moves():
    zs, mask, zq, truth = features()
    share = truth.double().mean((1, 2))
    far = lambda p: float((p.mean((1, 2)) - share).abs().mean())  # noqa: E731
    start = F.repri(zs, mask, zq, steps=1)
    assert far(F.repri(zs, mask, zq, terms=("kl",), prior=share, weight=5.0, lr=0.1, steps=120)) < 0.6 * far(start)
    assert torch.allclose(F.repri(zs, mask, zq, terms=(), steps=1), start)
    assert float(start.mean((1, 2)).sub(0.5).abs().max()) < 0.2  # the bias is the mean logit
    with pytest.raises(ValueError, match="terms"):
        F.repri(zs, mask, zq, terms=("dice",))
    with pytest.raises(ValueError, match="foreground"):
        F.repri(zs, 0 * mask, zq)


def test_iou_by_hand_and_ignored_pixels():
    p = torch.zeros(2, 4, 4)
    p[:, :2] = 1
    mask = torch.zeros(2, 4, 4, dtype=torch.long)
    mask[0, :2], mask[1, :1] = 1, 1
    assert F.mean_iou(p, mask, torch.tensor([0, 1])) == pytest.approx((1 + 0.5) / 2)
    assert F.mean_iou(p, mask, torch.tensor([0, 0])) == pytest.approx(12 / 16)
    mask[1, 1] = 255
    assert F.mean_iou(p, mask, torch.tensor([0, 1])) == 1


def test_scenes_hold_what_the_masks_say():
    t = F.segmentation_tasks("test", 6, 2, torch.Generator().manual_seed(0))
    assert t.support.shape == (6, 2, 3, 32, 32) and set(t.query_mask.unique().tolist()) == {0, 1}
    assert bool((t.support_mask.flatten(2).sum(2) > 0).all()) and set(t.classes.tolist()) <= set(range(12, 18))
    assert F.coarse(t.query_mask, 16).shape == (6, 16, 16)
    assert float(F.prototype_masks(t.support, t.support_mask, t.query).mean()) > 0


def test_panet_and_its_rival_learn_from_a_seed():
    make = partial(F.PixelNet, 4, 6)
    one, same, other = (F.panet(make, seed, steps=2, tasks=2, scenes=8) for seed in (0, 0, 1))
    x = torch.rand(1, 3, 16, 16)
    assert not one.training and torch.equal(one(x), same(x)) and not torch.equal(one(x), other(x))
    assert F.pixel_training(make, 0, steps=2, batch_size=2, scenes=8)(x).shape == (1, 6, 8, 8)
