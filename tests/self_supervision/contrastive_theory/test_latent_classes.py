"""The losses of the chain of bounds against plain loops."""

import math

import pytest
import torch

from labcode.self_supervision import contrastive_theory as T


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=gen(seed))


@pytest.mark.parametrize("k", [1, 3])
def test_contrastive_logistic_is_the_loop(k):
    f, p, n = randn(4, 3), randn(4, 3, seed=1), randn(4, k, 3, seed=2)
    want = 0.0
    for i in range(4):
        total = 1.0
        for j in range(k):
            total += math.exp(-sum(float(f[i, c]) * float(p[i, c] - n[i, j, c]) for c in range(3)))
        want += math.log2(total) / 4
    assert float(T.contrastive_logistic(f, p, n)) == pytest.approx(want, rel=1e-9)
    assert float(T.contrastive_logistic(0 * f, p, n)) == pytest.approx(math.log2(1 + k))
    assert torch.autograd.gradcheck(T.contrastive_logistic, tuple(v.requires_grad_() for v in (f, p, n)))


def test_classifier_losses_are_the_loops():
    f, y = randn(30, 4), torch.arange(3).repeat(10)
    means = T.class_means(f, y, 3)
    assert torch.allclose(means[1], f[y == 1].mean(0))
    total = 0.0
    for c in range(3):
        for other in {0, 1, 2} - {c}:
            rows = [float(x @ (means[c] - means[other])) for x in f[y == c]]
            total += sum(math.log2(1 + math.exp(-v)) for v in rows) / 10 / 6
    assert T.mean_classifier_loss(f, y, means) == pytest.approx(total, rel=1e-9)
    assert T.pair_classifier_loss(f, y, f, y, 3, steps=1) <= total + 1e-9
    assert T.pair_classifier_loss(f, y, f, y, 3) <= T.pair_classifier_loss(f, y, f, y, 3, steps=1) + 1e-9


def test_blocks_never_raise_the_loss_and_collapse_gives_the_bound_at_one():
    f, p, n = randn(50, 6), randn(50, 5, 6, seed=1), randn(50, 5, 6, seed=2)
    single = sum(T.contrastive_logistic(f, p[:, i], n[:, i : i + 1]) for i in range(5)) / 5
    assert float(T.contrastive_logistic(f, p.mean(1), n.mean(1, keepdim=True))) <= float(single)
    assert T.arora_bound(1.0, 0.25) == pytest.approx(1)
    with pytest.raises(ValueError, match="collision"):
        T.arora_bound(1.0, 1.0)


def test_positives_are_of_the_class():
    world = T.LatentClasses(4, noise=0.0, nuisance=1)
    x, y = world.draw(1000, gen())
    assert T.ridge_accuracy(x, y, x, y) > 0.9
    labels = torch.zeros(10, dtype=torch.int64)
    assert torch.equal(world.draw(10, gen(), labels)[1], labels)
    assert [tuple(v.shape) for v in world.pairs(5, 3, gen())] == [(5, 32), (5, 32), (5, 3, 32)]
