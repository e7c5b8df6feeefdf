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

    In logarithms, so no score overflows; on a CPU, scores within 40 eps of one another, as cosines at eps 0.05 are, by
    products of exp(scores / eps) with vectors, which is four times as fast. No gradient. Raises ValueError for another
    shape, eps or iterations.
    """
    check_matrix("scores", scores)
    check_positive(eps=eps, iterations=iterations)
    with torch.no_grad():
        log_q = scores.float() / eps if scores.dtype in (torch.float16, torch.bfloat16) else scores / eps
        if log_q.device.type == "cpu":  # elsewhere the look at the range would wait for the device
            low, high = log_q.aminmax()
            if high - low <= 40:
                return _scaled(log_q.sub_(high).exp_(), iterations)
        for _ in range(iterations):
            log_q = log_q - log_q.logsumexp(0)
            log_q = log_q - log_q.logsumexp(1, keepdim=True)
        return log_q.exp()


def _scaled(kernel: Tensor, iterations: int) -> Tensor:
    """diag(u) kernel diag(v) with even columns and then rows of sum 1, in turn."""
    u = kernel.new_ones(len(kernel))
    for _ in range(iterations):
        v = 1 / (u @ kernel)
        u = 1 / (kernel @ v)
    return kernel.mul_(u[:, None]).mul_(v)
