"""Arms of MDCS trained side by side: the same start, the same batches and views, three experts each."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from ...nets.stacked import draw_rows, take
from ...train import allowed
from ..training import train
from .backbone import strong, weak
from .mdcs import MANY_ALL_FEW, Experts, mdcs_loss
from .stage import Tail


@dataclass(frozen=True)
class Arm:
    """What an arm's loss is made of: λ of each expert, the weight of the self-distillation, confident images alone."""

    exponents: tuple[float, float, float]
    weight: float = 0.0
    confident: bool = True


ARMS = {
    "cross entropy × 3": Arm((0.0, 0.0, 0.0)),
    "balanced softmax × 3": Arm((1.0, 1.0, 1.0)),
    "DL": Arm(MANY_ALL_FEW),
    "balanced softmax × 3 + CS": Arm((1.0, 1.0, 1.0), 0.6),
    "DL + CS, all images": Arm(MANY_ALL_FEW, 0.6, False),
    "MDCS": Arm(MANY_ALL_FEW, 0.6),
}


def learn_experts(
    tail: Tail, arms, *, steps: int, generator: Generator, batch: int = 64, ramp: float = 0.05, lr: float = 3e-3,
    **options,
) -> Experts:  # fmt: skip
    """Networks a · draws + r have arm a and draw r. Both views of an image count in the cross entropy of every arm.

    ramp  share of the steps in which the self-distillation's weight grows to its value; 20 of 400 epochs in the paper
    """
    arms, r = list(arms), tail.draws
    n = len(arms) * r
    net = Experts(n, tail.x.shape[2], len(tail.counts), generator=generator, same=r)
    repeat = lambda values: torch.tensor(values, device=tail.x.device).repeat_interleave(r, 0)  # noqa: E731
    exponents, weight = repeat([a.exponents for a in arms]), repeat([a.weight for a in arms])
    confident = repeat([a.confident for a in arms])
    total = allowed(steps, options.get("stretch", True))

    def loss(step: int) -> Tensor:
        rows = draw_rows(r, len(tail.y), batch, generator=generator)
        x, y = take(tail.x, rows, own=True), tail.y[rows].repeat(len(arms), 1)
        seen = torch.cat([weak(x, generator=generator), strong(x, generator=generator)], 1).repeat(len(arms), 1, 1)
        one, two = net(seen).chunk(2, 2)
        now = weight * min((step + 1) / max(1.0, ramp * total), 1.0)
        return mdcs_loss(one, two, y, tail.counts, exponents, now, confident).sum()

    train(net, loss, steps, lr=lr, **options)
    return net


@torch.no_grad()
def expert_logits(net: Experts, x: Float[Tensor, "r t p"]) -> Float[Tensor, "a r e t K"]:
    """What all experts of all arms say of each draw's test images."""
    return net(x.repeat(net.n // len(x), 1, 1)).unflatten(0, (-1, len(x)))


def halves(tail: Tail, parts: int, *, generator: Generator) -> Tail:
    """The first draw's training set ``parts`` times over, each a random half of every class: for variances."""
    kept = []
    first = tail.counts.cumsum(0) - tail.counts
    half = (tail.counts + 1) // 2
    for _ in range(parts):
        order = [
            f + torch.randperm(c, generator=generator, device=generator.device)[:h]
            for f, c, h in zip(first.tolist(), tail.counts.tolist(), half.tolist(), strict=True)
        ]
        kept.append(tail.x[0, torch.cat(order).to(tail.x.device)])
    same = lambda x: x[:1].expand(parts, -1, -1)  # noqa: E731
    y = torch.arange(len(half), device=half.device).repeat_interleave(half)
    return Tail(torch.stack(kept), y, same(tail.held), tail.y_held, same(tail.test), tail.y_test, half)
