"""Experiments of ClAM: rivals chosen alike by silhouette, basins, escapes, completion."""

import time

import torch
from torch import Tensor

from ....evaluate.clusters import ari, nmi
from ...many_kmeans import many_kmeans
from ..clam import clam, recall, self_trained, soft_kmeans
from ..laundering import agglomerate
from ..tables import blobs, draws, table
from .common import silhouettes, spectral


def memories(x: Tensor, y: Tensor, k: int, seed: int, betas: tuple, restarts: int, epochs: int) -> dict[str, dict]:
    """Silhouette and NMI of ClAM and its rivals, each the best by silhouette of as many tries; and over β."""
    beta = torch.tensor(betas).repeat_interleave(restarts)
    tries, x = len(beta), x.float()
    g = draws(13, seed)
    plain = many_kmeans(x, k, restarts=tries, generator=g)
    trained = clam(x, k, beta=beta, generator=g, epochs=epochs, steps=5, batch=128)
    whole = clam(x, k, beta=beta, generator=g, epochs=epochs, steps=5, batch=128, masked=0)
    arms = {
        "ClAM": trained.labels(x),
        "ClAM, nothing masked": whole.labels(x),
        "k-means": plain.labels,
        "soft k-means": soft_kmeans(x, k, beta=beta, generator=g).labels(x),
        "DEC's loss": self_trained(x, plain.centroids).labels(x),
        "agglomerative": torch.stack([agglomerate(x, k, how) for how in ("ward", "average", "complete")]),
        "spectral": torch.stack([spectral(x, k, seed, m) for m in (5, 10, 20)]),
    }
    found = {}
    for name, labels in arms.items():
        scores = silhouettes(x, labels)
        best = max(range(len(scores)), key=scores.__getitem__)
        found[name] = {"silhouette": scores[best], "NMI": nmi(labels[best], y)}
        if name == "ClAM":
            found[name]["over beta"] = [
                sum(scores[i * restarts : (i + 1) * restarts]) / restarts for i in range(len(betas))
            ]
            found[name]["used"] = sum(len(row.unique()) for row in labels) / (len(labels) * k)
    return found


def recalled(steps: int, seed: int, epochs: int, rows: int) -> dict[str, float]:
    """Silhouette of ClAM on iris with T steps of the recursion, mean of three restarts at two temperatures."""
    x, _ = table("iris", seed, rows)
    found = {}
    trained = clam(
        x, 3, beta=torch.tensor([0.5] * 3 + [2.0] * 3), generator=draws(14, seed), epochs=epochs, steps=steps, batch=128
    )
    scores = silhouettes(x, trained.labels(x.float()))
    for at, beta in ((0, "β = 0.5"), (3, "β = 2")):
        found[beta] = sum(scores[at : at + 3]) / 3
    return found


def basins(beta: float, seed: int) -> dict[str, float]:
    """Share of the plane whose state ends nearest to the prototype that it began nearest to."""
    g = draws(15, seed)
    prototypes, states = torch.randn(6, 2, generator=g), 3 * torch.randn(800, 2, generator=g)
    begun = torch.cdist(states, prototypes).argmin(1)
    ends = {
        "long run": recall(states, prototypes, beta, steps=200, rate=0.1),
        "ten steps": recall(states, prototypes, beta),
    }
    return {name: float((torch.cdist(v, prototypes).argmin(1) == begun).float().mean()) for name, v in ends.items()}


def escapes(seed: int, starts: int, epochs: int) -> dict[str, float]:
    """Eight clusters in eight dimensions from k random rows as starts: the share of starts that find every cluster."""
    x, y = blobs(128, 8, 8, 8.0, seed)
    x, g = ((x - x.mean(0)) / x.std(0)).float(), draws(16, seed)
    beta = torch.full((starts,), 2.0)
    arms = {
        "k-means": many_kmeans(x, 8, restarts=starts, generator=g, seeding="rows").labels,
        "k-means++": many_kmeans(x, 8, restarts=starts, generator=g).labels,
        "ClAM": clam(x, 8, beta=beta, generator=g, epochs=epochs, steps=5, batch=128).labels(x),
    }
    return {name: sum(ari(row, y) > 0.95 for row in labels) / starts for name, labels in arms.items()}


def completed(seed: int, epochs: int = 100) -> dict[str, float]:
    """Mean squared error at one hidden coordinate of rows of iris not trained on: three memories, or the mean."""
    x, _ = table("iris", seed, 150)
    x, g = x.float(), draws(32, seed)
    trained = clam(x[:100], 3, beta=torch.full((4,), 2.0), generator=g, epochs=epochs, batch=128)
    rows = x[100:].repeat(4, 1)
    mask = torch.arange(4).repeat_interleave(50)[:, None] == torch.arange(4)
    best = trained.prototypes[trained.loss.argmin()]
    out = recall(torch.where(mask, 0.0, rows), best, 2.0, mask)
    return {"ClAM": float((out - rows)[mask].square().mean()), "column mean": float(rows[mask].square().mean())}


def assignment_seconds(k: int, seed: int) -> dict[str, float]:
    """Processor time to assign 2,000 rows to k prototypes."""
    g = draws(17, seed)
    x, prototypes = torch.randn(2000, 16, generator=g), torch.randn(k, 16, generator=g)
    begun = time.process_time()
    recall(x, prototypes, 1.0)
    middle = time.process_time()
    torch.cdist(x, prototypes).argmin(1)
    return {"ClAM, ten steps": middle - begun, "k-means": time.process_time() - middle}
