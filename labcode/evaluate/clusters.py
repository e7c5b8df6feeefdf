"""Clusterings against known classes."""

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
    """How many samples of each class lie in each cluster; names of clusters and classes may be any integers."""
    predicted, labels = _pair(predicted, labels)
    clusters, row = predicted.unique(return_inverse=True)
    classes, column = labels.unique(return_inverse=True)
    counts = torch.bincount(row * len(classes) + column, minlength=len(clusters) * len(classes))
    return counts.view(len(clusters), len(classes))


def clustering_accuracy(predicted: Int[Tensor, " n"], labels: Int[Tensor, " n"]) -> float:
    """Share of samples in the right cluster under the best one-to-one matching of clusters and classes.

    The Hungarian accuracy of deep clustering (DEC, eq. 10). With more clusters than classes the surplus clusters
    count as wrong. In [0, 1].

    Raises ValueError for empty, unequal or non-integer inputs.
    """
    from scipy.optimize import linear_sum_assignment

    counts = contingency(predicted, labels).numpy()
    rows, columns = linear_sum_assignment(counts, maximize=True)
    return float(counts[rows, columns].sum() / counts.sum())


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
