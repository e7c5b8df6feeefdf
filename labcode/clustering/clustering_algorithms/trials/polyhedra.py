"""Experiments of polyhedral descriptions: held-out rows against trees, groups of rows against a sample."""

import time

import torch

from ...many_kmeans import many_kmeans
from ..polyhedra import cart, describe_all, described, mistake_tree, small_groups
from ..tables import draws, table


def explained(
    name: str,
    seed: int,
    penalty: float = 1.0,
    bound: int = 1,
    support: int = 2,
    columns: int = 99,
    sparse: bool = True,
) -> dict[str, float]:
    """Accuracy on held-out rows and complexity of descriptions of a k-means partition, five ways."""
    x, y = table(name, seed, 10_000)
    x = x[:, :columns]
    k = len(y.unique())
    labels = many_kmeans(x, k, restarts=10, generator=draws(18, seed))
    labels = labels.labels[labels.best]
    cut = 3 * len(x) // 5
    x, there, labels, told = x[:cut], x[cut:], labels[:cut], labels[cut:]
    options = dict(penalty=penalty, bound=bound, support=support)
    found = {}
    for kind in ("PDP", "sparse PDP")[: 1 + sparse]:
        made = describe_all(x, labels, sparse=kind != "PDP", **options)
        features = float(torch.stack([(p.w != 0).any(0) for p in made]).any(0).sum())
        found |= {
            f"{kind}, accuracy": float((described(made, there) == told).float().mean()),
            f"{kind}, fits": float((described(made, x) == labels).float().mean()),
            f"{kind}, complexity": float(sum(p.complexity for p in made)),
            f"{kind}, features": features,
            f"{kind}, use": sum(int((p.w != 0).sum()) for p in made) / max(features, 1.0),
        }
        found[f"{kind}, half-spaces"] = float(sum(len(p.w) for p in made))
        if kind == "PDP":
            found["gap"] = max((p.value - p.relaxed) / max(p.value, 1e-9) for p in made)
            found["share of columns"] = max(p.columns / p.candidates for p in made)
    for kind, tree in (
        ("IMM", mistake_tree(x, labels)),
        ("CART, k leaves", cart(x, labels, k)),
        ("CART, 2k leaves", cart(x, labels, 2 * k)),
    ):
        found |= {
            f"{kind}, accuracy": float((tree.predict(there) == told).float().mean()),
            f"{kind}, fits": float((tree.predict(x) == labels).float().mean()),
            f"{kind}, complexity": float(tree.complexity),
        }
    return found


def grouped(count: int, seed: int) -> dict[str, float]:
    """Equal instance size: all rows in so many groups, or so many rows alone. Accuracy on all rows, seconds."""
    x, y = table("breast cancer", seed, 10_000)
    labels = many_kmeans(x, 4, restarts=10, generator=draws(19, seed))
    labels, g, found = labels.labels[labels.best], draws(20, seed), {}
    begun = time.process_time()
    groups = small_groups(x, labels, count, g)
    found["groups"] = float((described(describe_all(x, labels, groups=groups), x) == labels).float().mean())
    found["seconds, groups"] = time.process_time() - begun
    while True:
        rows = torch.randperm(len(x), generator=g)[:count]
        if len(labels[rows].unique()) == 4:
            break
    begun = time.process_time()
    found["a sample"] = float((described(describe_all(x[rows], labels[rows]), x) == labels).float().mean())
    found["seconds, a sample"] = time.process_time() - begun
    return found
