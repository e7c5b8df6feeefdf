"""The experiment of MNIST-Nd: six clusterers on the data set of one dimension."""

import torch
from torch import Tensor

from ....evaluate.clusters import ari
from ...gaussian_mixture import gaussian_mixture
from ...many_kmeans import many_kmeans
from ..laundering import agglomerate
from ..leiden import leiden, neighbour_graph
from ..mnist_nd import encode_digits
from ..tables import draws
from .common import shared


def encoded(
    train: Tensor, test: Tensor, y: Tensor, d: int, seed: int, steps: int, beta: float, clusterers: bool = True
) -> dict:
    """One data set, and on it: ARI, agreement of two runs and of two samples, for six clusterers; kNN accuracy."""
    from ....evaluate.representation import knn

    z = encode_digits(train, test, d, beta, steps=steps, seed=seed).cpu().double()
    half = len(z) // 2
    found = {"z": z, "accuracy": knn(z[:half].float(), y[:half], z[half:].float(), y[half:], k=10)}
    if not clusterers:
        return found
    z = (z / z.std()).float()

    def run(name, x, which):
        g = draws(23, seed, which)
        if name == "k-means":
            parts = many_kmeans(x, 10, restarts=5, generator=g)
            return parts.labels[parts.best]
        if name == "Leiden":
            return leiden(neighbour_graph(x, 15), generator=g)
        if name == "Ward":
            return agglomerate(x, 10)
        how, dof = {
            "GMM, spherical": ("spherical", None),
            "GMM, full": ("full", None),
            "Student's t": ("diagonal", 3.0),
        }[name]
        m = gaussian_mixture(x, 10, restarts=1, covariance=how, generator=g, dof=dof, floor=1e-3, iterations=20)
        return m[m.best].predict(x)[0]

    g = draws(24, seed)
    samples = [torch.randperm(len(z), generator=g)[: 4 * len(z) // 5] for _ in range(2)]
    for name in ("k-means", "GMM, spherical", "GMM, full", "Student's t", "Ward", "Leiden"):
        one, two = run(name, z, 0), run(name, z, 1)
        apart = [run(name, z[rows], 2 + i) for i, rows in enumerate(samples)]
        every = [torch.ones(len(rows), dtype=torch.bool) for rows in samples]
        found[name] = {
            "ARI": (ari(one, y) + ari(two, y)) / 2,
            "runs agree": ari(one, two),
            "samples agree": shared(samples, apart, every),
            "clusters": len(one.unique()),
        }
    return found
