"""Soft pseudo-labels: the loss, its regularisers, and the training's bookkeeping."""

import pytest
import torch

import labcode as lab
from labcode.imperfect_labels import semi_supervised as S


def test_terms_are_the_loops():
    z = torch.randn(2, 6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for i in range(2):
        p = z[i].softmax(-1)
        assert float(S.prior_term(z)[i]) == pytest.approx(float(-(p.mean(0).log() / 3).sum()))
        assert float(S.entropy_term(z)[i]) == pytest.approx(float(-(p * p.log()).sum() / 6))


def test_uniform_mean_is_the_least_prior_term_and_sure_predictions_have_no_entropy():
    eye = 50 * torch.eye(3, dtype=torch.float64)[None]
    assert float(S.prior_term(eye)) == pytest.approx(float(torch.tensor(3.0).log()), rel=1e-6)
    assert float(S.entropy_term(eye)) < 1e-12
    one = eye[:, :1].expand(1, 3, 3)
    assert 30 < float(S.prior_term(one)) < float("inf") and torch.isfinite(S.prior_term(100 * one.half())).all()


def test_mixed_targets_are_mixed_losses():
    g = torch.Generator().manual_seed(1)
    z = torch.randn(1, 4, 3, dtype=torch.float64, generator=g, requires_grad=True)
    a, b = torch.rand(2, 1, 4, 3, dtype=torch.float64, generator=g).softmax(-1).unbind()

    def loss(t):
        return float(S.mixed_loss(z.detach(), t, 0.0, 0.0))

    assert loss(0.3 * a + 0.7 * b) == pytest.approx(0.3 * loss(a) + 0.7 * loss(b))
    whole, fixed = float(S.mixed_loss(z.detach(), a)), z.detach()
    assert whole == pytest.approx(loss(a) + 0.8 * float(S.prior_term(fixed)) + 0.4 * float(S.entropy_term(fixed)))
    assert torch.autograd.gradcheck(lambda z: S.mixed_loss(z, a), [z])
    with pytest.raises(ValueError, match="target"):
        S.mixed_loss(z, a[:, :2])


def test_training_keeps_true_labels_and_tells_of_the_rest(monkeypatch):
    monkeypatch.setenv("LABCODE_SCALE", "quick")
    stage = S.Stage(lab.start("imperfect_labels/semi_supervised")).subset(200, weak=True)
    labels = stage.label_sets({2: 1}, 0)
    arms = [S.WAYS["naive"], S.WAYS["both"]]
    net, told = S.learn_soft(stage, labels.repeat(2), arms, 0, steps=10, every=4)
    assert told.accuracy.shape == (3, 2)  # two relabellings in training, one after
    for value in (told.accuracy, told.confirmed, told.belief, told.largest):
        assert ((value >= 0) & (value <= 1)).all()
    assert not net.training
    with pytest.raises(ValueError, match="arms"):
        S.learn_soft(stage, labels, arms, 0, steps=1)
    with pytest.raises(ValueError, match="least"):
        S.learn_soft(stage, labels, [S.Soft(least=65)], 0, steps=1)


def test_two_moons_stand_apart():
    x, y = S.two_moons(400, 0, spread=0.0)
    apart = torch.cdist(x[y == 0], x[y == 1]).min()
    assert x.shape == (400, 2) and y.bincount().tolist() == [200, 200] and float(apart) > 0.4
    assert torch.allclose((x[y == 0] - torch.tensor([-0.5, -0.25])).norm(dim=1), torch.ones(200), atol=1e-5)
