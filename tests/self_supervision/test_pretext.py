"""Tasks and losses against slow loops, their invariances, edges and mechanisms."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from labcode import nets
from labcode.run import start
from labcode.self_supervision import pretext as P


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def pictures(n=3, side=16, seed=0):
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(seed))


def log_softmax(row):
    top = max(row)
    total = top + math.log(sum(math.exp(v - top) for v in row))
    return [v - total for v in row]


# ---------------------------------------------------------------------------------------------------------------------
# Turning
# ---------------------------------------------------------------------------------------------------------------------


def test_rotations_are_numpys_and_four_give_the_image_back():
    x = pictures(2)
    turned = P.rotations(x)
    for v in range(4):
        for i in range(2):
            assert np.array_equal(turned[i + 2 * v], np.rot90(x[i].numpy(), v, (1, 2)))
    assert torch.equal(P.turn(P.turn(x, torch.tensor([1, 3])), torch.tensor([3, 1])), x)


@pytest.mark.parametrize("quarters", [[0, 1, 2, 3], [3, 3, 0, 2], [5, 4, 7, 6]])
def test_turn_turns_each_image_by_its_own(quarters):
    x = pictures(4)
    found = P.turn(x, torch.tensor(quarters))
    for image, q, new in zip(x, quarters, found, strict=True):
        assert torch.equal(new, torch.rot90(image, q, (1, 2)))


def test_a_mirror_swaps_the_quarter_turns():
    """Why a flip must come before the turn: after it, left and right labels change places."""
    x = pictures(2)
    assert torch.equal(torch.rot90(x, 1, (2, 3)).flip(3), torch.rot90(x.flip(3), 3, (2, 3)))


@pytest.mark.parametrize("grid", [1, 2, 4])
def test_turn_cell_turns_that_cell_alone(grid):
    n, s = 4 * grid**2, 16 // grid
    x, label = pictures(n), torch.arange(n)
    found, given = P.turn_cell(x, grid, label)
    assert torch.equal(given, label)
    for i in range(n):
        wanted, (row, column) = x[i].clone(), divmod(i // 4, grid)
        box = (slice(None), slice(row * s, row * s + s), slice(column * s, column * s + s))
        wanted[box] = torch.rot90(x[i][box], i % 4, (1, 2))
        assert torch.equal(found[i], wanted)


def test_a_quarter_of_the_cells_labels_leave_the_image_alone():
    x = pictures(1).expand(1600, 3, 16, 16)
    found, label = P.turn_cell(x)
    same = (found == x).flatten(1).all(1)
    assert torch.equal(same, label % 4 == 0) and 0.2 < same.float().mean() < 0.3


def test_turn_patch_turns_that_square_alone():
    x = pictures(4)
    found, label = P.turn_patch(x, (3, 5, 6), torch.arange(4))
    for i in range(4):
        wanted = x[i].clone()
        wanted[:, 3:9, 5:11] = torch.rot90(x[i, :, 3:9, 5:11], i, (1, 2))
        assert torch.equal(found[i], wanted)
    torch.manual_seed(0)
    sides = [int((P.turn_patch(x, label=torch.full((4,), 2))[0] != x).any(1).any(0).any(0).sum()) for _ in range(200)]
    assert min(sides) == 2 and 7 <= max(sides) <= 8


def test_turn_all_follows_the_copies():
    x = pictures(8)
    found, label = P.turn_all(x)
    assert label.tolist() == [0, 0, 1, 1, 2, 2, 3, 3] and torch.equal(found[4:6], x[4:6].flip(2, 3))


def test_affinity_is_one_for_a_task_that_changes_nothing():
    images = (pictures(8) * 255).to(torch.uint8)
    correct = lambda x: float((x[:, :, :8].mean((1, 2, 3)) > x[:, :, 8:].mean((1, 2, 3))).float().mean())  # noqa: E731
    assert P.affinity(correct, images, lambda x: (x, None)) == pytest.approx(1)
    upside_down = lambda x: (x.flip(2), None)  # noqa: E731
    right = correct(images / 255)
    assert 0 < right < 1 and P.affinity(correct, images, upside_down) == pytest.approx((1 - right) / right)


def test_images_that_are_not_square_are_refused():
    for task in (P.rotations, P.turn_all, P.turn_cell, P.turn_patch):
        with pytest.raises(ValueError, match="square"):
            task(torch.zeros(4, 3, 8, 6))
    with pytest.raises(ValueError, match="grid"):
        P.turn_cell(torch.zeros(4, 3, 9, 9), 2)


# ---------------------------------------------------------------------------------------------------------------------
# Losses
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n, k", [(1, 4), (5, 4), (3, 2)])
def test_rotation_loss_is_the_loop(n, k):
    scores = draw(n * k, k)
    wanted = -sum(log_softmax(scores[v * n + i].tolist())[v] for v in range(k) for i in range(n)) / (n * k)
    assert float(P.rotation_loss(scores)) == pytest.approx(wanted, rel=1e-12)
    assert float(P.rotation_loss(torch.zeros(n * k, k))) == pytest.approx(math.log(k))


@pytest.mark.parametrize("source", [[0, 0, 1, 1, 0, 1], [0, 1, 2, 3, 4, 4], [7, 7, 7, 7, 7, 7]])
def test_cluster_loss_is_the_loop(source):
    z, tau = draw(6, 4), 0.3
    u = (z / z.norm(dim=1, keepdim=True)).numpy()
    s = u @ u.T / tau
    rows = []
    for i in range(6):
        others = [j for j in range(6) if j != i and source[j] == source[i]]
        if others:
            total = math.log(sum(math.exp(s[i, k]) for k in range(6) if k != i))
            rows.append(-sum(s[i, j] - total for j in others) / len(others))
    assert float(P.cluster_loss(z, torch.tensor(source), tau)) == pytest.approx(sum(rows) / len(rows), rel=1e-9)


def test_cluster_loss_edges():
    z = draw(6, 4)
    assert float(P.cluster_loss(z, torch.arange(6))) == 0  # nobody has a partner
    same = torch.tensor([0, 0, 1, 1, 2, 2])
    assert float(P.cluster_loss(torch.ones(6, 4), same)) == pytest.approx(math.log(5))
    turned = torch.linalg.qr(draw(4, 4, seed=3))[0]
    assert float(P.cluster_loss(3 * z @ turned, same)) == pytest.approx(float(P.cluster_loss(z, same)))
    assert float(P.cluster_loss(torch.eye(3).repeat_interleave(2, 0), same, 0.01)) < 1e-6


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_relation_loss_is_the_loop(gamma):
    scores, same = draw(9), torch.arange(9) % 2 == 0
    wanted = 0.0
    for s, t in zip(scores.tolist(), same.tolist(), strict=True):
        p = 1 / (1 + math.exp(-s))
        p = p if t else 1 - p
        wanted -= 0.5 * (1 - p) ** gamma * math.log(p) / 9
    assert float(P.relation_loss(scores, same, gamma)) == pytest.approx(wanted, rel=1e-9)
    assert float(P.relation_loss(torch.zeros(4), torch.ones(4, dtype=torch.bool), gamma)) == pytest.approx(
        0.5 * 0.5**gamma * math.log(2)
    )
    assert torch.isfinite(P.relation_loss(torch.tensor([500.0, -500.0]), torch.tensor([True, True]), gamma))


@pytest.mark.parametrize("n, copies, classes", [(3, 4, 2), (1, 2, 5), (4, 1, 3)])
def test_sla_loss_and_aggregation_are_the_loops(n, copies, classes):
    scores, y = draw(n * copies, copies * classes), torch.arange(n) % classes
    loss, table = 0.0, torch.zeros(n, classes, dtype=torch.float64)
    for v in range(copies):
        for i in range(n):
            row = scores[i + n * v].tolist()
            loss -= log_softmax(row)[int(y[i]) * copies + v] / (n * copies)
            for c in range(classes):
                table[i, c] += row[c * copies + v] / copies
    assert float(P.sla_loss(scores, y)) == pytest.approx(loss, rel=1e-12)
    assert torch.allclose(P.aggregate(scores, copies), table)


def test_self_distillation_is_the_loop_and_stops_at_the_teacher():
    single, teacher, y = draw(5, 3).requires_grad_(), draw(5, 3, seed=1).requires_grad_(), torch.tensor([0, 1, 2, 0, 1])
    wanted = 0.0
    for s, t, c in zip(single.tolist(), teacher.tolist(), y.tolist(), strict=True):
        ours, theirs = log_softmax(s), log_softmax(t)
        wanted += (sum(math.exp(b) * (b - a) for a, b in zip(ours, theirs, strict=True)) - 0.7 * ours[c]) / 5
    loss = P.self_distillation(single, teacher, y, 0.7)
    assert loss.item() == pytest.approx(wanted, rel=1e-9)
    loss.backward()
    assert teacher.grad is None and single.grad.abs().sum() > 0
    assert float(P.self_distillation(single.detach(), single, y, 0.0)) == pytest.approx(0, abs=1e-12)


def test_distance_from_uniform():
    scores = draw(4, 5)
    for row, found in zip(scores.tolist(), P.distance_from_uniform(scores), strict=True):
        assert float(found) == pytest.approx(sum((math.log(1 / 5) - v) / 5 for v in log_softmax(row)))
    assert float(P.distance_from_uniform(torch.ones(1, 5))) == pytest.approx(0, abs=1e-6)


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


@pytest.mark.parametrize("name", ["rotation", "cluster", "relation", "sla", "aggregate", "distil", "codes", "bow"])
def test_gradients(name):
    z = draw(8, 4).requires_grad_()
    loss = {
        "rotation": P.rotation_loss,
        "cluster": lambda z: P.cluster_loss(z, torch.tensor([0, 0, 1, 1, 2, 2, 3, 4])),
        "relation": lambda z: P.relation_loss(z.flatten(), torch.arange(32) % 3 == 0),
        "sla": lambda z: P.sla_loss(z, torch.zeros(2, dtype=torch.int64)),
        "aggregate": P.aggregate,
        "distil": lambda z: P.self_distillation(z, torch.ones_like(z), torch.arange(8) % 4),
        "codes": lambda z: P.soft_codes(z, torch.eye(4, dtype=torch.float64))[0],
        "bow": lambda z: P.bow_loss(z, torch.full((2, 4), 0.25, dtype=torch.float64)),
    }[name]
    assert torch.autograd.gradcheck(loss, (z,))


@pytest.mark.parametrize("loss", [P.rotation_loss, lambda z: P.cluster_loss(z, torch.arange(8) // 2)])
def test_half_precision_is_computed_in_single(loss):
    z = draw(8, 4).bfloat16()
    assert loss(z).dtype == torch.float32 and float(loss(z)) == pytest.approx(float(loss(z.float())))


@pytest.mark.bad_input
@pytest.mark.parametrize(
    "call, name",
    [
        (lambda: P.rotation_loss(torch.zeros(6, 4)), "scores"),
        (lambda: P.cluster_loss(torch.zeros(1, 4), torch.zeros(1, dtype=torch.long)), "z"),
        (lambda: P.cluster_loss(torch.zeros(4, 4), torch.zeros(3, dtype=torch.long)), "source"),
        (lambda: P.cluster_loss(torch.zeros(4, 4), torch.zeros(4, dtype=torch.long), 0.0), "tau"),
        (lambda: P.relation_pairs(1, 2), "m and k"),
        (lambda: P.relation_loss(torch.zeros(0), torch.zeros(0, dtype=torch.bool)), "scores"),
        (lambda: P.relation_loss(torch.zeros(3), torch.zeros(2, dtype=torch.bool)), "same"),
        (lambda: P.relation_loss(torch.zeros(3), torch.zeros(3, dtype=torch.bool), -1.0), "gamma"),
        (lambda: P.sla_loss(torch.zeros(8, 6), torch.zeros(2, dtype=torch.long)), "scores"),
        (lambda: P.aggregate(torch.zeros(8, 6)), "copies"),
        (lambda: P.soft_codes(torch.zeros(2, 3), torch.zeros(2, 4)), "words"),
        (lambda: P.soft_codes(torch.zeros(2, 3), torch.zeros(2, 3), 0.0), "sharpness"),
        (lambda: P.bow_loss(torch.zeros(5, 3), torch.zeros(2, 3)), "target"),
        (lambda: P.quadrants(torch.zeros(1, 3, 8, 8), 0.7), "cross"),
        (lambda: P.montage(torch.zeros(6, 3, 8, 8)), "patches"),
        (lambda: P.BlockNet().maps(torch.zeros(1, 3, 20, 16)), "multiples of 16"),
        (lambda: P.Block(P.BlockNet(), 5), "number"),
        (lambda: P.Relational(P.BlockNet(), "cosine"), "head"),
        (lambda: P.OBoW(P.BlockNet(), momentum=1.5), "momentum"),
    ],
)
def test_what_cannot_be_is_refused(call, name):
    with pytest.raises(ValueError, match=name):
        call()


# ---------------------------------------------------------------------------------------------------------------------
# Jigsaw
# ---------------------------------------------------------------------------------------------------------------------


def test_quadrants_overlap_and_keep_their_place():
    x = torch.arange(100.0).view(1, 1, 10, 10)
    found = P.quadrants(x, 0.3)
    assert found.shape == (4, 1, 8, 8)
    assert [int(f[0, 0, 0]) for f in found] == [0, 2, 20, 22]
    assert torch.equal(P.quadrants(x, 0.0)[3, 0], x[0, 0, 5:, 5:])


def test_cells_find_what_the_montage_laid():
    patches = torch.arange(8.0).view(8, 1, 1, 1).expand(8, 3, 4, 4)
    laid = P.montage(patches)
    assert laid.shape == (2, 3, 8, 8) and laid[1, 0, 0, 0] == 4 and laid[0, 0, 0, 7] == 1 and laid[0, 0, 7, 0] == 2
    assert torch.equal(P.cells(laid)[:, 0], torch.arange(8.0))


class Look(nn.Module):
    """An encoder that sees the pixels themselves."""

    features, widths = 4, (4,)

    def maps(self, x):
        return [x]


def test_the_shuffle_is_undone_by_its_labels():
    """Where a patch is its image's, or its quadrant's, unit vector, both branches reach their optimum."""
    n, index = 4, torch.arange(4)
    unit = lambda which: torch.eye(4)[which].view(-1, 4, 1, 1).expand(-1, 4, 6, 6)  # noqa: E731
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    by_number = torch.arange(16.0).view(-1, 1, 1, 1).expand(-1, 4, 6, 6)
    assert torch.equal(P.JigClu(Look()).parts(by_number, order)[:, 0].long(), order)
    for mix in (True, False):
        model = P.JigClu(Look(), tau=0.1, loc=0.0, mix=mix)
        model.head = nn.Identity()
        assert float(model(unit(index.repeat(4)), index)) == pytest.approx(math.log(3 + 12 * math.exp(-10)), abs=1e-5)
        model = P.JigClu(Look(), clu=0.0, mix=mix)
        model.place = nn.Identity()
        assert float(model(100 * unit(index.repeat_interleave(n)), index)) == pytest.approx(0, abs=1e-6)


# ---------------------------------------------------------------------------------------------------------------------
# Relations
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("m, k", [(2, 2), (3, 5), (7, 4)])
def test_pairs_are_the_loop(m, k):
    left, right, same = P.relation_pairs(m, k)
    positives, negatives, shift = [], [], 1
    for a in range(k):
        for b in range(a + 1, k):
            positives += [(a * m + i, b * m + i) for i in range(m)]
            negatives += [(a * m + i, b * m + (i + shift) % m) for i in range(m)]
            shift = shift + 1 if shift + 1 < m else 1
    assert list(zip(left.tolist(), right.tolist(), strict=True)) == positives + negatives
    assert len(left) == m * k * (k - 1) and int(same.sum()) * 2 == len(same)
    assert torch.equal(left % m == right % m, same)


def test_the_head_is_the_one_on_concatenated_pairs():
    torch.manual_seed(0)
    head, h = P.RelationHead(6, 5).double(), draw(8, 6)
    left, right, _ = P.relation_pairs(4, 2)
    weight = torch.cat([head.left.weight, head.right.weight], 1)
    slow = head.rest(torch.cat([h[left], h[right]], 1) @ weight.T + head.left.bias)[:, 0]
    assert torch.allclose(head(h, left, right), slow)


# ---------------------------------------------------------------------------------------------------------------------
# Encoders, stage, OBoW
# ---------------------------------------------------------------------------------------------------------------------


def test_block_net_is_its_convolutions():
    torch.manual_seed(0)
    net, x = P.BlockNet(8, tail=1).eval(), pictures(2, 32)
    y = x - 0.5
    for i, (conv, norm) in enumerate(zip(net.convs, net.norms, strict=True)):
        out, side = len(conv.weight), (4 if i == 0 else 2 if i < 4 else 1)
        weight = conv.weight.view(out, 3, 4, 4) if i == 0 else conv.weight.view(out, side, side, -1).permute(0, 3, 1, 2)
        y = nn.functional.conv2d(y, weight, stride=(2 if i < 4 else 1), padding=int(i == 0))
        y = nn.functional.gelu((y - norm.running_mean[:, None, None]) / (norm.running_var[:, None, None] + 1e-5).sqrt())
        assert torch.allclose(net.maps(x)[i], y, atol=1e-4)
    assert net(x).shape == (2, net.features)


def test_residual_tail_adds_its_input():
    torch.manual_seed(0)
    net = P.BlockNet(8, tail=2, residual=True).eval()
    for conv in net.convs[4:]:
        nn.init.zeros_(conv.weight)
    maps = net.maps(pictures())
    assert torch.allclose(maps[5], maps[3])


def test_staged_resnet_is_resnet_18():
    torch.manual_seed(0)
    mine = P.StagedResNet(8).eval()
    torch.manual_seed(0)
    assert torch.allclose(mine(pictures(2, 32)), nets.ResNet18(8).eval()(pictures(2, 32)))
    assert torch.allclose(mine.maps(pictures(2, 32))[-1].mean((2, 3)), mine(pictures(2, 32)), atol=1e-6)
    plain = P.StagedResNet(8, residual=False).eval()
    assert torch.isfinite(plain(pictures(2, 32))).all()


def test_scenes_are_upright_and_splits_share_nothing():
    images, digits = P.UprightStage.draw(200, "train", P.UPRIGHT)
    assert images.shape == (200, 3, 16, 16) and set(digits.tolist()) == set(P.UPRIGHT)
    assert torch.equal(images, P.UprightStage.draw(200, "train", P.UPRIGHT)[0])
    assert set(P.UprightStage.draw(200, "test", P.ODD)[1].tolist()) == set(P.ODD)


@pytest.fixture
def stage(monkeypatch):
    monkeypatch.setenv("LABCODE_SCALE", "quick")
    return P.UprightStage(start("self_supervision/pretext"), train=300, test=60)


def test_the_random_encoder_has_the_statistics_of_the_images(stage):
    encoder, raw = stage.untrained(0), stage.encoder(0)
    assert not encoder.training and all(norm.momentum == 0.1 for norm in encoder.norms)
    assert all(torch.equal(a, b) for a, b in zip(encoder.parameters(), raw.parameters(), strict=True))
    x = stage.views(stage.train_images, generator=torch.Generator().manual_seed(5), views=1)
    for mine, theirs in zip(encoder.maps(x), raw.train().maps(x), strict=True):  # in training mode: a batch's own
        assert float(mine.detach().std()) == pytest.approx(float(theirs.detach().std()), rel=0.05)


def test_few_labels_are_balanced_and_belong_to_their_images(stage):
    images, labels = stage.few(60, 3)
    assert torch.bincount(labels).tolist() == [10] * 6
    for image, label in zip(images, labels, strict=True):
        at = (stage.train_images == image).flatten(1).all(1).nonzero()[0, 0]
        assert stage.train_labels[at] == label
    assert not torch.equal(stage.few(60, 4)[0], images)


def test_views_stack_and_replay():
    images = (pictures(3) * 255).to(torch.uint8)
    g = lambda: torch.Generator().manual_seed(1)  # noqa: E731
    views = P.upright_views(images, g(), 4)
    assert views.shape == (12, 3, 16, 16) and torch.equal(views, P.upright_views(images, g(), 4))
    assert P.patch_views(images, g()).shape == (12, 3, 16, 16)
    crops = P.crop_views(images, g(), P.upright_views, crops=2)
    assert torch.equal(crops[:3], P.upright_views(images, g(), 3)[:3]) and crops.shape == (9, 3, 16, 16)
    assert torch.equal(P.crop_views(images, g(), P.upright_views, 2, (1, 1)), P.upright_views(images, g(), 3))


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


@pytest.mark.parametrize("method, copies", [(P.RotNet, 1), (P.JigClu, 4), (P.Relational, 3), (P.OBoW, 3)])
def test_each_method_trains_its_encoder_from_a_batch(method, copies):
    torch.manual_seed(0)
    model = method(P.BlockNet(8)).train()
    model(pictures(4 * copies), torch.arange(4)).backward()
    assert all(p.grad is not None for p in model.encoder.parameters())


def test_classifiers_see_labels_by_index():
    labels, views, index = torch.tensor([0, 1, 2, 0, 1, 2]), pictures(8), torch.tensor([4, 1])
    torch.manual_seed(0)
    encoder = P.BlockNet(8)
    models = [P.Classifier(encoder, labels, 3), P.Classifier(encoder, labels, 3, True), P.SLA(encoder, labels, 3),
              P.SLA(encoder, labels, 3, distil=1.0), P.TwoHeads(encoder, labels, 3, P.turn_cell, 16)]  # fmt: skip
    for model in models:
        assert torch.isfinite(model(views, index))
    sla = models[2].eval()
    with torch.no_grad():
        assert torch.allclose(sla.single(views), sla.joint(encoder(views))[:, [0, 4, 8]])
        each = [sla.joint(encoder(torch.rot90(views, v, (2, 3))))[:, v::4] for v in range(4)]
        assert torch.allclose(sla.aggregated(views), sum(each) / 4, atol=1e-6)
