"""BECLR: the loss of the loop, the memory's clusters, transported prototypes against an independent Sinkhorn."""

import math

import numpy as np
import pytest
import torch
from clustering.few_shot.helpers import tasks
from torch import nn

from labcode.clustering import few_shot as F


def three(n=3, d=4, seed=0):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(2 * n, d, generator=g, dtype=torch.float64) for _ in range(3)]


@pytest.mark.parametrize("n", [1, 2, 5])
def test_loss_is_the_loop(n):
    p, target, z = three(n)
    cos = lambda a, b: float(a @ b / a.norm() / b.norm())  # noqa: E731
    align = -sum(cos(p[i], target[(i + n) % (2 * n)]) for i in range(2 * n)) / (2 * n)
    pairs = [math.exp(cos(z[i], z[j]) / 2) for i in range(2 * n) for j in range(2 * n) if i % n != j % n]
    want = align + (0.1 * math.log(sum(pairs) / len(pairs)) if pairs else 0)
    assert float(F.beclr_loss(p, target, z)) == pytest.approx(want, rel=1e-9)


def test_loss_gradient_scale_and_errors():
    p, target, z = three()
    p, z = p.requires_grad_(), z.requires_grad_()
    assert torch.autograd.gradcheck(lambda p, z: F.beclr_loss(p, target, z), (p, z))
    assert torch.allclose(F.beclr_loss(5 * p, 0.1 * target, 3 * z), F.beclr_loss(p, target, z))
    target.requires_grad_()
    assert torch.autograd.grad(F.beclr_loss(p, target, z), target, allow_unused=True)[0] is None
    with pytest.raises(ValueError, match="temperature"):
        F.beclr_loss(p, target, z, temperature=0.0)
    with pytest.raises(ValueError, match="p must"):
        F.beclr_loss(p[:5], target[:5], z[:5])


def test_memory_is_first_in_first_out_and_clusters_are_even():
    m = F.Memory(20, 4, 6)
    g = torch.Generator().manual_seed(0)
    rows = torch.randn(28, 6, generator=g)
    for part in range(7):
        m.push(rows[4 * part : 4 * part + 4], rows[4 * part : 4 * part + 4], torch.arange(4 * part, 4 * part + 4))
    assert m.filled == 20 and m.image.tolist() == [
        *range(24, 28),
        *range(20, 24),
        *range(16, 20),
        *range(12, 16),
        *range(8, 12),
    ]
    assert torch.allclose(m.teacher[0], rows[24] / rows[24].norm())
    m.begin(0)
    m.push(torch.randn(12, 6, generator=g), torch.randn(12, 6, generator=g), torch.arange(12), eps=0.5)
    assert torch.bincount(m.cluster[:12], minlength=4).max() <= 6


def test_neighbours_are_the_nearest_of_the_cluster():
    m = F.Memory(30, 3, 5)
    g = torch.Generator().manual_seed(0)
    rows = torch.nn.functional.normalize(torch.randn(30, 5, generator=g), dim=1)
    m.push(rows, rows, torch.arange(30))
    m.begin(0)
    z = torch.randn(4, 5, generator=g)
    places, there = m.neighbours(z, 3)
    for i in range(4):
        c = int((torch.nn.functional.normalize(z[i], dim=0) @ m.prototypes.T).argmax())
        inside = [j for j in range(30) if int(m.cluster[j]) == c]
        best = sorted(inside, key=lambda j: -float(z[i] @ m.teacher[j]))[:3]
        assert places[i][there[i]].tolist() == best


def test_transport_is_an_independent_sinkhorn():
    t = tasks(count=2)
    found = F.transported(t.prototypes, t.query, eps=0.1, rounds=500)
    for i in range(2):
        cost = np.array([[float((q - m).square().sum()) for m in t.prototypes[i]] for q in t.query[i]])
        k = np.exp(-cost / cost.max() / 0.1)
        u, v = np.ones(12), np.ones(3)
        for _ in range(5000):
            v = (1 / 3) / (k.T @ u)
            u = (1 / 12) / (k @ v)
        plan = u[:, None] * k * v
        assert np.allclose(found[i], plan.T @ t.query[i].numpy() / plan.sum(0)[:, None], atol=1e-6)


def test_a_plan_has_even_marginals():
    plan = F.transport_plan((t := tasks(count=3)).prototypes, t.query, rounds=500)
    assert torch.allclose(plan.sum(2), torch.full((3, 12), 1 / 12, dtype=plan.dtype))
    assert torch.allclose(plan.sum(1), torch.full((3, 3), 1 / 3, dtype=plan.dtype), atol=1e-6)


def test_opta_without_passes_is_the_classifier_and_moves_with_the_features():
    t = tasks()
    assert torch.allclose(F.opta(t, 0, classifier=F.nearest_prototype), F.nearest_prototype(t))
    shifted = t.map(lambda z: z + 7.0)
    assert torch.allclose(
        F.opta(shifted, 2, classifier=F.nearest_prototype), F.opta(t, 2, classifier=F.nearest_prototype), atol=1e-6
    )
    trace = []
    F.opta(t, 3, trace=trace)
    assert len(trace) == 4
    with pytest.raises(ValueError, match="passes"):
        F.opta(t, -1)


class Tiny(nn.Module):
    features = 6

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 6)

    def forward(self, x):
        return self.layer(x.flatten(1))


def test_the_memory_serves_from_its_start_and_the_teacher_follows():
    g = torch.Generator().manual_seed(0)
    model = F.BECLR(Tiny(), dim=5, memory=16, clusters=3, top=2, start=3, momentum=0.5)
    before = [p.clone() for p in model.teacher.parameters()]
    for step in range(6):
        model(torch.randn(8, 1, 2, 2, generator=g), torch.arange(4)).backward()
        assert len(model.purity) == max(0, step - 2)
    with torch.no_grad():
        for p in model.encoder.parameters():
            p.add_(1.0)
    model.follow()
    ours = [*model.encoder.parameters(), *model.projector.parameters()]
    assert all(torch.allclose(t, (b + o) / 2) for t, b, o in zip(model.teacher.parameters(), before, ours, strict=True))
    assert 0 <= F.purity(model, torch.arange(4)) <= 1
