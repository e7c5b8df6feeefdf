"""UDA's consistency, annealing, noises and the theorem on the augmentation graph."""

import math

import pytest
import torch

import labcode as lab
from labcode.imperfect_labels import semi_supervised as S
from labcode.nets.stacked import StackedMLP


def logits(n=2, b=5, k=4, seed=0):
    return [2 * t for t in torch.randn(2, n, b, k, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))]


@pytest.mark.parametrize("temperature,threshold", [(0.4, 0.6), (1.0, 0.0), (2.0, 0.5)])
def test_consistency_is_the_loop(temperature, threshold):
    clean, changed = logits()
    left_out, found = 0, S.consistency(clean, changed, temperature, threshold)
    for i in range(2):
        want = 0.0
        for j in range(5):
            p = clean[i, j].softmax(0)
            if float(p.max()) <= threshold:
                left_out += 1
                continue
            target, q = (clean[i, j] / temperature).softmax(0), changed[i, j].softmax(0)
            want += sum(float(target[c] * (target[c].log() - q[c].log())) for c in range(4)) / 5
        assert float(found[i]) == pytest.approx(want, rel=1e-9)
    assert threshold == 0 or left_out  # the case is met


def test_networks_have_settings_of_their_own():
    clean, changed = logits()
    t, beta = torch.tensor([0.4, 1.0], dtype=torch.float64), torch.tensor([0.6, 0.0], dtype=torch.float64)
    both = S.consistency(clean, changed, t, beta)
    for i in range(2):
        alone = S.consistency(clean[i : i + 1], changed[i : i + 1], float(t[i]), float(beta[i]))
        assert float(both[i]) == pytest.approx(float(alone[0]))
    with pytest.raises(ValueError, match="temperature"):
        S.consistency(clean, changed, torch.ones(3))


def test_no_gradient_reaches_the_target():
    clean, changed = (t.requires_grad_() for t in logits())
    S.consistency(clean, changed, threshold=0.0).sum().backward()
    assert clean.grad is None
    want = (changed.softmax(-1) - (clean / 0.4).softmax(-1)).detach() / 5
    assert torch.allclose(changed.grad, want)
    assert torch.autograd.gradcheck(lambda q: S.consistency(clean.detach(), q, threshold=0.3), [changed])
    S.consistency(clean, changed, 0.4, 0.0, torch.tensor([True, False])).sum().backward()
    assert clean.grad[1].abs().sum() > 0 and clean.grad[0].abs().sum() == 0


def test_equal_predictions_cost_nothing_and_shifts_change_nothing():
    clean, changed = logits()
    assert float(S.consistency(clean, clean, 1.0, 0.0).abs().max()) < 1e-12
    assert torch.allclose(S.consistency(clean + 3, changed - 7), S.consistency(clean, changed))
    assert torch.isfinite(S.consistency(1e4 * clean, 1e4 * changed)).all()
    assert S.consistency(clean.half(), changed.half()).dtype == torch.float32
    assert S.consistency(clean[:, :1], changed[:, :1]).shape == (2,)
    with pytest.raises(ValueError, match="changed"):
        S.consistency(clean, changed[:, :2])


def test_annealing():
    assert S.tsa_threshold(0, "linear", 10) == pytest.approx(0.1) and S.tsa_threshold(1, "linear", 10) == 1
    assert S.tsa_threshold(0.5, "exp", 2) == pytest.approx(math.exp(-2.5) / 2 + 0.5)
    assert S.tsa_threshold(0.5, "log", 2) == pytest.approx((1 - math.exp(-2.5)) / 2 + 0.5)
    assert S.tsa_threshold(0.3, "none", 7) == pytest.approx(1)
    with pytest.raises(ValueError, match="schedule"):
        S.tsa_threshold(0.3, "cosine", 7)
    with pytest.raises(ValueError, match="progress"):
        S.tsa_threshold(1.3, "exp", 7)
    scores = logits()[0]
    y = torch.tensor([[0, 1, 2, 3, 0], [1, 1, 2, 0, 3]])
    p = scores.softmax(-1).gather(-1, y[..., None])[..., 0]
    found = S.annealed_cross_entropy(scores, y, 0.4)
    assert all(float(found[i]) == pytest.approx(float(-p[i][p[i] <= 0.4].log().mean())) for i in range(2))
    assert float(S.annealed_cross_entropy(scores, y, 0.0).abs().sum()) == 0  # nobody is left


def test_adversarial_noise_is_worse_than_random_of_its_size():
    g = torch.Generator().manual_seed(0)
    net = StackedMLP(3, [12, 16, 5], norm=False, generator=g)
    x = torch.randn(3, 20, 12, generator=g)
    clean = net(x)
    changed = S.adversarial_noise(net, x, clean, g)
    random = x + S.ADVERSARIAL * torch.nn.functional.normalize(torch.randn(x.shape, generator=g), dim=-1)
    assert torch.allclose((changed - x).norm(dim=-1), torch.full((3, 20), S.ADVERSARIAL), atol=1e-4)
    worse = S.consistency(clean, net(changed), 1.0, 0.0) > 1.5 * S.consistency(clean, net(random), 1.0, 0.0)
    assert worse.all() and all(p.grad is None for p in net.parameters())


def test_noises(monkeypatch):
    monkeypatch.setenv("LABCODE_SCALE", "quick")
    stage = S.Stage(lab.start("imperfect_labels/semi_supervised"))
    x = stage.pool.x[:40]
    for kind in S.KINDS:
        made = S.noised(stage, x, kind, stage.generator(0))
        assert made.shape == x.shape and not torch.equal(made, x)
    kept = (made == x).all(-1) | (made == x.flip(-1)).all(-1)
    assert kept.all()  # upside down, the last
    with pytest.raises(ValueError, match="kind"):
        S.noised(stage, x, "rain", stage.generator(0))


def test_parts_and_who_is_left_out():
    near = torch.zeros(6, 6, dtype=torch.bool)
    near[3, 0] = near[3, 4] = near[1, 5] = True
    assert S.parts(near).tolist() == [0, 1, 2, 0, 0, 1]
    shares = torch.tensor([0.5, 0.3, 0.2])
    want = 0.5 * 0.5**3 + 0.3 * 0.7**3 + 0.2 * 0.8**3
    assert float(S.unreached(shares, 3)) == pytest.approx(want, rel=1e-6)
    assert float(S.unreached(torch.ones(1), 1)) == 0 and float(S.unreached(shares, 0)) == pytest.approx(1)
    with pytest.raises(ValueError, match="shares"):
        S.unreached(2 * shares, 3)


def test_rank_correlation():
    assert S.rank_correlation([1, 2, 3], [0.1, 5, 9]) == pytest.approx(1)
    assert S.rank_correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
