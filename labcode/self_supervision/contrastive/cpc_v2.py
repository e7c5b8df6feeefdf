"""CPC v2: contrastive prediction on a grid of overlapping patches (Hénaff et al., 2020)."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Generator, Tensor, nn

from ...augment import colour_rotation as _colour_rotation
from ...augment import to_float
from .cpc import info_nce

Patches = Float[Tensor, "n rows cols c p p"]


def patches(x: Shaped[Tensor, "n c h w"], size: int, stride: int) -> Patches:
    """The image cut into overlapping squares, rows by columns; a uint8 image becomes float in [0, 1].

    CPC v2 (Hénaff et al., 2020), section 2.1. 7 × 7 for 16 pixels with size 4 and stride 2, and for 32 with 8 and 4.

    Raises ValueError unless 1 <= stride and size fits into the image.
    """
    x = to_float(x)
    if not (1 <= stride and 1 <= size <= min(x.shape[2:])):
        raise ValueError(f"size and stride must fit an image {tuple(x.shape[2:])}, got {size} and {stride}")
    return x.unfold(2, size, stride).unfold(3, size, stride).permute(0, 2, 3, 1, 4, 5)


def drop_colours(x: Float[Tensor, "n 3 h w"], p: float = 0.5, *, generator: Generator) -> Float[Tensor, "n 3 h w"]:
    """Two of the three colour channels, drawn for each row, blanked to mid-grey with probability p. CPC v2, sec. 3.1.

    Departure: not in every patch, so that the encoder also meets the full colour that a test shows it.
    """
    keep = torch.randint(3, (len(x), 1, 1, 1), generator=generator, device=x.device)
    kept = (keep == torch.arange(3, device=x.device).view(1, 3, 1, 1)) | (
        torch.rand(len(x), 1, 1, 1, generator=generator, device=x.device) >= p
    )
    return torch.where(kept, x, 0.5)


def patch_views(
    size: int = 4, stride: int = 2, drop: bool = True, turn: bool = True
) -> Callable[..., Float[Tensor, "n rows cols c p p"]]:
    """A view maker for ``Stage.pretrain``: the patch grid of each image, every patch augmented by its own draw.

    drop  two of three colours dropped (``drop_colours``)
    turn  colours turned about the patch's mean and the mean redrawn, the scenes' photometric view, in the
          place of the paper's longer list
    """

    def views(x: Tensor, generator: Generator) -> Tensor:
        grid = patches(x, size, stride)
        flat = grid.reshape(-1, *grid.shape[3:])
        if turn:
            flat = _colour_rotation(flat, generator=generator)
        if drop:
            flat = drop_colours(flat, generator=generator)
        return flat.view(grid.shape)

    return views


class PatchEncoder(nn.Module):
    """g_enc on every patch alone: (n, rows, cols, c, p, p) -> (n, rows, cols, dim).

    norm   "layer": of one patch, as in v2; "batch": over all patches of the batch, as in v1
    depth  residual layers after the first
    pool   side of the grid of averages that ``forward(images)`` returns, ``features`` = pool² · dim wide

    Departure: layers on the patch's pixels in the place of a ResNet. A linear layer on a 4 × 4 patch is a convolution
    that has seen all of it.
    """

    def __init__(
        self, size: int = 4, stride: int = 2, width: int = 96, dim: int = 48, norm: str = "layer", depth: int = 1,
        pool: int = 3,
    ):  # fmt: skip
        super().__init__()
        if norm not in ("layer", "batch"):
            raise ValueError(f"norm must be 'layer' or 'batch', got {norm!r}")
        make = nn.LayerNorm if norm == "layer" else nn.BatchNorm1d
        self.size, self.stride, self.dim, self.pool, self.features = size, stride, dim, pool, pool**2 * dim
        self.first = nn.Sequential(nn.Linear(3 * size * size, width), make(width), nn.GELU())
        self.rest = nn.ModuleList(nn.Sequential(nn.Linear(width, width), make(width), nn.GELU()) for _ in range(depth))
        self.last = nn.Linear(width, dim)

    def grid(self, patches: Patches) -> Float[Tensor, "n rows cols d"]:
        h = self.first(patches.flatten(3).flatten(0, 2) - 0.5)
        for layer in self.rest:
            h = h + layer(h)
        return self.last(h).view(*patches.shape[:3], self.dim)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        z = self.grid(patches(x, self.size, self.stride)).permute(0, 3, 1, 2)
        return F.adaptive_avg_pool2d(z, self.pool).flatten(1)


class MaskedContext(nn.Module):
    """g_ar on a grid: convolutions that see their own row and those above, never below: (n, d, rows, cols) -> same."""

    def __init__(self, dim: int, layers: int = 2):
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(dim, dim, (2, 3)) for _ in range(layers))

    def forward(self, z: Float[Tensor, "n d rows cols"]) -> Float[Tensor, "n d rows cols"]:
        c = z
        for layer in self.layers:
            c = c + F.gelu(layer(F.pad(c, (1, 1, 1, 0))))
        return c


class PatchCPC(nn.Module):
    """CPC on images: the context of row i predicts the patches k rows further. CPC, section 3.2; CPC v2, eq. 1.

    directions  1: downwards; 2: and upwards; 4: and to both sides, each with its own context network and W_k
    ahead       the k; with a stride of half a patch, k = 1 shares half its pixels with row i, k = 2 none
    pool        images, neighbours in the batch, that give each other negatives, from all positions
    layers      of the context network

    A batch that is no multiple of ``pool`` makes one pool of all. W_k starts as I/√d: from a small random matrix the
    loss stays on its plateau, log of the pool's size, longer.
    """

    def __init__(
        self, encoder: PatchEncoder, directions: int = 4, ahead: tuple[int, ...] = (1, 2), pool: int = 8,
        layers: int = 1,
    ):  # fmt: skip
        super().__init__()
        if directions not in (1, 2, 4):
            raise ValueError(f"directions must be 1, 2 or 4, got {directions}")
        d = encoder.dim
        self.encoder, self.ahead, self.pool = encoder, ahead, pool
        self.turns = {1: (0,), 2: (0, 2), 4: (0, 1, 2, 3)}[directions]  # quarter turns of the grid
        self.contexts = nn.ModuleList(MaskedContext(d, layers) for _ in self.turns)
        self.W = nn.Parameter(torch.eye(d).repeat(directions, len(ahead), 1, 1) / math.sqrt(d))

    def forward(self, views: Patches, index: Int[Tensor, " n"]) -> Float[Tensor, ""]:
        z = self.encoder.grid(views).permute(0, 3, 1, 2)
        pools = len(z) // self.pool if len(z) % self.pool == 0 else 1
        losses = []
        for turn, context, maps in zip(self.turns, self.contexts, self.W, strict=True):
            turned = torch.rot90(z, turn, (2, 3))
            c = context(turned).permute(0, 2, 3, 1)
            turned = turned.permute(0, 2, 3, 1)
            for k, W in zip(self.ahead, maps, strict=True):
                predicted, target = c[:, :-k] @ W, turned[:, k:]
                losses.append(info_nce(*(t.reshape(pools, -1, t.shape[-1]) for t in (predicted, target))))
        return torch.stack(losses).mean()


class LabelledPatches(nn.Module):
    """The rival without pretraining: the same patch encoder and a linear head, trained on a few labels.

    labels  of the rows of the images given to ``Stage.pretrain``
    """

    def __init__(self, encoder: PatchEncoder, labels: Int[Tensor, " n"], classes: int):
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(encoder.features, classes)
        self.register_buffer("labels", labels, persistent=False)

    def forward(self, views: Patches, index: Int[Tensor, " n"]) -> Float[Tensor, ""]:
        z = self.encoder.grid(views).permute(0, 3, 1, 2)
        z = F.adaptive_avg_pool2d(z, self.encoder.pool).flatten(1)
        return F.cross_entropy(self.head(z), self.labels[index])
