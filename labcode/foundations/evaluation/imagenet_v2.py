"""Test sets collected anew from another source, by what annotators say, and a line through many models' accuracies.

Recht, Roelofs, Schmidt and Shankar, "Do ImageNet Classifiers Generalize to ImageNet?" (2019). The rules by which new
images are taken are those of the authors' released code (modestyachts/ImageNetV2).
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from ...loss import check_finite
from .field import Field

BINS = (0.2, 0.4, 0.6, 0.8)  # edges of the frequencies that are matched, as in the authors' code


def selection_frequency(agree: Bool[Tensor, "a n"], count: int, generator: Generator) -> Float[Tensor, " n"]:
    """Share of annotators who find an image to be what its label says; ``count`` of all are drawn anew for each image.

    Raises ValueError unless 1 <= count <= the number of annotators.
    """
    if not 1 <= count <= len(agree):
        raise ValueError(f"count must be in 1 … {len(agree)}, the annotators, got {count}")
    asked = torch.rand(agree.shape, generator=generator).argsort(0)[:count]
    return agree.gather(0, asked).double().mean(0)


def matched(
    frequency: Float[Tensor, " n"], labels: Int[Tensor, " n"], old: Int[Tensor, " s"], pool: Int[Tensor, " p"],
    generator: Generator,
) -> Int[Tensor, " t"]:  # fmt: skip
    """ImageNetV2's MatchedFrequency: of each class and each of five bins of the frequency as many as the old set has.

    old, pool  numbers of images: the old test set, and what the new one is drawn from. Where a cell of the pool has too
               few, all of them are taken
    """
    bins = (frequency.unsqueeze(1) >= torch.tensor(BINS, dtype=frequency.dtype)).sum(1)
    cell = labels * (len(BINS) + 1) + bins
    pool, chosen = pool[torch.randperm(len(pool), generator=generator)], []
    for kind, wanted in zip(*cell[old].unique(return_counts=True), strict=True):
        chosen.append(pool[cell[pool] == kind][:wanted])
    return torch.cat(chosen)


def second_tests(field: Field, size: int, annotators: int, seed: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Accuracy of every model on an old test set and on new ones, and which candidates are in each.

    old            candidates of the first source that two of three annotators, asked before, recognised
    same source    others of them, at random
    matched        of the second source, with the old set's frequencies: ``matched``
    threshold 0.7  of the second source, at random among those with a frequency of 0.7 and more
    top images     of the second source, of every class those with the highest frequency

    size        of the old set; a new one has as many, or all there are
    annotators  how many are asked about each image, for the frequency; the paper asks ten or more

    Raises ValueError where fewer than two times ``size`` candidates of the first source were recognised.
    """
    g = Generator().manual_seed(seed)
    known = ~field.fresh & (selection_frequency(field.agree, 3, g) > 0.5)
    first, pool = (torch.nonzero(mask)[:, 0] for mask in (known, field.fresh))
    if len(first) < 2 * size:
        raise ValueError(f"size must be at most half of the {len(first)} recognised candidates, got {size}")
    first, pool = (part[torch.randperm(len(part), generator=g)] for part in (first, pool))
    f = selection_frequency(field.agree, annotators, g)
    best = pool[f[pool].argsort(descending=True, stable=True)]
    each = [best[field.labels[best] == c][: size // len(field.labels.unique())] for c in field.labels.unique()]
    chosen = {
        "old": first[:size],
        "same source": first[size : 2 * size],
        "matched": matched(f, field.labels, first[:size], pool, g),
        "threshold 0.7": pool[f[pool] >= 0.7][:size],
        "top images": torch.cat(each),
    }
    return {k: (field.said[:, i] == field.labels[i]).double().mean(1) for k, i in chosen.items()}, chosen


def by_frequency(field: Field, annotators: int, seed: int) -> tuple[list[float], dict[str, list[float]]]:
    """Mean accuracy of all models on the candidates of each bin of the frequency: the bins' middles, and by source."""
    f = selection_frequency(field.agree, annotators, Generator().manual_seed(seed))
    edges, right = (0.0, *BINS, 1.0 + 1e-9), (field.said == field.labels).double().mean(0)
    within = [(f >= low) & (f < high) for low, high in zip(edges, edges[1:], strict=False)]
    sources = {"old source": ~field.fresh, "new source": field.fresh}
    found = {name: [float(right[which & mask].mean()) for mask in within] for name, which in sources.items()}
    return [round((low + high) / 2, 2) for low, high in zip(edges, edges[1:], strict=False)], found


def probit(accuracy: Float[Tensor, " m"], n: int) -> Float[Tensor, " m"]:
    """Φ⁻¹ of accuracies on n images, which are kept half an image away from 0 and 1."""
    return torch.special.ndtri(accuracy.double().clamp(0.5 / n, 1 - 0.5 / n))


def fitted_line(x: Float[Tensor, " m"], y: Float[Tensor, " m"]) -> tuple[float, float, float]:
    """Least squares y ≈ slope · x + intercept: slope, intercept and R².

    Raises ValueError for fewer than two points, points with one x, and coordinates that are not finite.
    """
    check_finite(x=x, y=y)
    x, y = x.double(), y.double()
    if len(x) < 2 or float(x.var()) == 0:
        raise ValueError(f"x must hold at least two different values, got {len(x)} points")
    dx, dy = x - x.mean(), y - y.mean()
    slope = float((dx @ dy) / (dx @ dx))
    left = dy - slope * dx
    return slope, float(y.mean() - slope * x.mean()), 1 - float((left @ left) / (dy @ dy).clamp(min=1e-300))


def voted(weights: Float[Tensor, " m"], votes: Float[Tensor, "m n k"]) -> Int[Tensor, " n"]:
    """The class with the largest weighted vote of m models, whose classes are one-hot in ``votes``."""
    return torch.einsum("m,mnk->nk", weights, votes).argmax(1)


def climbed(
    votes: Float[Tensor, "m n k"], labels: Int[Tensor, " n"], queries: int, step: float, generator: Generator
) -> Float[Tensor, " m"]:
    """Weights of a vote that were hill-climbed on a test set: what an adaptive analyst does who sees only accuracies.

    From equal weights, Gaussian steps of standard deviation ``step``; one is kept if the accuracy does not fall.

    queries  how often the test set is asked, >= 0
    """
    weights = torch.ones(len(votes), dtype=votes.dtype, device=votes.device)
    best = (voted(weights, votes) == labels).sum()
    for _ in range(queries):
        proposal = weights + step * torch.randn(len(votes), generator=generator).to(weights)
        right = (voted(proposal, votes) == labels).sum()
        kept = right >= best
        weights, best = torch.where(kept, proposal, weights), torch.where(kept, right, best)
    return weights
