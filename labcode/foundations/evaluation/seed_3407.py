"""What scanning seeds finds: the best of many runs, and what it keeps elsewhere.

Picard, "Torch.manual_seed(3407) is all you need: On the influence of random seeds in deep learning architectures for
computer vision" (2021).
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def scanned(correct: Bool[Tensor, "r n"], size: int) -> tuple[float, float]:
    """The best run's lead over the mean of all runs: on the test set that it was chosen on, and on all other images.

    Means over disjoint test sets of ``size`` images, of which there must be two at least.
    """
    if 2 * size > correct.shape[1]:
        raise ValueError(f"size must be at most half of the {correct.shape[1]} images, got {size}")
    c, leads = correct.double(), []
    for part in c.split(size, 1):
        here = part.mean(1)
        there = (c.sum(1) - part.sum(1)) / (c.shape[1] - part.shape[1])
        best = here.argmax()
        leads.append((float(here[best] - here.mean()), float(there[best] - there.mean())))
    return tuple(sum(column) / len(leads) for column in zip(*leads, strict=True))


def extremes(correct: Bool[Tensor, "r n"]) -> Float[Tensor, "3"]:
    """Accuracy of the worst run, the mean over runs, and accuracy of the best run, on these n images."""
    accuracy = correct.double().mean(1)
    return torch.stack([accuracy.min(), accuracy.mean(), accuracy.max()])


def best_of(values: Sequence[float], k: int) -> float:
    """The mean of the best of k runs over all ways to draw k of these without replacement.

    The i-th smallest of N is the best of k with probability C(i-1, k-1) / C(N, k).

    Raises ValueError unless 1 <= k <= N.
    """
    n = len(values)
    if not 1 <= k <= n:
        raise ValueError(f"k must be in 1 … {n}, got {k}")
    return sum(math.comb(i, k - 1) * v for i, v in enumerate(sorted(values))) / math.comb(n, k)


def gaussian_best(k: int) -> float:
    """The expected largest of k standard normal numbers: ∫ x k φ(x) Φ(x)^(k-1) dx; 0 for k = 1, about 3.85 for 10⁴."""
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    x = torch.linspace(-9, 9, 20001, dtype=torch.float64)
    density = torch.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    return float(torch.trapezoid(x * k * density * torch.special.ndtr(x) ** (k - 1), x))
