"""Stacked training against one network after another; what varies and what does not."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from foundations.evaluation.helpers import g

from labcode.data.batches import mixed_seed
from labcode.foundations import evaluation as E
from labcode.foundations.evaluation import tiny_runs

SHORT = E.Schedule(epochs=3, batch=10, lr=0.1, warmup=0.3)


@pytest.fixture(scope="module")
def problem():
    x = torch.randn(2, 35, 6, generator=g(), dtype=torch.float64)
    return x, torch.arange(35) % 3


def net():
    return E.mlp(6, (5, 4), 3).double()


def test_a_stack_trains_as_torchs_sgd_trains_one_after_another(problem):
    versions, y = problem
    start = E.stacked(net, [3, 4, 5])
    made = E.train_many(net(), start, versions, y, [7, 8, 9], [1, 1, 2], SHORT, marks=(1,))
    assert list(made) == [1, 3]
    for run, (seed, order, choice) in enumerate(zip((3, 4, 5), (7, 8, 9), (1, 1, 2), strict=True)):
        torch.manual_seed(seed)
        alone = net()
        assert all(torch.equal(p, start[name][run]) for name, p in alone.named_parameters())
        shuffle, pick = (g(mixed_seed(s, i)) for i, s in enumerate((order, choice)))
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
    assert torch.equal(start["0.weight"], E.stacked(net, [3, 4, 5])["0.weight"]), "the start is left as it is"


def test_a_runs_result_does_not_depend_on_the_others_and_predictions_are_its_networks(problem):
    versions, y = problem
    both = E.train_many(net(), E.stacked(net, [3, 4]), versions, y, [7, 8], [1, 2], SHORT)[3]
    alone = E.train_many(net(), E.stacked(net, [4]), versions, y, [8], [2], SHORT)[3]
    for name in both:
        torch.testing.assert_close(both[name][1:], alone[name])
    said = E.predictions(net(), both, versions[0], chunk=8)
    model = net()
    for run in range(2):
        model.load_state_dict({name: p[run] for name, p in both.items()})
        assert torch.equal(said[run], model(versions[0]).argmax(1))


def test_a_dry_run_gives_every_mark(problem, monkeypatch):
    versions, y = problem
    monkeypatch.setenv("LABCODE_MAX_STEPS", "1")
    made = E.train_many(net(), E.stacked(net, [1]), versions, y, [1], [1], SHORT, marks=(1, 2))
    assert set(made) == {1, 2, 3} and made[3] is made[1]


def test_a_source_that_does_not_vary_has_one_seed_and_sources_are_apart():
    start, order, choice = E.varied((True, False, False), 4, 0)
    assert len(set(start)) == 4 and len(set(order)) == len(set(choice)) == 1
    everything = E.varied((True, True, True), 4, 0)
    assert everything[0] == start and len(set(sum(everything, []))) == 12
    assert order[0] not in everything[1], "the fixed seed is none of the varied ones"
    assert E.varied((True, True, True), 4, 1) != everything


@pytest.mark.parametrize("sources", list(itertools.product((False, True), repeat=3)))
def test_what_a_study_holds_fixed_is_what_training_is_given(sources, monkeypatch):
    """The start, the order and the choices as training has them, compared between runs one after another."""
    given = []

    def train(network, start, versions, labels, order, choice, schedule, marks):
        given.extend([start["0.weight"], torch.tensor(order)[:, None], torch.tensor(choice)[:, None]])
        return {schedule.epochs: start}

    monkeypatch.setattr(tiny_runs, "train_many", train)
    x, y = torch.rand(20, 64, generator=g()), torch.arange(20) % 10
    E.TinyRuns(x, y, x, 3)(sources, 4)
    for varies, rows in zip(sources, given, strict=True):
        alike = [torch.equal(a, b) for a, b in itertools.combinations(rows, 2)]
        assert not any(alike) if varies else all(alike)


def test_nudged_changes_one_weight_of_the_first_layer_in_every_run():
    start = E.stacked(net, [3, 3, 3])
    changed = E.nudged(start, 0.5)
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
    start, body = E.stacked(net, [3, 4]), E.stacked(net, [9])
    mixed = E.transplanted(start, body)
    for name in start:
        for run in range(2):
            wanted = start[name][run] if name.startswith("4.") else body[name][0]
            assert torch.equal(mixed[name][run], wanted)


def test_digits_share_geometry_whatever_the_noise_and_splits_share_none():
    clear, y = E.grey_digits(50, 3, "train", 0.0)
    noisy, same = E.grey_digits(50, 3, "train", 0.2)
    assert torch.equal(y, same) and abs(float((noisy - clear).std()) - 0.2) < 0.01
    assert 0 <= float(clear.min()) and float(clear.max()) <= 1 + 1e-6
    assert not torch.equal(clear, E.grey_digits(50, 3, "test", 0.0)[0])
    assert torch.equal(noisy, E.grey_digits(50, 3, "train", 0.2)[0])
    harder, labels = E.grey_digits(50, 3, "train", 0.0, harder=1.0)
    assert torch.equal(labels, y) and not torch.equal(harder, clear)


def test_digits_of_one_origin_are_of_one_class_and_traced_digits_are_the_grey_ones():
    x, y, origin = E.traced_digits(300, 3, "test", 0.1, 0.5)
    same = E.grey_digits(300, 3, "test", 0.1, 0.5)
    assert torch.equal(x, same[0]) and torch.equal(y, same[1])
    for one in origin.unique():
        assert len(y[origin == one].unique()) == 1
    assert len(origin.unique()) < 300


def test_moved_averages_a_pixel_with_its_neighbour():
    x = torch.rand(2, 64, generator=g())
    versions, grid = E.moved(x).view(5, 2, 8, 8), x.view(2, 8, 8)
    assert torch.equal(versions[0], grid)
    for version, (row, column) in zip(versions[1:], ((-1, 0), (1, 0), (0, -1), (0, 1)), strict=True):
        for i, j in itertools.product(range(1, 7), repeat=2):
            torch.testing.assert_close(version[:, i, j], (grid[:, i, j] + grid[:, i + row, j + column]) / 2)


def test_kinds_of_runs_in_one_stack_are_those_of_a_stack_each():
    x, y = E.grey_digits(60, 0, "fit")
    tiny = E.TinyRuns(x, y, E.grey_digits(40, 1, "validation")[0], 5, E.Schedule(epochs=2, batch=20))
    kinds = {"start": (1, 0, 0, 0.0), "order": (0, 1, 0, 0.0), "weight": (0, 0, 0, 0.5), "nothing": (0, 0, 0, 0.0)}
    made = tiny.each(kinds, 3)
    assert list(made) == list(kinds)
    for name, (*sources, nudge) in kinds.items():
        alone = E.last(tiny(tuple(map(bool, sources)), 3, nudge=nudge))
        assert made[name].shape == (3, 40) and torch.equal(made[name], alone), name
    assert torch.equal(made["nothing"][0], made["nothing"][1]) and not torch.equal(made["order"][0], made["order"][1])


def test_tiny_runs_differ_in_what_is_varied_only():
    x, y = E.grey_digits(60, 1)
    tiny = E.TinyRuns(x, y, E.grey_digits(40, 1, "test")[0], 5, E.Schedule(epochs=2, batch=20))
    fixed = tiny((False,) * 3, 3)[2]
    assert fixed.shape == (3, 40) and torch.equal(fixed[0], fixed[1]) and torch.equal(fixed[0], fixed[2])
    for sources in ((True, False, False), (False, True, False), (False, False, True)):
        made = tiny(sources, 3)[2]
        assert not torch.equal(made[0], made[1]) and torch.equal(made, tiny(sources, 3)[2])
    assert not torch.equal(tiny((False,) * 3, 3, nudge=3.0)[2][0], fixed[0])
    assert not torch.equal(tiny((False,) * 3, 3, body=tiny.body(x, y))[2][0], fixed[0])
    torch.testing.assert_close(tiny.softmax(0).sum(1), torch.ones(40))


@pytest.mark.bad_input
def test_training_names_the_argument(problem):
    versions, y = problem
    start = E.stacked(net, [1, 2])
    with pytest.raises(ValueError, match="order must be one seed a run, 2, got 1"):
        E.train_many(net(), start, versions, y, [1], [1, 2], SHORT)
    with pytest.raises(ValueError, match="as many images as labels, 34, and a batch, got 35"):
        E.train_many(net(), start, versions, y[1:], [1, 2], [1, 2], SHORT)


BAD = [
    (lambda: E.Schedule(epochs=0), "epochs must be positive, got 0"),
    (lambda: E.Schedule(momentum=1.0), "momentum and warmup must be in"),
    (lambda: E.grey_digits(3, noise=-1), "noise must be at least 0, got -1"),
    (lambda: E.grey_digits(3, harder=-1), "harder must be at least 0, got -1"),
    (lambda: E.stacked(net, []), "seeds must name at least one run"),
]


@pytest.mark.bad_input
@pytest.mark.parametrize("call,message", BAD, ids=range(len(BAD)))
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError) as raised:
        call()
    assert message in str(raised.value)


def test_classes_are_any_integers():
    x, y = E.grey_digits(120, 3)
    names = torch.tensor([10**8, -7, 3, 44, 5, 60, 7, 81, 9, 10])
    named = E.TinyRuns(x, names[y], x[:30], 1, SHORT)
    found = named(runs=2, hidden=(8,))[3]
    assert named.classes == 10 and set(found.unique().tolist()) <= set(names.tolist())
    order = names.argsort()
    sorted_y = order.argsort()[y]
    same = E.TinyRuns(x, sorted_y, x[:30], 1, SHORT)(runs=2, hidden=(8,))[3]
    assert torch.equal(found, names[order][same]), "classes in ascending order of their numbers"
    body, wanted = named.body(x[:60], names[y[:60]]), E.TinyRuns(x, sorted_y, x[:30], 1, SHORT)
    assert torch.equal(body["0.weight"], wanted.body(x[:60], sorted_y[:60])["0.weight"])


@pytest.mark.bad_input
def test_digits_that_are_not_finite_are_refused_by_name():
    x, y = E.grey_digits(60, 3)
    odd = x.clone()
    odd[4, 5] = float("nan")
    for args, name in (((odd, y, x), "images"), ((x, y, odd), "test")):
        with pytest.raises(ValueError, match=f"{name} must be finite"):
            E.TinyRuns(*args, 1, SHORT)
