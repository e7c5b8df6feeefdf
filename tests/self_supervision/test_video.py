"""Video methods against slow loops written from their equations, their invariances, edges and mechanisms."""

import collections
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from accelerator import accelerator

from labcode import nets
from labcode.data import Motion, moving_scenes
from labcode.data.synthetic import textures
from labcode.self_supervision import contrastive
from labcode.self_supervision import video as V


def rows(n, d=6, seed=0):
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def g(seed=0):
    return torch.Generator().manual_seed(seed)


def cosine(a, b):
    a, b = np.asarray(a), np.asarray(b)
    return float((a * b).sum() / math.sqrt((a * a).sum() * (b * b).sum()))


# Clips ----------------------------------------------------------------------------------------------------------------


def test_cut_takes_each_video_from_its_own_start():
    frames = torch.arange(3 * 7).view(3, 7, 1, 1, 1)
    out = V.cut(frames, torch.tensor([0, 2, 4, 1, 1, 1]), 3)
    assert out[:, :, 0, 0, 0].tolist() == [[0, 1, 2], [9, 10, 11], [18, 19, 20], [1, 2, 3], [8, 9, 10], [15, 16, 17]]
    with pytest.raises(ValueError, match="length"):
        V.cut(frames, torch.zeros(3, dtype=torch.long), 8)
    with pytest.raises(ValueError, match="start"):
        V.cut(frames, torch.zeros(4, dtype=torch.long), 2)


def test_crops_are_the_boxes():
    frames = torch.randint(0, 255, (2, 3, 3, 12, 12), dtype=torch.uint8)
    boxes = torch.tensor([2.0, 3.0, 10.0, 11.0]).expand(2, 3, 2, 4)
    assert torch.equal(V.crops(frames, boxes, 8)[:, :, 1], frames[:, :, :, 3:11, 2:10])


@pytest.mark.parametrize("rho", [1, 2, 4])
def test_rho_clips_stay_in_their_span(rho):
    frames = torch.arange(20).view(1, 20, 1, 1, 1).expand(50, -1, -1, -1, -1)
    starts = V.rho_clips(frames, rho, 4, 6, generator=g())[:, 0].view(max(2, rho), 50)
    assert starts.max() <= 16 and (starts.amax(0) - starts.amin(0)).max() <= 6
    assert (starts[0] == starts[1]).all() == (rho == 1)
    assert len(starts.unique()) > 8


def test_wandering_paths_keep_their_step_and_forget_their_heading():
    path = V.wander(400, 12, 1, 20, 1.5, 1.0, generator=g())[:, :, 0]
    moves = path[:, 1:] - path[:, :-1]
    assert torch.allclose(moves.norm(dim=2), torch.full((400, 11), 1.5), atol=1e-4)
    turned = F.cosine_similarity(moves[:, 0], moves[:, -1], dim=1).mean()
    assert abs(turned) < 0.15 and F.cosine_similarity(moves[:, 0], moves[:, 1], dim=1).mean() > 0.5
    straight = V.wander(5, 12, 1, 20, 1.5, 0.0, generator=g())[:, :, 0]
    assert torch.allclose(straight[:, -1] - straight[:, 0], 11 * (straight[:, 1] - straight[:, 0]), atol=1e-3)


def test_recoloured_is_one_draw_a_clip():
    still = torch.rand(6, 1, 3, 12, 12, generator=g()).expand(-1, 4, -1, -1, -1)
    out = V.recoloured(still, g(1))
    assert (out[:, 0] - out[:, 3]).abs().mean() < 0.05  # the noise alone differs
    assert (out[0] - out[1]).abs().mean() > 0.1
    assert torch.equal(V.recoloured(still, g(1)), out)


# V-JEPA ---------------------------------------------------------------------------------------------------------------


def test_the_camera_pans_over_the_photograph_and_splits_see_other_strips():
    made = V.panned_textures(40, 3, "fit", grain=0.0, speed=1.0)
    assert made.frames.shape == (40, 4, 1, 12, 12) and set(made.labels.tolist()) == {0, 1, 2}
    x, direction = made.frames[:, :, 0].float(), made.factors["direction"][:, 0]
    step = {0: (0, 1), 1: (1, 0), 2: (0, -1), 3: (-1, 0)}  # rows down, columns right
    for clip, d in zip(x, direction.tolist(), strict=True):
        moved = torch.roll(clip[0], tuple(-s for s in step[d]), (0, 1))
        inside = (slice(1, 11), slice(1, 11))
        assert (clip[1][inside] - moved[inside]).abs().max() <= 1.01  # rounded to whole grey levels
    photos = textures(192).double().numpy()
    for i in range(5):  # one pixel by hand: bilinear, at the photograph's place
        photo = photos[int(made.labels[i])][:, :96]
        cx, cy, z = *made.factors["centre"][i].tolist(), float(made.factors["zoom"][i])
        assert z * 8 <= cx <= 96 - z * 8 and z * 8 <= cy <= 192 - z * 8
        dy, dx = step[int(direction[i])]
        seen = []
        for t, r, c in ((0, 2, 5), (1, 9, 3), (3, 6, 6), (2, 1, 10), (3, 11, 0), (0, 7, 8)):
            u = cx + z * (c - 5.5 + dx * (t - 1.5)) - 0.5
            v = cy + z * (r - 5.5 + dy * (t - 1.5)) - 0.5
            p, q = math.floor(u), math.floor(v)
            a, b = u - p, v - q
            value = (1 - b) * ((1 - a) * photo[q, p] + a * photo[q, p + 1])
            seen.append((value + b * ((1 - a) * photo[q + 1, p] + a * photo[q + 1, p + 1]), float(x[i, t, r, c])))
        if 0 < min(s[1] for s in seen) and max(s[1] for s in seen) < 255:
            assert np.corrcoef(np.array(seen).T)[0, 1] > 0.999
    strips = sorted(V.STRIPS[s] for s in ("fit", "validation", "test"))
    assert all(a[1] <= b[0] for a, b in zip(strips, strips[1:], strict=False))
    assert V.STRIPS["train"] == (strips[0][0], strips[1][1])
    with pytest.raises(ValueError, match="zoom"):
        V.panned_textures(4, 0, "test", zoom=(2.0, 6.0))
    with pytest.raises(ValueError, match="split"):
        V.panned_textures(4, 0, "all")


@pytest.mark.parametrize("settings", [V.SHORT, V.LONG, (3, 0.3)])
@pytest.mark.parametrize("grid", [(2, 4, 4), (4, 3, 3), (1, 7, 5)])
def test_masks_span_all_frames_and_part_the_tokens(settings, grid):
    visible, hidden = V.multiblock(16, grid, *settings, generator=g())
    t, cells = grid[0], grid[1] * grid[2]
    assert visible.shape[1] >= t and hidden.shape[1] >= t
    for v, m in zip(visible.tolist(), hidden.tolist(), strict=True):
        assert not set(v) & set(m) and v == sorted(set(v)) and m == sorted(set(m))
        for part in (v, m):  # the same cells in every frame
            assert {i % cells for i in part if i < cells} == {i % cells for i in part if i >= (t - 1) * cells}
            assert len(part) == t * len({i % cells for i in part})


def test_one_block_is_a_rectangle_of_the_scale():
    _, hidden = V.multiblock(200, (1, 8, 8), 1, 0.25, (1.0, 1.0), generator=g())
    assert hidden.shape[1] == 16
    row, column = hidden // 8, hidden % 8
    assert (row.amax(1) - row.amin(1) == 3).all() and (column.amax(1) - column.amin(1) == 3).all()
    assert len(hidden[:, 0].unique()) > 15  # places vary
    for blocks, scale in ((0, 0.2), (1, 0.0), (1, 1.0)):
        with pytest.raises(ValueError, match="blocks|scale"):
            V.multiblock(2, (1, 4, 4), blocks, scale, generator=g())


def test_random_tubes():
    visible, hidden = V.random_tubes(100, (2, 3, 3), 2, generator=g())
    assert visible.shape == (100, 4) and hidden.shape == (100, 14)
    assert (torch.cat([visible, hidden], 1).sort(1).values == torch.arange(18)).all()
    assert (visible[:, 2:] == visible[:, :2] + 9).all()
    with pytest.raises(ValueError, match="visible"):
        V.random_tubes(2, (2, 3, 3), 9, generator=g())


def test_jepa_loss_is_the_loop_and_stops_the_targets_gradient():
    p, t = rows(6, 5).view(2, 3, 5).requires_grad_(), (3 + 2 * rows(6, 5, 1)).view(2, 3, 5).requires_grad_()
    wanted = 0.0
    for i in range(2):
        for j in range(3):
            y = t[i, j].detach().numpy()
            y = (y - y.mean()) / math.sqrt(y.var() + 1e-5)
            wanted += sum(abs(float(a) - b) for a, b in zip(p[i, j].tolist(), y, strict=True)) / 30
    loss = V.jepa_loss(p, t)
    assert float(loss.detach()) == pytest.approx(wanted, rel=1e-9)
    loss.backward()
    assert t.grad is None and p.grad.abs().max() == pytest.approx(1 / 30)
    assert torch.allclose(V.jepa_loss(p, 7 * t - 3), loss, atol=1e-5)  # scale and shift of a target do not matter
    assert torch.autograd.gradcheck(lambda a: V.jepa_loss(a, t.detach()), p.detach().requires_grad_())
    assert float(V.jepa_loss(torch.zeros(1, 1, 4), torch.full((1, 1, 4), 9.0))) == 0  # a constant target
    with pytest.raises(ValueError, match="predicted"):
        V.jepa_loss(p[:, :, :1], t[:, :, :1])


def clips(n=6, frames=4, size=12, seed=0):
    return moving_scenes(n, seed, motion=Motion(frames=frames, size=size)).frames.float() / 255


def vit(frames=4, size=12):
    torch.manual_seed(0)
    return V.ClipViT((frames, size, size), (2, 4, 4), width=24, depth=1, heads=4)


@pytest.mark.parametrize("predict", ["features", "pixels"])
def test_vjepa_gradients_and_the_target_that_follows(predict):
    model = V.VJEPA(vit(), 10, momentum=0.75, predict=predict, width=16, depth=1).train()
    with torch.no_grad():
        for p in model.encoder.parameters():
            p.add_(0.1)
    before = [p.clone() for p in model.target.parameters()]
    model(clips(), torch.arange(6)).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.predictor.parameters())
    assert model.blank.grad.abs().sum(1).min() > 0 and model.encoder.embed.weight.grad.abs().sum() > 0
    for old, new, online in zip(before, model.target.parameters(), model.encoder.parameters(), strict=True):
        wanted = 0.75 * old + 0.25 * online if predict == "features" else old
        assert torch.allclose(new, wanted, atol=1e-6) and new.grad is None
    model.seen = 10
    before = [p.clone() for p in model.target.parameters()]
    model.follow()  # at the end the momentum is 1
    assert all(torch.equal(a, b) for a, b in zip(before, model.target.parameters(), strict=True))


def test_the_prediction_cannot_see_what_is_hidden():
    model = V.VJEPA(vit(), 10, width=16, depth=1).eval()
    x = clips(2)
    visible, hidden = V.random_tubes(2, (2, 3, 3), 4, generator=g())
    base = model.fill_in(x, visible, hidden)
    cell = int(hidden[0, 0]) % 9
    changed = x.clone()
    changed[0, :, :, cell // 3 * 4 : cell // 3 * 4 + 4, cell % 3 * 4 : cell % 3 * 4 + 4] = 1.0
    assert torch.allclose(model.fill_in(changed, visible, hidden), base, atol=1e-6)
    cell = int(visible[0, 0]) % 9
    changed[0, :, :, cell // 3 * 4 : cell // 3 * 4 + 4, cell % 3 * 4 : cell % 3 * 4 + 4] = 0.0
    assert (model.fill_in(changed, visible, hidden)[0] - base[0]).abs().max() > 1e-4


def test_what_the_context_tells_is_nothing_where_all_clips_are_one():
    model = V.VJEPA(vit(), 10, width=16, depth=1).eval()
    own, other = model.told(clips(1).expand(4, -1, -1, -1, -1), g())
    assert own == pytest.approx(other, rel=1e-5)
    own, other = model.told(clips(4), g())
    assert own != pytest.approx(other, rel=1e-5)


def test_a_constant_clip_and_a_batch_of_one_are_survived():
    model = V.VJEPA(vit(), 10, width=16, depth=1).train()
    for x in (torch.full((3, 4, 3, 12, 12), 0.5), clips(1)):
        assert torch.isfinite(model(x, torch.arange(len(x))))


# ρ clips --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rho, n", [(2, 3), (3, 4), (4, 2)])
def test_the_four_losses_are_their_loops(rho, n):
    z, k, queue = rows(rho * n), rows(rho * n, seed=1), rows(5, seed=2)
    simclr = moco = byol = 0.0
    pairs = [(a, b) for a in range(rho * n) for b in range(rho * n) if a != b and a % n == b % n]
    for a, b in pairs:
        others = [math.exp(cosine(z[a], z[c]) / 0.2) for c in range(rho * n) if c % n != a % n]
        own = math.exp(cosine(z[a], z[b]) / 0.2)
        simclr -= math.log(own / (own + sum(others))) / len(pairs)
        own = math.exp(cosine(z[a], k[b]) / 0.2)
        moco -= math.log(own / (own + sum(math.exp(cosine(z[a], m) / 0.2) for m in queue))) / len(pairs)
        byol += (2 - 2 * cosine(z[a], k[b])) / len(pairs)
    assert float(V.rho_nt_xent(z, rho, 0.2)) == pytest.approx(simclr, rel=1e-9)
    assert float(V.rho_moco(z, k, queue, rho, 0.2)) == pytest.approx(moco, rel=1e-9)
    assert float(V.rho_byol(z, k, rho)) == pytest.approx(byol, rel=1e-9)


@pytest.mark.parametrize("rho", [2, 3])
def test_swav_is_its_loop(rho):
    n, k = 4, 3
    scores = torch.tanh(rows(rho * n, k))
    wanted, count = 0.0, 0
    for code in range(2):
        q = np.exp(scores[code * n : (code + 1) * n].numpy() / 0.05)
        for _ in range(3):
            q = q / q.sum(0)
            q = q / q.sum(1, keepdims=True)
        for clip in range(rho):
            if clip != code:
                p = scores[clip * n : (clip + 1) * n].numpy() / 0.1
                log_p = p - np.log(np.exp(p).sum(1, keepdims=True))
                wanted, count = wanted - (q * log_p).sum(1).mean(), count + 1
    assert float(V.rho_swav(scores, rho)) == pytest.approx(wanted / count, rel=1e-9)


def test_two_clips_are_nt_xent_and_order_of_clips_does_not_matter():
    z, k, queue = rows(12), rows(12, seed=1), rows(5, seed=2)
    assert torch.allclose(V.rho_nt_xent(z, 2, 0.3), contrastive.nt_xent(z, 0.3))
    turn = lambda x: x.view(3, 4, -1)[[2, 0, 1]].flatten(0, 1)  # noqa: E731
    assert torch.allclose(V.rho_nt_xent(turn(z), 3), V.rho_nt_xent(z, 3))
    assert torch.allclose(V.rho_moco(turn(z), turn(k), queue, 3), V.rho_moco(z, k, queue, 3))
    assert float(V.rho_byol(z, z.roll(6, 0), 2)) == pytest.approx(0, abs=1e-9)
    same = torch.ones(6, 3)
    assert float(V.rho_nt_xent(same, 2)) == pytest.approx(math.log(5))


@pytest.mark.parametrize("name", ["simclr", "moco", "byol", "swav"])
def test_rho_gradients(name):
    z, k, queue = rows(6, 4).requires_grad_(), rows(6, 4, 1).requires_grad_(), rows(3, 4, 2)
    loss = {"simclr": lambda a: V.rho_nt_xent(a, 3), "moco": lambda a: V.rho_moco(a, k, queue, 3),
            "byol": lambda a: V.rho_byol(a, k, 3), "swav": lambda a: V.rho_swav(a.tanh(), 3)}[name]  # fmt: skip
    if name != "swav":  # the codes have no gradient, so finite differences see more than autograd
        assert torch.autograd.gradcheck(loss, z)
    loss(z).backward()
    assert z.grad.abs().sum() > 0 and k.grad is None  # no gradient reaches the keys
    k, queue = k.detach().half(), queue.half()
    half = loss(z.detach().half())
    assert half.dtype == torch.float32 and torch.isfinite(half)


@pytest.mark.parametrize("framework", ["simclr", "moco", "byol", "swav"])
@pytest.mark.parametrize("rho", [1, 2, 3])
def test_rho_modules_learn_from_all_parts(framework, rho):
    torch.manual_seed(0)
    model = V.Rho(V.ClipNet(8, 16), framework, rho, dim=8, queue=16).train()
    x = V.recoloured(V.rho_clips(moving_scenes(6, motion=Motion(frames=8)).frames, rho, 4, generator=g()), g())
    model(x, torch.arange(6)).backward()
    for name, p in model.named_parameters():
        assert (p.grad is not None) == p.requires_grad, name
    if framework == "moco":
        keys = max(2, rho) * 6
        assert model.queue.norm(dim=1).allclose(torch.ones(16)) and len(model.queue) == 16
        first = model.queue.clone()
        model(x, torch.arange(6))
        assert keys >= 16 or torch.allclose(model.queue[keys:], first[: 16 - keys])


# Scene against motion -------------------------------------------------------------------------------------------------


def test_dsm_loss_is_the_loop():
    q, k, own, queue = rows(4).requires_grad_(), rows(4, seed=1).requires_grad_(), rows(4, seed=2), rows(3, seed=3)
    own.requires_grad_()
    for with_own in (True, False):
        wanted = 0.0
        for i in range(4):
            negatives = [queue[j] for j in range(3)] + ([own[i].detach()] if with_own else [])
            scores = [math.exp(cosine(q[i].detach(), z) / 0.2) for z in (k[i].detach(), *negatives)]
            wanted -= math.log(scores[0] / sum(scores)) / 4
        loss = V.dsm_loss(q, k, queue, own if with_own else None, 0.2)
        assert float(loss.detach()) == pytest.approx(wanted, rel=1e-9)
    assert torch.allclose(V.dsm_loss(q, k, queue, tau=0.2), contrastive.moco_loss(q, k, queue, 0.2))
    V.dsm_loss(q, k, queue, own).backward()
    assert k.grad is None and q.grad.abs().sum() > 0 and own.grad.abs().sum() > 0
    assert torch.autograd.gradcheck(lambda a, b: V.dsm_loss(a, k, queue, b, 0.5), (q, own))


def test_the_scene_is_broken_alike_in_all_frames_and_motion_elsewhere():
    x = clips(5)
    out = V.spatial_disturbance(x, 0.2, generator=g())
    assert (out - x).abs().mean() > 0.005
    assert torch.allclose(V.spatial_disturbance(x, 0.0, generator=g()), x, atol=1e-5)
    still = x[:, :1].expand(-1, 4, -1, -1, -1)
    warped = V.spatial_disturbance(still, 0.2, generator=g())
    assert torch.equal(warped[:, 0], warped[:, 3])
    broken = V.temporal_disturbance(x, generator=g())
    for a, b in zip(x, broken, strict=True):  # the same frames in another order
        order = [int((a - f).abs().flatten(1).sum(1).argmin()) for f in b]
        assert sorted(order) == [0, 1, 2, 3] and all(torch.equal(a[o], f) for o, f in zip(order, b, strict=True))
    assert torch.equal(V.temporal_disturbance(still, generator=g()), still)
    with pytest.raises(ValueError, match="frames"):
        V.temporal_disturbance(x[:, :1], generator=g())


@pytest.mark.parametrize("disturb, negative", [(False, False), (True, False), (False, True), (True, True)])
def test_dsm_module(disturb, negative):
    torch.manual_seed(0)
    model = V.DSM(V.ClipNet(8, 16), disturb, negative, dim=8, queue=16, momentum=0.5).train()
    x = clips(6)
    before = model.queue.clone()
    model(torch.cat([x, x]), torch.arange(6)).backward()
    assert torch.allclose(model.queue[6:], before[:10])
    assert all(p.grad is None for p in model.slow.parameters())
    assert all(p.grad is not None for p in model.encoder.parameters())


def films():
    """A method of each kind, and views and indices for its step."""
    x, few = clips(6), torch.arange(6)
    net, three = lambda: V.ClipNet(8, 16), torch.rand(6, 3, 4, 3, 8, 8, generator=g())  # noqa: E731
    for predict in ("features", "pixels"):
        yield predict, lambda p=predict: V.VJEPA(vit(), 5, masks=((1, 0.5), 4), predict=p, width=16, depth=1), x, few
    for framework in ("simclr", "moco", "byol", "swav"):
        yield framework, lambda f=framework: V.Rho(net(), f, 2, dim=8), torch.cat([x, x.flip(1)]), few
    yield "dsm", lambda: V.DSM(net(), dim=8), torch.cat([x, x]), few
    terms = ("direct", "indirect", "cross", "ambiguity")
    yield "ucsl", lambda: V.UCSL(nets.SmallNet(16, 16), terms, 5, dim=8, late=0.0), three, few
    yield "ucsl, labels", lambda: V.UCSL(nets.SmallNet(16, 16), ("supervised",), 5, dim=8), three, few


@pytest.mark.parametrize("make, views, index", [pytest.param(*given, id=name) for name, *given in films()])
def test_a_step_waits_for_nothing(make, views, index):
    """And on the device it comes to what it comes to on the host."""
    found = []
    with accelerator() as waits:
        for device in ("cpu", "gpu"):
            torch.manual_seed(0)
            model, x, i = make().to(device).train(), views.to(device), index.to(device)
            waits.clear()
            losses = [model(x, i) for _ in range(2)]
            sum(losses).backward()
            assert not waits, waits
            found.append(torch.stack(losses).detach().cpu())
    torch.testing.assert_close(*found)


# Clusters along tracks ------------------------------------------------------------------------------------------------


def test_the_vote_is_a_count():
    labels, tracks = torch.randint(4, (60,), generator=g()), torch.randint(9, (60,), generator=g(1))
    out = V.track_vote(labels, tracks, 4)
    for track in range(9):
        mine = labels[tracks == track].tolist()
        counts = [mine.count(c) for c in range(4)]
        assert set(out[tracks == track].tolist()) <= {counts.index(max(counts))}
    assert torch.equal(V.track_vote(labels, torch.arange(60), 4), labels)  # plain ODC
    assert torch.equal(V.track_vote(out, tracks, 4), out)  # a second vote changes nothing
    assert torch.equal(V.track_vote(labels, tracks, 4, count=12), out)  # nor do tracks without a patch
    assert len(V.track_vote(labels[:0], tracks[:0], 4)) == 0


@pytest.mark.bad_input
def test_bad_shapes_are_named():
    with pytest.raises(ValueError, match="tracks"):
        V.track_vote(torch.zeros(6, dtype=torch.long), torch.zeros(5, dtype=torch.long), 4)
    with pytest.raises(ValueError, match="here"):
        V.match(objects(), objects(), torch.ones(3, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match="target"):
        V.jepa_loss(objects(), objects(2))


def test_identity_errors_keep_the_sizes_of_tracks():
    tracks = torch.arange(40)[:, None].expand(-1, 5)
    wrong = V.mistracked(tracks, 0.2, generator=g())
    assert torch.bincount(wrong.flatten()).tolist() == [5] * 40
    assert 0.15 < (wrong != tracks).float().mean() <= 0.2
    assert torch.equal(V.mistracked(tracks, 0.0, generator=g()), tracks)


def patches(n=60):
    return (torch.rand(n, 3, 8, 8, generator=g()) * 255).to(torch.uint8)


def test_the_memory_remembers_and_follows():
    torch.manual_seed(0)
    model = V.ODC(nets.SmallNet(16, 16), torch.arange(60) // 3, 5, dim=8).start(patches())
    assert model.memory.norm(dim=1).allclose(torch.ones(60)) and all(
        len(model.labels[i : i + 3].unique()) == 1 for i in range(0, 60, 3)
    )
    old, index, z = model.memory.clone(), torch.tensor([4, 50]), torch.randn(2, 8)
    model.remember(z, index)
    wanted = F.normalize(0.5 * old[index] + 0.5 * F.normalize(z, dim=1), dim=1)
    assert torch.allclose(model.memory[index], wanted)
    rest = torch.ones(60, dtype=torch.bool)
    rest[index] = False
    assert torch.equal(model.memory[rest], old[rest])


def test_small_clusters_are_dissolved_and_the_largest_is_halved():
    model = V.ODC(nets.SmallNet(16, 16), torch.arange(60), 3, dim=2, smallest=5).eval()
    angle = torch.cat([torch.zeros(20), torch.full((20,), 0.4), torch.full((18,), 2.0), torch.full((2,), 1.9)])
    model.memory = torch.stack([angle.cos(), angle.sin()], 1)
    model.labels = torch.cat([torch.zeros(40), torch.ones(18), torch.full((2,), 2.0)]).long()
    model.renew()
    assert len(model.labels[:20].unique()) == 1 and len(model.labels[20:40].unique()) == 1
    assert model.labels[0] != model.labels[20] and (model.labels[40:] == 1).all()
    assert sorted(torch.bincount(model.labels).tolist()) == [20, 20, 20]


def test_odc_renews_its_centroids_on_schedule():
    torch.manual_seed(0)
    x = patches()
    model = V.ODC(nets.SmallNet(16, 16), torch.arange(60) // 3, 5, dim=8, every=2).start(x)
    first = model.centroids.clone()
    for _ in range(3):
        assert torch.equal(model.centroids, first)
        model(x[:20].float() / 255, torch.arange(20)).backward()
    assert not torch.equal(model.centroids, first)
    assert model.centroids.norm(dim=1).allclose(torch.ones(5))
    with pytest.raises(ValueError, match="clusters"):
        V.ODC(nets.SmallNet(16, 16), torch.arange(3), 5)


@pytest.mark.parametrize("learnt", [True, False])
def test_a_step_of_odc_waits_for_nothing_but_to_renew_its_clusters(learnt):
    """And on the device it does what it does on the host."""

    def steps(device, waits):
        torch.manual_seed(0)
        tracks, x = torch.arange(60) // 3, patches().to(device)
        model = V.ODC(nets.SmallNet(16, 16), tracks, 5, dim=8, every=4, learnt=learnt).to(device).start(x)
        waited = []
        for step in range(10):
            index = (torch.arange(20, device=device) + 7 * step) % 60
            waits.clear()
            loss = model(x[index].float() / 255, index)
            loss.backward()
            waited.append(waits.total())
        return waited, [part.detach().cpu() for part in (loss, model.labels, model.memory, model.centroids)]

    _, here = steps("cpu", collections.Counter())
    with accelerator() as waits:
        waited, there = steps("gpu", waits)
    assert [step for step, times in enumerate(waited) if times] == ([4, 8] if learnt else [])
    for ours, wanted in zip(there, here, strict=True):
        torch.testing.assert_close(ours, wanted)


def test_two_means_parts_two_heaps():
    x = torch.cat([torch.randn(30, 4, generator=g()) * 0.1, torch.randn(10, 4, generator=g(1)) * 0.1 + 3])
    second = V.two_means(x)
    assert (second[:30] == second[0]).all() and (second[30:] != second[0]).all()
    V.two_means(torch.ones(3, 2))


# Tracking -------------------------------------------------------------------------------------------------------------


def objects(b=3, k=4, seed=0):
    return rows(b * k, 5, seed).view(b, k, 5)


def softmax_rows(x, y, here, tau):
    out = np.zeros((len(x), len(y)))
    for i in range(len(x)):
        e = [math.exp(cosine(x[i], y[j]) / tau) if here[j] else 0.0 for j in range(len(y))]
        out[i] = [v / sum(e) for v in e]
    return out


def test_the_terms_are_their_loops():
    x, y, z = (objects(seed=s) for s in range(3))
    here = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 1], [0, 1, 1, 0]]).bool()
    there = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 1]]).bool()
    later = torch.tensor([[1, 0, 1, 1], [0, 1, 1, 1], [1, 1, 1, 1]]).bool()
    direct, indirect, cross = [], [], []
    for b in range(3):
        h, t, w = here[b], there[b], later[b]
        xx, xy = softmax_rows(x[b], x[b], h, 0.3), softmax_rows(x[b], y[b], t, 0.3)
        yx, yz = softmax_rows(y[b], x[b], h, 0.3), softmax_rows(y[b], z[b], w, 0.3)
        xz = softmax_rows(x[b], z[b], w, 0.3)
        direct += [-math.log(xx[i, i]) for i in range(4) if h[i]]
        back = sorted(((xy @ yx)[i, i] for i in range(4) if h[i]), reverse=True)
        indirect += [-math.log(v) for v in back[: min(int(h.sum()), int(t.sum()))]]
        both = sorted(((xz * (xy @ yz)).sum(1)[i] for i in range(4) if h[i]), reverse=True)
        cross += [-math.log(v) for v in both[: min(int(h.sum()), int(t.sum()), int(w.sum()))]]
    assert float(V.direct_contrast(x, here, 0.3)) == pytest.approx(np.mean(direct), rel=1e-6)
    assert float(V.indirect_contrast(x, y, here, there, 0.3)) == pytest.approx(np.mean(indirect), rel=1e-6)
    assert float(V.cross_contrast(x, y, z, here, there, later, 0.3)) == pytest.approx(np.mean(cross), rel=1e-6)


def test_terms_do_not_know_the_order_of_detections():
    x, y, z = (objects(seed=s) for s in range(3))
    here, there, later = torch.rand(3, 3, 4, generator=g()) > 0.2
    p, q, r = [2, 0, 3, 1], [1, 3, 0, 2], [3, 2, 1, 0]
    for f, a, b in (
        (V.direct_contrast, (x, here), (x[:, p], here[:, p])),
        (V.indirect_contrast, (x, y, here, there), (x[:, p], y[:, q], here[:, p], there[:, q])),
        (V.cross_contrast, (x, y, z, here, there, later),
         (x[:, p], y[:, q], z[:, r], here[:, p], there[:, q], later[:, r])),
        (V.ambiguity_contrast, (x, z, here, later), (x[:, p], z[:, r], here[:, p], later[:, r])),
    ):  # fmt: skip
        assert torch.allclose(f(*a), f(*b)), f.__name__


def test_closed_values_and_gradients_of_the_terms():
    every = torch.ones(1, 4, dtype=torch.bool)
    eye = torch.eye(4, dtype=torch.float64)[None]
    one = math.exp(10) / (math.exp(10) + 3)
    assert float(V.direct_contrast(eye, every)) == pytest.approx(-math.log(one), rel=1e-6)
    assert float(V.indirect_contrast(eye, eye[:, [2, 0, 3, 1]], every, every)) == pytest.approx(0, abs=1e-3)
    same = torch.ones(1, 4, 3)
    assert float(V.indirect_contrast(same, same, every, every)) == pytest.approx(math.log(4), rel=1e-5)
    assert float(V.ambiguity_contrast(same, same, every, every)) == pytest.approx(1, rel=1e-5)
    assert float(V.ambiguity_contrast(eye, eye, every, every)) == 0  # nothing is in doubt
    none = torch.zeros(1, 4, dtype=torch.bool)
    for value in (V.direct_contrast(same, none), V.indirect_contrast(same, same, none, none),
                  V.cross_contrast(same, same, same, every, none, every)):  # fmt: skip
        assert float(value) == 0
    x, y, z = (objects(1, 3, s).requires_grad_() for s in range(3))
    full = torch.ones(1, 3, dtype=torch.bool)
    assert torch.autograd.gradcheck(lambda a: V.direct_contrast(a, full, 0.5), x)
    assert torch.autograd.gradcheck(lambda a, b: V.indirect_contrast(a, b, full, full, 0.5), (x, y))
    assert torch.autograd.gradcheck(lambda a, b, c: V.cross_contrast(a, b, c, full, full, full, 0.5), (x, y, z))


@pytest.mark.parametrize("terms", [("direct",), ("direct", "indirect", "cross", "ambiguity"), ("supervised",)])
def test_ucsl_module(terms):
    torch.manual_seed(0)
    model = V.UCSL(nets.SmallNet(16, 16), terms, 10, dim=8, late=0.0).train()
    x = torch.rand(3, 3, 4, 3, 8, 8, generator=g())
    x[1, 1, 2] = 0.0
    loss = model(x, torch.arange(3))
    loss.backward()
    assert torch.isfinite(loss) and all(p.grad is not None for p in model.encoder.parameters())
    with pytest.raises(ValueError, match="terms"):
        V.UCSL(nets.SmallNet(16, 16), ("cycle",), 10)


def test_association_by_appearance_survives_a_gap_and_by_boxes_does_not():
    t, k = 6, 3
    present = torch.ones(t, k, dtype=torch.bool)
    present[2:4, 1] = False
    z = torch.eye(k)[None].expand(t, -1, -1) + 0.05 * torch.randn(t, k, k, generator=g())
    names = V.associate(present, z)
    assert (names[~present] == -1).all() and V.idf1(names, present) == 1.0
    assert V.identity_switches(names, present) == (0, 0)
    moves = torch.arange(t)[:, None, None] * torch.tensor([0.0, 4.0, 0.0])[:, None]
    place = torch.arange(k)[None, :, None] * 40.0 + moves
    boxes = torch.cat([place, place * 0, place + 6, place * 0 + 6], 2)
    by_box = V.associate(present, boxes=boxes)
    assert V.identity_switches(by_box, present) == (1, 1)
    assert V.idf1(by_box, present) == pytest.approx(14 / 16)  # the two detections before or after the gap are lost
    with pytest.raises(ValueError, match="embeddings"):
        V.associate(present)


def test_embeddings_that_say_nothing_track_nothing():
    """Detections are shuffled, so a collapsed encoder cannot track by their order."""
    present = torch.ones(10, 5, dtype=torch.bool)
    names = V.associate(present, torch.ones(10, 5, 4))
    assert V.identity_switches(names, present)[0] > 20 and V.idf1(names, present) < 0.6


def test_iou_and_idf1_by_hand():
    a = torch.tensor([[0.0, 0.0, 4.0, 4.0]])
    b = torch.tensor([[2.0, 0.0, 6.0, 4.0], [5.0, 5.0, 6.0, 6.0], [0.0, 0.0, 4.0, 4.0]])
    assert V.iou(a, b)[0].tolist() == pytest.approx([1 / 3, 0, 1])
    present = torch.ones(4, 2, dtype=torch.bool)
    names = torch.tensor([[0, 1], [0, 1], [1, 0], [1, 0]])
    assert V.idf1(names, present) == 0.5 and V.identity_switches(names, present) == (2, 0)
    with pytest.raises(ValueError, match="present"):
        V.idf1(names, ~present)


def test_hidden_cells_are_measured_to_the_nearest_visible_one():
    visible = torch.tensor([[0, 8], [4, 4]])  # corners of a 3×3 grid; its centre
    away = lambda cells, seen: sum(min(math.dist(divmod(c, 3), divmod(s, 3)) for s in seen) for c in cells)  # noqa: E731
    total = away(set(range(9)) - {0, 8}, (0, 8)) + away(set(range(9)) - {4}, (4,))
    assert V.hidden_distance(visible, 3) == pytest.approx(total / 15)


def test_three_frames_are_neighbours_of_one_film():
    x = (torch.arange(5 * 6).view(5, 6, 1, 1, 1, 1) * torch.ones(1, 1, 2, 3, 4, 4)).to(torch.uint8)
    found = V.three_frames(x, torch.Generator().manual_seed(0)) * 255
    first = found[:, 0, 0, 0, 0, 0]
    assert found.shape == (5, 3, 2, 3, 4, 4) and torch.equal((first // 6).long(), torch.arange(5))
    assert torch.allclose(found[:, :, 0, 0, 0, 0] - first[:, None], torch.arange(3.0).expand(5, 3))
    assert len({int(f) % 6 for f in first}) > 1 and max(int(f) % 6 for f in first) <= 3
