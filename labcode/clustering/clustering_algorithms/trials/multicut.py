"""Experiments of ClusterFuG: five solvers on one complete graph, and rivals that are told the number of clusters."""

import time

import torch

from ....evaluate.clusters import ari
from ...many_kmeans import many_kmeans
from ..multicut import dense_gaec, explicit_gaec, lazy_gaec, multicut_value, pair_costs, sparse_gaec
from ..tables import digit_rows, draws
from .common import spectral

SOLVERS = ("explicit GAEC", "DGAEC", "DGAECInc", "DLAEC", "sparse GAEC")


def cuts(
    n: int, alpha: float, seed: int, split: tuple, classes: int = 10, neighbours: int = 5, solvers: tuple = SOLVERS
) -> dict[str, dict]:
    """Solvers on the complete graph of digits: objective against all-cut, lower is better; ARI, clusters, work."""
    f, y = digit_rows(n, seed, split, 24, classes, unit=True)
    solve = {
        "explicit GAEC": lambda: explicit_gaec(pair_costs(f, alpha)),
        "DGAEC": lambda: dense_gaec(f, alpha),
        "DGAECInc": lambda: dense_gaec(f, alpha, neighbours),
        "DLAEC": lambda: lazy_gaec(f, alpha, neighbours),
        "sparse GAEC": lambda: sparse_gaec(f, alpha, neighbours),
    }
    found, all_cut = {}, multicut_value(f, torch.arange(n), alpha)
    for name in solvers:
        begun = time.process_time()
        cut = solve[name]()
        seconds = time.process_time() - begun
        value = (multicut_value(f, cut.labels, alpha) - all_cut) / n
        found[name] = {
            "value": value,
            "ARI": ari(cut.labels, y),
            "clusters": cut.clusters,
            "seconds": seconds,
            "looked": cut.looked / n,
            "held": cut.held / n,
        }
    return found


def given_k(n: int, seed: int, split: tuple) -> dict[str, float]:
    """ARI of k-means and spectral clustering on the same rows, told the number of classes."""
    f, y = digit_rows(n, seed, split, 24, unit=True)
    plain = many_kmeans(f, 10, restarts=10, generator=draws(21, seed))
    return {"k-means, k told": ari(plain.labels[plain.best], y), "spectral, k told": ari(spectral(f, 10, seed), y)}
