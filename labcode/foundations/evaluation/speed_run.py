"""The speed-run: airbench's parts as a recipe that is trained again and again (Jordan, 2024)."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Int, Shaped
from torch import Generator, Tensor, nn

from ...data.batches import mixed_seed
from ...loss import check_finite, check_index
from ...train import allowed
from .airbench import FLIPS, Block, Lookahead, SpeedNet, mirrored, predictions_by_level, shifted, triangle
from .muon import Muon
from .tiny_runs import varied


@dataclass(frozen=True)
class Recipe:
    """How a run trains. Defaults are the paper's airbench94 (appendix A); ``MUON`` is its later, faster version.

    Losses are sums over a batch and rates are per image, so that none of them moves when the batch size or the
    momentum does ("decoupled hyperparameters").
    """

    widths: tuple[int, ...] = (64, 256, 256)  # of the blocks
    first: str = "whitened"  # or "learned": the same layer, initialised at random and trained
    identity: bool = True  # the blocks start as the identity
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
    bias_scale: float = 64.0  # SGD: the rate of BatchNorm's biases over that of all else, the first layer's bias too
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

    Raises ValueError for fewer training images than a batch, or than labels, for labels that are none of the classes,
    and for images that are not finite.
    """

    def __init__(
        self, recipe: Recipe, images: Shaped[Tensor, "n c h w"], labels: Int[Tensor, " n"],
        test_images: Shaped[Tensor, "m c h w"], test_labels: Int[Tensor, " m"], classes: int = 10,
    ):  # fmt: skip
        for name, x, y in (("labels", images, labels), ("test_labels", test_images, test_labels)):
            if x.ndim != 4:
                which = "images" if x is images else "test_images"
                raise ValueError(f"{which} must be (n, c, h, w), got shape {tuple(x.shape)}")
            if len(x) != len(y):
                raise ValueError(f"{name} must be one an image, {len(x)}, got {len(y)}")
            check_index(name, y, classes)
            check_finite(**{"images" if x is images else "test_images": x})
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
            return SpeedNet(r.widths, self.images.shape[1], self.images.shape[-1], self.classes, scale, r.identity)

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
        scores = predictions_by_level(self.run, self.test_images)
        taken = seconds()
        self.predicted = scores[-1].argmax(1)
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

        groups = [group(norms, lr * r.bias_scale), group([net.first.bias, *filters, net.head.weight], lr)]
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
