"""Predicting what is missing: the next patch, all patches that follow, the patches that were hidden.

``AIM`` predicts images patch by patch; ``TokenUnify`` mixes that with masks and with predicting everything that
follows, on sections through ``membranes``; ``rollout`` lets a model go on by itself; ``pixel_scores`` and ``fine_tune``
read an encoder with few labels. Masked autoencoders are in ``masked.py`` and what is learnt from video in
``video.py``, both offered here too.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..data import Difficulty, scenes, shuffled
from ..loss import float32
from ..nets.vit import (
    ViT,
    gather,
    normalise_patches,
    patchify,
    prefix_causal,
    random_split,
    unpatchify,
)
from ..train import fit
from ..transport import sinkhorn_codes  # noqa: F401
from .masked import (
    FACTORS,
    MAE,
    Cells,
    ChannelMAE,
    ChannelViT,
    Further,
    PerturbationClassifier,
    cells,
    centre_by_batch,
    distillation_rounds,
    fourier_loss,
    masked_mse,
    moved,
    relation_recall,
    self_distillation_loss,
    self_standardise,
    typical_variation,
)
from .video import (  # noqa: F401
    DSM,
    ODC,
    UCSL,
    VJEPA,
    ClipNet,
    ClipViT,
    Rho,
    ambiguity_contrast,
    associate,
    cross_contrast,
    direct_contrast,
    dsm_loss,
    hidden_distance,
    idf1,
    indirect_contrast,
    jepa_loss,
    match,
    mistracked,
    multiblock,
    panned_textures,
    random_tubes,
    recoloured,
    rho_byol,
    rho_clips,
    rho_moco,
    rho_nt_xent,
    rho_swav,
    round_trip,
    shown_objects,
    spatial_disturbance,
    temporal_disturbance,
    tied_scenes,
    track_vote,
    tracked_patches,
    tracking_score,
    two_means,
)

Images = Float[Tensor, "n c h w"]
Scalar = Float[Tensor, ""]

__all__ = [
    "AIM",
    "FACTORS",
    "MAE",
    "Cells",
    "ChannelMAE",
    "ChannelViT",
    "Further",
    "Membranes",
    "PatchHead",
    "PerturbationClassifier",
    "Reader",
    "TokenUnify",
    "autoregressive_loss",
    "block_average",
    "cells",
    "centre_by_batch",
    "dice",
    "distillation_rounds",
    "fine_tune",
    "fourier_loss",
    "grey_digits",
    "masked_mse",
    "membrane_dice",
    "membranes",
    "moved",
    "next_all_loss",
    "pixel_scores",
    "relation_recall",
    "rollout",
    "self_distillation_loss",
    "self_standardise",
    "typical_variation",
]

# ---------------------------------------------------------------------------------------------------------------------
# The next patch
# ---------------------------------------------------------------------------------------------------------------------


@float32
def autoregressive_loss(
    predicted: Float[Tensor, "n k p"],
    patches: Float[Tensor, "n k p"],
    prefix: Int[Tensor, " n"],
    normalise: bool = True,
) -> Scalar:
    """Squared error of the next patch, over the patches after each image's prefix.

    AIM (El-Nouby et al., 2024), eq. 2: mean over patches k > S of ‖x̂_k(x_<k) - x_k‖² / p, with x_k normalised.

    predicted  row i is the prediction of patch i + 1; the last row predicts nothing
    patches    in raster order, not normalised
    prefix     S, 1 … k - 1: patches that every token sees, and that are no targets
    normalise  targets with mean 0 and variance 1 each; False for raw pixels

    Raises ValueError for shapes that do not fit together and a single patch.
    """
    if predicted.ndim != 3 or predicted.shape[1] < 2 or not predicted.is_floating_point() or not predicted.numel():
        got = f"{predicted.dtype} {tuple(predicted.shape)}"
        raise ValueError(f"predicted must be patches (n, k >= 2, p) in floating point, got {got}")
    if patches.shape != predicted.shape or not patches.is_floating_point():
        raise ValueError(f"patches must be {tuple(predicted.shape)}, got {patches.dtype} {tuple(patches.shape)}")
    if prefix.shape != predicted.shape[:1]:
        raise ValueError(f"prefix must be one length an image ({len(predicted)},), got {tuple(prefix.shape)}")
    target = normalise_patches(patches) if normalise and patches.shape[2] > 1 else patches
    place = torch.arange(1, patches.shape[1], device=patches.device)
    return masked_mse(predicted[:, :-1], target[:, 1:], place >= prefix[:, None])


class PatchHead(nn.Module):
    """The MLP that turns each token into pixels by itself: residual pre-norm blocks, and positions added once more.

    AIM, section 3.2: it takes the pixel-fitting on itself, so that the trunk need not, and is thrown away.

    depth  number of blocks; 0 is a linear layer, the ablation
    """

    def __init__(self, width: int, out: int, depth: int = 2, hidden: int | None = None):
        super().__init__()
        hidden = hidden or 4 * width
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
            for _ in range(depth)
        )
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, out))

    def forward(self, x: Float[Tensor, "n k d"]) -> Float[Tensor, "n k p"]:
        for block in self.blocks:
            x = x + block(x)
        return self.out(x)


class AIM(nn.Module):
    """An autoregressive image model: a transformer that sees the patches so far predicts the next one.

    AIM (El-Nouby et al., 2024), section 3. A prefix of random length S ~ U{1, …, K - 1} attends to itself in both
    directions and is no target, so that the trunk meets bidirectional attention, with which it is used later.

    encoder    a ``ViT``, in the paper without biases
    depth      of the head
    causal     no prefix: every token sees its past alone (the ablation)
    normalise  targets normalised patch by patch; False for raw pixels

    ``forward(x, index)`` is the loss of images brought to mean 0.
    """

    def __init__(self, encoder: ViT, depth: int = 2, causal: bool = False, normalise: bool = True):
        super().__init__()
        self.encoder, self.causal, self.normalise = encoder, causal, normalise
        self.head = PatchHead(encoder.features, encoder.embed.in_features, depth)

    def predict(self, x: Images, prefix: Int[Tensor, " n"]) -> Float[Tensor, "n k p"]:
        """Row i predicts patch i + 1 from patches 0 … i and the prefix."""
        mask = prefix_causal(len(self.encoder.position), None if self.causal else prefix, device=x.device)
        return self.head(self.encoder(x, mask=mask) + self.encoder.position)

    def loss(self, x: Images, prefix: Int[Tensor, " n"]) -> Scalar:
        """With given prefixes: the same ones for every model make losses comparable."""
        return autoregressive_loss(self.predict(x, prefix), patchify(x, self.encoder.patch), prefix, self.normalise)

    def forward(self, x: Images, index: Tensor | None = None) -> Scalar:
        k = len(self.encoder.position)
        prefix = torch.ones(len(x), dtype=torch.long) if self.causal else torch.randint(1, k, (len(x),))
        return self.loss(x, prefix.to(x.device, non_blocking=True))

    @torch.no_grad()
    def validation_loss(self, x: Images) -> float:
        """The loss with fixed prefixes, 1 … K - 1 in turn over the images: one protocol for all models."""
        k = len(self.encoder.position)
        return float(self.loss(x, 1 + torch.arange(len(x), device=x.device) % (k - 1)))


@torch.no_grad()
def block_average(encoder: ViT, x: Images, last: int = 2) -> Float[Tensor, "n k d"]:
    """Frozen tokens for a probe: the mean of the last blocks' outputs, attention in both directions.

    AIM, section 3.3, averages the last six of 24 and more blocks: the last one alone serves the pixels.
    """
    return torch.stack(encoder.trunk.layers(encoder.tokens(x))[-last:]).mean(0)


# ---------------------------------------------------------------------------------------------------------------------
# All that follows
# ---------------------------------------------------------------------------------------------------------------------


@float32
def next_all_loss(
    predicted: Float[Tensor, "n r k p"], patches: Float[Tensor, "n k p"], after: Int[Tensor, "n r"]
) -> Scalar:
    """Squared error of every patch that follows, seen from several places of the sequence.

    TokenUnify (Chen et al., 2025): Σ_i Σ_{j>i} ‖x̂_j(x_≤i) - x_j‖². Here the mean over all pairs and values.

    predicted  [n, r, j] is what place i = after[n, r] says about patch j
    after      places i; patches j > i are targets. The last place has none

    Raises ValueError for shapes that do not fit together.
    """
    if predicted.ndim != 4 or not predicted.is_floating_point() or not predicted.numel():
        raise ValueError(
            f"predicted must be (n, r, k, p) in floating point, got {predicted.dtype} {tuple(predicted.shape)}"
        )
    n, r, k, p = predicted.shape
    if patches.shape != (n, k, p) or not patches.is_floating_point():
        raise ValueError(f"patches must be {(n, k, p)} in floating point, got {patches.dtype} {tuple(patches.shape)}")
    if after.shape != (n, r):
        raise ValueError(f"after must be {(n, r)}, got {tuple(after.shape)}")
    follows = torch.arange(k, device=after.device) > after[:, :, None]
    return masked_mse(predicted.flatten(0, 1), patches.repeat_interleave(r, 0), follows.flatten(0, 1))


class TokenUnify(nn.Module):
    """One transformer, one head, three ways to ask: a hidden patch, the next one, all that follow.

    TokenUnify (Chen et al., 2025). The head answers "what stands at place j, as token i knows it?":
    f(h_i, p_j) = W₃ GELU(W₁ h_i + W₂ p_j). *Random*: i = j is a blank among visible tokens, attention goes everywhere.
    *Next*: j = i + 1 for all i at once. *Next-all*: all j > i, for ``starts`` places i of each image. The last two
    attend causally after a random prefix, as in ``AIM``. With several objectives steps take turns.

    encoder     a ``ViT``
    objectives  of "random", "next", "next-all"
    hide        share of patches hidden in "random"; 0.75 as in MAE

    ``forward(x, index)`` is the loss of the step's objective.
    Departures: a transformer for Mamba and slices for volumes; the released code draws one prefix for each volume
    and lets a U-Net without causal mask fill in the rest.
    """

    def __init__(
        self, encoder: ViT, objectives: Sequence[str] = ("random", "next", "next-all"), hide: float = 0.75,
        starts: int = 4, hidden: int = 64,
    ):  # fmt: skip
        super().__init__()
        if not objectives or set(objectives) - {"random", "next", "next-all"}:
            raise ValueError(f'objectives must be of "random", "next" and "next-all", got {objectives}')
        self.encoder, self.objectives, self.starts = encoder, tuple(objectives), starts
        self.tokens = len(encoder.position)
        self.keep = max(1, round((1 - hide) * self.tokens))
        self.blank = nn.Parameter(0.02 * torch.randn(encoder.features))
        self.know, self.ask = nn.Linear(encoder.features, hidden), nn.Linear(encoder.features, hidden, bias=False)
        self.out = nn.Linear(hidden, encoder.embed.in_features)
        self.turn = 0

    def answer(self, h: Float[Tensor, "... d"], place: Int[Tensor, "..."]) -> Float[Tensor, "... p"]:
        """What token states h say about the patches at ``place``, one for each state or broadcast against them."""
        return self.out(F.gelu(self.know(h) + self.ask(self.encoder.position[place])))

    def forward(self, x: Images, index: Tensor | None = None) -> Scalar:
        objective = self.objectives[self.turn % len(self.objectives)]
        self.turn += 1
        return self.loss(x, objective)

    def loss(self, x: Images, objective: str) -> Scalar:
        patches = patchify(x, self.encoder.patch)
        if objective == "random":
            return self._random(x, patches)
        prefix = torch.randint(1, self.tokens, (len(x),)).to(x.device, non_blocking=True)
        h = self.encoder(x, mask=prefix_causal(self.tokens, prefix))
        if objective == "next":
            place = torch.arange(1, self.tokens + 1, device=x.device).clamp_max(self.tokens - 1)
            return autoregressive_loss(self.answer(h, place), patches, prefix, normalise=False)
        after = (prefix - 1)[:, None] + ((self.tokens - prefix)[:, None] * self._uniform(x)).long()  # S-1 … K-2
        everywhere = torch.arange(self.tokens, device=x.device)
        return next_all_loss(self.answer(gather(h, after)[:, :, None], everywhere), patches, after)

    def _uniform(self, x: Images) -> Float[Tensor, "n r"]:
        return torch.rand(len(x), self.starts, device=x.device)

    def _random(self, x: Images, patches: Float[Tensor, "n k p"]) -> Scalar:
        kept, gone = random_split(len(x), self.tokens, self.keep, device=x.device)
        hidden = torch.zeros(len(x), self.tokens, dtype=torch.bool, device=x.device).scatter_(1, gone, True)
        tokens = torch.where(hidden[:, :, None], self.blank + self.encoder.position, self.encoder.tokens(x))
        h = self.encoder.trunk(tokens)
        return masked_mse(self.answer(h, torch.arange(self.tokens, device=x.device)), patches, hidden)


@torch.no_grad()
def rollout(model: TokenUnify, x: Images, prefix: int, feed_back: bool) -> Float[Tensor, "n k p"]:
    """Patches of images of which only the first ``prefix`` are shown; those are returned as they are.

    feed_back  True: the next patch, appended to the input, and again. False: everything that follows in one answer.
    """
    encoder, patches = model.encoder, patchify(x, model.encoder.patch).clone()
    k = model.tokens
    lengths = torch.full((len(x),), prefix, device=x.device)
    mask = prefix_causal(k, lengths)
    patches[:, prefix:] = 0
    for i in range(prefix, k if feed_back else prefix + 1):
        h = encoder.trunk(encoder.embed(patches) + encoder.position, mask)[:, i - 1]
        if feed_back:
            patches[:, i] = model.answer(h, torch.tensor(i, device=x.device))
        else:
            places = torch.arange(prefix, k, device=x.device)
            patches[:, prefix:] = model.answer(h[:, None], places)
    return patches


# ---------------------------------------------------------------------------------------------------------------------
# Reading an encoder with few labels
# ---------------------------------------------------------------------------------------------------------------------


class Reader(nn.Module):
    """An encoder and one linear layer on its class token.

    out  classes
    """

    def __init__(self, encoder: ViT, out: int):
        super().__init__()
        if encoder.cls is None:
            raise ValueError("encoder must have a class token to be read, got one without")
        self.encoder, self.head = encoder, nn.Linear(encoder.features, out)

    def forward(self, x: Images) -> Float[Tensor, "n out"]:
        return self.head(self.encoder(x)[:, 0])


def fine_tune(
    encoder: ViT, x: Images, y: Int[Tensor, " n"], out: int, *, steps: int, lr: float = 1e-3, batch_size: int = 32,
    seed: int = 0,
) -> Reader:  # fmt: skip
    """A ``Reader`` of a copy of the encoder, all of it trained on labelled images; the encoder stays as it is.

    y    classes 0 … out - 1
    """
    with torch.random.fork_rng([x.device] if x.is_cuda else []):
        torch.manual_seed(seed)
        reader = Reader(copy.deepcopy(encoder), out).to(x.device)
        for p in reader.parameters():
            p.requires_grad_(True)

        def step(index: Tensor) -> dict[str, Tensor]:
            return {"loss": F.cross_entropy(reader(x[index]), y[index])}

        batches = shuffled(len(x), min(batch_size, len(x)), seed, x.device)
        fit(reader, step, batches, steps=steps, lr=lr, weight_decay=0.05, clip=1.0, progress=False)
    return reader


@torch.no_grad()
def pixel_scores(
    tokens: Float[Tensor, "n k d"], mask: Bool[Tensor, "n h w"], new: Float[Tensor, "m k d"], patch: Sequence[int],
    l2: float = 0.01,
) -> Float[Tensor, "m h w"]:  # fmt: skip
    """How much each pixel of new sections looks like the mask: ridge regression of pixels on frozen tokens.

    Every patch is read from its own token, by one map for all places, in closed form.

    tokens, mask  of the labelled sections
    patch         sides of a patch, in pixels
    l2            weight of ‖W‖² against the mean squared error, for standardised tokens; the intercept is free

    Raises ValueError for tokens that are not those of the mask.
    """
    grid = tuple(side // p for side, p in zip(mask.shape[1:], patch, strict=True))
    if tokens.shape[:2] != (len(mask), grid[0] * grid[1]):
        raise ValueError(f"tokens must be {(len(mask), grid[0] * grid[1])} of some width, got {tuple(tokens.shape)}")
    z, wanted = tokens.flatten(0, 1).double(), patchify(mask[:, None].double(), patch).flatten(0, 1)
    mean, std, level = z.mean(0), z.std(0) + 1e-6, wanted.mean(0)
    z = (z - mean) / std
    weight = torch.linalg.solve(z.T @ z + l2 * len(z) * torch.eye(z.shape[1]).to(z), z.T @ (wanted - level))
    return unpatchify((new.double() - mean) / std @ weight + level, patch, grid)[:, 0].float()


def membrane_dice(
    tokens: Callable[[Images], Float[Tensor, "n k d"]], few: "Membranes", new: "Membranes", patch: Sequence[int]
) -> float:
    """Dice of the membranes that a linear map finds in the frozen tokens of new sections, learnt from a few.

    tokens  of images (n, 1, h, w)

    As many pixels are called membrane as the labelled sections hold.
    """
    score = pixel_scores(tokens(few.images), few.mask, tokens(new.images), patch)
    return dice(score - score.flatten().quantile(1 - few.mask.float().mean()), new.mask)


def dice(logits: Float[Tensor, "n h w"], mask: Bool[Tensor, "n h w"]) -> float:
    """2 |A ∩ B| / (|A| + |B|) of the pixels with a positive logit and those of the mask, over the whole set; in [0, 1].

    Two empty sets agree: 1.
    """
    if logits.shape != mask.shape or mask.dtype != torch.bool:
        raise ValueError(f"mask must be boolean {tuple(logits.shape)}, got {mask.dtype} {tuple(mask.shape)}")
    found = logits > 0
    total = int(found.sum() + mask.sum())
    return 2 * int((found & mask).sum()) / total if total else 1.0


# ---------------------------------------------------------------------------------------------------------------------
# Digits and membranes
# ---------------------------------------------------------------------------------------------------------------------


def grey_digits(n: int, split: str, seed: int = 1, **difficulty) -> tuple[Images, Int[Tensor, " n"]]:
    """Scenes in one channel: digits that are brighter than their background, and their classes.

    difficulty  fields of ``lab.data.Difficulty``; 12 pixels a side and no texture unless said otherwise

    The background is near 0 and the ink near 2.
    """
    made = scenes(
        n,
        seed=seed,
        split=split,
        difficulty=Difficulty(**(dict(size=12, texture=0.0) | difficulty)),
        ink=torch.full((3,), 1 / 3**0.5),
        background=torch.full((3,), 0.2),
    )
    return 4 * (made.images.float() / 255 - 0.2).mean(1, keepdim=True), made.labels


@dataclass
class Membranes:
    """Sections through packed cells, as an electron microscope shows them, and where the membranes are."""

    images: Tensor  # (n, 1, size, size) float32, mean 0 and variance 1
    mask: Tensor  # (n, size, size) bool
    cells: Tensor  # (n, size, size) int64, which cell a pixel belongs to

    def to(self, device: torch.device) -> "Membranes":
        return Membranes(self.images.to(device), self.mask.to(device), self.cells.to(device))


def membranes(
    n: int, seed: int = 0, size: int = 24, spacing: float = 8.0, stretch: float = 4.0, tilt: float = 0.3,
    thickness: float = 1.8, noise: float = 0.7, contrast: float = 0.5,
) -> Membranes:  # fmt: skip
    """Sections along a bundle of long cells: dark membranes between cells that have greys of their own.

    The cells are those of a Voronoi diagram about jittered centres, drawn out along an axis.

    spacing    between centres across the axis, in pixels
    stretch    how many times longer than wide cells are
    tilt       the axis lies within ±tilt of the vertical, in radians
    thickness  of a membrane, in pixels
    noise      standard deviation of the pixel noise, membranes being 1 darker than the cells
    contrast   standard deviation of the cells' own greys
    """
    g = torch.Generator().manual_seed(15_485_863 * (seed + 1))
    side = int(1.5 * size / spacing) + 3
    lattice = (torch.arange(side) - (side - 1) / 2) * spacing
    centres = torch.cartesian_prod(lattice, lattice) + spacing * (torch.rand(n, 1, 2, generator=g) - 0.5)
    centres = centres + 0.75 * spacing * (torch.rand(n, side * side, 2, generator=g) - 0.5)
    angle = tilt * (2 * torch.rand(n, 1, generator=g) - 1)
    down, right = (torch.cartesian_prod(torch.arange(size), torch.arange(size)) + 0.5 - size / 2).T
    along, across = down * angle.cos() + right * angle.sin(), right * angle.cos() - down * angle.sin()
    places = torch.stack([along / stretch, across], 2)
    parts = zip(places.split(128), centres.split(128), strict=True)  # all distances at once would not fit
    nearest = [torch.cdist(p, c).topk(2, dim=2, largest=False) for p, c in parts]
    near, which = (torch.cat(part) for part in zip(*nearest, strict=True))
    between = centres.gather(1, which.flatten(1)[..., None].expand(-1, -1, 2)).view(n, -1, 2, 2)
    gap = (between[:, :, 0] - between[:, :, 1]).norm(dim=2)
    # distance to the wall between the two nearest centres: (d₂² - d₁²) / 2 |c₂ - c₁|
    wall = (near[..., 1] ** 2 - near[..., 0] ** 2) / (2 * gap.clamp_min(1e-3))
    mask = wall < thickness / 2 + 0.2
    grey = contrast * torch.randn(n, side * side, generator=g).gather(1, which[..., 0])
    values = grey - mask.float() + noise * torch.randn(mask.shape, generator=g)
    images = values.view(n, 1, size, size)
    images = (images - images.mean((1, 2, 3), keepdim=True)) / images.std((1, 2, 3), keepdim=True)
    return Membranes(images, mask.view(n, size, size), which[..., 0].view(n, size, size))
