from functools import partial

import numpy as np
import pytest
import torch
from scipy import stats

from labcode.imperfect_labels import label_sets as made
from labcode.imperfect_labels.label_sets import LabelSet, several, transition

K = 5
LABELS = torch.arange(10000) % K


def g(seed=0):
    return torch.Generator().manual_seed(seed)


def counted(labels, given, k=K):
    """Share of each given label among the samples of each class."""
    table = torch.zeros(k, k, dtype=torch.float64)
    for a, b in zip(labels.tolist(), given.tolist(), strict=True):
        table[a, b] += 1
    return table / table.sum(1, keepdim=True)


def test_transitions_in_closed_form():
    t = transition("symmetric", 4, 0.3)
    assert t.diag().tolist() == pytest.approx([0.7] * 4) and float(t[1, 3]) == pytest.approx(0.1)
    t = transition("pair", 3, 0.4)
    np.testing.assert_allclose(t, [[0.6, 0.4, 0], [0, 0.6, 0.4], [0.4, 0, 0.6]], atol=1e-15)
    t = transition("uniform", 4, 0.8)
    assert float(t[0, 0]) == pytest.approx(0.4) and float(t[2, 0]) == pytest.approx(0.2)
    for kind in ("symmetric", "pair", "uniform"):
        for rate in (0, 0.37, 1):
            torch.testing.assert_close(transition(kind, 7, rate).sum(1), torch.ones(7).double())


def test_flip_follows_the_matrix_row_by_row():
    matrix = torch.tensor(np.random.default_rng(0).dirichlet(np.ones(K), K))
    found = made.flip(LABELS, matrix, generator=g())
    assert (counted(LABELS, found.labels) - matrix).abs().max() < 0.04
    assert torch.equal(found.truth, LABELS) and not found.foreign.any()
    assert torch.equal(found.wrong, found.labels != LABELS) and torch.equal(found.flipped, found.wrong)
    assert len(found) == 10000
    assert not made.flip(LABELS, torch.eye(K), generator=g()).wrong.any()
    assert made.flip(LABELS, transition("pair", K, 1), generator=g()).labels.equal((LABELS + 1) % K)
    assert len(made.flip(LABELS[:0], matrix, generator=g())) == 0


def test_instance_noise_has_its_rate_and_follows_the_image():
    x = torch.randn(40, 8, generator=g(1)).repeat_interleave(250, 0)  # each image 250 times, with one label
    labels = torch.arange(40).repeat_interleave(250) % K
    found = made.instance_noise(x, labels, 0.4, K, generator=g())
    assert float(found.wrong.double().mean()) == pytest.approx(0.4, abs=0.02)
    again = g()  # the same draws by hand: a rate each, then the projections
    torch.rand(len(x), dtype=torch.float64, generator=again)
    project = torch.randn(K, 8, K, generator=again)
    for i in (0, 7, 33):
        part = slice(250 * i, 250 * i + 250)
        y = i % K
        wrong = [c for c in range(K) if c != y]
        score = (x[250 * i] @ project[y])[wrong].softmax(0).double()
        given = found.labels[part][found.wrong[part]]
        share = torch.tensor([float((given == c).double().mean()) for c in wrong])
        assert (share - score).abs().max() < 0.2  # about a hundred wrong ones each


def test_instance_noise_rates_are_a_truncated_normal(monkeypatch):
    seen = []
    monkeypatch.setattr(made, "_draw", lambda shares, generator: seen.append(shares) or LABELS)
    for rate, spread in ((0.05, 0.1), (0.5, 0.3)):
        made.instance_noise(torch.zeros(len(LABELS), 2), LABELS, rate, K, spread=spread, generator=g())
        own = 1 - seen[-1].gather(1, LABELS[:, None])[:, 0]
        law = stats.truncnorm(-rate / spread, (1 - rate) / spread, rate, spread)
        assert stats.kstest(own.numpy(), law.cdf).pvalue > 0.01
        torch.testing.assert_close(seen[-1].sum(1), torch.ones(len(LABELS)).double())


def test_annotators_answer_by_their_matrices_and_where_asked():
    matrices = torch.stack([transition("symmetric", K, 0.5), transition("pair", K, 0.3), torch.eye(K).double()])
    said = made.annotators(LABELS, matrices, 0.4, generator=g())
    assert said.shape == (10000, 3)
    asked = said >= 0
    assert asked.any(1).all() and torch.equal(said[~asked], torch.full_like(said[~asked], -1))
    nobody = 0.6**3  # these are given to one of three
    assert asked.double().mean(0).tolist() == pytest.approx([0.4 + nobody / 3] * 3, abs=0.02)
    for r in range(3):
        found = counted(LABELS[asked[:, r]], said[asked[:, r], r])
        assert (found - matrices[r]).abs().max() < 0.05
    both = (said[:, :2] != LABELS[:, None]).double()[(asked[:, 0] & asked[:, 1])]
    assert float((both[:, 0] * both[:, 1]).mean()) == pytest.approx(0.5 * 0.3, abs=0.03)  # independent
    assert (made.annotators(LABELS, matrices, 1.0, generator=g()) >= 0).all()


def test_confusions_have_their_accuracy_and_random_mistakes():
    one = made.confusion(0.3, K, generator=g())
    assert one.shape == (K, K)
    many = made.confusion([0.2, 1.0] * 300, K, generator=g())
    torch.testing.assert_close(many.sum(-1), torch.ones(600, K).double())
    diagonal = many.diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(diagonal, torch.tensor([0.2, 1.0] * 300).double()[:, None].expand(600, K))
    share = (many[::2] / 0.8)[:, 0, 1].numpy()  # one of four parts of a flat Dirichlet: Beta(1, 3)
    assert stats.kstest(share, stats.beta(1, K - 2).cdf).pvalue > 0.01


def test_web_noise_keeps_foreign_ones_behind():
    found = made.web_noise(LABELS, 0.25, 2000, K, generator=g())
    assert len(found) == 12000 and found.foreign.nonzero()[:, 0].equal(torch.arange(10000, 12000))
    assert (found.truth[10000:] == -1).all() and found.truth[:10000].equal(LABELS)
    assert found.wrong[10000:].all() and not found.flipped[10000:].any()
    assert float(found.flipped[:10000].double().mean()) == pytest.approx(0.25, abs=0.02)
    assert (found.labels[10000:].bincount(minlength=K) / 2000 - 0.2).abs().max() < 0.04
    assert len(made.web_noise(LABELS[:0], 0.25, 3, K, generator=g())) == 3


def test_tails_have_their_profile():
    assert made.tail_counts(3, 100, 100).tolist() == [100, 10, 1]
    assert made.tail_counts(3, 100, 1 / 100).tolist() == [1, 10, 100]
    assert made.tail_counts(3, 10, 3).tolist() == [10, 6, 3]  # 5.77 in the middle
    assert made.tail_counts(4, 50, 1).tolist() == [50] * 4
    assert made.tail_counts(2, 3, 1000).tolist() == [3, 1] and made.tail_counts(1, 3, 10).tolist() == [3]
    counts = made.tail_counts(K, 400, 20)
    places = made.tail(LABELS, counts, generator=g())
    assert LABELS[places].bincount().equal(counts) and len(places.unique()) == len(places)
    assert len(LABELS[places][:40].unique()) > 1  # in random order
    assert made.tail(LABELS, [0, 2, 0, 0, 1], generator=g()).shape == (3,)


def test_few_labels_are_of_each_class_in_turn():
    places = made.few_labels(LABELS.flip(0), 4, generator=g())
    assert LABELS.flip(0)[places].equal(torch.arange(4 * K) % K) and len(places.unique()) == 4 * K


@pytest.mark.parametrize(
    "make",
    [
        partial(made.flip, LABELS, transition("symmetric", K, 0.4)),
        partial(made.instance_noise, torch.ones(len(LABELS), 3), LABELS, 0.3, K),
        partial(made.annotators, LABELS, torch.eye(K).repeat(2, 1, 1), 0.5),
        partial(made.confusion, [0.3, 0.4], K),
        partial(made.web_noise, LABELS, 0.3, 7, K),
        partial(made.tail, LABELS, [5, 4, 3, 2, 1]),
        partial(made.few_labels, LABELS, 3),
    ],
)
def test_several_draws_are_stacked_differ_and_repeat(make):
    def parts(x):
        return (x.labels, x.truth, x.foreign) if isinstance(x, LabelSet) else (x,)

    state = torch.get_rng_state()
    three, two = several(3, make, generator=g()), several(2, make, generator=g())
    assert torch.equal(torch.get_rng_state(), state)  # nothing but the generator is drawn from
    one = make(generator=g())
    for a, b, c in zip(parts(three), parts(two), parts(one), strict=True):
        assert a.shape == (3, *c.shape) and torch.equal(a[:2], b) and torch.equal(a[0], c)
    assert not torch.equal(parts(three)[0][0], parts(three)[0][1])
    if isinstance(three, LabelSet):
        assert three.wrong.shape == three.labels.shape and len(three) == len(one)


HALF = torch.full((2, 2), 0.5)
TWO = torch.tensor([0, 1])


@pytest.mark.bad_input
@pytest.mark.parametrize(
    "work, words",
    [
        (lambda: transition("pairs", 3, 0.1), "kind must be .* got 'pairs'"),
        (lambda: transition("pair", 1, 0.1), "classes must be at least 2, got 1"),
        (lambda: transition("pair", 3, 1.1), r"rate must be in \[0, 1\], got 1.1"),
        (lambda: made.flip(TWO, HALF * 2, generator=g()), "matrix must have rows of shares .* got sums 2"),
        (lambda: made.flip(TWO, HALF[:1], generator=g()), r"matrix must be square, got shape \(1, 2\)"),
        (lambda: made.flip(TWO * torch.nan, HALF, generator=g()), "labels must hold integers"),
        (lambda: made.flip(TWO, HALF * torch.nan, generator=g()), "matrix must be finite"),
        (lambda: made.flip(TWO + 1, HALF, generator=g()), "labels must lie in 0 … 1, got 1 … 2"),
        (lambda: made.flip(TWO, HALF, generator=0), "generator must be a torch.Generator of the CPU, got 0"),
        (lambda: made.instance_noise(torch.ones(3, 2), TWO, 0.1, 2, generator=g()), r"x must be \(n, d\) .* \(3, 2\)"),
        (lambda: made.instance_noise(torch.ones(2, 2), TWO, -1, 2, generator=g()), "rate must be .* got -1"),
        (
            lambda: made.instance_noise(torch.ones(2, 2), TWO, 0.1, 2, spread=0, generator=g()),
            "spread must be positive, got 0",
        ),
        (lambda: made.annotators(TWO, HALF, 0.5, generator=g()), r"matrices must be .* got \(2, 2\)"),
        (lambda: made.annotators(TWO, HALF[None], 0, generator=g()), r"coverage must be in \(0, 1\], got 0"),
        (lambda: made.confusion([0.2, 1.2], 3, generator=g()), r"accuracy must hold .* got \[0.2, 1.2\]"),
        (lambda: made.web_noise(TWO, 0.2, -1, 2, generator=g()), "n_foreign must be at least 0, got -1"),
        (lambda: made.web_noise(TWO, 2, 1, 2, generator=g()), "rate_wrong must be .* got 2"),
        (lambda: made.tail_counts(3, 0, 2), "largest must be at least 1, got 0"),
        (lambda: made.tail_counts(3, 5, 0), "ratio must be positive, got 0"),
        (lambda: made.tail(TWO, [1, 2], generator=g()), "counts must be at most the 1 samples of class 1, got 2"),
        (lambda: made.tail(TWO, [1, -2], generator=g()), r"counts must be a number .* got \[1, -2\]"),
        (lambda: made.few_labels(TWO, 0, generator=g()), "per_class must be at least 1, got 0"),
        (lambda: made.few_labels(TWO, 2, generator=g()), "per_class must be at most the 1 samples of class 0, got 2"),
        (lambda: several(0, made.few_labels, TWO, 1, generator=g()), "draws must be at least 1, got 0"),
    ],
)
def test_bad_input_is_named(work, words):
    with pytest.raises(ValueError, match=words):
        work()
