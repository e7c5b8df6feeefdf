"""Honest evaluation: a training run so short that it can be repeated until chance no longer decides.

airbench (Jordan, 2024): 94 % on CIFAR-10 in seconds. What makes it fast is here as functions of their own: the
whitened first layer, identity initialisation, alternating flip, the triangular schedule, Lookahead, test-time views,
and Muon, the optimiser of its later version. ``SpeedRun`` puts them together, for the quick scale as well.
"""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Generator, Tensor, nn

from ..data.batches import mixed_seed
from ..data.synthetic import TEXTURES, textures
from ..train import allowed
from .new_test_sets import (  # noqa: F401
    Field,
    by_sum,
    classifiers,
    climbed,
    corrupted,
    digit_field,
    disagreement,
    field_of,
    fitted_line,
    inserted,
    mixture,
    probit,
    reordered,
    resampled,
    rivals,
    search,
    second_tests,
    sorted_samples,
    thresholds,
)
from .runs import (  # noqa: F401
    Schedule,
    TinyRuns,
    best_of,
    calibrated_variance,
    calibration,
    coin_variance,
    distribution_variance,
    gaussian_best,
    grey_digits,
    half_split_covariance,
    scanned,
    stacked,
    test_set_variance,
    train_many,
    varied,
    vote_shares,
)
from .shifts import (  # noqa: F401
    PALETTE,
    Classifier,
    Coupling,
    GlobalLocalFlow,
    border_colours,
    categories,
    chance_macro_std,
    coloured_scenes,
    crop_flip,
    cross_validated,
    cv_bias,
    cv_choice,
    drawn_from,
    fit_classifier,
    fit_flow,
    flow_aug,
    glyphs,
    lasso,
    leading_components,
    least_squares,
    macro_std,
    matched_sources,
    mixup_loss,
    narrow_regression,
    network,
    pixel_statistics,
    pooled,
    printed_digits,
    rank_agreement,
    rare_to_zero,
    scikit,
    source_matrix,
    standardised,
    student,
    subgroup_accuracy,
    tumours,
    two_sources,
    unit_scale,
    variance_filter,
    wide_regression,
)

Images = Float[Tensor, "n c h w"]
FLIPS = ("none", "random", "alternating")
NS5 = (3.4445, -4.7750, 2.0315)  # Muon: as steep as possible at zero, singular values end in about 0.7 … 1.2


@dataclass(frozen=True)
class Recipe:
    """How a run trains. Defaults are the paper's airbench94 (appendix A); ``MUON`` is its later, faster version.

    Losses are sums over a batch and rates are per image, so that none of them moves when the batch size or the
    momentum does ("decoupled hyperparameters").
    """

    widths: tuple[int, ...] = (64, 256, 256)  # of the blocks
    first: str = "whitened"  # or "learned": the same layer, initialised at random and trained
    epochs: float = 9.9
    batch: int = 1024
    flip: str = "alternating"  # one of FLIPS
    translate: int = 2  # pixels, reflected at the border
    label_smoothing: float = 0.2
    whiten_epochs: float = 3.0  # so long the first layer's bias is trained
    lookahead: bool = True
    optimiser: str = "sgd"  # or "muon"
    lr: float = 11.5  # SGD: per 1024 images, divided by 1 + 1/(1 - momentum)
    momentum: float = 0.85  # Nesterov
    weight_decay: float = 0.0153  # SGD: per 1024 images
    bias_scale: float = 64.0  # SGD: the biases' rate over that of the weights
    muon_lr: float = 0.24  # Muon: of the filters, whose norm is held at the square root of their number
    muon_momentum: float = 0.6
    muon_steps: int = 3  # of Newton-Schulz
    bias_lr: float = 0.053  # Muon: SGD's rates for what is no filter
    head_lr: float = 0.67
    muon_decay: float = 2e-6  # Muon: weight decay of biases and head, per image

    def __post_init__(self):
        for name, known in (("first", ("whitened", "learned")), ("flip", FLIPS), ("optimiser", ("sgd", "muon"))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        if not self.epochs > 0:
            raise ValueError(f"epochs must be positive, got {self.epochs}")
        if self.batch < 1:
            raise ValueError(f"batch must be at least 1, got {self.batch}")
        if not self.widths:
            raise ValueError("widths must name at least one block, got none")
        if self.translate < 0:
            raise ValueError(f"translate must be at least 0, got {self.translate}")


MUON = Recipe(optimiser="muon", epochs=8, batch=2000, lookahead=False)


def patch_moments(images: Images, size: int = 2) -> Float[Tensor, "d d"]:
    """Second moments E[p pᵀ] of all size×size patches, d = c·size²; the covariance where images have mean zero.

    Raises ValueError for images smaller than a patch.
    """
    if min(images.shape[-2:]) < size or size < 1:
        raise ValueError(f"images must be at least as large as a patch of {size}, got {tuple(images.shape)}")
    patches = F.unfold(images, size).transpose(1, 2).flatten(0, 1)  # (patches, d)
    return patches.T @ patches / len(patches)


def whitening_filters(images: Images, size: int = 2, eps: float = 5e-4) -> Float[Tensor, "k c {size} {size}"]:
    """Filters that whiten patches, and their negatives: k = 2·c·size² (paper, section 3.2).

    Filter i is the eigenvector of the patches' second moments with the i-th largest eigenvalue, over the root of that
    eigenvalue plus eps: outputs are uncorrelated and have unit power. A GELU after them halves what a filter says, so
    each has its negative beside it.

    images  float, normalised to mean 0; a few thousand suffice
    eps     keeps directions without signal from being blown up; with 0 the whitening is exact
    """
    values, vectors = torch.linalg.eigh(patch_moments(images.double(), size))  # small ones would drown in TF32
    scaled = (vectors / torch.sqrt(values.clamp(min=0) + eps)).flip(1).T.reshape(-1, images.shape[1], size, size)
    return torch.cat([scaled, -scaled]).to(images.dtype)


def dirac_(weight: Float[Tensor, "k c a b"]) -> Float[Tensor, "k c a b"]:
    """Make the first c filters copy their input channel, in place; the other k - c stay random (section 3.3).

    With more inputs than filters, only the first k inputs are copied.
    """
    with torch.no_grad():
        nn.init.dirac_(weight[: weight.shape[1]])
    return weight


class Block(nn.Module):
    """Two 3×3 convolutions, a 2×2 max-pooling after the first, BatchNorm without a scale and GELU after each."""

    def __init__(self, n_in: int, n_out: int):
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, padding="same", bias=False)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding="same", bias=False)
        self.norm1, self.norm2 = (nn.BatchNorm2d(n_out, eps=1e-12, momentum=0.4) for _ in range(2))
        for conv, norm in ((self.conv1, self.norm1), (self.conv2, self.norm2)):
            dirac_(conv.weight)
            norm.weight.requires_grad_(False)  # the next layer can scale; the bias cannot be done without

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.norm1(F.max_pool2d(self.conv1(x), 2)))
        return F.gelu(self.norm2(self.conv2(x)))


class SpeedNet(nn.Module):
    """The network (section 3.1): a 2×2 convolution with bias, blocks, max-pooling over what is left, a linear head.

    widths     channels of the blocks
    channels   of the images; ``size`` is their side in pixels, so large that every block has something to halve
    scale      factor of the logits: 1/9 in airbench94; None is one over the head's width, with unit weights (Muon)
    """

    def __init__(
        self, widths: tuple[int, ...] = (64, 256, 256), channels: int = 3, size: int = 32, classes: int = 10,
        scale: float | None = 1 / 9,
    ):  # fmt: skip
        super().__init__()
        if (size - 1) >> len(widths) < 1:
            raise ValueError(f"size must be at least {2 ** len(widths) + 1} for {len(widths)} blocks, got {size}")
        self.first = nn.Conv2d(channels, 8 * channels, 2)
        n_in = (8 * channels, *widths[:-1])
        self.blocks = nn.Sequential(*(Block(a, b) for a, b in zip(n_in, widths, strict=True)))
        self.head = nn.Linear(widths[-1], classes, bias=False)
        self.scale = 1 / widths[-1] if scale is None else scale
        if scale is None:
            with torch.no_grad():
                self.head.weight /= self.head.weight.std()

    def forward(self, x: Images) -> Float[Tensor, "n classes"]:
        return self.head(self.blocks(F.gelu(self.first(x))).amax((2, 3))) * self.scale

    def whiten(self, images: Images) -> None:
        """Set the first layer to whiten these images' patches, and freeze its filters."""
        with torch.no_grad():
            self.first.weight.copy_(whitening_filters(images))
        self.first.weight.requires_grad_(False)


def triangle(step: int, steps: int, start: float = 0.2, peak: float = 0.23, end: float = 0.07) -> float:
    """The triangular schedule: linear from ``start`` up to 1 at step peak·steps, and down to ``end`` at ``steps``."""
    if steps < 1 or not 0 <= step <= steps:
        raise ValueError(f"step must be in 0 … steps with steps >= 1, got {step} of {steps}")
    top = int(peak * steps)
    if step < top:
        return start + (1 - start) * step / top
    return 1 + (end - 1) * (step - top) / (steps - top)


def newton_schulz(g: Float[Tensor, "a b"], steps: int = 5, eps: float = 1e-7) -> Float[Tensor, "a b"]:
    """About the nearest matrix with orthonormal rows or columns: U Vᵀ for g = U S Vᵀ, by products alone (Muon).

    The quintic p(s) = 3.4445 s - 4.7750 s³ + 2.0315 s⁵ is applied ``steps`` times to the singular values of g/‖g‖. It
    lifts small ones fast and leaves them scattered about 1, which an optimiser does not mind. bfloat16 on a GPU.

    Raises ValueError for a g that is no matrix.
    """
    if g.ndim != 2:
        raise ValueError(f"g must be a matrix, got {tuple(g.shape)}")
    a, b, c = NS5
    x = g.bfloat16() if g.is_cuda else g
    x = x / (x.norm() + eps)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x  # the Gram matrix on the shorter side
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.T if tall else x).to(g.dtype)


class Muon(torch.optim.Optimizer):
    """Nesterov momentum whose step on a layer is made orthogonal; for filters, seen as matrices (k, c·a·b).

    ``torch.optim.Muon`` takes matrices only and leaves the weights' norms alone. Here, as in the airbench version,
    every layer's norm is first set to the root of its number of filters: the rate is relative to the weights.

    lr        relative size of a step, > 0
    momentum  in [0, 1)
    steps     of Newton-Schulz
    """

    def __init__(self, params: Iterable[Tensor], lr: float = 0.24, momentum: float = 0.6, steps: int = 3):
        if not lr > 0:
            raise ValueError(f"lr must be positive, got {lr}")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), got {momentum}")
        super().__init__(params, dict(lr=lr, momentum=momentum, steps=steps))

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in (p for p in group["params"] if p.grad is not None):
                state = self.state[p]
                if not state:
                    state["momentum"] = torch.zeros_like(p)
                buffer = state["momentum"]
                buffer.mul_(group["momentum"]).add_(p.grad)
                update = p.grad + group["momentum"] * buffer
                p.mul_(len(p) ** 0.5 / p.norm())
                p.sub_(_orthogonal(update.flatten(1), group["steps"]).view_as(p) * group["lr"])


def _orthogonal(g: Tensor, steps: int) -> Tensor:
    return (_compiled_newton_schulz() if g.is_cuda else newton_schulz)(g, steps)


@lru_cache(1)
def _compiled_newton_schulz() -> Callable[..., Tensor]:
    return torch.compile(newton_schulz, dynamic=False)


class Lookahead:
    """A slow copy of a net: every few steps it moves towards the net, and the net is set to it (section 3.4).

    ``update(decay)``: slow ← decay·slow + (1 - decay)·net, net ← slow, over weights and BatchNorm's statistics.
    """

    def __init__(self, net: nn.Module):
        self.fast = [t for t in net.state_dict().values() if t.is_floating_point()]
        self.slow = [t.clone() for t in self.fast]

    @torch.no_grad()
    def update(self, decay: float) -> None:
        if not 0 <= decay <= 1:
            raise ValueError(f"decay must be in [0, 1], got {decay}")
        for dtype in {t.dtype for t in self.fast}:
            fast, slow = ([t for t in side if t.dtype == dtype] for side in (self.fast, self.slow))
            torch._foreach_lerp_(slow, fast, 1 - decay)
            torch._foreach_copy_(fast, slow)

    @staticmethod
    def decay(step: int, steps: int) -> float:
        """The paper's schedule for an update every five steps: 0.95⁵ (step/steps)³, so early updates do nothing."""
        return 0.95**5 * (step / steps) ** 3


def mirrored(first: Bool[Tensor, " n"], epoch: int, flip: str, generator: Generator) -> Bool[Tensor, " n"]:
    """Which images are shown mirrored in an epoch, counted from 0 (section 3.6).

    "random" tosses a coin for each image and epoch, so that in two epochs half of the images show one side twice.
    "alternating" tosses once, ``first``, and inverts it every epoch: two epochs show both sides of every image.

    Raises ValueError for an unknown ``flip`` or a negative ``epoch``.
    """
    if flip not in FLIPS:
        raise ValueError(f"flip must be one of {', '.join(FLIPS)}, got {flip!r}")
    if epoch < 0:
        raise ValueError(f"epoch must be at least 0, got {epoch}")
    if flip == "none":
        return torch.zeros_like(first)
    if flip == "random":
        return torch.rand(first.shape, generator=generator, device=first.device) < 0.5
    return ~first if epoch % 2 else first


def shifted(
    padded: Shaped[Tensor, "n c hp wp"], order: Int[Tensor, " m"], flipped: Bool[Tensor, " n"],
    offset: Int[Tensor, "m 2"], size: int,
) -> Shaped[Tensor, "m c {size} {size}"]:  # fmt: skip
    """Images ``order`` of a padded set, each cut out at its offset (row, column) and mirrored or not, in one gather.

    The result lies in memory as channels_last.
    """
    line = torch.arange(size, device=padded.device)
    rows, columns = line, torch.where(flipped[order][:, None], size - 1 - line, line)
    rows, columns = offset[:, :1] + rows, offset[:, 1:] + columns
    return padded[order[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def test_views(images: Images, level: int = 2) -> list[tuple[float, Images]]:
    """The views that are averaged at test time, with their weights, which sum to 1 (section 3.5).

    level  0: the image; 1: and its mirror image; 2: and both of them moved by a pixel up-left and down-right. The image
           in its place counts as much as the two moved ones together.

    Raises ValueError for another level.
    """
    if level not in (0, 1, 2):
        raise ValueError(f"level must be 0, 1 or 2, got {level}")
    if level == 0:
        return [(1.0, images)]
    h, w = images.shape[-2:]
    places = [(1.0, images)]
    if level == 2:
        padded = F.pad(images, (1, 1, 1, 1), "reflect")
        places = [(0.5, images), (0.25, padded[:, :, :h, :w]), (0.25, padded[:, :, 2:, 2:])]
    return [(weight / 2, view) for weight, place in places for view in (place, place.flip(-1))]


test_views.__test__ = False  # pytest: a function of the method, no test


@torch.no_grad()
def predict(net: Callable[[Tensor], Tensor], images: Images, level: int = 2, batch: int = 2000) -> Float[Tensor, "n k"]:
    """Weighted mean of the logits over ``test_views``; the net should be in evaluation mode."""

    def mean(part: Tensor) -> Tensor:  # one memory layout for all views: a compiled net sees a single kind of input
        views = ((w, v.contiguous(memory_format=torch.channels_last)) for w, v in test_views(part, level))
        return sum(weight * net(view).float() for weight, view in views)

    return torch.cat([mean(part) for part in images.split(batch)])


@dataclass(frozen=True)
class Outcome:
    """What one run gave: test accuracy at the three levels of ``test_views``, and what it took."""

    plain: float
    mirror: float
    tta: float
    seconds: float  # whitening, training and prediction with all views
    seed: int


class SpeedRun:
    """Train the same recipe many times on data that stay on the device: ``SpeedRun(recipe, …)(seed) -> Outcome``.

    On a GPU weights and images are float16 (BatchNorm float32) in channels_last, as in the paper. The network is
    compiled once, on labels without meaning (``warm_up``), and its weights are set anew for every run. The clock is
    CUDA's events around whitening, training and prediction; compilation and uploading the data are outside, as in the
    paper.

    images, labels  (n, c, h, w) uint8 or floats in [0, 1]; (n,) int64; the split to train on and the one to test on

    Raises ValueError for fewer training images than a batch, or than labels.
    """

    def __init__(
        self, recipe: Recipe, images: Shaped[Tensor, "n c h w"], labels: Int[Tensor, " n"],
        test_images: Shaped[Tensor, "m c h w"], test_labels: Int[Tensor, " m"], classes: int = 10,
    ):  # fmt: skip
        for name, x, y in (("labels", images, labels), ("test_labels", test_images, test_labels)):
            if len(x) != len(y):
                raise ValueError(f"{name} must be one an image, {len(x)}, got {len(y)}")
        if len(images) < recipe.batch:
            raise ValueError(f"images must fill a batch of {recipe.batch}, got {len(images)}")
        self.recipe, self.device, self.classes = recipe, images.device, classes
        self.labels, self.test_labels = labels, test_labels
        images, test_images = (x.float() / 255 if x.dtype == torch.uint8 else x.float() for x in (images, test_images))
        mean, std = images.mean((0, 2, 3), keepdim=True), images.std((0, 2, 3), keepdim=True)
        self.images, self.test_images = (((x - mean) / std).to(self.dtype) for x in (images, test_images))
        edge = recipe.translate
        self.padded = F.pad(self.images, (edge,) * 4, "reflect") if edge else self.images
        self.net = self._fresh(0).to(self.device, memory_format=torch.channels_last)
        self.run = self.net
        if self.device.type == "cuda":
            torch.backends.cudnn.benchmark = True
            for module in self.net.modules():
                if not isinstance(module, (nn.BatchNorm2d, SpeedNet, Block, nn.Sequential)):
                    module.half()
            torch._dynamo.config.cache_size_limit = 64  # several recipes, each with the first bias trained and frozen
            self.run = torch.compile(self.net, dynamic=False, mode="reduce-overhead")

    @property
    def dtype(self) -> torch.dtype:
        return torch.float16 if self.device.type == "cuda" else torch.float32

    def _fresh(self, seed: int) -> SpeedNet:
        r = self.recipe
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            scale = None if r.optimiser == "muon" else 1 / 9
            return SpeedNet(r.widths, self.images.shape[1], self.images.shape[-1], self.classes, scale)

    def warm_up(self) -> "SpeedRun":
        """Compile everything outside the clock: a few steps with random labels, and a prediction."""
        if self.device.type == "cuda":
            kept, self.labels = self.labels, torch.randint_like(self.labels, self.classes)
            self(0, flip="none", steps=12)
            self.labels = kept
        return self

    def __call__(
        self, seed: int, flip: str | None = None, steps: int | None = None, start: int | None = None,
        nudge: int | None = None,
    ) -> Outcome:  # fmt: skip
        """One run; ``predicted`` is the class it gives each test image with all views averaged.

        flip, steps  in place of the recipe's flip and number of steps
        start        seed of the initial weights, if another than that of order and augmentation
        nudge        the number of a filter of the first block of which one weight is made larger by 0.1

        Equal seeds give arms the same initial weights, order of images and shifts, whatever their flips.
        """
        r, net = self.recipe, self.net
        net.load_state_dict(self._fresh(seed if start is None else start).state_dict())
        if nudge is not None:
            with torch.no_grad():
                net.blocks[0].conv1.weight[nudge % r.widths[0], -1, -1, -1] += 0.1
        seconds = _clock(self.device)
        for p in (net.first.weight, net.first.bias):
            p.requires_grad_(True)
        if r.first == "whitened":
            net.whiten(self.images[:: max(1, len(self.images) // 5000)])  # from all over: they may be sorted by class
        self.train(seed, r.flip if flip is None else flip, steps)
        net.eval()
        tta = predict(self.run, self.test_images, 2)
        taken = seconds()
        self.predicted = tta.argmax(1)
        scores = [predict(self.run, self.test_images, level) for level in (0, 1)] + [tta]
        return Outcome(*(float((s.argmax(1) == self.test_labels).float().mean()) for s in scores), taken, seed)

    def train(self, seed: int, flip: str, steps: int | None = None) -> None:
        """Train ``net`` in place, from the weights it has."""
        r, n, size = self.recipe, len(self.images), self.images.shape[-1]
        draw, coin = (Generator(self.device).manual_seed(mixed_seed(seed, i)) for i in (1, 2))
        first = torch.rand(n, generator=coin, device=self.device) < 0.5
        an_epoch = n // r.batch
        steps = math.ceil(r.epochs * an_epoch) if steps is None else steps
        steps = allowed(steps)
        frozen = math.ceil(r.whiten_epochs * an_epoch)
        frozen = (
            steps if r.first == "learned" else frozen if frozen < steps else steps // 2
        )  # of a very short run, half
        optimisers = optimisers_of(self.net, r, steps, frozen)
        slow = Lookahead(self.net) if r.lookahead else None
        self.net.train()
        for step in range(steps):
            epoch, i = divmod(step, an_epoch)
            if i == 0:
                order = torch.randperm(n, generator=draw, device=self.device)[: an_epoch * r.batch]
                offset = torch.randint(2 * r.translate + 1, (len(order), 2), generator=draw, device=self.device)
                flipped = mirrored(first, epoch, flip, coin)
                x = shifted(self.padded, order, flipped, offset, size)
                batches = list(zip(x.split(r.batch), self.labels[order].split(r.batch), strict=True))
            if step == frozen:
                self.net.first.bias.requires_grad_(False)
                self.net.first.bias.grad = None
            x, y = batches[i]
            loss = F.cross_entropy(self.run(x).float(), y, label_smoothing=r.label_smoothing, reduction="sum")
            loss.backward()
            for optimiser in optimisers:
                for group in optimiser.param_groups:
                    group["lr"] = group["initial_lr"] * group["factor"](step)
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
            if slow and (step + 1) % 5 == 0:
                slow.update(Lookahead.decay(step + 1, steps))
        if slow:
            slow.update(1.0)


def repeated(
    train: SpeedRun, sources: tuple[bool, bool, bool], runs: int, seed: int, nudge: bool = False
) -> Int[Tensor, "r m"]:
    """Predictions on the test images, on the CPU, of runs that differ in some of their sources of chance.

    sources  which of (initial weights, order, augmentation) differ; the last two have one seed here and go together
    nudge    change one weight of the first block in every run
    """
    starts, orders, _ = varied(sources, runs, seed)
    found = []
    for i, (start, order) in enumerate(zip(starts, orders, strict=True)):
        train(order, start=start, nudge=i if nudge else None)
        found.append(train.predicted)
    return torch.stack(found).cpu()


def speed_classifiers(
    images: Shaped[Tensor, "n c h w"], labels: Int[Tensor, " n"], test: Shaped[Tensor, "m c h w"], seed: int = 0,
    recipe: Recipe = MUON, sizes: tuple[int, ...] = (8, 24, 64), epochs: tuple[float, ...] = (0.25, 0.5, 1, 2, 4, 8),
) -> Int[Tensor, "r m"]:  # fmt: skip
    """Predictions on the test images, on the CPU, of speed-run networks of several widths, lengths and flips.

    recipe  of which widths, length and flip are changed
    sizes   width of the first block; the others have four times as many channels
    """
    found, unknown = [], torch.zeros(len(test), dtype=torch.int64, device=test.device)
    for width in sizes:
        train = SpeedRun(replace(recipe, widths=(width, 4 * width, 4 * width)), images, labels, test, unknown).warm_up()
        for length in epochs:
            for flip in FLIPS:
                train(mixed_seed(seed, len(found)), flip, max(2, round(length * len(images) / recipe.batch)))
                found.append(train.predicted)
    return torch.stack(found).cpu()


def speed_field(
    images: Shaped[Tensor, "n c h w"], labels: Int[Tensor, " n"], test: Shaped[Tensor, "t c h w"],
    test_labels: Int[Tensor, " t"], candidates: int, annotators: int, seed: int, recipe: Recipe = MUON,
) -> Field:  # fmt: skip
    """The full scale's field: models trained on one half of the images, annotators on the other."""
    half, test = len(images) // 2, test.float() / 255 if test.dtype == torch.uint8 else test
    crowd = SpeedRun(recipe, images[half:], labels[half:], test[:candidates], test_labels[:candidates]).warm_up()
    votes = repeated(crowd, (True, True, True), annotators, seed)
    shown = torch.cat([test[:candidates], mixture(test[candidates:], seed)])
    said = speed_classifiers(images[:half], labels[:half], shown, seed, recipe)
    return field_of(said, test_labels.cpu(), votes, seed)


def optimisers_of(net: SpeedNet, r: Recipe, steps: int, frozen: int) -> list[torch.optim.Optimizer]:
    """The recipe's optimisers; every group has an ``initial_lr`` and a ``factor(step)`` for its schedule.

    steps   of the whole run; ``frozen`` those in which the first layer's bias is trained
    """
    norms = [m.bias for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    filters = [p for p in net.blocks.parameters() if p.ndim == 4]
    filters += [net.first.weight] * net.first.weight.requires_grad
    fused = net.head.weight.is_cuda

    def sgd(groups: list[dict]) -> torch.optim.Optimizer:
        return torch.optim.SGD(groups, lr=1.0, momentum=r.momentum, nesterov=r.momentum > 0, fused=fused)

    if r.optimiser == "sgd":
        each = 1024 * (1 + 1 / (1 - r.momentum))
        lr, decay = r.lr / each, r.weight_decay * r.batch / each

        def group(params, lr):
            return dict(params=params, lr=lr, weight_decay=decay / lr, factor=lambda step: triangle(step, steps))

        groups = [group([net.first.bias, *norms], lr * r.bias_scale), group([*filters, net.head.weight], lr)]
        found = [sgd(groups)]
    else:
        decay = r.muon_decay * r.batch

        def linear(end: int) -> Callable[[int], float]:
            return lambda step: max(0.0, 1 - step / end)

        rates = [([net.first.bias], r.bias_lr, frozen), (norms, r.bias_lr, steps)]
        rates += [([net.head.weight], r.head_lr, steps)]
        groups = [dict(params=p, lr=lr, weight_decay=decay / lr, factor=linear(max(1, end))) for p, lr, end in rates]
        found = [sgd(groups), Muon(filters, r.muon_lr, r.muon_momentum, r.muon_steps)]
        found[1].param_groups[0]["factor"] = linear(steps)
    for group in (g for optimiser in found for g in optimiser.param_groups):
        group["initial_lr"] = group["lr"]
    return found


def _clock(device: torch.device) -> Callable[[], float]:
    """Seconds since now: CUDA's own clock on a GPU, processor time on a CPU."""
    if device.type != "cuda":
        began = time.process_time()
        return lambda: time.process_time() - began
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()

    def seconds() -> float:
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1000

    return seconds


def photo_patches(
    n: int, seed: int = 0, split: str = "train", size: int = 12, side: int = 256
) -> tuple[Float[Tensor, "n 1 s s"], Int[Tensor, " n"]]:
    """Grey patches of nine photographs and textures; the class is the photograph. The quick scale's CIFAR.

    Every photograph is cut into 8×8 blocks, and a patch lies in one block. Each split has blocks of its own, the same
    for every seed: no pixel of a test patch is in a training patch. Half of the patches, chosen once by the seed, are
    mirrored: as among photographs of things, left and right carry no information. Each has mean 0.5 and standard
    deviation 0.25, nearly; what lies outside [0, 1] is kept.

    n, seed  number of patches, and the draw
    split    "train", "test", or the two parts of "train" that choices are made on, "fit" and "validation"
    size     of a patch, at most side / 8; ``side`` of a photograph, both in pixels

    Raises ValueError for an unknown split, n < 1 or a size that does not fit.
    """
    splits = {"train": (0, 40), "fit": (0, 30), "validation": (30, 40), "test": (40, 64)}
    if split not in splits:
        raise ValueError(f"split must be one of {', '.join(splits)}, got {split!r}")
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    block = side // 8
    if not 1 <= size <= block:
        raise ValueError(f"size must be in 1 … {block}, a block's side, got {size}")
    g = Generator().manual_seed(mixed_seed(seed, list(splits).index(split)))
    classes = len(TEXTURES)
    labels = torch.arange(n) % classes
    low, high = splits[split]
    blocks = torch.stack([torch.randperm(64, generator=Generator().manual_seed(c)) for c in range(classes)])
    chosen = blocks[labels, torch.randint(low, high, (n,), generator=g)]
    corner = torch.stack([chosen // 8, chosen % 8], 1) * block + torch.randint(block - size + 1, (n, 2), generator=g)
    flipped = torch.zeros(n, dtype=torch.bool).scatter_(0, torch.randperm(n, generator=g)[: n // 2], True)
    line = torch.arange(size)
    rows = corner[:, :1] + line
    columns = corner[:, 1:] + torch.where(flipped[:, None], size - 1 - line, line)
    patches = textures(side)[labels[:, None, None], rows[:, :, None], columns[:, None, :]]
    mean, std = patches.mean((1, 2), keepdim=True), patches.std((1, 2), keepdim=True)
    return (0.5 + 0.25 * (patches - mean) / (std + 0.05))[:, None], labels
