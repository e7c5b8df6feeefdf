"""Ignoring label noise: when the most frequent noisy label is the true one, minimising the noisy risk is right.

Zhu, Scott and Zhang 2024, *Label Noise: Ignorance Is Bliss*: relative signal strength and noise-ignorant ERM.
"""

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from ..label_sets import flip, transition
from .contrastive import fit_linear, linear_logits


def relative_signal_strength(
    clean: Float[Tensor, "*any k"], noisy: Float[Tensor, "..."]
) -> Float[Tensor, "*any"]:
    """M(x) = min over j of (max noisy - noisy_j) / (max clean - clean_j), with 0 / 0 = infinity (definition 1).

    clean, noisy  posteriors of one point, rows that add up to 1

    Each margin is measured from its own maximum, so that M is never negative; it is 0 exactly where the noisy argmax is
    another class than the clean one. float64. Raises ValueError for shapes that differ.
    """
    if clean.shape != noisy.shape:
        raise ValueError(f"noisy must have the shape of clean, {tuple(clean.shape)}, got {tuple(noisy.shape)}")
    clean, noisy = clean.double(), noisy.double()
    over, under = noisy.amax(-1, keepdim=True) - noisy, clean.amax(-1, keepdim=True) - clean
    ratio = torch.where(under > 0, over / under.clamp_min(1e-300), torch.full_like(over, torch.inf))
    return ratio.amin(-1)


def symmetric_strength(rate: float, classes: int) -> float:
    """M of noise that is wrong with chance ``rate``, all wrong classes alike: 1 - rate K / (K - 1), 0 from there on.

    At rate (K - 1) / K every label is as likely as the true one: until there the argmax is kept (section 3).
    """
    return max(0.0, 1 - rate * classes / (classes - 1))


def cells(count: int, classes: int, *, top: tuple[float, float] = (0.5, 0.9), generator: Generator) -> Tensor:
    """Clean posteriors (count, classes) of the cells of a finite domain: a random class has a chance in ``top``, the
    others share the rest at random. float64."""
    high = top[0] + (top[1] - top[0]) * torch.rand(count, 1, dtype=torch.float64, generator=generator)
    rest = -torch.rand(count, classes, dtype=torch.float64, generator=generator).clamp_min(1e-9).log()
    best = torch.randint(classes, (count, 1), generator=generator)
    rest = rest.scatter(1, best, 0.0)
    return (rest / rest.sum(1, keepdim=True) * (1 - high)).scatter(1, best, high)


def zero_signal(clean: Float[Tensor, "m k"], cells_lost: int, strength: float) -> Float[Tensor, "m k"]:
    """Noisy posteriors: in the first ``cells_lost`` cells nothing is told (uniform), elsewhere the noise leaves the
    share ``strength`` of every margin, M = strength: strength · clean + (1 - strength) / k."""
    noisy = strength * clean + (1 - strength) / clean.shape[1]
    noisy[:cells_lost] = 1 / clean.shape[1]
    return noisy


def erm_excess(
    clean: Float[Tensor, "m k"], noisy: Float[Tensor, "m k"], n: int, trials: int, *, generator: Generator
) -> Float[Tensor, " trials"]:
    """Excess clean risk of noise-ignorant ERM over all classifiers of a finite domain, for n noisy samples.

    Each cell is as likely as another, and gets its most frequent noisy label, ties at random. The class of classifiers
    has VC (Natarajan) dimension m. Exact but for the draw of the samples.
    """
    m, k = noisy.shape
    joint = (noisy / m).flatten()
    drawn = torch.multinomial(joint.float().expand(trials, -1), n, True, generator=generator)
    counts = torch.zeros(trials, m * k).scatter_add_(1, drawn, torch.ones(trials, n)).view(trials, m, k)
    pick = (counts + 0.5 * torch.rand(counts.shape, generator=generator)).argmax(-1)
    lost = clean.amax(1) - clean.expand(trials, m, k).gather(2, pick[..., None])[..., 0]
    return lost.mean(1)


def upper_bound(lost_mass: float, strength: float, m: int, n: int) -> float:
    """The theorem's form: zero-signal mass plus an estimation term over the strength, (1 / κ) sqrt(m / n).

    The constant of the estimation term is ours, 1; the paper's is larger.
    """
    return lost_mass + (m / n) ** 0.5 / strength


def minimax_regret(cells_lost: int, classes: int, rule: str, *, trials: int, generator: Generator) -> float:
    """Mean chance of naming the true class where the noise tells nothing, over uniformly drawn truths.

    rule  "ni-erm" (the most frequent noisy label of 20), "minority" (the least frequent), "first" (always class 0)

    Returns the share of wrong answers. No rule can do better than (K - 1) / K on average.
    """
    truth = torch.randint(classes, (trials, cells_lost), generator=generator)
    noisy = torch.randint(classes, (trials, cells_lost, 20), generator=generator)
    counts = torch.zeros(trials, cells_lost, classes).scatter_add_(2, noisy, torch.ones(noisy.shape))
    counts = counts + 0.5 * torch.rand(counts.shape, generator=generator)
    said = {"ni-erm": counts.argmax(2), "minority": counts.argmin(2), "first": torch.zeros_like(truth)}[rule]
    return float((said != truth).double().mean())


def mixture_sweep(
    rates: list[float], *, classes: int = 10, dim: int = 10, n: int = 4000, distance: float = 3.0, seed: int
) -> list[float]:
    """Accuracy of noise-ignorant logistic regression on a mixture of Gaussians under symmetric noise of each rate.

    Unit covariances, means on orthogonal axes ``distance`` from the middle; 4,000 test points with true labels.
    """
    g = torch.Generator().manual_seed(seed + 500)
    means = distance * torch.linalg.qr(torch.randn(dim, dim, generator=g)).Q[:classes]
    y, ty = (torch.arange(count) % classes for count in (n, 4000))
    x, tx = (means[labels] + torch.randn(len(labels), dim, generator=g) for labels in (y, ty))
    labels = torch.stack([flip(y, transition("symmetric", classes, rate), generator=g).labels for rate in rates])
    w = fit_linear(x, labels, [1e-3] * len(rates), classes, steps=40)
    return (linear_logits(w, tx).argmax(-1) == ty).double().mean(1).tolist()


GRID = (3e-2, 1e-1, 3e-1, 1.0, 3.0)


def noise_ignorant(
    z: Float[Tensor, "N f"], labels: Int[Tensor, "d N"], test: Float[Tensor, "M f"], truth: Int[Tensor, " M"],
    classes: int, *, loss: str = "ni-erm", matrix: Tensor | None = None, grid: tuple = GRID,
) -> Float[Tensor, " d"]:  # fmt: skip
    """Test accuracy of a linear classifier on features, its penalty chosen on *noisy* held-out labels: one a draw.

    A fifth of the samples is held back for the choice (the paper: five folds, and the number of iterations too), then
    all are fitted. Features are standardised. ``loss`` and ``matrix`` as for ``fit_linear``.
    """
    d, count = labels.shape
    mean, std = z.mean(0), z.std(0).clamp_min(1e-3)
    z, test = (z - mean) / std, (test - mean) / std
    held, rest = slice(0, count // 5), slice(count // 5, count)
    tried = fit_linear(z[rest], labels[:, rest].repeat(len(grid), 1), [v for v in grid for _ in range(d)], classes,
                       loss=loss, matrix=matrix)  # fmt: skip
    agreed = (linear_logits(tried, z[held]).argmax(-1) == labels[:, held].repeat(len(grid), 1)).double().mean(1)
    chosen = agreed.view(len(grid), d).argmax(0).tolist()
    w = fit_linear(z, labels, [grid[i] for i in chosen], classes, loss=loss, matrix=matrix)
    return (linear_logits(w, test).argmax(-1) == truth).double().mean(1)
