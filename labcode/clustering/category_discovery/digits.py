"""The chapter's stage: digits that a person can read, and one frozen encoder that never saw a label."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Generator, Tensor, nn

from ... import augment
from ...course.run import Run
from ...course.stage import Stage
from ...data import digits
from ...loss import unit_rows
from ...nets import evaluating

COUNT = 1500


def digit_views(
    images: Shaped[Tensor, "n c h w"], *, generator: Generator, views: int = 2
) -> Float[Tensor, "vn c h w"]:
    """``views`` copies of each image, turned by up to 17°, moved by up to a tenth, scaled and sheared; stacked."""
    x = images.float() / 255 if images.dtype == torch.uint8 else images
    options = dict(degrees=17, shift=0.1, scale=(0.8, 1.25), shear=17)
    return torch.cat([augment.affine(x, generator=generator, **options) for _ in range(views)])


class DigitStage(Stage):
    """A ``Stage`` whose encoder takes grey images at quick and long scale, and which tells what this chapter shares."""

    def encoder(self, seed: int = 0, **keywords) -> nn.Module:
        return super().encoder(seed, **(self.run.pick(quick=dict(channels=1), full={}) | keywords))

    def facts(self) -> dict[str, str]:
        steps = self.run.pick(quick="200 steps of 64", full=f"{self.budget.steps:,} steps of {self.budget.batch_size}")
        told = super().facts() | {"training": f"SimCLR once a seed, {steps} images, no labels; then frozen"}
        return told | {"measured": "All, Old and New accuracy of unlabelled images, by one matching; see below"}


def digit_stage(run: Run) -> Stage:
    """A ``Stage`` of MNIST digits, 14×14 pixels with a margin of 1, 1,500 for discovery; at full scale CIFAR-10.

    Tuning sees the first 2,000 digits, results come from the next 2,000; 500 of either are kept for the test of kNN.
    """
    stage = DigitStage(run)
    if run.scale != "full":
        at = 0 if run.tuning else 2000
        pictures, labels = (part[at : at + 2000] for part in digits("mnist"))
        pictures = (F.pad(F.avg_pool2d(pictures[:, None], 2), (1, 1, 1, 1)) * 255).round().to(torch.uint8)
        stage.train_images, stage.train_labels = pictures[:COUNT], labels[:COUNT]
        stage.test_images, stage.test_labels = pictures[1500:], labels[1500:]
        stage.train_factors = stage.test_factors = {}
        stage.views, stage.source = digit_views, "MNIST digits 14×14"
        run.data = stage.source
    return stage


@torch.no_grad()
def frozen_features(
    stage: Stage, encoder: nn.Module, count: int, *, generator: Generator
) -> tuple[Float[Tensor, "n d"], Float[Tensor, "v n d"] | None]:
    """Standardised features of the stage's images and of ``count`` views of each: all that the methods work on."""
    images = stage.train_images[:15000]  # at full scale a part of CIFAR-10
    x = unit_rows(stage.features(encoder, images))
    with evaluating(encoder):
        seen = [
            torch.cat([encoder(stage.views(part, generator=generator, views=1)).float() for part in images.split(1000)])
            for _ in range(count)
        ]
    mean, std = x.mean(0), x.std(0) + 1e-3
    views = [(unit_rows(v) - mean) / std for v in seen]
    return (x - mean) / std, torch.stack(views) if views else None
