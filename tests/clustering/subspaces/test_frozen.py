"""Frozen features: standardised by the training images, cut to the tests that are wanted, searched."""

from types import SimpleNamespace

import torch

from labcode.clustering import subspaces as S
from labcode.evaluate import knn


def stage():
    g = torch.Generator().manual_seed(0)
    train, test = torch.rand(30, 1, 2, 2, generator=g), torch.rand(20, 1, 2, 2, generator=g)
    y, y_test = torch.arange(30) % 3, torch.arange(20) % 3
    features = lambda encoder, images: encoder(images)  # noqa: E731
    return SimpleNamespace(
        train_images=train, run=SimpleNamespace(generator=lambda seed: torch.Generator().manual_seed(seed)),
        views=lambda images, generator, views: images + torch.rand(1, generator=generator), features=features,
        both=lambda encoder: (features(encoder, train), y, features(encoder, test), y_test),
    )  # fmt: skip


def test_features_are_standardised_by_the_training_images_alone():
    s = stage()
    f = S.frozen_features(s, lambda x: x.flatten(1), 0, views=2, tests=7)
    assert float(f.x.mean(0).abs().max()) < 1e-6 and float((f.x.std(0) - 1).abs().max()) < 1e-2
    assert f.test.shape == (7, 4) and f.y_test.shape == (7,) and f.views.shape == (2, 30, 4)
    again = S.frozen_features(s, lambda x: x.flatten(1), 0, views=2, tests=7)
    assert torch.equal(f.views, again.views) and not torch.equal(f.views[0], f.views[1])
    assert S.frozen_features(s, lambda x: x.flatten(1), 0, views=0).views is None


def test_search_is_that_of_its_parts():
    f = S.frozen_features(stage(), lambda x: x.flatten(1), 0)
    half = lambda x: x[:, :2]  # noqa: E731
    want = S.mean_average_precision(half(f.test), f.y_test), knn(half(f.x), f.y, half(f.test), f.y_test, k=5)
    assert S.searched(half, f, 5) == want
