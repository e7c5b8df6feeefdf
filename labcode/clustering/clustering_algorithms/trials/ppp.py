"""Experiments of PPP: overlapping samples, the part of the mixtures, a tenth of the rows."""

import time

import torch
from torch import Tensor

from ....evaluate.clusters import ari
from ...gaussian_mixture import gaussian_mixture
from ...many_kmeans import many_kmeans
from ..laundering import indices
from ..ppp import agreement, matched, ppp
from ..separability import persistence, separability
from ..tables import blobs, draws, table
from .common import shared


def partitive(name: str, seed: int, largest: int, starts: int) -> dict[str, float]:
    """PPP on three overlapping samples of one table, beside plain k-means and a mixture chosen by BIC."""
    x, y = blobs(200, 4, 4, 5.0, seed) if name == "blobs" else table(name, seed, 10_000)
    g = draws(9, seed)
    halves, parts, plain, chosen = [], [], [], []
    for _ in range(3):
        rows = torch.randperm(len(x), generator=g)[: 4 * len(x) // 5]
        part = ppp(x[rows], largest, starts=starts, generator=g)
        halves.append(rows)
        parts.append(part)
        plain.append(many_kmeans(x[rows], part.k, restarts=1, generator=g, seeding="rows").labels[0])
        mixtures = [
            gaussian_mixture(x[rows], k, restarts=3, covariance="diagonal", generator=g, floor=1e-3)
            for k in range(1, largest + 1)
        ]
        bic = [m.bic(len(rows))[m.best] for m in mixtures]
        chosen.append(1 + int(torch.stack(bic).argmin()))
    found, rows, classes = parts[0], halves[0], len(y.unique())

    def inside(keep):
        return float(many_means(x[rows][keep], found.labels[keep]))

    every = torch.ones_like(found.core)

    def clear(keep):
        return indices(x[rows][keep], found.labels[keep])["silhouette"]

    return {
        "repeats, core": shared(halves, [p.labels for p in parts], [p.core for p in parts]),
        "repeats, all rows": shared(halves, [p.labels for p in parts], [torch.ones_like(p.core) for p in parts]),
        "repeats, one k-means": shared(halves, plain, [torch.ones_like(p.core) for p in parts]),
        "kept": found.kept,
        "k": float(found.k),
        "misses k by": sum(abs(p.k - classes) for p in parts) / 3,
        "BIC misses k by": sum(abs(k - classes) for k in chosen) / 3,
        "spread, core": inside(found.core),
        "spread, all rows": inside(every),
        "silhouette, core": clear(found.core),
        "silhouette, all rows": clear(every),
        "separability, core": float(separability(persistence(x[rows][found.core]), 0.99)),
        "separability, all rows": float(separability(persistence(x[rows]), 0.99)),
        "ARI, core": ari(found.labels[found.core], y[rows][found.core]),
        "ARI, all rows": ari(found.labels, y[rows]),
    }


def many_means(x: Tensor, labels: Tensor) -> Tensor:
    """Mean squared distance of rows from their cluster's mean."""
    return torch.cat([(x[labels == c] - x[labels == c].mean(0)).square().sum(1) for c in labels.unique()]).mean()


def validated(name: str, k: int, seed: int, starts: int) -> dict[str, float]:
    """At one k: the share of rows kept and its ARI, with mixtures and without, errors in and out of the core."""
    x, y = table(name, seed)
    found = {}
    for how, validate in (("with", True), ("without", False)):
        part = agreement(x, k, starts=starts, generator=draws(10, seed), validate=validate)
        found[f"kept {how}"] = part.kept
        found[f"ARI of the core, {how}"] = ari(part.labels[part.core], y[part.core]) if part.core.any() else 0.0
        if validate:
            wrong = (matched(part.labels[None], y, k)[0] != y).double()
            outside = wrong[~part.core] if not part.core.all() else wrong
            found["error in the core"] = float(wrong[part.core].mean()) if part.core.any() else 1.0
            found["error outside"] = float(outside.mean())
    return found


def kept_over_k(k: int, seed: int, starts: int) -> dict[str, float]:
    """The share of rows that all runs agree on, on three tables."""
    data = {
        "blobs (4)": blobs(200, 4, 4, 5.0, seed)[0],
        "iris (3)": table("iris", seed)[0],
        "wine (3)": table("wine", seed)[0],
    }
    return {name: agreement(x, k, starts=starts, generator=draws(11, seed, k)).kept for name, x in data.items()}


def reduced(seed: int, n: int, starts: int) -> dict[str, float]:
    """PPP on all rows and on a tenth of them, the others to the nearest mean: agreement with the groups, seconds."""
    x, y = blobs(n, 4, 4, 6.0, seed)
    found = {}
    for name, rows in (("all rows", torch.arange(n)), ("a tenth", torch.arange(0, n, 10) + torch.arange(n // 10) % 10)):
        begun = time.process_time()
        part = ppp(x[rows], 5, starts=starts, generator=draws(12, seed))
        means = torch.stack([x[rows][part.labels == c].mean(0) for c in range(part.k)])
        found[f"ARI, {name}"] = ari(torch.cdist(x, means).argmin(1), y)
        found[f"seconds, {name}"] = time.process_time() - begun
    return found
