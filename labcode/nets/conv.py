"""Convolutional encoders. Each takes float images and returns one feature vector an image."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class SmallNet(nn.Module):
    """The quick scale's encoder for 8×8 scenes: a 4×4 convolution of stride 2, a 2×2 one of stride 2, a linear layer.

    BatchNorm and GELU follow each of them. On a CPU strided convolutions this small are faster as matrix products of
    patches, so that is how they are written: 12 ms for forward and backward of 256 views on one thread.

    width     channels of the first convolution; the second has half as many again
    features  width of the output, ``net.features``
    size      side of the images in pixels, a multiple of 4
    """

    def __init__(self, width: int = 64, features: int = 256, size: int = 8, channels: int = 3):
        super().__init__()
        if size % 4:
            raise ValueError(f"size must be a multiple of 4, got {size}")
        self.features, self.deep = features, width * 3 // 2
        self.conv1, self.norm1 = nn.Linear(16 * channels, width, bias=False), nn.BatchNorm1d(width)
        self.conv2, self.norm2 = nn.Linear(4 * width, self.deep, bias=False), nn.BatchNorm1d(self.deep)
        self.linear = nn.Linear(self.deep * (size // 4) ** 2, features, bias=False)
        self.norm3 = nn.BatchNorm1d(features)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        n, c, h, w = x.shape
        patches = F.pad(x - 0.5, (1, 1, 1, 1)).unfold(2, 4, 2).unfold(3, 4, 2)  # (n, c, h/2, w/2, 4, 4)
        y = patches.permute(0, 2, 3, 1, 4, 5).reshape(-1, 16 * c)
        y = F.gelu(self.norm1(self.conv1(y)))
        y = y.view(n, h // 4, 2, w // 4, 2, -1).transpose(2, 3).reshape(n * (h // 4) * (w // 4), -1)
        y = F.gelu(self.norm2(self.conv2(y))).view(n, -1)
        return F.gelu(self.norm3(self.linear(y)))


class BasicBlock(nn.Module):
    """The residual block of ResNet-18 and -34 (He et al., 2016), two 3×3 convolutions."""

    def __init__(self, n_in: int, n_out: int, stride: int):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False), nn.BatchNorm2d(n_out)
        self.conv2, self.bn2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False), nn.BatchNorm2d(n_out)
        self.short = nn.Identity()
        if stride != 1 or n_in != n_out:
            self.short = nn.Sequential(nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(y)) + self.short(x), inplace=True)


class ResNet18(nn.Module):
    """ResNet-18 with the CIFAR stem: a 3×3 convolution and no max-pooling. 512 features, 11.2 M parameters.

    width     channels of the first stage (64 in the paper)
    """

    def __init__(self, width: int = 64, channels: int = 3):
        super().__init__()
        self.features = 8 * width
        self.stem = nn.Sequential(
            nn.Conv2d(channels, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )
        stages, n_in = [], width
        for i, stride in enumerate((1, 2, 2, 2)):
            n_out = width * 2**i
            stages += [BasicBlock(n_in, n_out, stride), BasicBlock(n_out, n_out, 1)]
            n_in = n_out
        self.stages = nn.Sequential(*stages)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        return self.stages(self.stem((x - 0.47) / 0.25)).mean((2, 3))


@torch.no_grad()
def estimate_statistics(net: nn.Module, batches: Iterable[Float[Tensor, "n c h w"]]) -> nn.Module:
    """Give BatchNorm the statistics of these batches, their plain mean, and return the net in evaluation mode.

    An untrained net needs it to be a fair rival. With the statistics of the start, mean 0 and variance 1, the signal
    shrinks from block to block until GELU is a straight line: nearly linear, and any training beats it, even one that
    cannot learn a thing. The running mean, a tenth a batch, would be far off where the variance is small.
    """
    norms = [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None
    net.train()
    for batch in batches:
        net(batch)
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum
    return net.eval()
