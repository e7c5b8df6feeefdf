"""‖aᵀb‖² of features wider than the batch, and what all losses of this chapter ask of their two views."""

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

    gram  True or False forces the way. Once differentiable
    """
    return _CrossNorm2.apply(a, b, a.shape[1] > a.shape[0] if gram is None else gram)


class _CrossNorm2(torch.autograd.Function):
    """Autograd would multiply twice as often: it does not know that Gram matrices are symmetric."""

    @staticmethod
    def forward(ctx, a: Tensor, b: Tensor, gram: bool) -> Tensor:
        ctx.gram, ctx.same = gram, a is b
        made = (_gram(a),) if gram and ctx.same else (_gram(a), _gram(b)) if gram else (a.T @ b,)
        ctx.save_for_backward(a, b, *made)
        return (made[0] * made[-1]).sum()

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


def standardise(z: Rows, eps: float = 1e-5) -> Rows:
    """Every feature with mean 0 and biased variance 1 over the batch: BatchNorm without parameters."""
    return F.batch_norm(z, None, None, training=True, eps=eps)


def check_views(z1: Tensor, z2: Tensor) -> None:
    """Raise ValueError unless z1 and z2 are two matrices (n, d) of one shape, n >= 2."""
    check_matrix("z1", z1, rows=2)
    check_matrix("z2", z2, rows=2, like=z1)
