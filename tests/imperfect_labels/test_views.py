import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage, stats

from labcode.imperfect_labels.images import digits
from labcode.imperfect_labels.views import mix, mixing, mixup, strong, weak

SIDE = 6
STILL = dict(shift=0, degrees=0, scale=0, cutout=0)


def g(seed=0):
    return torch.Generator().manual_seed(seed)


def test_weak_views_are_all_the_whole_shifts():
    x = torch.rand(SIDE * SIDE, generator=g(1)) + 0.1
    padded = np.pad(x.view(SIDE, SIDE).numpy(), 2)
    wanted = {padded[i : i + SIDE, j : j + SIDE].tobytes(): 0 for i in range(5) for j in range(5)}
    for row in weak(x.expand(5000, -1), generator=g(), shift=2):
        wanted[row.numpy().tobytes()] += 1  # a KeyError for anything else
    assert stats.chisquare(list(wanted.values())).pvalue > 0.001
    assert torch.equal(weak(x, generator=g(), shift=0), x)
    moved = weak(torch.ones(200, SIDE * SIDE), generator=g()).view(-1, SIDE, SIDE)
    assert (moved[:, 1:-1, 1:-1] == 1).all() and (moved == 0).any()


def by_hand(picture, rows, columns, degrees, factor):
    """The picture turned and scaled about its middle, then moved, sampled bilinearly by SciPy."""
    angle, middle = math.radians(degrees), (len(picture) - 1) / 2
    back = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]) / factor  # row, column
    offset = middle - back @ (np.array([rows, columns]) + middle)
    return ndimage.affine_transform(np.pad(picture, 9), back, offset + 9 - back @ [9, 9], order=1)[9:-9, 9:-9]


def test_strong_views_move_turn_and_scale_as_said():
    x = digits("test", 14)[0][:6].double()
    u = torch.rand(4, 6, generator=g()) * 2 - 1
    for options in (dict(shift=2.0), dict(degrees=30), dict(scale=0.2), dict(shift=1.5, degrees=25, scale=0.3)):
        made = STILL | options
        found = strong(x, generator=g(), **made).view(6, 14, 14)
        for i in range(6):
            wanted = by_hand(
                x[i].view(14, 14).numpy(),
                float(u[3, i]) * made["shift"],
                float(u[2, i]) * made["shift"],
                float(u[0, i]) * made["degrees"],
                (1 + made["scale"]) ** float(u[1, i]),
            )
            np.testing.assert_allclose(found[i].numpy(), wanted, atol=1e-5)
    assert torch.equal(strong(x, generator=g(), **STILL), x)


def test_cutout_blanks_one_square_anywhere():
    x = torch.ones(3000, SIDE * SIDE)
    blank = strong(x, generator=g(), **STILL | dict(cutout=3)).view(-1, SIDE, SIDE) == 0
    assert torch.equal(blank, blank.any(2)[:, :, None] & blank.any(1)[:, None])  # a rectangle
    assert (x == 1).all()  # not in place
    sides = blank.any(2).sum(1).bincount()
    assert sides[:2].sum() == 0 and len(sides) == 4  # 3, or 2 where it sticks out
    assert float(sides[2] / sides.sum()) == pytest.approx(2 / SIDE, abs=0.03)
    assert (blank.double().mean(0)[1:-1, 1:-1] - 0.25).abs().max() < 0.03  # (3 / 6)² inside
    whole = strong(x[:5], generator=g(), **STILL | dict(cutout=2 * SIDE + 1))
    assert not whole.any()


@pytest.mark.parametrize("view", [weak, strong])
def test_views_of_any_leading_shape_have_own_draws(view):
    x = digits("test", 14)[0][:24]
    flat = view(x, generator=g())
    assert torch.equal(view(x.view(2, 3, 4, 196), generator=g()).view(24, 196), flat)
    assert not torch.equal(flat, view(x, generator=g(1))) and 0 <= flat.min() and flat.max() <= 1
    assert view(x[:0], generator=g()).shape == (0, 196)
    assert view(x[0], generator=g()).shape == (196,)
    assert len(view(x[:1].expand(50, -1), generator=g()).unique(dim=0)) > 8
    assert view(x.half(), generator=g()).dtype == torch.float16
    assert torch.equal(x, digits("test", 14)[0][:24])  # left as it was
    smooth = x[:2].clone().requires_grad_()
    view(smooth, generator=g()).sum().backward()
    assert smooth.grad.abs().sum() > 0


def test_mixing_draws_a_beta_share_and_a_permutation_for_each_network():
    for alpha in (0.3, 1.0, 4.0):
        share, partner = mixing(4000, 2, alpha, generator=g())
        assert share.shape == (4000, 1) and stats.kstest(share[:, 0], stats.beta(alpha, alpha).cdf).pvalue > 0.01
        most, again = mixing(4000, 2, alpha, generator=g(), first=True)
        assert torch.equal(most, torch.maximum(share, 1 - share)) and torch.equal(partner, again)
    assert torch.equal(partner.sort(1).values, torch.arange(2).expand(4000, -1))
    assert float(partner[:, 0].double().mean()) == pytest.approx(0.5, abs=0.03)
    share, _ = mixing(500, 1, 1e-5, generator=g())
    assert ((share == 0) | (share == 1)).all() and float(share.mean()) == pytest.approx(0.5, abs=0.1)


def test_mixup_mixes_samples_and_targets_alike():
    x, y = torch.randn(3, 5, 2, 4, generator=g(1)).double(), torch.randint(6, (3, 5), generator=g(2))
    mixed, soft = mixup(x, F.one_hot(y, 6).double(), 0.7, generator=g())
    share, partner = mixing(3, 5, 0.7, generator=g())
    for i in range(3):
        lam = float(share[i, 0])
        for j in range(5):
            k = int(partner[i, j])
            torch.testing.assert_close(mixed[i, j], lam * x[i, j] + (1 - lam) * x[i, k], rtol=0, atol=1e-7)
            wanted = torch.zeros(6).double()
            wanted[y[i, j]] += lam
            wanted[y[i, k]] += 1 - lam
            torch.testing.assert_close(soft[i, j], wanted, rtol=0, atol=1e-7)
    own = torch.rand(3, 5, generator=g(3)).double()
    other = x.gather(1, partner[:, :, None, None].expand_as(x))
    torch.testing.assert_close(mix(x, own, partner), own[..., None, None] * x + (1 - own[..., None, None]) * other)


ROWS = torch.ones(2, 3, 9)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    "work, words",
    [
        (lambda: weak(torch.ones(2, 10), generator=g()), "x must have a square number of pixels a row, got 10"),
        (lambda: weak(ROWS.long(), generator=g()), "x must be rows of floating-point pixels, got torch.int64"),
        (lambda: weak(ROWS, generator=None), "generator must be a torch.Generator on cpu, got None"),
        (lambda: weak(ROWS, generator=g(), shift=4), "shift must be .* 0 … 3, got 4"),
        (lambda: weak(ROWS, generator=g(), shift=0.5), "shift must be .* got 0.5"),
        (lambda: strong(ROWS, generator=g(), degrees=-1), "degrees must be at least 0, got -1"),
        (lambda: strong(ROWS, generator=g(), cutout=-1), "cutout must be at least 0, got -1"),
        (lambda: strong(ROWS, generator=g(), scale=math.inf), "scale must be at least 0, got inf"),
        (lambda: mixing(0, 3, 1.0, generator=g()), "n and batch must be at least 1, got 0 and 3"),
        (lambda: mixing(1, 3, 0, generator=g()), "alpha must be positive, got 0"),
        (lambda: mixup(ROWS, torch.zeros(2, 3).long(), 1, generator=g()), r"y must be .* got \(2, 3\) of torch.int64"),
        (lambda: mix(ROWS, torch.ones(2, 1), torch.zeros(2, 4).long()), r"partner its first two sizes, .* \(2, 4\)"),
        (lambda: mix(ROWS, torch.ones(2), torch.zeros(2, 3).long()), r"share must be \(2, 1\) or \(2, 3\), got \(2,\)"),
    ],
)
def test_bad_input_is_named(work, words):
    with pytest.raises(ValueError, match=words):
        work()
