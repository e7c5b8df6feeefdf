"""SCAN (Van Gansbeke et al., 2020): features first, then neighbours that agree, then confident labels of its own.

Three stages: a self-supervised encoder; a softmax head on which an image and one of its nearest neighbours agree while
all clusters are used; cross entropy of a strongly augmented view on the confident answers to a weak one.
"""

import copy
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from ...augment import to_float
from ...evaluate.clusters import contingency
from ...loss import check_matrix, check_positive, float32, unit_rows
from ...train import allowed
from .heads import Heads, draw_views


@torch.no_grad()
def mine_neighbours(z: Float[Tensor, "n d"], k: int = 20, chunk: int = 2048) -> Int[Tensor, "n k"]:
    """The k nearest other rows by cosine, the nearest first. SCAN, section 2.1; 20 for CIFAR-10, 50 for ImageNet.

    chunk  rows a time: memory is chunk × n

    Departure: the released code keeps the image itself in its list, where agreement costs nothing; here it is left out.
    Raises ValueError for k outside 1 … n - 1.
    """
    check_matrix("z", z, rows=2)
    if not 1 <= k < len(z):
        raise ValueError(f"k must be between 1 and the {len(z) - 1} other rows, got {k}")
    z, found = unit_rows(z), []
    for first in range(0, len(z), chunk):
        similar = z[first : first + chunk] @ z.T
        itself = torch.arange(first, first + len(similar), device=z.device)
        found.append(similar.scatter_(1, itself[:, None], -2.0).topk(k).indices)
    return torch.cat(found)


def neighbour_purity(neighbours: Int[Tensor, "n k"], labels: Int[Tensor, " n"]) -> float:
    """Share of the mined neighbours that are of their image's class; in [0, 1]."""
    return float((labels[neighbours] == labels[:, None]).float().mean())


def true_neighbours(labels: Int[Tensor, " n"], k: int = 20, *, generator: Generator) -> Int[Tensor, "n k"]:
    """k random rows of each row's own class, drawn with return: what mined neighbours would be without a mistake."""
    found = torch.empty(len(labels), k, dtype=torch.int64, device=labels.device)
    for label in labels.unique():
        rows = (labels == label).nonzero()[:, 0]
        found[rows] = rows[torch.randint(len(rows), (len(rows), k), generator=generator, device=rows.device)]
    return found


@float32
def scan_loss(anchor: Float[Tensor, "n c"], neighbour: Float[Tensor, "n c"], entropy: float = 5.0) -> Float[Tensor, ""]:
    """An image and its neighbour get the same cluster, and all clusters are used: SCAN, eq. 2.

    -mean log ⟨p(x), p(k)⟩ - λ H(mean p(x)), p the softmax of the logits, H the entropy over clusters.

    anchor, neighbour  logits of an image and of one neighbour, row by row; gradients flow through both
    entropy            λ >= 0; 5 in the paper. At 0 one cluster for all is a minimum

    At least -λ log c. Departure from the released code: it clamps probabilities at 1e-8 and the dot product's logarithm
    at -100; here both stay in the logarithm. Raises ValueError for unequal shapes and for λ < 0.
    """
    check_matrix("anchor", anchor)
    check_matrix("neighbour", neighbour, like=anchor)
    if not 0 <= entropy < math.inf:
        raise ValueError(f"entropy must be at least 0, got {entropy}")
    return _agreement(anchor, neighbour, entropy)


def _agreement(anchor: Float[Tensor, "*arms n c"], neighbour: Float[Tensor, "*arms n c"], entropy) -> Tensor:
    log_p, log_q = anchor.log_softmax(-1), neighbour.log_softmax(-1)
    agree = (log_p + log_q).logsumexp(-1)
    used = log_p.logsumexp(-2) - math.log(anchor.shape[-2])  # log of the mean over the batch
    return -agree.mean(-1) + entropy * (used.exp() * used).sum(-1)


@float32
def self_label_loss(
    weak: Float[Tensor, "n c"], strong: Float[Tensor, "n c"], threshold: float = 0.99
) -> Float[Tensor, ""]:
    """Cross entropy of the strong view on the weak view's answer, where that is confident: SCAN, section 2.3.

    weak, strong  logits of a weakly and a strongly augmented view, row by row; no gradient flows through ``weak``
    threshold     in [0, 1); 0.99 in the paper

    Every cluster that has confident rows weighs the same. Departure: with no confident row the released code raises,
    here the loss is 0. Raises ValueError for unequal shapes and a threshold outside.
    """
    check_matrix("weak", weak)
    check_matrix("strong", strong, like=weak)
    if not 0 <= threshold < 1:
        raise ValueError(f"threshold must be in [0, 1), got {threshold}")
    return _confident(weak, strong, threshold)


def _confident(weak: Float[Tensor, "*arms n c"], strong: Float[Tensor, "*arms n c"], threshold) -> Tensor:
    sure, label = weak.detach().softmax(-1).max(-1)
    chosen = F.one_hot(label, weak.shape[-1]) * (sure > threshold)[..., None].to(strong.dtype)
    weight = chosen / chosen.sum(-2, keepdim=True).clamp_min(1)  # each cluster with confident rows has 1 in all
    return -(weight * strong.log_softmax(-1)).sum((-1, -2)) / weight.sum((-1, -2)).clamp_min(1e-30)


def majority_accuracy(clusters: Int[Tensor, " n"], labels: Int[Tensor, " n"]) -> float:
    """Accuracy where each cluster is named by its commonest class, many to one: for more clusters than classes."""
    counts = contingency(clusters, labels).to_dense()
    return float(counts.amax(1).sum() / counts.sum())


def confusion(clusters: Int[Tensor, " n"], labels: Int[Tensor, " n"], k: int) -> Float[Tensor, "k k"]:
    """Which clusters each class lies in, clusters in the order of the classes they are matched to; rows sum to 1."""
    from scipy.optimize import linear_sum_assignment

    counts = torch.zeros(k * k).index_add_(0, (labels * k + clusters).cpu(), torch.ones(len(labels))).view(k, k)
    _, order = linear_sum_assignment(-counts.numpy())
    return counts[:, torch.as_tensor(order)] / counts.sum(1, keepdim=True).clamp_min(1)


class SCAN(nn.Module):
    """An encoder with a softmax over clusters: ``forward`` is stage two, ``self_label`` stage three.

    clusters   how many; the paper takes the number of classes
    entropy    λ of ``scan_loss``
    threshold  of ``self_label_loss``
    """

    def __init__(self, encoder: nn.Module, clusters: int = 10, entropy: float = 5.0, threshold: float = 0.99):
        super().__init__()
        check_positive(clusters=clusters)
        self.encoder, self.head = encoder, nn.Linear(encoder.features, clusters)
        self.entropy, self.threshold = entropy, threshold

    def forward(self, images: Float[Tensor, "two_n *image"]) -> Float[Tensor, ""]:
        """Stage two, of images and a neighbour of each, stacked: row i + n is the neighbour of row i."""
        return scan_loss(*self.head(self.encoder(images)).chunk(2), self.entropy)

    def self_label(self, weak: Float[Tensor, "n *image"], strong: Float[Tensor, "n *image"]) -> Float[Tensor, ""]:
        """Stage three, of a weak and a strong view of the same images, in one forward."""
        return self_label_loss(*self.head(self.encoder(torch.cat([weak, strong]))).chunk(2), self.threshold)

    def clusters(self, images: Float[Tensor, "n *image"]) -> Float[Tensor, "n c"]:
        """Logits of the clusters."""
        return self.head(self.encoder(images))


def train_scan(
    model: SCAN, images: Tensor, table: Int[Tensor, "n _"], views: Callable, *, generator: Generator, steps: int = 200,
    batch_size: int = 128, last: float = 0.25, lr: float = 1e-3,
) -> SCAN:  # fmt: skip
    """Stages two and three with the whole network, as the paper trains; in evaluation mode afterwards.

    model   its encoder as stage one left it
    table   (n, ·) mined neighbours of the n images
    views   images, generator=, views=1 -> strong views; the weak view of stage three is the image itself
    last    share of the steps that stage three gets
    """
    optimiser, steps = torch.optim.Adam(model.train().parameters(), lr), allowed(steps, True)
    for step in range(steps):
        index = torch.randint(len(images), (batch_size,), generator=generator, device=images.device)
        if step < steps - round(last * steps):
            which = torch.randint(table.shape[1], (batch_size,), generator=generator, device=images.device)
            both = torch.cat([index, table[index, which]])
            loss = model(views(images[both], generator=generator, views=1))
        else:
            loss = model.self_label(to_float(images[index]), views(images[index], generator=generator, views=1))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model.eval()


def scan_heads(
    x: Float[Tensor, "n d"], k: int, tables: list[Int[Tensor, "n _"]], *, generator: Generator, entropy=5.0,
    threshold=0.95, views: Float[Tensor, "v n d"] | None = None, steps: int = 200, batch_size: int = 256,
    last: float = 0.25, lr: float = 3e-3, hidden: int = 128,
) -> tuple[Heads, Heads]:  # fmt: skip
    """SCAN's stages two and three for heads on frozen features, one arm for each table of neighbours.

    Returns the heads after stage two and those after stage three.

    tables              (n, ·) neighbours; arms see the same batches and views, and start from the same head
    entropy, threshold  of ``scan_loss`` and ``self_label_loss``: a number, or one an arm; the paper's threshold is 0.99
    views               stored views of each row; an image and its neighbour are shown in different ones
    last                share of the steps that stage three gets; 0 leaves it out

    Departure: the encoder stays as stage one left it and a hidden layer learns; the paper trains the whole network
    under a linear head, as ``train_scan`` does.
    """
    arms, (n, d), steps = len(tables), x.shape, allowed(steps, True)
    heads = Heads(arms, d, hidden, k, generator=generator)
    entropy, threshold = (torch.as_tensor(t, dtype=x.dtype, device=x.device) for t in (entropy, threshold))
    threshold, turn = threshold.expand(arms)[:, None], steps - round(last * steps)
    optimiser, second = torch.optim.Adam(heads.parameters(), lr), None
    for step in range(steps):
        if step == turn:
            second = copy.deepcopy(heads)
        index = torch.randint(n, (batch_size,), generator=generator, device=x.device)
        seen = draw_views(x, views, index, 1, generator=generator)[0].expand(arms, -1, -1)
        if step < turn:
            draw = torch.rand(batch_size, generator=generator, device=x.device)
            other = torch.stack([t[index, (draw * t.shape[1]).long()] for t in tables])
            rows = draw_views(x, views, other.flatten(), 1, generator=generator)[0].view(arms, batch_size, d)
            loss = _agreement(*heads(torch.cat([seen, rows], 1)).chunk(2, 1), entropy)
        else:
            weak = x[index].expand(arms, -1, -1)
            loss = _confident(*heads(torch.cat([weak, seen], 1)).chunk(2, 1), threshold)
        optimiser.zero_grad()
        loss.sum().backward()
        optimiser.step()
    return (heads if second is None else second).settle(x), heads.settle(x)


@torch.no_grad()
def scan_clusters(
    x: Float[Tensor, "n d"], k: int, *, generator: Generator, views: Float[Tensor, "v n d"] | None = None,
    steps: int = 200, batch_size: int = 256, neighbours: int = 20, entropy: float = 5.0, threshold: float = 0.95,
) -> Int[Tensor, " n"]:  # fmt: skip
    """SCAN with a head on frozen features: the cluster of every row. See ``scan_heads``."""
    table, options = mine_neighbours(x, neighbours), dict(entropy=entropy, threshold=threshold, views=views)
    with torch.enable_grad():
        _, heads = scan_heads(x, k, [table], generator=generator, steps=steps, batch_size=batch_size, **options)
    return heads(x)[0].argmax(1)
