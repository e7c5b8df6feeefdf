"""Measures of a partition, against classes and of its own sizes, and the long tail that some of them are taken on."""

import torch
from jaxtyping import Int
from torch import Generator, Tensor

from ..evaluate import ari, clustering_accuracy, nmi
from ..loss import check_index

Labels = Int[Tensor, " n"]


def sizes(clusters: Labels, k: int) -> Int[Tensor, " k"]:
    """How many samples each of k clusters holds, on their device, without a look at the data."""
    return torch.zeros(k, dtype=torch.int64, device=clusters.device).index_add_(0, clusters, torch.ones_like(clusters))


def size_entropy(clusters: Labels, k: int) -> float:
    """Entropy of the cluster sizes over log k: 1 for k even clusters, 0 where all samples lie in one.

    clusters  0 … k - 1; k >= 2

    Raises ValueError for labels out of range, none, and k < 2.
    """
    check_index("clusters", clusters, k)
    if k < 2 or not len(clusters):
        raise ValueError(f"clusters must be one sample at least and k 2 at least, got {len(clusters)} and {k}")
    share = sizes(clusters, k).double() / len(clusters)
    return float(torch.special.entr(share).sum() / torch.tensor(float(k)).log())


def measures(clusters: Labels, labels: Labels, k: int) -> dict[str, float]:
    """What is said of a clustering: how well it fits the classes, and whether it has collapsed.

    clusters  0 … k - 1 for each sample
    labels    the known classes, which no method has seen

    "ACC" (Hungarian matching), "NMI" and "ARI" as in ``labcode.evaluate``; "empty" is the share of the k clusters that
    hold nothing, "entropy" that of the sizes over log k.
    """
    clusters, labels = clusters.cpu(), labels.cpu()
    return {
        "ACC": clustering_accuracy(clusters, labels),
        "NMI": nmi(clusters, labels),
        "ARI": ari(clusters, labels),
        "empty": float((sizes(clusters, k) == 0).double().mean()),
        "entropy": size_entropy(clusters, k),
    }


def long_tailed(labels: Labels, ratio: float, *, generator: Generator) -> Int[Tensor, " m"]:
    """Places of a long-tailed part of the samples: class c of K keeps its largest number times ratio^(-c / (K - 1)).

    labels  0 … K - 1, about as many of each
    ratio   of the largest to the smallest class, >= 1; CIFAR-100-LT has 100

    In random order. Raises ValueError for a ratio below 1.
    """
    if not ratio >= 1:
        raise ValueError(f"ratio must be at least 1, got {ratio}")
    k = int(labels.max()) + 1
    order = torch.randperm(len(labels), generator=generator, device=labels.device)
    most = int(sizes(labels, k).min())
    keep = [max(1, round(most * ratio ** (-c / max(1, k - 1)))) for c in range(k)]
    parts = [order[labels[order] == c][: keep[c]] for c in range(k)]
    kept = torch.cat(parts)
    return kept[torch.randperm(len(kept), generator=generator, device=labels.device)]
