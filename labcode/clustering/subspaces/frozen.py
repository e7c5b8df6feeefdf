"""Frozen features, which MLC, CPP and TLDR share: made once by one encoder, standardised, clustered and searched."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...course.stage import Stage
from ...evaluate import knn
from .tldr import mean_average_precision


@dataclass(frozen=True)
class Frozen:
    """What a frozen encoder makes of images, less the training images' mean and over their deviations.

    x, y          of the training images, and their classes, which no method without labels reads
    test, y_test  of the test images: clusters and neighbours are found among these
    views         of some augmentations of the training images, or None
    """

    x: Float[Tensor, "n d"]
    y: Int[Tensor, " n"]
    test: Float[Tensor, "m d"]
    y_test: Int[Tensor, " m"]
    views: Float[Tensor, "v n d"] | None = None


def frozen_features(stage: Stage, encoder: nn.Module, seed: int, views: int = 4, tests: int = 1000) -> Frozen:
    """Standardised features of the stage's images.

    views  augmentations of every training image, drawn from the seed
    tests  images at most: an affinity has as many rows and columns
    """
    train, y, test, y_test = stage.both(encoder)
    mean, std, generator = train.mean(0), train.std(0) + 1e-3, stage.run.generator(seed)
    with torch.no_grad():
        drawn = [stage.views(stage.train_images, generator=generator, views=1).clamp(0, 1) for _ in range(views)]
    seen = [(stage.features(encoder, v) - mean) / std for v in drawn]
    test = ((test - mean) / std)[:tests]
    return Frozen((train - mean) / std, y, test, y_test[:tests], torch.stack(seen) if seen else None)


@torch.no_grad()
def searched(code: Callable[[Tensor], Tensor], f: Frozen, k: int) -> tuple[float, float]:
    """Of codes: retrieval mAP among the test images, and accuracy of a vote of the k nearest training images."""
    train, test = code(f.x), code(f.test)
    return mean_average_precision(test, f.y_test), knn(train, f.y, test, f.y_test, k=k)
