"""What the chapter's methods share: k-means with restarts, and views of images as features."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from ...cluster import kmeans
from ...loss import check_matrix
from ...nets import evaluating

Rows = Float[Tensor, "n d"]
Labels = Int[Tensor, " n"]


def best_kmeans(
    x: Rows, k: int, seed: int = 0, restarts: int = 5, iterations: int = 50
) -> tuple[Float[Tensor, "k d"], Labels]:
    """Centroids and labels of the best of some k-means runs: smallest sum of squared distances to the own centroid.

    seed  of the first run; the others take the numbers after 1000 times it
    """
    check_matrix("x", x, rows=k)
    runs = [kmeans(x, k, 1000 * seed + i, iterations) for i in range(restarts)]
    return min(runs, key=lambda run: float((x - run[0][run[1]]).square().sum()))


@torch.no_grad()
def view_features(
    encoder: nn.Module, images: Tensor, views: Callable, count: int, *, generator: Generator, chunk: int = 1000
) -> Float[Tensor, "count n d"]:
    """What a frozen encoder makes of ``count`` random views of every image: augmentation for heads on features.

    views  as a ``Stage`` has them: ``views(images, generator=…, views=1)``
    """
    with evaluating(encoder):
        seen = [
            torch.cat([encoder(views(part, generator=generator, views=1)).float() for part in images.split(chunk)])
            for _ in range(count)
        ]
    return torch.stack(seen)
