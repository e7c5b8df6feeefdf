"""DASO (Oh, Kim and Kweon 2022): two pseudo-labels, one from the classifier and one from prototypes, mixed by class.

The classifier favours the frequent classes, prototypes of equally many labelled features favour the rare ones. Which of
them is asked depends on how often the class that the classifier names is named at present.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...loss import check_index, check_positive, raised, unit_rows
from ..training import cross_entropy
from .stage import Batch


def similarities(
    features: Float[Tensor, "n b d"], prototypes: Float[Tensor, "..."], temperature: float = 0.05
) -> Float[Tensor, "n b k"]:
    """cos(f, c_k) / T of each feature with each class's prototype: the semantic label's logits (DASO, section 3.2).

    temperature  > 0; 0.05 in the authors' code

    Within ±1 / T. A prototype of zeros, of a class not seen yet, has similarity 0. float32 at least. Raises ValueError
    for shapes that do not fit and a temperature that is not positive.
    """
    check_positive(temperature=temperature)
    if features.ndim != 3 or prototypes.ndim != 3 or features.shape[::2] != prototypes.shape[::2]:
        raise ValueError(
            f"features must be (n, b, d) and prototypes (n, k, d), got {tuple(features.shape)} and "
            f"{tuple(prototypes.shape)}"
        )
    return unit_rows(raised(features)) @ unit_rows(raised(prototypes)).mT / temperature


def semantic_shares(
    counts: Float[Tensor, "n k"], temperature: Float[Tensor, "n 1"] | float
) -> Float[Tensor, "n k"]:  # fmt: skip
    """v_k = m_k^(1/T) / max_j m_j^(1/T): the share of the semantic label for a class that is named m_k times (DASO,
    equation 2). 1 for the class that is named most.

    counts       how often each class is the pseudo-label at present, 0 at least; shares do as well
    temperature  > 0, of all networks or one each (n, 1). Above 1 all classes come nearer to 1, towards 0 only the most
                 frequent keeps the semantic label

    0 throughout where nothing was counted yet; the released code divides by zero there, and begins later. Raises
    ValueError for a number that is not positive.
    """
    if not isinstance(temperature, Tensor):
        check_positive(temperature=temperature)
    counts = raised(counts)
    return (counts / counts.amax(-1, keepdim=True).clamp_min(1e-12)) ** (1 / temperature)


def blended(p: Float[Tensor, "n b k"], q: Float[Tensor, "..."], v: Float[Tensor, "..."]) -> Float[Tensor, "n b k"]:
    """(1 - v_k') p + v_k' q with k' = argmax p, the class that the classifier names (DASO, equation 1).

    p  the classifier's probabilities, the linear label; q the semantic one
    v  each class's share of the semantic label, in [0, 1]

    Raises ValueError for shapes that do not fit.
    """
    if p.shape != q.shape or v.shape != (len(p), p.shape[-1]):
        shapes = [tuple(t.shape) for t in (p, q, v)]
        raise ValueError(f"p and q must be (n, b, k) and v (n, k), got {shapes}")
    return torch.lerp(p, q, v.gather(1, p.argmax(-1))[..., None])


def alignment_loss(
    weak: Float[Tensor, "n b k"], strong: Float[Tensor, "n b k"], weights: Float[Tensor, " n"] | None = None
) -> Float[Tensor, ""]:
    """Cross-entropy of the strong view's semantic label with the weak view's, which has no gradient; the sum over the
    networks (DASO, equation 3). All samples take part, without a threshold.

    weak, strong  ``similarities`` of the two views
    weights       of the networks

    Raises ValueError for shapes that do not fit.
    """
    each = None if weights is None else weights[:, None].expand(strong.shape[:2])
    return cross_entropy(strong, raised(weak).detach().softmax(-1), each)


class BalancedQueue:
    """The last labelled features of each class, equally many for all: (n, k, size, d), for each network of a stack.

    size  features of a class; 256 in the paper, more than a batch has

    A rare class keeps its features for longer, which is why they come from a slowly moving average of the encoder.
    """

    def __init__(self, n: int, classes: int, width: int, size: int, device=None, dtype=torch.float32):
        if min(n, classes, width, size) < 1:
            raise ValueError(f"n, classes, width and size must be at least 1, got {n}, {classes}, {width}, {size}")
        self.rows = torch.zeros(n, classes, size, width, device=device, dtype=dtype)
        self.seen = torch.zeros(n, classes, dtype=torch.int64, device=device)

    @property
    def prototypes(self) -> Float[Tensor, "n k d"]:
        """c_k, the mean of what a class's queue holds; zeros for an empty one."""
        return self.rows.sum(2) / self.seen.clamp(1, self.rows.shape[2])[..., None]

    def push(self, features: Float[Tensor, "..."], labels: Int[Tensor, "n b"]) -> None:
        """Put features in, in the order of the batch; the oldest of their class leave.

        Raises ValueError for a batch larger than a class's queue, and for labels out of range.
        """
        n, k, size, width = self.rows.shape
        if features.shape != (*labels.shape, width) or len(labels) != n or labels.shape[1] > size:
            raise ValueError(f"features must be ({n}, at most {size}, {width}), got {tuple(features.shape)}")
        check_index("labels", labels, k)
        one = nn.functional.one_hot(labels, k)
        place = one.cumsum(1).gather(2, labels[..., None])[..., 0] - 1 + self.seen.gather(1, labels)
        network = torch.arange(n, device=labels.device)[:, None]
        self.rows[network, labels, place % size] = features.detach().to(self.rows.dtype)
        self.seen += one.sum(1)


@dataclass(frozen=True)
class DasoArm:
    """What a network of the comparison does.

    v            share of the semantic label: a number for all classes, or None for ``semantic_shares``
    temperature  of ``semantic_shares``; in the paper 1.5 where labelled and unlabelled images are distributed alike,
                 0.3 where not
    align        weight of the alignment loss; 1 in the paper, which is too much for a short training
    threshold    below it a mixed label is not used; 0.95 in the paper and for FixMatch, where it is best here too
    adjust       times the logarithm of the labelled set's prior, added to the labelled logits (logit adjustment)
    unlabelled   weight of the pseudo-labels; 0 is supervised training
    """

    v: float | None = None
    temperature: float = 1.5
    align: float = 0.1
    threshold: float = 0.7
    adjust: float = 0.0
    unlabelled: float = 1.0


class Daso:
    """The method of a stack whose networks are arms of the comparison: FixMatch, whose weak view's label is mixed.

    arms       one for each network
    priors     (n, k) shares of the classes among each network's labels
    draws      networks i and i + draws see the same labelled images in the same views
    streams    (n,) which of several streams of unlabelled images a network sees; those of one see the same views
    size       of the queues, at least the labelled batch
    start      share of the training after which labels are mixed and aligned; 2 % in the paper
    refresh    steps after which the pseudo-labels are counted anew; 100 of 250,000 in the paper
    decay      of the averaged encoder; 0.999 in the paper
    tau        temperature of the similarities; 0.05 in the paper

    At test the network itself speaks; in the paper its average does.
    """

    def __init__(
        self, arms: Sequence[DasoArm], priors: Float[Tensor, "n k"], draws: int, streams: Int[Tensor, " n"], *,
        size: int = 64, start: float = 0.1, refresh: int = 10, decay: float = 0.98, tau: float = 0.03,
    ):  # fmt: skip
        def column(values) -> Tensor:
            return torch.tensor([float(v) for v in values], device=priors.device)[:, None]

        self.fixed = column(-1 if a.v is None else a.v for a in arms)
        self.temperature = column(a.temperature for a in arms)
        self.align, self.used = (column(getattr(a, name) for a in arms) for name in ("align", "unlabelled"))
        self.offset = column(a.adjust for a in arms) * priors.clamp_min(1e-12).log()
        self.draws, self.streams = draws, streams
        self.first = torch.stack([(streams == s).nonzero()[0, 0] for s in range(int(streams.max()) + 1)])
        self.threshold = column(a.threshold for a in arms)
        self.size, self.start, self.refresh, self.decay, self.tau = size, start, refresh, decay, tau
        self.counts, self.counting = torch.zeros_like(priors), torch.zeros_like(priors)
        self.queue = self.average = None

    def shares(self) -> Float[Tensor, "n k"]:
        """Each class's share of the semantic label at present."""
        return torch.where(self.fixed >= 0, self.fixed, semantic_shares(self.counts, self.temperature))

    @torch.no_grad()
    def follow(self, net: nn.Module) -> None:
        """The averaged encoder moves towards the network; what it has of running statistics is taken over."""
        if self.average is None:
            self.average = copy.deepcopy(net).requires_grad_(False).eval()
        torch._foreach_lerp_(list(self.average.parameters()), list(net.parameters()), 1 - self.decay)
        for mine, its in zip(self.average.buffers(), net.buffers(), strict=True):
            mine.copy_(its)

    @torch.no_grad()
    def remember(self, net: nn.Module, x: Float[Tensor, "n b d"], y: Int[Tensor, "n b"]) -> None:
        """Labelled features of the averaged encoder go into the queues."""
        self.follow(net)
        features = self.average.features(x)
        if self.queue is None:
            n, k = self.counts.shape
            self.queue = BalancedQueue(n, k, features.shape[-1], self.size, features.device, features.dtype)
        self.queue.push(features, y)

    @torch.no_grad()
    def count(self, label: Int[Tensor, "n b"], step: int) -> None:
        """Count the pseudo-labels of this step, and publish the histogram when ``refresh`` steps are over."""
        self.counting += nn.functional.one_hot(label, self.counts.shape[1]).sum(1)
        if (step + 1) % self.refresh == 0:
            self.counts, self.counting = self.counting, torch.zeros_like(self.counting)

    def __call__(self, net: nn.Module, batch: Batch) -> Float[Tensor, ""]:
        stage, g, arms = batch.stage, batch.g, len(self.fixed) // self.draws
        x, y = stage.both(batch.x[: self.draws], g).repeat(arms, 1, 1), batch.y[: self.draws].repeat(arms, 1)
        u = batch.u[self.first]
        weak, strong = stage.weak(u, g)[self.streams], stage.strong(u, g)[self.streams]
        self.remember(net, x, y)
        sizes = [x.shape[1], weak.shape[1], strong.shape[1]]
        features = net.features(torch.cat([x, weak, strong], 1))
        known, one, two = net.head(features).split(sizes, 1)
        loss = cross_entropy(known + self.offset[:, None], y)
        p = one.detach().softmax(-1)
        if batch.progress >= self.start:
            _, near, far = similarities(features, self.queue.prototypes, self.tau).split(sizes, 1)
            p = blended(p, near.detach().softmax(-1), self.shares())
            loss = loss + alignment_loss(near, far, (self.align * self.used)[:, 0])
        confidence, label = p.max(-1)
        self.count(label, batch.step)
        return loss + cross_entropy(two, label, (confidence >= self.threshold) * self.used)
