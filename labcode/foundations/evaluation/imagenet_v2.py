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


def above(
    frequency: Float[Tensor, " n"], labels: Int[Tensor, " n"], pool: Int[Tensor, " p"], threshold: float, each: int
) -> Int[Tensor, " t"]:
    """ImageNetV2's Threshold: of each class the first ``each`` images of the pool, which is in random order, with at
    least this frequency. Where a class has too few, all of them are taken."""
    clear = pool[frequency[pool] >= threshold]
    return torch.cat([clear[labels[clear] == c][:each] for c in labels.unique()])


def second_tests(
    field: Field, size: int, annotators: int, seed: int, apart: bool = True, thresholds: tuple[float, ...] = (0.7,)
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Accuracy of every model on an old test set and on new ones, and which candidates are in each.

    old            candidates of the first source that two of three annotators, asked before, recognised
    same source    others of them, at random
    matched        of the second source, with the old set's frequencies: ``matched``
    threshold 0.7  of the second source, of every class at random among those with that frequency or more: ``above``
    top images     of the second source, of every class those with the highest frequency

    size        of the old set; a new one has as many, or all there are
    annotators  how many are asked about each image, for the frequency; the paper asks ten or more
    apart       deal the images that candidates were made from to two halves, one for the old set, one for all new ones:
                no near duplicate of an old image is in a new set. Else both may be made from the same images
    thresholds  of which there is a set each

    Raises ValueError where fewer than ``size`` candidates were recognised for the old set, or for that from its source.
    """
    g = Generator().manual_seed(seed)
    known = ~field.fresh & (selection_frequency(field.agree, 3, g) > 0.5)
    half = torch.rand(int(field.origin.max()) + 1, generator=g)[field.origin] < 0.5
    half = half & torch.isin(field.origin, field.origin[~field.fresh])  # what the old set is not made from is free
    mine, others = (known & half, known & ~half) if apart else (known, known)
    first, second, pool = (torch.nonzero(mask)[:, 0] for mask in (mine, others, field.fresh & ~(half & apart)))
    first, second, pool = (part[torch.randperm(len(part), generator=g)] for part in (first, second, pool))
    second = second[~torch.isin(second, first[:size])]
    if min(len(first), len(second)) < size:
        raise ValueError(f"size must be at most {min(len(first), len(second))}, the recognised candidates, got {size}")
    f, each = selection_frequency(field.agree, annotators, g), size // len(field.labels.unique())
    best = pool[f[pool].argsort(descending=True, stable=True)]
    chosen = {"old": first[:size], "same source": second[:size]}
    chosen["matched"] = matched(f, field.labels, first[:size], pool, g)
    chosen |= {f"threshold {t:g}": above(f, field.labels, pool, t, each) for t in thresholds}
    chosen["top images"] = above(f, field.labels, best, 0.0, each)
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


def bootstrapped(
    old: Bool[Tensor, "m n"], new: Bool[Tensor, "m k"], draws: int, generator: Generator
) -> Float[Tensor, " b"]:
    """Slopes of ``fitted_line`` on draws with replacement of the models and of the images of both sets.

    old, new  which images of each set each model gets right
    """
    models, slopes = len(old), []
    for _ in range(draws):
        rows = torch.randint(models, (models,), generator=generator)
        sets = [c[rows][:, torch.randint(c.shape[1], (c.shape[1],), generator=generator)] for c in (old, new)]
        slopes.append(fitted_line(*(c.double().mean(1) for c in sets))[0])
    return torch.tensor(slopes)


def clopper_pearson(accuracy: Float[Tensor, " m"], n: int, level: float = 0.95) -> Float[Tensor, "2 m"]:
    """The exact interval of accuracies on n images: its lower and its upper ends. Covers with at least ``level``."""
    from scipy.stats import beta

    right, tail = (accuracy.double() * n).round().numpy(), (1 - level) / 2
    low = torch.from_numpy(beta.ppf(tail, right, n - right + 1)).nan_to_num(0.0)
    return torch.stack([low, torch.from_numpy(beta.ppf(1 - tail, right + 1, n - right)).nan_to_num(1.0)])


def left_out(old: Float[Tensor, " m"], new: Float[Tensor, " m"], kinds: list[str], scale: int = 0) -> float:
    """Mean error of new accuracies that are predicted by a line through all models of other kinds.

    scale  0: a line through accuracies. Else through their probits on so many images
    """
    x, y = (probit(a, scale) if scale else a.double() for a in (old, new))
    errors = []
    for kind in dict.fromkeys(kinds):
        out = torch.tensor([k == kind for k in kinds])
        slope, shift, _ = fitted_line(x[~out], y[~out])
        said = slope * x[out] + shift
        errors.append(((torch.special.ndtr(said) if scale else said) - new[out]).abs())
    return float(torch.cat(errors).mean())


def skilled(
    skill: Float[Tensor, " m"], mean: float, spread: float, n: int, generator: Generator
) -> Bool[Tensor, "m n"]:
    """Outcomes under the paper's model of why probits lie on a line (appendix on linear fits).

    A model of skill s is right on an image of difficulty d with probability Φ(s - d), and d ~ N(mean, spread²). So its
    accuracy is Φ((s - mean) / √(1 + spread²)), and probits on two sets lie on a line with the slope
    √(1 + spread_old²) / √(1 + spread_new²).
    """
    d = mean + spread * torch.randn(n, generator=generator, dtype=torch.float64)
    chance = torch.special.ndtr(skill.double()[:, None] - d)
    return torch.rand(len(skill), n, generator=generator, dtype=torch.float64) < chance


def voted(weights: Float[Tensor, " m"], votes: Float[Tensor, "m n k"]) -> Int[Tensor, " n"]:
    """The class with the largest weighted vote of m models, whose classes are one-hot in ``votes``."""
    return torch.einsum("m,mnk->nk", weights, votes).argmax(1)


def climbed(
    votes: Float[Tensor, "m n k"], labels: Int[Tensor, " n"], queries: int, step: float, generator: Generator
) -> Float[Tensor, "q m"]:
    """Weights of a vote that were hill-climbed on a test set: what an adaptive analyst does who sees only accuracies.

    From equal weights, Gaussian steps of standard deviation ``step``; one is kept if the accuracy does not fall.

    queries  how often the test set is asked, >= 0

    Returns the weights after each query, those before the first at 0.
    """
    weights = torch.ones(len(votes), dtype=votes.dtype, device=votes.device)
    best, path = (voted(weights, votes) == labels).sum(), [weights]
    for _ in range(queries):
        proposal = weights + step * torch.randn(len(votes), generator=generator).to(weights)
        right = (voted(proposal, votes) == labels).sum()
        kept = right >= best
        weights, best = torch.where(kept, proposal, weights), torch.where(kept, right, best)
        path.append(weights)
    return torch.stack(path)


def climb_scores(
    field: Field, chosen: dict[str, Int[Tensor, " s"]], queries: int, at: tuple[int, ...], seed: int
) -> dict[str, list[float]]:
    """Accuracy on each test set, after ``at`` queries, of a vote of all models that is ``climbed`` on the old one."""
    votes = torch.nn.functional.one_hot(field.said, int(field.labels.max()) + 1).float()
    old, g = chosen["old"], Generator().manual_seed(seed)
    path = climbed(votes[:, old], field.labels[old], queries, 1.0, g)[list(at)]
    right = lambda weights, i: float((voted(weights, votes[:, i]) == field.labels[i]).double().mean())  # noqa: E731
    return {name: [right(weights, i) for weights in path] for name, i in chosen.items()}
