"""UnMixMatch: soft labels, mixing with unlabelled partners, contrast of views, turns, statistics."""

import math

import pytest
import torch

from labcode.imperfect_labels.semi_supervised import unmixmatch as U
from labcode.imperfect_labels.semi_supervised.stage import Stage
from labcode.nets.stacked import StackedMLP
from labcode.self_supervision.contrastive import nt_xent


def drawn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_soft_labels_are_aligned_then_sharpened():
    p, r = drawn(2, 4, 3).softmax(-1), drawn(2, 3, seed=1).softmax(-1)
    got = U.soft_labels(p, r, 0.5)
    for n in range(2):
        for i in range(4):
            aligned = [float(p[n, i, c]) / 3 / float(r[n, c]) for c in range(3)]
            aligned = [a / sum(aligned) for a in aligned]
            sharp = [a**2 for a in aligned]
            for c in range(3):
                assert float(got[n, i, c]) == pytest.approx(sharp[c] / sum(sharp), abs=1e-9)
    uniform = torch.full((2, 3), 1 / 3, dtype=torch.float64)
    assert torch.allclose(U.soft_labels(p, uniform, 1.0), p), "nothing to align, nothing to sharpen"
    assert torch.allclose(U.soft_labels(p, p.mean(1), 1.0).argmax(-1), U.soft_labels(p, p.mean(1), 0.1).argmax(-1))
    assert torch.allclose(U.soft_labels(r[:, None], r, 0.5), torch.full((2, 1, 3), 1 / 3, dtype=torch.float64))
    assert U.soft_labels(torch.tensor([[[1.0, 0.0]]]), torch.tensor([[0.5, 0.5]])).tolist() == [[[1, 0]]]
    assert not U.soft_labels(p.requires_grad_(), r).requires_grad
    with pytest.raises(ValueError, match="temperature"):
        U.soft_labels(p, r, 0.0)
    with pytest.raises(ValueError, match="running"):
        U.soft_labels(p, r[:1])


def test_labelled_images_are_mixed_with_any():
    x, others = drawn(2, 3, 4), drawn(2, 5, 4, seed=1)
    y, soft = torch.eye(3, dtype=torch.float64).expand(2, 3, 3), drawn(2, 5, 3, seed=2).softmax(-1)
    share = torch.tensor([[0.8], [0.5]], dtype=torch.float64)
    partner = torch.tensor([[0, 7, 2], [4, 3, 1]])
    mixed, target = U.rand_mixup(x, y, others, soft, share, partner)
    for n in range(2):
        for i in range(3):
            j, s = int(partner[n, i]), float(share[n, 0])
            image, label = (x[n, j], y[n, j]) if j < 3 else (others[n, j - 3], soft[n, j - 3])
            assert torch.allclose(mixed[n, i], s * x[n, i] + (1 - s) * image)
            assert torch.allclose(target[n, i], s * y[n, i] + (1 - s) * label)
    same, own = U.rand_mixup(x, y, others, soft, torch.ones(2, 1), partner)
    assert torch.allclose(same, x) and torch.allclose(own, y), "a share of one changes nothing"
    alone, _ = U.rand_mixup(x, y, others[:, :0], soft[:, :0], share, partner % 3)
    assert alone.shape == x.shape
    with pytest.raises(ValueError, match="partner"):
        U.rand_mixup(x, y, others, soft, share, partner + 1)
    with pytest.raises(ValueError, match="partner"):
        U.rand_mixup(x, y, others, soft, share, partner[:, :2])


def test_contrast_against_a_loop_and_simclr():
    z = drawn(2, 3, 4, 5)
    total = 0.0
    for n in range(2):
        rows = [z[n, v, i] / z[n, v, i].norm() for v in range(3) for i in range(4)]
        for a in range(12):
            under = sum(math.exp(float(rows[a] @ rows[c]) / 0.5) for c in range(12) if c != a)
            others = [c for c in range(12) if c != a and c % 4 == a % 4]
            total -= sum(float(rows[a] @ rows[c]) / 0.5 - math.log(under) for c in others) / len(others) / 12
    assert float(U.view_contrast(z)) == pytest.approx(total, abs=1e-9)
    two = z[:1, :2]
    assert float(U.view_contrast(two, 0.3)) == pytest.approx(float(nt_xent(two[0].flatten(0, 1), 0.3)), abs=1e-9)
    assert float(U.view_contrast(3 * z)) == pytest.approx(total), "lengths do not matter"
    weighted = float(U.view_contrast(z, weights=torch.tensor([0.0, 2.0])))
    assert weighted == pytest.approx(2 * float(U.view_contrast(z[1:])))
    assert float(U.view_contrast(torch.ones(1, 2, 4, 3))) == pytest.approx(math.log(7)), "all alike"
    assert not U.view_contrast(torch.zeros(1, 2, 4, 3)).isnan()
    assert torch.autograd.gradcheck(U.view_contrast, drawn(1, 2, 3, 4).requires_grad_())
    assert U.view_contrast(z.half()).dtype == torch.float32
    assert float(U.view_contrast(z, 0.001)) > 0
    for wrong in (z[:, :1], z[:, :, :1]):
        with pytest.raises(ValueError, match="z"):
            U.view_contrast(wrong)
    with pytest.raises(ValueError, match="tau"):
        U.view_contrast(z, 0.0)


def test_turns_are_rot90():
    x = drawn(2, 4, 3 * 25)
    turns = torch.tensor([[0, 1, 2, 3], [3, 3, 1, 0]])
    got = U.turned(x, turns, 3)
    for n in range(2):
        for i in range(4):
            want = x[n, i].view(3, 5, 5).rot90(int(turns[n, i]), (1, 2))
            assert torch.equal(got[n, i].view(3, 5, 5), want)
    assert torch.equal(U.turned(got, -turns, 3), x), "and back"
    assert U.turned(x[:, :0], turns[:, :0], 3).shape == (2, 0, 75)
    with pytest.raises(ValueError, match="turn"):
        U.turned(x, turns, 2)


def test_statistics_are_left_alone():
    net = StackedMLP(2, [4, 3, 2], generator=torch.Generator().manual_seed(0)).train()
    x = torch.randn(2, 8, 4)
    norm = net.body[1]
    before = norm.running_mean.clone()
    with U.frozen_statistics(net):
        inside = net(x)
        assert not torch.equal(norm.running_mean, before), "a copy is moved"
    assert torch.equal(norm.running_mean, before)
    assert torch.equal(net(x), inside), "the batch's own statistics were used"
    assert not torch.equal(norm.running_mean, before)
    with pytest.raises(RuntimeError), U.frozen_statistics(net):
        before = norm.running_mean.clone()
        net(x + 5)
        raise RuntimeError
    inside.sum().backward()


def method_of(arms, draws=1):
    heads = U.Heads(len(arms) * draws, 3, generator=torch.Generator().manual_seed(0))
    each = [a for a in arms for _ in range(draws)]
    return U.UnMixMatch(each, heads, draws, torch.arange(draws).repeat(len(arms)), 2)


def test_partners_by_arm():
    method = method_of([U.UnMixArm(), U.UnMixArm("labelled"), U.UnMixArm("nobody")], draws=2)
    g = torch.Generator().manual_seed(0)
    share, partner = method.partners(6, 8, 80, g)
    assert (share[4:] == 1).all() and torch.equal(share[:2], share[2:4]) and (share >= 0.5).all()
    assert partner[2:].max() < 8 and (partner[2:].sort(1).values == torch.arange(8)).all()
    assert partner[:2].max() >= 8


def test_the_running_mean_takes_overweight_classes_down():
    method = method_of([U.UnMixArm()])
    method.momentum = 0.0
    logits = torch.tensor([[[3.0, 0.0], [2.0, 0.0], [2.5, 0.0]]])
    soft = method.guess(torch.nn.Identity(), logits)
    assert torch.allclose(method.running, logits.softmax(-1).mean(1))
    assert 0 < float(soft[0, :, 0].mean()) < 0.6, "all were class 0 before"
    with pytest.raises(ValueError, match="weak"):
        method_of([U.UnMixArm(), U.UnMixArm(weak=True)])


def test_pools_have_the_share_that_was_asked_for():
    x = torch.arange(50.0)[:, None]
    bank = U.Bank(Stage.__new__(Stage), 30, x)
    for share in (0.0, 0.3, 1.0):
        places = bank.pool(share, 20, 5)
        assert len(places) == 20 and int((places >= 30).sum()) == round(20 * share)
    few = bank.pool(0.5, 20, 5, different=4)
    assert len(few.unique()) == 4 and int((few.unique() >= 30).sum()) == 2
    assert torch.equal(bank.pool(0.3, 20, 5), bank.pool(0.3, 20, 5)) and int(bank.pool(0.0, 64, 5).max()) < 30
