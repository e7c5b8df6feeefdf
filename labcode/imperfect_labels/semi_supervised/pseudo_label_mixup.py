"""Pseudo-Labeling and Confirmation Bias: soft pseudo-labels, mixup, and a minimum of labelled images in each batch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...loss import raised
from ...nets.stacked import StackedMLP, take
from ...train import allowed
from .. import views
from ..training import predict, train
from .stage import LR, Images, Labels, Stage


def prior_term(logits: Float[Tensor, "n b k"]) -> Float[Tensor, " n"]:
    """R_A of each network: -Σ_c (1/C) log p̄_c with the batch's mean prediction p̄ (Arazo et al. 2020, equation 2).

    The divergence of the uniform prior from p̄, up to log C. Without it the cheapest answer is one class for all. Taken
    in the logarithm: a class that nobody predicts has a large value, not an infinite one.
    """
    log_mean = raised(logits).log_softmax(-1).logsumexp(1) - math.log(logits.shape[1])
    return -log_mean.mean(-1)


def entropy_term(logits: Float[Tensor, "n b k"]) -> Float[Tensor, " n"]:
    """R_H of each network: the mean entropy of its predictions, which is to be small (equation 3)."""
    log_p = raised(logits).log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1).mean(-1)


def mixed_loss(
    logits: Float[Tensor, "n b k"], target: Float[Tensor, "m c j"], r_a: float | Float[Tensor, "..."] = 0.8,
    r_h: float | Float[Tensor, "..."] = 0.4,
) -> Float[Tensor, ""]:  # fmt: skip
    """Cross-entropy with (mixed) soft targets plus r_a R_A + r_h R_H, all on the same mixed predictions; summed over n.

    logits  of mixed images
    target  their mixed labels, shares (n, b, k): cross-entropy is linear in the target, so that mixing targets is
            mixing the losses, λ ℓ(y_a) + (1 - λ) ℓ(y_b)

    Raises ValueError for targets of another shape.
    """
    if target.shape != logits.shape or logits.ndim != 3:
        raise ValueError(f"target must be {tuple(logits.shape)} as logits are, got {tuple(target.shape)}")
    logits = raised(logits)
    fitted = -(target.to(logits.dtype) * logits.log_softmax(-1)).sum(-1).mean(1)
    return (fitted + r_a * prior_term(logits) + r_h * entropy_term(logits)).sum()


@dataclass(frozen=True)
class Soft:
    """One network's way with soft pseudo-labels; the defaults are the paper's.

    alpha  of mixup's Beta; 0 mixes nothing
    least  labelled images in every batch, the rest drawn from all images; the whole batch is supervised training
    """

    alpha: float = 1.0
    least: int = 16
    r_a: float = 0.8
    r_h: float = 0.4


BATCH = 64
WAYS = {
    "naive": Soft(alpha=0, least=0), "mixup": Soft(least=0), "16 labelled": Soft(alpha=0), "both": Soft(),
    "naive, no R_A": Soft(alpha=0, least=0, r_a=0.0), "labels with mixup": Soft(least=BATCH, r_a=0.0, r_h=0.0),
    "labels alone": Soft(alpha=0, least=BATCH, r_a=0.0, r_h=0.0),
}  # fmt: skip


@dataclass
class Told:
    """What became of the pseudo-labels; n is the stack's size.

    accuracy   of the unlabelled images' pseudo-labels at each relabelling
    confirmed  share of the first wrong pseudo-labels that are the same wrong label at the end
    belief     probability that the network gives at the end to the wrong pseudo-labels it last learnt from
    largest    share of the commonest pseudo-label at the end
    """

    accuracy: Float[Tensor, "rounds n"]
    confirmed: Float[Tensor, " n"]
    belief: Float[Tensor, " n"]
    largest: Float[Tensor, " n"]


def learn_soft(
    stage: Stage, labels: Labels, arms: Sequence[Soft], seed: int, *, steps: int, batch: int = BATCH, warm: float = 0.2,
    every: int = 20, lr: float = LR, strong: bool = False, same: bool | int = False, net: nn.Module | None = None,
) -> tuple[nn.Module, Told]:  # fmt: skip
    """Train one network for each set of labels, network i by arms[i], on the stage's pool.

    warm    share of the steps that see labelled images only: 10 of 400 epochs in the paper, whose networks are larger
    every   steps between two relabellings, about an epoch
    strong  half of a batch is seen in strong views; else all in weak ones
    net     a stack to begin with

    Pseudo-labels are the softmax of the network, in evaluation mode, on the image as it is; they stay until the next
    relabelling. No threshold, no hard labels, no sharpening. Departures: AdamW and a cosine for SGD with drops, no
    dropout and no weight averaging. Raises ValueError for a number of arms that is not the stack's, and for more
    labelled images than a batch has.
    """
    n, total, k, x, y = len(labels), allowed(steps), stage.classes, stage.pool.x, stage.pool.y
    if len(arms) != n:
        raise ValueError(f"arms must be one for each of the {n} networks, got {len(arms)}")
    if max(arm.least for arm in arms) > batch:
        raise ValueError(f"least must be at most the batch of {batch}, got {max(arm.least for arm in arms)}")
    net = stage.net(n, generator=stage.generator(seed, 50), same=same) if net is None else net
    g = stage.generator(seed, 51)
    table = torch.tensor([[arm.r_a, arm.r_h, arm.least, arm.alpha] for arm in arms], device=x.device)
    r_a, r_h, least, alpha = table.unbind(1)
    known = torch.zeros(n, len(x), dtype=torch.bool, device=x.device).scatter_(1, labels.places, True)
    truth = F.one_hot(y, k).float()
    begin, rounds, soft, first = int(warm * total), [], truth.expand(n, -1, -1), None
    place = torch.arange(batch, device=x.device)

    def relabel() -> Tensor:
        own = predict(net, x)
        rounds.append(((own.argmax(-1) == y) & ~known).sum(1) / (~known).sum(1))
        return torch.where(known[..., None], truth, own)

    def loss(step: int) -> Tensor:
        nonlocal soft, first
        rows, late = labels.draw(batch, g), float(step >= begin)
        if late:
            if (step - begin) % every == 0:
                soft = relabel()
                first = soft.argmax(-1) if first is None else first
            anything = torch.randint(len(x), (batch,), generator=g, device=x.device).expand(n, -1)
            rows = torch.where(place < least[:, None], rows, anything)
        target = take(soft, rows, own=True) if late else truth[rows]
        seen = take(x, rows, own=False)
        seen = stage.both(seen, g) if strong else stage.weak(seen, g)
        share, partner = views.mixing(n, batch, 1.0, generator=g)
        share = torch.where(alpha[:, None] > 0, share, torch.ones_like(share))
        seen, target = views.mix(seen, share, partner), views.mix(target, share, partner)
        return mixed_loss(net(seen), target, late * r_a, late * r_h)

    train(net, loss, steps, lr=lr)
    last, final = soft.argmax(-1), predict(net, x)
    relabel()
    mistaken, early = (last != y) & ~known, (first != y) & ~known
    given = final.gather(-1, last[..., None])[..., 0] * mistaken
    kept = (final.argmax(-1) == first) & early
    confirmed, belief = kept.sum(1) / early.sum(1).clamp_min(1), given.sum(1) / mistaken.sum(1).clamp_min(1)
    largest = F.one_hot(final.argmax(-1), k).float().mean(1).amax(-1)
    return net, Told(torch.stack(rounds).cpu(), confirmed.cpu(), belief.cpu(), largest.cpu())


def two_moons(n: int, seed: int, spread: float = 0.1) -> tuple[Float[Tensor, "n 2"], Int[Tensor, " n"]]:
    """n points of two interleaved half circles, class i mod 2, and their classes."""
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 2
    angle, side = torch.rand(n, generator=g) * torch.pi, 1 - 2 * y.float()
    x = torch.stack([angle.cos() + y - 0.5, side * (angle.sin() - 0.25)], 1)
    return x + spread * torch.randn(n, 2, generator=g), y


class Moons:
    """Two moons behind the interface of a ``Stage``, for the paper's picture; views are the points themselves.

    count  points; ``spread`` is the standard deviation of their distance from the half circles
    """

    def __init__(self, run, seed: int, count: int = 400, spread: float = 0.1):
        parts = (two_moons(count, 2 * seed + i, spread) for i in (0, 1))
        self.pool, self.test = (Images(x.to(run.device), y.to(run.device)) for x, y in parts)
        self.run, self.classes = run, 2

    def generator(self, *numbers: int):
        return Stage.generator(self, *numbers)

    def net(self, n: int, *, generator, same: bool | int = False) -> nn.Module:
        return StackedMLP(n, [2, 64, 64, 2], norm=False, generator=generator, same=same)

    def weak(self, x: Tensor, generator) -> Tensor:
        return x

    def label_sets(self, draws, seed: int) -> Labels:
        return Stage.label_sets(self, draws, seed)
