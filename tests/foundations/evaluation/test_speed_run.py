"""The recipe: torch's own optimisers, equal seeds, what is frozen, and errors."""

import math
from dataclasses import replace

import pytest
import torch
from foundations.evaluation.helpers import g

from labcode.foundations import evaluation as E
from labcode.foundations.evaluation import speed_run

SMALL = E.Recipe(widths=(8, 12), epochs=2, batch=18, translate=1)


def images(n=40, c=3, size=8, seed=0):
    """Correlated images, so that whitening has something to do."""
    x = torch.randn(n, c, size, size, generator=g(seed), dtype=torch.float64)
    return x + 2 * x.roll(1, -1) + x.mean(1, keepdim=True)


def test_sgd_is_nesterov_with_the_decoupled_rates():
    """Two steps of the recipe's SGD against the formulas of Nesterov's momentum and of the rates."""
    net, r = E.SpeedNet((4,), 1, 4, 3), replace(SMALL, widths=(4,))
    (optimiser,) = E.optimisers_of(net, r, 10, 5)
    biases, weights = optimiser.param_groups
    each = 1024 * (1 + 1 / (1 - 0.85))
    assert weights["initial_lr"] == pytest.approx(11.5 / each)
    assert biases["initial_lr"] == pytest.approx(64 * 11.5 / each)
    for group in (biases, weights):
        assert group["weight_decay"] * group["initial_lr"] == pytest.approx(0.0153 * r.batch / each)
    assert [id(p) for p in biases["params"]] == [id(n.bias) for n in (net.blocks[0].norm1, net.blocks[0].norm2)]
    assert {id(net.first.bias), id(net.head.weight), id(net.first.weight)} < {id(p) for p in weights["params"]}
    p, lr, decay = net.head.weight, weights["lr"], weights["weight_decay"]
    w, velocity = p.detach().clone(), 0.0
    for i in range(2):
        p.grad = torch.randn(p.shape, generator=g(i))
        d = p.grad + decay * w
        velocity = d if i == 0 else 0.85 * velocity + d
        w = w - lr * (d + 0.85 * velocity)
        optimiser.step()
    torch.testing.assert_close(p.detach(), w)


@pytest.fixture(scope="module")
def speedrun():
    x, y = E.photo_patches(54, 1, "fit", 8)
    xt, yt = E.photo_patches(36, 1, "validation", 8)
    return E.SpeedRun(SMALL, x, y, xt, yt, 9)


def test_equal_seeds_give_equal_runs_and_the_flip_is_all_that_differs(speedrun, monkeypatch):
    first = speedrun(3)
    weights = [p.clone() for p in speedrun.net.parameters()]
    again = speedrun(3)
    assert (first.plain, first.mirror, first.tta) == (again.plain, again.mirror, again.tta)
    assert all(torch.equal(a, b) for a, b in zip(weights, speedrun.net.parameters(), strict=True))
    seen = {}
    real = E.shifted
    for flip in ("none", "alternating"):
        calls = seen.setdefault(flip, [])
        monkeypatch.setattr(speed_run, "shifted", lambda *a, calls=calls: calls.append(a[1:4]) or real(*a))
        speedrun(3, flip)
    for a, b in zip(seen["none"], seen["alternating"], strict=True):
        assert torch.equal(a[0], b[0]) and torch.equal(a[2], b[2]) and not torch.equal(a[1], b[1])
    assert torch.equal(seen["alternating"][0][1], ~seen["alternating"][1][1])  # epoch after epoch


def test_the_first_layer_is_frozen_or_learned_as_the_recipe_says(speedrun):
    speedrun(4)
    x = speedrun.images
    torch.testing.assert_close(speedrun.net.first.weight.detach(), E.whitening_filters(x))
    assert not speedrun.net.first.bias.requires_grad and speedrun.net.first.bias.abs().sum() > 0
    learned = E.SpeedRun(replace(SMALL, first="learned"), x, speedrun.labels, x, speedrun.labels, 9)
    start = learned._fresh(4).first.weight.detach().clone()
    learned(4)
    assert not torch.allclose(learned.net.first.weight.detach(), start, atol=1e-3)


def test_the_first_bias_starts_at_zero_with_sgd_and_as_torch_does_with_muon(speedrun):
    """As in the authors' airbench94 and in their Muon version; all other weights are drawn alike."""
    sgd, muon = speedrun._fresh(3), E.SpeedRun(
        replace(E.MUON, widths=(8, 12), batch=18), speedrun.images, speedrun.labels, speedrun.images, speedrun.labels, 9
    )._fresh(3)
    assert not sgd.first.bias.any() and muon.first.bias.abs().min() > 0
    assert torch.equal(sgd.first.weight, muon.first.weight)
    assert torch.equal(sgd.blocks[0].conv1.weight, muon.blocks[0].conv1.weight)


@pytest.mark.bad_input
def test_labels_that_are_no_class_and_images_that_are_not_finite_are_named(speedrun):
    x, y = speedrun.images, speedrun.labels
    odd = x.clone()
    odd[0, 0, 0, 0] = float("nan")
    for args, message in [
        ((x, y + 1, x, y), "labels must lie in 0 … 8, got 1 … 9"),
        ((x, y, x, y - 1), "test_labels must lie in 0 … 8, got -1 … 7"),
        ((odd, y, x, y), "images must be finite"),
        ((x, y, odd, y), "test_images must be finite"),
    ]:
        with pytest.raises(ValueError, match="^" + message):
            E.SpeedRun(SMALL, *args, 9)


def test_training_leaves_the_callers_random_numbers_alone(speedrun):
    torch.manual_seed(7)
    wanted = torch.rand(3)
    torch.manual_seed(7)
    speedrun(1)
    assert torch.equal(torch.rand(3), wanted)


def test_a_dry_run_takes_as_many_steps_as_it_is_told(speedrun, monkeypatch):
    taken = []
    monkeypatch.setattr(E.Lookahead, "update", lambda self, decay: None)
    monkeypatch.setattr(speed_run, "triangle", lambda step, steps: taken.append((step, steps)) or 0.1)
    monkeypatch.setenv("LABCODE_MAX_STEPS", "2")
    speedrun(0)
    assert taken == [(0, 2), (0, 2), (1, 2), (1, 2)]  # two groups


def test_decoupled_rates_do_not_depend_on_the_batch():
    """Half the batch: half the decay a step, the same rate for a sum: an epoch shrinks weights alike."""
    net = E.SpeedNet((4,), 1, 4, 3)
    shrink = {}
    for batch in (64, 128):
        group = E.optimisers_of(net, replace(SMALL, batch=batch), 10, 5)[0].param_groups[1]
        shrink[batch] = (1 - group["lr"] * group["weight_decay"]) ** (1024 // batch)
        assert math.isclose(group["lr"], 11.5 / (1024 * (1 + 1 / 0.15)))
    assert shrink[64] == pytest.approx(shrink[128], rel=1e-3)


BAD = [
    (lambda: E.Recipe(flip="often"), "flip must be one of none, random, alternating, got 'often'"),
    (lambda: E.Recipe(first="fixed"), "first must be one of"),
    (lambda: E.Recipe(optimiser="adam"), "optimiser must be one of"),
    (lambda: E.Recipe(epochs=0), "epochs must be positive, got 0"),
    (lambda: E.Recipe(batch=0), "batch must be at least 1, got 0"),
    (lambda: E.Recipe(widths=()), "widths must name"),
    (lambda: E.Recipe(translate=-1), "translate must be at least 0, got -1"),
]


@pytest.mark.bad_input
@pytest.mark.parametrize("call,message", BAD, ids=range(len(BAD)))
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError) as raised:
        call()
    assert message in str(raised.value)


@pytest.mark.bad_input
def test_errors_of_the_run_name_the_argument():
    x, y = torch.zeros(20, 1, 8, 8), torch.zeros(20, dtype=torch.int64)
    with pytest.raises(ValueError, match="labels must be one an image, 20, got 19"):
        E.SpeedRun(SMALL, x, y[1:], x, y)
    with pytest.raises(ValueError, match="images must fill a batch of 18, got 10"):
        E.SpeedRun(SMALL, x[:10], y[:10], x, y)


@pytest.mark.bad_input
def test_images_without_a_batch_are_named_with_their_shape(speedrun):
    x, y = speedrun.images, speedrun.labels
    with pytest.raises(ValueError, match=r"^images must be \(n, c, h, w\), got shape \(3, 32, 32\)"):
        E.SpeedRun(SMALL, torch.rand(3, 32, 32), y[:3], x, y, 9)
    with pytest.raises(ValueError, match=r"^test_images must be \(n, c, h, w\), got shape \(3, 32, 32\)"):
        E.SpeedRun(SMALL, x, y, torch.rand(3, 32, 32), y[:3], 9)
