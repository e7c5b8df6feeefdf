"""Optimal transport between samples and prototypes."""

import torch
from jaxtyping import Float
from torch import Tensor

from .loss import check_matrix, check_positive


def sinkhorn_codes(scores: Float[Tensor, "n K"], eps: float = 0.05, iterations: int = 3) -> Float[Tensor, "n K"]:
    """Soft assignments of n samples to K prototypes that use all prototypes alike: rows sum to 1.

    SwAV (Caron et al., 2020), appendix A; Sinkhorn and Knopp: exp(scores / eps), columns and rows normalised in turn.

    scores      similarities; float16 and bfloat16 are raised to float32
    eps         entropy of the assignments, > 0: small is hard
    iterations  >= 1; the columns are even only in the limit

    In logarithms, so no score overflows. No gradient. Raises ValueError for another shape, eps or iterations.
    """
    check_matrix("scores", scores)
    check_positive(eps=eps, iterations=iterations)
    with torch.no_grad():
        log_q = scores.float() / eps if scores.dtype in (torch.float16, torch.bfloat16) else scores / eps
        for _ in range(iterations):
            log_q = log_q - log_q.logsumexp(0)
            log_q = log_q - log_q.logsumexp(1, keepdim=True)
        return log_q.exp()
