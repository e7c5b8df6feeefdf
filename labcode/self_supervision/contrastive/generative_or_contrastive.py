"""Generative or contrastive (Liu et al., 2021): the generative rivals, and what is read from a representation."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int, Shaped
from torch import Generator, Tensor, nn

from ...augment import _repeat, noise, to_float, warp
from ...loss import check_matrix, check_positive, float32, unit_rows


def noisy_views(std: float = 0.1) -> Callable[..., Float[Tensor, "two_n c h w"]]:
    """A view maker for the autoencoders: rows i with Gaussian noise of standard deviation std, rows i + n clean."""

    def views(x: Tensor, generator: Generator) -> Tensor:
        x = to_float(x)
        return torch.cat([noise(x, std, generator=generator), x])

    return views


def colour_keeping_views(x: Shaped[Tensor, "n 3 h w"], generator: Generator) -> Float[Tensor, "two_n 3 h w"]:
    """``augment.scene_views`` without its colours: the same little geometry and noise, twice."""
    x = _repeat(x, 2)
    away = torch.rand(len(x), 2, 3, generator=generator, device=x.device) * 0.1 - 0.05
    return noise(warp(x, torch.eye(2, 3, device=x.device) + away, "reflection"), 0.02, generator=generator)


class Decoder(nn.Module):
    """Features (n, d) -> images (n, 3, size, size), by two transposed convolutions of stride 2."""

    def __init__(self, features: int, size: int, width: int = 64):
        super().__init__()
        self.side = size // 4
        self.first = nn.Linear(features, width * self.side**2)
        self.body = nn.Sequential(
            nn.GELU(), nn.ConvTranspose2d(width, width // 2, 2, stride=2),
            nn.GELU(), nn.ConvTranspose2d(width // 2, 3, 4, stride=2, padding=1),
        )  # fmt: skip

    def forward(self, h: Float[Tensor, "n d"]) -> Float[Tensor, "n 3 size size"]:
        return 0.5 + self.body(self.first(h).unflatten(1, (-1, self.side, self.side)))


class DenoisingAutoencoder(nn.Module):
    """Reconstruct the clean image from a noisy one (Vincent et al., 2008): squared error, summed over the pixels."""

    def __init__(self, encoder: nn.Module, size: int = 8):
        super().__init__()
        self.encoder, self.decoder = encoder, Decoder(encoder.features, size)

    def forward(self, views: Float[Tensor, "two_n c h w"], index: Int[Tensor, " n"]) -> Float[Tensor, ""]:
        noisy, clean = views.chunk(2)
        return (self.decoder(self.encoder(noisy)) - clean).float().square().sum((1, 2, 3)).mean()


@float32
def negative_elbo(
    x: Float[Tensor, "n c h w"], decoded: Float[Tensor, "n c h w"], mean: Float[Tensor, "n d"],
    log_var: Float[Tensor, "n d"], sigma: float = 0.1,
) -> Float[Tensor, ""]:  # fmt: skip
    """‖x - decoded‖² / 2σ² + KL(N(mean, exp log_var) ‖ N(0, 1)), a mean over images: VAE (Kingma and Welling), eq. 10.

    sigma  standard deviation > 0 of the pixels around the decoder's output; the constant of the Gaussian is left out

    Raises ValueError for matrices that do not fit together and sigma <= 0.
    """
    if x.ndim != 4 or decoded.shape != x.shape:
        raise ValueError(f"decoded must be like the images x, {tuple(x.shape)}, got {tuple(decoded.shape)}")
    if not x.is_floating_point() or not x.numel():
        raise ValueError(f"x must be floating-point images, got {x.dtype} of shape {tuple(x.shape)}")
    check_matrix("mean", mean, rows=1)
    check_matrix("log_var", log_var, rows=1, like=mean)
    if len(mean) != len(x):
        raise ValueError(f"mean must have one row for each of the {len(x)} images x, got {len(mean)}")
    check_positive(sigma=sigma)
    misfit = (x - decoded).square().flatten(1).sum(1) / (2 * sigma**2)
    kl = 0.5 * (mean.square() + (log_var.expm1() - log_var)).sum(1)  # exp - 1 would round below 0 at the prior
    return (misfit + kl).mean()


class VAE(nn.Module):
    """Variational autoencoder with a Gaussian code of ``dim`` numbers on top of the encoder's features.

    It reads the clean half of the views. ``sigma`` as in ``negative_elbo``.
    """

    def __init__(self, encoder: nn.Module, size: int = 8, dim: int = 64, sigma: float = 0.1):
        super().__init__()
        self.encoder, self.decoder, self.sigma = encoder, Decoder(dim, size), sigma
        self.code = nn.Linear(encoder.features, 2 * dim)

    def forward(self, views: Float[Tensor, "two_n c h w"], index: Int[Tensor, " n"]) -> Float[Tensor, ""]:
        x = views.chunk(2)[1]
        mean, log_var = self.code(self.encoder(x)).float().chunk(2, dim=1)
        z = mean + (0.5 * log_var).exp() * torch.randn_like(mean)
        return negative_elbo(x, self.decoder(z), mean, log_var, self.sigma)


@torch.no_grad()
def neighbour_r2(train_z: Tensor, train_t: Tensor, test_z: Tensor, test_t: Tensor, k: int = 20) -> float:
    """R² of predicting factors (n, t) by the mean of the k nearest training rows by cosine, averaged over the factors.

    What a representation puts near each other, where ``evaluate.ridge_r2`` asks what could be read from it at all.

    Raises ValueError for k outside 1 … training rows and for factors that do not pair with their rows.
    """
    check_matrix("train_z", train_z, rows=1)
    check_matrix("test_z", test_z, rows=1)
    if len(train_t) != len(train_z) or len(test_t) != len(test_z):
        raise ValueError(f"train_t and test_t must pair with {len(train_z)} and {len(test_z)} rows, "
                         f"got {len(train_t)} and {len(test_t)}")  # fmt: skip
    if not 1 <= k <= len(train_z):
        raise ValueError(f"k must be between 1 and the {len(train_z)} training rows, got {k}")
    train_z, test_z = unit_rows(train_z), unit_rows(test_z)
    guess = torch.cat([train_t[(z @ train_z.T).topk(k, dim=1, sorted=False)[1]].mean(1) for z in test_z.split(4096)])
    rest = (test_t - guess).square().sum(0) / (test_t - test_t.mean(0)).square().sum(0)
    return float(1 - rest.mean())


def picture_factors(images: Shaped[Tensor, "n 3 h w"]) -> Float[Tensor, "n 4"]:
    """The nuisances of any image: its mean red, green and blue, and its contrast (standard deviation of the grey)."""
    x = to_float(images)
    return torch.cat([x.mean((2, 3)), x.mean(1).std((1, 2))[:, None]], 1)
