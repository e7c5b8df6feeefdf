"""Batched image augmentations on the device: one draw per image, an explicit generator, no waiting for the GPU.

Images are float tensors (n, channels, height, width) in [0, 1] unless a function says otherwise. Every random
function is a thin draw over a deterministic core (``crop``, ``jitter``, ``adjust_hue``, ``blur``, ``warp`` …) whose
arguments hold one value per image, so what was drawn can be replayed and compared with any other implementation.

Every random function takes ``generator``, on the images' device, and raises ValueError for images of another shape or
dtype, parameters out of range, or a generator of another device. An empty batch comes back empty.

Half precision is for storage: positions, weights and sums are float32 whatever the images' precision and the autocast
around, and the result is rounded once, to the images' type. (torch samples float16 and bfloat16 images wrongly on a CPU
from about 100 pixels a side on.)

Functions of colour want float images in [0, 1] and refuse what lies beyond -1 … 2, such as floats in 0 … 255, which
would come out white. In between they take what noise or a turned colour left. On a GPU the look would make the host
wait, so there such images become NaN, and ``fit`` stops at that step.
"""

import functools
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Generator, Tensor

from .loss import raised

LUMA = (0.2989, 0.587, 0.114)  # ITU-R 601, as in torchvision
BLOCK = 1 << 18  # elements: on a CPU the work goes through the batch in pieces that stay in its cache

Images = Float[Tensor, "n c h w"]
RGB = Float[Tensor, "n 3 h w"]
PerImage = Float[Tensor, " n"]
Pair = tuple[float, float]
Range = float | Pair


def _exact(function=None, *, unit: bool = False, uint8: bool = False):
    """Make a function of images compute in float32 or float64, outside autocast, and return the images' own type.

    unit   refuse pixels far outside of [0, 1]
    uint8  take bytes too
    """
    if function is None:
        return functools.partial(_exact, unit=unit, uint8=uint8)

    @functools.wraps(function)
    def wrapped(x, *arguments, **keywords):
        _shape(x, uint8)
        y = _in_range(x) if unit and x.is_floating_point() else x
        with torch.autocast(x.device.type, enabled=False):
            y = function(raised(y), *map(raised, arguments), **{name: raised(v) for name, v in keywords.items()})
        return y.to(x.dtype) if x.dtype in (torch.float16, torch.bfloat16) else y

    return wrapped


def _in_range(x: Tensor) -> Tensor:
    if not x.numel() or torch.compiler.is_compiling():
        return x
    low, high = x.detach().aminmax()
    if x.device.type != "cpu":
        return x + torch.where((low >= -1) & (high <= 2), 0.0, math.nan).to(x.dtype)
    if not (low >= -1 and high <= 2):
        raise ValueError(
            f"x must be in [0, 1] where it is float, got {low:.3g} … {high:.3g}: images in 0 … 255 are uint8, "
            "or divided by 255"
        )
    return x


def to_float(x: Shaped[Tensor, "n c h w"]) -> Images:
    """uint8 images to float32 in [0, 1]; float images in [0, 1] as they are. Raises ValueError for any other input."""
    _shape(x)
    if x.dtype == torch.uint8:
        return x.float().div_(255)
    if not x.is_floating_point():
        raise ValueError(f"x must be uint8 in 0 … 255 or float in [0, 1], got {x.dtype}")
    return _in_range(x)


# ---------------------------------------------------------------------------------------------------------------------
# Geometry
# ---------------------------------------------------------------------------------------------------------------------


@_exact(uint8=True)
def random_resized_crop(
    x: Shaped[Tensor, "n c h w"], size: int, scale: Pair = (0.2, 1.0), ratio: Pair = (3 / 4, 4 / 3),
    flip_p: float = 0.0, *, generator: Generator,
) -> Float[Tensor, "n c {size} {size}"]:  # fmt: skip
    """A random box of each image, resized to size × size: Inception's crop, as in SimCLR (appendix A).

    scale   share of the image's area, 0 < low <= high <= 1
    ratio   width over height of the box, log-uniform
    flip_p  probability of a mirror image, left to right: it comes with the resizing for nothing

    The distribution is torchvision's: whole pixels, the first of ten tries that fits, else the largest central box.
    """
    _images(x, generator, uint8=True)
    low, high = _range("scale", scale, 0, 1, open_low=True)
    wide, tall = _range("ratio", ratio, 0, math.inf, open_low=True)
    if size < 1:
        raise ValueError(f"size must be at least 1 pixel, got {size}")
    (n, _, height, width), tries = x.shape, 10
    area = height * width * _uniform(x, generator, low, high, n, tries)
    aspect = _uniform(x, generator, math.log(wide), math.log(tall), n, tries).exp()
    w, h = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
    fits = (w >= 1) & (w <= width) & (h >= 1) & (h <= height)
    first = fits.int().argmax(1, keepdim=True)
    w, h, fits = (t.gather(1, first)[:, 0] for t in (w, h, fits))
    aspect = min(max(width / height, wide), tall)
    central_w, central_h = min(width, round(height * aspect)), min(height, round(width / aspect))
    place = _uniform(x, generator, 0, 1, 2, n)
    left = torch.where(fits, (place[0] * (width - w + 1)).floor(), (width - central_w) // 2)
    top = torch.where(fits, (place[1] * (height - h + 1)).floor(), (height - central_h) // 2)
    w, h = torch.where(fits, w, central_w), torch.where(fits, h, central_h)
    if flip_p:
        mirrored = _coin(x, generator, flip_p)
        left, w = torch.where(mirrored, left + w, left), torch.where(mirrored, -w, w)
    return crop(x, torch.stack([top, left, h, w], 1), size)


@_exact(uint8=True)
def crop(x: Shaped[Tensor, "n c h w"], boxes: Float[Tensor, "n 4"], size: int) -> Float[Tensor, "n c {size} {size}"]:
    """Image i's box (top, left, height, width), in pixels, resized to size × size: bilinear, antialiased.

    A box that starts at its right edge and has a negative width gives the mirror image. Otherwise equal to
    torchvision's ``resized_crop(…, antialias=True)`` on tensors. uint8 becomes float in [0, 1]. Each axis is one
    matrix product. A box must lie within its image: on a CPU others are refused, on a GPU they give NaN or part of it.
    """
    if size < 1:
        raise ValueError(f"size must be at least 1 pixel, got {size}")

    def work(x, boxes):
        x, (top, left, h, w) = x.float().div_(255) if x.dtype == torch.uint8 else x, boxes.unbind(1)
        return _separable(x, _resize(top, h, x.shape[2], size), _resize(left, w, x.shape[3], size))

    boxes = boxes.to(x.dtype if x.is_floating_point() else torch.float32)
    if boxes.shape != (len(x), 4):
        got = tuple(boxes.shape)
        raise ValueError(f"boxes must be one (top, left, height, width) an image, ({len(x)}, 4), got {got}")
    if x.device.type == "cpu" and len(x):
        corner, far = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
        inside = torch.minimum(corner, far).amin(0) >= -1e-3
        inside &= torch.maximum(corner, far).amax(0) <= boxes.new_tensor(x.shape[2:]) + 1e-3
        if not (inside.all() and boxes[:, 2:].all()):
            raise ValueError(f"boxes must lie within the images of {tuple(x.shape[2:])} pixels and not be empty")
    return _blocks(work, x, boxes)


def _resize(start: PerImage, length: PerImage, full: int, size: int) -> Float[Tensor, "n size full"]:
    """The triangle filter from the pixels start … start + length of a line of ``full`` pixels to ``size`` pixels.

    With a negative length the line is read backwards, which mirrors it.
    """
    at = torch.arange(full, device=start.device, dtype=start.dtype) + 0.5
    step, end = (length / size)[:, None], start + length
    centre = start[:, None] + (torch.arange(size, device=start.device, dtype=start.dtype) + 0.5) * step
    low, high = torch.minimum(start, end)[:, None], torch.maximum(start, end)[:, None]
    inside = ((at >= low) & (at <= high)).to(start.dtype)
    weight = (at - centre[..., None]).abs_().mul_(-1 / step.abs().clamp_min(1)[..., None]).add_(1).clamp_min_(0)
    weight.mul_(inside[:, None])
    return weight.div_(weight.sum(2, keepdim=True))


def _separable(x: Images, rows: Float[Tensor, "n a h"], cols: Float[Tensor, "n b w"]) -> Float[Tensor, "n c a b"]:
    """rows @ image @ colsᵀ for every channel."""
    n, c, h, w = x.shape
    wide = torch.bmm(x.reshape(n, c * h, w), cols.mT).view(n, c, h, cols.shape[1])
    return torch.stack([torch.bmm(rows, wide[:, k]) for k in range(c)], 1)  # matmul would copy rows c times


def hflip(x: Images, p: float = 0.5, *, generator: Generator) -> Images:
    """Each image mirrored left to right with probability p."""
    _images(x, generator)
    return _some(lambda x: x.flip(3), x, _coin(x, generator, p))


@_exact
def affine(
    x: Images, degrees: float = 0, shift: float = 0, scale: Pair = (1, 1), shear: float = 0,
    padding: str = "zeros", *, generator: Generator,
) -> Images:  # fmt: skip
    """Each image turned, moved, scaled and sheared at random about its centre.

    degrees, shear  uniform in ±degrees; the shear is along x
    shift           uniform in ±shift of the width and of the height, drawn apart; not rounded to whole pixels
    scale           uniform; above 1 enlarges
    padding         beyond the border: "zeros", "border" or "reflection"
    """
    _images(x, generator)
    for name, value in (("degrees", degrees), ("shift", shift), ("shear", shear)):
        _at_least_0(name, value)
    low, high = _range("scale", scale, 0, math.inf, open_low=True)
    n, (h, w) = len(x), x.shape[2:]
    angle, sheared = _uniform(x, generator, -degrees, degrees, n), _uniform(x, generator, -shear, shear, n)
    moved = _uniform(x, generator, -shift, shift, n, 2) * _pair(x, w, h)
    return warp(x, affine_matrix(angle, moved, _uniform(x, generator, low, high, n), sheared, (h, w)), padding)


def affine_matrix(
    degrees: PerImage, shift: Float[Tensor, "n 2"], scale: PerImage, shear: PerImage, size: tuple[int, int]
) -> Float[Tensor, "n 2 3"]:
    """The output-to-input matrices of ``warp``: torchvision's ``affine`` with one value per image.

    degrees  clockwise; shift (right, down) in pixels; shear along x in degrees; size (height, width) in pixels
    """
    degrees, shift, scale, shear = map(raised, (degrees, shift, scale, shear))
    turn, slant = torch.deg2rad(degrees), torch.deg2rad(shear)
    cos, sin = turn.cos(), turn.sin()
    a, b, c, d = cos, -cos * slant.tan() - sin, sin, -sin * slant.tan() + cos  # forward, before the scale
    inverse = torch.stack([torch.stack([d, -b], 1), torch.stack([-c, a], 1)], 1) / scale[:, None, None]
    offset = -(inverse * shift[:, None]).sum(2, keepdim=True)
    half = _pair(scale, size[1] / 2, size[0] / 2)
    return torch.cat([inverse * half, offset], 2) / half[:, None]


def _pair(like: Tensor, first: float, second: float) -> Float[Tensor, "2"]:
    """Two numbers where another tensor is, filled there: copied from the host, they would make it wait."""
    return torch.cat([like.new_full((1,), first), like.new_full((1,), second)])


@_exact
def warp(x: Images, matrix: Float[Tensor, "n 2 3"], padding: str = "zeros") -> Images:
    """Output pixel (u, v, 1), in [-1, 1] from border to border, reads the input at matrix @ (u, v, 1): bilinear."""
    if padding not in ("zeros", "border", "reflection"):
        raise ValueError(f"padding must be 'zeros', 'border' or 'reflection', got {padding!r}")
    if not len(x):
        return x
    u, v = (_middles(x, side) for side in (x.shape[3], x.shape[2]))
    a, b, c = (matrix.to(x.dtype)[:, None, None, :, k] for k in range(3))  # F.affine_grid takes three times as long
    grid = torch.addcmul(torch.addcmul(c, b, v[:, None, None]), a, u[:, None])
    return F.grid_sample(x, grid, padding_mode=padding, align_corners=False)


def _middles(like: Tensor, side: int) -> Tensor:
    """The middles of ``side`` pixels that fill -1 … 1."""
    return (torch.arange(side, device=like.device, dtype=like.dtype) * 2 + 1) / side - 1


def cutout(x: Images, size: int, p: float = 1.0, fill: float = 0.0, *, generator: Generator) -> Images:
    """A size × size square of each image replaced by ``fill`` with probability p (DeVries and Taylor, Cutout).

    The square's centre is any pixel, so it may reach over the border, as in the paper. The paper fills normalised
    images with 0, the data set's mean: pass that mean as ``fill`` for images in [0, 1].
    """
    _images(x, generator)
    if size < 1:
        raise ValueError(f"size must be at least 1 pixel, got {size}")
    n, _, h, w = x.shape
    chosen, place = _coin(x, generator, p), _uniform(x, generator, 0, 1, 2, n)
    covered = []
    for at, full in zip(place, (h, w), strict=True):
        start = (at * full).floor()[:, None] - size // 2
        pixel = torch.arange(full, device=x.device)
        covered.append((pixel >= start) & (pixel < start + size))
    hole = covered[0][:, None, :, None] & covered[1][:, None, None, :] & _wide(chosen)
    return x.masked_fill(hole, fill)


# ---------------------------------------------------------------------------------------------------------------------
# Colour
# ---------------------------------------------------------------------------------------------------------------------


@_exact(unit=True)
def colour_jitter(
    x: Images, brightness: Range = 0.4, contrast: Range = 0.4, saturation: Range = 0.4, hue: Range = 0.1,
    p: float = 0.8, *, generator: Generator, inplace: bool = False,
) -> Images:  # fmt: skip
    """Brightness, contrast, saturation and hue of each image changed in a random order, with probability p.

    brightness, contrast, saturation  f stands for factors uniform in max(0, 1 - f) … 1 + f; or a pair (low, high)
    hue                               f stands for a turn uniform in ±f of the colour circle, f <= 0.5; or a pair
    inplace                           x may be overwritten

    torchvision's ColorJitter, with its own factors and its own order for every image. RGB in [0, 1] only.
    """
    _images(x, generator, rgb=True)
    given = dict(brightness=brightness, contrast=contrast, saturation=saturation)
    pairs = [_factors(name, value) for name, value in given.items()]
    hues = hue if isinstance(hue, tuple) else (-hue, hue)
    pairs.append(_range("hue", hues, -0.5, 0.5))
    n, chosen = len(x), _coin(x, generator, p)
    factors = torch.stack([_uniform(x, generator, low, high, n) for low, high in pairs], 1)
    order = _uniform(x, generator, 0, 1, n, 4).argsort(1)
    return jitter(x, factors, order, chosen, inplace)


@_exact(unit=True)
def jitter(
    x: Images, factors: Float[Tensor, "n 4"], order: Int[Tensor, "n 4"], chosen: Bool[Tensor, " n"] | None = None,
    inplace: bool = False,
) -> Images:  # fmt: skip
    """The four changes (0 brightness, 1 contrast, 2 saturation, 3 hue) with given factors, in each image's order.

    The first three are one blend, f·x + (1 - f)·reference, with black, the mean grey or the grey image as reference.
    So all images run through three blends, one turn of the hue and three blends again, and a blend that an image has
    on the other side of its hue is the identity: seven passes whatever the orders, and none waits for the device.
    On a CPU, where looking at the orders costs nothing, images of one order go through their own four changes together.
    """
    factors = factors.to(x.dtype)
    if x.device.type == "cpu" and not x.requires_grad:
        return _jitter_by_order(x if inplace else x.clone(), factors, order, chosen)
    turn_at = (order == 3).int().argmax(1, keepdim=True)
    step = torch.arange(3, device=x.device)
    which = order.gather(1, step + (step >= turn_at))  # each image's order without the hue
    factor = factors.gather(1, which)
    before = step < turn_at
    rest = 1 - factor
    blends = torch.stack([factor, rest * (which == 2), rest * (which == 1)], 2)  # of the image, its grey, its mean grey
    still = (step == 0).to(x.dtype)  # the identity: the image once, no grey
    first, last = torch.where(before[..., None], blends, still), torch.where(before[..., None], still, blends)

    def work(x, first, last, hue, *chosen):
        y = x
        for k in range(3):
            y = _blend(y, *first[:, k].unbind(1))
        y = _turn(y, hue)
        for k in range(3):
            y = _blend(y, *last[:, k].unbind(1))
        return torch.where(_wide(chosen[0]), y, x) if chosen else y

    return _blocks(work, x, first, last, factors[:, 3], *([] if chosen is None else [chosen]))


def _jitter_by_order(x: Images, factors: Tensor, order: Tensor, chosen: Tensor | None) -> Images:
    """Changes x itself."""
    if not len(x):
        return x
    change = (_brighten_, _contrast_, _saturate_, lambda y, f: _turn(y, f.flatten()))
    code = (order * torch.tensor([64, 16, 4, 1])).sum(1)
    if chosen is not None:
        code = code.masked_fill(~chosen, -1)
    ranked, block = code.argsort(), max(1, BLOCK // max(1, x[0].numel()))
    found, counts = (t.tolist() for t in code[ranked].unique_consecutive(return_counts=True))
    for one, index, factor in zip(found, ranked.split(counts), factors[ranked].split(counts), strict=True):
        for some, f in zip(index.split(block), factor.split(block), strict=True) if one >= 0 else ():
            y = x.index_select(0, some)
            for k in (one >> 6, one >> 4 & 3, one >> 2 & 3, one & 3):
                y = change[k](y, _wide(f[:, k]))
            x.index_copy_(0, some, y)
    return x


def _brighten_(y: Images, f: Tensor) -> Images:
    return y.mul_(f).clamp_(0, 1)


def _contrast_(y: Images, f: Tensor) -> Images:
    grey = _wide(y.mean((2, 3)) @ torch.tensor(LUMA, dtype=y.dtype))
    return y.mul_(f).add_(grey.mul_(1 - f)).clamp_(0, 1)


def _saturate_(y: Images, f: Tensor) -> Images:
    grey = _luma(y).mul_(1 - f)
    return y.mul_(f).add_(grey).clamp_(0, 1)


def _blend(x: Images, image: PerImage, grey: PerImage, mean: PerImage) -> Images:
    """image·x + grey·grey(x) + mean·mean(grey(x)), clamped to [0, 1]."""
    luma = _luma(x)
    reference = luma * _wide(grey) + luma.mean((2, 3), keepdim=True) * _wide(mean)
    return torch.addcmul(reference, x, _wide(image)).clamp_(0, 1)


def _luma(x: RGB) -> Float[Tensor, "n 1 h w"]:
    r, g, b = x.split(1, 1)
    return (r * LUMA[0]).add_(g, alpha=LUMA[1]).add_(b, alpha=LUMA[2])


@_exact(unit=True)
def adjust_brightness(x: Images, factor: PerImage) -> Images:
    """factor · x, clamped to [0, 1]; one factor >= 0 per image."""
    return (x * _wide(factor.to(x.dtype))).clamp_(0, 1)


@_exact(unit=True)
def adjust_contrast(x: RGB, factor: PerImage) -> Images:
    """The image blended with its mean grey: 0 is flat grey, 1 the image; clamped to [0, 1]."""
    factor = factor.to(x.dtype)
    return _blend(x, factor, torch.zeros_like(factor), 1 - factor)


@_exact(unit=True)
def adjust_saturation(x: RGB, factor: PerImage) -> Images:
    """The image blended with its grey version: 0 is grey, 1 the image; clamped to [0, 1]."""
    factor = factor.to(x.dtype)
    return _blend(x, factor, 1 - factor, torch.zeros_like(factor))


@_exact(unit=True)
def adjust_hue(x: RGB, factor: PerImage) -> Images:
    """The hue turned by ``factor`` of the colour circle, in [-0.5, 0.5]; value and saturation (HSV) stay."""
    return _turn(x, factor.to(x.dtype))


def _turn(x: RGB, factor: PerImage) -> Images:
    """HSV without leaving RGB: a channel is max - chroma · clamp(distance of hue from the channel's own - 1, 0, 1).

    The distance is taken round the circle of six: from red at 0 it is 3 - |hue - 3|, from green |hue - 2|, where it
    passes 2 on the far side the clamp hides the difference, and likewise from blue |hue - 4|.
    """
    r, g, b = x.split(1, 1)
    top = torch.maximum(torch.maximum(r, g), b)
    chroma = top - torch.minimum(torch.minimum(r, g), b)
    scale = chroma.clamp_min(torch.finfo(x.dtype).tiny).reciprocal()
    red, green = (g - b).mul_(scale), (b - r).mul_(scale).add_(2)
    blue = (r - g).mul_(scale).add_(4)
    # The largest channel names the hue; signs and lerp choose it, on a CPU far faster than comparisons and where
    hue = torch.lerp(red, torch.lerp(green, blue, (top - g).sign_()), (top - r).sign_())
    hue = hue.add(6 * _wide(factor))  # sixths of a circle
    hue.sub_((hue / 6).floor_().mul_(6))  # in 0 … 6
    share = torch.cat([3 - (hue - 3).abs_(), (hue - 2).abs_(), (hue - 4).abs_()], 1)
    return torch.addcmul(top, chroma, share.sub_(1).clamp_(0, 1), value=-1)


@_exact
def grayscale(x: Images, p: float = 0.2, *, generator: Generator, inplace: bool = False) -> Images:
    """Each image replaced by its grey version, in three equal channels, with probability p. RGB only.

    inplace  x may be overwritten
    """
    _images(x, generator, rgb=True)
    return _some(_luma, x, _coin(x, generator, p), inplace)


@_exact(unit=True)
def solarise(x: Images, threshold: float = 0.5, p: float = 0.2, *, generator: Generator) -> Images:
    """Pixels at or above the threshold inverted, x → 1 - x, in each image with probability p (BYOL, appendix B)."""
    _images(x, generator)
    chosen = _coin(x, generator, p)
    return torch.where(_wide(chosen) & (x >= threshold), 1 - x, x)


@_exact
def gaussian_blur(
    x: Images, kernel: int, sigma: Pair = (0.1, 2.0), p: float = 0.5, *, generator: Generator
) -> Images:
    """Each image blurred with its own width, with probability p.

    kernel  odd number of pixels, at most 2 · side - 1; SimCLR takes a tenth of the side
    sigma   standard deviation in pixels, uniform
    """
    _images(x, generator)
    low, high = _range("sigma", sigma, 0, math.inf, open_low=True)
    chosen, width = _coin(x, generator, p), _uniform(x, generator, low, high, len(x))
    return blur(x, width, kernel, chosen)


@_exact
def blur(x: Images, sigma: PerImage, kernel: int, chosen: Bool[Tensor, " n"] | None = None) -> Images:
    """Gaussian blur with one sigma per image and reflected borders: torchvision's ``gaussian_blur`` for a batch."""
    if kernel < 1 or kernel % 2 == 0 or kernel // 2 >= min(x.shape[2:]):
        raise ValueError(f"kernel must be odd and at most 2 · side - 1 for images {tuple(x.shape[2:])}, got {kernel}")
    offset = torch.arange(kernel, device=x.device) - kernel // 2
    sigma = sigma.to(x.dtype)[:, None]
    tap = torch.softmax(-0.5 * (offset / sigma) ** 2, 1)
    if chosen is not None:
        tap = torch.where(chosen[:, None], tap, (offset == 0).to(x.dtype))

    def matrix(tap: Tensor, side: int) -> Tensor:
        source = (torch.arange(side, device=x.device)[:, None] + offset).abs()
        source = side - 1 - (side - 1 - source).abs()  # reflected at both ends
        empty = torch.zeros(len(tap), side, side, device=x.device, dtype=x.dtype)
        return empty.scatter_add_(2, source.expand(len(tap), -1, -1), tap[:, None].expand(-1, side, -1))

    work = lambda x, tap: _separable(x, matrix(tap, x.shape[2]), matrix(tap, x.shape[3]))  # noqa: E731
    return _blocks(work, x, tap)


@_exact
def noise(x: Images, std: float, *, generator: Generator) -> Images:
    """Gaussian noise of standard deviation std added to every pixel; not clamped."""
    _images(x, generator)
    _at_least_0("std", std)
    return torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype).mul_(std).add_(x)


@_exact(unit=True)
def colour_rotation(x: RGB, mean: float = 1.0, *, generator: Generator) -> Images:
    """Each image's colours turned about their mean by a rotation of RGB space, uniform over all rotations.

    mean  share, in [0, 1], of a new mean colour, uniform in [0, 1]³, in place of the image's own; 0 keeps its own

    What is left of the image is its shape and contrast: the photometric view of the scenes. Not clamped, as a turned
    colour may lie outside the cube.
    """
    _images(x, generator, rgb=True)
    if not 0 <= mean <= 1:
        raise ValueError(f"mean must be in [0, 1], got {mean}")
    turn = random_rotations(len(x), generator=generator).to(x.dtype)
    own, fresh = x.mean((2, 3))[:, :, None], _uniform(x, generator, 0, 1, len(x), 3, 1)
    return rotate_colours(x, turn, own + mean * (fresh - own))


@_exact
def rotate_colours(
    x: RGB, rotation: Float[Tensor, "n 3 3"], mean: Float[Tensor, "n 3 1"] | None = None
) -> Images:
    """rotation @ (colour - image's mean) + mean; without ``mean`` the image's own."""
    flat = x.flatten(2)
    old = flat.mean(2, keepdim=True)
    new = old if mean is None else mean.to(x.dtype)
    rotation = rotation.to(x.dtype)
    return torch.baddbmm(new - rotation @ old, rotation, flat).view_as(x)


def random_rotations(n: int, *, generator: Generator) -> Float[Tensor, "n 3 3"]:
    """n rotations of three-dimensional space, uniform (Haar): from unit quaternions, so no QR and no sign rule."""
    q = torch.randn(4, n, generator=generator, device=generator.device)
    w, x, y, z = F.normalize(q, dim=0).unbind(0)
    rows = [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w),
            2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w),
            2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)]  # fmt: skip
    return torch.stack(rows, 1).view(n, 3, 3)


# ---------------------------------------------------------------------------------------------------------------------
# Recipes: all views stacked, rows i, i + n, … are the views of image i
# ---------------------------------------------------------------------------------------------------------------------


@_exact(unit=True, uint8=True)
def scene_views(
    x: Shaped[Tensor, "n 3 h w"], generator: Generator, strength: float = 1.0, views: int = 2
) -> Float[Tensor, "{views}*n 3 h w"]:
    """Views of the course's scenes: free colours, a little geometry, a little noise.

    x         uint8, or float in [0, 1]
    strength  multiplies geometry and noise: matrix entries within ±0.05 of the identity's, shift ±0.05 half sides,
              noise 0.02; the colours turn freely whatever the strength, the mean moves halfway to a random one

    Row i + v·n is view v of image i. Not clamped.
    """
    _at_least_0("strength", strength)
    _images(x, generator, rgb=True, uint8=True)
    x = _repeat(x, views)
    x = colour_rotation(x, mean=0.5, generator=generator)
    away = _uniform(x, generator, -0.05 * strength, 0.05 * strength, len(x), 2, 3)
    x = warp(x, torch.eye(2, 3, device=x.device) + away, padding="reflection")
    return noise(x, 0.02 * strength, generator=generator)


@_exact(unit=True, uint8=True)
def simclr_views(
    x: Shaped[Tensor, "n 3 h w"], generator: Generator, size: int | None = None, strength: float = 0.5, views: int = 2,
    scale: Pair = (0.2, 1.0), blur_p: float = 0.0, jitter_p: float = 0.8, grey_p: float = 0.2,
) -> Float[Tensor, "{views}*n 3 s s"]:  # fmt: skip
    """SimCLR's views (appendix A; CIFAR-10: B.9): crop, flip, colour jitter, grey, and blur if asked for.

    x         uint8, or float in [0, 1]
    size      of the views in pixels; None is the height of x
    strength  s of the paper: jitter 0.8 s, 0.8 s, 0.8 s and 0.2 s; 0.5 for CIFAR-10, 1 for ImageNet
    blur_p    0 for CIFAR-10 as in the paper; 0.5 for larger images, with a kernel of a tenth of the side

    Row i + v·n is view v of image i. ``scale`` starts at 0.2, as in MoCo v2 and the usual CIFAR recipes; the paper's
    0.08 is for ImageNet. In [0, 1].
    """
    if not 0 <= strength <= 2.5:
        raise ValueError(f"strength must be in [0, 2.5], got {strength}")
    _images(x, generator, rgb=True, uint8=True)
    if views < 1:
        raise ValueError(f"views must be at least 1, got {views}")
    size = x.shape[2] if size is None else size
    x = x.repeat(views, 1, 1, 1)
    x = random_resized_crop(x, size, scale, flip_p=0.5, generator=generator)
    s = 0.8 * strength
    x = colour_jitter(x, s, s, s, s / 4, jitter_p, generator=generator, inplace=True)
    x = grayscale(x, grey_p, generator=generator, inplace=True)
    if blur_p:
        kernel = min(max(3, size // 10 // 2 * 2 + 1), 2 * size - 1)
        x = gaussian_blur(x, kernel, p=blur_p, generator=generator)
    return x


def _repeat(x: Tensor, views: int) -> Tensor:
    """The images in float, ``views`` times over."""
    if views < 1:
        raise ValueError(f"views must be at least 1, got {views}")
    return to_float(x).repeat(views, 1, 1, 1)


# ---------------------------------------------------------------------------------------------------------------------
# Draws, checks and blocks
# ---------------------------------------------------------------------------------------------------------------------


def _shape(x: Tensor, uint8: bool | None = None) -> None:
    """Raise ValueError unless x is a batch of images; of floats, or of bytes where ``uint8``, unless that is None."""
    if not isinstance(x, Tensor) or x.ndim != 4 or not x.shape[1:].numel():
        got = f"shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"x must be a batch of images (n, channels, height, width), got {got}")
    if uint8 is not None and not (x.is_floating_point() or uint8 and x.dtype == torch.uint8):
        wanted = "uint8 in 0 … 255 or float in [0, 1]" if uint8 else "float in [0, 1]: convert once with to_float"
        raise ValueError(f"x must be {wanted}, got {x.dtype}")


def _at_least_0(name: str, value: float) -> None:
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} must be at least 0, got {value}")


def _images(x: Tensor, generator: Generator, rgb: bool = False, uint8: bool = False) -> None:
    _shape(x, uint8)
    if rgb and x.shape[1] != 3:
        raise ValueError(f"x must have 3 channels (RGB), got {x.shape[1]}")
    if not isinstance(generator, Generator):
        raise ValueError(f"generator must be a torch.Generator, got {type(generator).__name__}")
    if generator.device.type != x.device.type:
        raise ValueError(f"generator must be on the images' device {x.device}, it is on {generator.device}")


def _range(name: str, pair, lowest: float, highest: float, open_low: bool = False) -> Pair:
    low, high = pair
    if not (lowest <= low <= high <= highest) or (open_low and low == lowest):
        wanted = f"{lowest} {'<' if open_low else '<='} low <= high <= {highest}"
        raise ValueError(f"{name} must be a pair with {wanted}, got ({low}, {high})")
    return low, high


def _factors(name: str, value: Range) -> Pair:
    if isinstance(value, tuple):
        return _range(name, value, 0, math.inf)
    _at_least_0(name, value)
    return max(0.0, 1 - value), 1 + value


def _uniform(x: Tensor, generator: Generator, low: float, high: float, *shape: int) -> Tensor:
    """Uniform draws on the images' device, in float32 whatever the images' precision."""
    return torch.rand(shape, generator=generator, device=x.device).mul_(high - low).add_(low)


def _coin(x: Tensor, generator: Generator, p: float) -> Bool[Tensor, " n"]:
    if not 0 <= p <= 1:
        raise ValueError(f"p must be a probability in [0, 1], got {p}")
    return torch.rand(len(x), generator=generator, device=x.device) < p


def _wide(value: Tensor) -> Tensor:
    """One value per image (n,) made to broadcast over (n, c, h, w)."""
    return value.view(-1, 1, 1, 1)


def _some(work: Callable[[Tensor], Tensor], x: Tensor, chosen: Bool[Tensor, " n"], inplace: bool = False) -> Tensor:
    """work(x) for the chosen images, the others as they are; on a CPU only the chosen are worked on."""
    if x.device.type != "cpu" or x.requires_grad:
        return torch.where(_wide(chosen), work(x), x)
    x = x if inplace else x.clone()
    for index in chosen.nonzero()[:, 0].split(max(1, BLOCK // max(1, x[0].numel())) if len(x) else 1):
        x.index_copy_(0, index, work(x.index_select(0, index)).expand(-1, *x.shape[1:]))
    return x


def _blocks(work: Callable[..., Tensor], x: Tensor, *given: Tensor) -> Tensor:
    """work(x, *given), on a CPU in cache-sized blocks of images: the same values, less memory traffic."""
    size = max(1, BLOCK // max(1, x[0].numel())) if len(x) else 1
    if x.device.type != "cpu" or len(x) <= size or x.requires_grad:
        return work(x, *given)
    out = None
    for start in range(0, len(x), size):
        done = work(*(t[start : start + size] for t in (x, *given)))
        out = done.new_empty(len(x), *done.shape[1:]) if out is None else out
        out[start : start + size] = done
    return out
