"""Temperature (Wang and Liu, 2021): how much of the push falls on the hardest negatives."""

import torch
from jaxtyping import Float
from torch import Tensor

from ...loss import check_matrix, check_positive, float32, unit_rows
from ...pairwise import off_diagonal
from ._common import Labels, Rows, Scalar, class_means


def positive_and_negatives(z: Tensor) -> tuple[Float[Tensor, " two_n"], Float[Tensor, "two_n two_n-2"]]:
    """Similarity of each row with its positive, and with its 2n - 2 negatives."""
    check_matrix("z", z, rows=4, even=True)
    n, z = len(z) // 2, unit_rows(z)
    s = z @ z.T
    negatives = off_diagonal(s.view(2, n, 2, n).transpose(1, 2)).transpose(1, 2)
    return (z * z.roll(n, 0)).sum(1), negatives.reshape(2 * n, 2 * n - 2)


@float32
def temperature_loss(
    z: Float[Tensor, "two_n d"], tau: float = 0.2, share: float = 1.0, simple: bool = False
) -> Scalar:
    """Contrastive loss at temperature τ, on all negatives or on the hardest alone; or its limit for τ → ∞.

    Understanding the Behaviour of Contrastive Loss (Wang and Liu, 2021); with share < 1 its hard variant: of each
    row's negatives only those above the upper ``share`` quantile of its similarities count. ``simple`` takes
    -s⁺ + mean s⁻, which the softmax becomes at high temperature (λ one over the number of negatives).

    z      projections of both views stacked, normalised here; n >= 2
    share  of the negatives that is kept, in (0, 1]; the paper's 0.0819 on CIFAR. At least one is kept

    Departure: negatives come from the batch instead of a memory bank. With share = 1 this is ``contrastive.nt_xent``.
    Raises ValueError for an odd number of rows, n < 2, tau <= 0, and a share outside (0, 1].
    """
    check_positive(tau=tau)
    if not 0 < share <= 1:
        raise ValueError(f"share must be in (0, 1], got {share}")
    positive, negatives = positive_and_negatives(z)
    if share < 1:
        negatives = negatives.topk(max(1, round(share * negatives.shape[1])), dim=1).values
    if simple:
        return (negatives.mean(1) - positive).mean()
    logits = torch.cat([positive[:, None], negatives], 1) / tau
    return (logits.logsumexp(1) - logits[:, 0]).mean()


def relative_penalty(z: Float[Tensor, "two_n d"], tau: float) -> Float[Tensor, "two_n two_n-2"]:
    """r: each negative's share of the push that all negatives exert, exp(s/τ) / Σ exp(s/τ). Wang and Liu (2021)."""
    check_positive(tau=tau)
    return (positive_and_negatives(z)[1] / tau).softmax(1)


def local_separation(z: Float[Tensor, "two_n d"], k: int = 10) -> float:
    """Mean over rows of the similarity with the positive less that with the k most similar negatives.

    Wang and Liu (2021) show histograms of both: the lower the temperature, the wider the gap between them. Raises
    ValueError for k outside 1 … 2n - 2.
    """
    positive, negatives = positive_and_negatives(z.detach())
    if not 1 <= k <= negatives.shape[1]:
        raise ValueError(f"k must be between 1 and the {negatives.shape[1]} negatives, got {k}")
    return float(positive.mean() - negatives.topk(k, dim=1).values.mean())


def tolerance(z: Rows, y: Labels) -> float:
    """E[z·z' 1(y = y')] over pairs of different rows of the unit sphere. Wang and Liu (2021).

    The indicator is inside the mean, so with C equal classes it is at most 1/C. Labels are any integers. Raises
    ValueError for fewer than two rows and labels that do not fit them.
    """
    check_matrix("z", z, rows=2)
    if y.shape != (len(z),):
        raise ValueError(f"y must name the class of each of the {len(z)} rows, got shape {tuple(y.shape)}")
    z, (classes, y) = unit_rows(z.detach()), y.unique(return_inverse=True)
    n, sums = len(z), class_means(z, y, len(classes)) * torch.bincount(y)[:, None]
    return float((sums.square().sum() - z.square().sum()) / (n * (n - 1)))
