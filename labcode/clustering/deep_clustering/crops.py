"""What SeLa and SwAV look at: grey digits on textures, full and small crops of them, and a net that takes both."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from ... import augment
from ...data import Difficulty, scenes, shuffled
from ...nets import SmallNet, estimate_statistics
from ...nets.conv import _patches
from ...train import fit

Images = Float[Tensor, "n c h w"]
PLAIN = Difficulty(shift=0.08, rotation=0.25, scale=0.15, texture=0.3)  # more geometry than the stage's scenes


def grey_scenes(n: int, split: str, seed: int = 1) -> tuple[Float[Tensor, "n 1 16 16"], Int[Tensor, " n"]]:
    """Light digits on dark textures, 16×16, one channel in [0, 1], and their classes; splits as ``data.scenes``.

    The stage's scenes with one colour and one polarity: within a hundred steps, networks that start from nothing learn
    from clusters on these, and on the coloured ones they do not.
    """
    drawn = scenes(n, seed, split, PLAIN, ink=torch.ones(3) / 3**0.5, background=torch.full((3,), 0.35))
    return drawn.images.float().mean(1, keepdim=True) / 255, drawn.labels


def full_crops(x: Images, generator: Generator, views: int = 2, scale: tuple[float, float] = (0.7, 1.0)) -> Images:
    """``views`` crops of each image at its size, in other light and contrast; row i + v·n is view v of image i."""
    x = augment.random_resized_crop(x.repeat(views, 1, 1, 1), x.shape[2], scale, flip_p=0.0, generator=generator)
    light, contrast = torch.rand(2, len(x), 1, 1, 1, generator=generator, device=x.device)
    return augment.noise((x - 0.5) * (0.6 + 0.8 * contrast) + 0.3 + 0.4 * light, 0.02, generator=generator)


def small_crops(x: Images, generator: Generator, views: int = 4, size: int = 8,
                scale: tuple[float, float] = (0.4, 0.7)) -> Images:  # fmt: skip
    """``views`` smaller parts of each image at a lower resolution: SwAV's multi-crop, which has 6 of 96 to 2 of 224."""
    x = augment.random_resized_crop(x.repeat(views, 1, 1, 1), size, scale, flip_p=0.0, generator=generator)
    light, contrast = torch.rand(2, len(x), 1, 1, 1, generator=generator, device=x.device)
    return augment.noise((x - 0.5) * (0.6 + 0.8 * contrast) + 0.3 + 0.4 * light, 0.02, generator=generator)


class CropNet(SmallNet):
    """``SmallNet`` for crops of any size divisible by 4: its map is pooled, or repeated, to the full image's grid.

    size  side of a full crop; the paper's ResNet pools to one vector and so takes any size by itself
    """

    def __init__(self, width: int = 16, features: int = 96, size: int = 16, channels: int = 1, deep: int = 32):
        super().__init__(width, features, size, channels, deep)
        self.grid = size // 4

    def forward(self, x: Images) -> Float[Tensor, "n d"]:
        n, c, h, w = x.shape
        weight = self.conv1.weight.view(-1, c, 4, 4).permute(0, 2, 3, 1).reshape(-1, 16 * c)
        y = F.gelu(self.norm1(F.linear(_patches(x - 0.5), weight)))
        y = y.view(n, h // 4, 2, w // 4, 2, -1).transpose(2, 3).reshape(n * (h // 4) * (w // 4), -1)
        y = F.gelu(self.norm2(self.conv2(y))).view(n, h // 4, w // 4, -1)
        if (h // 4, w // 4) != (self.grid, self.grid):
            y = F.adaptive_avg_pool2d(y.permute(0, 3, 1, 2), self.grid).permute(0, 2, 3, 1)
        return F.gelu(self.norm3(self.linear(y.flatten(1))))


def estimated(net: nn.Module, images: Tensor, crops: Callable, seed: int) -> nn.Module:
    """An untrained network whose BatchNorm has seen random crops of 500 images: the floor of what is learnt.

    crops  images, generator= -> crops
    """
    generator = torch.Generator(images.device).manual_seed(seed)
    return estimate_statistics(net, [crops(images[i * 100 :][:100], generator=generator) for i in range(5)])


def learn(
    model: nn.Module, images: Tensor, full: Callable, small: Callable | None = None, *, seed: int, steps: int,
    batch_size: int, lr: float, before: Callable | None = None, **options,
) -> nn.Module:  # fmt: skip
    """Train ``model(crops, index)``, or ``model(crops, index, small)``, on random crops; in evaluation mode afterwards.

    full, small  images, generator= -> crops
    before       called with (model, step) before every step: SeLa's relabelling
    """
    generator = torch.Generator(images.device).manual_seed(seed)
    at = iter(range(10**9))

    def step(index):
        if before is not None:
            before(model, next(at))
        given = [full(images[index], generator=generator), index]
        return {"loss": model(*given, *([small(images[index], generator=generator)] if small else []))}

    batches = shuffled(len(images), batch_size, seed, images.device)
    model.history = fit(model, step, batches, steps=steps, lr=lr, generators=[generator], **options)
    return model.eval()
