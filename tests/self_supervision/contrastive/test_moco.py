"""MoCo: its loss against a plain float64 loop, the queue, the key encoder, split BatchNorm."""

import inspect

import pytest
import torch
import torch.nn.functional as F
from self_supervision.contrastive.helpers import Flat, dot, lse, pictures, rows
from torch import nn

from labcode.self_supervision import contrastive as C

EPS = 1e-10


def loop_moco(q, k, queue, tau):
    total = 0.0
    for i in range(len(q)):
        own = dot(q[i], k[i]) / tau
        total += lse([own, *(dot(q[i], old) / tau for old in queue)]) - own
    return total / len(q)


@pytest.mark.parametrize("n, queue", [(1, 1), (4, 7)])
@pytest.mark.parametrize("tau", [1e-8, 0.07, 0.2])
def test_moco_loss_is_the_loop(n, queue, tau):
    q, k, old = rows(n), rows(n, seed=1), rows(queue, seed=2)
    assert float(C.moco_loss(q, k, old, tau)) == pytest.approx(loop_moco(q, k, old, tau), rel=EPS, abs=EPS)


def test_no_gradient_reaches_keys_and_queue():
    q, k, old = (rows(4, seed=s).requires_grad_() for s in range(3))
    C.moco_loss(q, k, old).backward()
    assert q.grad is not None and k.grad is None and old.grad is None


def test_the_queue_is_first_in_first_out_and_enqueues_after_the_loss():
    model = C.MoCo(Flat(), dim=4, queue=5, momentum=1.0).train()
    before, made = model.queue.clone(), []
    for step in range(3):
        views = pictures(4, step)
        wanted = C.moco_loss(model.head(model.encoder(views[:2])), model.keys(views[2:]), model.queue, model.tau)
        assert torch.allclose(model(views, torch.arange(2)), wanted)  # its own keys are not among the negatives
        made.insert(0, model.keys(views[2:]))
    assert torch.allclose(model.queue, torch.cat(made)[:5])
    assert len(model.queue) == 5 and not torch.isin(before, model.queue).any()


def test_a_batch_larger_than_the_queue_and_evaluation_mode():
    model = C.MoCo(Flat(), dim=4, queue=3).train()
    model(pictures(16), torch.arange(8))
    assert model.queue.shape == (3, 4)
    model.eval()
    kept, key = model.queue.clone(), model.key_encoder[0].body[1].weight.clone()
    model(pictures(16, 1), torch.arange(8))
    assert torch.equal(model.queue, kept) and torch.equal(model.key_encoder[0].body[1].weight, key)


def test_the_key_encoder_follows_before_the_keys_are_made_and_has_no_gradient():
    model = C.MoCo(Flat(), dim=4, queue=8, momentum=0.9).train()
    with torch.no_grad():
        model.encoder.body[1].weight += 1.0
    key, query = model.key_encoder[0].body[1].weight.clone(), model.encoder.body[1].weight.clone()
    views = pictures(8)
    model(views, torch.arange(4)).backward()
    moved = model.key_encoder[0].body[1].weight
    assert torch.allclose(moved, 0.9 * key + 0.1 * query, atol=1e-6)
    assert torch.allclose(model.queue[:4], F.normalize(model.key_encoder(views[4:]), dim=1))
    assert all(p.grad is None for p in model.key_encoder.parameters())
    assert model.encoder.body[1].weight.grad.abs().sum() > 0


def test_momentum_zero_copies_the_query_encoder():
    model = C.MoCo(Flat(), dim=4, momentum=0.0).train()
    with torch.no_grad():
        model.encoder.body[1].weight.normal_()
    model(pictures(4), torch.arange(2))
    assert torch.equal(model.key_encoder[0].body[1].weight, model.encoder.body[1].weight)


def test_split_batchnorm_normalises_parts_apart_and_shuffling_puts_keys_back():
    x = rows(8, 6, dtype=torch.float32)
    split = C.split_batchnorm(nn.Sequential(nn.BatchNorm1d(6)), 2).train()
    out = split(x)
    for part in out.chunk(2):
        assert part.mean(0).abs().max() < 1e-5
    assert torch.allclose(split.eval()(x), split[0].norm(x))
    model = C.MoCo(Flat(norm=True), dim=4, splits=2).train()
    for module in model.modules():
        if isinstance(module, C.SplitBatchNorm):
            module.eval()  # without batch statistics a key depends on its own image alone
    views = pictures(6)
    assert torch.allclose(model.keys(views), F.normalize(model.key_encoder(views), dim=1), atol=1e-6)
    names = [type(m).__name__ for m in model.key_encoder.modules()]
    assert names.count("SplitBatchNorm") == 1


def test_jittered_views_change_colours_within_their_range_and_follow_their_generator():
    images = (255 * torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))).byte()
    jittered = inspect.unwrap(C.jittered_views)  # unchecked: its annotation counts views as an axis, which it is not
    one, again, other = (jittered(images, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert one.shape == (12, 3, 16, 16) and torch.equal(one, again) and not torch.equal(one, other)
    grey = jittered(torch.full_like(images, 100), torch.Generator().manual_seed(1))
    factors = grey.mean((1, 2, 3)) / (100 / 255)  # of a grey image nothing is left but brightness and noise
    assert 0.58 < float(factors.min()) and float(factors.max()) < 1.42 and float(factors.std()) > 0.1
