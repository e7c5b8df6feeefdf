"""Moving scenes: paths, boxes, masks and occlusion obey their factors, splits are apart, and the calibration holds."""

import math
import statistics

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from labcode.data import Motion, moving_scenes, shuffled

TRACKS = Motion(size=24, frames=6, objects=3, walls="bounce", bar=5, speed=(1.0, 3.0), spin=0.2, drift=0.1)


def test_same_seed_same_videos_and_splits_share_no_digit():
    a, b, c = moving_scenes(40, 3), moving_scenes(40, 3), moving_scenes(40, 4)
    assert torch.equal(a.frames, b.frames) and not torch.equal(a.frames, c.frames)
    drawn = {s: set(moving_scenes(3000, split=s).factors["digit"].flatten().tolist()) for s in
             ("train", "test", "fit", "validation")}  # fmt: skip
    assert not drawn["train"] & drawn["test"] and not drawn["fit"] & drawn["validation"]
    assert max(drawn["fit"] | drawn["validation"] | drawn["train"]) < 1297 <= min(drawn["test"])


def test_pixels_are_what_the_factors_say():
    """A slow loop composites plain videos from masks, inks and backgrounds."""
    v = moving_scenes(4, 1, motion=Motion(objects=2, texture=0.0))
    f = v.factors
    for i in range(4):
        for t in range(4):
            wanted = f["background"][i][:, None, None].expand(3, 12, 12)
            for k in range(2):
                ink = f["ink"][i, k]
                inside = ((f["background"][i] + 0.7 * ink) - 0.5).abs() <= 0.5
                wanted = wanted + 0.7 * torch.where(inside, ink, -ink)[:, None, None] * f["mask"][i, t, k]
            assert (v.frames[i, t].float() / 255 - wanted.clamp(0, 1)).abs().max() <= 0.5 / 255 + 1e-5


def test_the_picture_moves_by_its_velocity_and_wraps():
    """After whole-pixel steps a frame is the first one, rolled: the torus has no walls to see."""
    v = moving_scenes(8, 2, motion=Motion(texture=0.0, speed=(2.0, 2.0)), rotation=0.0)
    moves = {0: (0, 2), 1: (2, 0), 2: (0, -2), 3: (-2, 0)}  # direction: rows, columns
    for i, direction in enumerate(v.factors["direction"][:, 0].tolist()):
        down, right = moves[direction]
        for t in range(4):
            rolled = v.frames[i, 0].int().roll((t * down, t * right), (1, 2))
            assert (v.frames[i, t].int() - rolled).abs().max() <= 1


def test_the_first_frame_tells_nothing_about_the_direction():
    """Places are uniform in every frame, so no frame alone gives the motion away."""
    v = moving_scenes(4000, 0)
    for t in (0, 3):
        for j in range(4):
            place = v.factors["path"][v.factors["direction"][:, 0] == j][:, t, 0]
            assert (place.mean(0) - 6).abs().max() < 4 * 12 / math.sqrt(12 * len(place))


def test_walls_keep_objects_inside_and_only_turn_them():
    f = moving_scenes(60, 5, motion=TRACKS).factors
    assert f["boxes"].min() >= -1e-4 and f["boxes"].max() <= 24 + 1e-4
    step = (f["path"][:, 1:] - f["path"][:, :-1]).abs()  # per axis: the speed's share, but for a bounce
    angle = f["direction"] * (math.pi / 2)
    wanted = f["speed"][..., None] * torch.stack([angle.cos(), angle.sin()], 2).abs()
    free = (step - wanted[:, None]).abs() < 1e-3
    assert free.float().mean() > 0.7 and (step <= wanted[:, None] + 1e-3).all()


def test_nearer_objects_and_the_bar_hide_and_visible_says_how_much():
    centre = torch.full((1, 1, 2, 2), 12.0).expand(1, 6, 2, 2)
    m = Motion(size=24, frames=6, objects=2, walls="bounce", texture=0.0)
    v = moving_scenes(1, 0, motion=m, path=centre, depth=[[1, 0]], digit=[[5, 5]], rotation=0.0)
    front, back = v.factors["mask"][0, 0, 1], v.factors["mask"][0, 0, 0]
    assert torch.allclose(back, front * (1 - front), atol=1e-5)  # the same digit, seen through the nearer one
    assert v.factors["visible"][0, 0, 1] == 1 and v.factors["visible"][0, 0, 0] < 0.5
    hidden = moving_scenes(1, 0, motion=Motion(size=24, frames=2, bar=10, walls="bounce"), edge=7,
                           path=torch.full((1, 2, 1, 2), 12.0))  # fmt: skip
    assert hidden.factors["visible"].max() < 1e-5 and hidden.factors["mask"].sum() == 0
    columns = hidden.frames[0, :, :, :, 7:17]
    assert torch.equal(columns[0], columns[1])  # the bar stands still


def test_masks_never_overfill_a_pixel():
    f = moving_scenes(30, 1, motion=TRACKS).factors
    assert f["mask"].min() >= 0 and f["mask"].sum(2).max() <= 1 + 1e-5
    assert f["visible"].min() >= 0 and f["visible"].max() <= 1 + 1e-5


def test_light_turns_colours_and_keeps_their_distance_from_grey():
    v = moving_scenes(20, 0, motion=Motion(texture=0.0, drift=0.2, ink=0.0), background=0.5 + 0.2 * torch.eye(3)[0])
    away = (v.frames.float() / 255 - 0.5).norm(dim=2)
    assert (away - 0.2).abs().max() < 0.01
    assert (v.frames[:, 3].int() - v.frames[:, 0].int()).abs().amax((1, 2, 3)).float().mean() > 5


def test_a_fixed_factor_leaves_the_other_draws_alone():
    free, fixed = moving_scenes(50, 2), moving_scenes(50, 2, direction=1)
    assert (fixed.factors["direction"] == 1).all()
    for name in ("digit", "start", "ink", "background", "texture"):
        assert torch.equal(free.factors[name], fixed.factors[name])


def test_indexing_and_moving_keep_all_together():
    some = moving_scenes(10)[torch.tensor([3, 5])].to("cpu")
    assert len(some) == 2 and all(len(v) == 2 for v in some.factors.values())
    assert some.frames.dtype == torch.uint8 and some.frames.shape == (2, 4, 3, 12, 12)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(dict(n=0), "n must"), (dict(n=1, split="valid"), "split"), (dict(n=1, hue=1), "unknown factors"),
     (dict(n=1, motion=Motion(walls="none")), "walls"), (dict(n=1, motion=Motion(extent=20)), "extent"),
     (dict(n=1, motion=Motion(classes=(11,))), "classes")],
)  # fmt: skip
def test_bad_arguments_are_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        moving_scenes(**arguments)


def test_calibration():
    """What the default leaves to learn, on validation videos: raw pixels know little of appearance and two thirds of
    motion, a random encoder is not far from them, and a small net trained with labels knows both."""
    from labcode.evaluate import knn, linear_probe
    from labcode.self_supervision.predictive import ClipNet

    train, test = moving_scenes(2000, 1, "fit"), moving_scenes(1000, 1, "validation")
    x, new = (v.frames.float() / 255 for v in (train, test))
    labels = {"class": (train.labels, test.labels),
              "direction": tuple(v.factors["direction"][:, 0] for v in (train, test))}  # fmt: skip
    found = {}
    for name, (y, y_new) in labels.items():
        found[name, "pixels"] = knn(x.flatten(1) - 0.5, y, new.flatten(1) - 0.5, y_new)
        for seed in range(1):
            torch.manual_seed(seed)
            net = nn.Sequential(ClipNet(), nn.Linear(128, 10)).eval()
            with torch.no_grad():
                z, z_new = net[0](x), net[0](new)
            found.setdefault((name, "random"), []).append(linear_probe(z, y, z_new, y_new, l2=(0.01,)).accuracy)
            optim, batches = torch.optim.AdamW(net.parameters(), lr=4e-3), shuffled(2000, 64, seed)
            net.train()
            for step in range(200):
                index = batches(step)
                optim.zero_grad()
                F.cross_entropy(net(x[index]), y[index]).backward()
                optim.step()
            net.eval()
            with torch.no_grad():
                right = (net(new).argmax(1) == y_new).float().mean().item()
            found.setdefault((name, "supervised"), []).append(right)
    mean = {k: statistics.fmean(v) if isinstance(v, list) else v for k, v in found.items()}
    print(mean)
    assert mean["class", "pixels"] < 0.45 and mean["class", "random"] < 0.55 and mean["class", "supervised"] > 0.7
    assert mean["direction", "pixels"] < 0.8 and mean["direction", "random"] < 0.8
    assert mean["direction", "supervised"] > 0.95
