"""What every public loss does with its arguments: float32 arithmetic, and errors that name the argument."""

import functools
import inspect

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

SMALL, LARGE = 1e-4, 1e15  # rows whose largest entry lies outside are scaled before their length is taken


def unit_rows(x: Float[Tensor, "*rows"], dim: int = -1) -> Float[Tensor, "*rows"]:
    """x / ‖x‖ along ``dim``: what every cosine of the library is made of. Half precision comes back as float32.

    A row of zeros has no direction: it stays zero, and its gradient is zero, as is that of entries below 1e-37.
    A row whose largest entry is below 1e-4 has length 1 too, but its gradient is that of the same row enlarged until
    that entry is 1e-4: right in direction, at most 1e4 times the gradient of the result, so that it also fits into
    float16. ``F.normalize`` gives 1e12 there, and takes rows below 1e-23 or above 1e19 for zeros.

    All other rows: the value and the gradient of ``F.normalize``, bit by bit. Differentiable twice; no look at the
    data, so a GPU is not waited for. Raises ValueError for anything but a floating-point tensor.
    """
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise ValueError(f"x must be a floating-point tensor, got {getattr(x, 'dtype', type(x).__name__)}")
    x = raised(x)
    if not x.numel():
        return x
    fixed = x.detach()
    size = torch.linalg.vector_norm(fixed, torch.inf, dim, keepdim=True)
    ordinary = (size >= SMALL) & (size <= LARGE)
    rate = torch.where(ordinary, 1, torch.where(size > 1e-37, 1 / size.clamp_min(SMALL), 0))
    rest = torch.where(ordinary, 0, 1 / size.clamp_min(1e-37) - rate)
    return F.normalize(torch.addcmul(x * rate, fixed, rest), dim=dim)  # rate + rest scale the row, rate its gradient


def float32(function):
    """Make a public loss of ``function``: float32 arithmetic, and tensors that hold finite numbers on one device.

    It computes in float32 whatever the precision of the surrounding autocast or of its arguments: similarities in
    half precision lose the digits that a softmax at low temperature lives on. Float64 stays as it is. Integers of any
    width become int64. Gradients come back in the arguments' own precision: below a temperature of about 1e-4 those of
    float16 leave its range and are infinite, which a gradient scaler sees.

    On the CPU NaN and infinity are refused; on a GPU the look would stall the queue, and ``fit`` names the step.
    Raises ValueError naming the argument.
    """
    parameters = inspect.signature(function).parameters
    names = list(parameters)
    needed = {n for n, p in parameters.items() if isinstance(p.annotation, type) and "Tensor" in repr(p.annotation)}

    @functools.wraps(function)
    def wrapped(*arguments, **keywords):
        given = dict(zip(names, arguments, strict=False)) | keywords
        tensors = {name: value for name, value in given.items() if isinstance(value, Tensor)}
        if odd := sorted((needed & given.keys()) - tensors.keys()):
            raise ValueError(f"{odd[0]} must be a tensor, got {type(given[odd[0]]).__name__}")
        if not tensors:
            return function(*arguments, **keywords)
        device = next(iter(tensors.values())).device
        for name, value in tensors.items():
            if value.device != device or device.type == "meta":
                raise ValueError(f"{name} must be on one device with the others, {device}, got {value.device}")
            if value.is_floating_point() and device.type == "cpu" and not bool(torch.isfinite(value.detach()).all()):
                raise ValueError(f"{name} must be finite, got NaN or infinity")
        with torch.autocast(device.type, enabled=False):
            return function(*map(_wide, arguments), **{k: _wide(v) for k, v in keywords.items()})

    wrapped.is_loss = True  # the tests throw bad input at every one
    return wrapped


def raised(value):
    """A tensor of half precision in float32; anything else as it is."""
    return value.float() if isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16) else value


def _wide(value):
    """``raised``, and integers as int64: labels and places come in bytes, which wrap around and which torch refuses."""
    if isinstance(value, Tensor) and not (value.is_floating_point() or value.is_complex() or value.dtype == torch.bool):
        return value.long()
    return raised(value)


def check_matrix(name: str, z: Tensor, rows: int = 1, like: Tensor | None = None, even: bool = False) -> None:
    """Raise ValueError unless ``z`` is a real floating-point matrix (n, d) that a loss can take.

    rows  fewest rows allowed
    like  another matrix that must have the same shape and device
    even  the number of rows must be even: two views stacked

    """
    if not isinstance(z, Tensor):
        raise ValueError(f"{name} must be a tensor, got {type(z).__name__}")
    if z.ndim != 2:
        raise ValueError(f"{name} must be a matrix (n, d), got shape {tuple(z.shape)}")
    if not z.dtype.is_floating_point:
        raise ValueError(f"{name} must be floating point, got {z.dtype}")
    if z.shape[0] < rows:
        why = f", two views of {rows // 2} images: one alone has nothing to be told from" if even and rows > 2 else ""
        raise ValueError(f"{name} must have at least {rows} rows{why}, got {z.shape[0]}")
    if z.shape[1] == 0:
        raise ValueError(f"{name} must have at least one column, got shape {tuple(z.shape)}")
    if even and z.shape[0] % 2:
        raise ValueError(f"{name} must have an even number of rows, two views stacked, got {z.shape[0]}")
    if like is not None and (z.shape != like.shape or z.device != like.device):
        raise ValueError(
            f"{name} must be like the other views, {tuple(like.shape)} on {like.device}, "
            f"got {tuple(z.shape)} on {z.device}"
        )


def check_positive(**values: float) -> None:
    """Raise ValueError unless every named number is finite and at least 1e-20: float32 multiplies with its inverse."""
    for name, value in values.items():
        if not 0 < value < float("inf"):
            raise ValueError(f"{name} must be positive, got {value}")
        if value < 1e-20:
            raise ValueError(f"{name} must be at least 1e-20, since float32 divides by it, got {value}")


def check_finite(**tensors: Tensor) -> None:
    """Raise ValueError unless every named tensor is finite throughout. On a GPU the look waits for the device."""
    for name, x in tensors.items():
        if not bool(torch.isfinite(x.detach()).all()):
            raise ValueError(f"{name} must be finite, got NaN or infinity")


def check_index(name: str, index: Tensor, count: int) -> None:
    """Raise ValueError unless ``index`` holds integers in 0 … count - 1. On a GPU only the type is looked at."""
    if not isinstance(index, Tensor) or index.is_floating_point() or index.is_complex() or index.dtype == torch.bool:
        raise ValueError(f"{name} must hold integers, got {getattr(index, 'dtype', type(index).__name__)}")
    if index.device.type == "cpu" and index.numel() and not 0 <= int(index.min()) <= int(index.max()) < count:
        raise ValueError(f"{name} must lie in 0 … {count - 1}, got {int(index.min())} … {int(index.max())}")


def not_negative(x: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """x, with 0 where rounding took a value below 0 that never is; the gradient is that of x."""
    return x + (-x).detach().clamp_min(0)
