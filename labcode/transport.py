"""Optimal transport between samples and prototypes."""

import math
import warnings

import torch
from jaxtyping import Float
from torch import Tensor

from .loss import check_matrix, check_positive, raised


def sinkhorn_codes(
    scores: Float[Tensor, "n K"], eps: float = 0.05, iterations: int = 3, tolerance: float | None = None
) -> Float[Tensor, "n K"]:
    """Soft assignments of n samples to K prototypes that use all prototypes alike: rows sum to 1.

    SwAV (Caron et al., 2020), appendix A; Sinkhorn and Knopp: exp(scores / eps), columns and rows normalised in turn.

    scores      similarities; float16 and bfloat16 are raised to float32
    eps         entropy of the assignments, > 0: small is hard
    iterations  >= 1; the columns are even only in the limit
    tolerance   stop as soon as no column's sum is further than this share from n/K; ``iterations`` is then the most
                there may be, and a RuntimeWarning says so where they were not enough. On a GPU each look at the columns
                waits for the device. None makes all iterations, as SwAV does

    In logarithms, so no score overflows; on a CPU, scores within 40 eps of one another, as cosines at eps 0.05 are, by
    products of exp(scores / eps) with vectors, which is four times as fast. No gradient. Raises ValueError for another
    shape, eps, iterations or tolerance, and on a CPU for scores that are not finite.
    """
    check_matrix("scores", scores)
    check_positive(eps=eps, iterations=iterations)
    if tolerance is not None:
        check_positive(tolerance=tolerance)
    if iterations != int(iterations):
        raise ValueError(f"iterations must be a whole number, got {iterations}")
    with torch.no_grad(), torch.autocast(scores.device.type, enabled=False):
        scores = raised(scores)
        if scores.device.type == "cpu":  # elsewhere the look at the range would wait for the device
            log_q = scores / eps
            low, high = log_q.aminmax()
            if high - low <= 40:
                return _scaled(log_q.sub_(high).exp_(), int(iterations), tolerance)
            if not bool(torch.isfinite(scores).all()):
                raise ValueError("scores must be finite, got NaN or infinity")
        return _logarithms(scores / eps, int(iterations), tolerance)


def _scaled(kernel: Tensor, iterations: int, tolerance: float | None) -> Tensor:
    """diag(u) kernel diag(v) with even columns and then rows of sum 1, in turn.

    u and v grow apart by n/K an iteration: before that is exp(16), a power of two, which changes no digit, brings v
    back near 1.
    """
    n, k = kernel.shape
    u, v, every = kernel.new_ones(n), None, max(1, int(16 / (abs(math.log(n / k)) + 1e-9)))
    for i in range(iterations):
        column = u @ kernel
        if v is not None and _far(column * v, tolerance, n) == 0:
            break
        v = 1 / column
        if (i + 1) % every == 0:
            v = torch.ldexp(v, -torch.frexp(v.amax()).exponent)
        u = 1 / (kernel @ v)
    else:
        _warn(_far((u @ kernel).mul_(v), tolerance, n) if tolerance else 0, tolerance, iterations)
    return kernel.mul_(u[:, None]).mul_(v)


def _logarithms(log_q: Tensor, iterations: int, tolerance: float | None) -> Tensor:
    n = len(log_q)
    log_q = log_q.clamp(-1e30, 1e30)  # finite for any eps
    for i in range(iterations):
        column = log_q.logsumexp(0)
        if i and _far(column.exp(), tolerance, n) == 0:
            break
        log_q = log_q - column
        log_q = log_q - log_q.logsumexp(1, keepdim=True)
    else:
        _warn(_far(log_q.logsumexp(0).exp(), tolerance, n) if tolerance else 0, tolerance, iterations)
    return log_q.exp()


def _far(sums: Tensor, tolerance: float | None, n: int) -> float:
    """The largest distance of a column's sum from n/K, as a share of it; 0 within the tolerance, NaN without one."""
    if tolerance is None:
        return math.nan
    off = float((sums * (len(sums) / n) - 1).abs().max())
    return 0.0 if off <= tolerance else off


def _warn(off: float, tolerance: float | None, iterations: int) -> None:
    if off:
        warnings.warn(
            f"scores' columns are {off:.2g} away from even after {iterations} iterations, tolerance is "
            f"{tolerance:.2g}: raise iterations, eps or tolerance",
            RuntimeWarning, stacklevel=4,
        )  # fmt: skip
