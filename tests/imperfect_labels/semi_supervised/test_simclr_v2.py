"""SimCLRv2: the contrastive loss of a stack, where the network is cut, what is copied, and distillation."""

import math

import pytest
import torch

import labcode as lab
from labcode.imperfect_labels import semi_supervised as S
from labcode.self_supervision.contrastive import nt_xent


@pytest.fixture(scope="module")
def stage():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABCODE_SCALE", "quick")
        yield S.Stage(lab.start("imperfect_labels/semi_supervised"))


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_nt_xent_is_the_loop():
    z = draw(2, 6, 4)
    for i in range(2):
        u, want = z[i] / z[i].norm(dim=1, keepdim=True), 0.0
        for a in range(6):
            others = sum(math.exp(float(u[a] @ u[c]) / 0.3) for c in range(6) if c != a)
            want -= math.log(math.exp(float(u[a] @ u[(a + 3) % 6]) / 0.3) / others) / 6
        assert float(S.nt_xent(z, 0.3)[i]) == pytest.approx(want)
    assert torch.allclose(S.nt_xent(5 * z, 0.3), S.nt_xent(z, 0.3))
    assert torch.autograd.gradcheck(lambda z: S.nt_xent(z, 0.5), [z.requires_grad_()])
    for wrong in (z[:, :5], z[:, :2]):
        with pytest.raises(ValueError, match="two views"):
            S.nt_xent(wrong)


def test_nt_xent_agrees_with_the_contrastive_chapter():
    z = draw(1, 8, 5).float()
    assert float(S.nt_xent(z, 0.2)[0]) == pytest.approx(float(nt_xent(z[0], 0.2)), rel=1e-5)


def test_distillation_is_the_loop_and_is_least_at_the_teacher():
    student, teacher = draw(2, 2, 4, 3, seed=1).unbind()
    for i in range(2):
        want = 0.0
        for j in range(4):
            p, q = (teacher[i, j] / 2).softmax(0), (student[i, j] / 2).softmax(0)
            want -= float((p * q.log()).sum()) / 4
        assert float(S.distillation(student, teacher, 2.0)[i]) == pytest.approx(want)
    both = [t.requires_grad_() for t in (student, teacher)]
    S.distillation(*both).sum().backward()
    assert teacher.grad is None
    assert torch.allclose(student.grad, (student.softmax(-1) - teacher.softmax(-1)).detach() / 4)
    assert (S.distillation(teacher, teacher) < S.distillation(student, teacher)).all()
    assert torch.autograd.gradcheck(lambda s: S.distillation(s, teacher, 0.7), [student])
    assert S.distillation(student.half(), teacher.half()).dtype == torch.float32
    with pytest.raises(ValueError, match="teacher"):
        S.distillation(student, teacher[:1])
    with pytest.raises(ValueError, match="tau"):
        S.distillation(student, teacher, 0.0)


def test_what_is_kept_is_the_first_layers(stage):
    net = S.pretrain(stage, 16, 0, steps=2, pairs=8)
    x = stage.pool.x[:5]
    for layer, modules in ((0, 6), (1, 9), (2, 12)):
        made = S.Tuned(net, layer, 3).eval()
        want = net.body[:modules](x)
        assert all(torch.allclose(made.features(x)[i], want[0], atol=1e-6) for i in range(3))
        assert float(made(x).detach().abs().max()) == 0  # a new classifier that says nothing yet
    with pytest.raises(ValueError, match="layer"):
        S.Tuned(net, 3, 2)
    with pytest.raises(ValueError, match="layers"):
        S.pretrain(stage, 16, 0, steps=1, layers=1)


def test_copies_are_independent_and_the_frozen_stay(stage):
    net = S.pretrain(stage, 8, 0, steps=1, pairs=8, layers=2)
    before = net.body[0].weight.clone()
    labels = stage.label_sets({2: 2}, 0)
    tuned = S.fine_tune(stage, net, labels, 0, steps=3)
    assert torch.equal(net.body[0].weight, before)
    assert not torch.allclose(tuned.body[0].weight[0], tuned.body[0].weight[1])
    frozen = S.fine_tune(stage, net, labels, 0, steps=3, layer=0, frozen=True)
    assert torch.equal(frozen.body[0].weight[0], before[0]) and frozen.head.weight.abs().sum() > 0
    assert torch.equal(frozen.body[1].running_mean[1], net.body[1].running_mean[0])
    student, was = S.Tuned(net, 1, 2), [p.clone() for p in tuned.parameters()]
    S.distil(stage, tuned, student, labels, 0, steps=2)
    S.distil(stage, tuned, student, labels, 0, steps=2, own=True)
    assert all(torch.equal(a, b) for a, b in zip(was, tuned.parameters(), strict=True))  # the teacher is frozen
