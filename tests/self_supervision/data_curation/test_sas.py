"""Augmentation similarity and greedy cuts against brute force."""

import itertools
import math

import pytest
import torch

from labcode.self_supervision import data_curation as D


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


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
