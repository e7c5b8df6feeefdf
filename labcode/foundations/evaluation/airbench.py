"""airbench: what makes a CIFAR-10 training take seconds, each part as a function of its own.

Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU" (2024): the whitened first layer, identity initialisation,
alternating flip, the triangular schedule, Lookahead, test-time views. ``speed_run.py`` puts them together, ``muon.py``
is the optimiser of the later version.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Generator, Tensor, nn

from ...loss import check_finite

Images = Float[Tensor, "n c h w"]
FLIPS = ("none", "random", "alternating")


def patch_moments(images: Images, size: int = 2) -> Float[Tensor, "d d"]:
    """Second moments E[p pᵀ] of all size×size patches, d = c·size²; the covariance where images have mean zero.

    Raises ValueError for images smaller than a patch, and for images that are not finite.
    """
    check_finite(images=images)
    if min(images.shape[-2:]) < size or size < 1:
        raise ValueError(f"images must be at least as large as a patch of {size}, got {tuple(images.shape)}")
    patches = F.unfold(images, size).transpose(1, 2).flatten(0, 1)  # (patches, d)
    return patches.T @ patches / len(patches)


def whitening_filters(images: Images, size: int = 2, eps: float = 5e-4) -> Float[Tensor, "k c {size} {size}"]:
    """Filters that whiten patches, and their negatives: k = 2·c·size² (paper, section 3.2).

    Filter i is the eigenvector of the patches' second moments with the i-th largest eigenvalue, over the root of that
    eigenvalue plus eps: outputs are uncorrelated and have unit power. A GELU after them halves what a filter says, so
    each has its negative beside it.

    images  float, normalised to mean 0; a few thousand suffice. Computed in float64, returned in their precision
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

    def __init__(self, n_in: int, n_out: int, identity: bool = True):
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, padding="same", bias=False)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding="same", bias=False)
        self.norm1, self.norm2 = (nn.BatchNorm2d(n_out, eps=1e-12, momentum=0.4) for _ in range(2))
        for conv, norm in ((self.conv1, self.norm1), (self.conv2, self.norm2)):
            if identity:
                dirac_(conv.weight)
            norm.weight.requires_grad_(False)  # the next layer can scale; the bias cannot be done without

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.norm1(F.max_pool2d(self.conv1(x), 2)))
        return F.gelu(self.norm2(self.conv2(x)))


class SpeedNet(nn.Module):
    """The network (section 3.1): a 2×2 convolution with bias, blocks, max-pooling over what is left, a linear head.

    widths     channels of the blocks
    channels   of the images; ``size`` is their side in pixels, so large that every block has something to halve
    scale      factor of the logits: 1/9 in airbench94, whose first bias starts at 0; None is one over the head's width,
               with unit weights and torch's own start of that bias (Muon)
    identity   whether the blocks start as the identity, ``dirac_``, or at random
    """

    def __init__(
        self, widths: tuple[int, ...] = (64, 256, 256), channels: int = 3, size: int = 32, classes: int = 10,
        scale: float | None = 1 / 9, identity: bool = True,
    ):  # fmt: skip
        super().__init__()
        if (size - 1) >> len(widths) < 1:
            raise ValueError(f"size must be at least {2 ** len(widths) + 1} for {len(widths)} blocks, got {size}")
        self.first = nn.Conv2d(channels, 8 * channels, 2)
        n_in = (8 * channels, *widths[:-1])
        self.blocks = nn.Sequential(*(Block(a, b, identity) for a, b in zip(n_in, widths, strict=True)))
        self.head = nn.Linear(widths[-1], classes, bias=False)
        self.scale = 1 / widths[-1] if scale is None else scale
        with torch.no_grad():
            if scale is None:
                self.head.weight /= self.head.weight.std()
            else:
                self.first.bias.zero_()

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


def predict(net: Callable[[Tensor], Tensor], images: Images, level: int = 2, batch: int = 2000) -> Float[Tensor, "n k"]:
    """Weighted mean of the logits over ``test_views``, the net in evaluation mode while it lasts."""
    return predictions_by_level(net, images, level, batch)[-1]


@torch.no_grad()
def predictions_by_level(
    net: Callable[[Tensor], Tensor], images: Images, level: int = 2, batch: int = 2000
) -> Float[Tensor, "levels n k"]:
    """``predict`` for all levels from 0 to ``level``, each view seen once: a level has the first 1, 2 or 6 of them."""
    training = isinstance(net, nn.Module) and net.training
    weights = [torch.tensor([w for w, _ in test_views(images[:1], low)]) for low in range(level + 1)]

    def means(part: Tensor) -> Tensor:  # one memory layout for all views: a compiled net sees a single kind of input
        views = (v.contiguous(memory_format=torch.channels_last) for _, v in test_views(part, level))
        said = torch.stack([net(view).float() for view in views])
        return torch.stack([torch.einsum("v,vnk->nk", w.to(said), said[: len(w)]) for w in weights])

    if training:
        net.eval()
    try:
        return torch.cat([means(part) for part in images.split(batch)], 1)
    finally:
        if training:
            net.train()
