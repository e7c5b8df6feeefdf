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


def a_field(first=60, second=40, classes=3, annotators=8, seed=0, origins=None):
    """Candidates of two sources, at random, and five samples more; ``origins`` images that candidates are made from."""
    n, odd = first + second, torch.rand(annotators, first + second, generator=g(seed + 2)) < 0.7
    said, labels = torch.randint(classes, (5, n + 5), generator=g(seed)), torch.arange(n + 5) % classes
    origin = None if origins is None else torch.randint(origins, (n,), generator=g(seed + 3))
    return E.field_of(said, labels, odd, torch.arange(n) >= first, seed, origin)


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
    accuracy, chosen = E.second_tests(field, 15, 8, 3, apart=False)
    f, fresh = field.agree.double().mean(0), {k: field.fresh[i].tolist() for k, i in chosen.items()}
    assert not any(fresh["old"] + fresh["same source"])
    assert all(fresh["matched"] + fresh["threshold 0.7"] + fresh["top images"])
    assert not set(chosen["old"].tolist()) & set(chosen["same source"].tolist())
    assert len(chosen["old"]) == len(chosen["same source"]) == 15
    clear = chosen["threshold 0.7"]
    assert float(f[clear].min()) >= 0.7
    for c in range(3):  # drawn in every class, not over all of them
        there = int(((f >= 0.7) & (field.labels == c) & field.fresh).sum())
        assert int((field.labels[clear] == c).sum()) == min(5, there)
    for c in range(3):
        best = sorted((float(f[i]) for i in range(60, 100) if field.labels[i] == c), reverse=True)[:5]
        top = chosen["top images"]
        assert sorted((float(f[i]) for i in top[field.labels[top] == c]), reverse=True) == best
    for name, images in chosen.items():
        wanted = [sum(int(field.said[m, i] == field.labels[i]) for i in images) / len(images) for m in range(5)]
        assert accuracy[name].tolist() == pytest.approx(wanted)


def test_no_image_that_the_old_set_is_made_from_is_behind_a_new_one():
    for origins in (40, None):
        field = a_field(300, 200, origins=origins)
        _, chosen = E.second_tests(field, 40, 8, 1, thresholds=(0.5, 0.9))
        made_from = {name: set(field.origin[images].tolist()) for name, images in chosen.items()}
        others = set().union(*(images for name, images in made_from.items() if name != "old"))
        assert not made_from["old"] & others and set(chosen) >= {"threshold 0.5", "threshold 0.9", "top images"}
    _, shared = E.second_tests(a_field(300, 200, origins=40), 40, 8, 1, apart=False)
    assert set(a_field(300, 200, origins=40).origin[shared["old"]].tolist()) & set(
        a_field(300, 200, origins=40).origin[shared["matched"]].tolist())  # fmt: skip


def test_a_noisy_match_is_less_clear_than_it_looks_and_all_annotators_put_it_right():
    """Regression to the mean (Engstrom et al.): many new candidates are unclear, lucky ones fill the matched set."""
    n = 4000
    truth = torch.where(torch.arange(2 * n) < n, 0.7, torch.where(torch.arange(2 * n) % 2 == 0, 0.7, 0.35))
    agree = torch.rand(40, 2 * n, generator=g(5)) < truth
    which = torch.arange(2 * n)
    field = E.Field(torch.zeros(2, 2 * n).long(), torch.zeros(2 * n).long(), agree, which >= n, agree[:2], which)
    gap = {}
    for count in (5, 40):
        _, chosen = E.second_tests(field, 500, count, 1, apart=False)
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
    path = E.climbed(votes, labels, 60, 1.0, g())
    assert torch.equal(path[0], torch.ones(6)) and len(path) == 61
    assert torch.equal(path[:6], E.climbed(votes, labels, 5, 1.0, g()))
    climbs = [E.voted(path[q], votes) for q in (0, 5, 60)]
    scores = [float((said == labels).double().mean()) for said in climbs]
    assert scores == sorted(scores) and scores[-1] > scores[0] + 0.05
    weights = torch.tensor([0.5, 0.2, 0.2, 0.0, 0.0, 0.0])
    for i in range(40):
        tally = [sum(float(w) for w, s in zip(weights, said[:, i], strict=True) if s == k) for k in range(3)]
        assert int(E.voted(weights, votes)[i]) == int(np.argmax(np.float32(tally)))


def test_scores_along_a_climb_are_those_of_its_votes():
    field = a_field(60, 40)
    sets = {"old": torch.arange(30), "new": torch.arange(60, 90)}
    found = E.climb_scores(field, sets, 20, (0, 20), 4)
    votes = torch.nn.functional.one_hot(field.said, 3).float()
    path = E.climbed(votes[:, :30], field.labels[:30], 20, 1.0, g(4))
    for name, i in sets.items():
        wanted = [float((E.voted(w, votes[:, i]) == field.labels[i]).double().mean()) for w in path[[0, 20]]]
        assert found[name] == wanted
    assert found["old"][1] > found["old"][0]


def test_bootstrapped_slopes_scatter_about_the_slope_as_theory_says():
    skill = torch.linspace(0.2, 0.9, 30, dtype=torch.float64)[:, None]
    old, new = (torch.rand(30, 4000, generator=g(i)) < skill * share for i, share in ((0, 1.0), (1, 0.8)))
    slopes = E.bootstrapped(old, new, 100, g(2))
    slope = E.fitted_line(old.double().mean(1), new.double().mean(1))[0]
    assert float(slopes.mean()) == pytest.approx(slope, abs=0.02) and 0.002 < float(slopes.std()) < 0.04
    assert torch.equal(slopes, E.bootstrapped(old, new, 100, g(2)))


def test_clopper_pearson_is_scipys_and_holds_at_the_ends():
    from scipy.stats import binomtest

    low, high = E.clopper_pearson(torch.tensor([0.0, 0.3, 0.95, 1.0]), 40)
    for i, k in enumerate((0, 12, 38, 40)):
        wanted = binomtest(k, 40).proportion_ci(0.95, "exact")
        assert (float(low[i]), float(high[i])) == pytest.approx((wanted.low, wanted.high), abs=1e-9)


def test_kinds_left_out_are_foretold_by_the_others_line():
    old, kinds = torch.linspace(0.5, 0.9, 8, dtype=torch.float64), ["a", "a", "b", "b", "c", "c", "d", "d"]
    assert E.left_out(old, 2 * old - 0.8, kinds) < 1e-9
    assert E.left_out(old, torch.special.ndtr(1.5 * torch.special.ndtri(old) - 0.4), kinds, 10_000) < 1e-6
    odd = torch.tensor([0.1, 0.9, 0.2, 0.4, 0.8, 0.7, 0.3, 0.6], dtype=torch.float64)
    errors = []
    for i in range(8):
        rest = [j for j in range(8) if kinds[j] != kinds[i]]
        slope, shift = np.polyfit(old[rest], odd[rest], 1)
        errors.append(abs(slope * float(old[i]) + shift - float(odd[i])))
    assert E.left_out(old, odd, kinds) == pytest.approx(np.mean(errors))


def test_skilled_models_are_right_as_often_as_their_skill_says():
    skill = torch.tensor([-1.0, 0.0, 1.5])
    made = E.skilled(skill, 0.5, 2.0, 60_000, g())
    wanted = torch.special.ndtr((skill.double() - 0.5) / math.sqrt(5))
    torch.testing.assert_close(made.double().mean(1), wanted, atol=0.008, rtol=0)


BAD = [
    (lambda: E.selection_frequency(torch.ones(3, 4).bool(), 4, g()), "count must be in 1 … 3"),
    (lambda: E.second_tests(a_field(9, 9), 8, 3, 0), "size must be at most "),
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
