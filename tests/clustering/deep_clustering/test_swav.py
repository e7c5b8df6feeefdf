"""SwAV's loss against a loop over crops, its two-view form, its queue and its frozen prototypes."""

import math
from functools import partial

import pytest
import torch

from labcode.clustering.deep_clustering import crops, swav
from labcode.loss import unit_rows
from labcode.self_supervision.data_curation.swav import swapped_prediction as two_views
from labcode.transport import sinkhorn_codes


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("v", [2, 3, 6])
def test_the_loss_is_the_loop_over_pairs_of_crops(v):
    scores, targets = drawn(v, 4, 5).tanh(), drawn(2, 4, 5, seed=1).softmax(2)
    total, pairs = 0.0, 0
    for i in (0, 1):
        for crop in range(v):
            if crop != i:
                pairs += 1
                for n in range(4):
                    p = [math.exp(float(s) / 0.1) for s in scores[crop, n]]
                    total += sum(-float(q) * math.log(a / sum(p)) for q, a in zip(targets[i, n], p, strict=True)) / 4
    assert float(swav.swapped_prediction(scores, targets)) == pytest.approx(total / pairs, rel=1e-9)


def test_two_crops_are_the_two_view_loss_of_the_course():
    z, c = drawn(12, 6), drawn(5, 6, seed=1)
    scores = (unit_rows(z) @ unit_rows(c).T).unflatten(0, (2, 6))
    targets = torch.stack([swav.codes(part) for part in scores])
    torch.testing.assert_close(swav.swapped_prediction(scores, targets), two_views(z, c), atol=1e-9, rtol=0)


def test_codes_are_swavs_and_balance_more_with_more_rounds():
    scores = drawn(64, 8).tanh()
    torch.testing.assert_close(swav.codes(scores), sinkhorn_codes(scores, 0.05, 3), atol=1e-9, rtol=0)
    off = [float((swav.codes(scores, rounds=r).sum(0) - 8).abs().max()) for r in (1, 3, 20)]
    assert off[0] > off[1] > off[2]
    assert swav.codes(scores[:1]).shape == (1, 8) and torch.isfinite(swav.codes(1e4 * scores)).all()


def test_gradient_and_its_absence_in_the_codes():
    scores = drawn(3, 2, 4).requires_grad_()
    targets = drawn(2, 2, 4, seed=1).softmax(2)
    assert torch.autograd.gradcheck(lambda s: swav.swapped_prediction(s, targets), (scores,))
    assert not swav.codes(scores[0]).requires_grad


def model(**options):
    torch.manual_seed(0)
    encoder = torch.nn.Linear(6, 5)
    encoder.features = 5
    return swav.SwAV(encoder, prototypes=4, dim=3, **options)


def test_prototypes_wait_and_then_move():
    m, x = model(freeze=1), torch.randn(8, 6)
    for moved in (False, True):
        m.zero_grad()
        m(x).backward()
        assert bool(m.prototypes.grad.abs().sum() > 0) == moved


def test_the_queue_holds_the_latest_embeddings_and_only_balances():
    m, x = model(queue=6), torch.randn(8, 6)
    old = m.queue.clone()
    m(x)
    z = unit_rows(m.head(m.encoder(x))).detach().unflatten(0, (2, 4))
    torch.testing.assert_close(m.queue[:, :4], z, atol=1e-5, rtol=0)
    assert torch.equal(m.queue[:, 4:], old[:, :2])
    with_, without = model(queue=6), model(queue=6, wait=10)
    with_.queue.copy_(old), without.queue.copy_(old)
    assert float(with_(x)) != float(without(x))
    torch.testing.assert_close(without(x), model()(x), atol=1e-5, rtol=0)


def test_small_crops_predict_and_give_no_codes():
    seen = []
    m = model(assign=lambda s, eps: seen.append(s.shape[:2]) or swav.codes(s, eps))
    m(torch.randn(8, 6), small=torch.randn(12, 6))
    assert seen == [(2, 4)]


def test_the_net_takes_crops_of_two_sizes_and_is_smallnet_on_full_ones():
    from labcode.nets import SmallNet

    torch.manual_seed(0)
    net = crops.CropNet().eval()
    plain = SmallNet(16, 96, 16, 1, 32).eval()
    plain.load_state_dict(net.state_dict())
    x = torch.rand(3, 1, 16, 16)
    torch.testing.assert_close(net(x), plain(x))
    assert net(x[..., :8, :8]).shape == (3, 96)


def test_crops_have_their_sizes_and_rows_stay_with_their_images():
    x = torch.linspace(0.1, 0.9, 5)[:, None, None, None].expand(5, 1, 16, 16)
    g = torch.Generator().manual_seed(0)
    assert crops.full_crops(x, generator=g).shape == (10, 1, 16, 16)
    assert crops.small_crops(x, generator=g, views=3).shape == (15, 1, 8, 8)
    images, labels = crops.grey_scenes(20, "train")
    assert images.shape == (20, 1, 16, 16) and 0 <= images.min() and images.max() <= 1 and len(labels) == 20


@pytest.mark.bad_input
def test_bad_input_is_named():
    for scores, targets, named in ((torch.zeros(1, 2, 3), torch.zeros(1, 2, 3), "scores"),
                                   (torch.zeros(3, 2, 3), torch.zeros(3, 2, 3), "targets")):  # fmt: skip
        with pytest.raises(ValueError, match=named):
            swav.swapped_prediction(scores, targets)


def test_the_untrained_network_has_statistics_of_its_crops_and_the_weights_it_came_with():
    """In evaluation mode its first normalised map has mean 0 and variance 1 over crops that it has not seen."""
    torch.manual_seed(0)
    net, images = crops.CropNet(), torch.rand(600, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    before = net.conv1.weight.clone()
    net = crops.estimated(net, images, partial(crops.full_crops, views=1), seed=3)
    assert not net.training and torch.equal(net.conv1.weight, before)
    seen = []
    net.norm3.register_forward_hook(lambda _, __, out: seen.append(out))
    with torch.no_grad():
        net(crops.full_crops(images[500:], generator=torch.Generator().manual_seed(9), views=1))
    assert float(seen[0].mean()) == pytest.approx(0, abs=0.1) and float(seen[0].std()) == pytest.approx(1, abs=0.2)
