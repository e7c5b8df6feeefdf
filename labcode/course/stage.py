"""The stage of the self-supervised chapters: the same images, views, encoder, budget and evaluation for all arms."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import quote

import torch
from torch import Tensor, nn

from .. import augment, nets
from ..data import Difficulty, scenes, shuffled
from ..evaluate import Probe, held_out, knn, linear_probe
from ..train import fit
from .provenance import checkpoints
from .run import Run

Views = Callable[..., Tensor]  # (uint8 images (n, c, h, w), generator) -> (2n, c, h, w)


@dataclass(frozen=True)
class Budget:
    """What every arm of a comparison gets."""

    steps: int
    batch_size: int
    lr: float
    optimizer: str
    weight_decay: float


QUICK = Budget(steps=150, batch_size=128, lr=5e-3, optimizer="adamw", weight_decay=1e-4)
# 200 epochs of CIFAR-10 at batch 512; learning rate and decay of MoCo's CIFAR-10 demonstration.
FULL = Budget(steps=200 * 97, batch_size=512, lr=0.06, optimizer="sgd", weight_decay=5e-4)


class Stage:
    """Images, views, encoder and evaluation at the scale of ``run``.

    Quick: 2,000 scenes for training and 1,000 for testing, ``SmallNet``. Full: CIFAR-10 and ResNet-18.

    difficulty  of the scenes; the default is the chapters', see ``labcode.data.Difficulty``

    A *method* is a module with an ``encoder`` and a ``forward(views, index)`` that returns the loss, where rows i
    and i + n of ``views`` show the same image and ``index`` (n,) says which.
    """

    def __init__(self, run: Run, difficulty: Difficulty | None = None):
        difficulty = difficulty or Difficulty()
        self.run, self.side = run, difficulty.size
        self.budget: Budget = run.pick(quick=QUICK, full=FULL)
        self.classes = 10
        if run.scale != "full":
            train, test = (scenes(n, 1, split, difficulty) for n, split in zip((2000, 1000), run.splits, strict=True))
            self.train_images, self.train_labels = train.images, train.labels
            self.test_images, self.test_labels = test.images, test.labels
            self.train_factors, self.test_factors = train.factors, test.factors
            self.source = train.source
            self.views: Views = augment.scene_views
        else:
            from ..data import benchmark

            data = benchmark("cifar10", device=run.device)
            self.train_images, self.train_labels = data.train_images, data.train_labels
            self.test_images, self.test_labels = data.test_images, data.test_labels
            if run.tuning:  # a fifth of the training images, of every class alike, takes the place of the test images
                held = held_out(self.train_labels, self.classes, 0.2, seed=0)
                self.test_images, self.test_labels = self.train_images[held], self.train_labels[held]
                self.train_images, self.train_labels = self.train_images[~held], self.train_labels[~held]
            if run.dry:  # a copy may be sorted by class: draw the few at random
                few = torch.randperm(len(self.test_labels), generator=torch.Generator().manual_seed(0))[:1024]
                few = few.to(run.device)
                self.train_images, self.train_labels = self.train_images[few], self.train_labels[few]
                self.test_images, self.test_labels = self.test_images[few], self.test_labels[few]
            self.train_factors = self.test_factors = {}
            self.source = data.source
            self.views = augment.simclr_views
        run.data = self.source

    def facts(self) -> dict[str, str]:
        """What all arms of a comparison share, in words: the rows of the stage's table."""
        net = self.run.once("facts of the network", lambda: self.encoder(0))
        size, b = tuple(self.train_images.shape[1:]), self.budget
        channels, height, width = size
        weights = sum(p.numel() for p in net.parameters())
        views = getattr(self.views, "func", self.views)
        return {
            "images": f"{self.source}: {len(self.train_images):,} for training, {len(self.test_images):,} for testing, "
            f"{height}×{width} pixels, {channels} channels, {self.classes} classes",
            "views": f"two of each image, `labcode.{views.__module__.removeprefix('labcode.')}.{views.__name__}`",
            "encoder": f"`{type(net).__name__}`, {weights:,} parameters, {net.features} features",
            "training": f"{b.steps:,} steps of {b.batch_size} images, {b.optimizer}, learning rate {b.lr:g}, warm-up "
            f"and cosine, weight decay {b.weight_decay:g}",
            "measured": f"test accuracy of a vote of the {self.neighbours} nearest training features (cosine, "
            "τ = 0.1); where said, of a linear probe fitted offline",
        }

    def _repr_markdown_(self) -> str:
        return "\n".join(["| the stage | |", "|---|---|", *(f"| {k} | {v} |" for k, v in self.facts().items())])

    def __repr__(self) -> str:
        return "\n".join(f"{k:10} {v}" for k, v in self.facts().items())

    def look(self, count: int = 8, seed: int = 0):
        """A figure: some training images, and below each the two views that a method sees of it. Returns the figure."""
        from .. import plots

        pictures = self.train_images[:count]
        with torch.no_grad():
            seen = self.views(pictures, generator=self.run.generator(seed)).clamp(0, 1).cpu()
        rows = torch.cat([pictures.cpu().float() / 255, seen])
        return plots.images(rows, rows=3, names=("image", "one view", "another"))

    @property
    def neighbours(self) -> int:
        """How many neighbours vote."""
        return self.run.pick(quick=20, full=200)

    def checkpoint(self, name: str, seed: int) -> Path:
        """Where an arm's training at long and full scale is kept."""
        folder = self.run.once("checkpoints", lambda: checkpoints(self.run.chapter, self.run.scale))
        return folder / f"{quote(name, safe=' ').replace(' ', '-')}-{seed}.pt"

    def encoder(self, seed: int = 0, **keywords) -> nn.Module:
        """A new encoder, its weights drawn from the seed; ``encoder.features`` is its width."""
        torch.manual_seed(seed)
        make = self.run.pick(quick=partial(nets.SmallNet, width=48, deep=64, size=self.side), full=nets.ResNet18)
        net = make(**keywords)
        return net.to(self.run.device, memory_format=self.layout(net))

    def layout(self, net: nn.Module) -> torch.memory_format:
        """How images and this net's weights lie in memory, see ``nets.memory_layout``."""
        if self.run.pick(quick=True, full=False):  # small matrix products, which no layout makes faster
            return torch.contiguous_format
        return nets.memory_layout(net, self.run.device)

    def untrained(self, seed: int, batches: int = 20) -> nn.Module:
        """The random encoder, its BatchNorm statistics estimated from views of the training images."""
        g = self.run.generator(seed)
        index = (torch.randint(len(self.train_images), (256,), generator=g, device=g.device) for _ in range(batches))
        seen = (self.views(self.train_images[i], generator=g, views=1) for i in index)
        return nets.estimate_statistics(self.encoder(seed), seen)

    def pretrain(
        self,
        name: str,
        method: Callable[[nn.Module], nn.Module],
        seed: int,
        *,
        views: Views | None = None,
        images: Tensor | None = None,
        encoder: nn.Module | None = None,
        steps: int | None = None,
        batch_size: int | None = None,
        lr: float | None = None,
        batches: Callable[[int], Tensor] | None = None,
        **fit_options,
    ) -> nn.Module:
        """Train ``method(encoder)`` on the training images without labels and return it, in evaluation mode.

        name     of the arm: the same name and seed are trained once in a run and, at long and full scale, once with
                 the same code: papers share an arm's checkpoint, and an interrupted training goes on from its own
        method   makes the module from an encoder, e.g. ``SimCLR`` or ``lambda e: SimCLR(e, tau=0.5)``
        views    how views are made, if not the stage's own
        steps, batch_size, lr   where the arm departs from the stage's budget
        batches  ``step -> indices``, if not shuffled epochs
        """

        def train() -> nn.Module:
            torch.manual_seed(1000 + seed)
            model = method(encoder if encoder is not None else self.encoder(seed)).to(self.run.device)
            pictures = self.train_images if images is None else images
            layout = self.layout(model)
            generator, make_views = self.run.generator(seed), views or self.views
            size = min(batch_size or self.budget.batch_size, len(pictures))

            def step(index: Tensor) -> dict[str, Tensor]:
                with torch.no_grad():
                    seen = make_views(pictures[index], generator=generator)
                seen = seen.contiguous(memory_format=layout) if seen.ndim == 4 else seen  # films have five axes
                return {"loss": model(seen, index)}

            options = dict(
                lr=lr or self.budget.lr,
                optimizer=self.budget.optimizer,
                precision=self.run.precision,
                weight_decay=self.budget.weight_decay,
                generators=[generator],
                label=f"{name}, seed {seed}",
            )
            if self.run.scale != "quick" and not self.run.dry:
                options["checkpoint"] = self.checkpoint(name, seed)
            history = fit(
                model,
                step,
                batches or shuffled(len(pictures), size, seed, self.run.device),
                steps=steps or self.budget.steps,
                **(options | fit_options),
            )
            model.history = history
            return model

        return self.run.once((name, seed), train)

    def features(self, encoder: nn.Module, images: Tensor, chunk: int = 2000) -> Tensor:
        """What the encoder makes of images (n, c, h, w) or films, without augmentation: (n, d) float32.

        images  uint8, or float in [0, 1]: others are refused with their range
        chunk   images at a time; features do not depend on it

        The encoder works in evaluation mode and is left as it was, its running statistics too.
        """
        whole = images.dtype == torch.uint8
        if not whole and not images.is_floating_point():
            raise ValueError(f"images must be uint8 or float in [0, 1], got {images.dtype}")
        if not whole and images.numel():
            low, high = images.aminmax()
            if not (low >= -1e-3 and high <= 1.001):
                raise ValueError(f"images must be uint8 or float in [0, 1], got floats of {low:.4g} … {high:.4g}")
        if chunk < 1:
            raise ValueError(f"chunk must be at least 1, got {chunk}")
        with nets.evaluating(encoder):
            scaled = (part.float() / 255 if whole else part.float() for part in images.split(chunk))
            return torch.cat([encoder(part).float() for part in scaled])

    def both(self, encoder: nn.Module) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Training features and labels, test features and labels: what the evaluations take."""
        train, test = self.features(encoder, self.train_images), self.features(encoder, self.test_images)
        return train, self.train_labels, test, self.test_labels

    def knn(self, encoder: nn.Module) -> float:
        """Test accuracy of the weighted nearest-neighbour vote, k=20 at quick scale and 200 at full."""
        return knn(*self.both(encoder), k=self.neighbours)

    def probe(self, encoder: nn.Module, labels: int | None = None, seed: int = 0) -> float:
        """Test accuracy of an offline linear probe, on all training labels or on ``labels`` images of them."""
        train, y, test, y_test = self.both(encoder)
        if labels is not None:
            kept = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))[:labels].to(y.device)
            train, y = train[kept], y[kept]
        found: Probe = linear_probe(train, y, test, y_test)
        return found.accuracy

    def references(self, seed: int) -> dict[str, float]:
        """kNN test accuracy of chance, raw pixels, a random encoder, and the supervised ceiling (its own head)."""

        def measure() -> dict[str, float]:
            flat = [x.flatten(1).float() / 255 - 0.5 for x in (self.train_images, self.test_images)]
            pixels = knn(flat[0], self.train_labels, flat[1], self.test_labels, k=self.neighbours)
            random = self.knn(self.untrained(seed))
            return {
                "chance": 1 / self.classes,
                "pixels": pixels,
                "random encoder": random,
                "supervised": self.supervised(seed),
            }

        return self.run.once(("references", seed), measure)

    def supervised(self, seed: int) -> float:
        """Test accuracy of the same encoder trained with all labels, by its own head."""
        model = self.taught(seed)
        with torch.no_grad():
            scores = model.head(self.features(model.encoder, self.test_images))
        return float((scores.argmax(1) == self.test_labels).float().mean())

    def taught(self, seed: int, **options) -> nn.Module:
        """The same encoder with a linear head, trained with all labels: the same views and number of views seen."""

        class Supervised(nn.Module):
            def __init__(self, encoder, labels, classes):
                super().__init__()
                self.encoder, self.head = encoder, nn.Linear(encoder.features, classes)
                self.register_buffer("labels", labels, persistent=False)

            def forward(self, seen, index):
                wanted = self.labels[index].repeat(2)
                return nn.functional.cross_entropy(self.head(self.encoder(seen)), wanted)

        return self.pretrain("supervised", lambda e: Supervised(e, self.train_labels, self.classes), seed, **options)
