"""Sort & Search against all thresholds and all orders; corruptions against loops."""

import itertools

import numpy as np
import pytest
import torch
from foundations.evaluation.helpers import g

from labcode.foundations import evaluation as E


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
        assert E.mistakes(matrix).tolist() == counted
        for k, row in zip(E.thresholds(matrix).tolist(), counted, strict=True):
            least = [i for i, m in enumerate(row) if m == min(row)]
            assert k == least[(len(least) - 1) // 2]
    rows = torch.tensor([[0, 0, 0], [1, 1, 1], [1, 0, 1], [0, 1, 0]]).bool()
    assert E.thresholds(rows).tolist() == [0, 3, 1, 0]
    assert E.thresholds(torch.zeros(2, 0).bool()).tolist() == [0, 0]


@pytest.mark.parametrize("seed", range(4))
def test_reordered_is_the_best_of_all_orders(seed):
    matrix = outcomes(4, 6, seed)
    k = torch.randint(7, (4,), generator=g(seed + 9))
    pairs = list(zip(matrix.tolist(), k.tolist(), strict=True))
    count = lambda order: sum(wrong([row[j] for j in order], t) for row, t in pairs)  # noqa: E731
    found = E.reordered(matrix, k)
    assert sorted(found.tolist()) == list(range(6))
    assert count(found.tolist()) == min(count(order) for order in itertools.permutations(range(6)))
    sums = matrix.sum(0)[found]
    for lo, hi in itertools.pairwise(sorted({0, 6, *k.tolist()})):
        assert bool((sums[lo:hi].diff() <= 0).all()), "between two thresholds in the order of the sums"


def test_turns_never_make_it_worse_and_find_a_perfect_order():
    for seed in range(5):
        matrix = outcomes(10, 30, seed)
        order, history = E.sorted_samples(matrix)
        assert sorted(order.tolist()) == list(range(30))
        assert all(b < a for a, b in itertools.pairwise(history))
        assert history[0] == E.disagreement(matrix, E.by_sum(matrix)) and history[-1] == E.disagreement(matrix, order)
        columns = [sum(min(wrong(row[order], k) for k in range(31)) for row in matrix)]
        assert history[-1:] == columns
    matrix, _ = staircase([0, 3, 5, 9], 9)
    assert E.sorted_samples(matrix)[1] == [0]


def test_by_sum_puts_the_easy_first_and_keeps_equals_in_their_order():
    matrix = torch.tensor([[0, 1, 1, 0], [0, 1, 0, 0], [1, 1, 0, 0]]).bool()
    assert E.by_sum(matrix).tolist() == [1, 0, 2, 3]


def test_search_with_every_place_is_the_threshold_and_with_few_lies_halfway():
    matrix = outcomes(8, 20)
    assert torch.equal(E.search(matrix, torch.arange(20), 20), E.thresholds(matrix))
    places = torch.tensor([1, 5, 9])
    seen = torch.tensor([[1, 1, 0], [0, 0, 0], [1, 1, 1], [1, 0, 0]]).bool()
    assert E.search(seen, places, 12).tolist() == [(5 + 9 + 1) // 2, 0, 12, (1 + 5 + 1) // 2]


def test_outcomes_go_back_to_the_samples_own_order():
    matrix, order = staircase([2, 0, 7], 7)
    assert torch.equal(E.outcomes(torch.tensor([2, 0, 7]), order), matrix)


@pytest.mark.parametrize("n,m", [(12, 12), (12, 3), (100, 7), (5, 1)])
def test_spaced_places_lie_in_the_middle_of_equal_shares(n, m):
    places = E.spaced(n, m)
    assert places.tolist() == [int((i + 0.5) * n / m) for i in range(m)]
    assert len(set(places.tolist())) == m and 0 <= int(places[0]) and int(places[-1]) < n


def test_what_thresholds_explain_is_predicted_without_a_mistake():
    ks = list(range(0, 41, 4))
    matrix, order = staircase(ks, 40)
    mistakes, error = E.rivals(matrix, matrix[1::2], order, 40)
    assert mistakes["sort and search"] == mistakes["search in the order by sum"] == 0
    assert error["sort and search"] == 0
    assert error["count at spaced places"] == pytest.approx(float((matrix[1::2].sum(1) == 40).double().mean()) / 40)
    coarse, _ = E.rivals(matrix, matrix[1::2], order, 10)
    assert coarse["sort and search"] <= 2 / 40 < coarse["what most models do"]
    exact, majority = E.inserted(matrix, 20, len(matrix))
    assert exact == 0 < majority
    outvoted = torch.cat([matrix, ~matrix, ~matrix], 1)  # the added samples turn the models' order round
    assert E.inserted(outvoted, 40, len(matrix))[0] > 0.2


def test_the_rivals_are_their_definitions():
    known, new = outcomes(9, 24), outcomes(4, 24, 5)
    order, m = E.sorted_samples(known)[0], 6
    mistakes, error = E.rivals(known, new, order, m)
    most = known.double().mean(0) > 0.5
    by_loop = np.mean([[bool(most[j] != r[j]) for j in range(24)] for r in new])
    assert mistakes["what most models do"] == pytest.approx(by_loop)
    places = [2, 6, 10, 14, 18, 22]
    shares = [sum(bool(r[order[p]]) for p in places) / m for r in new]
    rank = order.argsort().tolist()
    cut = [[(rank[j] < round(s * 24)) != bool(r[j]) for j in range(24)] for r, s in zip(new, shares, strict=True)]
    assert mistakes["same order, cut at the share"] == pytest.approx(np.mean(cut))
    steps = [2, 6, 10, 14, 18, 22]  # the released code's: n // m apart, the first half a step in
    found = [steps[min(sum(bool(r[order[p]]) for p in steps), m - 1)] / 24 for r in new]
    wanted = np.mean([abs(f - float(r.double().mean())) for f, r in zip(found, new, strict=True)])
    assert error["count at spaced places"] == pytest.approx(wanted)


def test_the_count_is_that_of_the_released_code():
    """``uniform_sampling`` and the global estimate of bethgelab/sort-and-search, written again in NumPy."""
    for n, m in ((24, 6), (25, 6), (1500, 64), (7, 7), (5, 1)):
        step = n // m
        places = np.arange(step // 2 if n == step * m else n - step * m, n, step)
        assert len(places) == m and E.spaced_as_released(n, m).tolist() == places.tolist()
        row = outcomes(3, n, n).numpy()
        count = row[:, places].sum(1).astype(int)
        count[count >= m] = m - 1
        predicted = np.arange(n) < places[count][:, None]
        found = E.counted(torch.from_numpy(row)[:, torch.from_numpy(places)], torch.from_numpy(places))
        assert (found.numpy() / n).tolist() == predicted.mean(1).tolist()


def test_the_nearest_known_model_is_copied_where_nothing_was_seen():
    known, new, seen = outcomes(7, 30), outcomes(4, 30, 5), torch.tensor([2, 9, 11, 20])
    found = E.nearest(known, new, seen)
    for r, said in zip(new, found, strict=True):
        apart = [sum(bool(k[i] != r[i]) for i in seen) for k in known]
        copy = known[apart.index(min(apart))].tolist()
        assert said.tolist() == [bool(r[i]) if i in seen.tolist() else copy[i] for i in range(30)]
    assert torch.equal(E.nearest(known, known, torch.arange(30)), known)


def test_scattered_places_are_any_in_rising_order():
    drawn = torch.stack([E.scattered(12, 4, g(i)) for i in range(200)])
    assert bool((drawn.diff(dim=1) > 0).all()) and drawn.unique().tolist() == list(range(12))


def test_mistakes_split_into_those_of_the_best_threshold_and_the_rest():
    known, new, m = outcomes(9, 24), outcomes(4, 24, 5), 6
    order = E.by_sum(known)
    best = np.mean([min(wrong(r[order], k) for k in range(25)) for r in new]) / 24
    least, more = E.split_error(new, order, m)
    assert least == pytest.approx(best) and more >= 0
    assert least + more == pytest.approx(E.rivals(known, new, order, m)[0]["sort and search"])
    assert E.split_error(new, order, 24)[1] == pytest.approx(0)


def test_two_sides_cancel_in_the_accuracy():
    new = outcomes(5, 24, 5)
    order, k = E.by_sum(outcomes(9, 24)), torch.tensor([0, 5, 12, 20, 24])
    both, left = E.two_sided(new, order, k)
    assert both == pytest.approx(np.mean([wrong(r[order], int(t)) for r, t in zip(new, k, strict=True)]) / 24)
    assert left == pytest.approx(float((k / 24 - new.double().mean(1)).abs().mean()))


@pytest.mark.parametrize("kind", E.CORRUPTIONS)
def test_corruptions_do_what_they_say(kind):
    x = torch.rand(6, 2, 8, 8, generator=g())
    out = E.corrupted(x, kind, 1.0, g(1))
    assert torch.equal(out, x) == (kind == "none")
    torch.testing.assert_close(E.corrupted(x, kind, 0.0, g(1)), x, atol=1e-5, rtol=1e-5)
    assert torch.equal(out, E.corrupted(x, kind, 1.0, g(1)))
    if kind == "noise":
        large = E.corrupted(torch.zeros(50, 1, 32, 32), kind, 0.5, g())
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
        torch.testing.assert_close(E.corrupted(dot, kind, 1.0, g())[0, 0, 4, 4], torch.tensor(1.0), atol=0.01, rtol=0)


def test_a_mixture_has_a_sixth_of_every_kind():
    x = torch.rand(12, 1, 8, 8, generator=g())
    changed = (E.mixture(x, 0) != x).flatten(1).any(1)
    assert changed.tolist() == [False] * 2 + [True] * 10


BAD = [
    (lambda: E.corrupted(torch.zeros(1, 1, 8, 8), "fog", 1, g()), "kind must be one of none, noise"),
    (lambda: E.corrupted(torch.zeros(1, 1, 8, 8), "blur", 2, g()), "severity must be in [0, 1], got 2"),
    (lambda: E.spaced(3, 4), "m must be in 1 … 3, got 4"),
    (lambda: E.search(torch.ones(1, 2).bool(), torch.tensor([3, 1]), 5), "places must rise"),
    (lambda: E.search(torch.ones(1, 2).bool(), torch.tensor([1]), 5), "one for each of 2 outcomes, got 1"),
]


@pytest.mark.bad_input
@pytest.mark.parametrize("call,message", BAD, ids=range(len(BAD)))
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError) as raised:
        call()
    assert message in str(raised.value)


@pytest.mark.parametrize("kind", E.CORRUPTIONS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_corruptions_in_half_precision_are_those_in_float32_rounded(kind, dtype):
    x = torch.rand(4, 1, 16, 16, generator=g()).to(dtype)
    found = E.corrupted(x, kind, 0.7, g(1))
    assert found.dtype == dtype and torch.equal(found, E.corrupted(x.float(), kind, 0.7, g(1)).to(dtype))


@pytest.mark.bad_input
def test_bytes_and_images_in_0_to_255_are_refused_by_name():
    for x in (torch.zeros(2, 1, 8, 8).byte(), 255 * torch.rand(2, 1, 8, 8, generator=g())):
        with pytest.raises(ValueError, match="images must be float in .0, 1."):
            E.corrupted(x, "blur", 0.5, g())
    with pytest.raises(ValueError, match="m must be in 1 … 3, got 4"):
        E.spaced_as_released(3, 4)
