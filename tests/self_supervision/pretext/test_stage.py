"""Upright images, their views, and few labels."""

import pytest
import torch
from self_supervision.pretext.helpers import pictures

from labcode.augment import scene_views
from labcode.course.run import start
from labcode.self_supervision import pretext as P


def test_scenes_are_upright_and_splits_share_nothing():
    images, digits = P.UprightStage.draw(200, "train")
    assert images.shape == (200, 3, 16, 16) and set(digits.tolist()) == set(P.UPRIGHT)
    assert torch.equal(images, P.UprightStage.draw(200, "train")[0])
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
    assert P.patch_views(images, g()).shape == (12, 3, 16, 16)
    crops = P.crop_views(images, g(), scene_views, crops=2)
    assert torch.equal(crops[:3], scene_views(images, g(), views=3)[:3]) and crops.shape == (9, 3, 16, 16)
    assert torch.equal(P.crop_views(images, g(), scene_views, 2, (1, 1)), scene_views(images, g(), views=3))


def test_an_arm_is_trained_once_a_name_and_network(stage, monkeypatch):
    monkeypatch.setenv("LABCODE_MAX_STEPS", "1")
    first = stage.arm("rotation", P.RotNet, stage.plain_views, network=dict(width=8))
    assert stage.arm("rotation", P.RotNet, stage.plain_views, network=dict(width=8))[0] is first[0]
    other = stage.arm("rotation", P.RotNet, stage.plain_views, network=dict(width=8, tail=1))
    assert other[0] is not first[0] and len(other[0].encoder.widths) == 5
    assert len(first) == len(stage.run.seeds) and stage.probes(first, 2) == [stage.read(first[0].encoder, 2)]
    few = stage.classifiers("few", P.Classifier, 30, steps=1)
    with torch.no_grad():
        guess = few[0].scores(stage.test_images / 255).argmax(1)
    assert stage.right(few) == pytest.approx([float((guess == stage.test_labels).float().mean())])
    assert stage.classifiers("few", P.Classifier, 30, start=1, steps=1)[0] is not few[0]


def test_a_probe_on_few_labels_and_on_foreign_classes(stage):
    encoder = stage.untrained(0)
    scores = [stage.read(encoder, 3, labels=n) for n in (12, 300)]
    assert scores[0] < scores[1] > 1 / 6  # two labels a class may leave a probe at chance
    assert set(stage.odd[1].tolist()) == set(P.ODD) == set(stage.odd[3].tolist())
    assert stage.read(encoder, odd=True) > 0.3


def test_an_ensemble_says_the_mean(stage):
    images = pictures(4)
    members = [P.Classifier(stage.encoder(s), torch.arange(6), 6).eval() for s in (0, 1)]
    with torch.no_grad():
        mean = (members[0].scores(images) + members[1].scores(images)) / 2
        assert torch.allclose(P.Ensemble(members).scores(images), mean, atol=1e-6)


def test_foreign_images_have_no_digit(stage):
    foreign = stage.foreign
    assert list(foreign) == ["other digits", "textures", "noise"] and foreign["other digits"] is stage.odd_images
    for images in (foreign["textures"], foreign["noise"]):
        assert images.shape == stage.test_images.shape and images.dtype == torch.uint8
    spread = {name: images.float().std((2, 3)).mean() for name, images in foreign.items()}
    assert spread["textures"] < 0.5 * spread["other digits"] < spread["noise"], "no ink, and every value at random"
