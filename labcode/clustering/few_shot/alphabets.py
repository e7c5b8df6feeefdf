"""Letters of three alphabets in sixteen typefaces, warped: classes in plenty for few-shot tasks, with no download.

The typefaces come inside matplotlib (DejaVu by the Bitstream and DejaVu authors, STIX by the STI Pub companies; both
licences allow use and change). As in Omniglot the alphabet of the tasks is one that the encoder has never seen.
"""

from functools import lru_cache

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ...data.synthetic import _installed

ALPHABETS = {
    "latin": "abdefghijkmnqrtABDEFGHJKLMNQRSTXYyzwcopuv",  # base classes: labels may be used
    "greek": "αβγδεζηθλμξπρστφχψωΔΣΩΘΨΞ",  # validation: settings may be learnt here
    "cyrillic": "БДЖЗИЙЛПУЦЧШЩЪЫЬЭЮЯФЄЂЉЊ",  # test
    "signs": "23456789&@#%€£$§¶?+∞∂∑√≠",  # takes the place of the test classes while settings are chosen
}
FACES = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique",
    "DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSansMono-Oblique", "DejaVuSansMono-BoldOblique",
    "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic",
    "STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta",
)  # fmt: skip


@lru_cache(4)
def printed(alphabet: str, side: int = 32) -> Float[Tensor, "c f s s"]:
    """Every letter of an alphabet in every typeface, ink 1 on 0, its longer side 0.7 of the picture, in the middle.

    Raises ValueError for an unknown alphabet.
    """
    from PIL import Image, ImageDraw, ImageFont

    if alphabet not in ALPHABETS:
        raise ValueError(f"alphabet must be one of {', '.join(ALPHABETS)}, got {alphabet!r}")
    pictures = []
    for face in FACES:
        font = ImageFont.truetype(str(_installed("matplotlib", "mpl-data", "fonts", "ttf", f"{face}.ttf")), 2 * side)
        for letter in ALPHABETS[alphabet]:
            left, top, right, bottom = font.getbbox(letter)
            page = Image.new("L", (right - left, bottom - top))
            ImageDraw.Draw(page).text((-left, -top), letter, 255, font=font)
            scale = 0.7 * side / max(page.size)
            page = page.resize([max(1, round(scale * s)) for s in page.size], Image.Resampling.BOX)
            picture = Image.new("L", (side, side))
            picture.paste(page, ((side - page.width) // 2, (side - page.height) // 2))
            pictures.append(torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).view(side, side))
    return (torch.stack(pictures).view(len(FACES), -1, side, side).transpose(0, 1).float() / 255).contiguous()


def letters(
    alphabet: str, per_class: int, generator: torch.Generator, *, size: int = 16, warp: float = 1.0, noise: float = 0.1
) -> Float[Tensor, "c m 1 s s"]:
    """``per_class`` images of every letter: typeface, position, angle, shape and contrast are drawn anew each time.

    size   pixels a side
    warp   multiplies the geometry: turns of ±0.35 rad, entries of the matrix ±0.2, shifts of ±0.12 half sides, and a
           smooth bending of ±0.12 half sides
    noise  standard deviation of the pixels' noise; contrast is 0.5 to 1

    Raises ValueError for an unknown alphabet and per_class below 1.
    """
    if per_class < 1:
        raise ValueError(f"per_class must be at least 1, got {per_class}")
    faces = printed(alphabet, 2 * size)
    n, device = len(faces) * per_class, generator.device
    face = torch.randint(faces.shape[1], (len(faces), per_class), generator=generator, device=device)
    plain = faces.to(device)[torch.arange(len(faces), device=device)[:, None], face].view(n, 1, 2 * size, 2 * size)
    made = distorted(F.avg_pool2d(plain, 2), generator, warp)
    contrast = 0.5 + 0.5 * torch.rand(n, 1, 1, 1, generator=generator, device=device)
    made = made * contrast + noise * torch.randn(made.shape, generator=generator, device=device)
    return made.clamp(0, 1).view(len(faces), per_class, 1, size, size)


def distorted(x: Float[Tensor, "n c h w"], generator: torch.Generator, warp: float = 1.0) -> Float[Tensor, "n c h w"]:
    """Each image turned, sheared, shifted and bent by draws of its own; see ``letters``."""
    n, device = len(x), x.device
    draw = lambda *shape: 2 * torch.rand(*shape, generator=generator, device=device) - 1  # noqa: E731
    angle = 0.35 * warp * draw(n)
    rows = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).view(n, 2, 2)
    rows = rows @ (torch.eye(2, device=device) + 0.2 * warp * draw(n, 2, 2))
    grid = F.affine_grid(torch.cat([rows, 0.12 * warp * draw(n, 2, 1)], 2), list(x.shape), align_corners=False)
    bend = F.interpolate(0.12 * warp * draw(n, 2, 4, 4), x.shape[2:], mode="bicubic", align_corners=False)
    return F.grid_sample(x, grid + bend.permute(0, 2, 3, 1), padding_mode="zeros", align_corners=False)


def letter_views(x: Float[Tensor, "n c h w"], generator: torch.Generator, views: int = 2) -> Float[Tensor, "vn c h w"]:
    """Views for contrastive training: distorted anew, other contrast, a little noise; row i + v·n is of image i."""
    x = distorted(x.repeat(views, 1, 1, 1), generator, 0.8)
    scale = 0.5 + torch.rand(len(x), 1, 1, 1, generator=generator, device=x.device)
    return x * scale + 0.1 * torch.randn(x.shape, generator=generator, device=x.device)
