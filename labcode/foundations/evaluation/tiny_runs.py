"""Hundreds of tiny networks trained at once, to see what differs between runs.

All runs of ``train_many`` are one stack of weights under ``torch.func.vmap``; a run's result does not depend on the
others in its stack.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from ...data.batches import mixed_seed
from ...data.synthetic import EIGHT, scenes
from ...loss import check_finite
from ...train import allowed

Weights = dict[str, Tensor]  # a network's parameters by name, each with the runs as its first axis
DIGITS = replace(EIGHT, shift=0.08, rotation=0.35, scale=0.2)  # of the grey digits below


@dataclass(frozen=True)
class Schedule:
    """How a stack of tiny networks trains: SGD with Nesterov's momentum, a linear warm-up and descent to zero."""

    epochs: int = 32
    batch: int = 50
    lr: float = 0.2
    momentum: float = 0.9
    warmup: float = 0.1  # share of the steps

    def __post_init__(self):
        for name in ("epochs", "batch", "lr"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if not 0 <= self.momentum < 1 or not 0 <= self.warmup < 1:
            raise ValueError(f"momentum and warmup must be in [0, 1), got {self.momentum} and {self.warmup}")

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of a step, counted from 0."""
        return self.lr * min(1.0, (step + 1) / max(1.0, self.warmup * steps)) * (1 - step / steps)


def grey_digits(
    n: int, seed: int = 0, split: str = "train", noise: float = 0.2, harder: float = 0.0
) -> tuple[Float[Tensor, "n 64"], Int[Tensor, " n"]]:
    """n handwritten digits, each shifted, turned, scaled and in noise: pixels about 0 … 1, and classes 0 … 9.

    As many as one likes, so that a test set can be as large as a distribution. Test digits are never training digits.

    noise   standard deviation of the Gaussian noise of a pixel, >= 0
    harder  shifts, turns and changes of size grow by this share, >= 0
    """
    return traced_digits(n, seed, split, noise, harder)[:2]


def traced_digits(
    n: int, seed: int = 0, split: str = "train", noise: float = 0.2, harder: float = 0.0
) -> tuple[Float[Tensor, "n 64"], Int[Tensor, " n"], Int[Tensor, " n"]]:
    """``grey_digits``, and which of scikit-learn's digits each was drawn from: two of one digit are near duplicates."""
    for name, value in (("noise", noise), ("harder", harder)):
        if value < 0:
            raise ValueError(f"{name} must be at least 0, got {value}")
    factors = {name: (1 + harder) * getattr(DIGITS, name) for name in ("shift", "rotation", "scale")}
    made = scenes(n, seed, split, replace(DIGITS, **factors))
    g = Generator().manual_seed(mixed_seed(seed, len(split), n))
    mask = made.factors["mask"].flatten(1)
    return mask + noise * torch.randn(mask.shape, generator=g), made.labels, made.factors["digit"]


def moved(images: Float[Tensor, "n 64"]) -> Float[Tensor, "5 n 64"]:
    """The versions that augmentation draws from: 8×8 images in their place and half a pixel to each side."""
    x = images.view(-1, 8, 8)
    steps = ((1, 1), (-1, 1), (1, 2), (-1, 2))
    return torch.stack([x] + [(x + x.roll(by, axis)) / 2 for by, axis in steps]).flatten(2)


def mlp(inputs: int, hidden: Sequence[int], classes: int) -> nn.Sequential:
    """A perceptron with ReLU between its layers."""
    sizes = (inputs, *hidden, classes)
    layers = [m for a, b in zip(sizes, sizes[1:], strict=False) for m in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def stacked(make: Callable[[], nn.Module], seeds: Sequence[int], device="cpu") -> Weights:
    """Initial weights of one network a seed, each as if it had been made alone after ``torch.manual_seed(seed)``."""
    if not seeds:
        raise ValueError("seeds must name at least one run, got none")
    nets = []
    with torch.random.fork_rng(devices=[]):
        for seed in seeds:
            torch.manual_seed(seed)
            nets.append(make())
    return {name: p.detach().to(device) for name, p in stack_module_state(nets)[0].items()}


def nudged(start: Weights, amount: float) -> Weights:
    """The same weights with a single one changed in each run: an entry of the first layer, another one in every run."""
    changed = {name: p.clone() for name, p in start.items()}
    first = next(p for p in changed.values() if p.ndim == 3).flatten(1)  # (runs, entries), a view
    runs, entries = first.shape
    place = (torch.arange(runs, device=first.device) * 2 + 1) * entries // (2 * runs)
    first[torch.arange(runs, device=first.device), place] += amount
    return changed


def transplanted(start: Weights, body: Weights) -> Weights:
    """Initial weights for fine-tuning: all layers but the last from one trained network, ``body``, a stack of one."""
    layers = list(dict.fromkeys(name.rsplit(".", 1)[0] for name in start))
    keep = tuple(f"{layers[-1]}.{kind}" for kind in ("weight", "bias"))
    return {name: p if name in keep else body[name].expand_as(p).clone() for name, p in start.items()}


def train_many(
    net: nn.Module, start: Weights, versions: Float[Tensor, "v n d"], labels: Int[Tensor, " n"], order: Sequence[int],
    choice: Sequence[int], schedule: Schedule = Schedule(), marks: Sequence[int] = (),
) -> dict[int, Weights]:  # fmt: skip
    """Train every network of a stack on the same images: epoch -> weights after it, for the last epoch and ``marks``.
    At long scale the last epoch is four times that of the schedule.

    Three sources of randomness, each with one seed a run: the weights in ``start``, the ``order`` of the images, and
    the ``choice`` of the version in which augmentation shows each image. Runs that share a seed share that source.

    net       says how weights make logits; its own weights are not used. No BatchNorm, no dropout
    start     initial weights, left as they are
    versions  the training images as augmentation may show them, (1, n, d) for none

    Raises ValueError for seeds that are not one a run, and images that do not fill a batch.
    """
    runs, (v, n, _) = len(next(iter(start.values()))), versions.shape
    for name, seeds in (("order", order), ("choice", choice)):
        if len(seeds) != runs:
            raise ValueError(f"{name} must be one seed a run, {runs}, got {len(seeds)}")
    if n < schedule.batch or n != len(labels):
        raise ValueError(f"versions must hold as many images as labels, {len(labels)}, and a batch, got {n}")
    device = versions.device
    shuffle, pick = ([Generator().manual_seed(mixed_seed(s, i)) for s in row] for i, row in enumerate((order, choice)))
    weights = {name: p.clone().requires_grad_() for name, p in start.items()}
    params = list(weights.values())
    velocity = [torch.zeros_like(p) for p in params]
    forward = vmap(lambda w, x: functional_call(net, w, (x,)))
    an_epoch = n // schedule.batch
    epochs = allowed(schedule.epochs)
    steps, kept = epochs * an_epoch, {}
    for step in range(steps):
        epoch, i = divmod(step, an_epoch)
        if i == 0:
            orders = torch.stack([torch.randperm(n, generator=g) for g in shuffle]).to(device)
            shown = torch.stack([torch.randint(v, (n,), generator=g) for g in pick]).to(device)
        chosen = orders[:, i * schedule.batch : (i + 1) * schedule.batch]  # (runs, batch)
        logits = forward(weights, versions[shown.gather(1, chosen), chosen])
        loss = F.cross_entropy(logits.flatten(0, 1), labels[chosen].flatten(), reduction="sum") / schedule.batch
        slopes = torch.autograd.grad(loss, params)  # the loss is a sum over runs: each gets its own gradient
        with torch.no_grad():
            torch._foreach_mul_(velocity, schedule.momentum)
            torch._foreach_add_(velocity, slopes)
            update = torch._foreach_add(slopes, velocity, alpha=schedule.momentum)
            torch._foreach_add_(params, update, alpha=-schedule.rate(step, steps))
        if i == an_epoch - 1 and (epoch + 1 in marks or epoch + 1 == epochs):
            kept[epoch + 1] = {name: p.detach().clone() for name, p in weights.items()}
    return kept | {mark: kept[epochs] for mark in (*marks, schedule.epochs) if mark > epochs}  # of a dry run


def last(by_epoch: dict):
    """What belongs to the last epoch, of results by epoch."""
    return by_epoch[max(by_epoch)]


@torch.no_grad()
def predictions(net: nn.Module, weights: Weights, images: Tensor, chunk: int = 1000) -> Int[Tensor, "r n"]:
    """The class that each run's network gives each image."""
    forward = vmap(lambda w, x: functional_call(net, w, (x,)), in_dims=(0, None))
    return torch.cat([forward(weights, part).argmax(2) for part in images.split(chunk)], 1)


class TinyRuns:
    """Many runs of tiny perceptrons on one training set: ``TinyRuns(…)(sources, runs) -> {epoch: predictions}``.

    images, labels  (n, 64) digits of 8×8 pixels and their classes, any integers: predictions are among them
    test            (m, 64) images to predict
    seed            of this training set's runs
    """

    def __init__(self, images: Tensor, labels: Tensor, test: Tensor, seed: int, schedule: Schedule = Schedule()):
        check_finite(images=images, test=test)
        self.names, self.labels = labels.unique(return_inverse=True)
        self.versions, self.test, self.seed, self.schedule = moved(images), test, seed, schedule
        self.classes = len(self.names)

    def __call__(
        self, sources: tuple[bool, bool, bool] = (True, True, True), runs: int = 2, hidden: tuple[int, ...] = (32, 32),
        body: Weights | None = None, nudge: float = 0.0, marks: Sequence[int] = (),
    ) -> dict[int, Int[Tensor, "r m"]]:  # fmt: skip
        """Predictions after training, and after the epochs in ``marks``.

        sources  which of (initial weights, order, augmentation) differ between runs
        body     weights to fine-tune, see ``transplanted``
        nudge    the change of one weight in every run, see ``nudged``
        """
        net = mlp(self.test.shape[1], hidden, self.classes)
        starts, order, choice = varied(sources, runs, self.seed)
        start = stacked(lambda: mlp(self.test.shape[1], hidden, self.classes), starts, self.test.device)
        start = nudged(start, nudge) if nudge else start
        start = transplanted(start, body) if body else start
        trained = train_many(net, start, self.versions, self.labels, order, choice, self.schedule, marks)
        return {epoch: self.names[predictions(net, weights, self.test)] for epoch, weights in trained.items()}

    def each(self, kinds: dict[str, tuple[float, float, float, float]], runs: int) -> dict[str, Int[Tensor, "r m"]]:
        """Predictions of ``runs`` runs of every kind, all in one stack: far cheaper than a stack a kind, and the same.

        kinds  name -> (initial weights, order, augmentation, nudge): as ``sources`` and ``nudge`` above
        """
        starts, orders, choices = [], [], []
        for *sources, nudge in kinds.values():
            numbers, order, choice = varied(tuple(map(bool, sources)), runs, self.seed)
            start = stacked(lambda: mlp(self.test.shape[1], (32, 32), self.classes), numbers, self.test.device)
            starts.append(nudged(start, nudge) if nudge else start)
            orders, choices = orders + order, choices + choice
        start = {name: torch.cat([one[name] for one in starts]) for name in starts[0]}
        net = mlp(self.test.shape[1], (32, 32), self.classes)
        weights = last(train_many(net, start, self.versions, self.labels, orders, choices, self.schedule))
        return dict(zip(kinds, self.names[predictions(net, weights, self.test)].split(runs), strict=True))

    def softmax(self, seed: int) -> Float[Tensor, "m k"]:
        """The probabilities that one run gives the test images: a network's own word for how sure it is.

        Columns are the classes in ascending order.
        """
        net, start, order = self._alone(seed)
        weights = last(train_many(net, start, self.versions, self.labels, order, order, self.schedule))
        with torch.no_grad():
            return functional_call(net, {name: p[0] for name, p in weights.items()}, (self.test,)).softmax(1)

    def body(self, images: Tensor, labels: Tensor) -> Weights:
        """The weights of one network trained on other images of the same classes, to fine-tune from."""
        net, start, order = self._alone(0)
        labels = torch.searchsorted(self.names, labels)
        return last(train_many(net, start, moved(images), labels, order, order, self.schedule))

    def _alone(self, seed: int) -> tuple[nn.Module, Weights, list[int]]:
        make, number = lambda: mlp(self.test.shape[1], (32, 32), self.classes), mixed_seed(self.seed, 3, seed)  # noqa: E731
        return make(), stacked(make, [number], self.test.device), [number]


def varied(sources: tuple[bool, bool, bool], runs: int, seed: int) -> list[list[int]]:
    """Seeds of the three sources of ``train_many``, (start, order, choice): one a run where a source varies, else one
    for all runs."""
    return [[mixed_seed(seed, i, k if varies else runs) for k in range(runs)] for i, varies in enumerate(sources)]
