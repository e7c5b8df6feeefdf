"""Joint labels, aggregation and distillation against loops."""

import math

import pytest
import torch
from self_supervision.pretext.helpers import draw, log_softmax, pictures

from labcode.self_supervision import pretext as P


@pytest.mark.parametrize("n, copies, classes", [(3, 4, 2), (1, 2, 5), (4, 1, 3)])
def test_sla_loss_and_aggregation_are_the_loops(n, copies, classes):
    scores, y = draw(n * copies, copies * classes), torch.arange(n) % classes
    loss, table = 0.0, torch.zeros(n, classes, dtype=torch.float64)
    for v in range(copies):
        for i in range(n):
            row = scores[i + n * v].tolist()
            loss -= log_softmax(row)[int(y[i]) * copies + v] / (n * copies)
            for c in range(classes):
                table[i, c] += row[c * copies + v] / copies
    assert float(P.sla_loss(scores, y)) == pytest.approx(loss, rel=1e-12)
    assert torch.allclose(P.aggregate(scores, copies), table)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16])
def test_a_hundred_classes_in_bytes_do_not_wrap_around(dtype):
    y, scores = torch.tensor([99, 70, 64]), draw(12, 400)
    if dtype.is_signed:
        assert P.joint_labels(y.to(dtype)).tolist() == [4 * c + v for v in range(4) for c in (99, 70, 64)]
    loss = -sum(log_softmax(scores[i + 3 * v].tolist())[4 * int(y[i]) + v] for v in range(4) for i in range(3)) / 12
    assert float(P.sla_loss(scores, y.to(dtype))) == pytest.approx(loss, rel=1e-12)


def test_self_distillation_is_the_loop_and_stops_at_the_teacher():
    single, teacher, y = draw(5, 3).requires_grad_(), draw(5, 3, seed=1).requires_grad_(), torch.tensor([0, 1, 2, 0, 1])
    wanted = 0.0
    for s, t, c in zip(single.tolist(), teacher.tolist(), y.tolist(), strict=True):
        ours, theirs = log_softmax(s), log_softmax(t)
        wanted += (sum(math.exp(b) * (b - a) for a, b in zip(ours, theirs, strict=True)) - 0.7 * ours[c]) / 5
    loss = P.self_distillation(single, teacher, y, 0.7)
    assert loss.item() == pytest.approx(wanted, rel=1e-9)
    loss.backward()
    assert teacher.grad is None and single.grad.abs().sum() > 0
    assert float(P.self_distillation(single.detach(), single, y, 0.0)) == pytest.approx(0, abs=1e-12)


@pytest.mark.bad_input
def test_labels_that_are_no_class_are_named():
    y = torch.tensor([100_000_000, 1])
    with pytest.raises(ValueError, match="y must lie in 0 … 2, got 1 … 100000000"):
        P.sla_loss(torch.zeros(8, 12), y)
    with pytest.raises(ValueError, match="y must lie in 0 … 3"):
        P.self_distillation(torch.zeros(2, 4), torch.zeros(2, 4), y)
    with pytest.raises(ValueError, match="labels must lie in 0 … 2, got -1 … 1"):
        P.Classifier(P.BlockNet(8), torch.tensor([-1, 1]), 3)


def test_two_turns_are_averaged_over_their_own():
    torch.manual_seed(0)
    model, x = P.SLA(P.BlockNet(8), torch.arange(3), 3, copies=2).eval(), pictures(4)
    with torch.no_grad():
        each = [model.joint(model.encoder(torch.rot90(x, v, (2, 3))))[:, v::2] for v in range(2)]
        assert torch.allclose(model.aggregated(x), sum(each) / 2, atol=1e-6)
