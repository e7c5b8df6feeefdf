"""MoCo: a queue of keys from a slow encoder (He et al., 2020), and what version 2 adds (Chen et al., 2020)."""

import copy

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from ...augment import jitter, noise, to_float, warp
from ...loss import check_matrix, check_positive, float32, unit_rows
from ...nets import mlp


@float32
def moco_loss(
    q: Float[Tensor, "n d"], k: Float[Tensor, "n d"], queue: Float[Tensor, "K d"], tau: float = 0.1
) -> Float[Tensor, ""]:
    """InfoNCE of queries against their own keys and a queue of other keys.

    MoCo (He et al., 2020), eq. 1: -log exp(q·k₊ / τ) / (exp(q·k₊ / τ) + Σ_K exp(q·k_i / τ)).

    q, k   unnormalised queries and keys of the same n images; no gradient reaches k or the queue
    queue  K >= 1 older keys
    tau    temperature > 0; 0.07 in the paper, 0.1 in its CIFAR-10 demonstration

    Raises ValueError for shapes that do not fit, or tau <= 0. Memory O(n K).
    """
    check_matrix("q", q, rows=1)
    check_matrix("k", k, like=q)
    check_matrix("queue", queue, rows=1)
    if queue.shape[1] != q.shape[1]:
        raise ValueError(f"queue must have keys of {q.shape[1]} values like q, got {queue.shape[1]}")
    check_positive(tau=tau)
    q, k, queue = unit_rows(q), unit_rows(k.detach()), unit_rows(queue.detach())
    positive = (q * k).sum(1, keepdim=True)
    logits = torch.cat([positive, q @ queue.T], 1) / tau
    return (logits.logsumexp(1) - logits[:, 0]).mean()


class SplitBatchNorm(nn.Module):
    """A BatchNorm that in training normalises ``splits`` parts of a batch apart, as that many GPUs would.

    Departure: the running statistics are updated once a part.
    """

    def __init__(self, norm: nn.Module, splits: int):
        super().__init__()
        self.norm, self.splits = norm, splits

    def forward(self, x: Float[Tensor, "n c ..."]) -> Float[Tensor, "n c ..."]:
        if not self.training:
            return self.norm(x)
        return torch.cat([self.norm(part) for part in x.tensor_split(self.splits)])


def split_batchnorm(module: nn.Module, splits: int) -> nn.Module:
    """Replace every BatchNorm inside ``module``, in place, by a ``SplitBatchNorm``; returns the module."""
    for name, child in module.named_children():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            setattr(module, name, SplitBatchNorm(child, splits))
        elif not isinstance(child, SplitBatchNorm):
            split_batchnorm(child, splits)
    return module


class MoCo(nn.Module):
    """Momentum contrast: a queue of keys, and a key encoder that follows the query encoder (He et al., 2020).

    dim       width of queries and keys
    tau       temperature; 0.07 in the paper, 0.1 in its CIFAR-10 demonstration, 0.2 in MoCo v2
    queue     K, keys remembered; any K >= 1, newest first
    momentum  m of θ_k ← m θ_k + (1 - m) θ_q, done before the keys are made; 0 copies the query encoder
    head      "linear", or "mlp": MoCo v2's two layers without BatchNorm
    splits    parts in which BatchNorm normalises a batch. Above 1 the keys are shuffled before and put back after,
              so an image's two views share no statistics: ShuffleBN on one device. 1 shuffles nothing, and suits an
              encoder without BatchNorm

    Buffers of the key encoder (running statistics) are its own, as in the paper. Asymmetric: the first view is the
    query.
    """

    def __init__(
        self, encoder: nn.Module, dim: int = 128, tau: float = 0.1, queue: int = 1024, momentum: float = 0.99,
        head: str = "linear", splits: int = 1,
    ):  # fmt: skip
        super().__init__()
        if queue < 1:
            raise ValueError(f"queue must hold at least 1 key, got {queue}")
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum must be in [0, 1], got {momentum}")
        if head not in ("linear", "mlp"):
            raise ValueError(f"head must be 'linear' or 'mlp', got {head!r}")
        d = encoder.features
        self.encoder = encoder if splits == 1 else split_batchnorm(encoder, splits)
        self.head = mlp([d, dim] if head == "linear" else [d, d, dim], norm=False)
        self.key_encoder = copy.deepcopy(nn.Sequential(self.encoder, self.head)).requires_grad_(False)
        self.tau, self.momentum, self.splits = tau, momentum, splits
        self.register_buffer("queue", unit_rows(torch.randn(queue, dim)))

    def forward(self, views: Float[Tensor, "two_n c h w"], index: Int[Tensor, "n"]) -> Float[Tensor, ""]:
        n = len(index)
        q = self.head(self.encoder(views[:n]))
        with torch.no_grad():
            if self.training:
                self.follow()
            k = self.keys(views[n : 2 * n])
        loss = moco_loss(q, k, self.queue, self.tau)
        if self.training:
            self.queue = torch.cat([k, self.queue])[: len(self.queue)]  # first in, first out
        return loss

    @torch.no_grad()
    def follow(self) -> None:
        """θ_k ← m θ_k + (1 - m) θ_q."""
        keys = list(self.key_encoder.parameters())
        queries = [*self.encoder.parameters(), *self.head.parameters()]
        torch._foreach_lerp_(keys, queries, 1 - self.momentum)

    @torch.no_grad()
    def keys(self, views: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """Normalised keys; with split BatchNorm the batch is shuffled first, and the keys are put back in order."""
        if self.splits == 1 or not self.training:
            return unit_rows(self.key_encoder(views))
        order = torch.randperm(len(views), device=views.device)
        return unit_rows(self.key_encoder(views[order])[order.argsort()])


def jittered_views(x: Tensor, generator: Generator, views: int = 2) -> Float[Tensor, "views*n 3 h w"]:
    """Views of the scenes with MoCo v1's colours: jitter of 0.4 in all four, always, in place of free colours.

    Geometry and noise are those of ``labcode.augment.scene_views``. Each image has its own amounts; the order of the
    four changes is drawn once a call: an order for each image costs as much as the encoder's forward pass.
    """
    x = to_float(x).repeat(views, 1, 1, 1)
    least = torch.tensor([0.6, 0.6, 0.6, -0.4], device=x.device)  # brightness, contrast, saturation, turn of the hue
    amounts = least + 0.8 * torch.rand(len(x), 4, generator=generator, device=x.device)
    order = torch.rand(4, generator=generator, device=x.device).argsort().expand(len(x), 4)
    x = jitter(x, amounts, order, inplace=True)
    away = 0.1 * torch.rand(len(x), 2, 3, generator=generator, device=x.device) - 0.05
    return noise(warp(x, torch.eye(2, 3, device=x.device) + away, padding="reflection"), 0.02, generator=generator)
