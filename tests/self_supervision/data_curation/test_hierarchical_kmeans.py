"""Trees and balanced sampling against counting."""

import math

import pytest
import torch
from self_supervision.data_curation.helpers import gen

from labcode.self_supervision import data_curation as D


@pytest.mark.parametrize("sizes, budget", [([1, 2, 9, 20], 10), ([5], 3), ([0, 4, 4], 8), ([3, 3, 3], 4), ([7, 1], 0)])
def test_water_filling_hands_out_one_by_one(sizes, budget):
    """Every unit goes to the place with the least so far that has any left: the slow way to the same shares."""
    share = [0] * len(sizes)
    for _ in range(budget):
        share[min((i for i in range(len(sizes)) if share[i] < sizes[i]), key=lambda i: share[i])] += 1
    got = D.water_fill(torch.tensor(sizes), budget, gen())
    assert sorted(got.tolist()) == sorted(share) and got.sum() == budget
    assert (got <= torch.tensor(sizes)).all()


@pytest.mark.bad_input
def test_water_filling_refuses_what_is_not_there():
    for budget in (-1, 6):
        with pytest.raises(ValueError, match="budget"):
            D.water_fill(torch.tensor([2, 3]), budget)


def test_a_sample_runs_evenly_down_a_tree_and_counts_rows_not_children():
    """Top: A with two leaves of 1 and 99 rows, B with one leaf of 100. Children would promise A twice B's share."""
    leaf = torch.tensor([0] * 1 + [1] * 99 + [2] * 100)
    levels = [D.Level(torch.zeros(3, 2), leaf), D.Level(torch.zeros(2, 2), torch.tensor([0, 0, 1]))]
    rows = D.hierarchical_sample(levels, 40, seed=1)
    assert len(rows.unique()) == 40
    assert leaf[rows].bincount(minlength=3).tolist() == [1, 19, 20]
    with pytest.raises(ValueError, match="budget"):
        D.hierarchical_sample(levels, 201)


def test_the_nearest_rows_of_a_leaf_are_taken_if_asked():
    x = torch.tensor([[0.0], [1.0], [2.0], [10.0], [11.0], [15.0]])
    levels = [D.Level(torch.tensor([[0.0], [10.0]]), torch.tensor([0, 0, 0, 1, 1, 1]))]
    assert D.hierarchical_sample(levels, 4, nearest=x).tolist() == [0, 1, 3, 4]
    assert D.nearest_members(x, levels[0].centroids, levels[0].parent, 1).tolist() == [0, 3]


def test_levels_and_resampling_flatten_two_squares():
    skew = {}
    for name, (sizes, keep) in {
        "one": ((40,), None),
        "two": ((160, 40), None),
        "resampled": ((160, 40), (8, 2)),
    }.items():
        ratios = []
        for seed in range(3):
            at = D.hierarchical_kmeans(D.two_squares(3000, 16.0, seed), sizes, keep, rounds=5, seed=seed)[-1].centroids
            left = int((at[:, 0] < 1).sum())
            ratios.append(math.log2(left / (40 - left)))
        skew[name] = sum(ratios) / 3
    assert skew["one"] == pytest.approx(2, abs=0.6) and skew["two"] == pytest.approx(1, abs=0.5)
    assert abs(skew["resampled"]) < 0.5


@pytest.mark.bad_input
def test_trees_refuse_sizes_that_do_not_fall():
    x = torch.randn(20, 2)
    for sizes in ((), (5, 5), (21,)):
        with pytest.raises(ValueError, match="sizes"):
            D.hierarchical_kmeans(x, sizes)
    with pytest.raises(ValueError, match="resample"):
        D.hierarchical_kmeans(x, (5, 2), (1,))


def test_a_long_tail_has_its_ratio_and_entropy_its_ends():
    labels = torch.arange(2000) % 10
    rows = D.long_tail(labels, 50.0, seed=3)
    count = labels[rows].bincount()
    assert count[0] == 200 and count[9] == 4 and (count.diff() <= 0).all()
    assert (
        D.class_entropy(labels, 10) == pytest.approx(1) and D.class_entropy(torch.zeros(5, dtype=torch.int64), 10) == 0
    )


def test_labels_may_be_any_numbers():
    """Ids of a data base, negative ones, gaps: the rows and the entropy of 0 … C - 1, and no memory for them."""
    labels = torch.arange(600) % 3
    for names in ([100_000_000, 7, -5], [2, 0, 1], [0, 2, 5]):
        ids = torch.tensor(names)[labels]
        rank = torch.tensor(names).argsort().argsort()[labels]  # classes are in the order of their numbers
        assert torch.equal(D.long_tail(ids, 20.0, seed=1), D.long_tail(rank, 20.0, seed=1))
        assert ids[D.long_tail(ids, 20.0)].unique(return_counts=True)[1].tolist() == [200, 45, 10]
        assert D.class_entropy(ids, 3) == pytest.approx(1)
        assert D.class_entropy(ids[labels < 2], 3) == pytest.approx(math.log(2) / math.log(3))
    assert D.class_entropy(torch.full((4,), 10**12), 1) == 1
    huge = torch.tensor([3_000_000_000, 1, 2], dtype=torch.int64)
    assert D.water_fill(huge, 2_000_000_000).tolist() == [1_999_999_997, 1, 2]
    assert D.water_fill(torch.tensor([20_000, 30_000], dtype=torch.int16), 45_000).tolist() == [20_000, 25_000]
    assert D.water_fill(torch.zeros(0, dtype=torch.int64), 0).tolist() == []


@pytest.mark.bad_input
def test_labels_and_sizes_that_are_none_are_named():
    for labels in (torch.zeros(0, dtype=torch.int64), torch.rand(4), torch.zeros(2, 2, dtype=torch.int64)):
        for call in (D.long_tail, lambda y: D.class_entropy(y, 3)):
            with pytest.raises(ValueError, match="labels must be whole numbers"):
                call(labels)
    with pytest.raises(ValueError, match="classes must be at least the 3 kinds"):
        D.class_entropy(torch.tensor([4, 5, 6]), 2)
    for sizes in (torch.tensor([1, -1]), torch.tensor([1.5, 2.0])):
        with pytest.raises(ValueError, match="sizes"):
            D.water_fill(sizes, 1)


def test_trees_far_from_the_origin_are_those_at_it():
    x = torch.randint(-128, 129, (400, 2), generator=gen()).float() / 64  # exact when moved by a power of two
    near, far = (D.hierarchical_kmeans(x + at, (40, 8), (4, 2), rounds=3) for at in (0, 4096))
    assert all(torch.equal(a.parent, b.parent) for a, b in zip(near, far, strict=True))
    half = D.hierarchical_kmeans(x.half(), (40, 8), (4, 2), rounds=3)
    assert torch.equal(half[0].parent, near[0].parent)


def test_agglomeration_is_wards_and_the_skew_a_ratio_of_counts():
    """Two merges at a time by hand: the pair whose union adds least to the squared distances."""
    x = torch.randn(12, 2, generator=gen(4))
    parts = [[i] for i in range(12)]
    spread = lambda rows: float((x[rows] - x[rows].mean(0)).square().sum())  # noqa: E731
    while len(parts) > 4:
        pairs = [(a, b) for a in range(len(parts)) for b in range(a)]
        a, b = min(pairs, key=lambda p: spread(parts[p[0]] + parts[p[1]]) - spread(parts[p[0]]) - spread(parts[p[1]]))
        parts[b] = parts[b] + parts.pop(a)
    want = torch.stack([x[rows].mean(0) for rows in parts])
    got = D.agglomerate(x, 4)
    assert torch.cdist(got, want).amin(1).max() < 1e-5 and torch.cdist(want, got).amin(1).max() < 1e-5
    points = torch.tensor([[0.5, 0.0]] * 8 + [[1.5, 0.0]] * 2)
    assert D.log_skew(points) == pytest.approx(2) and D.log_skew(points[:8]) == pytest.approx(3)
