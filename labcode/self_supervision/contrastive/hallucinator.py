"""Hallucinator: a harder positive, made in feature space (Wu et al., 2023)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...loss import check_matrix, float32, unit_rows
from ...nets import mlp
from ...parallel import gather
from .simclr import SimCLR


@float32
def hallucinate(
    z1: Float[Tensor, "n d"], z2: Float[Tensor, "n d"], amount: Float[Tensor, " n"]
) -> Float[Tensor, "n d"]:
    """z₂ + λ (z₂ - z₁) for normalised z: the second view pushed away from the first, by its own λ for every image.

    Hallucination (Wu et al., 2023). λ > 0 extrapolates, -1 < λ < 0 interpolates, 0 gives z₂.

    Raises ValueError for shapes that do not fit. The formula is our reading of the paper's description.
    """
    check_matrix("z1", z1, rows=1)
    check_matrix("z2", z2, like=z1)
    if amount.shape != (len(z1),):
        raise ValueError(f"amount must be one value for each of the {len(z1)} rows, got shape {tuple(amount.shape)}")
    z1, z2 = unit_rows(z1), unit_rows(z2)
    return z2 + amount[:, None] * (z2 - z1)


class Hallucinator(SimCLR):
    """SimCLR with a second positive pair (z₁, z_h), z_h made from the features of both views.

    mode       "extrapolate" (λ uniform in 0 … 1), "interpolate" (in -1 … 0), or "none": z_h = z₂
    reach      the largest λ; 1 by default
    nonlinear  z_h goes through a small residual network that the same loss trains

    Our choices, as the paper's were not to be confirmed: λ's range, the network (one hidden layer), and the mean of
    the two losses. The hallucination happens between head and loss, so it costs no pass through the encoder.
    """

    def __init__(
        self, encoder: nn.Module, dim: int = 128, tau: float = 0.2, mode: str = "extrapolate", nonlinear: bool = True,
        reach: float = 1.0,
    ):  # fmt: skip
        super().__init__(encoder, dim, tau)
        if mode not in ("extrapolate", "interpolate", "none"):
            raise ValueError(f"mode must be 'extrapolate', 'interpolate' or 'none', got {mode!r}")
        self.reach = reach * {"extrapolate": 1.0, "interpolate": -1.0, "none": 0.0}[mode]
        self.imagine = mlp([dim, dim, dim], norm=False) if nonlinear else None

    def forward(self, views: Float[Tensor, "two_n c h w"], index: Int[Tensor, "n"]) -> Float[Tensor, ""]:
        z = self.head(self.encoder(views))
        z1, z2 = z.chunk(2)
        imagined = torch.cat([z1, self.positive(z1, z2).to(z1.dtype)])
        return (self.loss(gather(z, views=2)) + self.loss(gather(imagined, views=2))) / 2

    def positive(self, z1: Float[Tensor, "n d"], z2: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """The hallucinated partner of z₁."""
        z = hallucinate(z1, z2, self.reach * torch.rand(len(z1), device=z1.device))
        return z if self.imagine is None else z + self.imagine(z)
