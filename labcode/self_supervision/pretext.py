"""Pretext tasks: questions that an image answers about itself, and what is left of them in the features.

Here are the chapter's images and encoders and the tasks that need no label: rotation, jigsaw clustering and relational
reasoning. ``bags_of_words`` holds OBoW, ``turned_labels`` what turning does beside labels: LoRot and SLA.

A *method* is a module with an ``encoder`` and a ``forward(views, index)`` that returns the loss; copies of a batch are
stacked, so that row i + v·n is copy v of image ``index[i]``. ``UprightStage.pretrain`` trains it.
"""

from collections.abc import Callable, Sequence
from functools import cached_property

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Generator, Tensor, nn

from .. import augment, nets
from ..data import Difficulty, scenes
from ..evaluate import linear_probe
from ..loss import check_matrix, check_positive, float32
from ..nets import mlp
from ..run import Run
from ..stage import Stage
from .bags_of_words import OBoW, bag_of_words, bow_loss, crop_views, perplexity, soft_codes  # noqa: F401
from .turned_labels import (  # noqa: F401
    SLA,
    Classifier,
    TwoHeads,
    affinity,
    aggregate,
    distance_from_uniform,
    joint_labels,
    rotations,
    self_distillation,
    sla_loss,
    turn,
    turn_all,
    turn_cell,
    turn_patch,
)

Images = Float[Tensor, "n c h w"]
Copies = Float[Tensor, "m c h w"]
Scalar = Float[Tensor, ""]

# ---------------------------------------------------------------------------------------------------------------------
# Images that have an upright, and encoders that can be read after every block
# ---------------------------------------------------------------------------------------------------------------------

UPRIGHT = (2, 3, 4, 5, 6, 7)  # upside down, 0, 1 and 8 are themselves and a 9 is a 6
ODD = (0, 1, 8, 9)


class BlockNet(nn.Module):
    """Four blocks that halve the map each: 16×16 pixels give maps of side 8, 4, 2 and 1. More blocks keep the last map.

    A block is a strided convolution, BatchNorm and GELU: 4×4 in the first, 2×2 in the others, 1×1 in the tail. They are
    matrix products of patches, see ``nets.SmallNet``: 13 ms for forward and backward of 256 images on one thread.

    width     channels of the first block; the next three have twice those of the one before, ``features`` is 8 × width
    tail      blocks after the fourth
    residual  each block of the tail adds its input to what it makes
    """

    def __init__(self, width: int = 32, tail: int = 0, residual: bool = False, channels: int = 3):
        super().__init__()
        self.residual, self.widths = residual, [width * 2**i for i in range(4)] + [8 * width] * tail
        self.features = self.widths[-1]
        inputs = [16 * channels, *(4 * w for w in self.widths[:3]), *self.widths[3:-1]]
        self.convs = nn.ModuleList(nn.Linear(i, o, bias=False) for i, o in zip(inputs, self.widths, strict=True))
        self.norms = nn.ModuleList(nn.BatchNorm1d(w) for w in self.widths)

    def maps(self, x: Images) -> list[Float[Tensor, "n _ _ _"]]:
        """The map (n, channels, side, side) after each block. Raises ValueError for sides that 16 does not divide."""
        n, c, h, w = x.shape
        if h % 16 or w % 16:
            raise ValueError(f"x must have sides that are multiples of 16, got {h}×{w}")
        y = F.pad(x - 0.5, (1, 1, 1, 1)).unfold(2, 4, 2).unfold(3, 4, 2).permute(0, 2, 3, 1, 4, 5).reshape(-1, 16 * c)
        found = []
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            if i < 4:
                h, w = h // 2, w // 2
            if 0 < i < 4:
                y = y.view(n, h, 2, w, 2, -1).transpose(2, 3).reshape(n * h * w, -1)
            new = F.gelu(norm(conv(y)))
            y = y + new if self.residual and i > 3 else new
            found.append(y.view(n, h, w, -1).permute(0, 3, 1, 2))
        return found

    def forward(self, x: Images) -> Float[Tensor, "n d"]:
        return self.maps(x)[-1].mean((2, 3))


class StagedResNet(nets.ResNet18):
    """ResNet-18 whose four stages can be read; without ``residual`` its shortcuts carry nothing."""

    def __init__(self, width: int = 64, residual: bool = True, channels: int = 3):
        super().__init__(width, channels)
        self.widths = [width * 2**i for i in range(4)]
        if not residual:
            for block in self.stages:
                block.short = _Nothing()

    def maps(self, x: Images) -> list[Float[Tensor, "n _ _ _"]]:
        """The maps after the four stages."""
        y, found = self.stem((x - 0.47) / 0.25), []
        for i in range(4):
            y = self.stages[2 * i : 2 * i + 2](y)
            found.append(y)
        return found


class _Nothing(nn.Module):
    def forward(self, x: Tensor) -> float:
        return 0.0


class Block(nn.Module):
    """What an encoder holds after a block, counted from 1: its map, averaged to at most side × side, flattened."""

    def __init__(self, encoder: nn.Module, number: int, side: int = 4):
        super().__init__()
        if not 1 <= number <= len(encoder.widths):
            raise ValueError(f"number must be a block from 1 to {len(encoder.widths)}, got {number}")
        self.encoder, self.number, self.side = encoder, number, side

    def forward(self, x: Images) -> Float[Tensor, "n d"]:
        found = self.encoder.maps(x)[self.number - 1]
        return F.adaptive_avg_pool2d(found, min(self.side, found.shape[-1])).flatten(1)


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
        if run.scale == "quick":
            drawn = [self.draw(n, split, UPRIGHT) for n, split in zip((train, test), run.splits, strict=True)]
            (self.train_images, labels), (self.test_images, test_labels) = drawn
            self.train_labels, self.test_labels, self.classes = labels - 2, test_labels - 2, len(UPRIGHT)
            self.source = run.data = "scenes, 16×16, digits 2 to 7"
            self.train_factors = self.test_factors = {}
            self.views = upright_views

    @staticmethod
    def draw(n: int, split: str, digits: Sequence[int], seed: int = 0) -> tuple[Tensor, Tensor]:
        """n scenes of 16×16 pixels, their digits drawn evenly from ``digits``: images and digits."""
        which = torch.randint(len(digits), (n,), generator=torch.Generator().manual_seed(seed))
        made = scenes(n, seed, split, Difficulty(size=16), label=torch.tensor(digits)[which])
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
        if self.run.scale == "quick":
            return self.draw(1000, self.run.splits[1], ODD)[0]
        from ..data import benchmark

        return benchmark("svhn", device=self.run.device).test_images

    def plain_views(
        self, x: Shaped[Tensor, "n 3 h w"], generator: Generator, views: int = 1
    ) -> Float[Tensor, "{views}*n 3 h w"]:
        """Views for tasks that look at geometry: the stage's own at quick scale, crop and flip alone at full."""
        if self.run.scale == "quick":
            return upright_views(x, generator, views)
        return augment.simclr_views(x, generator, views=views, scale=(0.6, 1.0), jitter_p=0.0, grey_p=0.0)

    def few(self, labels: int, seed: int) -> tuple[Tensor, Tensor]:
        """``labels`` training images, of every class alike, and their labels."""
        order = torch.randperm(len(self.train_labels), generator=torch.Generator().manual_seed(seed))
        y = self.train_labels[order.to(self.train_labels.device)]
        chosen = torch.cat([(y == c).nonzero()[: labels // self.classes, 0] for c in range(self.classes)])
        chosen = order.to(chosen.device)[chosen]
        return self.train_images[chosen], self.train_labels[chosen]


# ---------------------------------------------------------------------------------------------------------------------
# Rotation
# ---------------------------------------------------------------------------------------------------------------------


@float32
def rotation_loss(scores: Float[Tensor, "two_n k"]) -> Scalar:
    """Cross entropy of telling the turns apart, the k turns of a batch stacked: rows v·n … (v + 1)·n are turn v.

    RotNet (Gidaris et al., 2018), eq. 2 and 3. Raises ValueError unless k divides the number of rows.
    """
    check_matrix("scores", scores)
    rows, k = scores.shape
    if rows % k:
        raise ValueError(f"scores must hold each image under all {k} turns, got {rows} rows")
    return F.cross_entropy(scores, torch.arange(k, device=scores.device).repeat_interleave(rows // k))


class RotNet(nn.Module):
    """By how many quarters has the image been turned?

    turns  the quarters to tell apart; (0, 1, 2, 3) in the paper
    """

    def __init__(self, encoder: nn.Module, turns: Sequence[int] = (0, 1, 2, 3)):
        super().__init__()
        self.encoder, self.turns, self.head = encoder, tuple(turns), nn.Linear(encoder.features, len(turns))

    def scores(self, x: Images) -> Float[Tensor, "m k"]:
        return self.head(self.encoder(rotations(x, self.turns)))

    def forward(self, views: Copies, index: Int[Tensor, " n"]) -> Scalar:
        return rotation_loss(self.scores(views))

    @torch.no_grad()
    def correct(self, images: Tensor) -> Bool[Tensor, "n k"]:
        """Which turns of which images (uint8) the network tells."""
        guess = self.scores(augment.to_float(images)).argmax(1)
        return (guess.view(len(self.turns), -1) == torch.arange(len(self.turns), device=guess.device)[:, None]).T


# ---------------------------------------------------------------------------------------------------------------------
# Jigsaw clustering
# ---------------------------------------------------------------------------------------------------------------------


def quadrants(x: Images, cross: float = 0.3) -> Float[Tensor, "4*n c s s"]:
    """Four overlapping windows of every image, of (½ + cross) of its side: top left, top right, bottom left and right.

    JigClu (Chen et al., 2021), section 3.1. Row i + n·p is window p of image i.
    """
    if not 0 <= cross <= 0.5:
        raise ValueError(f"cross must be in [0, 0.5], got {cross}")
    side = x.shape[-1]
    s = round((0.5 + cross) * side)
    ends = slice(0, s), slice(side - s, side)
    return torch.cat([x[..., rows, columns] for rows in ends for columns in ends])


def patch_views(
    x: Shaped[Tensor, "n 3 h w"], generator: Generator, size: int = 16, cross: float = 0.3,
    scale: tuple[float, float] = (0.5, 1.0), views: Callable[..., Tensor] = upright_views,
) -> Float[Tensor, "4*n 3 {size} {size}"]:  # fmt: skip
    """The four windows of every image, each with a crop and colours of its own.

    size   of a patch; a montage has twice that
    scale  share of the window's area that a crop keeps
    views  changes the patches, each by its own draw: ``(patches, generator, views=1)``
    """
    windows = quadrants(augment.to_float(x), cross)
    return views(augment.random_resized_crop(windows, size, scale, generator=generator), generator, views=1)


def montage(patches: Float[Tensor, "four_n c s s"]) -> Float[Tensor, "four_n//4 c 2*s 2*s"]:
    """Every four patches in a row become the cells of one image, row by row. Undone by ``cells``."""
    m, c, s, _ = patches.shape
    if m % 4:
        raise ValueError(f"patches must come in fours, got {m}")
    return patches.view(-1, 2, 2, c, s, s).permute(0, 3, 1, 4, 2, 5).reshape(-1, c, 2 * s, 2 * s)


def cells(maps: Float[Tensor, "n c h w"]) -> Float[Tensor, "4*n c"]:
    """The mean feature of each quarter of a map, in the order of the patches that ``montage`` laid there."""
    return F.adaptive_avg_pool2d(maps, 2).flatten(2).transpose(1, 2).flatten(0, 1)


@float32
def cluster_loss(z: Float[Tensor, "n d"], source: Int[Tensor, " n"], tau: float = 0.3) -> Scalar:
    """Every row towards the others of its source, away from the rest: supervised contrast without supervision.

    JigClu, eq. 1: the mean over rows i of -1/|P(i)| Σ_{j ∈ P(i)} log(exp(z_i·z_j/τ) / Σ_{k ≠ i} exp(z_i·z_k/τ)), P(i)
    being the other rows of i's source. Rows that have none count for nothing.

    z       embeddings, normalised here
    source  which image a row comes from
    tau     τ > 0; 0.3 is the authors'

    Raises ValueError for fewer than two rows, a source of another length, tau <= 0.
    Departure: no factor τ/0.07, which the authors' code has; AdamW does not feel it beside the location loss's scale.
    """
    check_matrix("z", z, rows=2)
    check_positive(tau=tau)
    if source.shape != (len(z),):
        raise ValueError(f"source must have one entry a row of z, {len(z)}, got shape {tuple(source.shape)}")
    z = F.normalize(z, dim=1)
    scores = z @ z.T / tau
    self_pair = torch.eye(len(z), dtype=torch.bool, device=z.device)
    log_p = scores - scores.masked_fill(self_pair, -torch.inf).logsumexp(1, keepdim=True)
    same = (source[:, None] == source) & ~self_pair
    count = same.sum(1)
    each = -log_p.masked_fill(~same, 0).sum(1) / count.clamp_min(1)
    return each.sum() / (count > 0).sum().clamp_min(1)


class JigClu(nn.Module):
    """Montages of patches from four images: which patches belong together, and where was each?

    views     patches as ``patch_views`` makes them: row i + n·p is quadrant p of image i
    dim, tau  width and temperature of the clustering branch
    clu, loc  weights of the clustering and the location branch; 1 and 1 in the paper
    mix       True shuffles all 4n patches by one permutation, as in the paper; False the four of each image among
              themselves, the jigsaw puzzle of old
    """

    def __init__(self, encoder: nn.Module, dim: int = 128, tau: float = 0.3, clu: float = 1.0, loc: float = 1.0,
                 mix: bool = True):  # fmt: skip
        super().__init__()
        self.encoder, self.tau, self.clu, self.loc, self.mix = encoder, tau, clu, loc, mix
        self.head = mlp([encoder.features, encoder.features, dim], norm=False)
        self.place = nn.Linear(encoder.features, 4)

    def parts(self, patches: Images, order: Int[Tensor, " four_n"]) -> Float[Tensor, "four_n d"]:
        """Features of the patches in the order in which they lie in the montages."""
        return cells(self.encoder.maps(montage(patches[order]))[-1])

    def forward(self, views: Copies, index: Int[Tensor, " n"]) -> Scalar:
        n = len(index)
        if self.mix:
            order = torch.randperm(4 * n, device=views.device)
        else:
            own = torch.rand(n, 4, device=views.device).argsort(1) * n
            order = (own + torch.arange(n, device=views.device)[:, None]).flatten()
        h = self.parts(views, order)
        loss = 0.0
        if self.clu:
            loss = loss + self.clu * cluster_loss(self.head(h), order % n, self.tau)
        if self.loc:
            loss = loss + self.loc * F.cross_entropy(self.place(h), order // n)
        return loss


# ---------------------------------------------------------------------------------------------------------------------
# Relational reasoning
# ---------------------------------------------------------------------------------------------------------------------


def relation_pairs(m: int, k: int, device="cpu") -> tuple[Int[Tensor, " p"], Int[Tensor, " p"], Bool[Tensor, " p"]]:
    """Which rows of k stacked copies of m images are compared: left, right, and whether they show the same image.

    Relational reasoning (Patacchiola and Storkey, 2020), section 3: for every pair of copies a < b the m positives
    (z_a(i), z_b(i)) and as many negatives (z_a(i), z_b(i + shift)). The shift goes through 1 … m-1 and starts again, so
    that it is never 0. In all m·k·(k-1) pairs, half of them positive.

    Raises ValueError for m < 2 or k < 2.
    """
    if m < 2 or k < 2:
        raise ValueError(f"m and k must be at least 2, got {m} and {k}")
    a, b = torch.triu_indices(k, k, 1, device=device)[:, :, None]
    image = torch.arange(m, device=device)
    shift = 1 + torch.arange(len(a), device=device)[:, None] % (m - 1)
    left = (a * m + image).flatten()
    right = [(b * m + other).flatten() for other in (image, (image + shift) % m)]
    return left.repeat(2), torch.cat(right), torch.arange(2 * len(left), device=device) < len(left)


@float32
def relation_loss(scores: Float[Tensor, " n"], same: Bool[Tensor, " n"], gamma: float = 2.0) -> Scalar:
    """Binary cross entropy of "the same image?", pairs that are already clear counting less.

    Relational reasoning, section 3.2, with the authors' focal weight: the mean of ½ (1 - p)^γ (-log p), p the
    probability of the right answer. gamma >= 0; at 0 it is half the plain binary cross entropy.

    Raises ValueError for an empty batch, unlike shapes, gamma < 0.
    """
    if scores.ndim != 1 or not len(scores) or not scores.dtype.is_floating_point:
        raise ValueError(f"scores must be a floating-point vector (n,), got {scores.dtype} {tuple(scores.shape)}")
    if same.shape != scores.shape:
        raise ValueError(f"same must have the shape of scores, {tuple(scores.shape)}, got {tuple(same.shape)}")
    if gamma < 0:
        raise ValueError(f"gamma must be at least 0, got {gamma}")
    log_p = F.logsigmoid(torch.where(same, scores, -scores))
    return -(0.5 * (-torch.expm1(log_p)).clamp_min(0) ** gamma * log_p).mean()


class RelationHead(nn.Module):
    """Linear, BatchNorm, LeakyReLU, Linear on concatenated pairs; the pairs are never concatenated.

    W [u, v] = W₁ u + W₂ v, so the first layer works on each of the m·k features once, not on their m·k·(k-1) pairs.
    """

    def __init__(self, features: int, hidden: int = 256):
        super().__init__()
        self.left, self.right = nn.Linear(features, hidden), nn.Linear(features, hidden, bias=False)
        self.rest = nn.Sequential(nn.BatchNorm1d(hidden), nn.LeakyReLU(), nn.Linear(hidden, 1))

    def forward(
        self, h: Float[Tensor, "n d"], left: Int[Tensor, " p"], right: Int[Tensor, " p"]
    ) -> Float[Tensor, " p"]:
        return self.rest(self.left(h)[left] + self.right(h)[right])[:, 0]


class DotHead(nn.Module):
    """The rival: a projection and a scaled cosine in place of the network that compares."""

    def __init__(self, features: int, dim: int = 128):
        super().__init__()
        self.project = mlp([features, features, dim])
        self.scale, self.shift = nn.Parameter(torch.tensor(5.0)), nn.Parameter(torch.tensor(-2.0))

    def forward(
        self, h: Float[Tensor, "n d"], left: Int[Tensor, " p"], right: Int[Tensor, " p"]
    ) -> Float[Tensor, " p"]:
        z = F.normalize(self.project(h), dim=1)
        return self.scale * (z[left] * z[right]).sum(1) + self.shift


class Relational(nn.Module):
    """Do two features come from the same image? Any number k of views a batch, as many as ``views`` holds.

    head   of the comparison: "relation" or "dot"
    gamma  of the focal weight
    """

    def __init__(self, encoder: nn.Module, head: str = "relation", gamma: float = 2.0):
        super().__init__()
        if head not in ("relation", "dot"):
            raise ValueError(f"head must be 'relation' or 'dot', got {head!r}")
        self.encoder, self.gamma = encoder, gamma
        self.head = (RelationHead if head == "relation" else DotHead)(encoder.features)

    def forward(self, views: Copies, index: Int[Tensor, " n"]) -> Scalar:
        left, right, same = relation_pairs(len(index), len(views) // len(index), views.device)
        return relation_loss(self.head(self.encoder(views), left, right), same, self.gamma)
