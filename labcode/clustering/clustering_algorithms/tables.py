"""The chapter's data: scikit-learn's tables, digits as principal components, and Gaussians of known shape."""

import json
from functools import lru_cache
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...data.batches import mixed_seed


def draws(*numbers: int) -> torch.Generator:
    """A generator from several numbers."""
    return torch.Generator().manual_seed(mixed_seed(*numbers))


@lru_cache(8)
def _whole(name: str) -> tuple[Tensor, Tensor]:
    from sklearn import datasets

    load = {"iris": datasets.load_iris, "wine": datasets.load_wine, "breast cancer": datasets.load_breast_cancer}[name]
    x, y = load(return_X_y=True)
    x = x[:, :10] if name == "breast cancer" else x  # the means of ten measurements; errors and extremes repeat them
    return torch.from_numpy(x), torch.from_numpy(y).long()


def table(name: str, seed: int, n: int | None = None) -> tuple[Float[Tensor, "n d"], Int[Tensor, " n"]]:
    """Rows of "iris", "wine" or "breast cancer", in an order of the seed, columns standardised; classes.

    n  how many rows; default four fifths of them, so that seeds differ. Raises ValueError for an unknown name.
    """
    if name not in ("iris", "wine", "breast cancer"):
        raise ValueError(f"name must be 'iris', 'wine' or 'breast cancer', got {name!r}")
    x, y = _whole(name)
    rows = torch.randperm(len(x), generator=draws(1, seed))[: n or 4 * len(x) // 5]
    x = x[rows]
    return (x - x.mean(0)) / x.std(0, correction=0), y[rows]


@lru_cache(2)
def small_digits() -> tuple[Tensor, Tensor]:
    """The 5,000 MNIST digits, pooled to 14×14 pixels: rows (5000, 196) in [0, 1] and classes."""
    from ...data import digits

    images, labels = digits("mnist")
    return torch.nn.functional.avg_pool2d(images[:, None], 2).flatten(1), labels


def digit_rows(
    n: int, seed: int, split: tuple[int, int], dimensions: int = 16, classes: int = 10, unit: bool = False
) -> tuple[Float[Tensor, "n d"], Int[Tensor, " n"]]:
    """Digits as their principal components, float64, and classes.

    split       first and last image that may be drawn
    classes     the first so many of the ten digits
    unit        rows of length 1; otherwise their mean variance is 1
    """
    images, labels = small_digits()
    from_, to = split
    allowed = from_ + (labels[from_:to] < classes).nonzero()[:, 0]
    rows = allowed[torch.randperm(len(allowed), generator=draws(2, seed))[:n]]
    x = images[rows].double()
    x = x - x.mean(0)
    x = x @ torch.linalg.eigh(x.T @ x)[1][:, -dimensions:]
    return (x / x.norm(dim=1, keepdim=True) if unit else x / x.var(0).mean().sqrt()), labels[rows]


def shapes(
    n: int, d: int, gap: float, seed: int
) -> tuple[Float[Tensor, "n d"], Int[Tensor, " n"], Float[Tensor, "2 d d"]]:
    """Two Gaussians of different shape: one long in half of the directions and thin in the others, one the reverse.

    gap  distance of their means. Returns rows, groups and the two covariances.
    """
    half = max(1, d // 2)
    deviation = torch.ones(2, d, dtype=torch.float64)
    deviation[0, :half], deviation[0, half:], deviation[1, :half] = 12**0.5, 0.35, 0.35
    y = torch.arange(n) % 2
    x = torch.randn(n, d, generator=draws(3, seed), dtype=torch.float64) * deviation[y]
    x = x + y[:, None] * gap / d**0.5
    return x - x.mean(0), y, torch.diag_embed(deviation.square())


def blobs(n: int, k: int, d: int, gap: float, seed: int) -> tuple[Float[Tensor, "n d"], Int[Tensor, " n"]]:
    """k round Gaussians of deviation 1 whose means are ``gap`` from the middle, in directions of the seed."""
    g = draws(4, seed)
    means = torch.nn.functional.normalize(torch.randn(k, d, generator=g, dtype=torch.float64), dim=1)
    y = torch.arange(n) % k
    return torch.randn(n, d, generator=g, dtype=torch.float64) + gap * means[y], y


def bessel_table() -> Float[Tensor, "n 6"]:
    """Columns v, x, log I, x·(log I)', log K, x·(log K)': 60 points, 40 digits of mpmath rounded to float64."""
    file = Path(__file__).with_name("log_bessel.json")
    return torch.tensor(json.loads(file.read_text(encoding="utf-8")), dtype=torch.float64)
