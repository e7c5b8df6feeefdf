"""Barlow Twins (Zbontar et al., 2021): the cross-correlation of two views' features becomes the identity."""

from jaxtyping import Float
from torch import Tensor

from ...loss import float32
from .cross_norm import Rows, Scalar, check_views, off_diagonal2, standardise

Square = Float[Tensor, "d d"]


@float32
def cross_correlation(z1: Rows, z2: Rows) -> Square:
    """C, the correlation over the batch of every feature of one view with every feature of the other; in [-1, 1].

    Barlow Twins (Zbontar et al., 2021), eq. 2.
    """
    check_views(z1, z2)
    return standardise(z1).T @ standardise(z2) / len(z1)


@float32
def barlow_twins(
    z1: Rows, z2: Rows, lam: float = 0.0051, on: float = 1.0, gram: bool | None = None, within: bool = False
) -> Scalar:
    """Cross-correlation matrix towards the identity: on · Σᵢ (1 - Cᵢᵢ)² + λ · Σᵢ≠ⱼ Cᵢⱼ².

    Barlow Twins, eq. 1. Gradients flow through both views.

    z1, z2  projections (n, d) of the two views, n >= 2, not normalised
    lam     λ >= 0; the paper's 0.0051 belongs to d = 8192. The sum has d² terms: take about 1/d when d changes
    on      weight of the diagonal; 1 in the paper, 0 leaves the off-diagonal term alone
    gram    see ``off_diagonal2``: C itself is never made where n×n matrices are cheaper
    within  a control, not the paper's: redundancy is measured within each view, Σᵢ≠ⱼ of both autocorrelations halved

    Raises ValueError for unlike views, n < 2, and negative weights.
    Departure: 1e-5 under the root of the variance, as in BatchNorm, so a constant feature has correlation 0.
    """
    check_views(z1, z2)
    if lam < 0 or on < 0:
        raise ValueError(f"lam and on must be at least 0, got {lam} and {on}")
    a, b = standardise(z1), standardise(z2)
    diagonal = (a * b).mean(0)
    loss = on * (1 - diagonal).square().sum()
    if lam and within:
        for z in (a, b):
            loss = loss + lam / 2 * off_diagonal2(z, z, gram) / len(z) ** 2
    elif lam:
        loss = loss + lam * off_diagonal2(a, b, gram) / len(a) ** 2
    return loss
