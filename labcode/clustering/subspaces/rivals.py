"""Rivals on frozen features: the affinity of elastic-net self-expression, and SCAN, a loss of neighbours that agree."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ...loss import check_matrix, check_positive, float32, unit_rows


@torch.no_grad()
def elastic_net_affinity(
    x: Float[Tensor, "n d"], mix: float = 0.9, weight: float = 50.0, iterations: int = 60
) -> Float[Tensor, "n n"]:
    """|A| + |A|ᵀ where row i of A writes sample i by few others of its subspace; the diagonal is 0.

    EnSC (You et al., 2016): min mix ‖a‖₁ + (1 - mix)/2 ‖a‖² + weight/2 ‖xᵢ - a X‖², by FISTA for all samples at once.

    x       samples (n, d), rows are brought to length 1
    mix     in (0, 1]; 1 is sparse subspace clustering
    weight  > 0 of the reconstruction

    Departure: a fixed number of proximal steps, not EnSC's active set; at its end the same minimum.
    """
    check_matrix("x", x, rows=2)
    check_positive(weight=weight)
    if not 0 < mix <= 1:
        raise ValueError(f"mix must be in (0, 1], got {mix}")
    x = unit_rows(x)
    rate = 1 / (weight * float(torch.linalg.matrix_norm(x, 2)) ** 2 + 1 - mix)
    a = ahead = x.new_zeros(len(x), len(x))
    t = 1.0
    for _ in range(iterations):
        slope = weight * (ahead @ x - x) @ x.T + (1 - mix) * ahead
        new = F.softshrink(ahead - rate * slope, rate * mix).fill_diagonal_(0)
        later = (1 + (1 + 4 * t * t) ** 0.5) / 2
        a, ahead, t = new, new + (t - 1) / later * (new - a), later
    return a.abs() + a.abs().T


@float32
def scan(logits: Float[Tensor, "n k"], other: Float[Tensor, "n k"], entropy: float = 5.0) -> Float[Tensor, ""]:
    """SCAN's loss (Van Gansbeke et al., 2020), eq. 2: a sample and its neighbour get one cluster, and all are used.

    logits, other  of the samples and of a neighbour of each (n, K)
    entropy        λ >= 0 of the mean assignment's negative entropy; 5 in the paper

    Departure: -log of the dot product through log-sum-exp, which stays finite.
    """
    check_matrix("logits", logits)
    check_matrix("other", other, like=logits)
    if entropy < 0:
        raise ValueError(f"entropy must be at least 0, got {entropy}")
    p, q = logits.log_softmax(1), other.log_softmax(1)
    mean = p.exp().mean(0)
    return -(p + q).logsumexp(1).mean() + entropy * (mean * mean.clamp_min(1e-12).log()).sum()
