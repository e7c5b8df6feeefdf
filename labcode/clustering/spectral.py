"""Spectral embedding and clustering of a graph that is given by its affinities."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..cluster import kmeans
from ..loss import check_matrix, raised, unit_rows

Affinity = Float[Tensor, "n n"]


@torch.no_grad()
def spectral_vectors(affinity: Affinity, k: int) -> Float[Tensor, "n k"]:
    """The k top eigenvectors of D^-½ W D^-½, largest eigenvalue first: Ng, Jordan and Weiss (2002), before k-means.

    affinity  W >= 0 (n, n); its symmetric part is used. A sample without any neighbour stands alone

    Raises ValueError for an affinity that is not square, and for k outside 1 … n.
    """
    check_matrix("affinity", affinity)
    if affinity.shape[0] != affinity.shape[1]:
        raise ValueError(f"affinity must be square, got shape {tuple(affinity.shape)}")
    if not 1 <= k <= len(affinity):
        raise ValueError(f"k must be between 1 and the {len(affinity)} rows of affinity, got {k}")
    w = raised(affinity)
    w = (w + w.T) / 2
    root = w.sum(1).clamp_min(1e-12).rsqrt()
    w = root[:, None] * w * root
    if k > len(w) // 8 or w.device.type != "cpu":
        return torch.linalg.eigh(w).eigenvectors[:, -k:].flip(1)
    from scipy.sparse.linalg import eigsh  # some vectors of many: a tenth of the time

    start = torch.ones(len(w), dtype=w.dtype).numpy()
    return torch.from_numpy(eigsh(w.numpy(), k, which="LA", v0=start)[1].copy()).flip(1)


def spectral(affinity: Affinity, k: int, seed: int = 0) -> Int[Tensor, " n"]:
    """Spectral clustering of an affinity: k-means on the rows, of length 1, of ``spectral_vectors``."""
    return kmeans(unit_rows(spectral_vectors(affinity, k)), k, seed)[1]
