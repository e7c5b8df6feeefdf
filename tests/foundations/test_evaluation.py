"""The speed-run's parts against NumPy, loops, the SVD and torch's own optimisers."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Generator, nn

from labcode.data.synthetic import textures
from labcode.foundations import evaluation as E

SMALL = E.Recipe(widths=(8, 12), epochs=2, batch=18, translate=1)


def g(seed=0):
    return Generator().manual_seed(seed)


def images(n=40, c=3, size=8, seed=0):
    """Correlated images, so that whitening has something to do."""
    x = torch.randn(n, c, size, size, generator=g(seed), dtype=torch.float64)
    return x + 2 * x.roll(1, -1) + x.mean(1, keepdim=True)


def patches(x, size=2):
    """Every patch, by loops in NumPy, as rows in the order of a filter's weights."""
    x = x.numpy()
    places = [(i, j) for i in range(x.shape[2] - size + 1) for j in range(x.shape[3] - size + 1)]
    return np.stack([x[n, :, i : i + size, j : j + size].ravel() for n in range(len(x)) for i, j in places])


def test_patch_moments_are_numpys_covariance_of_centred_patches():
    x = images()
    rows = patches(x)
    np.testing.assert_allclose(E.patch_moments(x), rows.T @ rows / len(rows), rtol=1e-10)
    mean = rows.mean(0)
    covariance = np.cov(rows.T, bias=True)
    np.testing.assert_allclose(E.patch_moments(x).numpy() - np.outer(mean, mean), covariance, atol=1e-9)


@pytest.mark.parametrize("channels", [1, 3])
def test_whitened_patches_are_uncorrelated_with_unit_power_and_come_with_their_negatives(channels):
    x = images(c=channels)
    filters = E.whitening_filters(x, eps=0.0)
    k = 4 * channels
    assert filters.shape == (2 * k, channels, 2, 2)
    out = F.conv2d(x, filters[:k]).transpose(0, 1).flatten(1)
    torch.testing.assert_close(out @ out.T / out.shape[1], torch.eye(k, dtype=x.dtype), atol=1e-4, rtol=0)
    assert torch.equal(filters[k:], -filters[:k])
    assert (F.conv2d(x, filters[:k]) ** 2).mean() <= 1.0001
    rows = patches(x)
    values = np.linalg.eigvalsh(rows.T @ rows / len(rows))[::-1]
    np.testing.assert_allclose(filters[:k].flatten(1).norm(dim=1) ** -2, values, rtol=1e-4)  # largest first


def test_whitening_of_constant_images_is_finite_and_small():
    filters = E.whitening_filters(torch.zeros(3, 1, 4, 4))
    assert filters.isfinite().all() and float(filters.abs().max()) <= 5e-4**-0.5 + 1e-3


@pytest.mark.parametrize("k,c", [(5, 3), (3, 3), (2, 4)])
def test_dirac_copies_the_first_channels_and_leaves_the_rest(k, c):
    conv = nn.Conv2d(c, k, 3, padding="same", bias=False)
    before = conv.weight.detach().clone()
    E.dirac_(conv.weight)
    x, same = torch.randn(2, c, 6, 6, generator=g()), min(k, c)
    assert torch.equal(conv(x)[:, :same], x[:, :same])
    assert torch.equal(conv.weight[same:], before[same:])


def test_triangle_has_the_papers_values():
    steps = 100
    assert [E.triangle(s, steps) for s in (0, 23, 100)] == pytest.approx([0.2, 1.0, 0.07])
    wanted = np.interp(range(steps + 1), [0, 23, 100], [0.2, 1, 0.07])
    np.testing.assert_allclose([E.triangle(s, steps) for s in range(steps + 1)], wanted)
    assert E.triangle(0, 1) == 1.0  # no room to climb: begins at the top


@pytest.mark.parametrize("shape", [(6, 6), (5, 12), (12, 5), (1, 7)])
def test_newton_schulz_is_near_the_polar_factor_of_the_svd(shape):
    x = torch.randn(shape, generator=g(1), dtype=torch.float64)
    u, s, v = torch.linalg.svd(x, full_matrices=False)
    for steps in (0, 1, 5):
        wanted = s / s.norm()  # the quintic on the singular values, by the SVD
        for _ in range(steps):
            wanted = 3.4445 * wanted - 4.7750 * wanted**3 + 2.0315 * wanted**5
        torch.testing.assert_close(E.newton_schulz(x, steps), u @ torch.diag(wanted) @ v, atol=1e-6, rtol=0)
    there = E.newton_schulz(x, 5)
    polar = u @ v
    assert float((there * polar).sum() / there.norm() / polar.norm()) > 0.95
    torch.testing.assert_close(E.newton_schulz(1000 * x), there, atol=1e-5, rtol=0)  # the scale does not matter
    assert E.newton_schulz(torch.zeros(3, 4)).abs().max() == 0


def test_muon_agrees_with_torchs_on_a_matrix_whose_norm_is_held():
    """torch.optim.Muon in bfloat16, which never touches the norm, beside ours with the norm put back every step."""
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("torch.optim.Muon came with torch 2.9")
    start = torch.randn(8, 12, generator=g(2))
    start *= len(start) ** 0.5 / start.norm()
    a, b = nn.Parameter(start.clone()), nn.Parameter(start.clone().view(8, 3, 2, 2))
    theirs = torch.optim.Muon([a], lr=0.1, momentum=0.6, weight_decay=0.0, ns_steps=5)
    ours = E.Muon([b], lr=0.1, momentum=0.6, steps=5)
    for i in range(3):
        a.grad = torch.randn(8, 12, generator=g(10 + i))
        b.grad = (1 if i == 0 else 1.0) * a.grad.view_as(b)
        with torch.no_grad():
            a *= len(a) ** 0.5 / a.norm()
        a_before, b_before = a.detach().clone(), b.detach().clone()
        theirs.step()
        ours.step()
        torch.testing.assert_close(b_before.flatten(1), a_before, atol=0.1, rtol=0)
        x, y = (a - a_before).flatten(), (b - b_before * len(b) ** 0.5 / b_before.norm()).flatten()
        assert float(F.cosine_similarity(x.detach(), y.detach(), dim=0)) > 0.99


def test_muon_step_by_hand():
    w, grads = (
        torch.randn(4, 2, 3, 3, generator=g(), dtype=torch.float64),
        torch.randn(2, 4, 2, 3, 3, generator=g(1)).double(),
    )
    p = nn.Parameter(w.clone())
    muon, buffer = E.Muon([p], lr=0.3, momentum=0.5, steps=3), torch.zeros_like(w)
    for grad in grads:
        p.grad = grad
        muon.step()
        buffer = 0.5 * buffer + grad
        w = w * 2 / w.norm()
        w = w - 0.3 * E.newton_schulz((grad + 0.5 * buffer).reshape(4, 18), 3).view_as(w)
    torch.testing.assert_close(p.detach(), w)


def test_lookahead_is_the_loop():
    net = E.SpeedNet((4,), 1, 4, 3)
    start = {k: v.clone() for k, v in net.state_dict().items()}
    slow, look = dict(start), E.Lookahead(net)
    for i, decay in enumerate((0.3, 0.0, 0.9, 1.0)):
        with torch.no_grad():
            for t in net.state_dict().values():
                if t.is_floating_point():
                    t += torch.randn(t.shape, generator=g(i))
        fast = {k: v.clone() for k, v in net.state_dict().items()}
        look.update(decay)
        slow = {k: decay * slow[k] + (1 - decay) * fast[k] for k in slow if slow[k].is_floating_point()}
        for k, v in slow.items():
            torch.testing.assert_close(net.state_dict()[k], v)
    assert "blocks.0.norm1.running_mean" in slow
    assert E.Lookahead.decay(0, 10) == 0 and E.Lookahead.decay(10, 10) == pytest.approx(0.95**5)


@pytest.mark.parametrize("epoch", [0, 1, 4])
def test_alternating_flip_shows_both_sides_in_any_two_epochs(epoch):
    first = torch.rand(50, generator=g()) < 0.5
    one, two = (E.mirrored(first, e, "alternating", g(5)) for e in (epoch, epoch + 1))
    assert bool((one ^ two).all()) and bool(one.any()) and not bool(one.all())
    assert torch.equal(one, first if epoch % 2 == 0 else ~first)


def test_random_flip_tosses_every_epoch_and_none_never():
    first, coin = torch.zeros(4000, dtype=torch.bool), g(3)
    one, two = (E.mirrored(first, e, "random", coin) for e in (0, 1))
    assert abs(float((one ^ two).float().mean()) - 0.5) < 0.04 and abs(float(one.float().mean()) - 0.5) < 0.04
    assert not E.mirrored(~first, 1, "none", coin).any()


def test_shifted_cuts_and_mirrors_every_image_as_a_loop_does():
    x = torch.rand(5, 2, 6, 7, generator=g())
    padded = F.pad(x, (2,) * 4, "reflect")[:, :, :, :10]
    order, flipped = torch.tensor([4, 0, 2]), torch.tensor([True, False, False, True, True])
    offset = torch.tensor([[0, 4], [4, 0], [2, 2]])
    out = E.shifted(padded, order, flipped, offset, 6)
    for i, n in enumerate(order.tolist()):
        r, c = offset[i].tolist()
        wanted = padded[n, :, r : r + 6, c : c + 6]
        assert torch.equal(out[i], wanted.flip(-1) if flipped[n] else wanted)
    assert out.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_prediction_is_the_mean_of_explicit_crops(level):
    net, x = E.SpeedNet((4,), 1, 6, 3).eval(), torch.randn(7, 1, 6, 6, generator=g())
    padded = F.pad(x, (1,) * 4, "reflect")
    moved = [
        padded[:, :, r : r + 6, c : c + 6] for r, c in ((1, 1), (1, 1), (0, 0), (2, 2))
    ]  # in its place counts twice
    views = {0: [x], 1: [x, x.flip(3)], 2: [v for m in moved for v in (m, m.flip(3))]}[level]
    with torch.no_grad():
        wanted = torch.stack([net(v) for v in views]).mean(0)
    torch.testing.assert_close(E.predict(net, x, level, batch=3), wanted)
    assert sum(w for w, _ in E.test_views(x, level)) == 1


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
    assert {len(biases["params"]), len(weights["params"])} == {3, 4}  # one bias and two norms; four weights
    p, lr, decay = net.head.weight, weights["lr"], weights["weight_decay"]
    w, velocity = p.detach().clone(), 0.0
    for i in range(2):
        p.grad = torch.randn(p.shape, generator=g(i))
        d = p.grad + decay * w
        velocity = d if i == 0 else 0.85 * velocity + d
        w = w - lr * (d + 0.85 * velocity)
        optimiser.step()
    torch.testing.assert_close(p.detach(), w)


def test_muons_recipe_gives_each_layer_its_rate_and_schedule():
    net = E.SpeedNet((4, 4), 1, 8, 3, scale=None)
    net.whiten(images(20, 1).float())
    sgd, muon = E.optimisers_of(net, replace(E.MUON, batch=10), 20, 5)
    first, norms, head = sgd.param_groups
    assert [group["factor"](s) for group in (first, head) for s in (0, 5, 19)] == pytest.approx(
        [1, 0, 0, 1, 0.75, 0.05]
    )
    assert all(p.ndim == 4 and p is not net.first.weight for p in muon.param_groups[0]["params"])
    assert (first["lr"], norms["lr"], head["lr"], muon.param_groups[0]["lr"]) == (0.053, 0.053, 0.67, 0.24)
    assert float(net.head.weight.std()) == pytest.approx(1.0) and net.scale == 0.25


def test_the_network_of_the_paper_has_its_shapes():
    net = E.SpeedNet()
    assert net(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert [tuple(b.conv1.weight.shape[:2]) for b in net.blocks] == [(64, 24), (256, 64), (256, 256)]
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 6 and all(m.momentum == 0.4 and m.bias.requires_grad for m in norms)
    assert not any(m.weight.requires_grad for m in norms)


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
        monkeypatch.setattr(E, "shifted", lambda *a, calls=calls: calls.append(a[1:4]) or real(*a))
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


def test_training_leaves_the_callers_random_numbers_alone(speedrun):
    torch.manual_seed(7)
    wanted = torch.rand(3)
    torch.manual_seed(7)
    speedrun(1)
    assert torch.equal(torch.rand(3), wanted)


def test_a_dry_run_takes_as_many_steps_as_it_is_told(speedrun, monkeypatch):
    taken = []
    monkeypatch.setattr(E.Lookahead, "update", lambda self, decay: None)
    monkeypatch.setattr(E, "triangle", lambda step, steps: taken.append((step, steps)) or 0.1)
    monkeypatch.setenv("LABCODE_MAX_STEPS", "2")
    speedrun(0)
    assert taken == [(0, 2), (0, 2), (1, 2), (1, 2)]  # two groups


def test_patches_of_the_splits_come_from_blocks_of_their_own():
    """Every patch is found in its photograph, and its pixels belong to a block that no other split has."""
    photos, owner = textures(64), {}
    for split in ("fit", "validation", "test"):
        x, y = E.photo_patches(180, 0, split, 6, side=64)
        assert x.shape == (180, 1, 6, 6) and torch.bincount(y).tolist() == [20] * 9
        for patch, label in zip(x[:, 0], y.tolist(), strict=True):
            windows = photos[label].unfold(0, 6, 1).unfold(1, 6, 1)  # (59, 59, 6, 6)
            centred = windows - windows.mean((2, 3), keepdim=True)
            centred = 0.5 + 0.25 * centred / (windows.std((2, 3), keepdim=True) + 0.05)
            off = torch.minimum((centred - patch).abs().amax((2, 3)), (centred - patch.flip(1)).abs().amax((2, 3)))
            row, column = divmod(int(off.argmin()), 59)
            assert float(off.min()) < 1e-4
            assert row // 8 == (row + 5) // 8 and column // 8 == (column + 5) // 8
            assert owner.setdefault((label, row // 8, column // 8), split) == split
    a, b = E.photo_patches(30, 1)[0], E.photo_patches(30, 2)[0]
    assert not torch.equal(a, b) and torch.equal(a, E.photo_patches(30, 1)[0])


BAD = [
    (lambda: E.Recipe(flip="often"), "flip must be one of none, random, alternating, got 'often'"),
    (lambda: E.Recipe(first="fixed"), "first must be one of"),
    (lambda: E.Recipe(optimiser="adam"), "optimiser must be one of"),
    (lambda: E.Recipe(epochs=0), "epochs must be positive, got 0"),
    (lambda: E.Recipe(batch=0), "batch must be at least 1, got 0"),
    (lambda: E.Recipe(widths=()), "widths must name"),
    (lambda: E.Recipe(translate=-1), "translate must be at least 0, got -1"),
    (lambda: E.patch_moments(torch.zeros(2, 1, 1, 5)), "images must be at least as large as a patch of 2"),
    (lambda: E.SpeedNet((4, 4), 1, 4), "size must be at least 5 for 2 blocks, got 4"),
    (lambda: E.triangle(5, 4), "step must be in"),
    (lambda: E.triangle(0, 0), "step must be in"),
    (lambda: E.newton_schulz(torch.zeros(2, 2, 2)), "g must be a matrix"),
    (lambda: E.Muon([nn.Parameter(torch.zeros(2, 2))], lr=0), "lr must be positive, got 0"),
    (lambda: E.Muon([nn.Parameter(torch.zeros(2, 2))], momentum=1), "momentum must be in"),
    (lambda: E.Lookahead(nn.Linear(1, 1)).update(1.5), "decay must be in"),
    (lambda: E.mirrored(torch.zeros(2, dtype=torch.bool), 0, "both", g()), "flip must be one of"),
    (lambda: E.mirrored(torch.zeros(2, dtype=torch.bool), -1, "none", g()), "epoch must be at least 0, got -1"),
    (lambda: E.test_views(torch.zeros(1, 1, 4, 4), 3), "level must be 0, 1 or 2, got 3"),
    (lambda: E.photo_patches(9, split="dev"), "split must be one of"),
    (lambda: E.photo_patches(0), "n must be at least 1, got 0"),
    (lambda: E.photo_patches(9, size=40), "size must be in 1 … 32"),
]


@pytest.mark.bad_input
@pytest.mark.parametrize("call,message", BAD, ids=range(len(BAD)))
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        call()


@pytest.mark.bad_input
def test_errors_of_the_run_name_the_argument():
    x, y = torch.zeros(20, 1, 8, 8), torch.zeros(20, dtype=torch.int64)
    with pytest.raises(ValueError, match="labels must be one an image, 20, got 19"):
        E.SpeedRun(SMALL, x, y[1:], x, y)
    with pytest.raises(ValueError, match="images must fill a batch of 18, got 10"):
        E.SpeedRun(SMALL, x[:10], y[:10], x, y)


def test_decoupled_rates_do_not_depend_on_the_batch():
    """Half the batch: half the decay a step, the same rate for a sum: an epoch shrinks weights alike."""
    net = E.SpeedNet((4,), 1, 4, 3)
    shrink = {}
    for batch in (64, 128):
        group = E.optimisers_of(net, replace(SMALL, batch=batch), 10, 5)[0].param_groups[1]
        shrink[batch] = (1 - group["lr"] * group["weight_decay"]) ** (1024 // batch)
        assert math.isclose(group["lr"], 11.5 / (1024 * (1 + 1 / 0.15)))
    assert shrink[64] == pytest.approx(shrink[128], rel=1e-3)
