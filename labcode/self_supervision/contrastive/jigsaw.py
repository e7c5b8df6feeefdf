"""Jigsaw: put the quarters of a picture back in their order (Noroozi and Favaro, 2016). A rival in NPID's table."""

from itertools import permutations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn


def tiled(x: Float[Tensor, "n c h w"], order: Int[Tensor, "n 4"]) -> Float[Tensor, "n c h w"]:
    """Each image's four quarters in another order: place j of the new image, row by row, holds quarter order[:, j].

    Raises ValueError for odd sides and for an order of another shape.
    """
    n, c, h, w = x.shape
    if h % 2 or w % 2:
        raise ValueError(f"x must have even sides, got {h} and {w}")
    if order.shape != (n, 4):
        raise ValueError(f"order must be ({n}, 4), got {tuple(order.shape)}")
    quarters = x.view(n, c, 2, h // 2, 2, w // 2).permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
    quarters = quarters.gather(1, order.view(n, 4, 1, 1, 1).expand_as(quarters))
    return quarters.unflatten(1, (2, 2)).permute(0, 3, 1, 4, 2, 5).reshape(x.shape)


class Jigsaw(nn.Module):
    """Shuffle the quarters of one view and tell which of the 24 orders it was.

    Departure: four tiles of one picture, put together again and read by the encoder as a whole; the paper reads nine
    tiles one by one, with gaps between them, and uses a subset of their orders.
    """

    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(encoder.features, 24)
        self.register_buffer("orders", torch.tensor(list(permutations(range(4)))), persistent=False)

    def forward(self, views: Float[Tensor, "views_n c h w"], index: Int[Tensor, " n"]) -> Float[Tensor, ""]:
        which = torch.randint(len(self.orders), (len(index),), device=views.device)
        shuffled = tiled(views[: len(index)], self.orders[which])
        return F.cross_entropy(self.head(self.encoder(shuffled)), which)
