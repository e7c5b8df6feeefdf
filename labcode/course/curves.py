"""What a paper shows along an axis, and what was learnt as a picture: recorded and shown at every scale."""

import io
import math
import statistics
from dataclasses import dataclass
from pathlib import Path

from .judging import interval

PICTURE_BYTES = 40_000


@dataclass
class Curve:
    """Arms along an axis, one value a seed at each point."""

    paper: str
    name: str
    x: list[float] | list[str]  # numbers, or names of settings in their order
    arms: dict[str, list[list[float]]]  # arm -> for each point one value a seed
    xlabel: str
    ylabel: str
    seeds: list[int]
    data: str
    device: str
    versions: dict[str, str]
    commit: str
    code: str
    date: str
    log: bool = False  # whether the axis is logarithmic

    longer = {}  # the committed curves of longer runs, by scale: set by ``Run.curve``, not written

    def __post_init__(self):
        if not self.arms or len(self.x) < 2:
            raise ValueError(f"{self.paper}: a curve needs an arm and at least two points, got {self.x}")
        for arm, points in self.arms.items():
            if len(points) != len(self.x):
                wanted = f"a list for each of the {len(self.x)} points"
                raise ValueError(f"arms[{arm!r}] must have {wanted}, got {len(points)}")
            for at, values in zip(self.x, points, strict=True):
                if len(values) != len(self.seeds) or not all(math.isfinite(v) for v in values):
                    raise ValueError(f"arms[{arm!r}] at {at} must be {len(self.seeds)} finite values, got {values}")

    def band(self, arm: str) -> list[tuple[float, float, float]]:
        """Mean and 95 % interval at each point; a single seed is its own interval."""
        means = [(statistics.fmean(values), interval(values)) for values in self.arms[arm]]
        return [(mean, *(bounds or (mean, mean))) for mean, bounds in means]

    def differs(self, old: "Curve") -> list[str]:
        """What lies outside the committed curve's tolerance, in words; seeds that both have are compared.

        A value may lie three standard deviations of the seeds from the committed one, those of the point or, where its
        seeds happen to agree, of the arm over all its points; or 0.02. Seconds are the machine's: where the axis is
        labelled so, points and arms alone are compared.
        """
        where = f"{self.paper}: curve “{self.name}”"
        if self.x != old.x or list(self.arms) != list(old.arms):
            return [f"{where} has other points or arms than the committed one"]
        amiss = []
        for arm, points in self.arms.items() if "seconds" not in self.ylabel else ():
            spread = [statistics.stdev(was) if len(was) > 1 else 0.0 for was in old.arms[arm]]
            common = statistics.fmean(sd**2 for sd in spread) ** 0.5
            for at, new, was, sd in zip(self.x, points, old.arms[arm], spread, strict=True):
                allowed = max(3 * sd, 3 * common, 0.02 * max(1.0, *map(abs, was)))
                known = dict(zip(old.seeds, was, strict=True))
                for seed, value in zip(self.seeds, new, strict=True):
                    if seed in known and not abs(value - known[seed]) <= allowed:
                        told = f"{value:.4g} for seed {seed}, committed {known[seed]:.4g}, tolerance {allowed:.2g}"
                        amiss.append(f"{where}: {arm} at {at} is {told}")
        return amiss

    def __repr__(self) -> str:
        ends = ", ".join(f"{arm} {self.band(arm)[0][0]:.3g} → {self.band(arm)[-1][0]:.3g}" for arm in self.arms)
        return f"curve “{self.name}”: {self.ylabel} over {self.xlabel} {self.x[0]} … {self.x[-1]}: {ends}"


def sheet(images, columns: int = 8, scale: int | None = None) -> bytes:
    """A contact sheet of images (n, c, h, w) or (n, h, w), uint8 or floats in [0, 1], as a PNG of at most 40 KB.

    columns  images in a row
    scale    times each pixel is repeated, so that a person sees it; default: as much as makes 48 pixels of a side

    Raises ValueError for other shapes and ranges, and for a sheet that stays larger with 16 colours: show fewer.
    """
    import torch
    from PIL import Image

    x = torch.as_tensor(images).detach().cpu()
    x = x[:, None] if x.ndim == 3 else x
    if x.ndim != 4 or x.shape[1] not in (1, 3) or not len(x):
        given = tuple(torch.as_tensor(images).shape)
        raise ValueError(f"images must be (n, 1 or 3, h, w) or (n, h, w), got shape {given}")
    if x.is_floating_point():
        if not (x.min() >= 0 and x.max() <= 1):
            raise ValueError(f"images must lie in [0, 1], got {float(x.min()):.3g} … {float(x.max()):.3g}")
        x = (x * 255).round().to(torch.uint8)
    times = scale or max(1, 48 // x.shape[2])
    x = x.expand(-1, 3, -1, -1).repeat_interleave(times, 2).repeat_interleave(times, 3)
    rows, gap = math.ceil(len(x) / columns), 2
    h, w = x.shape[2] + gap, x.shape[3] + gap
    whole = torch.full((3, rows * h - gap, min(columns, len(x)) * w - gap), 255, dtype=torch.uint8)
    for i, image in enumerate(x):
        top, left = i // columns * h, i % columns * w
        whole[:, top : top + x.shape[2], left : left + x.shape[3]] = image
    picture = Image.fromarray(whole.permute(1, 2, 0).numpy())
    for colours in (256, 128, 64, 32, 16):
        out = io.BytesIO()
        picture.quantize(colours).save(out, "png", optimize=True)
        if out.tell() <= PICTURE_BYTES:
            return out.getvalue()
    raise ValueError(f"images make a sheet of {out.tell()} bytes, {PICTURE_BYTES} at most: show fewer than {len(x)}")


class Pictures:
    """A contact sheet of this run, beside the committed one of the longest run, as a notebook shows them."""

    def __init__(self, sheets: dict[str, bytes], caption: str):
        self.sheets, self.caption = sheets, caption

    def __repr__(self) -> str:
        return f"{self.caption} ({', '.join(self.sheets)})"

    def _repr_png_(self) -> bytes:
        """One picture: the sheets side by side, each under its scale's name."""
        from PIL import Image, ImageDraw

        parts = [(name, Image.open(io.BytesIO(png)).convert("RGB")) for name, png in self.sheets.items()]
        width = sum(part.width for _, part in parts) + 16 * (len(parts) - 1)
        whole = Image.new("RGB", (width, max(part.height for _, part in parts) + 14), "white")
        left, draw = 0, ImageDraw.Draw(whole)
        for name, part in parts:
            draw.text((left, 0), name, fill="black")
            whole.paste(part, (left, 14))
            left += part.width + 16
        out = io.BytesIO()
        whole.quantize(128).save(out, "png", optimize=True)
        return out.getvalue()


def picture_file(results: Path, paper: str, name: str) -> Path:
    """Where a run's sheet is kept: beside its results file."""
    words = "".join(c if c.isalnum() else "-" for c in name.lower()).strip("-")
    return results.with_suffix("") / f"{paper}-{words}.png"
