"""Moving scenes: the handwritten digits travel over photo textures, and everything that moves them is known.

The digits, textures and splits are those of ``labcode.data.synthetic``, so a video of the test split shows no digit
that a training video shows. What a video is about is split in two: appearance (digit, ink, background, texture) and
motion (direction, speed, spin). Both are drawn independently; where a paper needs them tied, fix one with the other.
"""

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from .batches import mixed_seed
from .synthetic import SPLITS, TEXTURES, _crop, check_split, digits, textures

DIGITS = "optdigits"  # the small ones: a moving digit's box has 8 pixels


@dataclass(frozen=True)
class Motion:
    """What moves, how, and what hides it; the default is the calibrated one (see tests/core/test_videos.py)."""

    size: int = 12  # pixels a side
    frames: int = 4
    objects: int = 1
    classes: tuple[int, ...] = (0, 1, 4, 7)  # which digits
    extent: float = 8.0  # side of a digit's box in pixels
    speed: tuple[float, float] = (1.0, 1.0)  # pixels a frame, uniform
    directions: int = 4  # equally spaced; direction j is the angle 2πj/directions, 0 to the right and a quarter down
    walls: str = "wrap"  # an object that leaves on one side enters on the other; or "bounce", which keeps it inside
    spin: float = 0.0  # radians a frame, uniform in ±spin
    drift: float = 0.0  # radians a frame by which the light turns all colours about a random axis, with either sign
    ink: float = 0.7  # distance of ink from background in RGB, in a random direction: either polarity
    texture: float = 0.25  # contrast of the photo texture; 0 is a plain background
    free: bool = False  # colours as free as in the scenes, ink of either polarity; False is bright ink on dark ground
    bar: int = 0  # width in pixels of an upright bar that hides what passes behind it; 0 is none


@dataclass
class Videos:
    """Frames and everything that made them. Index it like an array: ``videos[:100]``, ``videos[mask]``."""

    frames: Tensor  # (n, t, 3, size, size) uint8
    labels: Tensor  # (n,) int64, the class 0 … 9 of the first object
    factors: dict[str, Tensor] = field(default_factory=dict)  # each (n, …), see ``moving_scenes``
    source: str = "videos"

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index) -> "Videos":
        kept = {name: value[index] for name, value in self.factors.items()}
        return Videos(self.frames[index], self.labels[index], kept, self.source)

    def to(self, device) -> "Videos":
        moved = {name: value.to(device) for name, value in self.factors.items()}
        return Videos(self.frames.to(device), self.labels.to(device), moved, self.source)


def moving_scenes(n: int, seed: int = 0, split: str = "train", motion: Motion = Motion(), **factors) -> Videos:
    """Draw n videos.

    n        number of videos, >= 1
    seed     same seed, same videos; splits share neither a digit nor a draw, see ``labcode.data.synthetic.SPLITS``
    split    "train" or "test"; "fit" or "validation" while settings are chosen
    motion   sizes and ranges; ``Motion(objects=5, walls="bounce", bar=5)`` is for trackers
    factors  fix a factor instead of drawing it, as a tensor or a number that broadcasts to its shape. With k objects:
             digit (n, k), start (n, k, 2) as (x, y) in pixels, direction (n, k) in 0 … directions-1, speed (n, k),
             rotation (n, k) of the first frame and spin (n, k) in radians, ink (n, k, 3) as an RGB direction,
             depth (n, k) with the nearest object smallest, background (n, 3), texture (n,), light (n, 3): axis times
             radians a frame, edge (n,) of the bar, or the whole path (n, t, k, 2), which overrides start, direction
             and speed

    Returned factors are all of these, label (n, k), and what follows from them: path, the centres as they are drawn;
    boxes (n, t, k, 4) as (left, top, right, bottom) in pixels, which may reach over the border; mask
    (n, t, k, size, size), the share of each pixel that shows the object; visible (n, t, k), the share of its ink that
    is neither behind an object nor behind the bar.

    Raises ValueError for an unknown split, factor or kind of walls, n < 1, and objects that do not fit.
    """
    m = motion
    check_split(split)
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    if min(m.objects, m.frames, m.size) < 1:
        raise ValueError(f"objects, frames and size must be at least 1, got {m.objects}, {m.frames} and {m.size}")
    if m.walls not in ("wrap", "bounce"):
        raise ValueError(f"walls must be 'wrap' or 'bounce', got {m.walls!r}")
    if not m.classes or set(m.classes) - set(range(10)):
        raise ValueError(f"classes must be some of the digits 0 … 9, got {m.classes}")
    if not 0 < m.extent <= m.size or not 0 <= m.bar < m.size:
        raise ValueError(f"extent and bar must fit into {m.size} pixels, got {m.extent} and {m.bar}")
    known = {"digit", "start", "direction", "speed", "rotation", "spin", "ink", "depth", "background", "texture",
             "light", "edge", "path"}  # fmt: skip
    if unknown := factors.keys() - known:
        raise ValueError(f"unknown factors {sorted(unknown)}; the factors are {sorted(known)}")
    g = torch.Generator().manual_seed(mixed_seed(seed, list(SPLITS[DIGITS]).index(split), 0x71DE0))
    images, classes = digits(DIGITS)
    k, t, (first, last) = m.objects, m.frames, SPLITS[DIGITS][split]

    def draw(name: str, values: Tensor) -> Tensor:
        """The given value of a factor, or the drawn one: every factor consumes its draws either way."""
        given = factors.get(name)
        return values if given is None else torch.as_tensor(given, dtype=values.dtype).expand(values.shape)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=g)

    room = m.extent / 2 if m.walls == "bounce" else 0.0
    pool = torch.arange(first, last)
    pool = pool[torch.isin(classes[pool], torch.tensor(m.classes))]
    digit = draw("digit", pool[torch.randint(len(pool), (n, k), generator=g)])
    start = draw("start", uniform(room, m.size - room, n, k, 2))
    direction = draw("direction", torch.randint(m.directions, (n, k), generator=g))
    speed = draw("speed", uniform(*m.speed, n, k))
    rotation = draw("rotation", uniform(-0.15, 0.15, n, k))
    spin = draw("spin", uniform(-m.spin, m.spin, n, k))
    hue = torch.randn(n, k, 3, generator=g)
    ink = draw("ink", F.normalize(hue if m.free else hue.abs(), dim=2))
    depth = draw("depth", torch.rand(n, k, generator=g).argsort(1))
    background = draw("background", (1.0 if m.free else 0.3) * torch.rand(n, 3, generator=g))
    texture = draw("texture", torch.randint(len(TEXTURES), (n,), generator=g))
    axis, sign = F.normalize(torch.randn(n, 3, generator=g), dim=1), torch.randint(2, (n, 1), generator=g) * 2 - 1
    light = draw("light", m.drift * sign * axis)
    edge = draw("edge", torch.randint(m.size // 4, max(m.size // 4, 3 * m.size // 4 - m.bar) + 1, (n,), generator=g))
    corner, crop = torch.rand(n, 2, generator=g), 0.1 + 0.3 * torch.rand(n, generator=g)
    pillar = torch.rand(n, 3, 1, 1, generator=g)

    time = torch.arange(t, dtype=torch.float32)
    angle = direction * (2 * math.pi / m.directions)
    step = speed[..., None] * torch.stack([angle.cos(), angle.sin()], 2)  # (n, k, 2)
    path = draw("path", start[:, None] + time[:, None, None] * step[:, None])
    if m.walls == "wrap":
        path = path % m.size
    else:  # a triangle wave between the walls
        span = m.size - 2 * room
        path = room + span - ((path - room) % (2 * span + 1e-9) - span).abs() if span else torch.full_like(path, room)
    turned = rotation[:, None] + time[:, None] * spin[:, None]
    photo = _crop(textures(), texture, corner, crop, m.size)
    photo = m.texture * 0.25 * (photo - photo.mean((1, 2), keepdim=True))
    inside = ((background[:, None] + m.ink * ink) - 0.5).abs() <= 0.5  # a channel that would leave [0, 1] goes the
    seen = torch.where(inside, ink, -ink)  # other way
    parts = (images[digit], path, turned, depth, seen, background, photo, light, edge, pillar)
    many = max(1, (1 << 24) // (t * k * m.size**2))  # videos at a time: what is drawn needs several times their memory
    films = [_film(*part, m) for part in zip(*(x.split(many) for x in parts), strict=True)]
    frames, mask, visible = (torch.cat(x) if len(x) > 1 else x[0] for x in zip(*films, strict=True))

    half = m.extent / 2
    made = dict(digit=digit, label=classes[digit], start=start, direction=direction, speed=speed, rotation=rotation,
                spin=spin, ink=seen, depth=depth, background=background, texture=texture, light=light, edge=edge,
                path=path, boxes=torch.cat([path - half, path + half], 3), mask=mask, visible=visible)  # fmt: skip
    return Videos(frames, classes[digit[:, 0]], made)


def _film(images, path, turned, depth, ink, background, photo, light, edge, pillar, m: Motion):
    """Frames, masks and visible shares of some videos, from their factors as ``moving_scenes`` names them."""
    (n, t, k, _), shape = path.shape, _draw(images, path, turned, m)  # (n, t, k, size, size)
    clear = torch.ones(n, t, m.size, m.size)
    if m.bar:
        column = torch.arange(m.size)
        behind = (column >= edge[:, None]) & (column < edge[:, None] + m.bar)  # (n, size)
        clear = clear * ~behind[:, None, None]
    mask, ranks = torch.zeros_like(shape), depth.argsort(1)
    for rank in range(k):  # from front to back: each object is seen through what the nearer ones leave
        at = ranks[:, rank, None, None, None, None].expand(-1, t, 1, m.size, m.size)
        seen = shape.gather(2, at)[:, :, 0] * clear
        mask.scatter_(2, at, seen[:, :, None])
        clear = clear - seen
    colours = background[:, None, :, None, None] + m.ink * torch.einsum("nkc,ntkhw->ntchw", ink, mask)
    colours = colours + photo[:, None, None]
    if m.bar:
        colours = torch.where(behind[:, None, None, None], (pillar + photo[:, None])[:, None], colours)
    if light.any():
        time = torch.arange(t, dtype=torch.float32)
        turn = torch.linalg.matrix_exp(cross_matrix(light)[:, None] * time[:, None, None])  # (n, t, 3, 3)
        colours = 0.5 + torch.einsum("ntdc,ntchw->ntdhw", turn, colours - 0.5)
    frames = (colours.clamp(0, 1) * 255).round().to(torch.uint8)
    return frames, mask, mask.sum((3, 4)) / shape.sum((3, 4)).clamp_min(1e-6)


def _draw(images: Tensor, path: Tensor, turned: Tensor, motion: Motion) -> Tensor:
    """Digits (n, k, 8, 8) drawn at centres (n, t, k, 2) and angles (n, t, k): how much ink, (n, t, k, size, size)."""
    (n, t, k, _), size = path.shape, motion.size
    at = torch.arange(size) + 0.5
    x, y = at - path[..., :1], at - path[..., 1:]  # (n, t, k, size) each
    if motion.walls == "wrap":
        x, y = ((d + size / 2) % size - size / 2 for d in (x, y))
    cos, sin = (f(turned)[..., None, None] * (2 / motion.extent) for f in (torch.cos, torch.sin))
    x, y = x[..., None, :], y[..., :, None]
    grid = torch.stack([cos * x + sin * y, cos * y - sin * x], -1)  # (n, t, k, size, size, 2)
    strips = images[:, :, None].transpose(1, 2).expand(-1, t, -1, -1, -1).reshape(-1, 1, *images.shape[2:])
    drawn = F.grid_sample(strips, grid.reshape(-1, size, size, 2), padding_mode="zeros", align_corners=False)
    return drawn.view(n, t, k, size, size)


def cross_matrix(v: Tensor) -> Tensor:
    """The matrices (n, 3, 3) of the cross product with v (n, 3), whose exponential turns about v by |v| radians."""
    x, y, z = v.unbind(1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], 1).view(-1, 3, 3)
