"""Convolutional encoders. Each takes float images and returns one feature vector an image."""

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class SmallNet(nn.Module):
    """The quick scale's encoder for scenes: a 4×4 convolution of stride 2, a 2×2 one of stride 2, a linear layer.

    BatchNorm and GELU follow each of them. On a CPU strided convolutions this small are faster as matrix products of
    patches, so that is how they are written.

    width     channels of the first convolution
    deep      channels of the second; None is half as many again
    features  width of the output, ``net.features``
    size      side of the images in pixels, a multiple of 4
    """

    def __init__(self, width: int = 64, features: int = 256, size: int = 8, channels: int = 3, deep: int | None = None):
        super().__init__()
        if size % 4:
            raise ValueError(f"size must be a multiple of 4, got {size}")
        self.features, self.deep = features, deep or width * 3 // 2
        self.conv1, self.norm1 = nn.Linear(16 * channels, width, bias=False), nn.BatchNorm1d(width)
        self.conv2, self.norm2 = nn.Linear(4 * width, self.deep, bias=False), nn.BatchNorm1d(self.deep)
        self.linear = nn.Linear(self.deep * (size // 4) ** 2, features, bias=False)
        self.norm3 = nn.BatchNorm1d(features)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        n, c, h, w = x.shape
        weight = self.conv1.weight.view(-1, c, 4, 4).permute(0, 2, 3, 1).reshape(-1, 16 * c)  # by pixel
        y = F.gelu(self.norm1(F.linear(_patches(x - 0.5), weight)))
        y = y.view(n, h // 4, 2, w // 4, 2, -1).transpose(2, 3).reshape(n * (h // 4) * (w // 4), -1)
        y = F.gelu(self.norm2(self.conv2(y))).view(n, -1)
        return F.gelu(self.norm3(self.linear(y)))


def _patches(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "p k"]:
    """4×4 patches of stride 2, a border of one pixel around; a patch is read by row, pixel, channel.

    In this order four pixels of a row lie side by side, so a patch is copied in four runs, not in 4·4·c pieces.
    TorchScript's way to ONNX has no ``unfold``, so a trace is made of slices.
    """
    n, c, h, w = x.shape
    rows = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1)).flatten(2)  # (n, h + 2, (w + 2) c)
    if not torch.jit.is_tracing():
        patches = rows.unfold(2, 4 * c, 2 * c).unfold(1, 4, 2).transpose(3, 4)  # (n, h/2, w/2, 4, 4 c)
    else:
        across = torch.stack([rows[:, :, 2 * c * j : 2 * c * (j + 2)] for j in range(w // 2)], 2)
        patches = torch.stack([across[:, i : h - 1 + i : 2] for i in range(4)], 3)
    return patches.reshape(-1, 16 * c)


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

    Images in [0, 1] are brought to mean 0 and variance 1 inside, with the mean of CIFAR-10. Parameters have names of
    our own: ``to_torchvision`` gives those of torchvision's.
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


def to_torchvision(state: dict[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """The state of a ``ResNet18`` under the names of torchvision's ``resnet18``, to be loaded there.

    state   ``encoder.state_dict()``, or that of a model that holds it, or a checkpoint's
    prefix  where it lies there, such as "encoder."

    Theirs needs this stem, no classifier, and images that are normalised beforehand:

        net = torchvision.models.resnet18()
        net.conv1 = torch.nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        net.maxpool = net.fc = torch.nn.Identity()
        net.load_state_dict(to_torchvision(ours.state_dict()))
        net((images - 0.47) / 0.25)

    Raises ValueError where there is no ResNet18 under that prefix.
    """
    found = {}
    for name, value in state.items():
        if not name.startswith(prefix):
            continue
        part, _, rest = name.removeprefix(prefix).partition(".")
        if part == "stem":
            layer, _, leaf = rest.partition(".")
            found[f"{('conv1', 'bn1')[int(layer)]}.{leaf}"] = value
        elif part == "stages":
            block, _, leaf = rest.partition(".")
            leaf = f"downsample.{leaf.removeprefix('short.')}" if leaf.startswith("short.") else leaf
            found[f"layer{int(block) // 2 + 1}.{int(block) % 2}.{leaf}"] = value
    if "conv1.weight" not in found or "layer4.1.bn2.bias" not in found:
        raise ValueError(f"state must hold a ResNet18 under the prefix {prefix!r}, got {', '.join(list(state)[:4])} …")
    return found


def memory_layout(model: nn.Module, device: torch.device | str) -> torch.memory_format:
    """How weights and images lie in memory best: channels last, where that is safe, feeds convolutions faster.

    On a CPU without AVX-512, oneDNN's backward pass of a strided 1×1 convolution in channels last writes outside its
    memory where the input channels are fewer than its block of 8 (oneDNN's issue 6035): a crash, a hang or wrong
    weights. With a strided 1×1 convolution of fewer than 16 input channels, on any CPU, the layout is therefore the
    contiguous one, and a warning says so once.
    """
    if torch.device(device).type != "cpu":
        return torch.channels_last
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            turned = isinstance(layer, nn.ConvTranspose2d)  # its forward pass is a convolution's backward pass
            channels = (layer.out_channels if turned else layer.in_channels) // layer.groups
            if channels < 16 and max(layer.stride) > 1 and max(layer.kernel_size) == 1:
                warnings.warn(
                    f"{name or type(model).__name__} is a strided 1×1 convolution of {channels} channels: on "
                    "a CPU it is not run in channels_last, where oneDNN would write outside its memory",
                    stacklevel=2,
                )
                return torch.contiguous_format
    return torch.channels_last


@contextmanager
def evaluating(net: nn.Module) -> Iterator[nn.Module]:
    """Inside, the net is in evaluation mode and nothing is recorded; afterwards each of its modules is in its own mode.

    In training mode features would depend on what else is in the batch, and BatchNorm's statistics be overwritten.
    """
    modes = {module: module.training for module in net.modules()}
    try:
        with torch.no_grad():
            yield net.eval()
    finally:
        for module, mode in modes.items():
            module.training = mode


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
