"""Speech-like signals with known phones and speakers, for CPC: the source, its batches, and linear probes."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...data import mixed_seed
from ...evaluate import linear_probe

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
