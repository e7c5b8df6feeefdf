"""Weak and strong views of small images that are kept as rows, and mixtures of them, for whole stacks of batches.

Rows are (…, side²) in [0, 1] with any leading shape, such as (n, b, 196); every row has its own draw. Nothing waits for
a GPU. What a shift or a turn brings in from outside is 0, the paper of a digit.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor

Rows = Float[Tensor, "*lead p"]


def _pictures(x: Tensor, generator: Generator) -> Tensor:
    """Rows as (m, 1, side, side), after the checks."""
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.ndim < 1:
        raise ValueError(f"x must be rows of floating-point pixels, got {getattr(x, 'dtype', type(x).__name__)}")
    side = math.isqrt(x.shape[-1])
    if not side or side * side != x.shape[-1]:
        raise ValueError(f"x must have a square number of pixels a row, got {x.shape[-1]}")
    _check_generator(generator, x)
    return x.reshape(-1, 1, side, side)


def _check_generator(generator: Generator, x: Tensor) -> None:
    if not isinstance(generator, Generator) or generator.device.type != x.device.type:
        raise ValueError(f"generator must be a torch.Generator on {x.device}, got {generator!r}")


def _check_least(**values: float) -> None:
    for name, value in values.items():
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} must be at least 0, got {value}")


def weak(x: Rows, *, generator: Generator, shift: int = 1) -> Rows:
    """Each image moved by a whole number of pixels, -shift … shift up and across, all alike in chance.

    shift  in pixels, 0 … side

    Raises ValueError for rows that are no squares, a shift out of range, a generator of another device.
    """
    images = _pictures(x, generator)
    m, side = len(images), images.shape[-1]
    if isinstance(shift, float) or not 0 <= shift <= side:
        raise ValueError(f"shift must be a whole number of pixels in 0 … {side}, got {shift}")
    width = side + 2 * shift
    padded = F.pad(images, (shift,) * 4).view(m, width * width)
    moved = torch.randint(2 * shift + 1, (2, m, 1), generator=generator, device=x.device)
    pixel = torch.arange(side, device=x.device)
    place = (pixel[:, None] * width + pixel).view(1, -1) + moved[0] * width + moved[1]
    return padded.gather(1, place).view(x.shape)


def strong(
    x: Rows, *, generator: Generator, shift: float = 1.5, degrees: float = 30, scale: float = 0.2, cutout: int = 5
) -> Rows:
    """Each image moved, turned and scaled about its middle, and a square of it blanked.

    shift    in pixels up and across, uniform in ±shift
    degrees  of the turn, uniform in ±degrees
    scale    factor, log-uniform in 1 / (1 + scale) … 1 + scale
    cutout   side of the blank square in pixels, its middle uniform over the pixels, so that at a border less is blank
             (DeVries and Taylor 2017); 0 is none

    Numbers of 0 leave a part out; every part consumes its draws all the same. Bilinear. Raises ValueError for rows that
    are no squares, negative numbers, and a generator of another device.
    """
    images = _pictures(x, generator)
    _check_least(shift=shift, degrees=degrees, scale=scale, cutout=cutout)
    m, side, dtype = len(images), images.shape[-1], torch.float64 if x.dtype == torch.float64 else torch.float32
    u = torch.rand(4, m, generator=generator, device=x.device, dtype=torch.float32).mul_(2).sub_(1)
    middle = torch.randint(side, (2, m, 1), generator=generator, device=x.device)
    y = images.to(dtype)
    if (shift or degrees or scale) and m:
        angle, factor = u[0] * math.radians(degrees), (u[1] * math.log1p(scale)).exp()
        cos, sin = angle.cos() / factor, angle.sin() / factor
        moved = u[2:] * (2 * shift / side)  # half sides
        rows = torch.stack([cos, sin, -sin, cos], 1).view(m, 2, 2)
        matrix = torch.cat([rows, -(rows @ moved.T[:, :, None])], 2).to(dtype)
        grid = F.affine_grid(matrix, [m, 1, side, side], align_corners=False)
        y = F.grid_sample(y, grid, padding_mode="zeros", align_corners=False)
    if cutout:
        pixel = torch.arange(side, device=x.device)
        first = middle - cutout // 2
        inside = (pixel >= first) & (pixel < first + cutout)  # (2, m, side)
        y = y.masked_fill((inside[0][:, :, None] & inside[1][:, None])[:, None], 0)
    return y.to(x.dtype).view(x.shape)


def mixing(
    n: int, batch: int, alpha: float, *, generator: Generator, first: bool = False
) -> tuple[Float[Tensor, "n 1"], Int[Tensor, "n b"]]:
    """The draws of mixup for a stack: a share λ (n, 1) for each network's batch and a partner (n, b) for each sample.

    alpha  λ is from Beta(alpha, alpha); > 0
    first  λ at least a half, so that a mixture is mostly the sample and not its partner (MixMatch, equation 9)

    Partners are a permutation of each network's batch. float32. Raises ValueError for counts below 1 and an alpha that
    is not positive.
    """
    if n < 1 or batch < 1:
        raise ValueError(f"n and batch must be at least 1, got {n} and {batch}")
    if not 0 < alpha < math.inf:
        raise ValueError(f"alpha must be positive, got {alpha}")
    shape = torch.full((n, 2), alpha + 1, dtype=torch.float64, device=generator.device)
    larger = torch._standard_gamma(shape, generator=generator)
    u = 1 - torch.rand(n, 2, dtype=torch.float64, generator=generator, device=generator.device)
    both = larger.log() + u.log() / alpha  # a gamma of alpha in the logarithm: for small ones it leaves float64
    share = torch.sigmoid(both[:, :1] - both[:, 1:]).float()
    partner = torch.rand(n, batch, generator=generator, device=generator.device).argsort(1)
    return torch.maximum(share, 1 - share) if first else share, partner


def mix(
    x: Float[Tensor, "n b *any"], share: Float[Tensor, "n _"], partner: Int[Tensor, "n b"]
) -> Float[Tensor, "n b *any"]:
    """λ x_i + (1 - λ) x_partner(i) in each network's batch; λ (n, 1), or (n, b) for one a sample.

    Raises ValueError for shapes that do not fit.
    """
    if x.ndim < 2 or not x.is_floating_point() or partner.shape != x.shape[:2]:
        raise ValueError(
            f"x must be floating point and partner its first two sizes, got {tuple(x.shape)} of {x.dtype} and "
            f"{tuple(partner.shape)}"
        )
    n, b = partner.shape
    if share.shape != (n, 1) and share.shape != (n, b):
        raise ValueError(f"share must be ({n}, 1) or ({n}, {b}), got {tuple(share.shape)}")
    share = share.to(x.dtype).view(n, -1, *(1,) * (x.ndim - 2))
    flat = (partner + b * torch.arange(n, device=x.device)[:, None]).view(-1)
    return torch.lerp(x.flatten(0, 1).index_select(0, flat).view(x.shape), x, share)


def mixup(
    x: Float[Tensor, "n b *any"], y: Float[Tensor, "n b k"], alpha: float, *, generator: Generator, first: bool = False
) -> tuple[Float[Tensor, "n b *any"], Float[Tensor, "n b k"]]:
    """Mixtures of samples and of their targets (Zhang et al. 2018): one λ for each network's batch, as in their code.

    x      (n, b, …)
    y      shares (n, b, k): ``F.one_hot(labels, k).float()`` of labels, or pseudo-labels
    alpha  λ is from Beta(alpha, alpha); > 0
    first  λ at least a half

    ``mixing`` and ``mix`` are its parts, for what else has to be mixed alike. Raises ValueError for shapes that do not
    fit, targets that are no shares and an alpha that is not positive.
    """
    if not y.is_floating_point() or y.ndim != 3 or y.shape[:2] != x.shape[:2]:
        raise ValueError(
            f"y must be floating-point shares (n, b, k) for x {tuple(x.shape)}, got {tuple(y.shape)} of {y.dtype}"
        )
    _check_generator(generator, x)
    share, partner = mixing(*y.shape[:2], alpha, generator=generator, first=first)
    return mix(x, share, partner), mix(y, share, partner)
