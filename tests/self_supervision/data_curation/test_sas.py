"""Augmentation similarity and greedy cuts against brute force."""

import itertools
import math

import pytest
import torch
from self_supervision.data_curation.helpers import gen

from labcode.self_supervision import data_curation as D


def test_augmentation_similarity_is_the_mean_over_different_draws():
    views = torch.randn(3, 5, 4, generator=gen(), dtype=torch.float64)
    got = D.augmentation_similarity(views)
    for i, j in itertools.product(range(5), repeat=2):
        pairs = [(a, b) for a, b in itertools.product(range(3), repeat=2) if a != b]
        mean = sum(float(torch.cosine_similarity(views[a, i], views[b, j], dim=0)) for a, b in pairs) / len(pairs)
        assert float(got[i, j]) == pytest.approx(max(mean, 0), abs=1e-12)


def test_greedy_cut_gains_are_true_differences_and_near_the_best():
    unit = torch.nn.functional.normalize(torch.randn(9, 3, generator=gen(3), dtype=torch.float64), dim=1)
    s = (unit @ unit.T).clamp_min(0)
    order, taken = D.greedy_graph_cut(s, 4), []
    for pick in order.tolist():
        value = {c: D.graph_cut(s, torch.tensor([*taken, c])) for c in range(9) if c not in taken}
        assert value[pick] == pytest.approx(max(value.values()))
        taken.append(pick)
    best = max(D.graph_cut(s, torch.tensor(c)) for c in itertools.combinations(range(9), 4))
    assert D.graph_cut(s, order) >= (1 - 1 / math.e) * best


def test_sas_takes_the_share_of_every_class_and_its_control_the_opposite():
    s = torch.rand(40, 40, generator=gen())
    s = (s + s.T) / 2
    classes = torch.arange(40) % 4
    high, low = D.sas(s, classes, 0.3, greedy=False), D.sas(s, classes, 0.3, low=True)
    assert classes[high].bincount().tolist() == [3] * 4 and not set(high.tolist()) & set(low.tolist())
    with pytest.raises(ValueError, match="share"):
        D.sas(s, classes, 0.0)


def test_classes_may_be_any_numbers_and_zero_rows_are_like_nothing():
    s = torch.rand(12, 12, generator=gen())
    s, classes = s + s.T, torch.arange(12) % 3
    ids = torch.tensor([5, 100_000_000_000, 200_000_000_000])[classes]
    assert torch.equal(D.sas(s, ids, 0.5), D.sas(s, classes, 0.5))
    views = torch.randn(2, 4, 3, generator=gen())
    views[:, 1] = 0
    views.requires_grad_()
    made = D.augmentation_similarity(views)
    assert (made[1] == 0).all() and torch.autograd.grad(made.sum(), views)[0].abs().max() < 100
    half = D.augmentation_similarity(views.detach().half())
    assert half.dtype == torch.float32 and torch.allclose(half, made.detach(), atol=2e-3)


def test_the_objective_of_classes_is_the_sum_over_pairs_of_one_class():
    s, classes = torch.rand(9, 9, generator=gen(5), dtype=torch.float64), torch.tensor([4, 4, 4, 4, 7, 7, 7, 9, 9])
    s, chosen = s + s.T, [0, 2, 5, 8]
    pairs = ((i, j) for i in range(9) for j in chosen if i not in chosen and classes[i] == classes[j])
    assert D.class_cut(s, classes, torch.tensor(chosen)) == pytest.approx(sum(float(s[i, j]) for i, j in pairs))


@pytest.mark.bad_input
def test_similarities_that_cannot_be_are_named():
    bad, oblong = torch.eye(4).where(torch.ones(4, 4).triu() > 0, torch.nan), torch.rand(4, 3)
    for call in (lambda s: D.greedy_graph_cut(s, 2), lambda s: D.sas(s, torch.zeros(4, dtype=torch.int64), 0.5),
                 lambda s: D.graph_cut(s, torch.tensor([0]))):  # fmt: skip
        with pytest.raises(ValueError, match="similarity must be finite"):
            call(bad)
        with pytest.raises(ValueError, match=r"square matrix \(n, n\), got shape \(4, 3\)"):
            call(oblong)
    with pytest.raises(ValueError, match="views must be finite"):
        D.augmentation_similarity(torch.full((2, 3, 4), torch.nan))
