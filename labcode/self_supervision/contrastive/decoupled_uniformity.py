"""Decoupled uniformity: spread the averages of views, mixed by a kernel on a prior (Dufumier et al., 2023)."""

import math

import torch
from jaxtyping import Float, Int, Shaped
from torch import Generator, Tensor, nn

from ...augment import affine, to_float
from ...loss import check_matrix, check_positive, float32, unit_rows
from ...nets import mlp
from ...pairwise import off_diagonal
from ...parallel import gather


def attributes(
    images: Shaped[Tensor, "n c h w"], factors: dict[str, Tensor], grain: float = 0.5, seed: int = 0
) -> Float[Tensor, "n a"]:
    """What is known of each image: how much ink its rows and columns hold, each to mean 0 and variance 1, plus noise.

    factors  of the scenes; without a "mask" among them the 32 first principal components of the pixels
    grain    standard deviation of the noise
    """
    if "mask" in factors:
        ink = torch.cat([factors["mask"].sum(1), factors["mask"].sum(2)], 1)
        ink = (ink - ink.mean(0)) / ink.std(0).clamp_min(1e-6)
        return ink + grain * torch.randn(ink.shape, generator=torch.Generator().manual_seed(seed)).to(ink)
    pixels = images.flatten(1).float() / 255
    pixels = pixels - pixels.mean(0)
    return pixels @ torch.linalg.eigh(pixels.T @ pixels).eigenvectors[:, -32:]


def shifted_views(x: Tensor, generator: Generator, views: int = 2) -> Float[Tensor, "m c h w"]:
    """Weak views: the image moved by up to a tenth of its side, and nothing else."""
    return affine(to_float(x).repeat(views, 1, 1, 1), shift=0.1, padding="reflection", generator=generator)


@float32
@torch.no_grad()
def kernel_weights(
    prior: Float[Tensor, "n a"], sigma: float | None = None, lam: float = 0.01
) -> Float[Tensor, "n n"]:
    """Weights α = (K + λI)⁻¹ K of the conditional mean embedding, K_ij = exp(-‖p_i - p_j‖² / 2σ²).

    Kernel decoupled uniformity (Dufumier et al., 2023), section 4. K is symmetric, so α is too.

    prior  what is known of the images: attributes or a generative model's codes
    sigma  width of the kernel; the median distance if None. Too large, and all centroids become one
    lam    ridge λ > 0; 0.01 as released, where λ stands for the theorem's nλ

    No gradient. Priors of any size: a power of 2 is taken off first, which rounds nothing. Raises
    ValueError for fewer than 2 rows, or σ or λ that is not positive.
    """
    check_matrix("prior", prior, rows=2)
    check_positive(lam=lam)
    size = prior.abs().amax().clamp_min(1e-30).log2().floor().exp2()
    prior = prior / size
    squared = torch.cdist(prior, prior, compute_mode="donot_use_mm_for_euclid_dist").square()
    eye = torch.eye(len(prior), device=prior.device, dtype=prior.dtype)
    if sigma is None:
        width = off_diagonal(squared).median()
    else:
        check_positive(sigma=sigma)
        width = (sigma / size).square()
    kernel = torch.exp(-squared / (2 * width.clamp(min=1e-12)))
    factor = torch.linalg.cholesky_ex(kernel + lam * eye).L  # λ makes it definite: no look at whether it was
    return torch.cholesky_solve(kernel, factor)


@float32
def decoupled_uniformity(
    z: Float[Tensor, "two_n d"], weights: Float[Tensor, "n n"] | None = None, t: float = 2.0
) -> Float[Tensor, ""]:
    """log mean over x ≠ x' of exp(-t ‖μ_x - μ_x'‖²), with μ_x the mean of the views' unit vectors.

    Decoupled uniformity (Dufumier et al., 2023), eq. 3; with ``weights`` its kernel form, μ ← α μ. A centroid is not
    brought back to unit length: its length is how well the views agree, so spreading centroids pulls views together.

    z        unnormalised projections, both views stacked: rows i and i + n are image i; n >= 2
    weights  α from ``kernel_weights``, a constant; None leaves every centroid alone
    t        2 as released

    Between -4t and 0 without weights. Raises ValueError for an odd number of rows, n < 2 (one image has no other to be
    far from), t outside 1e-20 … 1e20, or weights of another shape.
    """
    check_matrix("z", z, rows=4, even=True)
    check_positive(t=t)
    if t > 1e20:
        raise ValueError(f"t must be at most 1e20, since float32 multiplies with it, got {t}")
    n, unit = len(z) // 2, unit_rows(z)
    centroid = (unit[:n] + unit[n:]) / 2
    if weights is not None:
        if weights.shape != (n, n):
            raise ValueError(f"weights must be ({n}, {n}), got {tuple(weights.shape)}")
        centroid = weights.detach().to(centroid.dtype) @ centroid
    length = centroid.square().sum(1)
    squared = (length[:, None] + length - 2 * centroid @ centroid.T).clamp_min(0)  # equal centroids round below
    return (-t * off_diagonal(squared)).flatten().logsumexp(0) - math.log(n * (n - 1))


class DecoupledUniformity(nn.Module):
    """Encoder, linear head and decoupled uniformity; with a prior, its kernel form.

    prior   (count, a) attributes of all training images, or None
    sigma   width of the kernel; the median distance within each batch if None
    """

    def __init__(
        self, encoder: nn.Module, prior: Float[Tensor, "m a"] | None = None, dim: int = 128, t: float = 2.0,
        sigma: float | None = None, lam: float = 0.01,
    ):  # fmt: skip
        super().__init__()
        self.encoder, self.head = encoder, mlp([encoder.features, dim])
        self.t, self.sigma, self.lam = t, sigma, lam
        self.register_buffer("prior", prior, persistent=False)

    def forward(self, views: Float[Tensor, "two_n c h w"], index: Int[Tensor, "n"]) -> Float[Tensor, ""]:
        weights = None if self.prior is None else kernel_weights(self.prior[gather(index)], self.sigma, self.lam)
        return decoupled_uniformity(gather(self.head(self.encoder(views)), views=2), weights, self.t)
