"""Upright images, their views, and few labels."""

import pytest
import torch

from labcode.course.run import start
from labcode.self_supervision import pretext as P


def pictures(n=3, side=16, seed=0):
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(seed))


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
