"""What the chapter measures of its two theory papers: transformed kernels, and robust losses of unlabelled points.

Nothing here is trained by batches: eigenvectors once for all draws of labels, and gradient steps on whole data sets.
"""

import time
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from ...data.batches import mixed_seed
from ..label_sets import few_labels, several
from .robust_self_training import (
    blob_accuracy,
    gaussian_accuracy,
    gaussian_pair,
    mean_direction,
    one_blob,
    rss,
    self_training,
)  # fmt: skip
from .stkr import (
    Base,
    Ratio,
    closed_form,
    graph_kernel,
    hops,
    inverse_laplacian,
    label_propagation,
    label_spreading,
    neighbour_kernel,
    ridge_on_labels,
    ring,
    top_eigenvectors,
)  # fmt: skip

ETA, RIDGE, TOP, ALPHA = 0.99, 0.03, 10, 0.95
TRANSFORMS = {
    "inverse Laplacian": inverse_laplacian(ETA), "t⁸": hops(8), "kernel PCA": top_eigenvectors(TOP), "identity":
    hops(1),
}  # fmt: skip


def _labelled(y: Tensor, count: int, draws: int, seed: int) -> tuple[Tensor, Tensor]:
    """Places of so many labels a class in each draw, (draws, n), and centred one-hot targets."""
    index = several(draws, few_labels, y, count, generator=Generator().manual_seed(mixed_seed(seed, count)))
    classes = int(y.max()) + 1
    return index, F.one_hot(y[index], classes).double() - 1 / classes


def _right(values: Tensor, y: Tensor, index: Tensor | None = None) -> float:
    """Share of right guesses over draws (r, M, c); points of ``index``, the labelled ones, do not count."""
    right = (values.argmax(2) == y).double()
    if index is None:
        return float(right.mean())
    hidden = torch.ones_like(right).scatter_(1, index, 0.0)
    return float((right * hidden).sum() / hidden.sum())


def digit_kernel(stage, n: int, seed: int) -> tuple[Base, Tensor, Tensor, Tensor, Tensor]:
    """The neighbour graph of n random digits, their pixels and classes, and the test digits', which the graph has
    not."""
    pool, test = stage.pool, stage.test
    some = torch.randperm(len(pool.x), generator=Generator().manual_seed(mixed_seed(seed, 60)))[:n]
    x, new = pool.x.cpu()[some].double(), test.x.cpu()[:1000].double()
    return neighbour_kernel(x, new), x, pool.y.cpu()[some], new, test.y.cpu()[:1000]


def compare_kernels(
    stage, seed: int, counts: Sequence[int] = (1, 4, 10), n: int = 800, draws: int = 6, etas: Sequence[float] = (),
    powers: Sequence[int] = (),
) -> dict[str, list[float]]:  # fmt: skip
    """Accuracy on *new* digits at each number of labels a class, of STKR's transforms and the rivals; of the inverse
    Laplacian and of label spreading on the graph's own unlabelled digits too. "etas" and "powers" have the first
    number's accuracies by the inverse Laplacian with each η, and by each t^p."""
    base, x, y, new, truth = digit_kernel(stage, n, seed)
    width, found = float(torch.cdist(x[:200], x[:200]).square().mean()) / 2, {}
    for count in counts:
        index, target = _labelled(y, count, draws, seed)
        guesses = {name: closed_form(base, index, target, ratio, RIDGE) for name, ratio in TRANSFORMS.items()}
        guesses |= {
            "label spreading": label_spreading(base, index, target, ALPHA),
            "label propagation": label_propagation(base, index, target),
        }
        scores = {name: _right(there, truth) for name, (_, there) in guesses.items()}
        for name in ("inverse Laplacian", "label spreading"):
            scores[f"{name}, the graph's own"] = _right(guesses[name][0], y, index)
        scores["ridge, labels alone"] = _right(ridge_on_labels(x[index], target, new, width), truth)
        pool = x[:400]
        scores["ridge, pseudo-labels"] = _right(ridge_on_labels(x[index], target, new, width, pool=pool), truth)
        for name, value in scores.items():
            found.setdefault(name, []).append(value)
    index, target = _labelled(y, counts[0], draws, seed)
    for name, ratios in (("etas", map(inverse_laplacian, etas)), ("powers", map(hops, powers))):
        found[name] = [_right(closed_form(base, index, target, ratio, RIDGE)[1], truth) for ratio in ratios]
    return found


def kernel_sizes(
    stage, seed: int, sizes: Sequence[int] = (50, 150, 500, 1500), count: int = 1, draws: int = 8
) -> dict[str, list[float]]:
    """The inverse Laplacian over the number of points of the graph, ``count`` labels a class of them labelled: on the
    graph's own points and on new ones. The labelled points are the same at every size."""
    g, everything = Generator().manual_seed(mixed_seed(seed, 61)), stage.pool.y.cpu()
    first = few_labels(everything, max(count, min(sizes) // stage.classes), generator=g)  # all classes in every graph
    drawn = torch.randperm(len(everything), generator=g)
    order = torch.cat([first, drawn[~torch.isin(drawn, first)]])[: max(sizes)]
    y, found = everything[order], {"transductive": [], "inductive": [], "label spreading": []}
    index, target = _labelled(y[: min(sizes)], count, draws, seed)
    new, truth = stage.test.x.cpu()[:1000].double(), stage.test.y.cpu()[:1000]
    for size in sizes:
        base = neighbour_kernel(stage.pool.x.cpu()[order[:size]].double(), new)
        here, there = resolvent_form(base, index, target)
        found["transductive"].append(_right(here, y[:size], index))
        found["inductive"].append(_right(there, truth))
        found["label spreading"].append(_right(spread_by_solve(base, index, target)[1], truth))
    return found


def resolvent_form(
    base: Base, index: Tensor, y: Tensor, eta: float = ETA, ridge: float = RIDGE
) -> tuple[Tensor, Tensor]:
    """``closed_form`` of the inverse Laplacian by one linear system for all draws instead of eigenvectors: with
    R = (I - ηS)⁻¹ E the values are S R a."""
    places, inverse = index.flatten().unique(return_inverse=True)
    start = torch.zeros(len(base.s), len(places)).to(y)
    start[places, torch.arange(len(places))] = 1
    r = torch.linalg.solve(torch.eye(len(base.s)).to(y) - eta * base.s, start)
    own = inverse.view(index.shape)
    gram = (base.s @ r)[places][own[:, :, None], own[:, None]]
    a = torch.linalg.solve(gram + ridge * torch.eye(index.shape[1]).to(y), y)
    v = torch.stack([r[:, one] @ some for one, some in zip(own, a, strict=True)])
    return base.s @ v, base.new @ v


def spread_by_solve(base: Base, index: Tensor, y: Tensor, alpha: float = ALPHA) -> tuple[Tensor, Tensor]:
    """``label_spreading`` by one linear system instead of eigenvectors."""
    start = torch.zeros(len(index), len(base.s), y.shape[2]).to(y).scatter_(1, index[..., None].expand_as(y), y)
    one = torch.eye(len(base.s)).to(y)
    found = torch.linalg.solve((1 + alpha) * one - 2 * alpha * base.s, start.transpose(0, 1).flatten(1))
    found = found.unflatten(1, (len(index), -1)).transpose(0, 1)
    return found, base.new @ found


def block_graph(
    sizes: int, blocks: int, inside: float, outside: float, held: float, *, generator: Generator
) -> tuple[Base, Tensor, Tensor]:
    """A stochastic block graph of blocks · sizes nodes, a share ``held`` of them new: its kernel, blocks of both
    kinds."""
    y = torch.arange(sizes * blocks) % blocks
    chance = torch.where(y[:, None] == y, inside, outside)
    edges = (torch.rand(chance.shape, generator=generator) < chance).double().triu(1)
    edges = edges + edges.T
    known = round(len(y) * (1 - held))
    return graph_kernel(edges[:known, :known], edges[known:, :known]), y[:known], y[known:]


def compare_blocks(
    seed: int, ratios: dict[str, Ratio], held: float = 0.3, count: int = 3, graphs: int = 3, draws: int = 6,
    inside: float = 0.15, outside: float = 0.02,
) -> dict[str, tuple[float, float]]:  # fmt: skip
    """Accuracy on a block graph's own nodes and on its new ones, by each transform and by label spreading: means over
    graphs and draws of the labels."""
    g, found = Generator().manual_seed(mixed_seed(seed, 62)), {}
    for i in range(graphs):
        base, y, truth = block_graph(60, 5, inside, outside, held, generator=g)
        index, target = _labelled(y, count, draws, mixed_seed(seed, i))
        guesses = {name: closed_form(base, index, target, ratio, RIDGE) for name, ratio in ratios.items()}
        guesses["label spreading"] = label_spreading(base, index, target, ALPHA)
        guesses["label propagation"] = label_propagation(base, index, target)
        for name, (here, there) in guesses.items():
            found.setdefault(name, []).append((_right(here, y, index), _right(there, truth)))
    return {name: tuple(torch.tensor(values).mean(0).tolist()) for name, values in found.items()}


def product_times(
    counts: Sequence[int] = (250, 500, 1000, 2000), columns: int = 10, times: int = 6
) -> dict[str, list[float]]:
    """Processor seconds of one product with S, dense and sparse, on rings of so many nodes: the least of ``times``."""
    found = {"dense": [], "sparse": []}
    for count in counts:
        base = ring(count)
        v = torch.randn(count, columns, dtype=torch.float64, generator=Generator().manual_seed(0))
        for name, s in (("dense", base.s), ("sparse", base.sparse)):
            spent = []
            for _ in range(times):
                began = time.process_time()
                for _ in range(4):
                    s @ v
                spent.append((time.process_time() - began) / 4)
            found[name].append(min(spent))
    return found


def log_slope(x: Sequence[float], y: Sequence[float]) -> float:
    """The slope of a line through log y over log x."""
    x, y = (torch.as_tensor(v, dtype=torch.float64).log() for v in (x, y))
    return float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())


def nested(counts: Sequence[int]) -> Tensor:
    """Weights of arms that see the first m labelled points each: (arms, most), 1/m on m of them."""
    return torch.stack([(torch.arange(max(counts)) < m).float() / m for m in counts])


def gaussian_table(
    seed: int, labels: Sequence[int] = (10, 20, 40), counts: Sequence[int] = (100, 1000, 10_000), shift: float = 0.0,
    draws: int = 3, d: int = 200, budget: float = 0.3, rivals: bool = True, nuisance: float = 1.0,
) -> dict[str, list[list[float]]]:  # fmt: skip
    """The poster's table: exact accuracy for each number of labels and of unlabelled points, [labels][counts].

    Fewer labels are the first of the others; each number of unlabelled points has draws of its own, up to 1,000 three
    times as many, because they differ more. ``budget``: how far an
    adversary moves test points for "…, robust". Rivals: "ERM" the mean direction; "nothing moved" RSS with γ'
    infinite, the plain pseudo-label in the same objective; "pseudo-labels, once" and "…, repeated" self-training;
    "EM" soft self-training
    """
    g = Generator().manual_seed(mixed_seed(seed, 70))
    spread = torch.ones(d)
    spread[1] = nuisance
    weight, found = nested(labels), {}
    for n in counts:
        r = draws if n > 1000 else 3 * draws
        x, y, some = gaussian_pair(r, max(labels), n, d, shift, generator=g, spread=spread)
        fits = {"ERM": mean_direction(x, y, weight), "RSS": rss(x, y, some, weight)[0]}
        if rivals:
            fits["pseudo-labels, once"] = self_training(x, y, some, weight, 1)
            fits["pseudo-labels, repeated"] = self_training(x, y, some, weight, 10)
            fits["EM"] = self_training(x, y, some, weight, 10, soft=True)
            if n <= 1000:
                fits["nothing moved"] = rss(x, y, some, weight, gamma_u=torch.inf)[0]
        for name, w in fits.items():
            score = gaussian_accuracy(w, spread=spread).mean(0)
            found.setdefault(name, []).append(score.tolist())
            if name in ("ERM", "RSS"):
                score = gaussian_accuracy(w, spread=spread, budget=budget).mean(0)
                found.setdefault(f"{name}, robust", []).append(score.tolist())
    return {name: [list(column) for column in zip(*rows, strict=True)] for name, rows in found.items()}


def erm_excess_error(
    seed: int, labels: Sequence[int] = (50, 200, 800, 3200), d: int = 100, draws: int = 6
) -> list[float]:
    """Excess error of the mean direction over Φ(1), at each number of labels."""
    x, y, _ = gaussian_pair(draws, max(labels), 0, d, generator=Generator().manual_seed(mixed_seed(seed, 71)))
    best = float(torch.special.ndtr(torch.ones(1, dtype=torch.float64)))
    return (best - gaussian_accuracy(mean_direction(x, y, nested(labels))).mean(0)).tolist()


def sweep_weight(
    seed: int, lams: Sequence[float] = (0.0, 0.3, 3.0, 30.0, 300.0), n: int = 1000, draws: int = 4
) -> dict[str, list[float]]:
    """Accuracy over λ with ten labels, without and with a bias, and the share of unlabelled points on the larger
    side."""
    x, y, u = gaussian_pair(draws, 10, n, generator=Generator().manual_seed(mixed_seed(seed, 72)))
    lam, found = torch.tensor(lams), {}
    for name, bias in (("without a bias", False), ("with a bias", True)):
        w, b = rss(x, y, u, lam=lam, bias=bias)
        found[name] = gaussian_accuracy(w, b).mean(0).tolist()
        share = (u @ w.mT + b[:, None] > 0).double().mean(1)
        found[f"larger side, {name}"] = torch.maximum(share, 1 - share).mean(0).tolist()
    return found


def blob_control(seed: int, n: int = 4000, draws: int = 6) -> dict[str, float]:
    """Forty labels on one round cloud: what unlabelled points do where there are no clusters."""
    x, y, u = one_blob(draws, 40, n, generator=Generator().manual_seed(mixed_seed(seed, 73)))
    fits = {"ERM": mean_direction(x, y), "RSS": rss(x, y, u)[0], "EM": self_training(x, y, u, soft=True)}
    return {name: float(blob_accuracy(w).mean()) for name, w in fits.items()}


PAIRS = ((3, 5), (4, 9), (2, 7), (6, 8))
DIGIT_ARMS = ("RSS", "nothing moved", "robust ERM", "ERM", "pseudo-labels, repeated")


def compare_shifted_digits(
    stage, seed: int, labels: int = 10, shifts: Sequence[int] = (0, 1, 2), draws: int = 5, lam: float = 0.1,
    gamma_u: float = 0.3, scale: float = 2.0, components: int = 30,
) -> dict[str, list[float]]:  # fmt: skip
    """Pairs of digits told apart by a line: test accuracy for each shift, in pixels, of the unlabelled digits.

    Mean over four pairs and draws of the labels. Unlabelled digits are all others of the pair, moved to the right;
    pixels are centred and turned into principal components of all points at hand, of a root mean square of ``scale``
    """
    found = {}
    for pair in PAIRS:
        part = stage.only(pair)
        x, y, test, truth = part.pool.x.cpu(), part.pool.y.cpu(), part.test.x.cpu(), part.test.y.cpu()
        index = several(draws, few_labels, y, labels // 2, generator=Generator().manual_seed(mixed_seed(seed, 74)))
        for shift in shifts:
            pictures = x.view(len(x), stage.channels, stage.side, stage.side)
            moved = F.pad(pictures, (shift, 0))[..., : stage.side].flatten(1)
            mean = moved.mean(0)
            axes = torch.linalg.eigh((moved - mean).T @ (moved - mean) / len(moved))[1][:, -components:]
            size = scale / ((moved - mean) @ axes).square().sum(1).mean().sqrt() * components**0.5
            z, u, t = (size * (rows - mean) @ axes for rows in (x, moved, test))
            known, sign = z[index], 1 - 2.0 * y[index]
            known = known - known.mean(1, keepdim=True)  # as many of each class
            u = u.expand(draws, *u.shape)
            weights, prices = torch.tensor([lam, lam, 0]), torch.tensor([gamma_u, torch.inf, 1])
            arms = rss(known, sign, u, lam=weights, gamma_u=prices)[0]
            w = torch.cat([arms, mean_direction(known, sign), self_training(known, sign, u)], 1)
            middle = t - z[index].mean(1, keepdim=True)
            right = ((middle @ w.mT > 0) == (truth == 0)[:, None]).double().mean((0, 1)).tolist()
            for name, value in zip(DIGIT_ARMS, right, strict=True):
                found.setdefault(name, {}).setdefault(shift, []).append(value)
    return {name: [sum(row[s]) / len(row[s]) for s in shifts] for name, row in found.items()}
