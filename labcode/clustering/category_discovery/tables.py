"""The chapter's tables: two of digits, and one whose directions are known. All columns are standardised."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor

from ...data import digits
from .protocol import Problem, discovery_problem


def standardised(x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Columns with mean 0 and standard deviation 1; constant ones are left out."""
    spread = x.std(0)
    kept = spread > 1e-6
    return (x[:, kept] - x[:, kept].mean(0)) / spread[kept]


def planted_table(
    classes: int = 10,
    each: int = 60,
    angle: float = 0.0,
    old: int = 5,
    *,
    generator: Generator,
    signal: int = 6,
    nuisance: int = 8,
    apart: float = 3.0,
    loud: float = 3.0,
) -> tuple[Float[Tensor, "n d"], Int[Tensor, " n"]]:
    """A table whose old classes differ in some directions and its new ones at an ``angle`` to them, in degrees.

    Means of old classes are normal draws of size ``apart`` in the first ``signal`` directions, those of new classes in
    directions turned by the angle into the next ``signal``; ``nuisance`` directions have standard deviation ``loud``
    and tell nothing, all others 1. The whole is turned at random.

    angle  0: what tells the old apart tells the new apart; 90: something else does
    """
    d = 2 * signal + nuisance
    y = torch.arange(classes).repeat(each)
    means = torch.zeros(classes, d)
    draw = apart * torch.randn(classes, signal, generator=generator) / signal**0.5 * 1.5
    means[:old, :signal] = draw[:old]
    turn = math.radians(angle)
    means[old:, :signal], means[old:, signal : 2 * signal] = math.cos(turn) * draw[old:], math.sin(turn) * draw[old:]
    spread = torch.ones(d)
    spread[2 * signal :] = loud
    x = means[y] + spread * torch.randn(len(y), d, generator=generator)
    turned, _ = torch.linalg.qr(torch.randn(d, d, generator=generator))
    return x @ turned, y


def profiles(images: Float[Tensor, "n h w"]) -> Float[Tensor, "n d"]:
    """A table of pictures, in the manner of Multiple Features: sums of rows and of columns, means of 4 × 4 zones."""
    zones = F.adaptive_avg_pool2d(images[:, None], 4).flatten(1)
    return torch.cat([images.sum(1), images.sum(2), 10 * zones], 1)


def planted_problem(seed: int, angle: float = 0.0, share: float = 1.0, each: int = 70) -> Problem:
    """A planted table, its first five classes old."""
    g = torch.Generator().manual_seed(seed)
    x, y = planted_table(each=each, angle=angle, generator=g)
    return discovery_problem(standardised(x), y, list(range(5)), share=share, generator=g)


def pixel_problem(seed: int, tuning: bool = False, rows: int = 700, share: float = 1.0) -> Problem:
    """Handwritten digits of 8×8 pixels as a table, Optdigits' test part, with five classes drawn to be old.

    tuning  rows come from another part of the data
    share   of the old classes' rows that are labelled
    """
    g = torch.Generator().manual_seed(seed)
    x, y = (part[:800] if tuning else part[800:] for part in digits("optdigits"))
    at = torch.randperm(len(x), generator=g)[:rows]
    old = torch.randperm(10, generator=g)[:5].tolist()
    return discovery_problem(standardised(x[at].flatten(1)), y[at], old, share=share, generator=g)


def profile_problem(seed: int, tuning: bool = False, rows: int = 700) -> Problem:
    """MNIST digits by their ``profiles``, with five classes drawn to be old."""
    g = torch.Generator().manual_seed(seed)
    images, y = (part[:2000] if tuning else part[2000:4000] for part in digits("mnist"))
    at = torch.randperm(2000, generator=g)[:rows]
    old = torch.randperm(10, generator=g)[:5].tolist()
    return discovery_problem(standardised(profiles(images[at])), y[at], old, share=1.0, generator=g)
