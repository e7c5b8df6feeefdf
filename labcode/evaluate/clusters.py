"""Clusterings against known classes."""

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor


def _pair(predicted, labels) -> tuple[Tensor, Tensor]:
    out = []
    for name, value in (("predicted", predicted), ("labels", labels)):
        value = torch.as_tensor(value)
        if value.ndim != 1 or value.is_floating_point() or value.is_complex():
            raise ValueError(f"{name} must be one integer per sample (n,), got {value.dtype} {tuple(value.shape)}")
        out.append(value.cpu())
    if len(out[0]) != len(out[1]):
        raise ValueError(f"predicted and labels must be of one length, got {len(out[0])} and {len(out[1])}")
    if not len(out[0]):
        raise ValueError("predicted is empty: there is nothing to measure")
    return out[0], out[1]


def contingency(predicted: Int[Tensor, " n"], labels: Int[Tensor, " n"]) -> Int[Tensor, "clusters classes"]:
    """How many samples of each class lie in each cluster; names of clusters and classes may be any integers.

    A sparse tensor, coalesced: at most n entries, however many clusters and classes there are.
    """
    predicted, labels = _pair(predicted, labels)
    clusters, row = predicted.unique(return_inverse=True)
    classes, column = labels.unique(return_inverse=True)
    ones, shape = torch.ones(len(row), dtype=torch.int64), (len(clusters), len(classes))
    return torch.sparse_coo_tensor(torch.stack([row, column]), ones, shape, check_invariants=False).coalesce()


def clustering_accuracy(predicted: Int[Tensor, " n"], labels: Int[Tensor, " n"]) -> float:
    """Share of samples in the right cluster under the best one-to-one matching of clusters and classes.

    The Hungarian accuracy of deep clustering (DEC, eq. 10). With more clusters than classes the surplus clusters
    count as wrong. In [0, 1]. Only pairs that occur are looked at: thousands of clusters and classes need no table.

    Raises ValueError for empty, unequal or non-integer inputs.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import min_weight_full_bipartite_matching

    counts = contingency(predicted, labels)
    (row, column), number, (clusters, classes) = counts.indices().numpy(), counts.values().numpy(), counts.shape
    # A cluster may also stay alone, with a class of its own that holds nothing: then a full matching exists. As every
    # cluster is in one pair, 1 more for each pair changes nothing, and no weight is 0, which SciPy takes for no pair.
    alone = np.arange(clusters)
    weight = np.concatenate([number + 1, np.ones(clusters)])
    where = np.concatenate([row, alone]), np.concatenate([column, classes + alone])
    graph = coo_array((weight, where), shape=(clusters, classes + clusters)).tocsr()
    pairs = min_weight_full_bipartite_matching(graph, maximize=True)
    return float((graph[pairs] - 1).sum() / number.sum())


def nmi(predicted: Int[Tensor, " n"], labels: Int[Tensor, " n"]) -> float:
    """Mutual information of clusters and classes over the arithmetic mean of their entropies. In [0, 1]."""
    from sklearn.metrics import normalized_mutual_info_score

    predicted, labels = _pair(predicted, labels)
    return float(normalized_mutual_info_score(labels.numpy(), predicted.numpy()))


def ari(predicted: Int[Tensor, " n"], labels: Int[Tensor, " n"]) -> float:
    """Adjusted Rand index: agreement on pairs of samples, 0 in expectation by chance and 1 when perfect."""
    from sklearn.metrics import adjusted_rand_score

    predicted, labels = _pair(predicted, labels)
    return float(adjusted_rand_score(labels.numpy(), predicted.numpy()))
