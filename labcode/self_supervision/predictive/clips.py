"""Clips (n, t, c, h, w) of videos, uint8 or floats in [0, 1]: cut, coloured anew, and encoded by two small networks.

``labcode.data.moving_scenes`` makes them. The chapter's methods have a ``forward(views, index)`` that returns the loss,
and ``Stage.pretrain`` trains them.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Generator, Tensor, nn

from ... import augment
from ...augment import affine_matrix, warp
from ...data.videos import cross_matrix
from ...loss import raised
from ...nets.vit import ViT

Clips = Float[Tensor, "n t c h w"]
Rows = Float[Tensor, "n d"]


def to_float(x: Shaped[Tensor, "n t c h w"]) -> Clips:
    """uint8 clips to float32 in [0, 1]; float clips in [0, 1] as they are. Raises ValueError for any other input."""
    if x.ndim != 5:
        raise ValueError(f"x must be a batch of clips (n, t, c, h, w), got shape {tuple(x.shape)}")
    return augment.to_float(x.flatten(0, 1)).view(x.shape)


def cut(frames: Shaped[Tensor, "n t c h w"], start: Int[Tensor, " m"], length: int) -> Shaped[Tensor, "m l c h w"]:
    """``length`` frames of each video from its own ``start``. With m = j·n starts, row i is of video i mod n.

    Raises ValueError for a length that no video has. A start out of range is an index error on the device.
    """
    n, t = frames.shape[:2]
    if not 1 <= length <= t:
        raise ValueError(f"length must be between 1 and the {t} frames, got {length}")
    if len(start) % max(n, 1):
        raise ValueError(f"start must name clips of all {n} videos, got {len(start)} starts")
    which = torch.arange(len(start), device=frames.device) % n
    return frames[which[:, None], start[:, None] + torch.arange(length, device=frames.device)]


def recoloured(x: Shaped[Tensor, "n t c h w"], generator: Generator, shift: float = 0.1, turn: bool = True) -> Clips:
    """The scenes' views for clips, one draw a clip and the same in all its frames: colours, shift and scale, noise.

    shift  of the frame's side, ± uniform; the scale is 1 ± 0.1
    turn   turn the hue by a random angle about the grey axis, scale the contrast by 0.7 … 1.3, shift all by ±0.2

    The noise has a standard deviation of 0.02 and is each pixel's own. Computed in float32; float clips come back in
    their own precision. Raises ValueError for what ``to_float`` refuses.
    """
    kind, x = x.dtype, raised(to_float(x))
    n, t, c, h, w = x.shape
    u = 2 * torch.rand(n, 6, generator=generator, device=x.device) - 1
    matrix = affine_matrix(u[:, 0] * 0, shift * u[:, :2] * w, 1 + 0.1 * u[:, 2], u[:, 0] * 0, (h, w))
    x = warp(x.reshape(n, t * c, h, w), matrix, padding="reflection").view(n, t, c, h, w)
    if turn:
        grey, cross = x.new_full((3, 3), 1 / 3), cross_matrix(x.new_full((1, 3), 3**-0.5))[0]
        cos, sin = (f(math.pi * u[:, 3])[:, None, None] for f in (torch.cos, torch.sin))
        turned = cos * torch.eye(3, device=x.device) + sin * cross + (1 - cos) * grey
        rotation = (1 + 0.3 * u[:, 4, None, None]) * turned
        x = 0.5 + 0.2 * u[:, 5, None, None, None, None] + torch.einsum("ndc,ntchw->ntdhw", rotation, x - 0.5)
    x = x + 0.02 * torch.randn(x.shape, generator=generator, device=x.device)
    return x.to(kind) if kind.is_floating_point else x


class ClipNet(nn.Module):
    """A small 3-D convolutional encoder: (n, t, c, h, w) in [0, 1] to (n, features).

    The clip's mean colour is taken off. Two convolutions of 2×4×4 with stride 2, each with BatchNorm and GELU, the
    maximum over places and frames, a linear layer.

    width     channels of the first convolution; the second has twice as many
    features  width of the output, ``net.features``

    Clips need a number of frames and sides that 4 divides.
    """

    def __init__(self, width: int = 32, features: int = 128, channels: int = 3):
        super().__init__()
        self.features = features
        shape = dict(kernel_size=(2, 4, 4), stride=2, padding=(0, 1, 1), bias=False)
        self.conv1, self.norm1 = nn.Conv3d(channels, width, **shape), nn.BatchNorm3d(width)
        self.conv2, self.norm2 = nn.Conv3d(width, 2 * width, **shape), nn.BatchNorm3d(2 * width)
        self.linear, self.norm3 = nn.Linear(2 * width, features, bias=False), nn.BatchNorm1d(features)

    def forward(self, x: Clips) -> Rows:
        if x.ndim != 5:
            raise ValueError(f"x must be clips (n, t, c, h, w), got shape {tuple(x.shape)}")
        n, t, c, h, w = x.shape
        if t % 4 or h % 4 or w % 4:
            raise ValueError(f"x must have frames and sides that 4 divides, got shape {tuple(x.shape)}")
        y = F.gelu(self.norm1(self.conv1((x - x.mean((1, 3, 4), keepdim=True)).transpose(1, 2))))
        y = F.gelu(self.norm2(self.conv2(y))).amax((2, 3, 4))
        return F.gelu(self.norm3(self.linear(y)))


class ClipViT(ViT):
    """A vision transformer on tubelets of clips (n, t, c, h, w) in [0, 1]; see ``labcode.nets.vit.ViT``."""

    @staticmethod
    def centred(x: Clips) -> Float[Tensor, "n c t h w"]:
        if x.ndim != 5:
            raise ValueError(f"x must be clips (n, t, c, h, w), got shape {tuple(x.shape)}")
        return (x.transpose(1, 2) - 0.5) * 4

    def tokens(self, x: Clips, index: Int[Tensor, "..."] | None = None) -> Float[Tensor, "n k d"]:
        return super().tokens(self.centred(x), index)


@torch.no_grad()
def frozen_tokens(encoder: ClipViT, frames: Shaped[Tensor, "n t c h w"], chunk: int = 500) -> Float[Tensor, "n k d"]:
    """All tokens of clips, for a probe: the encoder in evaluation mode, ``chunk`` clips at a time."""
    encoder.eval()
    return torch.cat([encoder(to_float(part)) for part in frames.split(chunk)])
