"""Two sources in three parts, their statistics and the table, by hand and against NumPy."""


import pytest
import torch
from foundations.evaluation.helpers import g

from labcode.data.benchmarks import Benchmark
from labcode.foundations import evaluation as E
from labcode.foundations.evaluation import cinic_10


def rows(x):
    return {tuple(row) for row in x.flatten(1).tolist()}


def test_glyphs_are_ten_different_figures_in_every_font():
    x = E.glyphs()
    assert x.shape == (len(E.FONTS), 10, 32, 32) and len(set(E.FONTS)) == 21
    assert x.min() >= 0 and x.max() <= 1 and x.amax((2, 3)).min() > 0.9
    for font in x:
        assert len(rows(font)) == 10
    inked = (x > 0).any(3).sum(2), (x > 0).any(2).sum(2)
    assert torch.stack(inked).amax(0).sub(28).abs().max() <= 1  # the longer side fills what the margin leaves


def test_parts_share_neither_a_handwritten_digit_nor_a_font(monkeypatch):
    parts = [E.two_sources(part, seed=3) for part in E.PARTS]
    seen = [rows(p["handwritten"][0]) for p in parts]
    assert not seen[0] & seen[1] and not seen[0] & seen[2] and not seen[1] & seen[2]
    for part in parts:
        assert {k: (len(x), len(y)) for k, (x, y) in part.items()} == dict.fromkeys(part, (599, 599))
    # paint every font in a grey of its own: a part's greys tell which fonts it took
    grey = torch.linspace(0.1, 1, len(E.FONTS))[:, None, None, None].expand(-1, 10, 32, 32)
    monkeypatch.setattr(cinic_10, "glyphs", lambda: grey)
    monkeypatch.setattr(cinic_10.torch, "rand", lambda *shape, generator=None: torch.full(shape, 0.5))
    monkeypatch.setattr(cinic_10.torch, "randn", lambda *shape, generator=None: torch.zeros(shape))
    fonts = []
    for part in E.PARTS:
        x, _ = E.printed_digits(400, 0, part)
        found = (x[:, 0, 4, 4] / 0.75)[:, None] - grey[:, 0, 0, 0]
        assert found.abs().amin(1).max() < 1e-5
        fonts.append(set(found.abs().argmin(1).tolist()))
    assert [len(f) for f in fonts] == [7, 7, 7] and len(set.union(*fonts)) == 21


@pytest.mark.bad_input
def test_printed_digits_refuse_what_they_cannot_draw():
    with pytest.raises(ValueError, match="part must be one of train, validation, test, got 'fit'"):
        E.printed_digits(3, 0, "fit")
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        E.printed_digits(0)


def test_printed_digits_follow_the_seed_and_are_even():
    (x, y), (same, _), (other, _) = (E.printed_digits(50, seed) for seed in (1, 1, 2))
    assert torch.equal(x, same) and not torch.equal(x, other)
    assert torch.bincount(y).tolist() == [5] * 10 and x.min() >= 0 and x.max() <= 1


def test_pooled_takes_the_same_share_of_every_source():
    sources = {"a": (torch.zeros(6, 1, 2, 2), torch.zeros(6).long())}
    sources["b"] = torch.ones(4, 1, 2, 2), torch.ones(4).long()
    x, y = E.pooled(sources, 0.5)
    assert y.tolist() == [0, 0, 0, 1, 1] and torch.equal(x[:, 0, 0, 0].long(), y)
    assert len(E.pooled(sources)[0]) == 10


def test_pixel_statistics_and_standardised_are_numpys():
    x = torch.rand(5, 3, 4, 4, generator=g())
    found = E.pixel_statistics(x)
    for c in range(3):
        pixels = x[:, c].double().numpy().ravel()
        assert (found["mean"][c], found["std"][c]) == pytest.approx((pixels.mean(), pixels.std(ddof=1)))
    level = E.standardised(10 * x + 3)
    torch.testing.assert_close(level.mean((2, 3)), torch.zeros(5, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(E.standardised(2 * x), E.standardised(5 * x + 1), atol=1e-2, rtol=0)
    assert E.standardised(torch.ones(1, 1, 4, 4)).abs().max() == 0


def test_source_matrix_by_hand():
    """A learner that always says the label it saw first."""

    def learn(x, y):
        return lambda new: y[:1].expand(len(new))

    image = torch.zeros(4, 1, 1, 1)
    train = {"a": (image, torch.tensor([1, 0, 0, 0])), "b": (image, torch.tensor([2, 2, 2, 2]))}
    test = {"a": (image, torch.tensor([1, 1, 1, 2])), "b": (image, torch.tensor([2, 2, 1, 0]))}
    wanted = {("a", "a"): 0.75, ("a", "b"): 0.25, ("b", "a"): 0.25, ("b", "b"): 0.5}
    assert E.source_matrix(learn, train, test) == wanted


def test_rank_agreement_is_one_less_six_sums_of_squared_rank_differences():
    a, b = [0.3, 0.1, 0.9, 0.5, 0.2], [3.0, 2.0, 5.0, 1.0, 4.0]
    ranks = [sorted(v).index(u) for u, v in ((u, a) for u in a)], [sorted(b).index(u) for u in b]
    wanted = 1 - 6 * sum((i - j) ** 2 for i, j in zip(*ranks, strict=True)) / (5 * 24)
    assert E.rank_agreement(a, b) == pytest.approx(wanted) and E.rank_agreement(a, a) == pytest.approx(1)
    assert E.rank_agreement(a, [1.0] * 5) == 0


def test_matched_sources_keep_shared_classes_under_one_label_and_shrink_the_second():
    def made(names, size, n, seed):
        y = torch.randint(len(names), (n,), generator=g(seed))
        x = (20 * y[:, None, None, None] + torch.randint(9, (n, 3, size, size), generator=g(seed))).to(torch.uint8)
        return Benchmark(x[:n // 2], y[:n // 2], x[n // 2 :], y[n // 2 :], "made", names)

    first = made(("plane", "automobile", "frog", "cat"), 4, 90, 0)
    second = made(("cat", "car", "monkey", "plane"), 12, 60, 1)
    parts = [E.matched_sources(first, second, part, seed=5) for part in E.PARTS]
    theirs = {0: 3, 1: 1, 3: 0}
    for part in parts:
        (x, y), (u, v) = part["first"], part["second"]
        assert x.shape == u.shape and x.shape[1:] == (3, 4, 4) and 2 not in y and 2 not in v
        assert torch.equal((255 * x).mean((1, 2, 3)).div(20).floor().long(), y)
        level = (255 * u).mean((1, 2, 3)).div(20).floor().long()
        assert [theirs[k] for k in level.tolist()] == v.tolist()
    assert not rows(parts[0]["second"][0]) & rows(parts[2]["second"][0])


@pytest.mark.bad_input
def test_scores_that_cannot_be_ranked_are_refused_by_name():
    with pytest.raises(ValueError, match="b must hold as many scores as a, 2, got 1"):
        E.rank_agreement([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="a and b must be finite"):
        E.rank_agreement([1.0, float("nan")], [1.0, 2.0])
    x = (200 + 9 * torch.randn(2, 1, 8, 8, generator=g())).half()
    assert torch.equal(E.standardised(x), E.standardised(x.float()).half())
