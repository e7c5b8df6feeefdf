"""The chapter's stage: long-tailed digits, several draws a seed as one stack, and the classic losses against the tail.

Classes are named by how frequent they are, 0 the most, and which digit that is differs from draw to draw. So the labels
(n,), sorted, are the same for all draws; images are (draws, n, pixels).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor

from ...nets.stacked import draw_rows, take
from ...train import allowed
from ..images import digits
from ..label_sets import tail_counts
from ..training import cross_entropy, train
from .backbone import cifar10, network

GROUPS = {"many": slice(0, 3), "medium": slice(3, 7), "few": slice(7, 10)}
# name: (exponent of the prior added to the logits in training, power of 1 / n_c as weight, weights from this share on)
LOSSES = {
    "cross entropy": (0.0, 0.0, 0.0), "balanced softmax": (1.0, 0.0, 0.0), "class weights": (0.0, 1.0, 0.0),
    "deferred weights": (0.0, 1.0, 0.8),
}  # fmt: skip


def images_of(run):
    """The scale's images: split -> rows and labels."""
    return run.pick(quick=digits, full=cifar10)


def pictures(x: Float[Tensor, "*n p"]) -> Float[Tensor, "n c s s"]:
    """Rows as images, of one colour or three."""
    colours = 3 if x.shape[-1] == 3072 else 1
    side = round((x.shape[-1] / colours) ** 0.5)
    return x.reshape(-1, colours, side, side)


def small_digits(split: str) -> tuple[Tensor, Tensor]:
    """A second data set: scikit-learn's digits at 8×8, of other hands, as rows, with their labels."""
    from ...data.synthetic import SPLITS
    from ...data.synthetic import digits as all_digits

    images, labels = all_digits("optdigits")
    part = slice(*SPLITS["optdigits"][split])
    return images[part].flatten(1).float(), labels[part].clone()


@dataclass(frozen=True)
class Tail:
    """Draws of a long-tailed training set, a small balanced set that methods may look at, and the test set."""

    x: Float[Tensor, "r n p"]
    y: Int[Tensor, " n"]
    held: Float[Tensor, "r v p"]
    y_held: Int[Tensor, " v"]
    test: Float[Tensor, "r t p"]
    y_test: Int[Tensor, " t"]
    counts: Int[Tensor, " K"]

    @property
    def draws(self) -> int:
        return len(self.x)


def long_tail(
    run, seed: int, ratio: float = 50.0, *, draws: int = 5, size: tuple[int, int] | None = None, source=None
) -> Tail:
    """A seed's draws: class c has largest · ratio^(-c / 9) images, and ``held`` further ones of each are set aside.

    size    (largest, held); None for (280, 40), at full scale (3600, 300)
    source  split -> images as rows and labels; None for the digits at 14×14, at full scale CIFAR-10
    """
    source = source or images_of(run)
    largest, held = size or run.pick(quick=(280, 40), full=(25, 10) if run.dry else (3600, 300))
    (x, y), (x_test, y_test) = (source(split) for split in run.splits)
    classes = int(y.max()) + 1
    counts, g = tail_counts(classes, largest, ratio), torch.Generator().manual_seed(1000 * seed + 7)
    each = int(torch.bincount(y_test).min())
    parts = {"x": [], "held": [], "test": []}
    for _ in range(draws):
        names = torch.randperm(classes, generator=g)  # names[c]: the digit of rank c
        order = torch.randperm(len(y), generator=g)
        own = [order[y[order] == name] for name in names]
        if len(own[0]) < largest + held:
            raise ValueError(f"size must be at most the {len(own[0])} of a class, got {largest} and {held}")
        parts["x"].append(x[torch.cat([o[:n] for o, n in zip(own, counts.tolist(), strict=True)])])
        parts["held"].append(x[torch.cat([o[len(o) - held :] for o in own])])
        parts["test"].append(x_test[torch.cat([(y_test == name).nonzero()[:each, 0] for name in names])])
    ranks = torch.arange(classes)
    labels = ranks.repeat_interleave(counts), ranks.repeat_interleave(held), ranks.repeat_interleave(each)
    made = {name: torch.stack(part).to(run.device) for name, part in parts.items()}
    labels = [t.to(run.device) for t in labels]
    return Tail(made["x"], labels[0], made["held"], labels[1], made["test"], labels[2], counts.to(run.device))


def learn_tail(
    tail: Tail, losses=("cross entropy",), *, cosine: bool = False, steps: int = 300, batch: int = 64, width: int = 96,
    lr: float = 3e-3, generator: Generator, **options,
) -> torch.nn.Module:  # fmt: skip
    """A stack by each of the losses on each draw: network a · draws + r has loss a. They begin and go alike.

    losses  names of ``LOSSES``: cross entropy; balanced softmax, log n_c added to the logits; weights 1 / n_c, over
            their mean in the data; and weights in the last fifth alone (deferred re-weighting, LDAM-DRW)
    """
    r, k, n = tail.draws, len(tail.counts), len(losses) * tail.draws
    told = torch.tensor([LOSSES[name] for name in losses], device=tail.x.device).repeat_interleave(r, 0)
    offset = (told[:, :1] * tail.counts.log())[:, None]
    share = tail.counts / tail.counts.sum()
    weight = share ** -told[:, 1:2]
    weight = weight / (weight * share).sum(1, keepdim=True)
    net = network(n, [tail.x.shape[2], width, k], generator=generator, cosine=cosine, same=r)
    total = allowed(steps, options.get("stretch", True))

    def loss(step: int) -> Tensor:
        rows = draw_rows(r, len(tail.y), batch, generator=generator)
        seen, y = take(tail.x, rows, own=True).repeat(len(losses), 1, 1), tail.y[rows].repeat(len(losses), 1)
        heavy = torch.where((told[:, 2] * total <= step)[:, None], weight.gather(1, y), 1.0)
        return cross_entropy(net(seen) + offset, y, heavy)

    train(net, loss, steps, lr=lr, **options)
    return net


@torch.no_grad()
def logits_of(net, x: Float[Tensor, "r t p"]) -> Float[Tensor, "a r t K"]:
    """What the networks of a comparison say: (losses, draws, samples, classes)."""
    return net(x.repeat(net.n // len(x), 1, 1)).unflatten(0, (-1, len(x)))


@torch.no_grad()
def features_of(net, x: Float[Tensor, "r t p"]) -> Float[Tensor, "a r t f"]:
    """Their layer before the head, and a last column of ones for the bias."""
    z = net.features(x.repeat(net.n // len(x), 1, 1)).unflatten(0, (-1, len(x)))
    return torch.cat([z, torch.ones_like(z[..., :1])], -1)


def class_recalls(logits: Float[Tensor, "*r t K"], y: Int[Tensor, " t"]) -> Float[Tensor, "*r K"]:
    """Recall of every class."""
    k = logits.shape[-1]
    right = (logits.argmax(-1) == y).to(torch.float32)
    return right @ F.normalize(F.one_hot(y, k).float(), p=1, dim=0)


def told(logits: Float[Tensor, "r t K"], y: Int[Tensor, " t"]) -> dict[str, float]:
    """Balanced accuracy, recalls of many-, medium- and few-shot classes, the worst recall, and the precision of the
    few-shot classes' predictions: means over the draws."""
    r, few = class_recalls(logits, y), GROUPS["few"].start
    found = {name: float(r[:, part].mean()) for name, part in GROUPS.items()}
    said = logits.argmax(2)
    rare = said >= few
    exact = ((said == y) & rare).sum(1) / rare.sum(1).clamp_min(1)
    return {"balanced": float(r.mean()), **found, "worst": float(r.amin(1).mean()), "precision": float(exact.mean())}
