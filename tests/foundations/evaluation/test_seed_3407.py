"""The best of many runs against enumeration and known means."""

import itertools
import math
import statistics

import numpy as np
import pytest
import torch
from foundations.evaluation.helpers import g

from labcode.foundations import evaluation as E


def outcomes(runs=7, images=9, seed=0):
    """Outcomes with runs that are truly better or worse, and images that are harder or easier."""
    skill, ease = torch.rand(runs, 1, generator=g(seed)), torch.rand(1, images, generator=g(seed + 1))
    return torch.rand(runs, images, generator=g(seed + 2)) < (skill + ease) / 2


@pytest.mark.parametrize("k", [1, 2, 4, 6])
def test_best_of_is_the_mean_over_all_subsets(k):
    values = [0.3, 0.9, 0.2, 0.8, 0.85, 0.1]
    assert E.best_of(values, k) == pytest.approx(statistics.fmean(map(max, itertools.combinations(values, k))))


def test_the_largest_of_k_gaussian_numbers_has_its_known_means():
    known = {1: 0.0, 2: 1 / math.sqrt(math.pi), 3: 1.5 / math.sqrt(math.pi), 10: 1.53875, 10_000: 3.85}
    for k, value in known.items():
        assert E.gaussian_best(k) == pytest.approx(value, abs=2e-3)


def test_scanned_picks_on_one_set_and_looks_at_the_rest():
    c = outcomes(6, 20)
    a = c.double().numpy()
    leads = []
    for lo in (0, 5, 10, 15):
        here, rest = a[:, lo : lo + 5].mean(1), np.delete(a, range(lo, lo + 5), 1).mean(1)
        best = here.argmax()
        leads.append((here[best] - here.mean(), rest[best] - rest.mean()))
    assert E.scanned(c, 5) == pytest.approx(tuple(np.mean(leads, 0)))
    assert E.over_sets(E.coin_variance, c, 6) == pytest.approx(
        statistics.fmean(E.coin_variance(c[:, i : i + 6]) for i in (0, 6, 12))
    )


def test_extremes_are_the_ends_and_the_middle_of_the_accuracies():
    c = outcomes(6, 20)
    a = c.double().numpy().mean(1)
    assert E.extremes(c).tolist() == pytest.approx([a.min(), a.mean(), a.max()])
    assert E.extremes(c[:1]).tolist() == pytest.approx([a[0]] * 3)


BAD = [
    (lambda: E.scanned(outcomes(), 5), "size must be at most half of the 9 images, got 5"),
    (lambda: E.best_of([1.0], 2), "k must be in 1 … 1, got 2"),
    (lambda: E.gaussian_best(0), "k must be at least 1, got 0"),
]


@pytest.mark.bad_input
@pytest.mark.parametrize("call,message", BAD, ids=range(len(BAD)))
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError) as raised:
        call()
    assert message in str(raised.value)
