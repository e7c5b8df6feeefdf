"""Masks, order and distillation against slow loops written from the equations, their invariances and mechanisms."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from labcode import nets
from labcode.self_supervision import predictive as P


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def vit(width=16, depth=2, size=6, patch=2, channels=1, seed=0, **options):
    torch.manual_seed(seed)
    return nets.ViT((size, size), (patch, patch), channels, width, depth, 2, **options)


# Losses


@pytest.mark.parametrize("n, k, p", [(1, 3, 2), (4, 5, 3)])
def test_masked_mse_is_the_loop(n, k, p):
    a, b, hidden = draw(n, k, p), draw(n, k, p, seed=1), draw(n, k, seed=2) > 0
    hidden[0, 0] = True
    errors = [
        float((a[i, j, c] - b[i, j, c]) ** 2) for i in range(n) for j in range(k) for c in range(p) if hidden[i, j]
    ]
    assert float(P.masked_mse(a, b, hidden)) == pytest.approx(sum(errors) / len(errors), rel=1e-12)
    assert float(P.masked_mse(a, b, torch.zeros_like(hidden))) == 0


def test_fourier_loss_is_the_sum_of_waves():
    a, b = draw(2, 2, 3, 4), draw(2, 2, 3, 4, seed=1)

    def moduli(x):
        out = []
        for u in range(3):
            for v in range(4):
                waves = [x[y, z] * np.exp(-2j * math.pi * (u * y / 3 + v * z / 4)) for y in range(3) for z in range(4)]
                out.append(abs(sum(waves)))
        return out

    wanted = [abs(s - t) for i in range(2) for c in range(2)
              for s, t in zip(moduli(a[i, c].numpy()), moduli(b[i, c].numpy()), strict=True)]  # fmt: skip
    assert float(P.fourier_loss(a, b)) == pytest.approx(sum(wanted) / len(wanted), rel=1e-9)
    assert float(P.fourier_loss(a, a.roll((1, 2), (2, 3)))) < 1e-9, "it does not care where a structure lies"
    blurred = (a + a.roll(1, 3)) / 2
    assert float(P.fourier_loss(blurred, a)) > 0.1, "but a blur it sees"


@pytest.mark.parametrize("normalise", [True, False])
def test_autoregressive_loss_is_the_loop(normalise):
    n, k, p = 3, 5, 4
    predicted, patches, prefix = draw(n, k, p), 3 + draw(n, k, p, seed=1), torch.tensor([1, 3, 4])
    errors = []
    for i in range(n):
        for j in range(int(prefix[i]), k):  # patch j, predicted from patches 0 … j - 1
            x = patches[i, j].numpy()
            if normalise:
                x = (x - x.mean()) / math.sqrt(x.var(ddof=1) + 1e-6)
            errors += [(float(predicted[i, j - 1, c]) - x[c]) ** 2 for c in range(p)]
    found = float(P.autoregressive_loss(predicted, patches, prefix, normalise))
    assert found == pytest.approx(sum(errors) / len(errors), rel=1e-9)
    if normalise:
        assert float(P.autoregressive_loss(predicted, 5 * patches + 2, prefix)) == pytest.approx(found, rel=1e-5)


def test_next_all_loss_is_the_loop():
    n, r, k, p = 2, 3, 4, 2
    predicted, patches, after = draw(n, r, k, p), draw(n, k, p, seed=1), torch.tensor([[0, 1, 3], [2, 2, 0]])
    errors = [float((predicted[i, s, j, c] - patches[i, j, c]) ** 2)
              for i in range(n) for s in range(r) for j in range(k) for c in range(p) if j > after[i, s]]  # fmt: skip
    assert float(P.next_all_loss(predicted, patches, after)) == pytest.approx(sum(errors) / len(errors), rel=1e-12)
    last = torch.full((n, r), k - 2)  # only the next one follows: the next-token loss
    shifted = torch.cat([torch.zeros(n, k - 2, p), predicted[:, 0, k - 1 :], torch.zeros(n, 1, p)], 1)
    next_token = P.autoregressive_loss(shifted, patches, torch.full((n,), k - 1), normalise=False)
    alone = P.next_all_loss(predicted[:, :1], patches, last[:, :1])
    assert float(next_token) == pytest.approx(float(alone), rel=1e-9)


def test_self_distillation_loss_is_the_loop_and_stops_at_the_teacher():
    s, t = draw(3, 4).requires_grad_(), draw(3, 4, seed=1).requires_grad_()
    wanted = sum((s[i, j].item() - t[i, j].item()) ** 2 for i in range(3) for j in range(4)) / 3
    loss = P.self_distillation_loss(s, t)
    loss.backward()
    assert loss.item() == pytest.approx(wanted, rel=1e-12) and t.grad is None
    assert float(P.self_distillation_loss(2 * torch.ones(1, 5), torch.zeros(1, 5))) == 20, "a sum over features"


def test_gradients():
    hidden, prefix, after = torch.tensor([[True, False, True]] * 2), torch.tensor([1, 2]), torch.tensor([[0], [1]])
    a, b = draw(2, 3, 4).requires_grad_(), draw(2, 3, 4, seed=1)
    assert torch.autograd.gradcheck(lambda x: P.masked_mse(x, b, hidden), a)
    assert torch.autograd.gradcheck(lambda x: P.autoregressive_loss(x, b, prefix), a)
    assert torch.autograd.gradcheck(lambda x: P.next_all_loss(x[:, None], b, after), a)
    assert torch.autograd.gradcheck(lambda x: P.fourier_loss(x[None], b[None]), a)
    assert torch.autograd.gradcheck(lambda x: P.self_distillation_loss(x, b[:, 0]), a[:, 0].detach().requires_grad_())


def test_gradient_of_a_modulus_at_zero_is_finite():
    x = torch.zeros(1, 1, 4, 4, requires_grad=True)
    P.fourier_loss(x, torch.ones(1, 1, 4, 4)).backward()
    assert torch.isfinite(x.grad).all()


@pytest.mark.bad_input
def test_bad_arguments_are_named():
    a = draw(2, 3, 4)
    for name, call in {
        "hidden": lambda: P.masked_mse(a, a, torch.zeros(2, 3)),
        "target": lambda: P.fourier_loss(a[None], a[None, :1]),
        "predicted": lambda: P.autoregressive_loss(a[:, :1], a[:, :1], torch.tensor([1, 1])),
        "prefix": lambda: P.autoregressive_loss(a, a, torch.tensor([1])),
        "after": lambda: P.next_all_loss(a[:, None], a, torch.tensor([1, 1])),
        "teacher": lambda: P.self_distillation_loss(a[:, 0], a[:, 0, :2]),
        "objectives": lambda: P.TokenUnify(vit(), ("all",)),
        "encoder": lambda: P.Reader(vit(), 3),
        "tokens": lambda: P.pixel_scores(draw(2, 4, 3), torch.ones(2, 6, 6, dtype=torch.bool), draw(1, 9, 3), (2, 2)),
        "tail": lambda: P.relation_recall(a[0], torch.tensor([0, 0, 1]), 0.5),
        "group": lambda: P.relation_recall(a[0], torch.tensor([0, 1, 2])),
        "pathways": lambda: P.cells(1, 4, 5),
        "mask": lambda: P.dice(a, a),
        "x": lambda: P.ChannelMAE(P.ChannelViT((4, 4), (2, 2), 8, 1, 2), 3, width=8, heads=2)(torch.rand(2, 2, 4, 4)),
    }.items():
        with pytest.raises(ValueError, match=rf"\b{name}\b"):
            call()


# AIM


@pytest.mark.parametrize("causal", [False, True])
def test_aim_never_sees_what_it_predicts(causal):
    """Change patch j: predictions of patches up to j stay, unless j is in the prefix, which is no target."""
    model, x = P.AIM(vit(), causal=causal), draw(2, 1, 6, 6, dtype=torch.float32)
    for prefix in (1, 3, 8):
        lengths = torch.full((2,), prefix)
        for j in range(prefix, 9):
            patches = nets.patchify(x, (2, 2)).clone()
            patches[:, j] = draw(2, 4, seed=j, dtype=torch.float32)
            changed = nets.unpatchify(patches, (2, 2), (3, 3))
            same = torch.isclose(model.predict(x, lengths), model.predict(changed, lengths), atol=1e-6).all(2)
            assert same[:, :j].all(), "row j - 1 predicts patch j"
            assert not same[:, j:].any()


def test_aims_prefix_sees_itself_in_both_directions():
    model, x = P.AIM(vit()), draw(1, 1, 6, 6, dtype=torch.float32)
    whole, first = model.predict(x, torch.tensor([8])), model.predict(x, torch.tensor([1]))
    assert not torch.isclose(whole[:, 0], first[:, 0], atol=1e-4).all()
    assert torch.allclose(P.AIM(vit(), causal=True).predict(x, torch.tensor([8])),
                          P.AIM(vit(), causal=True).predict(x, torch.tensor([1])))  # fmt: skip


def test_aim_learns_a_rule_and_its_validation_loss_is_fixed():
    """Every patch repeats the first one: after a few steps the next patch is known."""
    torch.manual_seed(0)
    tile = torch.randn(64, 1, 2, 2)
    x, model = tile.repeat(1, 1, 3, 3), P.AIM(vit(32), depth=1)
    before = model.validation_loss(x)
    optimiser = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(60):
        optimiser.zero_grad()
        model(x).backward()
        optimiser.step()
    assert model.validation_loss(x) < 0.2 < before and model.validation_loss(x) == model.validation_loss(x)


def test_block_average_is_the_mean_of_the_last_blocks():
    encoder, x = vit(depth=3), draw(2, 1, 6, 6, dtype=torch.float32)
    layers = encoder.trunk.layers(encoder.tokens(x))
    assert torch.allclose(P.block_average(encoder, x, 2), (layers[-1] + layers[-2]) / 2)


# TokenUnify


def test_next_and_next_all_answers_know_only_the_past():
    model, x = P.TokenUnify(vit()), draw(2, 1, 6, 6, dtype=torch.float32)
    shown = P.rollout(model, x, 4, feed_back=False)
    patches = nets.patchify(x, (2, 2)).clone()
    patches[:, 4:] = 9.0
    other = nets.unpatchify(patches, (2, 2), (3, 3))
    for feed_back in (True, False):
        assert torch.allclose(P.rollout(model, other, 4, feed_back), P.rollout(model, x, 4, feed_back), atol=1e-5)
    assert torch.equal(shown[:, :4], nets.patchify(x, (2, 2))[:, :4])


def test_rollout_feeds_back_what_it_said():
    model, x = P.TokenUnify(vit()), draw(3, 1, 6, 6, dtype=torch.float32)
    said = P.rollout(model, x, 5, feed_back=True)
    patches = nets.patchify(x, (2, 2)).clone()
    with torch.no_grad():
        for j in range(5, 9):  # by hand, with a sequence that is only as long as what is known
            h = model.encoder.embed(patches[:, :j]) + model.encoder.position[:j]
            h = model.encoder.trunk(h, nets.prefix_causal(j, torch.full((3,), 5)))[:, -1]
            patches[:, j] = model.answer(h, torch.tensor(j))
    assert torch.allclose(said, patches, atol=1e-4)
    first = P.rollout(model, x, 5, feed_back=False)[:, 5]
    assert torch.allclose(said[:, 5], first, atol=1e-5), "the next patch is the first of those that follow"


def test_objectives_take_turns_and_each_trains_the_trunk():
    model, x = P.TokenUnify(vit(), ("random", "next", "next-all")), draw(4, 1, 6, 6, dtype=torch.float32)
    seen = []
    model.loss = lambda x, objective, full=model.loss: seen.append(objective) or full(x, objective)
    for _ in range(4):
        model.zero_grad()
        model(x).backward()
        assert model.encoder.embed.weight.grad.abs().sum() > 0 and model.know.weight.grad.abs().sum() > 0
    assert seen == ["random", "next", "next-all", "random"]


def test_hidden_patches_stay_hidden():
    torch.manual_seed(0)
    model, x = P.TokenUnify(vit(), ("random",)), draw(2, 1, 6, 6, dtype=torch.float32)
    noted = {}
    model.encoder.trunk.register_forward_pre_hook(lambda module, args: noted.update(tokens=args[0]))
    torch.manual_seed(1)
    model(x)
    blank = (noted["tokens"] - model.encoder.position - model.blank).abs().amax(2) < 1e-6
    assert (blank.sum(1) == 9 - model.keep).all() and model.keep == 2


# Masked autoencoders


def test_mae_predicts_without_seeing():
    torch.manual_seed(0)
    mae, x = P.MAE(vit(cls=True), width=16), draw(2, 1, 6, 6, dtype=torch.float32)
    kept, hidden = nets.random_split(2, 9, 2)
    patches = nets.patchify(x, (2, 2)).clone()
    patches.scatter_(1, hidden[..., None].expand(-1, -1, 4), 5.0)
    other = nets.unpatchify(patches, (2, 2), (3, 3))
    assert torch.equal(mae.decode(mae.encoder(x, kept), kept), mae.decode(mae.encoder(other, kept), kept))
    assert mae.decode(mae.encoder(x, kept), kept).shape == (2, 9, 4) and mae.keep == 2


def test_channel_encoder_does_not_care_for_the_order_or_number_of_channels():
    torch.manual_seed(0)
    encoder, x = P.ChannelViT((6, 6), (2, 2), 16, 2, 2), draw(2, 3, 6, 6, dtype=torch.float32)
    order = torch.tensor([2, 0, 1])
    out = encoder(x).unflatten(1, (3, 9))
    assert torch.allclose(encoder(x[:, order]).unflatten(1, (3, 9)), out[:, order], atol=1e-5)
    assert encoder(x[:, :1]).shape == (2, 9, 16) and encoder(x.repeat(1, 3, 1, 1)).shape == (2, 81, 16)
    assert torch.equal(encoder.patches(x)[:, 9:18], nets.patchify(x[:, 1:2], (2, 2)))
    index = torch.tensor([[0, 20], [13, 5]])
    tokens = encoder.single.embed(encoder.patches(x)) + encoder.single.position.repeat(3, 1)
    assert torch.allclose(encoder(x, index), encoder.single.trunk(nets.gather(tokens, index)), atol=1e-5)


def test_channel_decoder_paints_the_hidden_and_keeps_channels_apart():
    torch.manual_seed(0)
    mae = P.ChannelMAE(P.ChannelViT((6, 6), (2, 2), 16, 1, 2), 3, width=8, heads=2)
    x = draw(2, 3, 6, 6, dtype=torch.float32)
    assert torch.equal(mae.paint(mae.encoder.patches(x)), x)
    kept = torch.tensor([[0, 10, 20, 26]] * 2)
    painted = mae.decode(mae.encoder(x, kept), kept)
    assert painted.shape == (2, 27, 4)
    with torch.no_grad():
        for p in mae.decoders[1].parameters():
            p.add_(1.0)
    same = torch.isclose(mae.decode(mae.encoder(x, kept), kept), painted, atol=1e-6).all(2)
    assert same[:, :9].all() and same[:, 18:].all() and not same[:, 9:18].all()


def test_self_standardise_takes_away_gain_and_offset():
    x = draw(3, 2, 5, 5)
    y = P.self_standardise(4.0 * x + 7.0)
    assert torch.allclose(y, P.self_standardise(x), atol=1e-3)
    assert y.mean((2, 3)).abs().max() < 1e-6 and (y.var((2, 3), correction=0) - 1).abs().max() < 1e-4
    assert P.self_standardise(torch.full((1, 1, 4, 4), 0.3)).abs().max() < 1e-3


# Further pre-training


def test_further_is_the_sum_of_its_parts():
    base, x = P.MAE(vit(cls=True), width=16), draw(4, 1, 6, 6, dtype=torch.float32)
    teacher = vit(cls=True, seed=5)
    plain, distilled = P.Further(copy.deepcopy(base)), P.Further(copy.deepcopy(base), teacher)
    torch.manual_seed(3)
    first = float(plain(x).detach())
    torch.manual_seed(3)
    second = distilled(x)
    apart = (base.encoder(x)[:, 0] - teacher(x)[:, 0]).square().sum(1).mean()
    assert second.item() == pytest.approx(first + apart.item(), rel=1e-5)
    second.backward()
    assert all(p.grad is None and not p.requires_grad for p in distilled.teacher.parameters())
    assert all(p.requires_grad for p in teacher.parameters()), "the teacher itself is left as it was"


def test_pull_holds_the_encoder_where_it_started():
    base, x = P.MAE(vit(cls=True), width=16), draw(8, 1, 6, 6, dtype=torch.float32)
    far = []
    for pull in (0.0, 10.0):
        model = P.Further(copy.deepcopy(base), pull=pull)
        optimiser = torch.optim.SGD(model.parameters(), 0.05)
        for _ in range(10):
            optimiser.zero_grad()
            model(x).backward()
            optimiser.step()
        far.append(float(P.moved(model.encoder, list(base.encoder.parameters()))))
    assert far[1] < 0.2 * far[0]
    assert float(P.moved(base.encoder, list(base.encoder.parameters()))) == 0


def test_rounds_of_distillation_are_gradient_flow():
    x, away, time = draw(6, 9), draw(9, seed=1), 2.0
    rounds = P.distillation_rounds(x, away, time, 4)
    start = draw(9, seed=2)
    teacher = start + away
    for t in range(1, 4):
        w = start.clone()
        for _ in range(20_000):
            w -= time / 20_000 * x.T @ (x @ w - x @ teacher) / 6
        assert torch.allclose(w - start, rounds[t], atol=1e-4)
        teacher = w
    length = rounds.norm(dim=1)
    assert (length[1:] < length[:-1]).all() and torch.allclose(rounds[0], away)


# Reading


def test_reader_reads_the_class_token():
    x, encoder = draw(3, 1, 6, 6, dtype=torch.float32), vit(cls=True)
    reader = P.Reader(encoder, 4)
    assert torch.equal(reader(x), reader.head(encoder(x)[:, 0])) and reader(x).shape == (3, 4)


def test_fine_tune_learns_and_leaves_the_encoder_alone():
    encoder, g = vit(cls=True), torch.Generator().manual_seed(0)
    y = torch.arange(40) % 2
    x = torch.randn(40, 1, 6, 6, generator=g) + 3 * (y[:, None, None, None] * 2 - 1) * torch.eye(6)
    before, state = [p.clone() for p in encoder.parameters()], torch.get_rng_state()
    reader = P.fine_tune(encoder, x, y, 2, steps=40, lr=5e-3)
    assert (reader(x).argmax(1) == y).float().mean() > 0.95
    assert all(torch.equal(p, q) for p, q in zip(encoder.parameters(), before, strict=True))
    assert torch.equal(torch.get_rng_state(), state)


def test_pixel_scores_are_scikit_learns_ridge():
    from sklearn.linear_model import Ridge

    tokens, new, mask = draw(5, 6, 3), draw(2, 6, 3, seed=1), draw(5, 4, 6, seed=2) > 0
    every, mean = tokens.flatten(0, 1), tokens.flatten(0, 1).mean(0)

    def piece(pixels, i, j):
        return pixels[i, 2 * (j // 3) : 2 * (j // 3) + 2, 2 * (j % 3) : 2 * (j % 3) + 2]

    wanted = torch.stack([piece(mask, i, j) for i in range(5) for j in range(6)]).flatten(1).numpy().astype(float)
    model = Ridge(alpha=0.1 * 30).fit(((every - mean) / every.std(0)).numpy(), wanted)
    found = P.pixel_scores(tokens, mask, new, (2, 2), l2=0.1)
    assert found.shape == (2, 4, 6)
    for i in range(2):
        for j in range(6):
            said = model.predict(((new[i, j] - mean) / every.std(0)).numpy()[None])[0]
            assert np.allclose(piece(found, i, j).numpy().ravel(), said, atol=1e-5)


def test_dice():
    mask = torch.tensor([[[True, True, False, False]]])
    assert P.dice(torch.tensor([[[1.0, -1.0, 1.0, -1.0]]]), mask) == 0.5
    assert P.dice(torch.where(mask, 1.0, -1.0), mask) == 1 and P.dice(-torch.ones(1, 1, 4), mask & False) == 1


# Generators


def test_membranes_lie_between_cells():
    """Where two cells meet there is a membrane; it is darker than the cells."""
    made = P.membranes(4, seed=1)
    assert made.images.shape == (4, 1, 24, 24) and made.mask.shape == made.cells.shape == (4, 24, 24)
    meets = made.cells[:, 1:] != made.cells[:, :-1]
    assert (made.mask[:, 1:] | made.mask[:, :-1])[meets].all()
    assert 0.1 < made.mask.float().mean() < 0.55
    assert made.images[:, 0][made.mask].mean() < made.images[:, 0][~made.mask].mean() - 0.5
    down, right = ((cells.diff(dim=d) != 0).float().mean() for d, cells in ((1, made.cells), (2, made.cells)))
    assert right > 2 * down, "cells are long, and upright"
    assert torch.equal(P.membranes(4, seed=1).images, made.images)
    assert not torch.equal(P.membranes(4, seed=2).images, made.images)


def test_cells_show_their_factors():
    made = P.cells(20, 16, 4, effect=3.0, seed=3)
    assert made.images.shape == (320, 4, 16, 16) and made.pathway.tolist() == [i % 4 for i in range(16)]
    assert torch.bincount(made.perturbation).tolist() == [20] * 16
    other = P.cells(20, 16, 4, effect=3.0, seed=3, draw=1)
    assert torch.equal(other.pathway, made.pathway) and not torch.equal(other.images, made.images)
    from labcode.self_supervision.masked import _draw_cells

    for factor, channel, grows in ((0, 0, True), (2, 1, True), (3, 2, True), (5, 3, True)):
        areas = []
        for value in (-2.0, 2.0):
            z = torch.zeros(200, 7)
            z[:, factor] = value
            areas.append(_draw_cells(z, 16, 0.5, torch.Generator().manual_seed(0))[:, channel].mean())
        assert (areas[1] > 1.1 * areas[0]) == grows


def test_centre_by_batch_removes_what_a_plate_adds():
    z, batch = draw(12, 3), torch.arange(12) % 3
    moved = z + 5 * draw(3, 3, seed=1)[batch]
    assert torch.allclose(P.centre_by_batch(moved, batch), P.centre_by_batch(z, batch))
    assert max(P.centre_by_batch(z, batch)[batch == b].mean(0).abs().max() for b in range(3)) < 1e-12


def test_typical_variation_whitens_the_scatter_within():
    g, batch = torch.arange(400) % 5, torch.arange(400) // 100
    z = draw(400, 3) * torch.tensor([1.0, 10.0, 0.1])
    z[g == 2] += torch.tensor([1.0, 10.0, 0.1])
    mean = P.typical_variation(z, g, batch, shrink=0.0)
    assert mean.shape == (5, 3) and mean.norm(dim=1).argmax() == 2
    assert torch.allclose(P.typical_variation(z * 3, g, batch), P.typical_variation(z, g, batch), atol=1e-6)


def test_relation_recall_is_the_loop():
    z, group, tail = draw(9, 4), torch.arange(9) % 3, 0.1
    pairs = [(i, j) for i in range(9) for j in range(i)]
    value = {(i, j): float(F.cosine_similarity(z[i], z[j], dim=0)) for i, j in pairs}
    order = sorted(pairs, key=value.get)
    size = round(tail * len(pairs))
    found = set(order[:size]) | set(order[-size:])
    related = [pair for pair in pairs if group[pair[0]] == group[pair[1]]]
    assert P.relation_recall(z, group, tail) == pytest.approx(sum(p in found for p in related) / len(related))
    axes = torch.eye(5, dtype=torch.float64)[torch.arange(20) % 5] + 0.01 * draw(20, 5)
    flipped = axes * (1 - 2 * (torch.arange(20) % 2))[:, None]
    assert (
        P.relation_recall(axes, torch.arange(20) % 5, 0.2) == 1 == P.relation_recall(flipped, torch.arange(20) % 5, 0.2)
    )
    random = [P.relation_recall(draw(60, 8, seed=s), torch.arange(60) % 6) for s in range(20)]
    assert abs(sum(random) / 20 - 0.1) < 0.03, "nothing known finds both tails' share"


def test_grey_digits_are_bright_and_kept_apart_by_split():
    x, y = P.grey_digits(200, "fit", seed=3)
    assert x.shape == (200, 1, 12, 12) and y.shape == (200,)
    assert x.min() > -0.1 and 1 < x.max() < 2.5
    assert not torch.equal(P.grey_digits(200, "validation", seed=3)[0], x)
    assert P.grey_digits(2, "fit", size=16, texture=0.5)[0].shape == (2, 1, 16, 16)


def test_perturbation_classifier_is_cross_entropy_of_its_own_images():
    torch.manual_seed(0)
    labels = torch.tensor([0, 2, 1, 2])
    model, x = P.PerturbationClassifier(vit(), labels), draw(2, 1, 6, 6, dtype=torch.float32)
    logits = model.head(model.encoder(x).mean(1))
    wanted = -(logits.log_softmax(1)[0, 2] + logits.log_softmax(1)[1, 0]) / 2
    assert logits.shape == (2, 3)
    assert float(model(x, torch.tensor([3, 0])).detach()) == pytest.approx(float(wanted.detach()), rel=1e-5)


def test_membranes_are_found_where_tokens_tell_them_and_at_the_rate_of_the_labelled_sections():
    few, new = P.membranes(24, 0, 24), P.membranes(24, 1, 24)
    masks = {m.images.data_ptr(): m.mask for m in (few, new)}
    truth = lambda images: nets.patchify(masks[images.data_ptr()][:, None].float(), (6, 6))  # noqa: E731
    noise = lambda images: torch.randn(24, 16, 36, generator=torch.Generator().manual_seed(len(images)))  # noqa: E731
    found, share = P.membrane_dice(truth, few, new, (6, 6)), float(few.mask.float().mean())
    assert found > 0.95 and P.membrane_dice(noise, few, new, (6, 6)) == pytest.approx(share, abs=0.08)
