"""What a clustering head on frozen features is trained with: views that are drawn anew each step, and one loop."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from ...nets import mlp, seeded
from ...train import allowed
from .autoencoder import adam


def draw_views(
    x: Float[Tensor, "n d"], views: Float[Tensor, "v n d"] | None, index: Int[Tensor, " m"], count: int,
    *, generator: Generator, std: float = 0.03,
) -> Float[Tensor, "count m d"]:  # fmt: skip
    """``count`` different stored views of the rows ``index``; without stored ones, the rows with Gaussian noise."""
    if views is None:
        noise = torch.randn(count, len(index), x.shape[1], generator=generator, device=x.device)
        return x[index] + std * noise
    if len(views) < count:
        raise ValueError(f"views must hold at least {count} views of each row, got {len(views)}")
    which = torch.randperm(len(views), generator=generator, device=x.device)[:count]
    return views[which[:, None], index]


def new_head(d: int, k: int, *, generator: Generator, hidden: int = 128) -> nn.Sequential:
    """A perceptron from d features to k clusters, with BatchNorm; its weights are drawn from the generator."""
    seed = int(torch.randint(2**31, (), generator=generator, device=generator.device))
    return seeded(seed, mlp, [d, hidden, k])


def train_head(
    head: nn.Module, loss: Callable, n: int, *, steps: int, batch_size: int, generator: Generator, lr: float = 3e-3
) -> nn.Module:
    """Adam on ``loss(index, step)`` over random batches of 0 … n - 1; the head is returned in evaluation mode.

    steps  four times as many at the course's long scale, as in ``fit``
    """
    optimiser = adam(head.parameters(), lr)
    for step in range(allowed(steps, True)):
        index = torch.randperm(n, generator=generator, device=generator.device)[:batch_size]
        optimiser.zero_grad()
        loss(index, step).backward()
        optimiser.step()
    return head.eval()


class Heads(nn.Module):
    """Perceptrons of one hidden layer, one an arm, that start from the same weights and are trained in one product.

    In training the hidden layer is normalised by the batch's moments, afterwards by those of ``settle``'s rows.
    """

    def __init__(self, arms: int, d: int, hidden: int, k: int, *, generator: Generator):
        super().__init__()
        options = dict(generator=generator, device=generator.device)
        first, last = torch.randn(d, hidden, **options) / d**0.5, torch.randn(hidden, k, **options) / hidden**0.5
        self.first = nn.Parameter(first.repeat(arms, 1, 1))
        self.last, self.bias = nn.Parameter(last.repeat(arms, 1, 1)), nn.Parameter(torch.zeros(arms, 1, k).to(last))
        self.register_buffer("moments", torch.zeros(2, arms, 1, hidden).to(last))

    def forward(self, x: Float[Tensor, "*arms n d"]) -> Float[Tensor, "arms n k"]:
        """Logits of each arm, for rows that are common to all or an arm's own."""
        h = x @ self.first
        var, mean = torch.var_mean(h, 1, correction=0, keepdim=True) if self.training else self.moments
        return ((h - mean) * (var + 1e-5).rsqrt()).relu() @ self.last + self.bias

    @torch.no_grad()
    def settle(self, x: Float[Tensor, "n d"]) -> "Heads":
        """Go into evaluation mode, with the moments of these rows."""
        self.moments.copy_(torch.stack(torch.var_mean(x @ self.first, 1, correction=0, keepdim=True)))
        return self.eval()
