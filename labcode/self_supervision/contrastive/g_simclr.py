"""G-SimCLR: batches without look-alikes, by clustering a denoising autoencoder's latents (Chakraborty et al., 2020)."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from ...augment import noise, to_float


def clean_and_noisy(
    x: Tensor, generator: Generator, std: float = 0.01
) -> Float[Tensor, "two_n c h w"]:
    """The images as they are, then the same with Gaussian noise: what a denoising autoencoder is trained on."""
    x = to_float(x)
    return torch.cat([x, noise(x, std, generator=generator)])


class Autoencoder(nn.Module):
    """G-SimCLR's denoising autoencoder: three blocks of convolution, BatchNorm, ReLU and max-pooling, and back.

    ``encoder`` gives the latents averaged over positions, ``encoder.features`` = 128 of them. ``forward`` takes the
    views of ``clean_and_noisy`` and returns the mean squared error against the clean half. Image sides must be
    multiples of 8.
    """

    def __init__(self, encoder: nn.Module | None = None, widths: tuple[int, ...] = (32, 64, 128), channels: int = 3):
        super().__init__()
        sizes = [channels, *widths]
        down, up = [], []
        for n_in, n_out in zip(sizes[:-1], sizes[1:], strict=True):
            down += [nn.Conv2d(n_in, n_out, 3, padding=1), nn.BatchNorm2d(n_out), nn.ReLU(True), nn.MaxPool2d(2)]
        for n_in, n_out in zip(sizes[:0:-1], sizes[-2:0:-1], strict=False):
            up += [nn.Upsample(scale_factor=2), nn.Conv2d(n_in, n_out, 3, padding=1)]
            up += [nn.BatchNorm2d(n_out), nn.ReLU(True)]
        self.body = nn.Sequential(*down)
        self.decoder = nn.Sequential(*up, nn.Upsample(scale_factor=2), nn.Conv2d(widths[0], channels, 3, padding=1))
        self.encoder = nn.Sequential(self.body, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.encoder.features = widths[-1]

    def forward(self, views: Float[Tensor, "two_n c h w"], index: Int[Tensor, "n"]) -> Float[Tensor, ""]:
        if views.shape[2] % 8 or views.shape[3] % 8:
            raise ValueError(f"views must have sides that are multiples of 8, got shape {tuple(views.shape)}")
        clean, noisy = views.chunk(2)
        return F.mse_loss(self.decoder(self.body(noisy)).float(), clean.float())


def guided_order(clusters: Int[Tensor, " n"], seed: int = 0) -> Int[Tensor, " n"]:
    """An order of the images in which neighbours come from different clusters: rank within the cluster, then cluster.

    G-SimCLR (Chakraborty et al., 2020): with K clusters, batches of K consecutive images hold one image of each for as
    long as every cluster lasts; after that the large clusters repeat. Clusters may have any integers as names.
    """
    n, clusters = len(clusters), clusters.unique(return_inverse=True)[1]
    mixed = torch.randperm(n, generator=torch.Generator().manual_seed(seed)).to(clusters.device)
    grouped = mixed[clusters[mixed].argsort(stable=True)]
    sizes = torch.bincount(clusters)
    rank = torch.arange(n, device=clusters.device) - (sizes.cumsum(0) - sizes)[clusters[grouped]]
    return grouped[rank.argsort(stable=True)]


def fixed_batches(order: Int[Tensor, " n"], batch_size: int) -> Callable[[int], Tensor]:
    """The same consecutive batches of an order in every epoch, as G-SimCLR has them: ``step -> (batch_size,)``.

    Raises ValueError for a batch_size outside 1 … n.
    """
    if not 1 <= batch_size <= len(order):
        raise ValueError(f"batch_size must be between 1 and the {len(order)} images, got {batch_size}")
    parts = order[: len(order) // batch_size * batch_size].view(-1, batch_size)
    return lambda step: parts[step % len(parts)]


def false_negative_rate(order: Int[Tensor, " n"], labels: Int[Tensor, " n"], batch_size: int) -> float:
    """Share of an anchor's negatives that have its own label, over consecutive batches of an order. In [0, 1]."""
    parts = labels[order[: len(order) // batch_size * batch_size]].view(-1, batch_size)
    if batch_size < 2 or not len(parts):
        raise ValueError(f"batch_size must be between 2 and the {len(order)} images, got {batch_size}")
    same = (parts[:, :, None] == parts[:, None]).sum((1, 2)) - batch_size
    return float(same.float().mean() / (batch_size * (batch_size - 1)))
