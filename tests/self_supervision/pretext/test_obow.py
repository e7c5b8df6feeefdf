"""Codes, bags and their loss against loops; teacher and queue."""

import math

import pytest
import torch
from self_supervision.pretext.helpers import draw, log_softmax, pictures

from labcode.self_supervision import pretext as P


def test_codes_and_bags_are_the_loops():
    f, words = draw(6, 3), draw(4, 3, seed=1)
    codes, nearest = P.soft_codes(f, words, 2.5)
    for i in range(6):
        d = [sum((a - b) ** 2 for a, b in zip(f[i].tolist(), w.tolist(), strict=True)) for w in words]
        assert codes[i].tolist() == pytest.approx([math.exp(v) for v in log_softmax([-2.5 * v for v in d])])
        assert float(nearest[i]) == pytest.approx(min(d))
    bag = P.bag_of_words(codes.view(2, 3, 4))
    for i in range(2):
        top = [max(float(codes[3 * i + p, k]) for p in range(3)) for k in range(4)]
        assert bag[i].tolist() == pytest.approx([t / sum(top) for t in top])
    hard = P.soft_codes(f, words, float("inf"))[0]
    assert torch.equal(hard.argmax(1), codes.argmax(1)) and set(hard.unique().tolist()) == {0.0, 1.0}
    assert torch.allclose(P.soft_codes(f, words, 1e6)[0], hard)


def test_bow_loss_is_the_loop():
    scores, target = draw(6, 4), draw(3, 4, seed=1).softmax(1)
    wanted = 0.0
    for row in range(6):
        wanted -= sum(t * s for t, s in zip(target[row % 3].tolist(), log_softmax(scores[row].tolist()), strict=True))
    assert float(P.bow_loss(scores, target)) == pytest.approx(wanted / 6, rel=1e-12)
    assert float(P.bow_loss(torch.zeros(6, 4), target)) == pytest.approx(math.log(4))


def test_perplexity_counts_words():
    assert P.perplexity(torch.eye(8)) == pytest.approx((1, 8), rel=1e-4)
    assert P.perplexity(torch.full((3, 8), 1 / 8)) == pytest.approx((8, 8), rel=1e-4)


def test_obow_moves_teacher_and_queue_and_gives_the_teacher_no_gradient():
    torch.manual_seed(0)
    model = P.OBoW(P.BlockNet(8), words=10, momentum=0.5).train()
    views, index = pictures(12), torch.arange(4)
    with torch.no_grad():
        next(model.encoder.parameters()).add_(1)
    old_words, old, new = model.words.clone(), *(next(m.parameters()).clone() for m in (model.teacher, model.encoder))
    model(views, index).backward()
    assert torch.allclose(next(model.teacher.parameters()), (old + new) / 2)
    assert torch.equal(model.words[:6], old_words[4:]) and not torch.equal(model.words[6:], old_words[:4])
    assert all(p.grad is None for p in model.teacher.parameters()) and next(model.encoder.parameters()).grad is not None
    target = model.eval().target(views[:4])
    assert torch.allclose(target.sum(1), torch.ones(4)) and torch.equal(model.target(views[:4]), target)
    assert torch.allclose(model.classifiers().norm(dim=1), torch.tensor(model.kappa))


def test_obow_momentum_rises_to_one():
    model = P.OBoW(P.BlockNet(8), momentum=0.5, steps=4)
    with torch.no_grad():
        next(model.encoder.parameters()).fill_(1)
        next(model.teacher.parameters()).fill_(0)
    at = []
    for _ in range(6):
        model.follow()
        at.append(float(next(model.teacher.parameters())[0, 0]))
    assert at[0] == pytest.approx(0.5) and at[1] > at[0] and at[4] == pytest.approx(at[5]) and at[5] < 1


def test_codes_at_any_sharpness_and_far_from_the_origin():
    f, words = draw(6, 3).float(), draw(4, 3, seed=1).float()
    hard, nearest = P.soft_codes(f, words, float("inf"))
    for sharpness in (1e9, 1e30, torch.tensor(1e35)):
        assert torch.allclose(P.soft_codes(f, words, sharpness)[0], hard)
    on_words = P.soft_codes(words, words, torch.tensor(1.5e21))  # what a collapsed teacher asks
    assert torch.allclose(on_words[0], torch.eye(4)) and on_words[1].abs().max() < 1e-6
    for at in (1e3, -3e4):
        moved = (f + at), (words + at)
        exact = torch.cdist(moved[0].double(), moved[1].double()).square()
        codes, close = P.soft_codes(*moved, 2.0)
        assert torch.allclose(codes.double(), (-2 * exact).softmax(1), atol=1e-4)
        assert torch.allclose(close.double(), exact.amin(1), rtol=1e-3, atol=1e-5)
    bag = P.bag_of_words(P.soft_codes(f, words)[0].view(2, 3, 4).half())
    assert bag.dtype == torch.float32 and torch.allclose(bag.sum(1), torch.ones(2))
    assert P.perplexity(torch.eye(8).half()) == pytest.approx((1, 8))


def test_a_collapsed_teacher_gives_no_nan():
    torch.manual_seed(0)
    model = P.OBoW(P.BlockNet(8), words=5)
    model.distance.zero_()
    assert model.eval().target(pictures(2)).isfinite().all()


def test_bownet_counts_the_nearest_words_of_a_teacher_that_stays():
    torch.manual_seed(0)
    teacher, views = P.BlockNet(8), pictures(12)
    words = torch.rand(5, 16)
    model = P.BoWNet(P.BlockNet(8), teacher, words, level=2, kappa=3.0).train()
    places = teacher.eval().maps(views[:4])[1].flatten(2).transpose(1, 2)  # (4, places, channels)
    wanted = torch.zeros(4, 5)
    for i in range(4):
        for place in places[i]:
            wanted[i, int((place - words).square().sum(1).argmin())] += 1 / places.shape[1]
    assert torch.allclose(model.target(views[:4]), wanted, atol=1e-6)
    before = [v.clone() for v in model.teacher.state_dict().values()]
    model(views, torch.arange(4)).backward()
    assert all(torch.equal(a, b) for a, b in zip(before, model.teacher.state_dict().values(), strict=True))
    assert all(p.grad is None for p in model.teacher.parameters()) and model.kappa.grad is not None
    h, w = model.eval().encoder(views[4:]).tolist(), model.weights.weight.tolist()
    each = []
    for row in range(8):  # a crop's scores are 3 times its features on unit vectors
        scores = [3 * sum(a * b for a, b in zip(h[row], v, strict=True)) / math.hypot(*v) for v in w]
        each.append(-sum(t * v for t, v in zip(wanted[row % 4].tolist(), log_softmax(scores), strict=True)))
    assert float(model(views, torch.arange(4)).detach()) == pytest.approx(sum(each) / 8, rel=1e-4)


def test_a_vocabulary_is_the_features_where_there_are_as_many_words():
    torch.manual_seed(0)
    teacher, images = P.BlockNet(8), (pictures(2) * 255).to(torch.uint8)
    words = P.vocabulary(teacher, images, level=3, words=8)
    places = teacher.eval().maps(images / 255)[2].flatten(2).transpose(1, 2).flatten(0, 1)
    assert torch.allclose(torch.cdist(places, words).amin(1), torch.zeros(8), atol=1e-3)
    assert int(teacher.norms[0].num_batches_tracked) == 0
