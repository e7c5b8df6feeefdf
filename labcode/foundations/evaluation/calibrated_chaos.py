"""How much of the variance between runs is the test set's: half splits, independent coins, calibration.

Jordan, "Calibrated Chaos: Variance Between Runs of Neural Network Training is Harmless and Inevitable" (2023).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from ...loss import check_index


def _matrix(correct: Tensor) -> Float[Tensor, "r n"]:
    if correct.ndim != 2 or len(correct) < 2 or correct.shape[1] < 2:
        raise ValueError(f"correct must be (runs, images), at least two of each, got {tuple(correct.shape)}")
    return correct.double()


def test_set_variance(correct: Bool[Tensor, "r n"]) -> float:
    """Variance over runs of the accuracy on this test set, without bias.

    Raises ValueError, as its siblings do, for fewer than two runs or two images.
    """
    return float(_matrix(correct).mean(1).var())


test_set_variance.__test__ = False  # pytest: an estimator, no test


def coin_variance(correct: Bool[Tensor, "r n"]) -> float:
    """What that variance is if images are independent coins: Σ pᵢ (1 - pᵢ) / n² (Calibrated Chaos, hypothesis 1).

    pᵢ is the share of runs that are right on image i; pᵢ (1 - pᵢ) is estimated without bias.
    """
    c = _matrix(correct)
    return float(c.var(0).sum()) / c.shape[1] ** 2


def distribution_variance(correct: Bool[Tensor, "r n"]) -> float:
    """Variance over runs of the accuracy on the distribution that the test set was drawn from, without bias.

    Cut the test set into two halves; what a run is better by on *both* is no luck with images. So the covariance, over
    runs, of the two halves' accuracies is an unbiased estimate (Calibrated Chaos, section 3.2). Here it is averaged
    over all halvings at once: the mean of all covariances between two images,

        n / (n - 1) · (Var(accuracy) - Σ Var(image i) / n²).

    May be negative where there is little to estimate.
    """
    n = correct.shape[1]
    return n / (n - 1) * (test_set_variance(correct) - coin_variance(correct))


def half_split_covariance(correct: Bool[Tensor, "r n"], splits: int, generator: Generator) -> float:
    """The same by random halvings, as the paper does it: the mean covariance of the two halves' accuracies.

    splits  number of halvings, >= 1; with an odd number of images one is left out each time
    """
    if splits < 1:
        raise ValueError(f"splits must be at least 1, got {splits}")
    c, total = _matrix(correct), 0.0
    half = c.shape[1] // 2
    for _ in range(splits):
        order = torch.randperm(c.shape[1], generator=generator)
        a, b = c[:, order[:half]].mean(1), c[:, order[half : 2 * half]].mean(1)
        total += float(((a - a.mean()) * (b - b.mean())).sum()) / (len(c) - 1)
    return total / splits


def calibrated_variance(error: float, n: int) -> float:
    """The test-set variance of a calibrated ensemble of binary classifiers: error / (2n) (Calibrated Chaos, theorem 2).

    If a share q of the runs votes for a class and the class is right with probability q, an image's mean error is
    2q(1 - q), and its variance over runs q(1 - q): half of it.
    """
    if not 0 <= error <= 1 or n < 1:
        raise ValueError(f"error must be in [0, 1] and n at least 1, got {error} and {n}")
    return error / (2 * n)


def vote_shares(predicted: Int[Tensor, "r n"], classes: int) -> Float[Tensor, "n classes"]:
    """The share of runs that give each image each class. Raises ValueError for a prediction outside 0 … classes - 1."""
    check_index("predicted", predicted, classes)
    return F.one_hot(predicted, classes).double().mean(0)


def calibration(
    shares: Float[Tensor, "n k"], labels: Int[Tensor, " n"], bins: int = 10
) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"], Float[Tensor, " b"], float]:
    """Whether a class with a share q of the votes is right with probability q, over all images and classes.

    shares  of the votes, or probabilities, in [0, 1]

    Returns, for every bin of q that is not empty, the mean share, how often the class was right and the weight of the
    bin; and the expected error: the weighted mean of their absolute difference. A share counts as much as it is large:
    hundreds of classes that nobody votes for say nothing.

    Raises ValueError for shares that are no numbers in [0, 1] or not one row an image, and labels that are no column.
    """
    if shares.shape[0] != len(labels):
        raise ValueError(f"shares must be one row an image, {len(labels)}, got {shares.shape[0]}")
    if not bool(((shares >= -1e-5) & (shares <= 1 + 1e-5)).all()):  # a sum of float32 may pass 1 by its last digit
        raise ValueError("shares must lie in [0, 1], all of them")
    shares = shares.clamp(0, 1)
    check_index("labels", labels, shares.shape[1])
    q = shares.double().flatten()
    right = F.one_hot(labels, shares.shape[1]).double().flatten()
    place = (q * bins).long().clamp(max=bins - 1)
    sums = torch.zeros(3, bins, dtype=torch.float64, device=q.device)
    for row, values in enumerate((q * q, q * right, q)):
        sums[row].index_add_(0, place, values)
    confidence, accuracy, weight = sums[:, sums[2] > 0]
    confidence, accuracy, weight = confidence / weight, accuracy / weight, weight / weight.sum()
    return confidence, accuracy, weight, float((weight * (confidence - accuracy).abs()).sum())


def over_sets(estimate: Callable[[Tensor], float], correct: Bool[Tensor, "r n"], size: int) -> float:
    """An estimate's mean over disjoint test sets of so many images; a last, smaller one is left out."""
    if not 1 < size <= correct.shape[1]:
        raise ValueError(f"size must be in 2 … {correct.shape[1]}, got {size}")
    parts = [part for part in correct.split(size, 1) if part.shape[1] == size]
    return sum(map(estimate, parts)) / len(parts)
