"""Stacked training against one network after another; the estimators against NumPy, enumeration and closed forms."""

import itertools
import math
import statistics

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Generator

from labcode.foundations import runs as R

SHORT = R.Schedule(epochs=3, batch=10, lr=0.1, warmup=0.3)


def g(seed=0):
    return Generator().manual_seed(seed)


def outcomes(runs=7, images=9, seed=0):
    """Outcomes with runs that are truly better or worse, and images that are harder or easier."""
    skill, ease = torch.rand(runs, 1, generator=g(seed)), torch.rand(1, images, generator=g(seed + 1))
    return torch.rand(runs, images, generator=g(seed + 2)) < (skill + ease) / 2


@pytest.fixture(scope="module")
def problem():
    x = torch.randn(2, 35, 6, generator=g(), dtype=torch.float64)
    return x, torch.arange(35) % 3


def net():
    return R.mlp(6, (5, 4), 3).double()


def test_a_stack_trains_as_torchs_sgd_trains_one_after_another(problem):
    versions, y = problem
    start = R.stacked(net, [3, 4, 5])
    made = R.train_many(net(), start, versions, y, [7, 8, 9], [1, 1, 2], SHORT, marks=(1,))
    assert list(made) == [1, 3]
    for run, (seed, order, choice) in enumerate(zip((3, 4, 5), (7, 8, 9), (1, 1, 2), strict=True)):
        torch.manual_seed(seed)
        alone = net()
        assert all(torch.equal(p, start[name][run]) for name, p in alone.named_parameters())
        shuffle, pick = (g(R.mixed_seed(s, i)) for i, s in enumerate((order, choice)))
        optimiser = torch.optim.SGD(alone.parameters(), lr=1.0, momentum=SHORT.momentum, nesterov=True)
        for epoch in range(3):
            places, shown = torch.randperm(35, generator=shuffle), torch.randint(2, (35,), generator=pick)
            for i in range(3):  # the last five images of the order are left out
                rows = places[10 * i : 10 * i + 10]
                x = torch.stack([versions[shown[r], r] for r in rows])
                loss = F.cross_entropy(alone(x), y[rows])
                step = 3 * epoch + i
                optimiser.param_groups[0]["lr"] = 0.1 * min(1, (step + 1) / 2.7) * (1 - step / 9)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
            if epoch in (0, 2):
                for name, p in alone.named_parameters():
                    torch.testing.assert_close(made[epoch + 1][name][run], p.detach())
    assert torch.equal(start["0.weight"], R.stacked(net, [3, 4, 5])["0.weight"]), "the start is left as it is"


def test_a_runs_result_does_not_depend_on_the_others_and_predictions_are_its_networks(problem):
    versions, y = problem
    both = R.train_many(net(), R.stacked(net, [3, 4]), versions, y, [7, 8], [1, 2], SHORT)[3]
    alone = R.train_many(net(), R.stacked(net, [4]), versions, y, [8], [2], SHORT)[3]
    for name in both:
        torch.testing.assert_close(both[name][1:], alone[name])
    said = R.predictions(net(), both, versions[0], chunk=8)
    model = net()
    for run in range(2):
        model.load_state_dict({name: p[run] for name, p in both.items()})
        assert torch.equal(said[run], model(versions[0]).argmax(1))


def test_a_dry_run_gives_every_mark(problem, monkeypatch):
    versions, y = problem
    monkeypatch.setenv("LABCODE_MAX_STEPS", "1")
    made = R.train_many(net(), R.stacked(net, [1]), versions, y, [1], [1], SHORT, marks=(1, 2))
    assert set(made) == {1, 2, 3} and made[3] is made[1]


def test_a_source_that_does_not_vary_has_one_seed_and_sources_are_apart():
    start, order, choice = R.varied((True, False, False), 4, 0)
    assert len(set(start)) == 4 and len(set(order)) == len(set(choice)) == 1
    everything = R.varied((True, True, True), 4, 0)
    assert everything[0] == start and len(set(sum(everything, []))) == 12
    assert order[0] not in everything[1], "the fixed seed is none of the varied ones"
    assert R.varied((True, True, True), 4, 1) != everything


@pytest.mark.parametrize("sources", list(itertools.product((False, True), repeat=3)))
def test_what_a_study_holds_fixed_is_what_training_is_given(sources, monkeypatch):
    """The start, the order and the choices as training has them, compared between runs one after another."""
    given = []

    def train(network, start, versions, labels, order, choice, schedule, marks):
        given.extend([start["0.weight"], torch.tensor(order)[:, None], torch.tensor(choice)[:, None]])
        return {schedule.epochs: start}

    monkeypatch.setattr(R, "train_many", train)
    x, y = torch.rand(20, 64, generator=g()), torch.arange(20) % 10
    R.TinyRuns(x, y, x, 3)(sources, 4)
    for varies, rows in zip(sources, given, strict=True):
        alike = [torch.equal(a, b) for a, b in itertools.combinations(rows, 2)]
        assert not any(alike) if varies else all(alike)


def test_nudged_changes_one_weight_of_the_first_layer_in_every_run():
    start = R.stacked(net, [3, 3, 3])
    changed = R.nudged(start, 0.5)
    places = []
    for run in range(3):
        apart = {name: (changed[name][run] - p[run]) for name, p in start.items()}
        (place,) = apart["0.weight"].nonzero().tolist()
        assert float(apart["0.weight"].sum()) == pytest.approx(0.5)
        assert all(not difference.any() for name, difference in apart.items() if name != "0.weight")
        places.append(tuple(place))
    assert len(set(places)) == 3
    assert not torch.equal(start["0.weight"], changed["0.weight"])


def test_transplanted_keeps_the_head_and_takes_the_rest():
    start, body = R.stacked(net, [3, 4]), R.stacked(net, [9])
    mixed = R.transplanted(start, body)
    for name in start:
        for run in range(2):
            wanted = start[name][run] if name.startswith("4.") else body[name][0]
            assert torch.equal(mixed[name][run], wanted)


def test_digits_share_geometry_whatever_the_noise_and_splits_share_none():
    clear, y = R.grey_digits(50, 3, "train", 0.0)
    noisy, same = R.grey_digits(50, 3, "train", 0.2)
    assert torch.equal(y, same) and abs(float((noisy - clear).std()) - 0.2) < 0.01
    assert 0 <= float(clear.min()) and float(clear.max()) <= 1 + 1e-6
    assert not torch.equal(clear, R.grey_digits(50, 3, "test", 0.0)[0])
    assert torch.equal(noisy, R.grey_digits(50, 3, "train", 0.2)[0])


def test_moved_averages_a_pixel_with_its_neighbour():
    x = torch.rand(2, 64, generator=g())
    versions, grid = R.moved(x).view(5, 2, 8, 8), x.view(2, 8, 8)
    assert torch.equal(versions[0], grid)
    for version, (row, column) in zip(versions[1:], ((-1, 0), (1, 0), (0, -1), (0, 1)), strict=True):
        for i, j in itertools.product(range(1, 7), repeat=2):
            torch.testing.assert_close(version[:, i, j], (grid[:, i, j] + grid[:, i + row, j + column]) / 2)


def test_variances_are_numpys():
    c = outcomes()
    a = c.numpy().astype(float)
    n = a.shape[1]
    assert R.test_set_variance(c) == pytest.approx(np.var(a.mean(1), ddof=1))
    shares = a.mean(0)
    assert R.coin_variance(c) == pytest.approx(sum(p * (1 - p) for p in shares) * 7 / 6 / n**2)
    covariance = np.cov(a.T)
    apart = [covariance[i, j] for i in range(n) for j in range(n) if i != j]
    assert R.distribution_variance(c) == pytest.approx(np.mean(apart))


def test_the_closed_form_is_the_mean_over_all_halvings():
    c = outcomes(runs=5, images=6)
    a, values = c.numpy().astype(float), []
    for first in itertools.combinations(range(6), 3):
        second = [i for i in range(6) if i not in first]
        values.append(np.cov(a[:, list(first)].mean(1), a[:, second].mean(1))[0, 1])
    assert R.distribution_variance(c) == pytest.approx(np.mean(values))
    assert R.half_split_covariance(c, 1, g(3)) in [pytest.approx(v) for v in values]
    assert R.half_split_covariance(c, 3000, g()) == pytest.approx(np.mean(values), abs=0.003)


def test_the_estimate_is_unbiased_and_coins_have_no_distribution_variance():
    """Runs of known accuracy: its variance is found from small test sets, whatever the coins add."""
    true, coins = [], []
    for seed in range(300):
        skill = 0.5 + 0.2 * torch.rand(20, 1, generator=g(seed))
        true.append(R.distribution_variance(torch.rand(20, 30, generator=g(1000 + seed)) < skill))
        coins.append(R.distribution_variance(torch.rand(20, 30, generator=g(2000 + seed)) < 0.6))
    for values, wanted in ((true, 0.2**2 / 12), (coins, 0.0)):
        error = statistics.stdev(values) / len(values) ** 0.5
        assert abs(statistics.fmean(values) - wanted) < 4 * error < 0.001


def test_calibrated_votes_have_the_formulas_variance():
    shares = [0.1, 0.35, 0.5, 0.8]  # of the votes for class 1, which is right as often
    error = statistics.fmean(2 * q * (1 - q) for q in shares)
    exact = sum(q * (1 - q) for q in shares) / len(shares) ** 2
    assert R.calibrated_variance(error, len(shares)) == pytest.approx(exact)


def test_calibration_is_the_loop_over_bins():
    shares = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.3, 0.7], [0.25, 0.75]], dtype=torch.float64)
    labels = torch.tensor([0, 1, 1, 0])
    pairs = zip(shares.tolist(), labels, strict=True)
    rows = [(q, float(label == k), q) for row, label in pairs for k, q in enumerate(row)]
    bins = {}
    for q, right, weight in rows:
        bins.setdefault(int(q * 4), []).append((q, right, weight))
    total, wanted = sum(w for *_, w in rows), 0.0
    confidence, accuracy, weight, error = R.calibration(shares, labels, bins=4)
    assert len(confidence) == len(bins)
    for i, key in enumerate(sorted(bins)):
        mass = sum(w for *_, w in bins[key])
        q, right = (sum(r[j] * r[2] for r in bins[key]) / mass for j in (0, 1))
        assert (float(confidence[i]), float(accuracy[i]), float(weight[i])) == pytest.approx((q, right, mass / total))
        wanted += mass / total * abs(q - right)
    assert error == pytest.approx(wanted)
    sure = F.one_hot(labels, 2).double()
    assert R.calibration(sure, labels)[3] == 0 and R.calibration(sure.flip(1), labels)[3] == 1
    votes = R.vote_shares(torch.tensor([[0, 1], [0, 2]]), 3)
    assert votes.tolist() == [[1, 0, 0], [0, 0.5, 0.5]]


@pytest.mark.parametrize("k", [1, 2, 4, 6])
def test_best_of_is_the_mean_over_all_subsets(k):
    values = [0.3, 0.9, 0.2, 0.8, 0.85, 0.1]
    assert R.best_of(values, k) == pytest.approx(statistics.fmean(map(max, itertools.combinations(values, k))))


def test_the_largest_of_k_gaussian_numbers_has_its_known_means():
    known = {1: 0.0, 2: 1 / math.sqrt(math.pi), 3: 1.5 / math.sqrt(math.pi), 10: 1.53875, 10_000: 3.85}
    for k, value in known.items():
        assert R.gaussian_best(k) == pytest.approx(value, abs=2e-3)


def test_scanned_picks_on_one_set_and_looks_at_the_rest():
    c = outcomes(6, 20)
    a = c.double().numpy()
    leads = []
    for lo in (0, 5, 10, 15):
        here, rest = a[:, lo : lo + 5].mean(1), np.delete(a, range(lo, lo + 5), 1).mean(1)
        best = here.argmax()
        leads.append((here[best] - here.mean(), rest[best] - rest.mean()))
    assert R.scanned(c, 5) == pytest.approx(tuple(np.mean(leads, 0)))
    assert R.over_sets(R.coin_variance, c, 6) == pytest.approx(
        statistics.fmean(R.coin_variance(c[:, i : i + 6]) for i in (0, 6, 12))
    )


def test_tiny_runs_differ_in_what_is_varied_only():
    x, y = R.grey_digits(60, 1)
    tiny = R.TinyRuns(x, y, R.grey_digits(40, 1, "test")[0], 5, R.Schedule(epochs=2, batch=20))
    fixed = tiny((False,) * 3, 3)[2]
    assert fixed.shape == (3, 40) and torch.equal(fixed[0], fixed[1]) and torch.equal(fixed[0], fixed[2])
    for sources in ((True, False, False), (False, True, False), (False, False, True)):
        made = tiny(sources, 3)[2]
        assert not torch.equal(made[0], made[1]) and torch.equal(made, tiny(sources, 3)[2])
    assert not torch.equal(tiny((False,) * 3, 3, nudge=3.0)[2][0], fixed[0])
    assert not torch.equal(tiny((False,) * 3, 3, body=tiny.body(x, y))[2][0], fixed[0])
    torch.testing.assert_close(tiny.softmax(0).sum(1), torch.ones(40))


BAD = [
    (lambda: R.Schedule(epochs=0), "epochs must be positive, got 0"),
    (lambda: R.Schedule(momentum=1.0), "momentum and warmup must be in"),
    (lambda: R.grey_digits(3, noise=-1), "noise must be at least 0, got -1"),
    (lambda: R.stacked(net, []), "seeds must name at least one run"),
    (lambda: R.test_set_variance(torch.ones(1, 5) > 0), "correct must be (runs, images)"),
    (lambda: R.coin_variance(torch.ones(5) > 0), "correct must be (runs, images)"),
    (lambda: R.half_split_covariance(outcomes(), 0, g()), "splits must be at least 1, got 0"),
    (lambda: R.calibrated_variance(1.5, 10), "error must be in [0, 1]"),
    (lambda: R.calibration(torch.ones(3, 2), torch.zeros(2).long()), "shares must be one row an image, 2, got 3"),
    (lambda: R.over_sets(R.coin_variance, outcomes(), 10), "size must be in 2 … 9, got 10"),
    (lambda: R.scanned(outcomes(), 5), "size must be at most half of the 9 images, got 5"),
    (lambda: R.best_of([1.0], 2), "k must be in 1 … 1, got 2"),
    (lambda: R.gaussian_best(0), "k must be at least 1, got 0"),
]


@pytest.mark.bad_input
@pytest.mark.parametrize("call,message", BAD, ids=range(len(BAD)))
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError) as raised:
        call()
    assert message in str(raised.value)


@pytest.mark.bad_input
def test_training_names_the_argument(problem):
    versions, y = problem
    start = R.stacked(net, [1, 2])
    with pytest.raises(ValueError, match="order must be one seed a run, 2, got 1"):
        R.train_many(net(), start, versions, y, [1], [1, 2], SHORT)
    with pytest.raises(ValueError, match="as many images as labels, 34, and a batch, got 35"):
        R.train_many(net(), start, versions, y[1:], [1, 2], [1, 2], SHORT)
