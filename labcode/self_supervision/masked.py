"""Masked autoencoders: for images, for any number of microscope channels, and for going on with a distilled teacher.

Pure losses (``masked_mse``, ``fourier_loss``, ``self_distillation_loss``), the autoencoders that hold the parameters
(``MAE``, ``ChannelMAE``, ``Further``), and the microscope that the second one needs: ``cells`` draws images of
perturbed cells, ``relation_recall`` says how much of the known biology their embeddings find.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..loss import check_matrix, float32
from ..nets.vit import (
    Attention,
    Transformer,
    ViT,
    fill,
    gather,
    normalise_patches,
    patchify,
    random_split,
    sincos,
    unpatchify,
)

Images = Float[Tensor, "n c h w"]
Scalar = Float[Tensor, ""]

# ---------------------------------------------------------------------------------------------------------------------
# Losses
# ---------------------------------------------------------------------------------------------------------------------


@float32
def masked_mse(
    predicted: Float[Tensor, "n k p"], target: Float[Tensor, "n k p"], hidden: Bool[Tensor, "n k"]
) -> Scalar:
    """Mean squared error over the hidden patches alone, every patch of the batch alike.

    MAE (He et al., 2022), section 3; with ``hidden`` the patches after a prefix it is the loss of AIM (El-Nouby et
    al., 2024), eq. 2. Nothing hidden gives 0.

    Raises ValueError for shapes that do not fit together.
    """
    _tokens("predicted", predicted)
    _tokens("target", target, like=predicted)
    if hidden.shape != predicted.shape[:2] or hidden.dtype != torch.bool:
        raise ValueError(
            f"hidden must be boolean {tuple(predicted.shape[:2])}, got {hidden.dtype} {tuple(hidden.shape)}"
        )
    error = (predicted - target).square().mean(2)
    return (error * hidden).sum() / hidden.sum().clamp_min(1)


@float32
def fourier_loss(predicted: Float[Tensor, "n c h w"], target: Float[Tensor, "n c h w"]) -> Scalar:
    """Mean absolute difference of the moduli of two images' Fourier transforms, channel by channel.

    Kraus et al. (2024): squared errors alone are content with a blur; the moduli are not, and they do not care
    where a structure lies. The transform is not normalised, as in the authors' code: take a weight of about 0.01.

    Raises ValueError for images of different shapes.
    """
    for name, x in (("predicted", predicted), ("target", target)):
        if x.ndim != 4 or not x.is_floating_point() or not x.numel():
            raise ValueError(f"{name} must be images (n, c, h, w) in floating point, got {x.dtype} {tuple(x.shape)}")
    if predicted.shape != target.shape:
        raise ValueError(
            f"target must have the shape of predicted, {tuple(predicted.shape)}, got {tuple(target.shape)}"
        )
    return (_modulus(predicted) - _modulus(target)).abs().mean()


def _modulus(x: Images) -> Images:
    """|FFT|, with a gradient of 0 instead of NaN where it is 0."""
    z = torch.view_as_real(torch.fft.fft2(x))
    return z.square().sum(-1).clamp_min(1e-20).sqrt()


@float32
def self_distillation_loss(student: Float[Tensor, "n d"], teacher: Float[Tensor, "n d"]) -> Scalar:
    """Squared distance of the student's hidden representation to the frozen teacher's, summed over features.

    Lee et al. (2023), eq. 4: (1/B) Σᵢ ‖h_student(xᵢ) - sg h_teacher(xᵢ)‖², with h the class token after the last
    LayerNorm, of the whole image. Nothing flows into the teacher.

    Raises ValueError for matrices that do not fit together.
    """
    check_matrix("student", student)
    check_matrix("teacher", teacher, like=student)
    return (student - teacher.detach()).square().sum(1).mean()


def _tokens(name: str, x: Tensor, like: Tensor | None = None) -> None:
    if x.ndim != 3 or not x.is_floating_point() or not x.numel():
        raise ValueError(f"{name} must be patches (n, k, p) in floating point, got {x.dtype} {tuple(x.shape)}")
    if like is not None and x.shape != like.shape:
        raise ValueError(f"{name} must have the shape {tuple(like.shape)}, got {tuple(x.shape)}")


def self_standardise(x: Images, eps: float = 1e-5) -> Images:
    """Every channel of every image with mean 0 and variance 1: instance normalisation without parameters.

    Kraus et al. (2024): what a lamp or a dye does to a whole channel is gone before the network sees it.
    """
    return F.instance_norm(x, eps=eps)


# ---------------------------------------------------------------------------------------------------------------------
# Autoencoders
# ---------------------------------------------------------------------------------------------------------------------


class MAE(nn.Module):
    """A masked autoencoder (He et al., 2022): the encoder sees a quarter of the patches, a decoder paints the rest.

    encoder    a ``ViT``; what is hidden never enters it
    keep       share of patches that it sees; 0.25 in the paper
    width, depth   of the decoder, which is thrown away
    normalise  predict each patch with mean 0 and variance 1
    fourier    weight of ``fourier_loss`` on the painted image, 0 for none

    ``forward(x, index)`` is the loss of images (n, c, h, w) brought to mean 0; ``index`` is not used.
    """

    def __init__(
        self, encoder: ViT, keep: float = 0.25, width: int = 32, depth: int = 1, heads: int = 4,
        normalise: bool = True, fourier: float = 0.0,
    ):  # fmt: skip
        super().__init__()
        self.encoder, self.normalise, self.fourier = encoder, normalise, fourier
        self.tokens = len(encoder.position)
        self.keep = max(1, round(keep * self.tokens))
        self.into = nn.Linear(encoder.features, width)
        self.blank = nn.Parameter(0.02 * torch.randn(width))
        self.register_buffer("position", sincos(encoder.grid, width), persistent=False)
        self.decoder = Transformer(width, depth, heads)
        self.out = nn.Linear(width, encoder.embed.in_features)

    def decode(self, seen: Float[Tensor, "n s d"], kept: Int[Tensor, "n v"]) -> Float[Tensor, "n k p"]:
        """All patches, from the encoded visible ones; a class token takes part and is dropped."""
        y = self.into(seen)
        extra = y[:, : -kept.shape[1]]
        y = fill(y[:, extra.shape[1] :], kept, self.blank, self.tokens) + self.position
        return self.out(self.decoder(torch.cat([extra, y], 1))[:, extra.shape[1] :])

    def forward(self, x: Images, index: Tensor | None = None) -> Scalar:
        kept, hidden = random_split(len(x), self.tokens, self.keep, device=x.device)
        predicted = self.decode(self.encoder(x, kept), kept)
        target = patchify(x, self.encoder.patch)
        target = normalise_patches(target) if self.normalise else target
        loss = masked_mse(predicted, target, _flags(hidden, self.tokens))
        if self.fourier:
            painted, original = (unpatchify(t, self.encoder.patch, self.encoder.grid) for t in (predicted, target))
            loss = loss + self.fourier * fourier_loss(painted.float(), original.float())
        return loss


def _flags(index: Int[Tensor, "n v"], k: int) -> Bool[Tensor, "n {k}"]:
    return torch.zeros(len(index), k, dtype=torch.bool, device=index.device).scatter_(1, index, True)


class ChannelViT(nn.Module):
    """A transformer for images of any number of channels, in any order.

    Kraus et al. (2024), CA-MAE: every channel is cut into patches by itself, one projection embeds them all, and a
    patch has the same position in every channel. There is no channel embedding, so the encoder cannot tell channels
    apart but by what they show.

    options  of ``Block``, e.g. ``layerscale``, ``qk_norm``
    """

    def __init__(
        self, size: Sequence[int], patch: Sequence[int], width: int = 48, depth: int = 3, heads: int = 4, **options
    ):
        super().__init__()
        self.single = ViT(size, patch, channels=1, width=width, depth=depth, heads=heads, **options)
        self.features, self.patch, self.grid = width, self.single.patch, self.single.grid

    def patches(self, x: Images) -> Float[Tensor, "n ck p"]:
        """Patches of all channels, channel by channel: token c·k + i is place i of channel c."""
        n, c = x.shape[:2]
        return patchify(x.reshape(n * c, 1, *x.shape[2:]), self.patch).reshape(n, c * len(self.single.position), -1)

    def forward(self, x: Images, index: Int[Tensor, "n v"] | None = None) -> Float[Tensor, "n m d"]:
        """Encoded tokens: all c·k, or those named by ``index`` (n, v)."""
        patches, position = self.patches(x), self.single.position.repeat(x.shape[1], 1)
        if index is not None:
            patches, position = gather(patches, index), position[index]
        return self.single.trunk(self.single.embed(patches) + position)


class ChannelMAE(nn.Module):
    """CA-MAE: one encoder for all channels, one small decoder for each.

    Kraus et al. (2024), and the authors' code: a quarter of *all* channels' patches is seen, drawn freely, so a place
    may be seen in one channel and hidden in another. In the decoder, the queries of a channel (visible tokens, a blank
    elsewhere, plus position and channel token) attend to the tokens of all channels, an MLP follows, then the
    channel's own transformer. The cross-attention has no residual.

    channels  how many are decoded; the encoder takes any number
    fourier   weight of ``fourier_loss``; 0.01 in the paper

    Images come in self-standardised.
    """

    def __init__(
        self, encoder: ChannelViT, channels: int, keep: float = 0.25, width: int = 32, depth: int = 1, heads: int = 4,
        fourier: float = 0.01,
    ):  # fmt: skip
        super().__init__()
        self.encoder, self.channels, self.fourier = encoder, channels, fourier
        self.place = len(encoder.single.position)
        self.tokens = channels * self.place
        self.keep = max(1, round(keep * self.tokens))
        self.into = nn.Linear(encoder.features, width)
        self.blank = nn.Parameter(0.02 * torch.randn(width))
        self.channel = nn.Parameter(0.02 * torch.randn(channels, 1, width))
        self.register_buffer("position", sincos(encoder.grid, width), persistent=False)
        self.query_norm, self.context_norm, self.mlp_norm = (nn.LayerNorm(width) for _ in range(3))
        self.cross = Attention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.decoders = nn.ModuleList(Transformer(width, depth, heads) for _ in range(channels))
        self.out = nn.Linear(width, encoder.single.embed.in_features)

    def decode(self, seen: Float[Tensor, "n v d"], kept: Int[Tensor, "n v"]) -> Float[Tensor, "n ck p"]:
        y = fill(self.into(seen), kept, self.blank, self.tokens) + (self.channel + self.position).flatten(0, 1)
        y = self.cross(self.query_norm(y), context=self.context_norm(y))  # each query for itself: all channels at once
        y = y + self.mlp(self.mlp_norm(y))
        painted = [decoder(part) for part, decoder in zip(y.split(self.place, 1), self.decoders, strict=True)]
        return self.out(torch.cat(painted, 1))

    def forward(self, x: Images, index: Tensor | None = None) -> Scalar:
        if x.shape[1] != self.channels:
            raise ValueError(f"x must have the {self.channels} channels that are decoded, got {x.shape[1]}")
        kept, hidden = random_split(len(x), self.tokens, self.keep, device=x.device)
        predicted = self.decode(self.encoder(x, kept), kept)
        loss = masked_mse(predicted, self.encoder.patches(x), _flags(hidden, self.tokens))
        if self.fourier:
            loss = loss + self.fourier * fourier_loss(self.paint(predicted).float(), x)
        return loss

    def paint(self, patches: Float[Tensor, "n ck p"]) -> Images:
        """Images (n, c, h, w) from the patches of all channels."""
        single = patches.reshape(-1, self.place, patches.shape[2])
        return unpatchify(single, self.encoder.patch, self.encoder.grid).reshape(
            len(patches), self.channels, *self._size
        )

    @property
    def _size(self) -> tuple[int, ...]:
        return tuple(g * p for g, p in zip(self.encoder.grid, self.encoder.patch, strict=True))


class PerturbationClassifier(nn.Module):
    """The weakly supervised baseline of a screen: which of its perturbations has this cell had?

    Caicedo et al. (2018): labels that come for free with every well. Afterwards the head is taken off.

    labels  the perturbation of every training image (n,)

    ``forward(x, index)`` is the cross entropy of images ``index``.
    """

    def __init__(self, encoder: ViT, labels: Int[Tensor, " n"]):
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(encoder.features, int(labels.max()) + 1)
        self.register_buffer("labels", labels, persistent=False)

    def forward(self, x: Images, index: Int[Tensor, " m"]) -> Scalar:
        return F.cross_entropy(self.head(self.encoder(x).mean(1)), self.labels[index])


# ---------------------------------------------------------------------------------------------------------------------
# Further pre-training
# ---------------------------------------------------------------------------------------------------------------------


class Further(nn.Module):
    """Going on with a pre-trained masked autoencoder on the target images.

    Lee et al. (2023), algorithm 1. Without a teacher this is plain further pre-training, which makes the teacher. With
    one, start again from the *first* weights and add ``self_distillation_loss``: the student runs twice a step, masked
    for its own loss and whole for the teacher's.

    mae      a copy of the pre-trained ``MAE``, whose encoder has a class token
    teacher  an encoder, kept frozen
    pull     weight of ½‖θ - θ₀‖² instead: the obvious way to stay near the start

    ``forward(x, index)`` is the loss.
    """

    def __init__(self, mae: MAE, teacher: ViT | None = None, pull: float = 0.0):
        super().__init__()
        self.mae, self.encoder = mae, mae.encoder
        self.teacher = None if teacher is None else copy.deepcopy(teacher).eval().requires_grad_(False)
        self.pull, self.start = pull, [p.detach().clone() for p in mae.encoder.parameters()] if pull else []

    def forward(self, x: Images, index: Tensor | None = None) -> Scalar:
        loss = self.mae(x)
        if self.teacher is not None:
            with torch.no_grad():
                wanted = self.teacher(x)[:, 0]
            loss = loss + self_distillation_loss(self.encoder(x)[:, 0], wanted)
        if self.pull:
            loss = loss + self.pull / 2 * moved(self.encoder, self.start)
        return loss


def moved(module: nn.Module, start: Sequence[Tensor]) -> Scalar:
    """‖θ - θ₀‖², the squared distance of a module's parameters from a list of earlier ones."""
    return sum((p - q.to(p.device)).square().sum() for p, q in zip(module.parameters(), start, strict=True))


def distillation_rounds(
    x: Float[Tensor, "n d"], away: Float[Tensor, " d"], time: float, rounds: int
) -> Float[Tensor, "rounds d"]:
    """w_t - w_init of a linear model after t = 0 … rounds - 1 rounds of self-distillation, in closed form.

    The mechanism that Lee et al. (2023), section 4, prove. Each round starts at w_init and follows the gradient flow of
    ½‖X w - X w_{t-1}‖²/n for ``time``, so w_t - w_init = (I - e^{-time XᵀX/n}) (w_{t-1} - w_init): every direction
    shrinks by its own factor below 1, those that the data hardly show by most.

    away  w_0 - w_init, how far the first teacher went

    Our reading: the paper's model has a masked input; a linear model's target is what the teacher predicts.
    """
    values, vectors = torch.linalg.eigh(x.T @ x / len(x))
    factor = 1 - (-time * values.clamp_min(0)).exp()
    inside = vectors.T @ away
    return torch.stack([vectors @ (factor**t * inside) for t in range(rounds)])


# ---------------------------------------------------------------------------------------------------------------------
# A microscope
# ---------------------------------------------------------------------------------------------------------------------


@dataclass
class Cells:
    """Images of perturbed cells and what made them."""

    images: Tensor  # (n, 4, size, size) float32: nucleus, cytoplasm, granules, membrane
    perturbation: Tensor  # (n,) int64, which gene was knocked out
    batch: Tensor  # (n,) int64, which plate the image comes from
    pathway: Tensor  # (perturbations,) int64: perturbations of one pathway move the same factors, in either direction


FACTORS = ("nucleus size", "elongation", "cell size", "granules", "granule size", "membrane", "eccentricity")


def cells(
    per: int, perturbations: int = 80, pathways: int = 16, batches: int = 4, size: int = 16, effect: float = 3.0,
    own: float = 0.1, turn: float = 0.5, noise: float = 0.08, seed: int = 0, draw: int = 0,
) -> Cells:  # fmt: skip
    """``per`` images of every perturbation, spread over the batches.

    A pathway is a direction in the space of seven factors of shape. A perturbation moves its cells along the direction
    of its pathway, forwards or backwards, and a little on its own; single cells scatter around that. A batch changes
    gain, offset and illumination gradient of every channel, and every cell takes up its dyes as it likes.

    effect  distance that a pathway moves its cells, in standard deviations of single cells
    own     what a perturbation does beside its pathway, a standard deviation for each factor, as a share of ``effect``
    turn    cells lie at angles up to ±turn, in radians
    noise   of the camera; a cell's brightness in a channel is about 1
    seed    of the biology: pathways and perturbations
    draw    of the images and batches: equal biology, other cells and other plates

    Raises ValueError for fewer than two pathways or fewer perturbations than pathways.
    """
    if not 2 <= pathways <= perturbations:
        raise ValueError(f"pathways must be between 2 and the {perturbations} perturbations, got {pathways}")
    g = torch.Generator().manual_seed(7919 * seed + 1)
    f = len(FACTORS)
    pathway = torch.arange(perturbations) % pathways
    direction = F.normalize(torch.randn(pathways, f, generator=g), dim=1)[pathway]
    sign = 1 - 2.0 * torch.randint(2, (perturbations, 1), generator=g)
    strength = 0.7 + 0.6 * torch.rand(perturbations, 1, generator=g)
    mean = effect * (sign * strength * direction + own * torch.randn(perturbations, f, generator=g))

    g = torch.Generator().manual_seed(7919 * seed + 104_729 * (draw + 1))
    n = per * perturbations
    which = torch.arange(perturbations).repeat(per)
    batch = torch.arange(per).repeat_interleave(perturbations) % batches
    z = mean[which] + torch.randn(n, f, generator=g)
    shapes = _draw_cells(z, size, turn, g)
    gain, offset = (
        (0.3 * torch.randn(batches, 4, 1, 1, generator=g)).exp(),
        0.3 * torch.rand(batches, 4, 1, 1, generator=g),
    )
    tilt = 0.25 * torch.randn(batches, 4, 2, generator=g)
    axis = torch.linspace(-1, 1, size)
    slope = 1 + tilt[..., 0, None, None] * axis[:, None] + tilt[..., 1, None, None] * axis
    stain = (0.4 * torch.randn(n, 4, 1, 1, generator=g)).exp()  # every cell takes up its dyes as it likes
    pixels = (gain * slope)[batch] * stain * shapes + offset[batch]
    pixels = pixels + noise * torch.randn(pixels.shape, generator=g)
    return Cells(pixels, which, batch, pathway)


def _draw_cells(
    z: Float[Tensor, "n f"], size: int, turn: float, g: torch.Generator
) -> Float[Tensor, "n 4 {size} {size}"]:
    """Cells with the factors z, standard deviations around the normal cell, in random orientation."""
    n, spots = len(z), 8
    nucleus, long, cell, count, grain, rim, off = (v[:, None, None] for v in (z / 2).tanh().T)  # in (-1, 1)
    axis = torch.linspace(-1, 1, size)
    place = 0.15 * torch.randn(n, 2, generator=g)
    turn = turn * (2 * torch.rand(n, generator=g) - 1)[:, None, None]
    dy, dx = axis[:, None] - place[:, 0, None, None], axis - place[:, 1, None, None]
    u, v = turn.cos() * dx + turn.sin() * dy, turn.cos() * dy - turn.sin() * dx  # along and across the cell
    stretch = (0.35 * long).exp()
    soft = 3.0 / size

    def ellipse(u, v, radius):
        return torch.sigmoid((radius - ((u / stretch) ** 2 + (v * stretch) ** 2 + 1e-6).sqrt()) / soft)

    outer = 0.65 + 0.15 * cell
    body = ellipse(u, v, outer)
    core = ellipse(u - 0.15 * (1 + off), v, 0.28 + 0.10 * nucleus)
    ring = (body * (1 - body) * 4) * (1 + 0.6 * rim)
    angle, reach = 6.2832 * torch.rand(n, spots, generator=g), torch.rand(n, spots, generator=g).sqrt()
    present = (torch.arange(spots) < 4 + 3.5 * count[:, :, 0]).float()[..., None, None]
    su, sv = reach * angle.cos() * outer[:, 0], reach * angle.sin() * outer[:, 0]
    far = (u[:, None] - su[..., None, None]) ** 2 + (v[:, None] - sv[..., None, None]) ** 2
    dots = (present * (-far / (2 * (0.10 + 0.04 * grain[:, None]) ** 2)).exp()).sum(1).clamp_max(1.5)
    return torch.stack([core, body * (1 - 0.6 * core), dots, ring], 1)


def centre_by_batch(z: Float[Tensor, "n d"], batch: Int[Tensor, " n"]) -> Float[Tensor, "n d"]:
    """Embeddings less the mean of their batch: what a plate adds to all its wells is gone."""
    groups = int(batch.max()) + 1
    count = torch.bincount(batch, minlength=groups).clamp_min(1)[:, None]
    mean = z.new_zeros(groups, z.shape[1]).index_add_(0, batch, z) / count
    return z - mean[batch]


def typical_variation(
    z: Float[Tensor, "n d"], perturbation: Int[Tensor, " n"], batch: Int[Tensor, " n"], shrink: float = 0.03
) -> Float[Tensor, "g d"]:
    """One embedding for each perturbation, in units of how much images of *one* perturbation differ.

    Typical variation normalisation (Ando et al., 2017), the batch correction of Kraus et al. (2024): centre by batch,
    take means over images, whiten by the scatter within. A direction in which cells differ anyway counts for little.

    shrink  of the scatter towards a multiple of the identity, as a share of its mean eigenvalue
    Departure: the scatter is that within all perturbations, where the paper has wells of untreated cells.
    """
    z = centre_by_batch(z.double(), batch)
    groups = int(perturbation.max()) + 1
    count = torch.bincount(perturbation, minlength=groups).clamp_min(1)[:, None]
    mean = z.new_zeros(groups, z.shape[1]).index_add_(0, perturbation, z) / count
    inside = z - mean[perturbation]
    values, vectors = torch.linalg.eigh(inside.T @ inside / len(z))
    return (mean @ vectors) / (values.clamp_min(0) + shrink * values.mean() + 1e-12).sqrt()


def relation_recall(z: Float[Tensor, "g d"], group: Int[Tensor, " g"], tail: float = 0.05) -> float:
    """Share of the known related pairs that lie in the two tails of all pairs' cosine similarity.

    Kraus et al. (2024). A pair is related if both belong to one group; it is found if its similarity is among the
    highest or the lowest ``tail`` of all pairs: two genes of a pathway may act in opposite directions. Embeddings that
    know nothing find 2 · tail.

    z     one embedding for each gene, its mean over images, corrected for batches
    tail  in (0, 0.5)

    Raises ValueError for a tail out of range and for groups without a related pair.
    """
    check_matrix("z", z, rows=3)
    if not 0 < tail < 0.5:
        raise ValueError(f"tail must be in (0, 0.5), got {tail}")
    z = F.normalize(z.double(), dim=1)
    row, column = torch.triu_indices(len(z), len(z), 1, device=z.device)
    similarity, related = (z[row] * z[column]).sum(1), group[row] == group[column]
    if not bool(related.any()):
        raise ValueError("group has no two rows in common: there is nothing to recall")
    rank = similarity.argsort().argsort()
    size = round(tail * len(rank))
    found = (rank < size) | (rank >= len(rank) - size)
    return float((found & related).sum() / related.sum())
