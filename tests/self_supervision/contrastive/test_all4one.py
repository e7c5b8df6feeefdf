"""All4One: its three contrasts, the centroid, the queue."""

import copy
import math

import numpy as np
import pytest
import torch
from self_supervision.contrastive.helpers import Tiny, cosine, pictures, rows

from labcode.self_supervision import contrastive as C


def slow_features(keys, z):
    n, d = len(z) // 2, z.shape[1]
    halves = [(keys[:n].numpy(), z[n:].numpy()), (keys[n:].numpy(), z[:n].numpy())]
    diagonal, off = [], []
    for k, o in halves:
        for i in range(d):
            for j in range(d):
                c = cosine(k[:, i], o[:, j])
                (diagonal if i == j else off).append((c - 1) ** 2 if i == j else c**2)
    return 10 * (0.5 * math.sqrt(np.mean(diagonal)) + 0.5 * math.sqrt(np.mean(off)))


def test_neighbour_contrast_equals_a_loop():
    t, p = rows(5, 3).tolist(), rows(5, 3, 1).tolist()
    s = [[math.exp(cosine(a, b) / 0.2) for b in p] for a in t]
    want = sum(-math.log(s[i][i] / sum(s[i])) for i in range(5)) / 5
    assert float(C.neighbour_contrast(rows(5, 3), rows(5, 3, 1))) == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize(("n", "d"), [(2, 2), (4, 3), (6, 5)])
def test_feature_contrast_equals_a_loop(n, d):
    keys, z = rows(2 * n, d), rows(2 * n, d, 1)
    assert float(C.feature_contrast(keys, z)) == pytest.approx(slow_features(keys, z), rel=1e-12)


def test_feature_contrast_in_closed_form_and_not_centred():
    z = torch.eye(4, dtype=torch.float64).repeat(2, 1)
    assert C.feature_contrast(z, z) == pytest.approx(0, abs=1e-6)
    assert C.feature_contrast(torch.ones(8, 4), torch.ones(8, 4)) == pytest.approx(5)  # Barlow's centring gives 0 / 0
    assert not torch.allclose(C.feature_contrast(z + 1, z + 1), C.feature_contrast(z, z), atol=0.1)


def test_all4one_losses_have_right_gradients_and_none_to_keys():
    p, z, keys = rows(4, 3, 1).requires_grad_(), rows(8, 3, 2).requires_grad_(), rows(8, 3).requires_grad_()
    assert torch.autograd.gradcheck(C.neighbour_contrast, (rows(4, 3).requires_grad_(), p))
    assert torch.autograd.gradcheck(lambda z: C.feature_contrast(keys, z), z)
    C.feature_contrast(keys, z).backward()
    assert keys.grad is None
    same = rows(8, 3).requires_grad_()
    C.feature_contrast(torch.eye(4, dtype=same.dtype).repeat(2, 1), same[:, :1].expand(-1, 4) * 1.0).backward()
    assert torch.isfinite(same.grad).all()


def test_shift_puts_the_query_in_front_and_drops_the_last():
    sequence = torch.arange(30.0).view(2, 5, 3)
    moved = C.shifted(torch.tensor([[-1.0] * 3, [-2.0] * 3]), sequence)
    assert torch.equal(moved[:, 1:], sequence[:, :4]) and moved[:, 0, 0].tolist() == [-1, -2]


def test_places_are_marked_as_in_the_released_code():
    """Channels = 5 places, positions = features: place 2i is sin(j f_i), place 2i + 1 is cos(j f_i)."""
    places = C.Centroid(8, heads=2).places
    assert places.shape == (5, 8)
    for place in range(5):
        frequency = 10000 ** (-2 * (place // 2) / 6)
        wave = [(math.cos if place % 2 else math.sin)(feature * frequency) for feature in range(8)]
        assert places[place].tolist() == pytest.approx(wave, abs=1e-6)


def test_the_projector_is_the_released_code_s_and_ends_in_batchnorm():
    model = C.All4One(Tiny(), dim=4, queue=8, hidden=10)
    kinds = [type(layer).__name__ for layer in model.projector]
    assert kinds == ["Linear", "BatchNorm1d", "ReLU"] * 2 + ["Linear", "BatchNorm1d"]
    z = model.projector(model.encoder(pictures(32)))
    assert z.mean(0).abs().max() < 1e-5 and (z.std(0, correction=0) - 1).abs().max() < 1e-3
    assert [type(layer).__name__ for layer in model.predictor] == ["Linear", "BatchNorm1d", "ReLU", "Linear"]


def test_centroid_reads_order_and_mean_does_not():
    torch.manual_seed(0)
    sequence, attention, mean = rows(2, 5, 0, torch.float32)[:, :, None] * torch.ones(8), None, None
    attention, mean = C.Centroid(8).eval(), C.Centroid(8, "mean")
    turned = sequence[:, [0, 2, 1, 4, 3]]
    assert torch.allclose(mean(turned), mean(sequence)) and torch.allclose(mean(sequence), sequence.mean(1))
    assert not torch.allclose(attention(turned), attention(sequence), atol=1e-4)


def test_queue_is_first_in_first_out_and_wraps():
    model = C.All4One(Tiny(), dim=4, queue=5)
    start = model.queue.clone()
    model.enqueue(torch.full((3, 4), 1.0), torch.tensor([10, 11, 12]))
    assert torch.equal(model.queue[3:], start[3:]) and model.origin.tolist() == [10, 11, 12, -1, -1]
    model.enqueue(torch.full((3, 4), 2.0), torch.tensor([13, 14, 15]))
    assert model.origin.tolist() == [15, 11, 12, 13, 14] and model.queue[:, 0].tolist() == [2, 1, 1, 2, 2]
    assert int(model.pointer) == 1
    model.enqueue(torch.arange(7.0)[:, None].expand(7, 4), torch.arange(7))  # more keys than rows: the newest stay
    assert sorted(model.origin.tolist()) == [2, 3, 4, 5, 6] and int(model.pointer) == 3


def test_neighbours_come_from_the_queue_before_the_batch_enters():
    torch.manual_seed(0)
    model = C.All4One(Tiny(), dim=4, queue=8, hidden=8, weights=(1, 0, 0))
    x, index = torch.cat([pictures(4), pictures(4, 1)]), torch.arange(4)
    before = model.queue.clone()
    twin = copy.deepcopy(model)
    loss = model(x, index)
    with torch.no_grad():
        twin.follow()
        keys, p = twin.keyed(x), twin.predictor(twin.projector(twin.encoder(x)))
    found = before[C.nearest(keys, before, 1)[:, 0]]
    want = (C.neighbour_contrast(found[:4], p[4:]) + C.neighbour_contrast(found[4:], p[:4])) / 2
    assert torch.allclose(loss, want) and torch.allclose(model.queue[:4], keys[:4])


def test_keys_follow_the_online_weights_and_take_no_gradient():
    torch.manual_seed(0)
    model = C.All4One(Tiny(), dim=4, queue=8, hidden=8, momentum=0.9)
    with torch.no_grad():
        model.encoder.layer.weight.add_(1)
    key, online = model.keys[0].layer.weight, model.encoder.layer.weight
    old = key.clone()
    model(torch.cat([pictures(4), pictures(4, 1)]), torch.arange(4)).backward()
    assert torch.allclose(key, 0.9 * old + 0.1 * online) and key.grad is None
    assert online.grad.abs().sum() > 0 and model.query[0].weight.grad.abs().sum() > 0


def test_all4one_weighs_its_terms():
    torch.manual_seed(0)
    model = C.All4One(Tiny(), dim=4, queue=8, hidden=8, weights=(0.5, 0.25, 2.0)).eval()
    x, index = torch.cat([pictures(4), pictures(4, 1)]), torch.arange(4)
    a, b, c = model.terms(x, index)
    assert torch.allclose(model(x, index), 0.5 * a + 0.25 * b + 2 * c) and min(a, b, c) > 0


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("call", "named"),
    [(lambda: C.feature_contrast(rows(6, 3), rows(6, 4)), "z"),
     (lambda: C.feature_contrast(rows(6, 1), rows(6, 1)), "z"),
     (lambda: C.feature_contrast(rows(2, 3), rows(2, 3)), "one alone has nothing"),
     (lambda: C.neighbour_contrast(rows(0, 3), rows(0, 3)), "targets"), (lambda: C.Centroid(7), "dim"),
     (lambda: C.neighbour_contrast(rows(3, 3), rows(3, 3), 0), "tau"), (lambda: C.Centroid(8, "max"), "pool")],
)  # fmt: skip
def test_all4one_names_the_wrong_argument(call, named):
    with pytest.raises(ValueError, match=named):
        call()
