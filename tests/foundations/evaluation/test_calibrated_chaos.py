"""Estimators of variance against NumPy, all halvings and closed forms."""

import itertools
import statistics

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from foundations.evaluation.helpers import g

from labcode.foundations import evaluation as E


def outcomes(runs=7, images=9, seed=0):
    """Outcomes with runs that are truly better or worse, and images that are harder or easier."""
    skill, ease = torch.rand(runs, 1, generator=g(seed)), torch.rand(1, images, generator=g(seed + 1))
    return torch.rand(runs, images, generator=g(seed + 2)) < (skill + ease) / 2


def test_variances_are_numpys():
    c = outcomes()
    a = c.numpy().astype(float)
    n = a.shape[1]
    assert E.test_set_variance(c) == pytest.approx(np.var(a.mean(1), ddof=1))
    shares = a.mean(0)
    assert E.coin_variance(c) == pytest.approx(sum(p * (1 - p) for p in shares) * 7 / 6 / n**2)
    covariance = np.cov(a.T)
    apart = [covariance[i, j] for i in range(n) for j in range(n) if i != j]
    assert E.distribution_variance(c) == pytest.approx(np.mean(apart))


def test_the_closed_form_is_the_mean_over_all_halvings():
    c = outcomes(runs=5, images=6)
    a, values = c.numpy().astype(float), []
    for first in itertools.combinations(range(6), 3):
        second = [i for i in range(6) if i not in first]
        values.append(np.cov(a[:, list(first)].mean(1), a[:, second].mean(1))[0, 1])
    assert E.distribution_variance(c) == pytest.approx(np.mean(values))
    assert E.half_split_covariance(c, 1, g(3)) in [pytest.approx(v) for v in values]
    assert E.half_split_covariance(c, 3000, g()) == pytest.approx(np.mean(values), abs=0.003)


def test_the_estimate_is_unbiased_and_coins_have_no_distribution_variance():
    """Runs of known accuracy: its variance is found from small test sets, whatever the coins add."""
    true, coins = [], []
    for seed in range(300):
        skill = 0.5 + 0.2 * torch.rand(20, 1, generator=g(seed))
        true.append(E.distribution_variance(torch.rand(20, 30, generator=g(1000 + seed)) < skill))
        coins.append(E.distribution_variance(torch.rand(20, 30, generator=g(2000 + seed)) < 0.6))
    for values, wanted in ((true, 0.2**2 / 12), (coins, 0.0)):
        error = statistics.stdev(values) / len(values) ** 0.5
        assert abs(statistics.fmean(values) - wanted) < 4 * error < 0.001


def test_calibrated_votes_have_the_formulas_variance():
    shares = [0.1, 0.35, 0.5, 0.8]  # of the votes for class 1, which is right as often
    error = statistics.fmean(2 * q * (1 - q) for q in shares)
    exact = sum(q * (1 - q) for q in shares) / len(shares) ** 2
    assert E.calibrated_variance(error, len(shares)) == pytest.approx(exact)


def test_calibration_is_the_loop_over_bins():
    shares = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.3, 0.7], [0.25, 0.75]], dtype=torch.float64)
    labels = torch.tensor([0, 1, 1, 0])
    pairs = zip(shares.tolist(), labels, strict=True)
    rows = [(q, float(label == k), q) for row, label in pairs for k, q in enumerate(row)]
    bins = {}
    for q, right, weight in rows:
        bins.setdefault(int(q * 4), []).append((q, right, weight))
    total, wanted = sum(w for *_, w in rows), 0.0
    confidence, accuracy, weight, error = E.calibration(shares, labels, bins=4)
    assert len(confidence) == len(bins)
    for i, key in enumerate(sorted(bins)):
        mass = sum(w for *_, w in bins[key])
        q, right = (sum(r[j] * r[2] for r in bins[key]) / mass for j in (0, 1))
        assert (float(confidence[i]), float(accuracy[i]), float(weight[i])) == pytest.approx((q, right, mass / total))
        wanted += mass / total * abs(q - right)
    assert error == pytest.approx(wanted)
    sure = F.one_hot(labels, 2).double()
    assert E.calibration(sure, labels)[3] == 0 and E.calibration(sure.flip(1), labels)[3] == 1
    votes = E.vote_shares(torch.tensor([[0, 1], [0, 2]]), 3)
    assert votes.tolist() == [[1, 0, 0], [0, 0.5, 0.5]]


BAD = [
    (lambda: E.test_set_variance(torch.ones(1, 5) > 0), "correct must be (runs, images)"),
    (lambda: E.coin_variance(torch.ones(5) > 0), "correct must be (runs, images)"),
    (lambda: E.half_split_covariance(outcomes(), 0, g()), "splits must be at least 1, got 0"),
    (lambda: E.calibrated_variance(1.5, 10), "error must be in [0, 1]"),
    (lambda: E.calibration(torch.ones(3, 2), torch.zeros(2).long()), "shares must be one row an image, 2, got 3"),
    (lambda: E.over_sets(E.coin_variance, outcomes(), 10), "size must be in 2 … 9, got 10"),
]


@pytest.mark.bad_input
@pytest.mark.parametrize("call,message", BAD, ids=range(len(BAD)))
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError) as raised:
        call()
    assert message in str(raised.value)


@pytest.mark.bad_input
def test_votes_and_shares_out_of_range_are_refused_by_name():
    with pytest.raises(ValueError, match="predicted must lie in 0 … 2, got 0 … 3"):
        E.vote_shares(torch.arange(4)[None], 3)
    shares = torch.tensor([[0.5, 0.5], [1.0, 0.0]])
    with pytest.raises(ValueError, match="labels must lie in 0 … 1, got 0 … 2"):
        E.calibration(shares, torch.tensor([0, 2]))
    for odd in (1.5, -0.1, float("nan")):
        bad = shares.clone()
        bad[0, 0] = odd
        with pytest.raises(ValueError, match="shares must lie in .0, 1."):
            E.calibration(bad, torch.tensor([0, 1]))
