"""What several experiments share: averages over draws, rank correlation, spectral clustering, agreement of samples."""

import warnings

import torch
from torch import Tensor

from ....evaluate.clusters import ari, clustering_accuracy


def spearman(a, b) -> float:
    """Spearman's rank correlation; 0 where one of the two is constant."""
    from scipy.stats import spearmanr

    a, b = [float(v) for v in a], [float(v) for v in b]
    return float(spearmanr(a, b)[0]) if len(set(a)) > 1 and len(set(b)) > 1 else 0.0


def averaged(measure, seed: int, draws_of: int) -> dict:
    """The mean of a measurement over several draws of the data, each with a seed of its own; dicts may be nested."""

    def mean(values):
        if isinstance(values[0], dict):
            return {name: mean([one[name] for one in values]) for name in values[0]}
        return sum(values) / len(values)

    return mean([measure(1000 * (i + 1) + seed if i else seed) for i in range(draws_of)])


def mistakes(labels: Tensor, y: Tensor) -> float:
    """Share of rows in the wrong cluster under the best matching."""
    return 1 - clustering_accuracy(labels, y)


def spectral(x: Tensor, k: int, seed: int, neighbours: int = 10) -> Tensor:
    """Spectral clustering on a kNN graph, by scikit-learn."""
    from sklearn.cluster import SpectralClustering

    model = SpectralClustering(k, affinity="nearest_neighbors", n_neighbors=neighbours, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a graph that is not connected
        return torch.from_numpy(model.fit_predict(x.double().numpy())).long()


def silhouettes(x: Tensor, labels: Tensor) -> list[float]:
    """Mean silhouette of each of r partitions (r, n) of the rows (n, d); -1 for a single cluster."""
    distance = torch.cdist(x.double(), x.double(), compute_mode="donot_use_mm_for_euclid_dist")
    member = torch.nn.functional.one_hot(labels).double()  # (r, n, k)
    count = member.sum(1, keepdim=True)
    sums = distance @ member
    own, size = (sums * member).sum(2), (count * member).sum(2)
    other = torch.where((member > 0) | (count == 0), torch.inf, sums / count).amin(2)
    inside = own / (size - 1).clamp(min=1)
    value = torch.where(size > 1, (other - inside) / torch.maximum(other, inside), 0.0).mean(1)
    return torch.where((count > 0).sum((1, 2)) > 1, value, -1.0).tolist()


def shared(rows: list[Tensor], labels: list[Tensor], keep: list[Tensor]) -> float:
    """Adjusted Rand index of partitions of overlapping samples on the rows that both keep, mean of the pairs."""
    names = [dict(zip(r[k].tolist(), y[k].tolist(), strict=True)) for r, y, k in zip(rows, labels, keep, strict=True)]
    found = []
    for i, one in enumerate(names):
        for two in names[:i]:
            both = sorted(one.keys() & two.keys())
            found.append(
                ari(torch.tensor([one[r] for r in both]), torch.tensor([two[r] for r in both])) if both else 0.0
            )
    return sum(found) / len(found)
