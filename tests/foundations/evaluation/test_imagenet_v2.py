"""New test sets, fits and the climbing analyst against loops, NumPy and the libraries."""

import math
import statistics
from statistics import NormalDist

import numpy as np
import pytest
import torch
from torch import Generator

from labcode.foundations import evaluation as E


def g(seed=0):
    return Generator().manual_seed(seed)


def outcomes(models=6, samples=12, seed=0):
    skill, ease = torch.rand(models, 1, generator=g(seed)), torch.rand(1, samples, generator=g(seed + 1))
    return torch.rand(models, samples, generator=g(seed + 2)) < (skill + ease) / 2


def test_probit_and_line_are_the_libraries():
    accuracy = torch.tensor([0.1, 0.5, 0.93])
    normal = NormalDist()
    assert E.probit(accuracy, 1000).tolist() == pytest.approx([normal.inv_cdf(a) for a in accuracy.tolist()], abs=1e-6)
    assert E.probit(torch.tensor([0.0, 1.0]), 50).tolist() == pytest.approx([normal.inv_cdf(p) for p in (0.01, 0.99)])
    x, y = torch.rand(2, 20, generator=g(), dtype=torch.float64)
    slope, shift, r2 = E.fitted_line(x, y)
    assert (slope, shift) == pytest.approx(tuple(np.polyfit(x, y, 1)))
    assert r2 == pytest.approx(np.corrcoef(x, y)[0, 1] ** 2)
    assert E.fitted_line(x, 3 * x - 1) == pytest.approx((3, -1, 1))


def test_resampling_follows_the_frequency():
    frequency = torch.tensor([0.0] * 50 + [0.25] * 500 + [1.0] * 500)
    shares = {}
    for kappa in (0.0, 1.0, 8.0):
        drawn = [E.resampled(frequency, 20, kappa, g(s)) for s in range(200)]
        assert all(len(set(d.tolist())) == 20 and bool((d >= 50).all()) for d in drawn)
        shares[kappa] = float(torch.cat([frequency[d] == 1 for d in drawn]).double().mean())
    assert shares[0.0] == pytest.approx(0.5, abs=0.03) and shares[1.0] == pytest.approx(0.8, abs=0.03)
    assert shares[8.0] > 0.999


def test_new_test_sets_share_no_image_with_the_old_one():
    said, labels = torch.randint(3, (5, 80), generator=g()), torch.randint(3, (80,), generator=g(1))
    votes = torch.randint(3, (4, 60), generator=g(2))
    field = E.field_of(said, labels, votes, 0)
    assert field.said.shape == (5, 60) and field.right.shape == (5, 20)
    assert sorted(map(tuple, field.right.T.tolist())) == sorted(map(tuple, (said == labels)[:, 60:].T.tolist()))
    assert field.frequency.tolist() == [float((votes[:, i] == labels[i]).double().mean()) for i in range(60)]
    accuracy, chosen = E.second_tests(field, 12, {"old": 1.0, "a": 1.0, "b": 0.0}, 3)
    assert not set(chosen["old"].tolist()) & set(chosen["a"].tolist() + chosen["b"].tolist())
    assert all(len(set(images.tolist())) == 12 for images in chosen.values())
    for name, images in chosen.items():
        wanted = [sum(int(said[m, i] == labels[i]) for i in images) / 12 for m in range(5)]
        assert accuracy[name].tolist() == pytest.approx(wanted)


def all_clear(n):
    return E.Field(torch.zeros(1, n).long(), torch.zeros(n).long(), torch.ones(n), torch.ones(1, 1).bool())


def clear_share(clear, vague, size, weight):
    """The expected share of clear images among ``size`` drawn one by one, a vague one ``weight`` times as likely."""
    ways = {0: 1.0}  # of having drawn so many clear ones
    for k in range(size):
        more = dict.fromkeys(range(k + 2), 0.0)
        for c, p in ways.items():
            left, other = clear - c, weight * (vague - k + c)
            more[c + 1] += p * left / (left + other)
            more[c] += p * other / (left + other)
        ways = {c: p for c, p in more.items() if p}
    return sum(c * p for c, p in ways.items()) / size


def test_the_old_and_the_matched_test_set_have_one_distribution():
    """A model that is right on the clear images alone: its accuracy on either set is that of a draw from a half."""
    clear = torch.arange(120) < 40
    field = E.Field(torch.zeros(1, 120).long(), (~clear).long(), torch.where(clear, 1.0, 0.2), torch.ones(1, 1).bool())
    found = [E.second_tests(field, 20, {"old": 1.0, "matched": 1.0}, seed)[0] for seed in range(400)]
    halves = {k: math.comb(40, k) * math.comb(80, 60 - k) / math.comb(120, 60) for k in range(41)}
    wanted = sum(p * clear_share(k, 60 - k, 20, 0.2) for k, p in halves.items())
    for name in ("old", "matched"):
        values = [float(accuracy[name]) for accuracy in found]
        assert abs(statistics.fmean(values) - wanted) < 4 * statistics.stdev(values) / len(values) ** 0.5 < 0.03


def test_climbing_asks_the_test_set_and_never_goes_down():
    said, labels = torch.randint(3, (6, 40), generator=g()), torch.randint(3, (40,), generator=g(1))
    votes = torch.nn.functional.one_hot(said, 3).float()
    assert torch.equal(E.climbed(votes, labels, 0, 1.0, g()), torch.ones(6))
    climbs = [E.voted(E.climbed(votes, labels, q, 1.0, g()), votes) for q in (0, 5, 60)]
    scores = [float((said == labels).double().mean()) for said in climbs]
    assert scores == sorted(scores) and scores[-1] > scores[0] + 0.05
    weights = torch.tensor([0.5, 0.2, 0.2, 0.0, 0.0, 0.0])
    for i in range(40):
        tally = [sum(float(w) for w, s in zip(weights, said[:, i], strict=True) if s == k) for k in range(3)]
        assert int(E.voted(weights, votes)[i]) == int(np.argmax(np.float32(tally)))


BAD = [
    (lambda: E.resampled(torch.tensor([0.0, 1.0]), 2, 1.0, g()), "size must be in 1 … 1"),
    (lambda: E.second_tests(all_clear(7), 4, {"old": 1.0, "new": 1.0}, 0), "size must be in 1 … 3"),
    (lambda: E.fitted_line(torch.ones(3), torch.ones(3)), "x must hold at least two different values"),
]


@pytest.mark.bad_input
@pytest.mark.parametrize("call,message", BAD, ids=range(len(BAD)))
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError) as raised:
        call()
    assert message in str(raised.value)


@pytest.mark.bad_input
def test_numbers_that_are_not_finite_are_refused_by_name():
    odd = torch.tensor([0.5, float("nan"), 1.0])
    for call, name in ((lambda: E.resampled(odd, 1, 1.0, g()), "frequency"), (lambda: E.fitted_line(odd, odd), "x")):
        with pytest.raises(ValueError, match=f"{name} must be finite"):
            call()
