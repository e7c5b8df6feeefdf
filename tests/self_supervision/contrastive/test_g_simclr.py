"""Guided batches, the share of false negatives, and the autoencoder."""

import pytest
import torch

from labcode.self_supervision import contrastive as C


def test_guided_batches_hold_every_cluster_once_while_they_last():
    clusters = torch.arange(40) % 8
    order = C.guided_order(clusters, seed=1)
    assert sorted(order.tolist()) == list(range(40))
    batches = C.fixed_batches(order, 8)
    for step in range(5):
        assert sorted(clusters[batches(step)].tolist()) == list(range(8))
    assert torch.equal(batches(5), batches(0))
    uneven = C.guided_order(torch.tensor([0] * 6 + [1, 1]))
    assert sorted(torch.tensor([0] * 6 + [1, 1])[uneven[:4]].tolist()) == [0, 0, 1, 1]


def test_the_false_negative_rate_by_hand():
    labels, order = torch.tensor([0, 0, 1, 2, 2, 2]), torch.arange(6)
    assert C.false_negative_rate(order, labels, 3) == pytest.approx((2 + 6) / 12)
    assert C.false_negative_rate(order, labels, 6) == pytest.approx((2 + 0 + 6) / 30)


def test_the_autoencoder_learns_from_clean_targets_only():
    model = C.Autoencoder().eval()
    x = torch.rand(4, 3, 8, 8)
    views = C.clean_and_noisy(x, torch.Generator().manual_seed(0), std=0.1)
    assert torch.equal(views[:4], x) and 0.08 < float((views[4:] - x).std()) < 0.12
    wanted = (model.decoder(model.body(views[4:])) - x).square().mean()
    assert torch.allclose(model(views, torch.arange(4)), wanted)
    assert model.encoder(x).shape == (4, model.encoder.features)


@pytest.mark.bad_input
def test_clusters_may_have_any_names_and_wrong_sides_are_named():
    clusters = torch.arange(40) % 8
    names = torch.tensor([10**12, -5, 7, 0, 3, -(10**9), 2, 99])
    order = C.guided_order(names[clusters], seed=1)
    assert all(len(set(clusters[part].tolist())) == 8 for part in order.view(5, 8))
    with pytest.raises(ValueError, match=r"views must have sides that are multiples of 8, got shape \(4, 3, 12, 8\)"):
        C.Autoencoder()(torch.rand(4, 3, 12, 8), torch.arange(2))
