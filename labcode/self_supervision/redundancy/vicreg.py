"""VICReg (Bardes et al., 2022): invariance, variance and covariance."""

import torch.nn.functional as F

from ...loss import check_matrix, float32
from .cross_norm import Rows, Scalar, centred, check_views, off_diagonal2


@float32
def vicreg(
    z1: Rows, z2: Rows, sim: float = 25.0, std: float = 25.0, cov: float = 1.0, gram: bool | None = None
) -> Scalar:
    """Invariance, variance and covariance: the base loss of the continued training.

    VICReg (Bardes et al., 2022), eq. 1 to 6: sim · mean squared distance + std · mean hinge(1 - √(Var + 1e-4)),
    averaged over views + cov · Σᵢ≠ⱼ Cov²ᵢⱼ / d, summed over views.

    Departure: distances are averaged over features and hinges over views, as in the authors' code, to which the
    weights 25, 25 and 1 belong. Raises ValueError for unlike views and n < 2.
    """
    check_views(z1, z2)
    loss, (n, d) = sim * F.mse_loss(z1, z2), z1.shape
    for z in (centred(z1), centred(z2)):
        z = z / (n - 1) ** 0.5
        loss = loss + std / 2 * F.relu(1 - (z.square().sum(0) + 1e-4).sqrt()).mean()
        loss = loss + cov / d * off_diagonal2(z, z, gram)
    return loss


@float32
def covariance_penalty(z: Rows, gram: bool | None = None) -> Scalar:
    """Σᵢ≠ⱼ Cov(z)²ᵢⱼ / d over a batch of n >= 2 rows."""
    check_matrix("z", z, rows=2)
    n, d = z.shape
    z = centred(z) / (n - 1) ** 0.5
    return off_diagonal2(z, z, gram) / d
