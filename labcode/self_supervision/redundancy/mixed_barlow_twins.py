"""Mixed Barlow Twins (Bandara et al., 2023): features of mixed images are to be mixtures of features."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...loss import check_index, check_matrix, check_positive, float32
from ...nets import mlp
from ...parallel import gather
from .barlow_twins import barlow_twins
from .cross_norm import Rows, Scalar, check_views, cross_norm2, standardise
from .two_views import Projected


@float32
def mixed_barlow(
    z_mixed: Rows, z1: Rows, z2: Rows, alpha: float | Tensor, order: Int[Tensor, " n"], gram: bool | None = None
) -> Scalar:
    """How far the mixed images' features are from the mixture of features: ‖C_MA - G_MA‖² + ‖C_MB - G_MB‖².

    Mixed Barlow Twins (Bandara et al., 2023): C_MA = z_Mᵀz_A/n is measured, G_MA = α z_Aᵀz_A/n + (1-α) z_B[order]ᵀz_A/n
    is what linear interpolation would give; likewise with B. All d² entries count, gradients flow through the targets.

    z_mixed  projections of α · x_A + (1-α) · x_B[order]
    alpha    in [0, 1], one for the batch
    order    the permutation of the second view

    Raises ValueError for shapes that do not fit together and an alpha out of range.

    Both differences have the residual r = z_M - α z_A - (1-α) z_B[order] as first factor, so this is
    (‖rᵀz_A‖² + ‖rᵀz_B‖²)/n², without a target matrix.
    """
    check_views(z1, z2)
    check_matrix("z_mixed", z_mixed, rows=2, like=z1)
    if not isinstance(alpha, Tensor) and not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be in [0, 1], got {alpha}")
    if order.shape != (len(z1),):
        raise ValueError(f"order must be a permutation of the {len(z1)} rows, got shape {tuple(order.shape)}")
    check_index("order", order, len(z1))
    m, a, b = standardise(z_mixed), standardise(z1), standardise(z2)
    residual = m - alpha * a - (1 - alpha) * b[order]
    return (cross_norm2(residual, a, gram) + cross_norm2(residual, b, gram)) / len(a) ** 2


@float32
def nonlinear_share(z_mixed: Rows, z1: Rows, z2: Rows, alpha: float, order: Int[Tensor, " n"]) -> Scalar:
    """1 - r², the mean over features: what of the mixed images' features is no mixture of the features. In [0, 1].

    r is the correlation over the batch of z_mixed with α z1 + (1-α) z2[order]: 0 where the network is linear between
    images, whatever the features' scales; a constant feature counts 1. It measures what the guard asks for, by another
    formula than the guard's.
    """
    check_views(z1, z2)
    check_matrix("z_mixed", z_mixed, rows=2, like=z1)
    if order.shape != z1.shape[:1]:
        raise ValueError(f"order must be one place for each of the {len(z1)} rows, got shape {tuple(order.shape)}")
    check_index("order", order, len(z1))
    found, wanted = standardise(z_mixed), standardise(alpha * z1 + (1 - alpha) * z2[order])
    return 1 - (found * wanted).mean(0).square().mean()


class MixedBarlow(Projected):
    """Barlow Twins with the mixed guard: ``barlow_twins`` + weight · λ · ``mixed_barlow``.

    dim     width of the projector
    lam     λ; None is 1/dim
    weight  λ_reg; 4 in the paper's CIFAR recipe, 0 is plain Barlow Twins without the third forward

    Views and mixture go through the network one by one, as in the paper: with batch statistics of their own the guard
    is exactly 0 at α = 0 and α = 1. α is uniform, Beta(1, 1), one a batch.
    """

    def __init__(self, encoder: nn.Module, dim: int = 256, lam: float | None = None, weight: float = 4.0,
                 scale: float = 1.0):  # fmt: skip
        super().__init__()
        check_positive(scale=scale)
        self.encoder, self.head = encoder, mlp([encoder.features, dim, dim])
        self.lam, self.weight, self.scale = 1 / dim if lam is None else lam, weight, scale

    def forward(self, views: Float[Tensor, "two_n c h w"], index: Int[Tensor, " n"]) -> Scalar:
        if len(views) < 4 or len(views) % 2:
            raise ValueError(f"views must be two views of at least two images, stacked, got shape {tuple(views.shape)}")
        x1, x2 = views.chunk(2)
        z1, z2 = gather(self.project(x1)), gather(self.project(x2))
        loss = barlow_twins(z1, z2, self.lam)
        if self.weight:
            alpha, order = gather(torch.rand(1, device=x1.device))[0], torch.randperm(len(x1), device=x1.device)
            loss = loss + self.weight * self.lam * self.guard(x1, x2, z1, z2, alpha, order)
        return self.scale * loss

    def guard(self, x1, x2, z1: Rows, z2: Rows, alpha: float | Tensor, order: Int[Tensor, " n"]) -> Scalar:
        """``mixed_barlow`` of the images mixed with α: the third forward.

        With several processes the images are one's own, z1 and z2 those of all.
        """
        mixed, everyone = gather(self.project(alpha * x1 + (1 - alpha) * x2[order])), gather(order)
        first = torch.arange(len(everyone), device=order.device) // len(order) * len(order)
        return mixed_barlow(mixed, z1, z2, alpha, everyone + first)


class FlatNet(nn.Module):
    """A two-layer perceptron on the pixels, for long trainings on few images: a tenth of a conv net's cost."""

    def __init__(self, pixels: int = 192, features: int = 256):
        super().__init__()
        self.features = features
        self.body = nn.Sequential(
            nn.Flatten(), nn.Linear(pixels, features, bias=False), nn.BatchNorm1d(features), nn.ReLU(),
            nn.Linear(features, features, bias=False), nn.BatchNorm1d(features), nn.ReLU(),
        )  # fmt: skip

    def forward(self, x: Float[Tensor, "n c h w"]) -> Rows:
        return self.body(x - 0.5)
