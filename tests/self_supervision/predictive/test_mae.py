"""Masked and Fourier losses against loops and sums of waves; every loss of the chapter's images."""

import math

import numpy as np
import pytest
import torch
from self_supervision.predictive.helpers import draw, vit

from labcode import nets
from labcode.self_supervision import predictive as P


@pytest.mark.parametrize("n, k, p", [(1, 3, 2), (4, 5, 3)])
def test_masked_mse_is_the_loop(n, k, p):
    a, b, hidden = draw(n, k, p), draw(n, k, p, seed=1), draw(n, k, seed=2) > 0
    hidden[0, 0] = True
    errors = [
        float((a[i, j, c] - b[i, j, c]) ** 2) for i in range(n) for j in range(k) for c in range(p) if hidden[i, j]
    ]
    assert float(P.masked_mse(a, b, hidden)) == pytest.approx(sum(errors) / len(errors), rel=1e-12)
    assert float(P.masked_mse(a, b, torch.zeros_like(hidden))) == 0


def test_fourier_loss_is_the_sum_of_waves():
    a, b = draw(2, 2, 3, 4), draw(2, 2, 3, 4, seed=1)

    def moduli(x):
        out = []
        for u in range(3):
            for v in range(4):
                waves = [x[y, z] * np.exp(-2j * math.pi * (u * y / 3 + v * z / 4)) for y in range(3) for z in range(4)]
                out.append(abs(sum(waves)))
        return out

    wanted = [abs(s - t) for i in range(2) for c in range(2)
              for s, t in zip(moduli(a[i, c].numpy()), moduli(b[i, c].numpy()), strict=True)]  # fmt: skip
    assert float(P.fourier_loss(a, b)) == pytest.approx(sum(wanted) / len(wanted), rel=1e-9)
    assert float(P.fourier_loss(a, a.roll((1, 2), (2, 3)))) < 1e-9, "it does not care where a structure lies"
    blurred = (a + a.roll(1, 3)) / 2
    assert float(P.fourier_loss(blurred, a)) > 0.1, "but a blur it sees"


def test_gradients():
    hidden, prefix, after = torch.tensor([[True, False, True]] * 2), torch.tensor([1, 2]), torch.tensor([[0], [1]])
    a, b = draw(2, 3, 4).requires_grad_(), draw(2, 3, 4, seed=1)
    assert torch.autograd.gradcheck(lambda x: P.masked_mse(x, b, hidden), a)
    assert torch.autograd.gradcheck(lambda x: P.autoregressive_loss(x, b, prefix), a)
    assert torch.autograd.gradcheck(lambda x: P.next_all_loss(x[:, None], b, after), a)
    assert torch.autograd.gradcheck(lambda x: P.fourier_loss(x[None], b[None]), a)
    assert torch.autograd.gradcheck(lambda x: P.self_distillation_loss(x, b[:, 0]), a[:, 0].detach().requires_grad_())


def test_gradient_of_a_modulus_at_zero_is_finite():
    x = torch.zeros(1, 1, 4, 4, requires_grad=True)
    P.fourier_loss(x, torch.ones(1, 1, 4, 4)).backward()
    assert torch.isfinite(x.grad).all()


@pytest.mark.bad_input
def test_bad_arguments_are_named():
    a = draw(2, 3, 4)
    for name, call in {
        "hidden": lambda: P.masked_mse(a, a, torch.zeros(2, 3)),
        "target": lambda: P.fourier_loss(a[None], a[None, :1]),
        "predicted": lambda: P.autoregressive_loss(a[:, :1], a[:, :1], torch.tensor([1, 1])),
        "prefix": lambda: P.autoregressive_loss(a, a, torch.tensor([1])),
        "after": lambda: P.next_all_loss(a[:, None], a, torch.tensor([1, 1])),
        "teacher": lambda: P.self_distillation_loss(a[:, 0], a[:, 0, :2]),
        "objectives": lambda: P.TokenUnify(vit(), ("all",)),
        "encoder": lambda: P.Reader(vit(), 3),
        "tokens": lambda: P.pixel_scores(draw(2, 4, 3), torch.ones(2, 6, 6, dtype=torch.bool), draw(1, 9, 3), (2, 2)),
        "tail": lambda: P.relation_recall(a[0], torch.tensor([0, 0, 1]), 0.5),
        "group": lambda: P.relation_recall(a[0], torch.tensor([0, 1, 2])),
        "pathways": lambda: P.cells(1, 4, 5),
        "mask": lambda: P.dice(a, a),
        "x": lambda: P.ChannelMAE(P.ChannelViT((4, 4), (2, 2), 8, 1, 2), 3, width=8, heads=2)(torch.rand(2, 2, 4, 4)),
    }.items():
        with pytest.raises(ValueError, match=rf"\b{name}\b"):
            call()


def test_mae_predicts_without_seeing():
    torch.manual_seed(0)
    mae, x = P.MAE(vit(cls=True), width=16), draw(2, 1, 6, 6, dtype=torch.float32)
    kept, hidden = nets.random_split(2, 9, 2)
    patches = nets.patchify(x, (2, 2)).clone()
    patches.scatter_(1, hidden[..., None].expand(-1, -1, 4), 5.0)
    other = nets.unpatchify(patches, (2, 2), (3, 3))
    assert torch.equal(mae.decode(mae.encoder(x, kept), kept), mae.decode(mae.encoder(other, kept), kept))
    assert mae.decode(mae.encoder(x, kept), kept).shape == (2, 9, 4) and mae.keep == 2
