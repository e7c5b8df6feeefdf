"""Contrastive predictive coding: summarise what was seen, and recognise what comes next among other things.

Two domains share one loss, ``info_nce``: a synthetic speech-like signal with known phones and speakers, and images cut
into a grid of overlapping patches. At the end the generative rivals of the chapter's last section.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Generator, Tensor, nn

from ..augment import _repeat, noise, to_float, warp
from ..augment import colour_rotation as _colour_rotation
from ..data import mixed_seed
from ..evaluate import linear_probe
from ..loss import check_matrix, check_positive, float32

Patches = Float[Tensor, "n rows cols c p p"]

# ---------------------------------------------------------------------------------------------------------------------
# The loss, and what it says about mutual information
# ---------------------------------------------------------------------------------------------------------------------


@float32
def info_nce(predicted: Float[Tensor, "*pools n d"], target: Float[Tensor, "*pools n d"]) -> Float[Tensor, ""]:
    """Cross entropy of finding each prediction's own target among the n targets of its pool.

    CPC (van den Oord et al., 2018), eq. 4, with the score f_k = exp(z_{t+k}ᵀ W_k c_t) of eq. 3: ``predicted`` holds
    W_k c_t and ``target`` z_{t+k}, row by row. No temperature and no normalisation; the gradient reaches both sides.

    predicted, target  one pool (n, d), or several (…, n, d) that do not see each other; n >= 2

    Raises ValueError for shapes that differ, a pool of fewer than two rows, and on the CPU for NaN or infinity.
    """
    if predicted.ndim > 2:
        if predicted.shape != target.shape:
            raise ValueError(f"target must be like predicted, {tuple(predicted.shape)}, got {tuple(target.shape)}")
        if predicted.shape[-2] < 2:
            raise ValueError(f"predicted must have at least 2 rows in a pool, got {predicted.shape[-2]}")
        check_matrix("predicted", predicted.flatten(0, -2), rows=2)
        check_matrix("target", target.flatten(0, -2), rows=2)
    else:
        check_matrix("predicted", predicted, rows=2)
        check_matrix("target", target, rows=2, like=predicted)
    scores = predicted @ target.mT
    return (scores.logsumexp(-1) - scores.diagonal(dim1=-2, dim2=-1)).mean()


def mi_bound(predicted: Float[Tensor, "*pools n d"], target: Float[Tensor, "*pools n d"]) -> Float[Tensor, ""]:
    """log n - InfoNCE, in nats: the estimate of a lower bound of I(x_{t+k}; c_t). CPC, section 2.3.

    It cannot exceed log n, whatever the true information is: the score of the positive is part of the sum.
    """
    return math.log(predicted.shape[-2]) - info_nce(predicted, target)


def gaussian_mi(rho: float, dims: int) -> float:
    """I(x; y) in nats of ``dims`` pairs of unit Gaussians with correlation rho: -dims/2 · log(1 - rho²).

    Raises ValueError for rho outside (-1, 1).
    """
    if not -1 < rho < 1:
        raise ValueError(f"rho must be in (-1, 1), got {rho}")
    return -dims / 2 * math.log1p(-rho * rho)


def gaussian_bound(rho: float, candidates: int, dims: int = 4, pairs: int = 4096, seed: int = 0) -> float:
    """The bound log N - L that CPC's bilinear score reaches on correlated Gaussians, in nats.

    c = (x, 1) and z = (y, y²), so that zᵀ W c can express the true density ratio. W is fitted on half of the pairs
    (a convex problem) and the bound is taken on the other half: on the pairs it was fitted to it can exceed the truth.

    candidates  N, the positive and N - 1 negatives; divides ``pairs``

    Raises ValueError for rho outside (-1, 1) and for candidates that do not divide ``pairs`` or are below 2.
    """
    gaussian_mi(rho, dims)
    if candidates < 2 or pairs % candidates:
        raise ValueError(f"candidates must be at least 2 and divide the {pairs} pairs, got {candidates}")
    g = torch.Generator().manual_seed(seed)
    x, e = torch.randn(2, 2 * pairs, dims, generator=g)
    y = rho * x + math.sqrt(1 - rho * rho) * e
    c = torch.cat([x, torch.ones(len(x), 1)], 1).view(2, -1, candidates, dims + 1)
    z = torch.cat([y, y * y], 1).view(2, -1, candidates, 2 * dims)
    w = torch.zeros(dims + 1, 2 * dims, requires_grad=True)
    solver = torch.optim.LBFGS([w], max_iter=60, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        value = info_nce(c[0] @ w, z[0])
        value.backward()
        return value

    solver.step(loss)
    return float(mi_bound(c[1] @ w.detach(), z[1]))


# ---------------------------------------------------------------------------------------------------------------------
# A sequence: speech-like signals
# ---------------------------------------------------------------------------------------------------------------------

FRAME = 32  # samples
SPEAKERS, PHONES = 8, 6


@dataclass(frozen=True)
class Speech:
    """Signals and what made them."""

    signal: Float[Tensor, "n samples"]
    phones: Int[Tensor, "n frames"]  # 0 … PHONES - 1, one a frame
    speakers: Int[Tensor, "n"]  # 0 … SPEAKERS - 1, balanced: row i has speaker i mod SPEAKERS
    source: str = "synthetic speech"

    def to(self, device) -> "Speech":
        return Speech(self.signal.to(device), self.phones.to(device), self.speakers.to(device), self.source)


def speech(
    n: int, frames: int = 40, seed: int = 0, stay: float = 0.9, jitter: float = 1.2, grain: float = 0.8,
    hiss: float = 0.7, device="cpu",
) -> Speech:  # fmt: skip
    """n signals of a source-filter model: 15 harmonics whose strengths are the phone's filter times the speaker's.

    frames    length in frames of 32 samples
    stay      probability that the next frame has the same phone: 0.9 gives ten frames on average
    jitter    standard deviation of each harmonic's phase step from frame to frame, in radians: the wave itself can be
              predicted one frame ahead, and hardly eight
    grain     standard deviation of every harmonic's log strength in every frame: one frame alone is ambiguous
    hiss      standard deviation of the white noise; the harmonics together have about 1

    The voices are the same for every seed, so a training and a test set share phones and speakers and nothing else.

    Raises ValueError for n or frames below 1 and for stay outside [0, 1].
    """
    if n < 1 or frames < 1:
        raise ValueError(f"n and frames must be at least 1, got {n} and {frames}")
    if not 0 <= stay <= 1:
        raise ValueError(f"stay must be a probability in [0, 1], got {stay}")
    filters, timbres = _voices()
    g = torch.Generator().manual_seed(seed)
    harmonics = filters.shape[1]
    speakers = torch.arange(n) % SPEAKERS
    jumps = torch.randint(1, PHONES, (n, frames), generator=g) * (torch.rand(n, frames, generator=g) >= stay)
    phones = (torch.randint(PHONES, (n, 1), generator=g) + jumps.cumsum(1)) % PHONES
    start = 2 * math.pi * torch.rand(n, 1, harmonics, generator=g)
    phase = start + (jitter * torch.randn(n, frames, harmonics, generator=g)).cumsum(1)
    strength = filters[phones] + timbres[speakers][:, None] + grain * torch.randn(n, frames, harmonics, generator=g)
    at = 2 * math.pi * torch.arange(FRAME) / FRAME * torch.arange(1, harmonics + 1)[:, None]  # (harmonics, FRAME)
    strength = strength.exp()
    wave = (strength * phase.cos()) @ at.cos() - (strength * phase.sin()) @ at.sin()
    wave = wave + hiss * torch.randn(wave.shape, generator=g)
    return Speech(wave.flatten(1).to(device), phones.to(device), speakers.to(device))


def _voices() -> tuple[Float[Tensor, "phones h"], Float[Tensor, "speakers h"]]:
    """Log strengths of the harmonics: two formants a phone, a smooth timbre a speaker."""
    g = torch.Generator().manual_seed(2018)
    h = torch.arange(1, FRAME // 2, dtype=torch.float32)
    first, second = torch.tensor([2.0, 3.5, 5.0]), torch.tensor([9.0, 12.5])
    formants = torch.cartesian_prod(first, second)  # (PHONES, 2)
    filters = (2.5 * torch.exp(-((h - formants[..., None]) ** 2) / 3)).sum(1) - 2.2
    bend = torch.randn(SPEAKERS, 4, generator=g)
    waves = torch.stack([torch.cos(math.pi * k * h / len(h)) for k in range(1, 5)])
    return filters, 0.4 * bend @ waves


def log_spectrum(signal: Float[Tensor, "n samples"]) -> Float[Tensor, "n frames h"]:
    """Log power of every frame's 15 harmonics: the hand-made features in the place of the paper's MFCC."""
    power = torch.fft.rfft(signal.unflatten(1, (-1, FRAME)))[..., 1:-1].abs().square()
    return (power + 1e-3).log()


def pools(n: int, same: bool, size: int = 4, seed: int = 0, device="cpu") -> Callable[[int], Int[Tensor, " batch"]]:
    """Batches of SPEAKERS · size sequences, as ``step -> indices``, in which each ``size`` rows share their negatives.

    same  the rows of a pool have one speaker; else each has another. Both arms see the same sequences at every step:
          only who meets whom differs.
    n     number of balanced sequences (``speech``), a multiple of SPEAKERS

    Raises ValueError for an n that is no multiple of SPEAKERS or too small, and a size that does not divide SPEAKERS.
    """
    if n % SPEAKERS or n < SPEAKERS * size:
        raise ValueError(f"n must be a multiple of {SPEAKERS}, at least {SPEAKERS * size}, got {n}")
    if size < 1 or SPEAKERS % size:
        raise ValueError(f"size must divide {SPEAKERS}, got {size}")

    def batch(step: int) -> Tensor:
        g = torch.Generator().manual_seed(mixed_seed(seed, step))
        rank = torch.rand(SPEAKERS, n // SPEAKERS, generator=g).argsort(1)[:, :size]
        index = torch.arange(SPEAKERS)[:, None] + SPEAKERS * rank
        index = index if same else index.T
        return index.flatten().to(device)

    return batch


class SpeechEncoder(nn.Module):
    """g_enc and g_ar: strided convolutions to one z_t a frame, and a GRU to the context c_t."""

    def __init__(self, dim: int = 64):
        super().__init__()
        self.features = dim
        self.enc = nn.Sequential(nn.Conv1d(1, 2 * dim, FRAME, stride=FRAME), nn.ReLU(), nn.Conv1d(2 * dim, dim, 1))
        self.ar = nn.GRU(dim, dim, batch_first=True)

    def forward(self, signal: Float[Tensor, "n samples"]) -> Float[Tensor, "n frames d"]:
        """The contexts c_t, t = 0 … frames - 1; c_t has seen the frames up to t."""
        return self.ar(self.latents(signal))[0]

    def latents(self, signal: Float[Tensor, "n samples"]) -> Float[Tensor, "n frames d"]:
        return self.enc(signal[:, None] / 2).mT


class SpeechCPC(nn.Module):
    """CPC on a sequence: from c_t, one linear map W_k for each of the next K frames. CPC, eq. 3 and 4.

    horizon  K: the loss is averaged over k = 1 … K
    pool     sequences, neighbours in the batch, that give each other negatives
    reach    frames kept free at the end, so that all horizons up to it train on the same contexts
    every    every which frame is a context, after the first eight

    Negatives of a frame: the frames k later than the other contexts of its own and its pool's sequences. The paper
    draws them at random; its windows are far longer than ours, and its frames are 10 ms.
    """

    def __init__(self, encoder: SpeechEncoder, horizon: int = 8, pool: int = 4, reach: int = 8, every: int = 3):
        super().__init__()
        if not 1 <= horizon <= reach:
            raise ValueError(f"horizon must be between 1 and reach = {reach}, got {horizon}")
        d = encoder.features
        self.encoder, self.pool, self.reach, self.every = encoder, pool, reach, every
        self.W = nn.Parameter(torch.randn(horizon, d, d) / d)

    def forward(self, signal: Float[Tensor, "n samples"], index: Int[Tensor, " n"]) -> Float[Tensor, ""]:
        if len(signal) % self.pool:
            raise ValueError(f"signal must have a multiple of {self.pool} rows, got {len(signal)}")
        z = self.encoder.latents(signal)
        c = self.encoder.ar(z)[0]
        t = torch.arange(8, z.shape[1] - self.reach, self.every, device=z.device)
        k = torch.arange(1, len(self.W) + 1, device=z.device)
        predicted = torch.einsum("ntd,kde->knte", c[:, t], self.W)
        target = z[:, t + k[:, None]].transpose(0, 1)
        pooled = (len(self.W), len(signal) // self.pool, -1, z.shape[2])
        return info_nce(predicted.reshape(pooled), target.reshape(pooled))


@torch.no_grad()
def speech_probe(
    features: Callable[[Tensor], Tensor], train: Speech, test: Speech, n: int = 256
) -> tuple[float, float]:
    """Test accuracies (phone, speaker) of linear probes on one frame's features, signal (n, samples) -> (n, frames, d).

    n  training sequences used; every fifth frame after the first eight is a row. One fixed regulariser for all arms.
    """

    def rows(part: Speech) -> tuple[Tensor, Tensor, Tensor]:
        z = features(part.signal)[:, 8::5]
        phones = part.phones[:, 8::5]
        speakers = part.speakers[:, None].expand_as(phones)
        return z.flatten(0, 1), phones.flatten(), speakers.flatten()

    train = Speech(train.signal[:n], train.phones[:n], train.speakers[:n])
    (z, *y), (test_z, *test_y) = rows(train), rows(test)
    return tuple(linear_probe(z, y[i], test_z, test_y[i], l2=(0.01,)).accuracy for i in (0, 1))


# ---------------------------------------------------------------------------------------------------------------------
# Images: a grid of patches
# ---------------------------------------------------------------------------------------------------------------------


def patches(x: Shaped[Tensor, "n c h w"], size: int, stride: int) -> Patches:
    """The image cut into overlapping squares, rows by columns; a uint8 image becomes float in [0, 1].

    CPC v2 (Hénaff et al., 2020), section 2.1. 7 × 7 for 16 pixels with size 4 and stride 2, and for 32 with 8 and 4.

    Raises ValueError unless 1 <= stride and size fits into the image.
    """
    x = to_float(x)
    if not (1 <= stride and 1 <= size <= min(x.shape[2:])):
        raise ValueError(f"size and stride must fit an image {tuple(x.shape[2:])}, got {size} and {stride}")
    return x.unfold(2, size, stride).unfold(3, size, stride).permute(0, 2, 3, 1, 4, 5)


def drop_colours(x: Float[Tensor, "n 3 h w"], p: float = 0.5, *, generator: Generator) -> Float[Tensor, "n 3 h w"]:
    """Two of the three colour channels, drawn for each row, blanked to mid-grey with probability p. CPC v2, sec. 3.1.

    Departure: not in every patch, so that the encoder also meets the full colour that a test shows it.
    """
    keep = torch.randint(3, (len(x), 1, 1, 1), generator=generator, device=x.device)
    kept = (keep == torch.arange(3, device=x.device).view(1, 3, 1, 1)) | (
        torch.rand(len(x), 1, 1, 1, generator=generator, device=x.device) >= p
    )
    return torch.where(kept, x, 0.5)


def patch_views(
    size: int = 4, stride: int = 2, drop: bool = True, turn: bool = True
) -> Callable[..., Float[Tensor, "n rows cols c p p"]]:
    """A view maker for ``Stage.pretrain``: the patch grid of each image, every patch augmented by its own draw.

    drop  two of three colours dropped (``drop_colours``)
    turn  colours turned about the patch's mean and the mean redrawn, the scenes' photometric view, in the
          place of the paper's longer list
    """

    def views(x: Tensor, generator: Generator) -> Tensor:
        grid = patches(x, size, stride)
        flat = grid.reshape(-1, *grid.shape[3:])
        if turn:
            flat = _colour_rotation(flat, generator=generator)
        if drop:
            flat = drop_colours(flat, generator=generator)
        return flat.view(grid.shape)

    return views


class PatchEncoder(nn.Module):
    """g_enc on every patch alone: (n, rows, cols, c, p, p) -> (n, rows, cols, dim).

    norm   "layer": of one patch, as in v2; "batch": over all patches of the batch, as in v1
    depth  residual layers after the first
    pool   side of the grid of averages that ``forward(images)`` returns, ``features`` = pool² · dim wide

    Departure: layers on the patch's pixels in the place of a ResNet. A linear layer on a 4 × 4 patch is a convolution
    that has seen all of it.
    """

    def __init__(
        self, size: int = 4, stride: int = 2, width: int = 96, dim: int = 48, norm: str = "layer", depth: int = 1,
        pool: int = 3,
    ):  # fmt: skip
        super().__init__()
        if norm not in ("layer", "batch"):
            raise ValueError(f"norm must be 'layer' or 'batch', got {norm!r}")
        make = nn.LayerNorm if norm == "layer" else nn.BatchNorm1d
        self.size, self.stride, self.dim, self.pool, self.features = size, stride, dim, pool, pool**2 * dim
        self.first = nn.Sequential(nn.Linear(3 * size * size, width), make(width), nn.GELU())
        self.rest = nn.ModuleList(nn.Sequential(nn.Linear(width, width), make(width), nn.GELU()) for _ in range(depth))
        self.last = nn.Linear(width, dim)

    def grid(self, patches: Patches) -> Float[Tensor, "n rows cols d"]:
        h = self.first(patches.flatten(3).flatten(0, 2) - 0.5)
        for layer in self.rest:
            h = h + layer(h)
        return self.last(h).view(*patches.shape[:3], self.dim)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        z = self.grid(patches(x, self.size, self.stride)).permute(0, 3, 1, 2)
        return F.adaptive_avg_pool2d(z, self.pool).flatten(1)


class MaskedContext(nn.Module):
    """g_ar on a grid: convolutions that see their own row and those above, never below: (n, d, rows, cols) -> same."""

    def __init__(self, dim: int, layers: int = 2):
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(dim, dim, (2, 3)) for _ in range(layers))

    def forward(self, z: Float[Tensor, "n d rows cols"]) -> Float[Tensor, "n d rows cols"]:
        c = z
        for layer in self.layers:
            c = c + F.gelu(layer(F.pad(c, (1, 1, 1, 0))))
        return c


class PatchCPC(nn.Module):
    """CPC on images: the context of row i predicts the patches k rows further. CPC, section 3.2; CPC v2, eq. 1.

    directions  1: downwards; 2: and upwards; 4: and to both sides, each with its own context network and W_k
    ahead       the k; with a stride of half a patch, k = 1 shares half its pixels with row i, k = 2 none
    pool        images, neighbours in the batch, that give each other negatives, from all positions
    layers      of the context network

    A batch that is no multiple of ``pool`` makes one pool of all. W_k starts as I/√d: from a small random matrix the
    loss stays on its plateau, log of the pool's size, longer.
    """

    def __init__(
        self, encoder: PatchEncoder, directions: int = 4, ahead: tuple[int, ...] = (1, 2), pool: int = 8,
        layers: int = 1,
    ):  # fmt: skip
        super().__init__()
        if directions not in (1, 2, 4):
            raise ValueError(f"directions must be 1, 2 or 4, got {directions}")
        d = encoder.dim
        self.encoder, self.ahead, self.pool = encoder, ahead, pool
        self.turns = {1: (0,), 2: (0, 2), 4: (0, 1, 2, 3)}[directions]  # quarter turns of the grid
        self.contexts = nn.ModuleList(MaskedContext(d, layers) for _ in self.turns)
        self.W = nn.Parameter(torch.eye(d).repeat(directions, len(ahead), 1, 1) / math.sqrt(d))

    def forward(self, views: Patches, index: Int[Tensor, " n"]) -> Float[Tensor, ""]:
        z = self.encoder.grid(views).permute(0, 3, 1, 2)
        pools = len(z) // self.pool if len(z) % self.pool == 0 else 1
        losses = []
        for turn, context, maps in zip(self.turns, self.contexts, self.W, strict=True):
            turned = torch.rot90(z, turn, (2, 3))
            c = context(turned).permute(0, 2, 3, 1)
            turned = turned.permute(0, 2, 3, 1)
            for k, W in zip(self.ahead, maps, strict=True):
                predicted, target = c[:, :-k] @ W, turned[:, k:]
                losses.append(info_nce(*(t.reshape(pools, -1, t.shape[-1]) for t in (predicted, target))))
        return torch.stack(losses).mean()


class LabelledPatches(nn.Module):
    """The rival without pretraining: the same patch encoder and a linear head, trained on a few labels.

    labels  of the rows of the images given to ``Stage.pretrain``
    """

    def __init__(self, encoder: PatchEncoder, labels: Int[Tensor, " n"], classes: int):
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(encoder.features, classes)
        self.register_buffer("labels", labels, persistent=False)

    def forward(self, views: Patches, index: Int[Tensor, " n"]) -> Float[Tensor, ""]:
        z = self.encoder.grid(views).permute(0, 3, 1, 2)
        z = F.adaptive_avg_pool2d(z, self.encoder.pool).flatten(1)
        return F.cross_entropy(self.head(z), self.labels[index])


# ---------------------------------------------------------------------------------------------------------------------
# The generative rivals
# ---------------------------------------------------------------------------------------------------------------------


def noisy_views(std: float = 0.1) -> Callable[..., Float[Tensor, "two_n c h w"]]:
    """A view maker for the autoencoders: rows i with Gaussian noise of standard deviation std, rows i + n clean."""

    def views(x: Tensor, generator: Generator) -> Tensor:
        x = to_float(x)
        return torch.cat([noise(x, std, generator=generator), x])

    return views


def colour_keeping_views(x: Shaped[Tensor, "n 3 h w"], generator: Generator) -> Float[Tensor, "two_n 3 h w"]:
    """``augment.scene_views`` without its colours: the same little geometry and noise, twice."""
    x = _repeat(x, 2)
    away = torch.rand(len(x), 2, 3, generator=generator, device=x.device) * 0.1 - 0.05
    return noise(warp(x, torch.eye(2, 3, device=x.device) + away, "reflection"), 0.02, generator=generator)


class Decoder(nn.Module):
    """Features (n, d) -> images (n, 3, size, size), by two transposed convolutions of stride 2."""

    def __init__(self, features: int, size: int, width: int = 64):
        super().__init__()
        self.side = size // 4
        self.first = nn.Linear(features, width * self.side**2)
        self.body = nn.Sequential(
            nn.GELU(), nn.ConvTranspose2d(width, width // 2, 2, stride=2),
            nn.GELU(), nn.ConvTranspose2d(width // 2, 3, 4, stride=2, padding=1),
        )  # fmt: skip

    def forward(self, h: Float[Tensor, "n d"]) -> Float[Tensor, "n 3 size size"]:
        return 0.5 + self.body(self.first(h).unflatten(1, (-1, self.side, self.side)))


class DenoisingAutoencoder(nn.Module):
    """Reconstruct the clean image from a noisy one (Vincent et al., 2008): squared error, summed over the pixels."""

    def __init__(self, encoder: nn.Module, size: int = 8):
        super().__init__()
        self.encoder, self.decoder = encoder, Decoder(encoder.features, size)

    def forward(self, views: Float[Tensor, "two_n c h w"], index: Int[Tensor, " n"]) -> Float[Tensor, ""]:
        noisy, clean = views.chunk(2)
        return (self.decoder(self.encoder(noisy)) - clean).float().square().sum((1, 2, 3)).mean()


@float32
def negative_elbo(
    x: Float[Tensor, "n c h w"], decoded: Float[Tensor, "n c h w"], mean: Float[Tensor, "n d"],
    log_var: Float[Tensor, "n d"], sigma: float = 0.1,
) -> Float[Tensor, ""]:  # fmt: skip
    """‖x - decoded‖² / 2σ² + KL(N(mean, exp log_var) ‖ N(0, 1)), a mean over images: VAE (Kingma and Welling), eq. 10.

    sigma  standard deviation > 0 of the pixels around the decoder's output; the constant of the Gaussian is left out

    Raises ValueError for matrices that do not fit together and sigma <= 0.
    """
    if x.ndim != 4 or decoded.shape != x.shape:
        raise ValueError(f"decoded must be like the images x, {tuple(x.shape)}, got {tuple(decoded.shape)}")
    check_matrix("x", x.flatten(1), rows=1)
    check_matrix("mean", mean, rows=1)
    check_matrix("log_var", log_var, rows=1, like=mean)
    if len(mean) != len(x):
        raise ValueError(f"mean must have one row for each of the {len(x)} images x, got {len(mean)}")
    check_positive(sigma=sigma)
    misfit = (x - decoded).square().flatten(1).sum(1) / (2 * sigma**2)
    kl = 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum(1)
    return (misfit + kl).mean()


class VAE(nn.Module):
    """Variational autoencoder with a Gaussian code of ``dim`` numbers on top of the encoder's features.

    It reads the clean half of the views. ``sigma`` as in ``negative_elbo``.
    """

    def __init__(self, encoder: nn.Module, size: int = 8, dim: int = 64, sigma: float = 0.1):
        super().__init__()
        self.encoder, self.decoder, self.sigma = encoder, Decoder(dim, size), sigma
        self.code = nn.Linear(encoder.features, 2 * dim)

    def forward(self, views: Float[Tensor, "two_n c h w"], index: Int[Tensor, " n"]) -> Float[Tensor, ""]:
        x = views.chunk(2)[1]
        mean, log_var = self.code(self.encoder(x)).float().chunk(2, dim=1)
        z = mean + (0.5 * log_var).exp() * torch.randn_like(mean)
        return negative_elbo(x, self.decoder(z), mean, log_var, self.sigma)


@torch.no_grad()
def neighbour_r2(train_z: Tensor, train_t: Tensor, test_z: Tensor, test_t: Tensor, k: int = 20) -> float:
    """R² of predicting factors (n, t) by the mean of the k nearest training rows by cosine, averaged over the factors.

    What a representation puts near each other, where ``evaluate.ridge_r2`` asks what could be read from it at all.

    Raises ValueError for k outside 1 … training rows and for factors that do not pair with their rows.
    """
    check_matrix("train_z", train_z, rows=1)
    check_matrix("test_z", test_z, rows=1)
    if len(train_t) != len(train_z) or len(test_t) != len(test_z):
        raise ValueError(f"train_t and test_t must pair with {len(train_z)} and {len(test_z)} rows, "
                         f"got {len(train_t)} and {len(test_t)}")  # fmt: skip
    if not 1 <= k <= len(train_z):
        raise ValueError(f"k must be between 1 and the {len(train_z)} training rows, got {k}")
    train_z, test_z = F.normalize(train_z, dim=1), F.normalize(test_z, dim=1)
    guess = torch.cat([train_t[(z @ train_z.T).topk(k, dim=1, sorted=False)[1]].mean(1) for z in test_z.split(4096)])
    rest = (test_t - guess).square().sum(0) / (test_t - test_t.mean(0)).square().sum(0)
    return float(1 - rest.mean())


def picture_factors(images: Shaped[Tensor, "n 3 h w"]) -> Float[Tensor, "n 4"]:
    """The nuisances of any image: its mean red, green and blue, and its contrast (standard deviation of the grey)."""
    x = to_float(images)
    return torch.cat([x.mean((2, 3)), x.mean(1).std((1, 2))[:, None]], 1)
