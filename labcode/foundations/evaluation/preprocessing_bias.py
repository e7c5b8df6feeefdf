"""Preprocessing before the folds are cut biases cross-validation, even where it sees no label.

Moscovich and Rosset, "On the cross-validation bias due to unsupervised pre-processing": all simulations as batches of
repetitions.
"""

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor

from ...data.batches import mixed_seed
from ...data.synthetic import _installed
from ...loss import check_finite

Batch = Float[Tensor, "r n p"]  # r repetitions of n samples with p features
Transform = Callable[[Batch], Batch]
Preprocess = Callable[[Batch], Transform]
Predict = Callable[[Batch], Float[Tensor, "r n"]]
Learn = Callable[[Batch, Float[Tensor, "r n"]], Predict]


def student(shape: tuple[int, ...], df: int, *, generator: Generator) -> Tensor:
    """Student's t with an even number of degrees of freedom; 0 stands for infinitely many, the Gaussian.

    z √(df / χ²), where χ² of an even df is a sum of exponentials. Raises ValueError for a negative or odd df.
    """
    if df < 0 or df % 2:
        raise ValueError(f"df must be even and at least 0, got {df}")
    z = torch.randn(shape, generator=generator)
    if not df:
        return z
    chi2 = sum(-2 * torch.rand(shape, generator=generator).clamp_(min=1e-30).log_() for _ in range(df // 2))
    return z * (df / chi2).sqrt_()


def wide_regression(
    r: int, n: int, p: int = 100, df: int = 4, strong: int = 5, factor: float = 5.0, *, generator: Generator
) -> tuple[Batch, Float[Tensor, "r n"]]:
    """Section 4's data: p independent features, the first ``strong`` ones ``factor`` times as large; y = xᵀβ + noise.

    β is standard normal, drawn anew for every repetition; the noise has the variance of xᵀβ for a Gaussian x.
    """
    x = student((r, n, p), df, generator=generator)
    x[..., :strong] *= factor
    beta = torch.randn(r, p, 1, generator=generator)
    sigma = math.sqrt(strong * factor**2 + p - strong)
    return x, (x @ beta)[..., 0] + sigma * torch.randn(r, n, generator=generator)


def categories(
    r: int, n: int, c: int = 20, sigma: float = 0.25, *, generator: Generator
) -> tuple[Batch, Float[Tensor, "r n"]]:
    """Data of the example on rare categories: one of c, as one-hot rows; y = μ_category + σ noise, μ ~ N(0, 1)."""
    mu, which = torch.randn(r, c, generator=generator), torch.randint(c, (r, n), generator=generator)
    y = mu.gather(1, which) + sigma * torch.randn(r, n, generator=generator)
    return F.one_hot(which, c).float(), y


def narrow_regression(
    r: int, n: int, p: int = 5, sigma: float = 0.0, *, generator: Generator
) -> tuple[Batch, Float[Tensor, "r n"]]:
    """Data of the example on rescaling: x ~ N(0, I/p), y = xᵀv + σ noise with v ~ N(0, I)."""
    x = torch.randn(r, n, p, generator=generator) / math.sqrt(p)
    v = torch.randn(r, p, 1, generator=generator)
    return x, (x @ v)[..., 0] + sigma * torch.randn(r, n, generator=generator)


def drawn_from(x: Float[Tensor, "m p"], y: Float[Tensor, " m"]) -> Callable[..., tuple[Batch, Float[Tensor, "r n"]]]:
    """A finite data set as a population: ``draw(r, n, generator=…)`` takes n rows without replacement.

    Raises ValueError for rows that are not finite.
    """
    check_finite(x=x, y=y)

    def draw(r: int, n: int, *, generator: Generator):
        index = torch.rand(r, len(x), generator=generator).topk(n, 1).indices
        return x[index], y[index]

    return draw


@lru_cache(1)
def tumours() -> tuple[Float[Tensor, "569 30"], Float[Tensor, " 569"]]:
    """scikit-learn's breast cancer table: 30 measures and the diagnosis, all columns standardised over the table."""
    table = np.loadtxt(_installed("sklearn", "datasets", "data", "breast_cancer.csv"), delimiter=",", skiprows=1)
    table = torch.from_numpy((table - table.mean(0)) / table.std(0)).float()
    return table[:, :-1], table[:, -1]


def unchanged(x: Batch) -> Transform:
    """No preprocessing."""
    return lambda z: z


def variance_filter(k: int) -> Preprocess:
    """Keep the k features of largest sample variance."""

    def learn(x: Batch) -> Transform:
        index = x.var(1).topk(k, 1).indices
        return lambda z: z.gather(2, index[:, None].expand(-1, z.shape[1], -1))

    return learn


def rare_to_zero(m: int) -> Preprocess:
    """Of one-hot categories, those seen fewer than m times become one rare category, whose prediction is fixed to 0."""

    def learn(x: Batch) -> Transform:
        kept = (x.sum(1, keepdim=True) >= m).to(x.dtype)
        return lambda z: z * kept

    return learn


def unit_scale(x: Batch) -> Transform:
    """Divide each feature by the root of its mean square; means are known to be 0. A feature that is 0 stays so."""
    scale = x.square().mean(1, keepdim=True).sqrt()
    scale = torch.where(scale > 0, scale, 1)
    return lambda z: z / scale


def leading_components(k: int) -> Preprocess:
    """Project on the k leading principal components, and append a column of ones."""

    def learn(x: Batch) -> Transform:
        mean = x.mean(1, keepdim=True)
        centred = (x - mean).double()
        axes = torch.linalg.eigh(centred.mT @ centred).eigenvectors[..., -k:].to(x.dtype)
        return lambda z: torch.cat([(z - mean) @ axes, torch.ones_like(z[..., :1])], 2)

    return learn


def least_squares(x: Batch, y: Float[Tensor, "r n"]) -> Predict:
    """Ordinary least squares without an intercept; directions that x does not have get weight 0, nearly."""
    x, y = x.double(), y.double()
    moments = x.mT @ x
    ridge = 1e-9 * torch.eye(x.shape[2], dtype=x.dtype)
    weight = torch.linalg.solve(moments + ridge, x.mT @ y[..., None])
    return lambda z: (z.double() @ weight)[..., 0].to(z.dtype)


def lasso(alpha: float, sweeps: int = 20) -> Learn:
    """argmin ‖y - Xw‖² / 2n + α ‖w‖₁ by cyclic coordinate descent, no intercept; for a few features."""

    def learn(x: Batch, y: Float[Tensor, "r n"]) -> Predict:
        n = x.shape[1]
        gram, target = x.mT @ x / n, (x.mT @ y[..., None])[..., 0] / n
        weight = torch.zeros_like(target)
        for _ in range(sweeps):
            for j in range(x.shape[2]):
                left = target[:, j] - (gram[:, j] * weight).sum(1) + gram[:, j, j] * weight[:, j]
                weight[:, j] = F.softshrink(left, alpha) / torch.where(gram[:, j, j] > 0, gram[:, j, j], 1)
        return lambda z: (z @ weight[..., None])[..., 0]

    return learn


def cross_validated(
    x: Batch, y: Float[Tensor, "r n"], new_x: Float[Tensor, "r m p"], new_y: Float[Tensor, "r m"],
    preprocess: Preprocess, learn: Learn, inside: bool, folds: int = 2, used: int | None = None,
) -> tuple[Float[Tensor, " r"], Float[Tensor, " r"]]:  # fmt: skip
    """Cross-validation's mean squared error of every repetition, and the true one on samples that took no part.

    Paper, section 2: e_val on the held-out fold and e_gen on new samples, both of the predictor learned on the other
    folds behind the same transformation. Their mean difference is the bias.

    preprocess  ``preprocess(x) -> transform``, sees no y
    inside      learn the transformation from the other folds alone; if False from all samples, before the folds are cut
    folds       divides n; ``used`` of them are evaluated, all if None: over repetitions each has the same mean

    Raises ValueError for folds that do not divide the samples or are fewer than 2, and samples that are not finite.
    """
    check_finite(x=x, y=y)
    n = x.shape[1]
    if folds < 2 or n % folds:
        raise ValueError(f"folds must be at least 2 and divide the {n} samples, got {folds}")
    shared = None if inside else preprocess(x)
    seen, true = [], []
    for fold in range(folds if used is None else used):
        out = torch.zeros(n, dtype=torch.bool, device=x.device)
        out[fold * (n // folds) : (fold + 1) * (n // folds)] = True
        transform = preprocess(x[:, ~out]) if inside else shared
        predict = learn(transform(x[:, ~out]), y[:, ~out])
        seen.append((predict(transform(x[:, out])) - y[:, out]).square().mean(1))
        true.append((predict(transform(new_x)) - new_y).square().mean(1))
    return torch.stack(seen).mean(0), torch.stack(true).mean(0)


def cv_bias(
    draw: Callable[..., tuple[Batch, Float[Tensor, "r n"]]], preprocess: Preprocess, learn: Learn, n: int, inside: bool,
    repetitions: int, seed: int, folds: int = 2, chunk: int = 500,
) -> tuple[float, float, float]:  # fmt: skip
    """Means over repetitions: cross-validation's error, the true error, and the standard error of their difference.

    n     samples outside the held-out fold; all are n folds / (folds - 1), and n new samples measure the true error
    seed  equal seeds draw equal samples, whatever the preprocessing and its place

    One fold of every repetition is evaluated.
    """
    total, g, seen, true = n * folds // (folds - 1), Generator().manual_seed(mixed_seed(seed, n)), [], []
    for start in range(0, repetitions, chunk):
        x, y = draw(min(chunk, repetitions - start), total + n, generator=g)
        cut = (x[:, :total], y[:, :total], x[:, total:], y[:, total:])
        errors = cross_validated(*cut, preprocess, learn, inside, folds, used=1)
        seen.append(errors[0])
        true.append(errors[1])
    seen, true = torch.cat(seen).double(), torch.cat(true).double()
    return float(seen.mean()), float(true.mean()), float((seen - true).std() / len(seen) ** 0.5)


def rare_errors(n: int, c: int, m: int, sigma: float) -> tuple[float, float]:
    """Expected errors where categories seen fewer than m times are merged before two folds of n samples each: that of a
    validation sample, and that of a new one. In closed form, for the data of ``categories``.

    A category with t training samples has the error σ² (1 + 1/t) where it is kept, and 1 + σ² where it is merged or
    t = 0: its prediction is zero, and its mean has the variance 1. It is kept if all 2n samples hold m of it or more; a
    validation sample is one of them, a new one is not.
    """
    from scipy.stats import binom

    t = np.arange(n + 1)
    share, kept = binom.pmf(t, n, 1 / c), np.where(t > 0, sigma**2 * (1 + 1 / np.maximum(t, 1)), 1 + sigma**2)
    errors = []
    for others, itself in ((n - 1, 1), (n, 0)):
        keep = binom.sf(m - itself - t - 1, others, 1 / c)  # at least m - itself - t among the other validation samples
        errors.append(float((share * (keep * kept + (1 - keep) * (1 + sigma**2))).sum()))
    return tuple(errors)


def cv_choice(
    x: Batch, y: Float[Tensor, "r n"], new_x: Float[Tensor, "r m p"], new_y: Float[Tensor, "r m"],
    family: list[Preprocess], learn: Learn, inside: bool, folds: int = 2,
) -> Float[Tensor, " r"]:  # fmt: skip
    """True error, with all samples used, of the preprocessing that cross-validation prefers among ``family``."""
    seen = torch.stack([cross_validated(x, y, x, y, one, learn, inside, folds)[0] for one in family])
    true = []
    for preprocess in family:
        transform = preprocess(x)
        true.append((learn(transform(x), y)(transform(new_x)) - new_y).square().mean(1))
    return torch.stack(true).gather(0, seen.argmin(0, keepdim=True))[0]
