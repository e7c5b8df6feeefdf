"""PLS-LSA: detection, weights of guesses, the contrastive term; SimCLR's loss for a stack."""

import pytest
import torch

from labcode.imperfect_labels.noisy_labels import (
    by_small_loss,
    mixed_supervised_contrast,
    nt_xent,
    pseudo_weights,
    ranks_agree,
)  # fmt: skip
from labcode.self_supervision.contrastive import nt_xent as library


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_small_losses_find_the_high_bump():
    loss = torch.cat([0.1 + 0.02 * draw(80).abs(), 3 + 0.2 * draw(40)])[None]
    noisy, p = by_small_loss(loss)
    assert noisy[0].tolist() == [False] * 80 + [True] * 40
    assert bool(((p >= 0) & (p <= 1)).all())


def test_guesses_are_weighed_among_the_detected():
    loss = torch.tensor([[9.0, 9.0, 0.1, 0.12, 0.11, 2.0, 2.1, 2.05]])
    noisy = torch.tensor([[False, False] + [True] * 6])
    w = pseudo_weights(loss, noisy)[0]
    assert w[:2].tolist() == [1, 1]
    assert bool((w[2:5] > 0.9).all()) and bool((w[5:] < 0.1).all())
    assert pseudo_weights(loss, torch.zeros_like(noisy))[0].tolist() == [1] * 8


def test_contrast_against_a_loop():
    f1, f2 = draw(1, 4, 3), draw(1, 4, 3, seed=1)
    classes, share, partner = torch.tensor([[0, 1, 0, 1]]), torch.tensor([[0.7]]).double(), torch.tensor([[1, 0, 3, 2]])
    a, b = (f[0] / f[0].norm(dim=1, keepdim=True) for f in (f1, f2))
    logits = (a @ b.T / 0.2).log_softmax(1)
    want = 0.0
    for i in range(4):
        for weight, c in ((0.7, classes[0, i]), (0.3, classes[0, partner[0, i]])):
            places = (classes[0] == c).nonzero()[:, 0]
            want -= weight * float(logits[i, places].mean()) / 4
    assert float(mixed_supervised_contrast(f1, f2, classes, share, partner)) == pytest.approx(want)

    def of(f):
        return mixed_supervised_contrast(f, f2, classes, share, partner)

    assert torch.autograd.gradcheck(of, f1.clone().requires_grad_())


def test_ranks():
    x = draw(1, 50)
    assert ranks_agree(x, x**3) == pytest.approx(1)
    assert ranks_agree(x, -x) == pytest.approx(-1)


def test_stacked_simclr_is_the_librarys():
    z = draw(2, 10, 4)
    want = sum(library(one, 0.2) for one in z)
    assert float(nt_xent(z, 0.2)) == pytest.approx(float(want), rel=1e-5)
    with pytest.raises(ValueError, match="two views"):
        nt_xent(z[:, :3])
