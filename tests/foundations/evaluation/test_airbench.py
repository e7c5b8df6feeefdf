"""airbench's parts against NumPy, loops and explicit crops."""


import numpy as np
import pytest
import torch
import torch.nn.functional as F
from foundations.evaluation.helpers import g
from torch import nn

from labcode.foundations import evaluation as E


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


def test_blocks_start_as_the_identity_or_at_random():
    torch.manual_seed(0)
    whole, random = E.SpeedNet((4,), 1, 4, 3), E.SpeedNet((4,), 1, 4, 3, identity=False)
    made = [net.blocks[0].conv2.weight for net in (whole, random)]
    copies = torch.zeros(4, 4, 3, 3)
    copies[range(4), range(4), 1, 1] = 1
    assert torch.equal(made[0], copies) and int((made[1] == 0).sum()) == 0


def test_triangle_has_the_papers_values():
    steps = 100
    assert [E.triangle(s, steps) for s in (0, 23, 100)] == pytest.approx([0.2, 1.0, 0.07])
    wanted = np.interp(range(steps + 1), [0, 23, 100], [0.2, 1, 0.07])
    np.testing.assert_allclose([E.triangle(s, steps) for s in range(steps + 1)], wanted)
    assert E.triangle(0, 1) == 1.0  # no room to climb: begins at the top


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


def test_the_network_of_the_paper_has_its_shapes():
    net = E.SpeedNet()
    assert net(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert [tuple(b.conv1.weight.shape[:2]) for b in net.blocks] == [(64, 24), (256, 64), (256, 256)]
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 6 and all(m.momentum == 0.4 and m.bias.requires_grad for m in norms)
    assert not any(m.weight.requires_grad for m in norms)


BAD = [
    (lambda: E.patch_moments(torch.zeros(2, 1, 1, 5)), "images must be at least as large as a patch of 2"),
    (lambda: E.SpeedNet((4, 4), 1, 4), "size must be at least 5 for 2 blocks, got 4"),
    (lambda: E.triangle(5, 4), "step must be in"),
    (lambda: E.triangle(0, 0), "step must be in"),
    (lambda: E.Lookahead(nn.Linear(1, 1)).update(1.5), "decay must be in"),
    (lambda: E.mirrored(torch.zeros(2, dtype=torch.bool), 0, "both", g()), "flip must be one of"),
    (lambda: E.mirrored(torch.zeros(2, dtype=torch.bool), -1, "none", g()), "epoch must be at least 0, got -1"),
    (lambda: E.test_views(torch.zeros(1, 1, 4, 4), 3), "level must be 0, 1 or 2, got 3"),
]


@pytest.mark.bad_input
@pytest.mark.parametrize("call,message", BAD, ids=range(len(BAD)))
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError) as raised:
        call()
    assert message in str(raised.value)


def test_prediction_is_in_evaluation_mode_whatever_the_nets_and_moves_no_statistics():
    torch.manual_seed(0)
    net, x = E.SpeedNet((4,), 1, 8, 3), torch.rand(10, 1, 8, 8, generator=g())
    net.train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    found = E.predict(net, x, batch=3)
    assert net.training and all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert torch.allclose(found, E.predict(net.eval(), x), atol=1e-6) and not net.training


@pytest.mark.bad_input
def test_images_that_are_not_finite_are_refused_by_name():
    x = torch.rand(3, 1, 4, 4, generator=g())
    x[1, 0, 2, 2] = float("inf")
    with pytest.raises(ValueError, match="images must be finite"):
        E.whitening_filters(x)


def test_all_levels_at_once_are_each_level_alone_and_see_every_view_once():
    torch.manual_seed(0)
    net, x, seen = E.SpeedNet((4,), 1, 8, 3).eval(), torch.rand(5, 1, 8, 8, generator=g()), []
    found = E.predictions_by_level(lambda v: seen.append(len(v)) or net(v), x, batch=5)
    assert seen == [5] * 6
    for level, said in enumerate(found):
        wanted = sum(w * net(v) for w, v in E.test_views(x, level))
        assert torch.allclose(said, wanted, atol=1e-6) and torch.equal(E.predict(net, x, level), said)
