"""Agreement: names are matched, the core is what all say, and k follows from it."""

import itertools

import pytest
import torch

from labcode.clustering.clustering_algorithms import agreement, matched, ppp


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def blobs(k=3, each=40, gap=12.0):
    y = torch.arange(k * each) % k
    return torch.randn(k * each, 2, generator=draw(9)) + gap * torch.stack([y.float(), (y == 1).float()], 1), y


def test_matching_is_the_best_of_all_renamings():
    labels = torch.randint(3, (4, 30), generator=draw())
    reference = torch.randint(3, (30,), generator=draw(1))
    for row, found in zip(labels, matched(labels, reference, 3), strict=False):
        best = max(int((torch.tensor(names)[row] == reference).sum()) for names in itertools.permutations(range(3)))
        assert int((found == reference).sum()) == best


def test_the_core_by_hand():
    x, y = blobs()
    found = agreement(x, 3, starts=12, generator=draw())
    alone = agreement(x, 3, starts=12, generator=draw(), validate=False)
    same = matched(found.partitions, found.labels, 3) == found.labels
    assert torch.equal(alone.core, same.all(0)) and bool((found.core <= alone.core).all())
    assert torch.equal(alone.confirmed, torch.ones(12)) and float(found.confirmed.max()) > 0.99


def test_k_is_found_on_blobs_and_the_labels_are_right():
    x, y = blobs(2)
    found = ppp(x, 4, generator=draw(), starts=8)
    assert found.k == 2 and found.kept > 0.99
    assert torch.equal(matched(found.labels[None], y, 2)[0], y)


def test_edges():
    assert ppp(torch.ones(6, 2), 2, generator=draw(), starts=3).k == 2
    for wrong, name in ((dict(largest=1), "largest"), (dict(largest=99), "largest"), (dict(share=0.0), "share")):
        with pytest.raises(ValueError, match=name):
            ppp(torch.randn(9, 2), **dict(generator=draw()) | wrong)
