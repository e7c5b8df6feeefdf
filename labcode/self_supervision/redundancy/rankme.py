"""RankMe (Garrido et al., 2023) and the other scores that choose a run without labels."""

import torch

from ...evaluate import effective_rank
from ...loss import check_matrix
from .cross_norm import Rows

rankme = effective_rank


def alpha_req(z: Rows, skip: int = 1) -> float:
    """Decay exponent of the covariance spectrum, λ_k ∝ k^-α, by least squares on the logarithms (α-ReQ).

    Agrawal et al., 2022: near 1 is said to be best; large means few directions carry all.

    skip  leading eigenvalues to leave out
    """
    check_matrix("z", z, rows=3)
    values = torch.linalg.svdvals((z - z.mean(0)).double()).square()
    values = values[values > 1e-10 * values[0]][skip:]
    if len(values) < 2:
        return float("inf")
    x = torch.arange(skip + 1, skip + 1 + len(values), dtype=torch.float64, device=z.device).log()
    y = values.log()
    x, y = x - x.mean(), y - y.mean()
    return float(-(x * y).sum() / (x * x).sum())


def spearman(a: list[float], b: list[float]) -> float:
    """Rank correlation of two lists in [-1, 1]; NaN where one of them is constant."""
    from scipy.stats import spearmanr

    return float(spearmanr(a, b).statistic)


def regret(scores: list[float], accuracies: list[float]) -> float:
    """What choosing the run with the highest score loses against the best run, in accuracy."""
    chosen = max(range(len(scores)), key=lambda i: scores[i])
    return max(accuracies) - accuracies[chosen]
