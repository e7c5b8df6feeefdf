"""Scenes of patterned things on photographs, with masks: classes are patterns, so that pixels can be classified."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...data import textures
from ...train import fit

# (kind, angle in degrees, period in pixels); stripes, their product (checks), spots, and bent stripes
PATTERNS = (
    ("stripes", 0, 4), ("stripes", 45, 4), ("stripes", 90, 4), ("stripes", 0, 8), ("checks", 0, 5), ("checks", 45, 8),
    ("spots", 0, 5), ("waves", 0, 5),  # base classes
    ("stripes", 45, 8), ("checks", 0, 8), ("spots", 45, 7), ("waves", 90, 7),  # in place of the next, in tuning
    ("stripes", 135, 4), ("stripes", 90, 8), ("stripes", 135, 8), ("checks", 45, 5), ("spots", 45, 5), ("waves", 90, 5),
)  # fmt: skip
PARTS = {"base": range(0, 8), "validation": range(8, 12), "test": range(12, 18)}
IGNORED = 255


@dataclass
class Patterned:
    """Images (n, 3, s, s) in [0, 1] and, for every pixel, 0 for the ground or 1 + the class of its thing."""

    images: Tensor
    masks: Int[Tensor, "n s s"]


def patterned(
    classes: Int[Tensor, "n things"],
    generator: torch.Generator,
    *,
    size: int = 32,
    ground: float = 0.1,
    noise: float = 0.03,
) -> Patterned:
    """One scene a row: a blob of each class in random colours, at random places, later ones in front.

    classes  indices of ``PATTERNS``
    ground   contrast of the photograph behind: 0.1 in training, more is a shift of domain
    """
    n, things = classes.shape
    draw = lambda *shape: torch.rand(*shape, generator=generator)  # noqa: E731
    photos = textures()
    corner = (draw(n, 2) * (photos.shape[1] - size)).long()
    at = torch.arange(size)
    photo = photos[torch.randint(len(photos), (n,), generator=generator)[:, None, None],
                   corner[:, 0, None, None] + at[:, None], corner[:, 1, None, None] + at]  # fmt: skip
    images = (draw(n, 3, 1, 1) + ground * photo[:, None]).clamp(0, 1)
    masks = torch.zeros(n, size, size, dtype=torch.long)
    y, x = torch.meshgrid(at.float(), at.float(), indexing="ij")
    turn = 6.2832 * draw(n, 1, 1)
    for thing in range(things):
        where = turn + 6.2832 * thing / things  # around the middle, so that none hides another
        centre = size * (0.5 + 0.24 * torch.stack([where.sin(), where.cos()], 1) + 0.12 * (draw(n, 2, 1, 1) - 0.5))
        dy, dx = y - centre[:, 0], x - centre[:, 1]
        angle, a = torch.atan2(dy, dx), draw(n, 5, 1, 1)
        radius = size * (0.24 + 0.1 * a[:, 0])
        radius = radius * (
            1 + 0.3 * a[:, 1] * (2 * angle + 6.3 * a[:, 2]).cos() + 0.2 * a[:, 3] * (3 * angle + 6.3 * a[:, 4]).cos()
        )
        inside = (dy.square() + dx.square()).sqrt() < radius
        value = pattern(classes[:, thing], dy, dx, draw(n, 2, 1, 1))[:, None]
        one, other = 0.65 + 0.35 * draw(n, 3, 1, 1), 0.35 * draw(n, 3, 1, 1)
        images = torch.where(inside[:, None], one * value + other * (1 - value), images)
        masks = torch.where(inside, 1 + classes[:, thing, None, None], masks)
    images = images + noise * torch.randn(images.shape, generator=generator)
    return Patterned(images.clamp(0, 1), masks)


def pattern(which: Int[Tensor, " n"], dy: Tensor, dx: Tensor, phase: Tensor) -> Float[Tensor, "n s s"]:
    """The pattern of each class at offsets from its middle, between 0 and 1."""
    table = torch.tensor([[("stripes", "checks", "spots", "waves").index(k), a, p] for k, a, p in PATTERNS])
    kind, angle, period = table[which].float().T[..., None, None]
    c, s = torch.deg2rad(angle).cos(), torch.deg2rad(angle).sin()
    u, v = 6.2832 * (c * dx + s * dy) / period, 6.2832 * (c * dy - s * dx) / period
    u, v = u + 6.3 * phase[:, 0], v + 6.3 * phase[:, 1]
    found = torch.stack([u.cos(), 1.4 * u.cos() * v.cos(), u.cos() + v.cos() - 0.8, (u + 1.5 * v.sin()).cos()])
    return (0.5 + 1.5 * found.gather(0, kind.long()[None].expand_as(found[:1]))[0]).clamp(0, 1)


@dataclass
class SegmentationTasks:
    """Supports (t, s, 3, n, n), masks (t, s, n, n), a query (t, 3, n, n) with its; 1 is the thing. Classes (t,)."""

    support: Tensor
    support_mask: Tensor
    query: Tensor
    query_mask: Tensor
    classes: Tensor

    def to(self, device) -> "SegmentationTasks":
        """The same tasks on a device."""
        return SegmentationTasks(**{name: part.to(device) for name, part in vars(self).items()})


def segmentation_tasks(part: str, tasks: int, shots: int, generator: torch.Generator, **options) -> SegmentationTasks:
    """Binary tasks: every scene has a thing of the task's class and one of another class, either in front."""
    among = torch.tensor(list(PARTS[part]))
    draw = torch.rand(tasks, len(among), generator=generator).argsort(1)
    wanted = among[draw[:, 0]]
    other = among[
        torch.rand(tasks, shots + 1, len(among), generator=generator)
        .masked_fill(among == wanted[:, None, None], -1)
        .argmax(2)
    ]
    pair = torch.stack([wanted[:, None].expand_as(other), other], 2)
    swap = torch.rand(tasks, shots + 1, generator=generator) < 0.5
    pair = torch.where(swap[..., None], pair.flip(2), pair)
    scenes = patterned(pair.flatten(0, 1), generator, **options)
    size = scenes.images.shape[-1]
    images = scenes.images.view(tasks, shots + 1, 3, size, size)
    mask = (scenes.masks.view(tasks, shots + 1, size, size) == 1 + wanted[:, None, None, None]).long()
    return SegmentationTasks(images[:, 1:], mask[:, 1:], images[:, 0], mask[:, 0], wanted)


class PixelNet(nn.Module):
    """Three convolutions, the first of stride 2, with BatchNorm: (n, 3, s, s) -> features (n, d, s/2, s/2)."""

    def __init__(self, width: int = 12, features: int = 24):
        super().__init__()
        self.features = features
        sizes = ((3, width, 5, 2), (width, features, 3, 1), (features, features, 3, 1))
        self.layers = nn.ModuleList(nn.Conv2d(i, o, k, s, k // 2, bias=False) for i, o, k, s in sizes)
        self.norms = nn.ModuleList(nn.BatchNorm2d(o) for _, o, _, _ in sizes)

    def forward(self, x: Float[Tensor, "n 3 s s"]) -> Float[Tensor, "n d h w"]:
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = F.relu(norm(layer(x)))
        return x


def coarse(mask: Int[Tensor, "*b s s"], size: int) -> Int[Tensor, "*b h h"]:
    """A mask at the features' resolution: the nearest pixel, as the paper has it, so ignored pixels stay ignored."""
    flat = mask.reshape(-1, 1, *mask.shape[-2:]).float()
    return F.interpolate(flat, (size, size), mode="nearest").long().view(*mask.shape[:-2], size, size)


def pixel_training(
    make, seed: int, *, steps: int = 60, batch_size: int = 32, lr: float = 5e-3, scenes: int = 600
) -> nn.Module:
    """An encoder trained by cross entropy with label smoothing on the pixels of base scenes; returned without head."""
    torch.manual_seed(seed)
    encoder, g = make(), torch.Generator().manual_seed(seed)
    pair = torch.rand(scenes, len(PARTS["base"]), generator=g).argsort(1)[:, :2]
    data = patterned(pair, g)
    head = nn.Conv2d(encoder.features, 1 + len(PARTS["base"]), 1)
    device = next(encoder.parameters()).device
    head, images, masks = head.to(device), data.images.to(device), data.masks.to(device)

    def step(index):
        z = encoder(images[index])
        return {"loss": F.cross_entropy(head(z), coarse(masks[index], z.shape[-1]), label_smoothing=0.1)}

    batches = lambda i: torch.randint(scenes, (batch_size,), generator=g).to(device)  # noqa: E731
    fit(nn.ModuleList([encoder, head]), step, batches, steps=steps, lr=lr, label=f"pixel training, seed {seed}")
    return encoder.eval()
