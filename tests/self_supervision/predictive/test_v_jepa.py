"""V-JEPA's masks, loss and networks against loops; the panning camera."""

import math

import numpy as np
import pytest
import torch
from self_supervision.predictive.helpers import clip_vit, clips, g, rows

from labcode.data.synthetic import textures
from labcode.self_supervision import predictive as P


def test_the_camera_pans_over_the_photograph_and_splits_see_other_strips():
    made = P.panned_textures(40, 3, "fit", grain=0.0, speed=1.0)
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
    strips = sorted(P.STRIPS[s] for s in ("fit", "validation", "test"))
    assert all(a[1] <= b[0] for a, b in zip(strips, strips[1:], strict=False))
    assert P.STRIPS["train"] == (strips[0][0], strips[1][1])
    with pytest.raises(ValueError, match="zoom"):
        P.panned_textures(4, 0, "test", zoom=(2.0, 6.0))
    with pytest.raises(ValueError, match="split"):
        P.panned_textures(4, 0, "all")


@pytest.mark.parametrize("settings", [P.SHORT, P.LONG, (3, 0.3)])
@pytest.mark.parametrize("grid", [(2, 4, 4), (4, 3, 3), (1, 7, 5)])
def test_masks_span_all_frames_and_part_the_tokens(settings, grid):
    visible, hidden = P.multiblock(16, grid, *settings, generator=g())
    t, cells = grid[0], grid[1] * grid[2]
    assert visible.shape[1] >= t and hidden.shape[1] >= t
    for v, m in zip(visible.tolist(), hidden.tolist(), strict=True):
        assert not set(v) & set(m) and v == sorted(set(v)) and m == sorted(set(m))
        for part in (v, m):  # the same cells in every frame
            assert {i % cells for i in part if i < cells} == {i % cells for i in part if i >= (t - 1) * cells}
            assert len(part) == t * len({i % cells for i in part})


def test_one_block_is_a_rectangle_of_the_scale():
    _, hidden = P.multiblock(200, (1, 8, 8), 1, 0.25, (1.0, 1.0), generator=g())
    assert hidden.shape[1] == 16
    row, column = hidden // 8, hidden % 8
    assert (row.amax(1) - row.amin(1) == 3).all() and (column.amax(1) - column.amin(1) == 3).all()
    assert len(hidden[:, 0].unique()) > 15  # places vary
    for blocks, scale in ((0, 0.2), (1, 0.0), (1, 1.0)):
        with pytest.raises(ValueError, match="blocks|scale"):
            P.multiblock(2, (1, 4, 4), blocks, scale, generator=g())


def test_random_tubes():
    visible, hidden = P.random_tubes(100, (2, 3, 3), 2, generator=g())
    assert visible.shape == (100, 4) and hidden.shape == (100, 14)
    assert (torch.cat([visible, hidden], 1).sort(1).values == torch.arange(18)).all()
    assert (visible[:, 2:] == visible[:, :2] + 9).all()
    with pytest.raises(ValueError, match="visible"):
        P.random_tubes(2, (2, 3, 3), 9, generator=g())


def test_hidden_cells_are_measured_to_the_nearest_visible_one():
    visible = torch.tensor([[0, 8], [4, 4]])  # corners of a 3×3 grid; its centre
    away = lambda cells, seen: sum(min(math.dist(divmod(c, 3), divmod(s, 3)) for s in seen) for c in cells)  # noqa: E731
    total = away(set(range(9)) - {0, 8}, (0, 8)) + away(set(range(9)) - {4}, (4,))
    assert P.hidden_distance(visible, 3) == pytest.approx(total / 15)


def test_jepa_loss_is_the_loop_and_stops_the_targets_gradient():
    p, t = rows(6, 5).view(2, 3, 5).requires_grad_(), (3 + 2 * rows(6, 5, 1)).view(2, 3, 5).requires_grad_()
    wanted = 0.0
    for i in range(2):
        for j in range(3):
            y = t[i, j].detach().numpy()
            y = (y - y.mean()) / math.sqrt(y.var() + 1e-5)
            wanted += sum(abs(float(a) - b) for a, b in zip(p[i, j].tolist(), y, strict=True)) / 30
    loss = P.jepa_loss(p, t)
    assert float(loss.detach()) == pytest.approx(wanted, rel=1e-9)
    loss.backward()
    assert t.grad is None and p.grad.abs().max() == pytest.approx(1 / 30)
    assert torch.allclose(P.jepa_loss(p, 7 * t - 3), loss, atol=1e-5)  # scale and shift of a target do not matter
    assert torch.autograd.gradcheck(lambda a: P.jepa_loss(a, t.detach()), p.detach().requires_grad_())
    assert float(P.jepa_loss(torch.zeros(1, 1, 4), torch.full((1, 1, 4), 9.0))) == 0  # a constant target
    with pytest.raises(ValueError, match="predicted"):
        P.jepa_loss(p[:, :, :1], t[:, :, :1])


def test_without_the_stop_the_target_is_the_encoder_and_learns():
    t = rows(6, 5).view(2, 3, 5).requires_grad_()
    zero = torch.zeros(2, 3, 5, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda a: P.jepa_loss(zero, a, stop=False), t)
    x, grads = clips(4), {}
    for stop in (True, False):
        model = P.VJEPA(clip_vit(), 10, momentum=1.0, width=16, depth=1, stop=stop).train()
        torch.manual_seed(3)
        model(x, torch.arange(4)).backward()
        grads[stop] = model.encoder.embed.weight.grad.clone()
        assert model.evaluated is (model.target if stop else model.encoder)
    assert not torch.allclose(grads[True], grads[False], rtol=1e-2)  # the weights were equal, the losses too


@pytest.mark.parametrize("predict", ["features", "pixels"])
def test_vjepa_gradients_and_the_target_that_follows(predict):
    model = P.VJEPA(clip_vit(), 10, momentum=0.75, predict=predict, width=16, depth=1).train()
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
    model = P.VJEPA(clip_vit(), 10, width=16, depth=1).eval()
    x = clips(2)
    visible, hidden = P.random_tubes(2, (2, 3, 3), 4, generator=g())
    base = model.fill_in(x, visible, hidden)
    cell = int(hidden[0, 0]) % 9
    changed = x.clone()
    changed[0, :, :, cell // 3 * 4 : cell // 3 * 4 + 4, cell % 3 * 4 : cell % 3 * 4 + 4] = 1.0
    assert torch.allclose(model.fill_in(changed, visible, hidden), base, atol=1e-6)
    cell = int(visible[0, 0]) % 9
    changed[0, :, :, cell // 3 * 4 : cell // 3 * 4 + 4, cell % 3 * 4 : cell % 3 * 4 + 4] = 0.0
    assert (model.fill_in(changed, visible, hidden)[0] - base[0]).abs().max() > 1e-4


def test_what_the_context_tells_is_nothing_where_all_clips_are_one():
    model = P.VJEPA(clip_vit(), 10, width=16, depth=1).eval()
    own, other = model.told(clips(1).expand(4, -1, -1, -1, -1), g())
    assert own == pytest.approx(other, rel=1e-5)
    own, other = model.told(clips(4), g())
    assert own != pytest.approx(other, rel=1e-5)


def test_a_constant_clip_and_a_batch_of_one_are_survived():
    model = P.VJEPA(clip_vit(), 10, width=16, depth=1).train()
    for x in (torch.full((3, 4, 3, 12, 12), 0.5), clips(1)):
        assert torch.isfinite(model(x, torch.arange(len(x))))


@pytest.mark.bad_input
def test_cells_that_are_none_are_refused_and_nothing_hidden_is_no_distance():
    with pytest.raises(ValueError, match="visible must lie in 0 … 3, got 0 … 4"):
        P.hidden_distance(torch.tensor([[0, 4]]), 2)
    with pytest.raises(ValueError, match="visible must be"):
        P.hidden_distance(torch.zeros(2, 0).long(), 2)
    assert P.hidden_distance(torch.arange(4).expand(3, 4), 2) == 0
