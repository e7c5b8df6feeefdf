"""Softmax sums over all pairs of a batch's rows, in tiles: the matrix of similarities is never needed whole."""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.autograd.function import once_differentiable

from .loss import check_matrix, check_positive, raised

KEEP = 2**28  # bytes of similarities that are kept for the backward pass; above, they are computed again


class _Tiles(torch.autograd.Function):
    """S = z zᵀ/τ is symmetric, so each tile on or above the diagonal serves its rows and its columns. So is exp S where
    the common bound 1/τ is taken off instead of each row's maximum, and the gradient of Σᵢ gᵢ log Σⱼ exp Sᵢⱼ is one
    product: exp(Sᵢⱼ) · (gᵢ/totalᵢ + gⱼ/totalⱼ) times z, over τ.
    """

    @staticmethod
    def forward(ctx, z: Tensor, tau: float, side: int, keep: bool) -> Tensor:
        ctx.tau, ctx.parts = tau, [slice(i, i + side) for i in range(0, len(z), side)]
        total, tiles = z.new_zeros(len(z)), []
        for i, j, tile in _tiles(z, tau, ctx.parts):
            total[i] += tile.sum(1)
            if i != j:
                total[j] += tile.sum(0)
            if keep:
                tiles.append(tile)
        ctx.save_for_backward(z, total, *tiles)
        return total.log() + 1 / tau

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        z, total, *kept = ctx.saved_tensors
        weight, out = grad / (total * ctx.tau), torch.zeros_like(z)
        kept = iter(kept)
        for i, j, tile in _tiles(z, ctx.tau, ctx.parts, kept):
            tile = tile * (weight[i, None] + weight[j])
            out[i].addmm_(tile, z[j])
            if i != j:
                out[j].addmm_(tile.T, z[i])
        return out, None, None, None


class _Rows(torch.autograd.Function):
    """The same for any temperature, in blocks of rows that are made again for the backward pass."""

    @staticmethod
    def forward(ctx, z: Tensor, tau: float, rows: int) -> Tensor:
        ctx.tau, ctx.starts, sums = tau, range(0, len(z), rows), z.new_empty(len(z))
        for i in ctx.starts:  # into one tensor: small ones that stay keep the freed blocks from being used again
            sums[i : i + rows] = _logits(z, i, rows, tau).logsumexp(1)
        ctx.save_for_backward(z, sums)
        return sums

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        (z, sums), rows = ctx.saved_tensors, ctx.starts.step
        grad, out = grad / ctx.tau, torch.zeros_like(z)
        for i in ctx.starts:
            some = slice(i, i + rows)
            weight = (_logits(z, i, rows, ctx.tau) - sums[some, None]).exp_() * grad[some, None]
            out.addmm_(weight.T, z[some])
            out[some].addmm_(weight, z)
        return out, None, None


def _logits(z: Tensor, first: int, rows: int, tau: float) -> Tensor:
    logits = (z[first : first + rows] @ z.T).div_(tau)
    logits.diagonal(first).fill_(-torch.inf)
    return logits


def _tiles(z: Tensor, tau: float, parts: list[slice], kept=()):
    """(rows, columns, exp((z zᵀ - 1)/τ) there, its diagonal 0), for the tiles on and above the diagonal."""
    kept = iter(kept)
    for n, i in enumerate(parts):
        for j in parts[n:]:
            tile = next(kept, None)
            if tile is None:
                tile = (z[i] @ z[j].T).sub_(1).div_(tau).exp_()
                if i == j:
                    tile.fill_diagonal_(0)
            yield i, j, tile


def off_diagonal(x: Shaped[Tensor, "*batch n n"]) -> Shaped[Tensor, "*batch n n-1"]:
    """Square matrices without their diagonals: row i keeps its other n - 1 entries, in their order.

    A view of the entries in between: where a boolean mask would make the host wait to count them, this does not.
    """
    n = x.shape[-1]
    return x.flatten(-2)[..., 1:].unflatten(-1, (n - 1, n + 1))[..., :-1].reshape(*x.shape[:-1], n - 1)


def logsumexp_others(z: Float[Tensor, "n d"], tau: float, keep: int = KEEP) -> Float[Tensor, " n"]:
    """log Σ_{j≠i} exp(zᵢ·zⱼ / τ) of every row of a batch.

    z     rows on the unit sphere, or shorter; on a CPU longer ones are seen, and summed as at a low temperature
    tau   temperature > 0; a tensor that is learnt gets its gradient
    keep  bytes of similarities, half the matrix, that may be kept for the backward pass; where they are more, it makes
          them a second time. 256 MiB: 11,600 rows in float32

    1.5 n²d multiplications forward and backward, half of what the plain matrix costs; where nothing is kept, 2 n²d and
    O(n d) memory.
    At temperatures so low that exp(-2/τ) is 0 (τ < 1/40 in float32) each row has its own maximum taken off, in blocks
    that are made twice: two and a half times the work. Once differentiable.

    Raises ValueError for another shape, fewer than two rows, or a temperature that is not positive. Half precision is
    raised to float32.
    """
    check_matrix("z", z, rows=2)
    check_positive(tau=tau)
    z, cpu = raised(z), z.device.type == "cpu"
    n, size = len(z), z.element_size()
    side = 512 if cpu else 4096  # a tile stays in a core's cache, or fills a GPU
    learnt = isinstance(tau, Tensor) and tau.requires_grad
    if learnt:
        z, tau = z / tau.sqrt(), 1.0  # autograd sees τ in the rows
    short = not learnt and (not cpu or bool(z.detach().square().sum(1).amax() <= 1.01))
    with torch.autocast(z.device.type, enabled=False):
        if short and 2 / tau < (80 if size < 8 else 700):
            return _Tiles.apply(z, tau, side, n * n * size / 2 <= keep)
        return _Rows.apply(z, tau, max(1, side**2 // n))
