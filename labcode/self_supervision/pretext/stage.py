"""The chapter's stage: images that have an upright, an encoder in four blocks, and the probe after a block.

A *method* is a module with an ``encoder`` and a ``forward(views, index)`` that returns the loss; copies of a batch are
stacked, so that row i + v·n is copy v of image ``index[i]``. ``UprightStage.arm`` trains it, once a seed.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, partial

import torch
from jaxtyping import Float, Shaped
from torch import Generator, Tensor, nn

from ... import augment
from ...course.run import Run
from ...course.stage import Stage
from ...data import Difficulty, scenes
from ...evaluate import linear_probe
from .revisiting import Block, BlockNet, StagedResNet

UPRIGHT = (2, 3, 4, 5, 6, 7)  # upside down, 0, 1 and 8 are themselves and a 9 is a 6
ODD = (0, 1, 8, 9)


class UprightStage(Stage):
    """The course's stage with the digits 2 … 7 alone and a ``BlockNet``; CIFAR-10 and a ResNet-18 at full scale.

    Views, optimiser and learning rate are those of ``Stage``. A step takes fewer images, since a task of this chapter
    sees four copies of each. The label is the digit less two. ``odd_images`` are images of no class: test scenes of 0,
    1, 8 and 9, or SVHN.
    """

    def __init__(self, run: Run, train: int = 2000, test: int = 1000):
        super().__init__(run)
        images, steps = run.pick(quick=(24, 120), full=(128, 40 * 390))
        self.budget = replace(self.budget, batch_size=images, steps=steps)
        if run.scale != "full":
            drawn = [self.draw(n, split) for n, split in zip((train, test), run.splits, strict=True)]
            (self.train_images, labels), (self.test_images, test_labels) = drawn
            self.train_labels, self.test_labels, self.classes = labels - 2, test_labels - 2, len(UPRIGHT)
            self.source = run.data = f"scenes, {self.side}×{self.side}, digits 2 to 7"
            self.train_factors = self.test_factors = {}

    def facts(self) -> dict[str, str]:
        told = super().facts()
        return told | {
            "views": told["views"].replace("two of each image", "four of each image, if nothing else is said"),
            "measured": "test accuracy of a linear probe on what the encoder holds after a block, the third if nothing "
            "else is said",
        }

    @staticmethod
    def draw(n: int, split: str, digits: Sequence[int] = UPRIGHT, seed: int = 0) -> tuple[Tensor, Tensor]:
        """n scenes, their digits drawn evenly from ``digits``: images and digits."""
        which = torch.randint(len(digits), (n,), generator=torch.Generator().manual_seed(seed))
        made = scenes(n, seed, split, label=torch.tensor(digits)[which])
        return made.images, made.labels

    @cached_property
    def odd_images(self) -> Tensor:
        return self.odd[2]

    @cached_property
    def odd(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Training images and labels, test images and labels of classes that no encoder here was trained on."""
        if self.run.scale != "full":
            return *self.draw(1000, self.run.splits[0], ODD), *self.draw(1000, self.run.splits[1], ODD)
        from ...data import benchmark

        data = benchmark("svhn", device=self.run.device)
        few = slice(1024) if self.run.dry else slice(None)
        return data.train_images[few], data.train_labels[few], data.test_images[few], data.test_labels[few]

    @cached_property
    def foreign(self) -> dict[str, Tensor]:
        """Test images of no class, uint8, nearest first: ``odd_images``, photo textures without a digit, noise."""
        n, side, g = len(self.test_images), self.test_images.shape[-1], torch.Generator().manual_seed(7)
        bare = scenes(min(n, 1000), 7, self.run.splits[1], Difficulty(size=side, ink=0.0)).images
        noise = torch.randint(256, bare.shape, generator=g, dtype=torch.uint8)
        made = {"other digits": self.odd_images, "textures": bare, "noise": noise}
        return {name: images.to(self.run.device) for name, images in made.items()}

    def encoder(self, seed: int = 0, **keywords) -> nn.Module:
        torch.manual_seed(seed)
        return self.run.pick(quick=BlockNet, full=StagedResNet)(**keywords).to(self.run.device)

    def copies(self, count: int) -> Callable[..., Tensor]:
        """The stage's views, ``count`` of each image."""
        return partial(self.views, views=count)

    def plain_views(
        self, x: Shaped[Tensor, "n 3 h w"], generator: Generator, views: int = 1
    ) -> Float[Tensor, "{views}*n 3 h w"]:
        """Views for tasks that look at geometry: the stage's own at quick scale, crop and flip alone at full."""
        if self.run.scale != "full":
            return self.views(x, generator=generator, views=views)
        return augment.simclr_views(x, generator, views=views, scale=(0.6, 1.0), jitter_p=0.0, grey_p=0.0)

    def arm(
        self, name: str, method: Callable[[nn.Module], nn.Module], views: int | Callable[..., Tensor] = 4,
        batch_size: int | None = None, network: dict | None = None, **options,
    ) -> list[nn.Module]:  # fmt: skip
        """An arm of a comparison: one training a seed of the run.

        name        with the network's keywords it names the arm: the same one is trained once
        views       of a batch: so many copies of each image, or what makes them
        batch_size  images a step, if not the budget's
        network     keywords of the encoder
        options     of ``pretrain``
        """
        network = network or {}
        name += "".join(f" {word} {value}" for word, value in network.items())
        seen = self.copies(views) if isinstance(views, int) else views
        made = dict(views=seen, batch_size=batch_size) | options
        return [self.pretrain(name, method, s, encoder=self.encoder(s, **network), **made) for s in self.run.seeds]

    def classifiers(
        self, name: str, method: Callable[..., nn.Module], labels: int, start: int = 0, **options
    ) -> list[nn.Module]:
        """An arm that sees few labels, ``method(encoder, labels, classes)``; ``start`` draws other first weights."""
        found = []
        for seed in self.run.seeds:
            images, y = self.few(labels, seed)
            made = lambda e, y=y: method(e, y, self.classes)  # noqa: E731
            own = dict(encoder=self.encoder(1000 * start + seed), views=self.copies(4), images=images) | options
            found.append(self.pretrain(f"{name}, {labels} labels, start {start}", made, seed, **own))
        return found

    def read(
        self, encoder: nn.Module, block: int = 3, labels: int | None = None, seed: int = 0, odd: bool = False
    ) -> float:
        """Test accuracy of a linear probe on what the encoder holds after a block, one regulariser for all.

        labels  of the probe: so many images, of every class alike, as ``few`` chooses them; None takes all
        odd     on the classes that no encoder was trained on
        """
        held = Block(encoder, block, self.run.pick(quick=4, full=2))
        images, y, test, test_y = self.train_images, self.train_labels, self.test_images, self.test_labels
        if odd:
            images, y, test, test_y = self.odd
        elif labels is not None:
            images, y = self.few(labels, seed)
        rows = self.features(held, images), y, self.features(held, test), test_y
        return linear_probe(*rows, l2=(0.03,), tolerance=1e-3, steps=30).accuracy

    def probes(self, models: Sequence[nn.Module], block: int = 3, **options) -> list[float]:
        """``read`` for the models of an arm, one a seed of the run; each is fitted once."""
        return [
            self.run.once(
                ("probe", id(m), block, *options.items()),
                partial(self.read, getattr(m, "encoder", m), block, seed=s, **options),
            )
            for m, s in zip(models, self.run.seeds, strict=True)
        ]

    @torch.no_grad()
    def right(self, models: Sequence[nn.Module], scores: str = "scores") -> list[float]:
        """Test accuracy of classifiers by a head of their own, one a seed; ``scores`` names what is asked."""
        x = augment.to_float(self.test_images)
        said = (getattr(m, scores)(x).argmax(1) for m in models)
        return [float((guess == self.test_labels).float().mean()) for guess in said]

    def few(self, labels: int, seed: int) -> tuple[Tensor, Tensor]:
        """``labels`` training images, of every class alike, and their labels."""
        order = torch.randperm(len(self.train_labels), generator=torch.Generator().manual_seed(seed))
        y = self.train_labels[order.to(self.train_labels.device)]
        chosen = torch.cat([(y == c).nonzero()[: labels // self.classes, 0] for c in range(self.classes)])
        chosen = order.to(chosen.device)[chosen]
        return self.train_images[chosen], self.train_labels[chosen]
