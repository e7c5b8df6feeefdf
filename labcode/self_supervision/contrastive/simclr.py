"""SimCLR: an image's two views must find each other among all other views of the batch.

Chen et al. (2020): NT-Xent, and the encoder with its projection head.
"""

from jaxtyping import Float, Int
from torch import Tensor, nn

from ...loss import check_matrix, check_positive, float32, not_negative, unit_rows
from ...nets import mlp
from ...pairwise import logsumexp_others
from ...parallel import gather


@float32
def nt_xent(z: Float[Tensor, "two_n d"], tau: float = 0.5) -> Float[Tensor, ""]:
    """Normalised temperature-scaled cross entropy over a batch of positive pairs.

    SimCLR (Chen et al., 2020), eq. 1. Rows i and i + n of ``z`` are the two views of image i; the other 2n - 2 rows
    are its negatives.

    z    unnormalised projections, both views stacked, n >= 1
    tau  temperature > 0; 0.5 is the paper's choice for CIFAR-10

    At least 0, and 0 for a single image, which has no negatives. A row of zeros has no direction and no gradient
    (``loss.unit_rows``). Raises ValueError for an odd number of rows, none, or tau <= 0. Memory: see
    ``pairwise.logsumexp_others``.
    """
    check_matrix("z", z, rows=2, even=True)
    check_positive(tau=tau)
    n, z = len(z) // 2, unit_rows(z)
    positive = (z[:n] * z[n:]).sum(1).repeat(2) / tau
    return not_negative(logsumexp_others(z, tau) - positive).mean()


class SimCLR(nn.Module):
    """Encoder, projection head and NT-Xent: the baseline of the chapter.

    dim   width of the projection
    tau   temperature
    head  "linear" or "mlp" (one hidden layer of the encoder's width, with BatchNorm)
    loss  another loss of the stacked projections in place of NT-Xent
    """

    def __init__(self, encoder: nn.Module, dim: int = 128, tau: float = 0.2, head: str = "linear", loss=None):
        super().__init__()
        d = encoder.features
        self.encoder, self.tau = encoder, tau
        self.head = mlp([d, dim] if head == "linear" else [d, d, dim])
        self.loss = loss or (lambda z: nt_xent(z, tau))

    def forward(self, views: Float[Tensor, "two_n c h w"], index: Int[Tensor, "n"]) -> Float[Tensor, ""]:
        return self.loss(gather(self.head(self.encoder(views)), views=2))
