"""The chapter's stage: images that have an upright, their views, and the probe after a block.

A *method* is a module with an ``encoder`` and a ``forward(views, index)`` that returns the loss; copies of a batch are
stacked, so that row i + v·n is copy v of image ``index[i]``. ``UprightStage.pretrain`` trains it.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import torch
from jaxtyping import Float, Shaped
from torch import Generator, Tensor, nn

from ... import augment
from ...course.run import Run
from ...course.stage import Stage
from ...data import EIGHT, scenes
from ...evaluate import linear_probe
from .revisiting import Block, BlockNet, StagedResNet
from .turning import Images

UPRIGHT = (2, 3, 4, 5, 6, 7)  # upside down, 0, 1 and 8 are themselves and a 9 is a 6
ODD = (0, 1, 8, 9)


def recolour(x: Images, generator: Generator, strength: float = 0.25, noise: float = 0.03) -> Images:
    """Contrast and mean of each channel of each image changed, within ±strength, and noise added. Not clamped."""
    draw = lambda: strength * (2 * torch.rand(*x.shape[:2], 1, 1, generator=generator, device=x.device) - 1)  # noqa: E731
    mean = x.mean((2, 3), keepdim=True)
    return augment.noise((x - mean) * (1 + draw()) + mean + draw(), noise, generator=generator)


def upright_views(
    x: Shaped[Tensor, "n 3 h w"], generator: Generator, views: int = 2, strength: float = 0.25
) -> Float[Tensor, "{views}*n 3 h w"]:
    """Views of the upright scenes, stacked: turned by at most 8°, moved by 5 %, scaled by 12 %, recoloured."""
    x = augment.to_float(x).repeat(views, 1, 1, 1)
    x = augment.affine(x, 8, 0.05, (0.88, 1.12), padding="reflection", generator=generator)
    return recolour(x, generator, strength)


class UprightStage(Stage):
    """The stage of this chapter: 16×16 scenes of the digits 2 … 7 and ``BlockNet``; CIFAR-10 and ResNet-18 at full.

    The views keep what the course's usual ones turn, the direction from ground to ink in colour space: a task has to
    learn on its own not to look at it. The label is the digit less two. ``odd_images`` are images of no class:
    test scenes of 0, 1, 8 and 9, or SVHN.
    """

    def __init__(self, run: Run, train: int = 2000, test: int = 1000):
        super().__init__(run)
        images, steps = run.pick(quick=(64, 100), full=(128, 40 * 390))
        self.budget = replace(self.budget, batch_size=images, steps=steps)
        if run.scale != "full":
            drawn = [self.draw(n, split, UPRIGHT) for n, split in zip((train, test), run.splits, strict=True)]
            (self.train_images, labels), (self.test_images, test_labels) = drawn
            self.train_labels, self.test_labels, self.classes = labels - 2, test_labels - 2, len(UPRIGHT)
            self.source = run.data = "scenes, 16×16, digits 2 to 7"
            self.train_factors = self.test_factors = {}
            self.views = upright_views

    def facts(self) -> dict[str, str]:
        return super().facts() | {
            "views": "four copies of each image, if nothing else is said: `labcode."
            + ("self_supervision.pretext.upright_views`" if self.views is upright_views else "augment.simclr_views`"),
            "measured": "test accuracy of a linear probe on what the encoder holds after a block, the third if nothing "
            "else is said",
        }

    @staticmethod
    def draw(n: int, split: str, digits: Sequence[int], seed: int = 0) -> tuple[Tensor, Tensor]:
        """n scenes of 16×16 pixels, their digits drawn evenly from ``digits``: images and digits."""
        which = torch.randint(len(digits), (n,), generator=torch.Generator().manual_seed(seed))
        made = scenes(n, seed, split, replace(EIGHT, size=16), label=torch.tensor(digits)[which])
        return made.images, made.labels

    def encoder(self, seed: int = 0, **keywords) -> nn.Module:
        torch.manual_seed(seed)
        return self.run.pick(quick=BlockNet, full=StagedResNet)(**keywords).to(self.run.device)

    def read(self, encoder: nn.Module, block: int = 3) -> float:
        """Test accuracy of a linear probe on what the encoder holds after a block, one regulariser for all."""
        features = self.both(Block(encoder, block, self.run.pick(quick=4, full=2)))
        return linear_probe(*features, l2=(0.03,), tolerance=1e-3, steps=50).accuracy

    @cached_property
    def odd_images(self) -> Tensor:
        if self.run.scale != "full":
            return self.draw(1000, self.run.splits[1], ODD)[0]
        from ...data import benchmark

        return benchmark("svhn", device=self.run.device).test_images

    def plain_views(
        self, x: Shaped[Tensor, "n 3 h w"], generator: Generator, views: int = 1
    ) -> Float[Tensor, "{views}*n 3 h w"]:
        """Views for tasks that look at geometry: the stage's own at quick scale, crop and flip alone at full."""
        if self.run.scale != "full":
            return upright_views(x, generator, views)
        return augment.simclr_views(x, generator, views=views, scale=(0.6, 1.0), jitter_p=0.0, grey_p=0.0)

    def few(self, labels: int, seed: int) -> tuple[Tensor, Tensor]:
        """``labels`` training images, of every class alike, and their labels."""
        order = torch.randperm(len(self.train_labels), generator=torch.Generator().manual_seed(seed))
        y = self.train_labels[order.to(self.train_labels.device)]
        chosen = torch.cat([(y == c).nonzero()[: labels // self.classes, 0] for c in range(self.classes)])
        chosen = order.to(chosen.device)[chosen]
        return self.train_images[chosen], self.train_labels[chosen]
