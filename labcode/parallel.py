"""Several processes as one: rows gathered for losses on the whole batch, and BatchNorm over the whole batch.

``train.fit`` gives each of R processes its share of a batch and averages gradients over them. A loss that compares rows
with one another must see all of them: ``gather`` brings them together, every process computes the whole batch's loss,
and the backward pass adds up what all R losses say about a process's own rows. The average over processes is then the
whole batch's gradient exactly. A backward pass that returns only the own loss's part, as gathers without a gradient
do, leaves it R times too small.

Both act inside ``fit``'s steps alone (``sharing``): elsewhere every process has all rows, and nothing is gathered.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_sharing = False


@contextmanager
def sharing(active: bool = True) -> Iterator[None]:
    """Inside, each process holds its share of a batch. ``fit`` enters it; so does a loop of your own, on all processes
    alike and with shares of one size."""
    global _sharing
    before, _sharing = _sharing, active and dist.is_initialized() and dist.get_world_size() > 1
    try:
        yield
    finally:
        _sharing = before


class _AllGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, x)
        return torch.stack(parts)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> Tensor:
        grad = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(grad)
        return grad[dist.get_rank()]


def gather(x: Tensor, views: int = 1) -> Tensor:
    """The rows of all processes in the order of one, with their gradient; ``x`` itself outside ``sharing``.

    x      (views · n, …), the same shape on every process
    views  how many views are stacked in x: the result has view 1 of all images, then view 2 of all, as one process has

    Raises ValueError for rows that ``views`` does not divide, or no views.
    """
    if views < 1 or len(x) % views:
        raise ValueError(f"x must hold {views} views of its images, got {len(x)} rows")
    if not _sharing:
        return x
    parts = _AllGather.apply(x.contiguous()).unflatten(1, (views, -1))
    return parts.transpose(0, 1).flatten(0, 2)


class SyncBatchNorm(nn.modules.batchnorm._BatchNorm):
    """BatchNorm that takes mean and variance over the rows of all processes inside ``sharing``, on any device.

    torch's own needs a GPU. Shares are of one size, so the whole batch's mean is the mean of the shares' means, and its
    variance the mean of their variances plus the variance of their means.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"input must be (n, c, …), got shape {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        if not (_sharing and self.training):
            return super().forward(input)
        self._check_input_dim(input)
        x = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
        shape = (1, -1, *[1] * (x.ndim - 2))
        stats = torch.stack(torch.var_mean(x, [0, *range(2, x.ndim)], correction=0))
        variances, means = _AllGather.apply(stats).unbind(1)
        mean = means.mean(0)
        variance = variances.mean(0) + (means - mean).square().mean(0)
        if self.track_running_stats:
            self.num_batches_tracked.add_(1)
            rate = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
            n = x.numel() // x.shape[1] * len(means)
            self.running_mean.lerp_(mean.detach().to(self.running_mean.dtype), rate)
            self.running_var.lerp_((variance.detach() * n / (n - 1)).to(self.running_var.dtype), rate)
        x = (x - mean.view(shape)) * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            x = x * self.weight.view(shape) + self.bias.view(shape)
        return x.to(input.dtype)


def synchronise_norms(model: nn.Module) -> nn.Module:
    """Make every BatchNorm1d, 2d and 3d of ``model`` a ``SyncBatchNorm``, in place; returns the model.

    The modules stay the objects they are, so whoever holds one of them, a momentum encoder or a step function, has the
    synchronised one too. Parameters, buffers and their names stay as well.
    """
    for module in model.modules():
        if type(module) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d):  # a subclass has a forward of its own
            module.__class__ = SyncBatchNorm
    return model
