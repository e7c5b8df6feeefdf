"""Training bug detectors on few labels: supervised, after pretraining on pasted frames, with both losses, and alone."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...nets.stacked import StackedMLP, draw_rows, take
from ..training import cross_entropy, train


def balanced_rows(y: Int[Tensor, "r m"], batch: int, generator: torch.Generator) -> Int[Tensor, "r b"]:
    """Places for a batch of each draw, half of them of class 1: class-balanced sampling."""
    weight = torch.where(y == 1, 1 / (y == 1).sum(1, keepdim=True), 1 / (y == 0).sum(1, keepdim=True)).float()
    return torch.multinomial(weight, batch, replacement=True, generator=generator)


def pasted_loss(
    net, own: Float[Tensor, "n d"], pasted: Float[Tensor, "n d"], generator: torch.Generator, batch: int = 64,
    groups: list[int] | None = None,
) -> Tensor:  # fmt: skip
    """The self-supervised objective: cross entropy of original (0) against pasted (1), as many of each.

    own, pasted  features of the frames before and after; pasted may be (sets, n, d), and then ``groups`` says which
                 set each network of the stack is trained on
    """
    rows = draw_rows(net.n, len(own), batch, generator=generator, same=True)
    if pasted.ndim == 3:
        new = pasted[torch.tensor(groups)[:, None], rows]
    else:
        new = take(pasted, rows, own=False)
    x = torch.cat([take(own, rows, own=False), new], 1)
    target = torch.cat([torch.zeros_like(rows), torch.ones_like(rows)], 1)
    return cross_entropy(net(x), target)


def pretrain(net, own, pasted, *, steps: int, generator: torch.Generator, lr: float = 3e-3, groups=None):
    """Train a stack on the pasted frames alone; returns it in evaluation mode."""
    train(net, lambda i: pasted_loss(net, own, pasted, generator, groups=groups), steps, lr=lr, label="pasted frames")
    return net


def fine_tune(
    net, x: Float[Tensor, "n d"], y: Int[Tensor, " n"], labelled: Int[Tensor, "r m"], *, steps: int,
    generator: torch.Generator, lr: float = 1e-3, lam: float = 0.0, own=None, pasted=None, groups=None,
):  # fmt: skip
    """Train a stack on its labelled rows, class-balanced; with ``lam`` > 0 plus lam times the pasted objective.

    labelled  (r, m): the rows of each network's draw, some of each class

    The multi-task loss of the paper is L_sup + λ L_ssl; with lam = 0 this is fine-tuning, or training from scratch.
    """
    labels = y[labelled]

    def loss(i: int) -> Tensor:
        rows = balanced_rows(labels, 64, generator)
        chosen = labelled.gather(1, rows)
        value = cross_entropy(net(take(x, chosen, own=False)), labels.gather(1, rows))
        return value + lam * pasted_loss(net, own, pasted, generator, groups=groups) if lam else value

    train(net, loss, steps, lr=lr, label="few labels")
    return net


def detector(n: int, width: int, seed: int, hidden: int = 64, same: bool | int = False) -> StackedMLP:
    """A stack of perceptrons with one hidden layer and two outputs, its weights drawn from the seed."""
    return StackedMLP(n, [width, hidden, 2], norm=False, generator=torch.Generator().manual_seed(seed), same=same)


@torch.no_grad()
def bug_scores(net, x: Float[Tensor, "n d"]) -> Float[Tensor, "r n"]:
    """log p(bug) - log p(no bug) of each network of the stack."""
    out = net(x)
    return out[..., 1] - out[..., 0]


def average_precision(scores: Float[Tensor, "r n"], bug: Tensor) -> Float[Tensor, " r"]:
    """Precision at each found bug, averaged: the area under the precision-recall curve as a sum of steps.

    Equal scores keep the order of the rows. Raises ValueError without a bug.
    """
    if not bool(bug.any()):
        raise ValueError("bug must hold a bug, got none")
    hit = bug.to(scores.device)[scores.argsort(dim=1, descending=True, stable=True)].double()
    precision = hit.cumsum(1) / torch.arange(1, hit.shape[1] + 1)
    return (precision * hit).sum(1) / hit.sum(1)


def f1_at(scores: Float[Tensor, "r n"], bug: Tensor, threshold: Float[Tensor, " r"]) -> Float[Tensor, " r"]:
    """F1 of the frames whose score lies above each network's threshold; 0 where none is found."""
    found = scores > threshold[:, None]
    right = (found & bug).sum(1).double()
    return 2 * right / (found.sum(1) + bug.sum()).clamp(min=1)


def best_threshold(scores: Float[Tensor, "r n"], bug: Tensor) -> Float[Tensor, " r"]:
    """The threshold of the highest F1 on these frames, each network's own: half way to the next lower score."""
    order = scores.argsort(dim=1, descending=True, stable=True)
    hit = bug[order].double().cumsum(1)
    f1 = 2 * hit / (torch.arange(1, scores.shape[1] + 1) + bug.sum())
    at = f1.argmax(1, keepdim=True)
    ranked = scores.gather(1, order)
    lower = ranked.gather(1, (at + 1).clamp(max=scores.shape[1] - 1))
    return ((ranked.gather(1, at) + lower) / 2)[:, 0] - (at[:, 0] == scores.shape[1] - 1) * 1e-6


def exemplar_threshold(scores: Float[Tensor, "r n"], good: Int[Tensor, "r e"]) -> Float[Tensor, " r"]:
    """The zero-bug threshold: a standard deviation above the largest score of a few frames known to be good."""
    shown = scores.gather(1, good)
    return shown.amax(1) + shown.std(1, correction=0)


def labelled_draws(
    bug: Tensor, m: int, draws: int, generator: torch.Generator, prevalence: float = 0.1
) -> Int[Tensor, "r m"]:
    """Rows of m labelled frames for each draw, a share ``prevalence`` of them with a bug, one of each kind at least."""
    positive = min(max(1, round(prevalence * m)), m - 1)
    pick = lambda rows, k: rows[torch.rand(draws, len(rows), generator=generator).argsort(1)[:, :k]]  # noqa: E731
    return torch.cat([pick(bug.nonzero()[:, 0], positive), pick((~bug).nonzero()[:, 0], m - positive)], 1)


def neighbour_distance(x: Float[Tensor, "n d"], played: Float[Tensor, "m d"], k: int = 10) -> Float[Tensor, " n"]:
    """Mean distance to the k nearest played frames: large for a frame unlike them, the anomaly rival without labels."""
    return torch.cdist(x, played).topk(k, dim=1, largest=False).values.mean(1)
