"""Test sets collected anew, more or less strictly, and a line through the accuracies of many models.

Recht, Roelofs, Schmidt and Shankar, "Do ImageNet Classifiers Generalize to ImageNet?" (2019).
"""

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from ...loss import check_finite
from .field import Field


def resampled(
    frequency: Float[Tensor, " n"], size: int, strictness: float, generator: Generator
) -> Int[Tensor, " size"]:
    """A test set drawn from candidates without replacement, with probability proportional to frequency^strictness.

    frequency   share of annotators who found each candidate to be what its label says, in [0, 1]: the paper's
                "selection frequency"
    strictness  0 takes anything that at least one annotator recognised; the larger, the clearer its images

    Raises ValueError for frequencies that are not finite, and where fewer candidates than ``size`` have one above zero.
    """
    check_finite(frequency=frequency)
    possible = int((frequency > 0).sum())
    if not 1 <= size <= possible:
        raise ValueError(f"size must be in 1 … {possible}, the candidates with a frequency above 0, got {size}")
    weights = torch.where(frequency > 0, frequency.double() ** strictness, 0.0)
    return torch.multinomial(weights, size, generator=generator)


def second_tests(
    field: Field, size: int, strictness: dict[str, float], seed: int
) -> tuple[dict[str, Float[Tensor, " m"]], dict[str, Int[Tensor, " size"]]]:
    """Accuracy of every model on test sets of several strictness, and which candidates are in each.

    The first is the old test set, drawn from a random half of the candidates; the others are drawn each from the other
    half. So they share no image with the old one, and what it took has not made theirs harder.

    Raises ValueError where a half has fewer than ``size`` candidates with a frequency above zero.
    """
    g, chosen = Generator().manual_seed(seed), {}
    old, new = torch.randperm(len(field.labels), generator=g).chunk(2)
    for name, kappa in strictness.items():
        half = new if chosen else old
        chosen[name] = half[resampled(field.frequency[half], size, kappa, g)]
    return {k: (field.said[:, i] == field.labels[i]).double().mean(1) for k, i in chosen.items()}, chosen


def probit(accuracy: Float[Tensor, " m"], n: int) -> Float[Tensor, " m"]:
    """Φ⁻¹ of accuracies on n images, which are kept half an image away from 0 and 1."""
    return torch.special.ndtri(accuracy.double().clamp(0.5 / n, 1 - 0.5 / n))


def fitted_line(x: Float[Tensor, " m"], y: Float[Tensor, " m"]) -> tuple[float, float, float]:
    """Least squares y ≈ slope · x + intercept: slope, intercept and R².

    Raises ValueError for fewer than two points, points with one x, and coordinates that are not finite.
    """
    check_finite(x=x, y=y)
    x, y = x.double(), y.double()
    if len(x) < 2 or float(x.var()) == 0:
        raise ValueError(f"x must hold at least two different values, got {len(x)} points")
    dx, dy = x - x.mean(), y - y.mean()
    slope = float((dx @ dy) / (dx @ dx))
    left = dy - slope * dx
    return slope, float(y.mean() - slope * x.mean()), 1 - float((left @ left) / (dy @ dy).clamp(min=1e-300))


def voted(weights: Float[Tensor, " m"], votes: Float[Tensor, "m n k"]) -> Int[Tensor, " n"]:
    """The class with the largest weighted vote of m models, whose classes are one-hot in ``votes``."""
    return torch.einsum("m,mnk->nk", weights, votes).argmax(1)


def climbed(
    votes: Float[Tensor, "m n k"], labels: Int[Tensor, " n"], queries: int, step: float, generator: Generator
) -> Float[Tensor, " m"]:
    """Weights of a vote that were hill-climbed on a test set: what an adaptive analyst does who sees only accuracies.

    From equal weights, Gaussian steps of standard deviation ``step``; one is kept if the accuracy does not fall.

    queries  how often the test set is asked, >= 0
    """
    weights = torch.ones(len(votes), dtype=votes.dtype, device=votes.device)
    best = (voted(weights, votes) == labels).sum()
    for _ in range(queries):
        proposal = weights + step * torch.randn(len(votes), generator=generator).to(weights)
        right = (voted(proposal, votes) == labels).sum()
        kept = right >= best
        weights, best = torch.where(kept, proposal, weights), torch.where(kept, right, best)
    return weights
