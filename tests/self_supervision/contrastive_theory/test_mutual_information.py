"""Bijections, and one trained to hide the classes."""

import pytest
import torch
from self_supervision.contrastive_theory.helpers import gen, randn

from labcode.self_supervision import contrastive_theory as T


@pytest.mark.parametrize("dim, couplings, affine", [(2, 1, False), (5, 2, True), (8, 3, False), (7, 5, True)])
def test_flows_are_bijections(dim, couplings, affine):
    torch.manual_seed(0)
    flow = T.Flow(dim, couplings, 16, affine).double()
    x = randn(9, dim)
    start = flow(x)  # near the identity, up to an exchange of the halves
    assert torch.allclose(start.sort(1).values, x.sort(1).values, atol=0.1)
    for net in flow.nets:
        torch.nn.init.normal_(net[-1].weight, std=0.3)
    assert torch.allclose(flow.inverse(flow(x)), x, atol=1e-9)
    assert not torch.allclose(flow(x), start, atol=0.1)
    if not affine:  # volumes are kept
        assert float(torch.linalg.slogdet(torch.autograd.functional.jacobian(lambda v: flow(v[None])[0], x[0]))[1]) == (
            pytest.approx(0, abs=1e-9)
        )


def test_linear_evidence_counts_what_a_linear_reader_explains():
    y = torch.arange(3).repeat(40)
    told, noise = torch.nn.functional.one_hot(y, 3).double() + 0.01 * randn(120, 3), randn(120, 3)
    variance = 2 / 3  # of one-hot labels of three equal classes
    assert float(T.linear_evidence(told, y, 3, 1e-6)) == pytest.approx(variance, abs=0.01)
    assert float(T.linear_evidence(noise, y, 3)) < 0.1
    assert torch.autograd.gradcheck(lambda z: T.linear_evidence(z, y[:12], 3), randn(12, 4).requires_grad_())


def test_spoiled_features_hide_the_classes_and_lose_nothing():
    x, y = torch.randn(600, 4, generator=gen()), torch.arange(2).repeat(300)
    x[:, 0] += 3 * y
    torch.manual_seed(0)
    flow = T.spoil(T.Flow(4, 4, 32), x, y, steps=150, lr=1e-2, batch_size=200)
    with torch.no_grad():
        z = flow(x)
    assert T.ridge_accuracy(x, y, x, y) > 0.9 > 0.75 > T.ridge_accuracy(z, y, z, y)
    assert torch.allclose(flow.double().inverse(flow(x.double())), x.double(), atol=1e-6)


def test_the_condition_number_is_that_of_the_jacobian():
    weight = torch.diag(torch.tensor([4.0, 2.0, 0.04], dtype=torch.float64))
    assert T.log_condition(lambda x: x @ weight, randn(3, 3)) == pytest.approx(2)
    x = randn(4, 2)  # (a, b) ↦ (a², b): its Jacobian is diagonal, 2a and 1
    logs = (2 * x[:, 0]).abs().log10().abs()
    assert T.log_condition(lambda v: torch.stack([v[:, 0] ** 2, v[:, 1]], 1), x) == pytest.approx(float(logs.mean()))
    torch.manual_seed(0)
    assert T.log_condition(T.Residual(8), torch.randn(4, 8)) < 0.2  # near the identity at first


def test_infomax_watches_and_raises_the_held_out_bound():
    x, e = torch.randn(2, 1000, 4, generator=gen())
    y, told = x + 0.3 * e, []
    start = T.infomax(x, y, lambda: T.perceptron(4, 16, 4), lambda: T.Bilinear(4, 4), lambda s: -T.nce_bound(s), 0, 1)
    models = T.infomax(x, y, lambda: T.perceptron(4, 16, 4), lambda: T.Bilinear(4, 4), lambda s: -T.nce_bound(s), 0, 80,
                       lr=1e-2, watch=lambda g: told.append(g.training), looks=(0.0, 0.5))  # fmt: skip
    assert told == [False, False, False] and not models[0].training
    assert T.held_out_bound(*models, x, y) > T.held_out_bound(*start, x, y) + 0.5
    with torch.no_grad():
        scores = [models[2](models[0](a), models[1](b)) for a, b in zip(x.split(64), y.split(64), strict=True)]
    by_hand = [float(T.nce_bound(s)) for s in scores[:15]]  # the rest is no batch of 64
    assert T.held_out_bound(*models, x, y) == pytest.approx(sum(by_hand) / 15, abs=1e-5)
