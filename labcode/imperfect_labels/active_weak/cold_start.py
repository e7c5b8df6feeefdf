"""The first choice without any label: contrastive training, its data map, and hard rows from every cluster."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...cluster import kmeans
from ...loss import unit_rows
from ...nets import evaluating
from ...train import fit
from .acquisition import Acquire, check_pool


def instance_probability(z: Float[Tensor, "m d"], tau: float = 0.1) -> Float[Tensor, " m"]:
    """The softmax probability of each row's partner among all other rows of the batch.

    Making Your First Choice, eq. 1: p = exp(z·z⁺/τ) / Σ exp(z·z'/τ) over the positive and 2n - 2 negatives. Rows i and
    i + n are two views of an image; they are normalised here. Its mean logarithm, with the sign changed, is NT-Xent.

    The released code divides the logits in place by 0.2, 0.1, 0.05, 0.01 in turn, so that the file named 0.05 holds
    probabilities at 0.001; here one temperature is used, that of the training.

    Raises ValueError for an odd number of rows, n < 2 or tau <= 0.
    """
    return _log_probability(z, tau).exp()


def _log_probability(z: Tensor, tau: float) -> Tensor:
    if len(z) % 2 or len(z) < 4 or tau <= 0:
        raise ValueError(f"z must have an even number of rows, at least 4, and tau be positive, got {len(z)} and {tau}")
    z = unit_rows(z)
    logits = (z @ z.T / tau).fill_diagonal_(-torch.inf)
    partner = torch.arange(len(z), device=z.device).roll(len(z) // 2)
    return logits.log_softmax(1).gather(1, partner[:, None])[:, 0]


@dataclass(frozen=True)
class Contrasted:
    """What contrastive training leaves: features (n, d) of the pool, an encoder, and the log of every epoch."""

    features: Float[Tensor, "n d"]
    encoder: nn.Module
    log: Float[Tensor, "epochs n"]  # the mean of both views' instance probability in each epoch


def contrast(
    images: Tensor, encoder: nn.Module, width: int, views, *, epochs: int, batch_size: int = 256, tau: float = 0.1,
    lr: float = 3e-3, seed: int = 0, **fit_options,
) -> Contrasted:  # fmt: skip
    """Train an encoder with a head of two layers on pairs of views, and log p of each image in each epoch.

    views  (images (b, …), generator) -> (2b, …), rows i and i + b of the same image
    width  of the encoder's output
    epochs at least 1; each sees every image once, but for the rest that does not fill a batch

    The paper trains MoCo v2 with a queue; here negatives come from the batch, as its equation has it. Probabilities
    are logged as they arise in training, with the weights of that step, as in the released code. A training that
    is stretched (long runs) or cut (dry runs) logs as many epochs as it has, the last one filled from the one before.
    """
    device = images.device
    torch.manual_seed(seed)
    head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 64)).to(device)
    model = nn.ModuleDict({"encoder": encoder, "head": head})
    generator = torch.Generator(device).manual_seed(seed)
    size = min(batch_size, len(images))
    per_epoch = max(1, len(images) // size)
    sums, counts, done = [], [], 0

    def batches(step: int) -> Tensor:
        at = step % per_epoch
        if at == 0:
            batches.order = torch.randperm(len(images), generator=generator, device=device)
        return batches.order[at * size : (at + 1) * size]

    def step(index: Tensor) -> dict[str, Tensor]:
        nonlocal done
        with torch.no_grad():
            seen = views(images[index], generator=generator)
        log_p = _log_probability(head(encoder(seen)).float(), tau)
        if done % per_epoch == 0:
            sums.append(torch.zeros(len(images), device=device))
            counts.append(torch.zeros(len(images), device=device))
        done += 1
        sums[-1].index_add_(0, index, log_p.detach().exp().view(2, -1).mean(0))
        counts[-1].index_add_(0, index, torch.ones(len(index), device=device))
        return {"loss": -log_p.mean()}

    fit(model, step, batches, steps=epochs * per_epoch, lr=lr, optimizer="adamw", weight_decay=1e-4,
        generators=[generator], label=f"contrast, seed {seed}", **fit_options)  # fmt: skip
    log = torch.stack(sums) / torch.stack(counts).clamp(min=1)
    missed = torch.stack(counts) == 0
    mean = log.sum(0) / (~missed).sum(0).clamp(min=1)
    return Contrasted(encode(encoder, images), encoder, torch.where(missed, mean, log))


def encode(encoder: nn.Module, images: Tensor, chunk: int = 2000) -> Float[Tensor, "n d"]:
    """Features of images in evaluation mode, of length 1."""
    with evaluating(encoder):
        return unit_rows(torch.cat([encoder(_unit(part)).float() for part in images.split(chunk)]))


def _unit(images: Tensor) -> Tensor:
    return images.float() / 255 if images.dtype == torch.uint8 else images


def data_map(log: Float[Tensor, "epochs n"]) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Confidence and variability of every row: mean and standard deviation over epochs.

    Making Your First Choice, section 3, after dataset cartography (Swayamdipta et al. 2020). With the instance
    probability no label is needed; with the probability of the true class it is the map of the labelled data.

    Raises ValueError for anything but (epochs, n) with an epoch or more.
    """
    if log.ndim != 2 or not log.numel():
        raise ValueError(f"log must be (epochs, n), not empty, got {tuple(log.shape)}")
    return log.mean(0), log.std(0, correction=0)


def first_choice(log: Float[Tensor, "epochs n"], order: str = "hard", clusters: int = 30) -> Acquire:
    """The paper's query as a strategy: in turn from each cluster, by the data map.

    order     "hard": lowest confidence, which the paper takes for typical; "easy": highest; "ambiguous": largest
              variability; "random"
    clusters  of k-means on the features, the paper's K = 30; 1 leaves the clusters out

    Clusters are visited in one shuffled order, round after round, whatever their size: a rare class that has a cluster
    gets as many labels as a common one. The paper clusters a map of two dimensions by UMAP; here the features.

    Raises ValueError for an unknown order and clusters < 1.
    """
    if order not in ("hard", "easy", "ambiguous", "random") or clusters < 1:
        raise ValueError(f"order must be hard, easy, ambiguous or random and clusters >= 1, got {order!r}, {clusters}")
    confidence, variability = data_map(log)
    scores = {"hard": -confidence, "easy": confidence, "ambiguous": variability}

    def acquire(features, probabilities, labelled, budget, *, generator) -> Int[Tensor, " budget"]:
        """Round-robin over clusters."""
        free = check_pool(features, probabilities, labelled, budget)
        k = min(clusters, len(features))
        draw = lambda n: torch.rand(n, generator=generator, device=features.device)  # noqa: E731
        first = int(draw(1) * 2**24)
        which = kmeans(features, k, first)[1] if k > 1 else torch.zeros_like(free, dtype=torch.int64)
        score = scores[order] if order != "random" else draw(len(features))
        turn = draw(k).argsort().argsort()  # of each cluster in the shuffled order
        within = _ranks(which, score.masked_fill(~free, -torch.inf), k)
        place = (within * k + turn[which]).masked_fill(~free, torch.iinfo(torch.int64).max)
        return place.argsort()[:budget]

    return acquire


def _ranks(which: Int[Tensor, " n"], score: Float[Tensor, " n"], k: int) -> Int[Tensor, " n"]:
    """The rank of each row within its cluster, 0 for the largest score."""
    order = score.argsort(descending=True, stable=True)
    order = order[which[order].argsort(stable=True)]  # by cluster, and within it by score
    start = torch.bincount(which, minlength=k).cumsum(0) - torch.bincount(which, minlength=k)
    rank = torch.empty_like(which)
    rank[order] = torch.arange(len(which), device=which.device) - start[which[order]]
    return rank


def covered(labels: Int[Tensor, " n"], chosen: Int[Tensor, "r m"], classes: int = 10) -> Float[Tensor, " r"]:
    """How many classes have a label, for each draw."""
    return F.one_hot(labels[chosen], classes).amax(1).sum(1).double()


def label_map(
    features: Float[Tensor, "n d"], labels: Int[Tensor, " n"], classes: int = 10, epochs: int = 15, lr: float = 0.5
) -> Float[Tensor, "epochs n"]:
    """The log of a *labelled* data map: the true class's probability over the steps of a logistic regression.

    What cartography asks for and an unlabelled pool cannot give; the paper compares its own map with it.
    """
    target, log = F.one_hot(labels, classes).to(features.dtype), []
    w = features.new_zeros(features.shape[1], classes)
    for _ in range(epochs):
        p = torch.softmax(features @ w, 1)
        log.append(p.gather(1, labels[:, None])[:, 0])
        w = w + lr * features.T @ (target - p) / len(features) * features.shape[1]
    return torch.stack(log)
