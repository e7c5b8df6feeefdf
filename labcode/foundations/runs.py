"""What differs between runs: hundreds of tiny networks trained at once, and estimators that take their spread apart.

Picard, "Torch.manual_seed(3407) is all you need" (2021), scans seeds and looks at the extremes. Jordan, "Calibrated
Chaos" (2023), asks how much of the spread is the test set's: the half-split estimator, independent coins, calibration.
All runs of ``train_many`` are one stack of weights under ``torch.func.vmap``; a run's result does not depend on the
others in its stack.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from ..data.batches import mixed_seed
from ..data.synthetic import Difficulty, scenes
from ..train import allowed

Weights = dict[str, Tensor]  # a network's parameters by name, each with the runs as its first axis
DIGITS = Difficulty(shift=0.08, rotation=0.35, scale=0.2)  # of the grey digits below


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
    n: int, seed: int = 0, split: str = "train", noise: float = 0.2
) -> tuple[Float[Tensor, "n 64"], Int[Tensor, " n"]]:
    """n handwritten digits, each shifted, turned, scaled and in noise: pixels about 0 … 1, and classes 0 … 9.

    As many as one likes, so that a test set can be as large as a distribution. Test digits are never training digits.

    noise  standard deviation of the Gaussian noise of a pixel, >= 0
    """
    if noise < 0:
        raise ValueError(f"noise must be at least 0, got {noise}")
    made = scenes(n, seed, split, DIGITS)
    g = Generator().manual_seed(mixed_seed(seed, len(split), n))
    mask = made.factors["mask"].flatten(1)
    return mask + noise * torch.randn(mask.shape, generator=g), made.labels


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


@torch.no_grad()
def predictions(net: nn.Module, weights: Weights, images: Tensor, chunk: int = 1000) -> Int[Tensor, "r n"]:
    """The class that each run's network gives each image."""
    forward = vmap(lambda w, x: functional_call(net, w, (x,)), in_dims=(0, None))
    return torch.cat([forward(weights, part).argmax(2) for part in images.split(chunk)], 1)


class TinyRuns:
    """Many runs of tiny perceptrons on one training set: ``TinyRuns(…)(sources, runs) -> {epoch: predictions}``.

    images, labels  (n, 64) digits of 8×8 pixels and their classes
    test            (m, 64) images to predict
    seed            of this training set's runs
    """

    def __init__(self, images: Tensor, labels: Tensor, test: Tensor, seed: int, schedule: Schedule = Schedule()):
        self.versions, self.labels, self.test, self.seed, self.schedule = moved(images), labels, test, seed, schedule
        self.classes = int(labels.max()) + 1

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
        return {epoch: predictions(net, weights, self.test) for epoch, weights in trained.items()}

    def softmax(self, seed: int) -> Float[Tensor, "m k"]:
        """The probabilities that one run gives the test images: a network's own word for how sure it is."""
        net, start, order = self._alone(seed)
        weights = train_many(net, start, self.versions, self.labels, order, order, self.schedule)[self.schedule.epochs]
        with torch.no_grad():
            return functional_call(net, {name: p[0] for name, p in weights.items()}, (self.test,)).softmax(1)

    def body(self, images: Tensor, labels: Tensor) -> Weights:
        """The weights of one network trained on other images, to fine-tune from."""
        net, start, order = self._alone(0)
        return train_many(net, start, moved(images), labels, order, order, self.schedule)[self.schedule.epochs]

    def _alone(self, seed: int) -> tuple[nn.Module, Weights, list[int]]:
        make, number = lambda: mlp(self.test.shape[1], (32, 32), self.classes), mixed_seed(self.seed, 3, seed)  # noqa: E731
        return make(), stacked(make, [number], self.test.device), [number]


def varied(sources: tuple[bool, bool, bool], runs: int, seed: int) -> list[list[int]]:
    """Seeds of the three sources of ``train_many``, (start, order, choice): one a run where a source varies, else one
    for all runs."""
    return [[mixed_seed(seed, i, k if varies else runs) for k in range(runs)] for i, varies in enumerate(sources)]


def _matrix(correct: Tensor) -> Float[Tensor, "r n"]:
    if correct.ndim != 2 or len(correct) < 2 or correct.shape[1] < 2:
        raise ValueError(f"correct must be (runs, images), at least two of each, got {tuple(correct.shape)}")
    return correct.double()


def test_set_variance(correct: Bool[Tensor, "r n"]) -> float:
    """Variance over runs of the accuracy on this test set, without bias.

    Raises ValueError, as its siblings do, for fewer than two runs or two images.
    """
    return float(_matrix(correct).mean(1).var())


test_set_variance.__test__ = False  # pytest: an estimator, no test


def coin_variance(correct: Bool[Tensor, "r n"]) -> float:
    """What that variance is if images are independent coins: Σ pᵢ (1 - pᵢ) / n² (Calibrated Chaos, hypothesis 1).

    pᵢ is the share of runs that are right on image i; pᵢ (1 - pᵢ) is estimated without bias.
    """
    c = _matrix(correct)
    return float(c.var(0).sum()) / c.shape[1] ** 2


def distribution_variance(correct: Bool[Tensor, "r n"]) -> float:
    """Variance over runs of the accuracy on the distribution that the test set was drawn from, without bias.

    Cut the test set into two halves; what a run is better by on *both* is no luck with images. So the covariance, over
    runs, of the two halves' accuracies is an unbiased estimate (Calibrated Chaos, section 3.2). Here it is averaged
    over all halvings at once: the mean of all covariances between two images,

        n / (n - 1) · (Var(accuracy) - Σ Var(image i) / n²).

    May be negative where there is little to estimate.
    """
    n = correct.shape[1]
    return n / (n - 1) * (test_set_variance(correct) - coin_variance(correct))


def half_split_covariance(correct: Bool[Tensor, "r n"], splits: int, generator: Generator) -> float:
    """The same by random halvings, as the paper does it: the mean covariance of the two halves' accuracies.

    splits  number of halvings, >= 1; with an odd number of images one is left out each time
    """
    if splits < 1:
        raise ValueError(f"splits must be at least 1, got {splits}")
    c, total = _matrix(correct), 0.0
    half = c.shape[1] // 2
    for _ in range(splits):
        order = torch.randperm(c.shape[1], generator=generator)
        a, b = c[:, order[:half]].mean(1), c[:, order[half : 2 * half]].mean(1)
        total += float(((a - a.mean()) * (b - b.mean())).sum()) / (len(c) - 1)
    return total / splits


def calibrated_variance(error: float, n: int) -> float:
    """The test-set variance of a calibrated ensemble of binary classifiers: error / (2n) (Calibrated Chaos, theorem 2).

    If a share q of the runs votes for a class and the class is right with probability q, an image's mean error is
    2q(1 - q), and its variance over runs q(1 - q): half of it.
    """
    if not 0 <= error <= 1 or n < 1:
        raise ValueError(f"error must be in [0, 1] and n at least 1, got {error} and {n}")
    return error / (2 * n)


def vote_shares(predicted: Int[Tensor, "r n"], classes: int) -> Float[Tensor, "n classes"]:
    """The share of runs that give each image each class."""
    return F.one_hot(predicted, classes).double().mean(0)


def calibration(
    shares: Float[Tensor, "n k"], labels: Int[Tensor, " n"], bins: int = 10
) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"], Float[Tensor, " b"], float]:
    """Whether a class with a share q of the votes is right with probability q, over all images and classes.

    shares  of the votes, or probabilities, in [0, 1]

    Returns, for every bin of q that is not empty, the mean share, how often the class was right and the weight of the
    bin; and the expected error: the weighted mean of their absolute difference. A share counts as much as it is large:
    hundreds of classes that nobody votes for say nothing.
    """
    if shares.shape[0] != len(labels):
        raise ValueError(f"shares must be one row an image, {len(labels)}, got {shares.shape[0]}")
    q = shares.double().flatten()
    right = F.one_hot(labels, shares.shape[1]).double().flatten()
    place = (q * bins).long().clamp(max=bins - 1)
    sums = torch.zeros(3, bins, dtype=torch.float64, device=q.device)
    for row, values in enumerate((q * q, q * right, q)):
        sums[row].index_add_(0, place, values)
    confidence, accuracy, weight = sums[:, sums[2] > 0]
    confidence, accuracy, weight = confidence / weight, accuracy / weight, weight / weight.sum()
    return confidence, accuracy, weight, float((weight * (confidence - accuracy).abs()).sum())


def over_sets(estimate: Callable[[Tensor], float], correct: Bool[Tensor, "r n"], size: int) -> float:
    """An estimate's mean over disjoint test sets of so many images; a last, smaller one is left out."""
    if not 1 < size <= correct.shape[1]:
        raise ValueError(f"size must be in 2 … {correct.shape[1]}, got {size}")
    parts = [part for part in correct.split(size, 1) if part.shape[1] == size]
    return sum(map(estimate, parts)) / len(parts)


def scanned(correct: Bool[Tensor, "r n"], size: int) -> tuple[float, float]:
    """The best run's lead over the mean of all runs: on the test set that it was chosen on, and on all other images.

    Means over disjoint test sets of ``size`` images, of which there must be two at least.
    """
    if 2 * size > correct.shape[1]:
        raise ValueError(f"size must be at most half of the {correct.shape[1]} images, got {size}")
    c, leads = correct.double(), []
    for part in c.split(size, 1):
        here = part.mean(1)
        there = (c.sum(1) - part.sum(1)) / (c.shape[1] - part.shape[1])
        best = here.argmax()
        leads.append((float(here[best] - here.mean()), float(there[best] - there.mean())))
    return tuple(sum(column) / len(leads) for column in zip(*leads, strict=True))


def best_of(values: Sequence[float], k: int) -> float:
    """The mean of the best of k runs over all ways to draw k of these without replacement.

    The i-th smallest of N is the best of k with probability C(i-1, k-1) / C(N, k).

    Raises ValueError unless 1 <= k <= N.
    """
    n = len(values)
    if not 1 <= k <= n:
        raise ValueError(f"k must be in 1 … {n}, got {k}")
    return sum(math.comb(i, k - 1) * v for i, v in enumerate(sorted(values))) / math.comb(n, k)


def gaussian_best(k: int) -> float:
    """The expected largest of k standard normal numbers: ∫ x k φ(x) Φ(x)^(k-1) dx; 0 for k = 1, about 3.85 for 10⁴."""
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    x = torch.linspace(-9, 9, 20001, dtype=torch.float64)
    density = torch.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    return float(torch.trapezoid(x * k * density * torch.special.ndtr(x) ** (k - 1), x))
