"""Quarter turns of images, whole: what RotNet, SLA and LoRot's rival ask about."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

Images = Float[Tensor, "n c h w"]
Labels = Int[Tensor, " n"]
Turned = tuple[Images, Labels]


def rotations(x: Images, turns: Sequence[int] = (0, 1, 2, 3)) -> Float[Tensor, "m c h w"]:
    """All images turned by each number of quarters, counterclockwise: row i + n·v is image i under ``turns[v]``.

    Transposed and mirrored, not resampled: no interpolation gives the turn away. Raises ValueError for images that are
    not square.
    """
    check_square(x)
    return torch.cat([torch.rot90(x, turn, (2, 3)) for turn in turns])


def turn(x: Images, quarters: Labels) -> Images:
    """Each image turned by its own number of quarters, counterclockwise."""
    check_square(x)
    mirrored = torch.where(_wide(quarters % 4 >= 2), x.flip(2, 3), x)
    return torch.where(_wide(quarters % 2 == 1), torch.rot90(mirrored, 1, (2, 3)), mirrored)


def turn_all(x: Images, copies: int = 4) -> Turned:
    """Whole images: copy v of each is turned by v quarters, which is its label, 0 … 3.

    Raises ValueError unless copies divide the number of images.
    """
    if copies < 1 or len(x) % copies:
        raise ValueError(f"x must hold {copies} copies of every image, got shape {tuple(x.shape)}")
    quarters = torch.arange(copies, device=x.device).repeat_interleave(len(x) // copies)
    return turn(x, quarters), quarters


def check_square(x: Tensor, name: str = "x") -> None:
    """Raise ValueError unless x are square images (n, c, s, s)."""
    if x.ndim != 4 or x.shape[2] != x.shape[3]:
        raise ValueError(f"{name} must be square images (n, c, s, s), got shape {tuple(x.shape)}")


def _wide(value: Tensor) -> Tensor:
    return value.view(-1, 1, 1, 1)
