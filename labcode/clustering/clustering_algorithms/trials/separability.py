"""Experiments of the persistence score: clouds that are moved apart, networks that are watched while they train."""

import torch
from torch import Tensor

from ...many_kmeans import many_kmeans
from ..separability import ManyMLPs, fisher_ratio, persistence, separability, thornton
from ..tables import blobs, draws, small_digits


def curve_of_gaps(gap: float, seed: int, n: int = 200) -> dict[str, float]:
    """Four Gaussians in ten dimensions: the score without labels and Fisher's ratio with them."""
    x, y = blobs(n, 4, 10, gap, seed)
    bars = persistence(x)
    return {
        "score": float(separability(bars)),
        "score, 99th percentile": float(separability(bars, 0.99)),
        "Fisher ratio": float(fisher_ratio(x, y)),
    }


def tasks(seed: int, splits: tuple, n: int = 384, test: int = 160, noise: float = 0.0):
    """Three tasks from digits, as batches (3, n, 32): ten classes, two classes, two classes one to five."""
    images, labels = small_digits()
    images = images @ torch.linalg.svd(images[:3000] - images[:3000].mean(0), full_matrices=False)[2][:32].T
    images = (images - images.mean(0)) / images.std()
    g = draws(7, seed)
    rows = []
    for count, (low, high) in zip((n, test), splits, strict=True):
        at = low + torch.randperm(high - low, generator=g)
        three, eight = (at[labels[at] == c] for c in (3, 8))
        pair = torch.cat([three[: count // 2], eight[: count // 2]])
        uneven = torch.cat([three[: count // 6], eight[: count - count // 6]])

        def short(part):
            return part[torch.arange(count) % len(part)]  # noqa: B023

        rows.append([short(at[:count]), short(pair), short(uneven)])
    x, z = (torch.stack([images[r] for r in part]) for part in rows)
    y, t = (
        torch.stack([labels[r] if i == 0 else (labels[r] == 8).long() for i, r in enumerate(part)]) for part in rows
    )
    wrong = torch.rand(y.shape, generator=g) < noise
    random = (torch.rand(y.shape, generator=g) * torch.tensor([[10], [2], [2]])).long()
    return x, torch.where(wrong, random, y), z, t


def watched(seed: int, splits: tuple, checkpoints: int, steps: int, width: int = 64) -> dict[str, Tensor]:
    """Six networks trained in one batch, the three tasks with and without layer normalisation; curves (6, checkpoints).

    Persistence and its companions are those of the digits that are trained on, as the paper watches the texts that it
    fine-tunes on; the accuracy is that of held-out digits.
    """
    x, y, z, t = (torch.cat([part, part]) for part in tasks(seed, splits))
    g = draws(8, seed)
    nets = ManyMLPs(x.shape[2], width, 10, [True] * 3 + [False] * 3, g)
    optimiser = torch.optim.Adam(nets.parameters(), 3e-3)
    curves = {name: [] for name in ("score", "Fisher ratio", "Thornton index", "Calinski–Harabasz", "accuracy")}
    bars = []
    for point in range(checkpoints + 1):
        with torch.no_grad():
            features = nets.embed(x)
            bars.append(persistence(features))
            curves["score"].append(separability(bars[-1]))
            curves["Fisher ratio"].append(torch.stack([fisher_ratio(f, c) for f, c in zip(features, y, strict=True)]))
            curves["Thornton index"].append(torch.stack([thornton(f, c) for f, c in zip(features, y, strict=True)]))
            ks = [10, 2, 2] * 2
            labels = [
                many_kmeans(f, k, restarts=1, generator=g, iterations=20).labels[0]
                for f, k in zip(features, ks, strict=True)
            ]
            curves["Calinski–Harabasz"].append(
                torch.stack([fisher_ratio(f, c) for f, c in zip(features, labels, strict=True)])
            )
            curves["accuracy"].append((nets(z).argmax(2) == t).float().mean(1))
        for _ in range(steps if point < checkpoints else 0):
            rows = torch.randint(x.shape[1], (64,), generator=g)
            loss = torch.nn.functional.cross_entropy(
                nets(x[:, rows]).flatten(0, 1), y[:, rows].flatten(), reduction="sum"
            )
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
    return {name: torch.stack(values, 1) for name, values in curves.items()} | {"bars": torch.stack(bars, 1)}
