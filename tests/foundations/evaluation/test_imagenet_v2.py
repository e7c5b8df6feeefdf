"""New test sets, fits and the climbing analyst against loops, NumPy and the libraries."""

import math
import statistics
from statistics import NormalDist

import numpy as np
import pytest
import torch
from foundations.evaluation.helpers import g

from labcode.foundations import evaluation as E


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


def a_field(first=60, second=40, classes=3, annotators=8, seed=0):
    """Candidates of two sources: (said, labels, agree, fresh) at random, and a field of them with five samples more."""
    n, odd = first + second, torch.rand(annotators, first + second, generator=g(seed + 2)) < 0.7
    said, labels = torch.randint(classes, (5, n + 5), generator=g(seed)), torch.arange(n + 5) % classes
    return E.field_of(said, labels, odd, torch.arange(n) >= first, seed)


def test_a_field_keeps_candidates_and_mixes_the_samples_behind_them():
    said, labels = torch.randint(3, (5, 80), generator=g()), torch.randint(3, (80,), generator=g(1))
    agree, fresh = torch.rand(4, 60, generator=g(2)) < 0.5, torch.arange(60) >= 40
    field = E.field_of(said, labels, agree, fresh, 0)
    assert torch.equal(field.said, said[:, :60]) and torch.equal(field.labels, labels[:60])
    assert sorted(map(tuple, field.right.T.tolist())) == sorted(map(tuple, (said == labels)[:, 60:].T.tolist()))


def test_the_frequency_is_the_share_of_those_who_were_asked():
    agree = torch.rand(8, 500, generator=g(3)) < torch.linspace(0, 1, 500)
    assert torch.equal(E.selection_frequency(agree, 8, g()), agree.double().mean(0))
    asked = torch.stack([E.selection_frequency(agree, 2, g(s)) for s in range(400)])
    assert set(asked.flatten().tolist()) == {0.0, 0.5, 1.0}
    within = 4 * (asked.std(0) / 20).clamp(min=1e-3)  # the mean over draws is the share of all, without bias
    assert bool(((asked.mean(0) - agree.double().mean(0)).abs() < within + 0.02).all())
    agreed = agree.double().mean(0)  # two of eight without replacement: both agree with probability c(c-1)/56
    both = (asked == 1).double().mean(0)
    assert float((both - 8 * agreed * (8 * agreed - 1) / 56).abs().max()) < 0.12


def test_matching_takes_of_each_class_and_bin_as_many_as_the_old_set_has():
    frequency, labels = torch.rand(400, generator=g()).double(), torch.randint(3, (400,), generator=g(1))
    frequency[:3] = torch.tensor([0.2, 0.6, 1.0])
    old, pool = torch.arange(40), torch.arange(40, 400)
    new = E.matched(frequency, labels, old, pool, g(2))
    edges = [0.0, 0.2, 0.4, 0.6, 0.8, 1.01]

    def histogram(images):
        rows = [(int(labels[i]), sum(float(frequency[i]) >= e for e in edges)) for i in images.tolist()]
        return {cell: rows.count(cell) for cell in rows}

    assert histogram(new) == histogram(old) and len(set(new.tolist())) == 40 and int(new.min()) >= 40
    assert not torch.equal(new, E.matched(frequency, labels, old, pool, g(3)))
    few = pool[frequency[pool] >= 0.8][:1]  # one image left in all: it is taken where its cell is wanted
    assert len(E.matched(frequency, labels, old, few, g())) <= 1


def test_new_test_sets_follow_their_rules_and_share_no_image_with_the_old_one():
    field = a_field()
    accuracy, chosen = E.second_tests(field, 15, 8, 3)
    f, fresh = field.agree.double().mean(0), {k: field.fresh[i].tolist() for k, i in chosen.items()}
    assert not any(fresh["old"] + fresh["same source"])
    assert all(fresh["matched"] + fresh["threshold 0.7"] + fresh["top images"])
    assert not set(chosen["old"].tolist()) & set(chosen["same source"].tolist())
    assert len(chosen["old"]) == len(chosen["same source"]) == 15
    assert float(f[chosen["threshold 0.7"]].min()) >= 0.7
    for c in range(3):
        best = sorted((float(f[i]) for i in range(60, 100) if field.labels[i] == c), reverse=True)[:5]
        top = chosen["top images"]
        assert sorted((float(f[i]) for i in top[field.labels[top] == c]), reverse=True) == best
    for name, images in chosen.items():
        wanted = [sum(int(field.said[m, i] == field.labels[i]) for i in images) / len(images) for m in range(5)]
        assert accuracy[name].tolist() == pytest.approx(wanted)


def test_a_noisy_match_is_less_clear_than_it_looks_and_all_annotators_put_it_right():
    """Regression to the mean (Engstrom et al.): many new candidates are unclear, lucky ones fill the matched set."""
    n = 4000
    truth = torch.where(torch.arange(2 * n) < n, 0.7, torch.where(torch.arange(2 * n) % 2 == 0, 0.7, 0.35))
    agree = torch.rand(40, 2 * n, generator=g(5)) < truth
    field = E.Field(torch.zeros(2, 2 * n).long(), torch.zeros(2 * n).long(), agree, torch.arange(2 * n) >= n, agree[:2])
    gap = {}
    for count in (5, 40):
        _, chosen = E.second_tests(field, 500, count, 1)
        gap[count] = float(truth[chosen["old"]].mean() - truth[chosen["matched"]].mean())
    # with 5 of 40 asked: of those who seem as clear as the old, a share of the unclear ones; with all, nearly none
    assert gap[5] > 0.05 and abs(gap[40]) < 0.02


def test_accuracy_by_frequency_is_that_of_the_images_in_each_bin():
    field = a_field(200, 150, seed=7)
    middles, found = E.by_frequency(field, 8, 0)
    f, right = field.agree.double().mean(0).tolist(), (field.said == field.labels).double().mean(0).tolist()
    assert middles == [0.1, 0.3, 0.5, 0.7, 0.9]
    for name, fresh in (("old source", False), ("new source", True)):
        for middle, value in zip(middles, found[name], strict=True):
            low = middle - 0.1
            rows = [r for r, x, new in zip(right, f, field.fresh.tolist(), strict=True)
                    if new == fresh and low - 1e-9 <= x < low + 0.2 - 1e-9 + (middle == 0.9)]  # fmt: skip
            assert math.isnan(value) if not rows else value == pytest.approx(statistics.fmean(rows))


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
    (lambda: E.selection_frequency(torch.ones(3, 4).bool(), 4, g()), "count must be in 1 … 3"),
    (lambda: E.second_tests(a_field(9, 9), 8, 3, 0), "size must be at most half of the"),
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
    with pytest.raises(ValueError, match="x must be finite"):
        E.fitted_line(odd, odd)
