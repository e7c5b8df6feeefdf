"""Sums of squares of aᵀb that need no d×d matrix, and what all losses of this chapter ask of their two views.

``cross_norm2`` is the whole sum, ``off_diagonal2`` the sum without the diagonal. The second is not the first less the
diagonal: where features are decorrelated, or one is far larger than the rest, that difference is all rounding.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from ...loss import check_matrix

Rows = Float[Tensor, "n d"]
Scalar = Float[Tensor, ""]


def cross_norm2(a: Rows, b: Rows, gram: bool | None = None) -> Scalar:
    """‖aᵀb‖², the squared Frobenius norm of a d×d matrix that need not be made.

    As ‖aᵀb‖² = ⟨aaᵀ, bbᵀ⟩, two n×n Gram matrices give the same value, and the gradients 2 b bᵀa and 2 a aᵀb. Forward
    and backward cost 3 n d² multiplications one way and 3 n² d the other (2 n d² and 1.5 n² d where b is a), so None
    takes the Gram matrices when d > n.

    gram  True or False forces the way. Never below 0. Once differentiable
    """
    return _CrossNorm2.apply(a, b, a.shape[1] > a.shape[0] if gram is None else gram)


class _CrossNorm2(torch.autograd.Function):
    """Autograd would multiply twice as often: it does not know that Gram matrices are symmetric."""

    @staticmethod
    def forward(ctx, a: Tensor, b: Tensor, gram: bool) -> Tensor:
        ctx.gram, ctx.same = gram, a is b
        made = (_gram(a),) if gram and ctx.same else (_gram(a), _gram(b)) if gram else (a.T @ b,)
        ctx.save_for_backward(a, b, *made)
        return (made[0] * made[-1]).sum().clamp_min_(0)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        a, b, *made = ctx.saved_tensors
        to_a = (made[-1] @ a if ctx.gram else b @ made[0].T).mul_(2 * grad)
        if ctx.same:
            return to_a, to_a, None  # each argument's half of the gradient
        return to_a, (made[0] @ b if ctx.gram else a @ made[0]).mul_(2 * grad), None


def _gram(a: Rows) -> Tensor:
    """aaᵀ; in strips from the diagonal on, mirrored, where multiplications cost more than the copy."""
    n, side = len(a), 128
    if a.device.type != "cpu" or n <= side:
        return a @ a.T
    out = a.new_empty(n, n)
    for i in range(0, n, side):
        out[i : i + side, i:] = a[i : i + side] @ a[i:].T
        out[i + side :, i : i + side] = out[i : i + side, i + side :].T
    return out


def off_diagonal2(a: Rows, b: Rows, gram: bool | None = None) -> Scalar:
    """Σᵢ≠ⱼ (aᵀb)²ᵢⱼ: what the features of a share with the *other* features of b.

    Where d > n the features are cut into strips of n. A strip with itself makes an n×n block of aᵀb, whose diagonal is
    struck out; strips p ≠ q give ⟨a_p a_pᵀ, b_q b_qᵀ⟩. All parts are sums of squares, so nothing cancels, whatever
    the features' scales. Forward and backward cost 8 n² d multiplications (4 n² d where b is a), 3 n d² the plain way.

    gram  True or False forces the way. Never below 0. Once differentiable
    """
    return _OffDiagonal2.apply(a, b, a.shape[1] > a.shape[0] if gram is None else gram)


class _OffDiagonal2(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a: Tensor, b: Tensor, gram: bool) -> Tensor:
        ctx.gram, ctx.same = gram, a is b
        if not gram:
            c = (a.T @ b).fill_diagonal_(0)
            ctx.save_for_backward(a, b, c)
            return c.square().sum()
        strips_a = _strips(a)
        strips_b = strips_a if ctx.same else _strips(b)
        own = strips_a.mT @ strips_b
        own.diagonal(dim1=1, dim2=2).fill_(0)
        gram_b = strips_b @ strips_b.mT
        gram_a = gram_b if ctx.same else strips_a @ strips_a.mT
        rest_b = _others(gram_b)
        rest_a = rest_b if ctx.same else _others(gram_a)
        ctx.save_for_backward(strips_a, strips_b, own, rest_a, rest_b)
        ctx.width = a.shape[1]
        return own.square().sum() + (gram_a * rest_b).sum().clamp_min_(0)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        a, b, own, *rest = ctx.saved_tensors
        if not ctx.gram:
            to_a = (b @ own.T).mul_(2 * grad)
            return (to_a, to_a if ctx.same else (a @ own).mul_(2 * grad), None)  # where same, each argument's half
        to_a = _joined((rest[1] @ a).add_(b @ own.mT), ctx.width).mul_(2 * grad)
        if ctx.same:
            return to_a, to_a, None
        return to_a, _joined((rest[0] @ b).add_(a @ own), ctx.width).mul_(2 * grad), None


def _strips(a: Rows) -> Tensor:
    """(strips, n, n): the features in groups of n, the last filled up with zeros."""
    n, d = a.shape
    return F.pad(a, (0, -d % n)).view(n, -1, n).transpose(0, 1).contiguous()


def _joined(strips: Tensor, d: int) -> Rows:
    return strips.transpose(0, 1).flatten(1)[:, :d]


def _others(grams: Tensor) -> Tensor:
    """For each matrix the sum of the others: added up from both ends, since the total less itself would cancel."""
    none = torch.zeros_like(grams[:1])
    before, after = grams[:-1].cumsum(0), grams[1:].flip(0).cumsum(0).flip(0)
    return torch.cat([none, before]) + torch.cat([after, none])


def standardise(z: Rows, eps: float = 1e-5) -> Rows:
    """Every feature with mean 0 and biased variance 1 over the batch: BatchNorm without parameters.

    The mean is taken off before BatchNorm takes it off: the digits of a feature far from 0 are kept.
    """
    return F.batch_norm(z - z.detach().mean(0), None, None, training=True, eps=eps)


def centred(z: Rows) -> Rows:
    """z less its mean over the batch, twice: the rounding of a large mean is itself taken off."""
    z = z - z.detach().mean(0)
    return z - z.mean(0)


def check_views(z1: Tensor, z2: Tensor) -> None:
    """Raise ValueError unless z1 and z2 are two matrices (n, d) of one shape, n >= 2."""
    for name, z in (("z1", z1), ("z2", z2)):
        if isinstance(z, Tensor) and z.ndim == 2 and len(z) == 1:
            raise ValueError(f"{name} has the views of one image: variances and correlations over a batch need two")
    check_matrix("z1", z1, rows=2)
    check_matrix("z2", z2, rows=2, like=z1)
