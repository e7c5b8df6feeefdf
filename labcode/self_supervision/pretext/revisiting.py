"""Revisiting self-supervised visual representation learning (Kolesnikov et al., 2019): networks read block by block.

``BlockNet`` is the chapter's encoder at quick scale, ``StagedResNet`` at full; both with and without skips.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ... import nets
from .turning import Images


class BlockNet(nn.Module):
    """Four blocks that halve the map each: 16×16 pixels give maps of side 8, 4, 2 and 1. More blocks keep the last map.

    A block is a strided convolution, BatchNorm and GELU: 4×4 in the first, 2×2 in the others, 1×1 in the tail. They are
    matrix products of patches, read by row, pixel, channel: 13 ms for forward and backward of 256 images on one thread.

    width     channels of the first block; the next three have twice those of the one before, ``features`` is 8 × width
    tail      blocks after the fourth
    residual  each block of the tail adds its input to what it makes
    """

    def __init__(self, width: int = 32, tail: int = 0, residual: bool = False, channels: int = 3):
        super().__init__()
        self.residual, self.widths = residual, [width * 2**i for i in range(4)] + [8 * width] * tail
        self.features = self.widths[-1]
        inputs = [16 * channels, *(4 * w for w in self.widths[:3]), *self.widths[3:-1]]
        self.convs = nn.ModuleList(nn.Linear(i, o, bias=False) for i, o in zip(inputs, self.widths, strict=True))
        self.norms = nn.ModuleList(nn.BatchNorm1d(w) for w in self.widths)

    def maps(self, x: Images) -> list[Float[Tensor, "n _ _ _"]]:
        """The map (n, channels, side, side) after each block.

        Raises ValueError for sides that 16 does not divide, and in training for one image of 16×16: its last map is
        one value a channel, which has no variance to normalise.
        """
        if x.ndim != 4:
            raise ValueError(f"x must be images (n, c, h, w), got shape {tuple(x.shape)}")
        n, c, h, w = x.shape
        if h % 16 or w % 16:
            raise ValueError(f"x must have sides that are multiples of 16, got {h}×{w}")
        if self.training and n * h * w == 256:
            raise ValueError(f"x must be more than one image of 16×16 in training, got shape {tuple(x.shape)}")
        rows = F.pad((x - 0.5).permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1)).flatten(2)  # so a patch is four runs of memory
        y = rows.unfold(2, 4 * c, 2 * c).unfold(1, 4, 2).transpose(3, 4).reshape(-1, 16 * c)
        found = []
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            if i < 4:
                h, w = h // 2, w // 2
            if 0 < i < 4:
                y = y.view(n, h, 2, w, 2, -1).transpose(2, 3).reshape(n * h * w, -1)
            new = F.gelu(norm(conv(y)))
            y = y + new if self.residual and i > 3 else new
            found.append(y.view(n, h, w, -1).permute(0, 3, 1, 2))
        return found

    def forward(self, x: Images) -> Float[Tensor, "n d"]:
        return self.maps(x)[-1].mean((2, 3))


class StagedResNet(nets.ResNet18):
    """ResNet-18 whose four stages can be read; without ``residual`` its shortcuts carry nothing."""

    def __init__(self, width: int = 64, residual: bool = True, channels: int = 3):
        super().__init__(width, channels)
        self.widths = [width * 2**i for i in range(4)]
        if not residual:
            for block in self.stages:
                block.short = _Nothing()

    def maps(self, x: Images) -> list[Float[Tensor, "n _ _ _"]]:
        """The maps after the four stages."""
        y, found = self.stem((x - 0.47) / 0.25), []
        for i in range(4):
            y = self.stages[2 * i : 2 * i + 2](y)
            found.append(y)
        return found


class _Nothing(nn.Module):
    def forward(self, x: Tensor) -> float:
        return 0.0


class Block(nn.Module):
    """What an encoder holds after a block, counted from 1: its map, averaged to at most side × side, flattened."""

    def __init__(self, encoder: nn.Module, number: int, side: int = 4):
        super().__init__()
        if not 1 <= number <= len(encoder.widths):
            raise ValueError(f"number must be a block from 1 to {len(encoder.widths)}, got {number}")
        self.encoder, self.number, self.side = encoder, number, side

    def forward(self, x: Images) -> Float[Tensor, "n d"]:
        found = self.encoder.maps(x)[self.number - 1]
        return F.adaptive_avg_pool2d(found, min(self.side, found.shape[-1])).flatten(1)
