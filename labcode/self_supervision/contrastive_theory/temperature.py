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


def loss_of_similarities(
    own: Float[Tensor, " n"], others: Float[Tensor, "n k"], tau: float, simple: bool = False
) -> Float[Tensor, " n"]:
    """Each row's loss as a function of its similarities alone: the paper takes its gradients with respect to these.

    own, others  similarity with the positive, and with each of k >= 1 negatives
    simple       the linear loss, see ``temperature_loss``
    """
    if simple:
        return others.mean(1) - own
    logits = torch.cat([own[:, None], others], 1) / tau
    return logits.logsumexp(1) - logits[:, 0]


def similarity_gradients(
    own: Float[Tensor, " n"], others: Float[Tensor, "n k"], tau: float, simple: bool = False
) -> tuple[Float[Tensor, " n"], Float[Tensor, "n k"]]:
    """∂L/∂s of each row's loss, by autograd and times τ: at the positive, and at every negative.

    The paper's closed form: -Σ_k P_k at the positive and P_k at negative k, P the softmax over all k + 1 similarities.
    Times τ, as the slope grows like 1/τ when τ falls; ``simple`` has no temperature, and its slope is as it is.
    """
    own, others = (t.detach().clone().requires_grad_() for t in (own, others))
    loss = loss_of_similarities(own, others, tau, simple).sum()
    return torch.autograd.grad(loss if simple else tau * loss, (own, others))


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
    return loss_of_similarities(positive, negatives, tau, simple).mean()


def relative_penalty(z: Float[Tensor, "two_n d"], tau: float) -> Float[Tensor, "two_n two_n-2"]:
    """r: each negative's share of the push that all negatives exert, exp(s/τ) / Σ exp(s/τ). Wang and Liu (2021)."""
    return boltzmann(positive_and_negatives(z)[1], tau)


def boltzmann(others: Float[Tensor, "n k"], tau: float) -> Float[Tensor, "n k"]:
    """The weights r of k negatives from their similarities: ``relative_penalty`` of rows that are already compared."""
    check_positive(tau=tau)
    return (others / tau).softmax(1)


def penalty_at(s: Float[Tensor, " m"], others: Float[Tensor, "n k"], tau: float) -> Float[Tensor, " m"]:
    """The share of the push that one more negative would get, had it similarity s: the mean over rows.

    exp(s/τ) / (exp(s/τ) + Σ_k exp(s_k/τ)), in [0, 1]: what the temperature makes of a similarity, at any place on the
    axis, among negatives as they lie. Wang and Liu (2021) draw the penalty against the similarity.
    """
    check_positive(tau=tau)
    return (s / tau - (others / tau).logsumexp(1, keepdim=True)).sigmoid().mean(0)


def nearest_negatives(
    z: Float[Tensor, "two_n d"], k: int = 10
) -> tuple[Float[Tensor, " two_n"], Float[Tensor, "two_n k"]]:
    """Similarity of each row with its positive and with its k most similar negatives, without gradient.

    Wang and Liu (2021) draw the distributions of both. Raises ValueError for k outside 1 … 2n - 2.
    """
    positive, negatives = positive_and_negatives(z.detach())
    if not 1 <= k <= negatives.shape[1]:
        raise ValueError(f"k must be between 1 and the {negatives.shape[1]} negatives, got {k}")
    return positive, negatives.topk(k, dim=1).values


def local_separation(positive: Float[Tensor, " n"], nearest: Float[Tensor, "n k"]) -> float:
    """Mean similarity with the positives less that with the nearest negatives: the gap between the distributions.

    Wang and Liu (2021): the lower the temperature, the wider. Arguments as ``nearest_negatives`` gives them.
    """
    return float(positive.mean() - nearest.mean())


def share_before(positive: Float[Tensor, " n"], nearest: Float[Tensor, "n k"]) -> float:
    """How many of a row's nearest negatives are less similar than its positive: a share, the mean over rows."""
    return float((positive[:, None] > nearest).double().mean())


def similarity_shares(s: Tensor, bins: int = 20) -> list[float]:
    """How similarities of any shape spread over equal bins of [-1, 1]: shares that sum to one.

    Rounding may carry a cosine a little beyond 1: it counts in the last bin.
    """
    return (torch.histc(s.clamp(-1, 1), bins, -1, 1) / s.numel()).tolist()


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
