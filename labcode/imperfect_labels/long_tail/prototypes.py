"""FASSL on long-tailed digits without labels: stage 1 with even or following prototypes, stage 2 with or without
weights, beside SimCLR; every arm begins at the same weights and sees the same views."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor, nn

from ...loss import unit_rows
from ...nets.stacked import draw_rows, take
from ..training import train
from .backbone import adopt, network, strong
from .fassl import assignments, contrast, follow, rare_weights, rebalanced, swapped
from .stage import Tail


class Prototypical(nn.Module):
    """n encoders with a projector, and K prototypes on the sphere for each, whose shares ``pi`` are buffers."""

    def __init__(
        self, n: int, inputs: int, prototypes: int, *, generator: Generator, width: int = 96, dim: int = 32, same=0
    ):
        super().__init__()
        self.net = network(n, [inputs, width, width, dim], generator=generator, same=same)
        begin = torch.randn(same or n, prototypes, dim, generator=generator, device=generator.device)
        self.prototypes = nn.Parameter(unit_rows(begin)[torch.arange(n, device=begin.device) % len(begin)].clone())
        self.register_buffer("pi", torch.full((n, prototypes), 1 / prototypes, device=begin.device))

    def features(self, x: Float[Tensor, "n b p"]) -> Float[Tensor, "n b f"]:
        """What is judged: the layer before the projector's last."""
        return self.net.features(x)

    def scores(self, z: Float[Tensor, "n b d"]) -> Float[Tensor, "n b K"]:
        """Cosines with the prototypes."""
        return unit_rows(z) @ unit_rows(self.prototypes).mT


def stage_one(
    tail: Tail, *, prototypes: int, steps: int, generator: Generator, batch: int = 64, lr: float = 3e-3,
    uneven=(None, False, True), beside: float = 0.0, pull: float = 0.93, floor: float = 0.2,
    **options,
) -> Prototypical:  # fmt: skip
    """Prototypes by swapped assignments; networks a · draws + r, arm a one of ``uneven``.

    uneven  per arm: whether the assignments' marginal follows the data (FASSL) or is even (SwAV); None for no
            prototypes at all, and SimCLR's loss in their place
    pull    strength of the assignments' marginal where it follows; an even one is enforced
    floor   of ``follow``
    beside  weight of SimCLR's loss in the arms with prototypes
    """
    r, n = tail.draws, tail.draws * len(uneven)
    model = Prototypical(n, tail.x.shape[2], prototypes, generator=generator, same=r)
    flag = torch.tensor([u is True for u in uneven], device=tail.x.device).repeat_interleave(r)[:, None]
    swap = torch.tensor([float(u is not None) for u in uneven], device=tail.x.device).repeat_interleave(r)
    strength = torch.where(flag[:, 0], pull, 1.0)
    even, pair = 1 / prototypes, torch.where(swap > 0, beside, 1.0)

    def loss(_: int) -> Tensor:
        z = model.net(two_views(tail, batch, len(uneven), generator))
        one, two = z.chunk(2, 1)
        scores = model.scores(z)
        s = scores.chunk(2, 1)
        q = [assignments(part, model.pi, strength=strength) for part in s]
        model.pi = torch.where(flag, follow(model.pi, torch.cat(q, 1), floor=floor), even)
        return (swap * swapped(*s, *q) + pair * contrast(one, two)).sum()

    train(model, loss, steps, lr=lr, **options)
    return model


def stage_two(
    model: Prototypical, tail: Tail, gammas, *, steps: int, generator: Generator, batch: int = 64, lr: float = 1e-3,
    start: int = 1, weigh_contrast: bool = True, **options,
) -> Prototypical:  # fmt: skip
    """Go on from arm ``start`` of stage 1 with frozen prototypes, an arm for each gamma; None: SimCLR alone.

    weigh_contrast  the images' weights are SimCLR's too
    """
    r, arms = tail.draws, len(gammas)
    k = model.prototypes.shape[1]
    found = Prototypical(r * arms, tail.x.shape[2], k, generator=torch.Generator(tail.x.device).manual_seed(0))
    which = list(range(start * r, (start + 1) * r)) * arms
    adopt(found.net, model.net, which)
    places = torch.tensor(which, device=tail.x.device)
    found.prototypes = nn.Parameter(model.prototypes.detach().index_select(0, places), requires_grad=False)
    found.pi = model.pi.index_select(0, places)
    gamma = [g or 0.0 for g in gammas]
    on = torch.tensor([float(g is not None) for g in gammas], device=tail.x.device).repeat_interleave(r)

    def loss(_: int) -> Tensor:
        z = found.net(two_views(tail, batch, arms, generator))
        one, two = z.chunk(2, 1)
        s = found.scores(z).chunk(2, 1)
        mean = (s[0] + s[1]).detach() / 2
        weight = torch.cat([
            rare_weights(mean[a * r : (a + 1) * r], found.pi[a * r : (a + 1) * r], g) for a, g in enumerate(gamma)
        ])  # fmt: skip
        own = weight if weigh_contrast else None
        return (on * rebalanced(*s, weight) + contrast(one, two, weight=own)).sum()

    train(found, loss, steps, lr=lr, **options)
    return found


def two_views(tail: Tail, batch: int, arms: int, generator: Generator) -> Float[Tensor, "n b2 p"]:
    """A batch of every draw in two strong views, below each other, the same for all arms."""
    x = take(tail.x, draw_rows(tail.draws, len(tail.y), batch, generator=generator), own=True)
    return strong(torch.cat([x, x], 1), generator=generator).repeat(arms, 1, 1)


@torch.no_grad()
def features(model, x: Float[Tensor, "r t p"]) -> Float[Tensor, "a r t f"]:
    """Standardised features of every arm and draw."""
    z = model.features(x.repeat(len(model.pi) // len(x), 1, 1))
    z = (z - z.mean(1, keepdim=True)) / z.std(1, keepdim=True).clamp_min(1e-6)
    return z.unflatten(0, (-1, len(x)))


def probe(
    z: Float[Tensor, "m n f"], y: Tensor, test: Float[Tensor, "m t f"], *, l2: float = 1e-2, steps: int = 120,
    lr: float = 0.05,
) -> Float[Tensor, "m t K"]:
    """Logits of linear probes, a stack of logistic regressions fitted together by AdamW."""
    k = int(y.max()) + 1
    weight = torch.zeros(len(z), k, z.shape[2] + 1, device=z.device, requires_grad=True)
    one = lambda x: torch.cat([x, torch.ones_like(x[..., :1])], 2)  # noqa: E731
    z, test, many = one(z), one(test), y.expand(len(z), -1)
    optim = torch.optim.Adam([weight], lr=lr)
    for i in range(steps):
        optim.param_groups[0]["lr"] = lr * (1 - i / steps)
        loss = F.cross_entropy((z @ weight.mT).flatten(0, 1), many.flatten(), reduction="none").view(len(z), -1).mean(1)
        (loss.sum() + l2 / 2 * weight[..., :-1].square().sum()).backward()
        optim.step()
        optim.zero_grad()
    return (test @ weight.mT).detach()


def few_labels_of(tail: Tail, per_class: int, sets: int = 4) -> Tensor:
    """Places of ``per_class`` held-out images of each class, the probe's balanced labels: up to ``sets`` sets of them,
    none in common, one a row."""
    size = len(tail.y_held) // len(tail.counts)
    sets = max(1, min(sets, size // per_class))
    own = torch.arange(sets)[:, None, None] * per_class + torch.arange(per_class)
    return (own + size * torch.arange(len(tail.counts))[:, None]).flatten(1).to(tail.x.device)


@torch.no_grad()
def owners(model: Prototypical, tail: Tail) -> Float[Tensor, "n K C"]:
    """How many training samples of each class lie nearest to each prototype."""
    x = tail.x.repeat(len(model.pi) // tail.draws, 1, 1)
    at = model.scores(model.net(x)).argmax(2)
    shown = F.one_hot(at, model.prototypes.shape[1]).float()
    return shown.mT @ F.one_hot(tail.y, len(tail.counts)).float()
