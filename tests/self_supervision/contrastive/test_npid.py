"""Instance discrimination: its losses against plain float64 loops, and the memory bank."""

import math

import pytest
import torch
import torch.nn.functional as F
from self_supervision.contrastive.helpers import Flat, dot, lse, pictures, rows

from labcode.self_supervision import contrastive as C

EPS = 1e-10


def loop_softmax(f, bank, index, tau):
    total = 0.0
    for row, i in zip(f, index, strict=True):
        scores = [dot(row, v) / tau for v in bank]
        total += lse(scores) - scores[i]
    return total / len(f)


def loop_nce(f, bank, index, noise, z, tau):
    n, m, total = len(bank), noise.shape[1], 0.0
    for row, i, drawn in zip(f, index, noise, strict=True):
        # odds: log P/(m Pn), so h = 1/(1 + e^-odds)
        odds = lambda j: dot(row, bank[j]) / tau - math.log(z * m / n)  # noqa: B023, E731
        total += lse([0.0, -odds(i)]) + sum(lse([0.0, odds(j)]) for j in drawn)
    return total / len(f)


@pytest.mark.parametrize("tau", [1e-8, 0.1, 1.0])
def test_instance_softmax_is_the_loop(tau):
    f, bank, index = rows(4), rows(9, seed=1), torch.tensor([8, 0, 3, 3])
    wanted = loop_softmax(f, bank, index, tau)
    assert float(C.instance_softmax(f, bank, index, tau)) == pytest.approx(wanted, rel=EPS, abs=EPS)


@pytest.mark.parametrize("m", [1, 6])
@pytest.mark.parametrize("tau", [1e-6, 0.3])
def test_instance_nce_is_the_loop(m, tau):
    f, bank, index = rows(4), rows(9, seed=1), torch.tensor([8, 0, 3, 3])
    noise = torch.randint(9, (4, m), generator=torch.Generator().manual_seed(3))
    ours = C.instance_nce(f, bank, index, noise, torch.tensor(40.0, dtype=torch.float64).log(), tau)
    assert float(ours) == pytest.approx(loop_nce(f, bank, index, noise.numpy(), 40.0, tau), rel=EPS, abs=EPS)


def test_log_partition_is_the_mean_over_the_noise_times_n():
    f, bank = rows(3), rows(8, seed=1)
    every = torch.arange(8).repeat(3, 1)  # each image once: the exact Z, averaged over the batch
    exact = sum(math.exp(dot(a, v) / 0.4) for a in f for v in bank) / 3
    assert float(C.log_partition(f, bank, every, 0.4)) == pytest.approx(math.log(exact), abs=EPS)
    exact = lse([dot(a, v) / 1e-5 for a in f for v in bank]) - math.log(3)
    assert float(C.log_partition(f, bank, every, 1e-5)) == pytest.approx(exact, rel=EPS)


def test_the_bank_starts_on_the_sphere_and_moves_half_way():
    model = C.NPID(Flat(), images=10, dim=4).train()
    assert torch.allclose(model.bank.norm(dim=1), torch.ones(10))
    before, index, views = model.bank.clone(), torch.tensor([7, 2, 5]), pictures(3)
    f = F.normalize(model.head(model.encoder(views)), dim=1).detach()
    loss = model(views, index)
    assert torch.allclose(loss, C.instance_softmax(f, before, index, model.tau), atol=1e-5)  # loss first, then the bank
    loss.backward()
    assert torch.allclose(model.bank[index], F.normalize(0.5 * before[index] + 0.5 * f, dim=1), atol=1e-6)
    rest = torch.tensor([0, 1, 3, 4, 6, 8, 9])
    assert torch.equal(model.bank[rest], before[rest]) and not model.bank.requires_grad
    assert float(model.moved) == pytest.approx(float((f - before[index]).norm(dim=1).mean()), rel=1e-5)


def test_z_is_set_by_the_first_batch_and_then_frozen():
    model = C.NPID(Flat(), images=30, dim=4, softmax="nce", negatives=8).train()
    assert model.log_z.isnan()
    model(pictures(4), torch.arange(4))
    first = model.log_z.clone()
    assert first.isfinite()
    model(pictures(4, 1), torch.arange(4))
    assert torch.equal(model.log_z, first)


def test_the_parametric_softmax_trains_its_class_vectors_by_gradient():
    model = C.NPID(Flat(), images=6, dim=4, softmax="parametric").train()
    before = model.bank.detach().clone()
    model(pictures(3), torch.arange(3)).backward()
    assert model.bank.grad.abs().sum() > 0 and torch.equal(model.bank, before)


def test_the_proximal_term_adds_lambda_times_the_squared_step():
    torch.manual_seed(0)
    free = C.NPID(Flat(), images=6, dim=4).eval()
    torch.manual_seed(0)
    held = C.NPID(Flat(), images=6, dim=4, pull=3.0).eval()
    views, index = pictures(3), torch.arange(3)
    f = F.normalize(free.head(free.encoder(views)), dim=1)
    step = (f - free.bank[index]).square().sum(1).mean()
    added = (held(views, index) - free(views, index)).detach()
    assert float(added) == pytest.approx(3 * float(step.detach()), rel=1e-4)
