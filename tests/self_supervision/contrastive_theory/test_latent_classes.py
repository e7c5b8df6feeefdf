"""The losses of the chain of bounds against plain loops."""

import copy
import math

import pytest
import torch
from self_supervision.contrastive_theory.helpers import gen, randn

from labcode.self_supervision import contrastive_theory as T


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


def test_blocks_are_means_of_one_class():
    """Without noise all draws of a class are one point, so that blocks of any size train the same net."""
    torch.manual_seed(0)
    net, probe = T.perceptron(32, 8), torch.randn(4, 32, generator=gen())
    world, found = T.LatentClasses(3, noise=0.0, nuisance=0), []
    for block in (2, 5):
        twin = copy.deepcopy(net)
        T.contrast_classes(world, twin, 0, 3, block=block)
        found.append(twin(probe))
    # other random numbers choose other negatives, so the nets are alike and not equal; an untrained one is further off
    assert (found[0] - found[1]).abs().mean() < (found[0] - net(probe)).abs().mean()


def test_a_linear_reader_is_at_its_best_on_separate_classes():
    world = T.LatentClasses(3, noise=0.05, nuisance=1)
    assert T.linear_accuracy(world, lambda x: x, 0, labels=300) > 0.9
    assert T.linear_accuracy(world, lambda x: 0 * x, 0, labels=300) == pytest.approx(1 / 3, abs=0.01)


def test_the_loss_taken_apart_is_whole_and_collisions_are_bounded():
    torch.manual_seed(0)
    world, net = T.LatentClasses(3, 0), T.perceptron(32, 32, 8)
    for shrink in (1.0, 0.5):
        told = T.taken_apart(world, net, 20_000, 0, shrink)
        assert told["whole"] == pytest.approx(told["parted"], abs=0.02)
        assert 0 < told["collision"] <= told["bound"]
    nothing = T.taken_apart(world, net, 500, 0, 0.0)
    assert nothing["collision"] == pytest.approx(0, abs=1e-6) and nothing["spread"] == pytest.approx(0, abs=1e-5)
