"""Encoder, projector and any loss of two views' projections: the module that all losses of this chapter share."""

from collections.abc import Callable

from jaxtyping import Float, Int
from torch import Tensor, nn

from ...loss import check_positive
from ...nets import mlp
from ...parallel import gather
from .cross_norm import Rows, Scalar


class Projected(nn.Module):
    """An ``encoder`` and a ``head``, with both as one ``network``."""

    encoder: nn.Module
    head: nn.Module

    @property
    def network(self) -> nn.Sequential:
        return nn.Sequential(self.encoder, self.head)

    def project(self, views: Float[Tensor, "n c h w"]) -> Rows:
        return self.head(self.encoder(views))


class TwoViews(Projected):
    """Encoder, projector and a loss of the two views' projections.

    loss   ``loss(z1, z2)``
    dim    width of the projection
    head   "linear", "mlp" (one hidden layer of width dim), or a trained projector to go on with
    scale  multiplies the loss: AdamW hardly feels it, SGD at full scale does
    """

    def __init__(self, encoder: nn.Module, loss: Callable[[Rows, Rows], Scalar], dim: int = 256,
                 head: str | nn.Module = "mlp", scale: float = 1.0):  # fmt: skip
        super().__init__()
        check_positive(scale=scale)
        self.encoder, self.loss, self.scale = encoder, loss, scale
        if head in ("linear", "mlp"):
            head = mlp([encoder.features, dim] if head == "linear" else [encoder.features, dim, dim])
        self.head = head

    def forward(self, views: Float[Tensor, "two_n c h w"], index: Int[Tensor, " n"]) -> Scalar:
        return self.scale * self.loss(*gather(self.project(views), views=2).chunk(2))
