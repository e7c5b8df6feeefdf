"""Images of two origins as one set, with the origin kept as a label.

"CINIC-10 is not ImageNet or CIFAR-10"; here handwritten digits and degraded print stand for CIFAR-10 and ImageNet.
"""

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor

from ...data.batches import mixed_seed
from ...data.benchmarks import Benchmark
from ...data.synthetic import _installed, digits
from ...loss import raised

Images = Float[Tensor, "n c h w"]
Labels = Int[Tensor, " n"]
Source = tuple[Tensor, Tensor]  # images (n, c, h, w) and labels (n,)
FONTS = (
    "DejaVuSans", "DejaVuSerif", "DejaVuSansMono",
    "STIXGeneral", "cmr10", "cmss10",
    "cmtt10", "DejaVuSans-Bold", "DejaVuSerif-Bold",
    "DejaVuSansMono-Bold", "STIXGeneralBol", "DejaVuSans-Oblique",
    "cmb10", "cmti10", "DejaVuSerif-Italic",
    "DejaVuSerif-BoldItalic", "DejaVuSansMono-Oblique", "STIXGeneralItalic",
    "DejaVuSansMono-BoldOblique", "DejaVuSans-BoldOblique", "STIXGeneralBolIta",
)  # fmt: skip
PARTS = ("train", "validation", "test")  # of CINIC-10, equal in size


@lru_cache(1)
def glyphs(side: int = 32) -> Float[Tensor, "fonts 10 {side} {side}"]:
    """The digits 0 … 9 in each of ``FONTS``, ink 1 on ground 0, every glyph as large as fits with a margin of 1/16."""
    from PIL import Image, ImageDraw, ImageFont

    made = torch.zeros(len(FONTS), 10, side, side)
    for i, name in enumerate(FONTS):
        font = ImageFont.truetype(str(_installed("matplotlib", "mpl-data", "fonts", "ttf", f"{name}.ttf")), 4 * side)
        for digit in range(10):
            left, top, right, bottom = font.getbbox(str(digit))
            picture = Image.new("L", (right - left, bottom - top))
            ImageDraw.Draw(picture).text((-left, -top), str(digit), 255, font)
            scale = 0.875 * side / max(picture.size)
            picture = picture.resize([max(1, round(scale * s)) for s in picture.size], Image.Resampling.BOX)
            x, y = ((side - s) // 2 for s in picture.size)
            pixels = torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255)
            made[i, digit, y : y + pixels.shape[0], x : x + pixels.shape[1]] = pixels
    return made


def printed_digits(n: int, seed: int = 0, part: str = "train") -> tuple[Float[Tensor, "n 1 8 8"], Labels]:
    """Printed digits, turned, scaled and shifted, brought down to 8×8 and degraded: the stand-in for ImageNet's images.

    Each part has seven fonts of its own. Ink is 0.5 … 1, noise has a standard deviation of 0.07.

    Raises ValueError for n < 1 or an unknown part.
    """
    if part not in PARTS:
        raise ValueError(f"part must be one of {', '.join(PARTS)}, got {part!r}")
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    g = Generator().manual_seed(mixed_seed(seed, 7, PARTS.index(part)))
    labels = torch.arange(n) % 10
    font = 3 * torch.randint(len(FONTS) // 3, (n,), generator=g) + PARTS.index(part)
    turn, grow = 0.2 * (2 * torch.rand(2, n, generator=g) - 1)
    cos, sin, shift = turn.cos() / (1 + grow), turn.sin() / (1 + grow), 0.2 * (2 * torch.rand(n, 2, generator=g) - 1)
    rows = torch.stack([torch.stack([cos, -sin, shift[:, 0]], 1), torch.stack([sin, cos, shift[:, 1]], 1)], 1)
    pictures = glyphs()[font, labels][:, None]
    x = F.grid_sample(pictures, F.affine_grid(rows, list(pictures.shape), align_corners=False), align_corners=False)
    ink = 0.5 + 0.5 * torch.rand(n, 1, 1, 1, generator=g)
    x = ink * F.avg_pool2d(x, 4) + 0.07 * torch.randn(n, 1, 8, 8, generator=g)
    return x.clamp(0, 1), labels


def two_sources(part: str, seed: int = 0) -> dict[str, Source]:
    """A third of scikit-learn's handwritten digits, and as many printed ones: name -> (images, labels).

    Parts are disjoint: other handwritten digits, other fonts. The seed deals the handwritten digits to the parts.
    """
    images, labels = digits("optdigits")
    third = len(labels) // len(PARTS)
    order = torch.randperm(len(labels), generator=Generator().manual_seed(mixed_seed(seed, 8)))
    printed = printed_digits(third, seed, part)
    mine = order[PARTS.index(part) * third :][:third]
    return {"handwritten": (images[mine][:, None], labels[mine]), "printed": printed}


def matched_sources(first: Benchmark, second: Benchmark, part: str, seed: int = 0) -> dict[str, Source]:
    """Two benchmarks as two sources at full scale: the classes they share, equally many images, in three equal parts.

    Labels are those of ``first``. The second's images are brought down to the first's size by averaging, as CINIC-10
    does with ImageNet's. Training and test images of both are pooled before the seed deals them to the parts.
    """
    same = {"car": "automobile"}  # STL-10's word
    names = [same.get(name, name) for name in second.class_names]
    found = []
    for data, theirs in ((first, first.class_names), (second, names)):
        x, y = torch.cat([data.train_images, data.test_images]), torch.cat([data.train_labels, data.test_labels])
        shared = [n in names and n in first.class_names for n in theirs]
        known = [first.class_names.index(n) if s else -1 for n, s in zip(theirs, shared, strict=True)]
        y = torch.tensor(known, device=y.device)[y]
        g = Generator().manual_seed(mixed_seed(seed, 13))
        kept = torch.nonzero(y >= 0)[:, 0]
        found.append((x, y, kept[torch.randperm(len(kept), generator=g).to(kept.device)]))
    third = min(len(kept) for *_, kept in found) // len(PARTS)
    factor = second.train_images.shape[-1] // first.train_images.shape[-1]
    made = {}
    for (x, y, kept), name, by in zip(found, ("first", "second"), (1, factor), strict=True):
        mine = kept[PARTS.index(part) * third :][:third]
        made[name] = (F.avg_pool2d(x[mine].float() / 255, by), y[mine])
    return made


def pooled(sources: dict[str, Source], share: float = 1.0) -> tuple[Images, Labels]:
    """All sources as one set, of each the first ``share``."""
    kept = [(x[: round(share * len(x))], y[: round(share * len(y))]) for x, y in sources.values()]
    return torch.cat([x for x, _ in kept]), torch.cat([y for _, y in kept])


def pixel_statistics(images: Images) -> dict[str, list[float]]:
    """Mean and standard deviation of every channel's pixels, as the report prints them for each part and source."""
    flat = images.transpose(0, 1).flatten(1).double()
    return {"mean": flat.mean(1).tolist(), "std": flat.std(1).tolist()}


def standardised(images: Images) -> Images:
    """Every image with mean 0 and standard deviation 1 in every channel: brightness and contrast taken away.

    Computed in float32 or float64, returned in the images' precision. A flat image becomes 0.
    """
    wide = raised(images)
    mean, std = wide.mean((2, 3), keepdim=True), wide.std((2, 3), keepdim=True)
    return ((wide - mean) / (std + 1e-3)).to(images.dtype)


def source_matrix(
    learn: Callable[[Images, Labels], Callable[[Images], Labels]], train: dict[str, Source], test: dict[str, Source]
) -> dict[tuple[str, str], float]:
    """Accuracy for every pair (trained on, tested on)."""
    found = {}
    for source, (x, y) in train.items():
        predict = learn(x, y)
        found |= {(source, to): float((predict(u) == v).double().mean()) for to, (u, v) in test.items()}
    return found


def rank_agreement(a: list[float], b: list[float]) -> float:
    """Spearman's ρ of two lists of scores; 0 where one of them is constant and so ranks nothing.

    Raises ValueError for lists of different lengths, and scores that are not finite.
    """
    from scipy.stats import spearmanr

    if len(a) != len(b):
        raise ValueError(f"b must hold as many scores as a, {len(a)}, got {len(b)}")
    if not all(map(math.isfinite, (*a, *b))):
        raise ValueError("a and b must be finite, got NaN or infinity")
    return float(spearmanr(a, b).statistic) if min(len(set(a)), len(set(b))) > 1 else 0.0
