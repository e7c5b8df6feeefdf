"""Measures of clusterings and the long tail."""

import math

import pytest
import torch

from labcode.clustering import measures as D


def test_measures_of_perfect_and_of_collapsed_clusters():
    labels = torch.arange(40) % 4
    perfect, collapsed = D.measures((labels + 1) % 4, labels, 4), D.measures(torch.zeros_like(labels), labels, 4)
    assert [perfect[m] for m in ("ACC", "NMI", "ARI", "empty", "entropy")] == pytest.approx([1, 1, 1, 0, 1])
    assert [collapsed[m] for m in ("ACC", "NMI", "ARI", "empty", "entropy")] == pytest.approx([0.25, 0, 0, 0.75, 0])


def test_entropy_of_sizes_is_the_formula_and_refuses_nonsense():
    clusters = torch.tensor([0, 0, 0, 1])
    wanted = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25)) / math.log(3)
    assert D.size_entropy(clusters, 3) == pytest.approx(wanted)
    for bad, k in ((clusters, 1), (clusters[:0], 3), (clusters + 3, 3)):
        with pytest.raises(ValueError, match="clusters"):
            D.size_entropy(bad, k)


def test_long_tail_has_its_ratio_and_no_sample_twice():
    labels = torch.arange(2000) % 10
    kept = D.long_tailed(labels, 20, generator=torch.Generator().manual_seed(0))
    sizes = labels[kept].bincount()
    assert len(kept.unique()) == len(kept) and sizes[0] == 200 and sizes[9] == 10
    assert bool((sizes.diff() <= 0).all())
    assert len(D.long_tailed(labels, 1, generator=torch.Generator())) == 2000
    with pytest.raises(ValueError, match="ratio"):
        D.long_tailed(labels, 0.5, generator=torch.Generator())
