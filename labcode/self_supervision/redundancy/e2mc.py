"""E2MC (Chakraborty et al., 2024): finish a training with the entropy of every single feature."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ...loss import check_matrix, check_positive, float32, unit_rows
from .cross_norm import Rows, Scalar, check_views
from .vicreg import covariance_penalty


@float32
def m_spacing_entropy(u: Rows, m: int | None = None, eps: float = 1e-7) -> Float[Tensor, " d"]:
    """Differential entropy of every column in nats, from the gaps between its sorted values (Vasicek).

    E2MC (Chakraborty et al., 2024): H = 1/(n-m) Σᵢ log((n+1)/m · (u₍ᵢ₊ₘ₎ - u₍ᵢ₎) + eps). On [0, 1] the largest
    entropy is 0, of the uniform distribution.

    m    spacing, 1 … n-1; None is round(√n)
    eps  1e-7; values that tie give log(eps) each

    Raises ValueError for n < 2 and an m out of range. A finite sample is biased downwards by a few hundredths of a nat.
    """
    check_matrix("u", u, rows=2)
    n = len(u)
    m = max(1, round(n**0.5)) if m is None else m
    if not 1 <= m < n:
        raise ValueError(f"m must be between 1 and {n - 1}, got {m}")
    ordered = u.sort(0).values
    return ((n + 1) / m * (ordered[m:] - ordered[:-m]) + eps).log().mean(0)


@float32
def e2mc(z1: Rows, z2: Rows, entropy: float = 10.0, cov: float = 1.0) -> Scalar:
    """Maximum entropy of each feature and no pairwise covariance: what is added to a trained model's own loss.

    cov · L_cov - entropy · mean_d H_d, of the embeddings mapped to (0, 1) by the sigmoid (for VICReg). As in the
    authors' code entropies are averaged over the views and covariances summed; weights 10 and 1 are its defaults.

    Raises ValueError for unlike views and n < 2.
    """
    check_views(z1, z2)
    total = z1.new_zeros(())
    for u in (z1.sigmoid(), z2.sigmoid()):
        if entropy:
            total = total - entropy / 2 * m_spacing_entropy(u).mean()
        if cov:
            total = total + cov * covariance_penalty(u)
    return total


@float32
def uniformity_loss(z: Rows, t: float = 2.0) -> Scalar:
    """log mean exp(-t ‖zᵢ - zⱼ‖²) over pairs on the unit sphere (Wang and Isola, 2020): the rival add-on.

    In the logarithm, so any t > 0. Raises ValueError for n < 2 and t out of range.
    """
    check_matrix("z", z, rows=2)
    check_positive(t=t)
    squared = F.pdist(unit_rows(z)).square()
    return squared.mul(-t).logsumexp(0) - math.log(len(squared))


def distance_to_uniform(u: Rows) -> float:
    """Mean over columns of the Kolmogorov-Smirnov distance to the uniform distribution on [0, 1]."""
    check_matrix("u", u)
    u, n = u.double(), len(u)
    grid = torch.arange(n + 1, device=u.device, dtype=u.dtype)[:, None] / n
    ordered = u.sort(0).values
    return torch.maximum(grid[1:] - ordered, ordered - grid[:-1]).amax(0).mean().item()
