"""Sort & Search against all thresholds and all orders; test sets, fits and corruptions against loops and NumPy."""

import itertools
import math
import statistics
from statistics import NormalDist

import numpy as np
import pytest
import torch
from torch import Generator

from labcode.foundations import evaluation as E
from labcode.foundations import new_test_sets as T
from labcode.foundations import runs as R


def g(seed=0):
    return Generator().manual_seed(seed)


def outcomes(models=6, samples=12, seed=0):
    skill, ease = torch.rand(models, 1, generator=g(seed)), torch.rand(1, samples, generator=g(seed + 1))
    return torch.rand(models, samples, generator=g(seed + 2)) < (skill + ease) / 2


def staircase(thresholds, n):
    """Outcomes that thresholds explain without a mistake, and a random order of the samples."""
    order = torch.randperm(n, generator=g(7))
    return (torch.arange(n)[None] < torch.tensor(thresholds)[:, None])[:, order.argsort()], order


def wrong(row, k):
    """Mistakes of "right on the first k" by a loop."""
    return sum(bool(r) != (i < k) for i, r in enumerate(row))


def test_thresholds_are_the_best_of_all_and_the_middle_of_equals():
    for seed in range(5):
        matrix = outcomes(seed=seed)
        counted = [[wrong(row, k) for k in range(13)] for row in matrix]
        assert T.mistakes(matrix).tolist() == counted
        for k, row in zip(T.thresholds(matrix).tolist(), counted, strict=True):
            least = [i for i, m in enumerate(row) if m == min(row)]
            assert k == least[(len(least) - 1) // 2]
    rows = torch.tensor([[0, 0, 0], [1, 1, 1], [1, 0, 1], [0, 1, 0]]).bool()
    assert T.thresholds(rows).tolist() == [0, 3, 1, 0]
    assert T.thresholds(torch.zeros(2, 0).bool()).tolist() == [0, 0]


@pytest.mark.parametrize("seed", range(4))
def test_reordered_is_the_best_of_all_orders(seed):
    matrix = outcomes(4, 6, seed)
    k = torch.randint(7, (4,), generator=g(seed + 9))
    pairs = list(zip(matrix.tolist(), k.tolist(), strict=True))
    count = lambda order: sum(wrong([row[j] for j in order], t) for row, t in pairs)  # noqa: E731
    found = T.reordered(matrix, k)
    assert sorted(found.tolist()) == list(range(6))
    assert count(found.tolist()) == min(count(order) for order in itertools.permutations(range(6)))
    sums = matrix.sum(0)[found]
    for lo, hi in itertools.pairwise(sorted({0, 6, *k.tolist()})):
        assert bool((sums[lo:hi].diff() <= 0).all()), "between two thresholds in the order of the sums"


def test_turns_never_make_it_worse_and_find_a_perfect_order():
    for seed in range(5):
        matrix = outcomes(10, 30, seed)
        order, history = T.sorted_samples(matrix)
        assert sorted(order.tolist()) == list(range(30))
        assert all(b < a for a, b in itertools.pairwise(history))
        assert history[0] == T.disagreement(matrix, T.by_sum(matrix)) and history[-1] == T.disagreement(matrix, order)
        columns = [sum(min(wrong(row[order], k) for k in range(31)) for row in matrix)]
        assert history[-1:] == columns
    matrix, _ = staircase([0, 3, 5, 9], 9)
    assert T.sorted_samples(matrix)[1] == [0]


def test_by_sum_puts_the_easy_first_and_keeps_equals_in_their_order():
    matrix = torch.tensor([[0, 1, 1, 0], [0, 1, 0, 0], [1, 1, 0, 0]]).bool()
    assert T.by_sum(matrix).tolist() == [1, 0, 2, 3]


def test_search_with_every_place_is_the_threshold_and_with_few_lies_halfway():
    matrix = outcomes(8, 20)
    assert torch.equal(T.search(matrix, torch.arange(20), 20), T.thresholds(matrix))
    places = torch.tensor([1, 5, 9])
    seen = torch.tensor([[1, 1, 0], [0, 0, 0], [1, 1, 1], [1, 0, 0]]).bool()
    assert T.search(seen, places, 12).tolist() == [(5 + 9 + 1) // 2, 0, 12, (1 + 5 + 1) // 2]


def test_outcomes_go_back_to_the_samples_own_order():
    matrix, order = staircase([2, 0, 7], 7)
    assert torch.equal(T.outcomes(torch.tensor([2, 0, 7]), order), matrix)


@pytest.mark.parametrize("n,m", [(12, 12), (12, 3), (100, 7), (5, 1)])
def test_spaced_places_lie_in_the_middle_of_equal_shares(n, m):
    places = T.spaced(n, m)
    assert places.tolist() == [int((i + 0.5) * n / m) for i in range(m)]
    assert len(set(places.tolist())) == m and 0 <= int(places[0]) and int(places[-1]) < n


def test_what_thresholds_explain_is_predicted_without_a_mistake():
    ks = list(range(0, 41, 4))
    matrix, order = staircase(ks, 40)
    mistakes, error = T.rivals(matrix, matrix[1::2], order, 40)
    assert mistakes["sort and search"] == mistakes["search in the order by sum"] == 0
    assert error["sort and search"] == error["share, spaced samples"] == 0
    coarse, _ = T.rivals(matrix, matrix[1::2], order, 10)
    assert coarse["sort and search"] <= 2 / 40 < coarse["what most models do"]
    exact, majority = T.inserted(matrix, 20, len(matrix))
    assert exact == 0 < majority
    outvoted = torch.cat([matrix, ~matrix, ~matrix], 1)  # the added samples turn the models' order round
    assert T.inserted(outvoted, 40, len(matrix))[0] > 0.2


def test_the_rivals_are_their_definitions():
    known, new = outcomes(9, 24), outcomes(4, 24, 5)
    order, m = T.sorted_samples(known)[0], 6
    mistakes, error = T.rivals(known, new, order, m)
    most = known.double().mean(0) > 0.5
    by_loop = np.mean([[bool(most[j] != r[j]) for j in range(24)] for r in new])
    assert mistakes["what most models do"] == pytest.approx(by_loop)
    places = [2, 6, 10, 14, 18, 22]
    shares = [sum(bool(r[order[p]]) for p in places) / m for r in new]
    rank = order.argsort().tolist()
    cut = [[(rank[j] < round(s * 24)) != bool(r[j]) for j in range(24)] for r, s in zip(new, shares, strict=True)]
    assert mistakes["same order, cut at the share"] == pytest.approx(np.mean(cut))
    wanted = np.mean([abs(s - float(r.double().mean())) for s, r in zip(shares, new, strict=True)])
    assert error["share, spaced samples"] == pytest.approx(wanted)


def test_probit_and_line_are_the_libraries():
    accuracy = torch.tensor([0.1, 0.5, 0.93])
    normal = NormalDist()
    assert T.probit(accuracy, 1000).tolist() == pytest.approx([normal.inv_cdf(a) for a in accuracy.tolist()], abs=1e-6)
    assert T.probit(torch.tensor([0.0, 1.0]), 50).tolist() == pytest.approx([normal.inv_cdf(p) for p in (0.01, 0.99)])
    x, y = torch.rand(2, 20, generator=g(), dtype=torch.float64)
    slope, shift, r2 = T.fitted_line(x, y)
    assert (slope, shift) == pytest.approx(tuple(np.polyfit(x, y, 1)))
    assert r2 == pytest.approx(np.corrcoef(x, y)[0, 1] ** 2)
    assert T.fitted_line(x, 3 * x - 1) == pytest.approx((3, -1, 1))


def test_resampling_follows_the_frequency():
    frequency = torch.tensor([0.0] * 50 + [0.25] * 500 + [1.0] * 500)
    shares = {}
    for kappa in (0.0, 1.0, 8.0):
        drawn = [T.resampled(frequency, 20, kappa, g(s)) for s in range(200)]
        assert all(len(set(d.tolist())) == 20 and bool((d >= 50).all()) for d in drawn)
        shares[kappa] = float(torch.cat([frequency[d] == 1 for d in drawn]).double().mean())
    assert shares[0.0] == pytest.approx(0.5, abs=0.03) and shares[1.0] == pytest.approx(0.8, abs=0.03)
    assert shares[8.0] > 0.999


def test_new_test_sets_share_no_image_with_the_old_one():
    said, labels = torch.randint(3, (5, 80), generator=g()), torch.randint(3, (80,), generator=g(1))
    votes = torch.randint(3, (4, 60), generator=g(2))
    field = T.field_of(said, labels, votes, 0)
    assert field.said.shape == (5, 60) and field.right.shape == (5, 20)
    assert sorted(map(tuple, field.right.T.tolist())) == sorted(map(tuple, (said == labels)[:, 60:].T.tolist()))
    assert field.frequency.tolist() == [float((votes[:, i] == labels[i]).double().mean()) for i in range(60)]
    accuracy, chosen = T.second_tests(field, 12, {"old": 1.0, "a": 1.0, "b": 0.0}, 3)
    assert not set(chosen["old"].tolist()) & set(chosen["a"].tolist() + chosen["b"].tolist())
    assert all(len(set(images.tolist())) == 12 for images in chosen.values())
    for name, images in chosen.items():
        wanted = [sum(int(said[m, i] == labels[i]) for i in images) / 12 for m in range(5)]
        assert accuracy[name].tolist() == pytest.approx(wanted)


def all_clear(n):
    return T.Field(torch.zeros(1, n).long(), torch.zeros(n).long(), torch.ones(n), torch.ones(1, 1).bool())


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
    field = T.Field(torch.zeros(1, 120).long(), (~clear).long(), torch.where(clear, 1.0, 0.2), torch.ones(1, 1).bool())
    found = [T.second_tests(field, 20, {"old": 1.0, "matched": 1.0}, seed)[0] for seed in range(400)]
    halves = {k: math.comb(40, k) * math.comb(80, 60 - k) / math.comb(120, 60) for k in range(41)}
    wanted = sum(p * clear_share(k, 60 - k, 20, 0.2) for k, p in halves.items())
    for name in ("old", "matched"):
        values = [float(accuracy[name]) for accuracy in found]
        assert abs(statistics.fmean(values) - wanted) < 4 * statistics.stdev(values) / len(values) ** 0.5 < 0.03


def test_climbing_asks_the_test_set_and_never_goes_down():
    said, labels = torch.randint(3, (6, 40), generator=g()), torch.randint(3, (40,), generator=g(1))
    votes = torch.nn.functional.one_hot(said, 3).float()
    assert torch.equal(T.climbed(votes, labels, 0, 1.0, g()), torch.ones(6))
    climbs = [T.voted(T.climbed(votes, labels, q, 1.0, g()), votes) for q in (0, 5, 60)]
    scores = [float((said == labels).double().mean()) for said in climbs]
    assert scores == sorted(scores) and scores[-1] > scores[0] + 0.05
    weights = torch.tensor([0.5, 0.2, 0.2, 0.0, 0.0, 0.0])
    for i in range(40):
        tally = [sum(float(w) for w, s in zip(weights, said[:, i], strict=True) if s == k) for k in range(3)]
        assert int(T.voted(weights, votes)[i]) == int(np.argmax(np.float32(tally)))


@pytest.mark.parametrize("kind", T.CORRUPTIONS)
def test_corruptions_do_what_they_say(kind):
    x = torch.rand(6, 2, 8, 8, generator=g())
    out = T.corrupted(x, kind, 1.0, g(1))
    assert torch.equal(out, x) == (kind == "none")
    torch.testing.assert_close(T.corrupted(x, kind, 0.0, g(1)), x, atol=1e-5, rtol=1e-5)
    assert torch.equal(out, T.corrupted(x, kind, 1.0, g(1)))
    if kind == "noise":
        large = T.corrupted(torch.zeros(50, 1, 32, 32), kind, 0.5, g())
        assert float(large.std()) == pytest.approx(0.2, abs=0.01)
    if kind == "blur":
        assert float(out[2, 1, 4, 5]) == pytest.approx(float(x[2, 1, 3:6, 4:7].mean()), abs=1e-6)
        corner = [x[0, 0, max(0, i), max(0, j)] for i in (-1, 0, 1) for j in (-1, 0, 1)]
        assert float(out[0, 0, 0, 0]) == pytest.approx(float(sum(corner) / 9), abs=1e-6)
    if kind == "contrast":
        torch.testing.assert_close(out.mean((1, 2, 3)), x.mean((1, 2, 3)))
        torch.testing.assert_close(out.std((1, 2, 3)), 0.2 * x.std((1, 2, 3)))
    if kind == "occlusion":
        hidden = (out != x).all(1)
        assert hidden.flatten(1).sum(1).tolist() == [16] * 6 and bool((out[:, 0][hidden] == 0.5).all())
        assert all(len(line.unique()) == 4 for image in hidden for line in image.nonzero().T)
    if kind == "rotation":
        dot = torch.zeros(1, 1, 9, 9)
        dot[0, 0, 4, 4] = 1
        torch.testing.assert_close(T.corrupted(dot, kind, 1.0, g())[0, 0, 4, 4], torch.tensor(1.0), atol=0.01, rtol=0)


def test_a_mixture_has_a_sixth_of_every_kind():
    x = torch.rand(12, 1, 8, 8, generator=g())
    changed = (T.mixture(x, 0) != x).flatten(1).any(1)
    assert changed.tolist() == [False] * 2 + [True] * 10


def test_classifiers_are_many_fitted_alike_each_time_and_better_with_more_images():
    x, y = R.grey_digits(300, 0, "fit", 0.1)
    test, labels = R.grey_digits(200, 0, "validation", 0.1)
    models = T.classifiers(x, y, (60, 300))
    right = (T.predicted(models, test) == labels).double().mean(1)
    assert len(models) == 42
    assert torch.equal(T.predicted(models, test), T.predicted(T.classifiers(x, y, (60, 300)), test))
    accuracy = dict(zip(models, right.tolist(), strict=True))
    few, more = ([a for name, a in accuracy.items() if name.endswith(f", {size} images")] for size in (60, 300))
    assert len(few) == len(more) == 21 and np.mean(more) > np.mean(few) + 0.05 and min(more) > 0.15


def test_the_quick_field_has_its_sizes_and_annotators_who_can_read():
    field = T.digit_field(0, "fit", "validation", candidates=120, samples=30, annotators=3)
    assert field.said.shape == (84, 120) and field.right.shape == (84, 30) and field.labels.shape == (120,)
    assert float(field.frequency.mean()) > 0.7


def test_speed_runs_repeat_what_is_not_varied_and_stand_in_a_field():
    x, y = E.photo_patches(54, 1, "fit", 8)
    test, labels = E.photo_patches(36, 1, "validation", 8)
    train = E.SpeedRun(E.Recipe(widths=(8, 12), epochs=2, batch=18, translate=1), x, y, test, labels, 9)
    fixed = E.repeated(train, (False,) * 3, 2, 0)
    assert fixed.shape == (2, 36) and torch.equal(fixed[0], fixed[1])
    accuracy = train(5).tta
    assert float((train.predicted == labels).float().mean()) == pytest.approx(accuracy)
    for sources in ((True, False, False), (False, True, True)):
        made = E.repeated(train, sources, 3, 0)
        assert not torch.equal(made[0], made[1]) and torch.equal(made, E.repeated(train, sources, 3, 0))
    before, weights = {}, train.net.blocks[0].conv1.weight
    real = train.train
    for nudge in (None, 3):
        train.train = lambda *a, nudge=nudge: before.update({nudge: weights.detach().clone()}) or real(*a)
        train(5, start=6, nudge=nudge)
    changed = (before[3] - before[None]).nonzero().tolist()
    assert [place[0] for place in changed] == [3] and float((before[3] - before[None]).sum()) == pytest.approx(0.1)


BAD = [
    (lambda: T.classifiers(torch.zeros(5, 2), torch.zeros(5), (9,)), "sizes must be at most the number of images, 5"),
    (lambda: T.corrupted(torch.zeros(1, 1, 8, 8), "fog", 1, g()), "kind must be one of none, noise"),
    (lambda: T.corrupted(torch.zeros(1, 1, 8, 8), "blur", 2, g()), "severity must be in [0, 1], got 2"),
    (lambda: T.resampled(torch.tensor([0.0, 1.0]), 2, 1.0, g()), "size must be in 1 … 1"),
    (lambda: T.second_tests(all_clear(7), 4, {"old": 1.0, "new": 1.0}, 0), "size must be in 1 … 3"),
    (lambda: T.fitted_line(torch.ones(3), torch.ones(3)), "x must hold at least two different values"),
    (lambda: T.spaced(3, 4), "m must be in 1 … 3, got 4"),
    (lambda: T.search(torch.ones(1, 2).bool(), torch.tensor([3, 1]), 5), "places must rise"),
    (lambda: T.search(torch.ones(1, 2).bool(), torch.tensor([1]), 5), "one for each of 2 outcomes, got 1"),
]


@pytest.mark.bad_input
@pytest.mark.parametrize("call,message", BAD, ids=range(len(BAD)))
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError) as raised:
        call()
    assert message in str(raised.value)
