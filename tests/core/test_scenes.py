"""The scenes: every factor known and obeyed, splits apart, and the calibration that the course relies on."""

import os
import statistics
import time

import pytest
import torch

from labcode.data import EIGHT, Difficulty, digits, scenes, shuffled, textures


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    images, labels = digits("optdigits")
    wanted = load_digits()
    assert torch.equal(images, torch.from_numpy(wanted.images).float() / 16)
    assert labels.tolist() == wanted.target.tolist()


def test_mnist_has_all_classes_alike_and_strokes_where_a_digit_has_them():
    images, labels = digits()
    assert images.shape == (5000, 28, 28) and labels.tolist() == [i % 10 for i in range(5000)]
    assert images.min() == 0 and images.max() == 1 and images[:, 0].mean() < 0.01  # margins are dark
    means = torch.stack([images[labels == c].flatten(1).mean(0) for c in range(10)])
    nearest = torch.cdist(images.flatten(1), means).argmin(1)
    assert (nearest == labels).float().mean() > 0.75  # labels belong to the pictures: 0.81 for nearest means
    with pytest.raises(ValueError, match="kind must be one of mnist, optdigits"):
        digits("usps")


def test_textures_are_standardised():
    photos = textures()
    assert photos.shape == (9, 192, 192)
    assert photos.mean((1, 2)).abs().max() < 1e-4 and (photos.std((1, 2)) - 1).abs().max() < 1e-4


def test_same_seed_same_scenes_and_splits_share_no_digit():
    a, b, c = scenes(300, 3), scenes(300, 3), scenes(300, 4)
    assert torch.equal(a.images, b.images) and not torch.equal(a.images, c.images)
    test = scenes(300, 3, split="test")
    assert not set(a.factors["digit"].tolist()) & set(test.factors["digit"].tolist())


def test_tuning_splits_are_training_digits_and_share_neither_a_digit_nor_a_draw():
    drawn = {s: set(scenes(4000, split=s).factors["digit"].tolist()) for s in ("train", "test", "fit", "validation")}
    assert not drawn["fit"] & drawn["validation"] and not (drawn["fit"] | drawn["validation"]) & drawn["test"]
    assert max(drawn["fit"] | drawn["validation"] | drawn["train"]) < 4000 <= min(drawn["test"])
    assert not torch.equal(scenes(50, split="fit").factors["background"], scenes(50).factors["background"])
    with pytest.raises(ValueError, match="split"):
        scenes(5, split="valid")


def test_pixels_are_what_the_factors_say():
    """A slow loop composites one image from its factors: mask, ink and background, without texture."""
    plain = scenes(20, 1, difficulty=Difficulty(texture=0.0))
    f = plain.factors
    for i in range(20):
        for row in range(16):
            for column in range(16):
                wanted = f["background"][i] + 0.7 * f["ink"][i] * f["mask"][i, row, column]
                got = plain.images[i, :, row, column].float() / 255
                assert (got - wanted.clamp(0, 1)).abs().max() <= 0.5 / 255 + 1e-5


def test_geometry_moves_the_mask():
    still = dict(rotation=0.0, scale=1.0, digit=7)
    centre = scenes(1, shift=[[0.0, 0.0]], **still).factors["mask"][0]
    moved = scenes(1, shift=[[0.125, 0.0]], **still).factors["mask"][0]
    assert torch.allclose(centre[:, 2:-2], moved[:, 4:], atol=1e-4)  # 0.125 of 16 pixels to the right


def test_a_fixed_factor_leaves_the_other_draws_alone():
    free, fixed = scenes(50, 2), scenes(50, 2, background=0.5)
    assert (fixed.factors["background"] == 0.5).all()
    assert torch.equal(free.factors["digit"], fixed.factors["digit"])
    assert torch.equal(free.factors["mask"], fixed.factors["mask"])
    labelled = scenes(40, label=torch.arange(40) % 10)
    assert labelled.labels.tolist() == [i % 10 for i in range(40)]


def test_indexing_keeps_all_together():
    some = scenes(10)[torch.tensor([3, 5])]
    assert len(some) == 2 and all(len(v) == 2 for v in some.factors.values())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(dict(n=0), "n must be at least 1"), (dict(n=1, split="valid"), "split"), (dict(n=1, hue=1), "unknown factors")],
)
def test_bad_arguments_are_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        scenes(**arguments)


def test_a_label_that_is_no_digit_is_refused_where_it_drew_a_wrong_digit():
    for label in (10, -1, torch.tensor([3, 12])):
        with pytest.raises(ValueError, match="label must hold digits 0 … 9"):
            scenes(2, label=label)
    assert scenes(2, label=torch.tensor([3, 9])).labels.tolist() == [3, 9]


def test_shuffled_covers_every_image_once_an_epoch_and_depends_on_the_step_alone():
    batch = shuffled(10, 3, seed=1)
    epoch = torch.cat([batch(i) for i in range(3)])
    assert len(epoch.unique()) == 9
    assert torch.equal(shuffled(10, 3, seed=1)(7), batch(7))
    first = {tuple(shuffled(50, 50, seed=s)(epoch).tolist()) for s in range(5) for epoch in range(5)}
    assert len(first) == 25, "every seed and every epoch has an order of its own"
    assert not torch.equal(batch(0), batch(3))
    with pytest.raises(ValueError, match="batch_size must be between 1 and the 10 images, got 11"):
        shuffled(10, 11)


@pytest.fixture
def stage(monkeypatch, tmp_path):
    from labcode.course.run import start
    from labcode.course.stage import Stage

    monkeypatch.chdir(tmp_path)
    return Stage(start("p/c"))


def test_calibration(stage):
    """The default difficulty leaves room: raw pixels and a random encoder stay low, labels reach high, and SimCLR
    comes near them in a few seconds (0.26, 0.30, 0.88 and 0.75 when measured). Three seeds each."""
    from labcode.self_supervision.contrastive import SimCLR

    references = [stage.references(seed) for seed in range(3)]
    began = time.process_time()
    runs = [stage.knn(stage.pretrain("calibration", SimCLR, seed, lr=5e-3).encoder) for seed in range(3)]
    seconds = (time.process_time() - began) / 3
    mean = {name: statistics.fmean(r[name] for r in references) for name in references[0]}
    assert mean["pixels"] < 0.35 and mean["random encoder"] < 0.35
    assert mean["supervised"] > 0.85
    assert statistics.fmean(runs) > 0.7
    if not os.environ.get("CI"):
        assert seconds < 15  # 4 s on one thread of a quiet machine, 8 on a loaded one


def test_the_smallest_scenes_hold_a_whole_digit():
    small = scenes(40, difficulty=EIGHT)
    assert small.images.shape == (40, 3, 8, 8) and small.factors["digit"].max() < 1297
    assert scenes(4, difficulty=Difficulty(size=8)).factors["mask"].amax((1, 2)).min() > 0.3  # MNIST, made smaller
