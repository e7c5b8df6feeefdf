"""The encoders and heads of the course. Each takes float images and returns one feature vector an image."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


def mlp(widths: list[int], norm: bool = True, last_norm: bool = False, bias: bool = True) -> nn.Sequential:
    """Linear, BatchNorm, ReLU for each width; the last layer is linear alone.

    widths     [input, hidden …, output], two at least; two give a single linear layer
    norm       BatchNorm between the layers
    last_norm  a BatchNorm without parameters after the last layer

    Raises ValueError for fewer than two widths.
    """
    if len(widths) < 2:
        raise ValueError(f"widths must name an input and an output, got {widths}")
    layers: list[nn.Module] = []
    for n_in, n_out in zip(widths[:-2], widths[1:-1], strict=True):
        layers += [nn.Linear(n_in, n_out, bias=not norm)]
        layers += [nn.BatchNorm1d(n_out)] if norm else []
        layers += [nn.ReLU(inplace=True)]
    layers += [nn.Linear(widths[-2], widths[-1], bias=bias)]
    layers += [nn.BatchNorm1d(widths[-1], affine=False)] if last_norm else []
    return nn.Sequential(*layers)


class SmallNet(nn.Module):
    """The quick scale's encoder: two strided convolutions that overlap little, and one wide linear layer.

    Made for 8×8 scenes on one CPU thread: 15 ms for forward and backward of 256 views. A multiple of 4 as image
    side is needed.

    width     channels of the first convolution
    features  width of the output, ``net.features``
    norm      "batch" or "group"; group keeps the images of a batch apart
    """

    def __init__(self, width: int = 64, features: int = 256, size: int = 8, channels: int = 3, norm: str = "batch"):
        super().__init__()
        if norm not in ("batch", "group"):
            raise ValueError(f"norm must be 'batch' or 'group', got {norm!r}")
        if size % 4:
            raise ValueError(f"size must be a multiple of 4, got {size}")
        norm2d = nn.BatchNorm2d if norm == "batch" else lambda c: nn.GroupNorm(8, c)
        norm1d = nn.BatchNorm1d if norm == "batch" else lambda c: nn.GroupNorm(8, c)
        deep = width * 3 // 2
        self.features = features
        self.body = nn.Sequential(
            nn.Conv2d(channels, width, 4, stride=2, padding=1, bias=False), norm2d(width), nn.GELU(),
            nn.Conv2d(width, deep, 2, stride=2, bias=False), norm2d(deep), nn.GELU(),
            nn.Flatten(),
            nn.Linear(deep * (size // 4) ** 2, features, bias=False), norm1d(features), nn.GELU(),
        )  # fmt: skip

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        return self.body(x - 0.5)


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
