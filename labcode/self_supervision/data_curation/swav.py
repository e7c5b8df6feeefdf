"""SwAV (Caron et al., 2020): swapped prediction of assignments, the unlabelled arm of pre-training for faces."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...loss import check_matrix, check_positive, float32, unit_rows
from ...nets import mlp
from ...parallel import gather
from ...transport import sinkhorn_codes


@float32
def swapped_prediction(
    z: Float[Tensor, "two_n d"], prototypes: Float[Tensor, "k d"], tau: float = 0.1, eps: float = 0.05
) -> Float[Tensor, ""]:
    """Each view predicts the other's assignment: the mean of -Σ_k q_other log softmax(z·c/τ).

    SwAV, eq. 2. Rows i and i + n of z are views of one image; z and the prototypes are normalised here. Assignments
    come from Sinkhorn iterations within each view and carry no gradient.

    tau  temperature of the prediction, > 0
    eps  entropy of the assignments, see ``sinkhorn_codes``

    A row of zeros is like no prototype, and its gradient is 0; see ``loss.unit_rows``.

    Raises ValueError for an odd number of rows, prototypes of another width, and temperatures that are not positive.
    """
    check_matrix("z", z, rows=2, even=True)
    check_matrix("prototypes", prototypes)
    check_positive(tau=tau, eps=eps)
    if prototypes.shape[1] != z.shape[1]:
        raise ValueError(f"prototypes must be as wide as z, {z.shape[1]}, got {prototypes.shape[1]}")
    scores = unit_rows(z) @ unit_rows(prototypes).T
    targets = torch.cat([sinkhorn_codes(half, eps) for half in scores.detach().chunk(2)]).roll(len(z) // 2, 0)
    return -(targets * (scores / tau).log_softmax(1)).sum(1).mean()


class SwAV(nn.Module):
    """Encoder, projector and prototypes of SwAV.

    prototypes  their number; 3000 for ImageNet, a few times the classes one hopes for here
    freeze      steps during which the prototypes stay as they were drawn: 313 in the released face recipe

    Departure: two views, no small crops.
    """

    def __init__(self, encoder: nn.Module, prototypes: int = 64, dim: int = 64, tau: float = 0.1, eps: float = 0.05,
                 freeze: int = 0):  # fmt: skip
        super().__init__()
        self.encoder, self.head = encoder, mlp([encoder.features, encoder.features, dim])
        self.prototypes = nn.Parameter(F.normalize(torch.randn(prototypes, dim), dim=1))
        self.tau, self.eps, self.freeze = tau, eps, freeze
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, views: Float[Tensor, "two_n c h w"], index: Int[Tensor, " n"]) -> Float[Tensor, ""]:
        z = gather(self.head(self.encoder(views)), views=2)
        moving = (self.seen >= self.freeze).to(z.dtype)  # no wait for the device: the gradient is scaled by 0 or 1
        prototypes = moving * self.prototypes + (1 - moving) * self.prototypes.detach()
        self.seen += 1
        return swapped_prediction(z, prototypes, self.tau, self.eps)
