"""The rivals' losses, and Co-teaching's choice."""

import pytest
import torch
import torch.nn.functional as F

from labcode.imperfect_labels.label_sets import transition
from labcode.imperfect_labels.noisy_labels import (
    co_teaching_weights,
    forward_cross_entropy,
    generalised_cross_entropy,
    small_loss,
)  # fmt: skip


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


Z, Y = draw(2, 5, 4), torch.randint(4, (2, 5), generator=torch.Generator().manual_seed(1))


def test_generalised_cross_entropy_against_a_loop():
    want = 0.0
    for n in range(2):
        for i in range(5):
            want += (1 - float(Z[n, i].softmax(0)[Y[n, i]]) ** 0.7) / 0.7 / 5
    assert float(generalised_cross_entropy(Z, Y)) == pytest.approx(want)
    assert torch.autograd.gradcheck(lambda z: generalised_cross_entropy(z, Y), Z.clone().requires_grad_())


def test_generalised_cross_entropy_between_its_two_ends():
    ce = sum(F.cross_entropy(z, y) for z, y in zip(Z, Y, strict=True))
    assert float(generalised_cross_entropy(Z, Y, 1e-6)) == pytest.approx(float(ce), abs=1e-4)
    p = Z.softmax(-1).gather(-1, Y[..., None])[..., 0]
    assert float(generalised_cross_entropy(Z, Y, 1.0)) == pytest.approx(float((1 - p).mean(1).sum()))
    with pytest.raises(ValueError, match="q"):
        generalised_cross_entropy(Z, Y, 0.0)


def test_forward_correction_without_noise_is_cross_entropy():
    ce = sum(F.cross_entropy(z, y) for z, y in zip(Z, Y, strict=True))
    assert float(forward_cross_entropy(Z, Y, torch.eye(4))) == pytest.approx(float(ce))
    t = transition("pair", 4, 0.3)
    want = 0.0
    for n in range(2):
        for i in range(5):
            p = Z[n, i].softmax(0)
            want -= float(torch.log(sum(p[a] * t[a, Y[n, i]] for a in range(4)))) / 5
    assert float(forward_cross_entropy(Z, Y, t)) == pytest.approx(want)
    with pytest.raises(ValueError, match="matrix"):
        forward_cross_entropy(Z, Y, torch.eye(3))


def test_small_losses_are_kept():
    loss = torch.tensor([[3.0, 1.0, 2.0, 4.0]])
    assert small_loss(loss, 0.5).tolist() == [[0.0, 0.5, 0.5, 0.0]]
    assert small_loss(loss, 0.01).tolist() == [[0.0, 1.0, 0.0, 0.0]]
    with pytest.raises(ValueError, match="keep"):
        small_loss(loss, 0.0)


def test_co_teaching_exchanges():
    loss = torch.tensor([[1.0, 2.0], [2.0, 1.0], [5.0, 0.0], [0.0, 5.0]])
    assert co_teaching_weights(loss, 0.5).tolist() == [[0.0, 1.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]
    with pytest.raises(ValueError, match="pairs"):
        co_teaching_weights(loss[:3], 0.5)
