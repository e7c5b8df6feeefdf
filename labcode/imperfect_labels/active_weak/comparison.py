"""The chapter's experiments: strategies on pools, influence and training again, Loki on sprites, pairs on graphs."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ...nets.stacked import StackedMLP, draw_rows
from ..training import accuracies, cross_entropy, train
from .acquisition import random_choice
from .heads import accuracy, acquire_rounds, fit_heads, judge_rounds, predict, with_bias
from .isal import expected_target, gradients, hessian, influence, lissa, reference_direction, retrained_changes, solve
from .loki import (
    cycle_distances,
    frechet_mean,
    grid_distances,
    hierarchy_distances,
    knn_probabilities,
    squared_distance,
    with_temperature,
)
from .pairwise import (
    draw_pairs,
    hidden_partition,
    items_wrong,
    planted_graph,
    resistance_cut,
    saca,
    side_information,
    signed_spectral,
    skewed_sizes,
    two_colouring,
)
from .pool import Pool, label_sprites
from .typiclust import spread_accuracy, spreading

Rounds = list[Tensor]
Table = dict[str, list[list[float]]]  # arm -> at each budget one value a seed


def choose(
    pools: Sequence[Pool], seeds: Sequence[int], arms: dict | Callable, budgets: Sequence[int], draws: int = 12, *,
    start: int = 0, fresh: bool = False,
) -> dict[str, list[Rounds]]:  # fmt: skip
    """What each strategy labels on each seed's pool: {arm: [rounds of a seed, …]}, see ``acquire_rounds``.

    arms   {name: strategy}, or a function (pool, seed) that makes it
    start  rows drawn at random that have a label before the first round, the same for all arms; they count
    fresh  every budget is chosen from the start in one step, not on top of the smaller one
    """
    found: dict[str, list[Rounds]] = {}
    for pool, seed in zip(pools, seeds, strict=True):
        first = acquire_rounds(random_choice, pool.x, pool.y, (start,), draws, seed=seed)[0] if start else None
        options = dict(draws=draws, seed=seed, start=first)
        for name, acquire in (arms(pool, seed) if callable(arms) else arms).items():
            plans = [(b,) for b in budgets] if fresh else [tuple(budgets)]
            rounds = [r for plan in plans for r in acquire_rounds(acquire, pool.x, pool.y, plan, **options)]
            found.setdefault(name, []).append(rounds)
    return found


def judge(pools: Sequence[Pool], chosen: dict[str, list[Rounds]], by: Callable[[Pool, Rounds], list[float]]) -> Table:
    """A judge's value for every arm, budget and seed."""
    made = {name: [by(p, rounds) for p, rounds in zip(pools, each, strict=True)] for name, each in chosen.items()}
    return {name: [list(point) for point in zip(*each, strict=True)] for name, each in made.items()}


def by_head(measure=accuracy, l2: float = 0.01) -> Callable[[Pool, Rounds], list[float]]:
    """A logistic regression on the features, judged on the test images; the mean over draws."""
    return lambda p, rounds: judge_rounds(rounds, p.x, p.y, p.test, p.y_test, measure=measure, l2=l2)


def by_spreading(pool: Pool, rounds: Rounds) -> list[float]:
    """Label spreading over the pool: the share of its other rows that it gets right."""
    kernel = spreading(pool.x)
    return [float(spread_accuracy(kernel, pool.y, chosen).mean()) for chosen in rounds]


def by_network(pool: Pool, rounds: Rounds, steps: int = 60, seed: int = 0) -> list[float]:
    """Perceptrons on pixels, trained on the labelled images alone from random weights; the mean test accuracy."""
    found = []
    flat = lambda x: x.flatten(1).float() / (255 if x.dtype == torch.uint8 else 1)  # noqa: E731
    images, tests = flat(pool.images), flat(pool.test_images)
    for chosen in rounds:
        g = torch.Generator(images.device).manual_seed(seed)
        net = StackedMLP(len(chosen), [images.shape[1], 64, 10], norm=False, generator=g)
        x, y = images[chosen], pool.y[chosen]

        def loss(i: int, net=net, x=x, y=y, g=g) -> Tensor:
            rows = draw_rows(net.n, x.shape[1], 32, generator=g)
            at = torch.arange(net.n, device=x.device)[:, None]
            return cross_entropy(net(x[at, rows]), y[at, rows])

        train(net, loss, steps, lr=3e-3, label="pixels")
        found.append(sum(accuracies(net, tests, pool.y_test)) / net.n)
    return found


def compress(pool: Pool, d: int = 32) -> Pool:
    """The pool with the d leading principal components as features, of mean square 1: small Hessians."""
    v = torch.linalg.svd(pool.x, full_matrices=False).Vh[:d].T
    size = (pool.x @ v).square().mean().sqrt()
    return replace(pool, x=pool.x @ v / size, test=pool.test @ v / size)


def ranked(x: Tensor) -> Tensor:
    return x.argsort().argsort().double()


def spearman(a: Tensor, b: Tensor) -> float:
    """Rank correlation; 0 where one of them is constant."""
    return float(torch.corrcoef(torch.stack([ranked(a), ranked(b)]))[0, 1].nan_to_num(0))


def influence_check(
    pool: Pool, seed: int, labelled: int, *, candidates: int = 80, reference: int = 100, draws: int = 4, d: int = 16,
    l2: float = 0.05,
) -> dict[str, float]:  # fmt: skip
    """Rank correlations of estimated influence with the change of the reference loss after training again with the true
    label: means over draws of labelled, reference and candidate rows.

    "agree" holds the correlation of the influence by pseudo-label with that by true label, "overlap" the share of the
    most helpful fifth that they have in common.
    """
    small = compress(pool, d)
    x, sums = with_bias(small.x.double()), {}
    for draw in range(draws):
        g = torch.Generator().manual_seed(1000 * seed + draw)
        order = torch.randperm(len(x), generator=g)
        rows, ref, cand = order[:labelled], order[labelled:][:reference], order[labelled + reference :][:candidates]
        change, p = retrained_changes(x, pool.y, rows, cand, ref, 10, l2)
        make = lambda inverse, p=p, rows=rows, ref=ref: reference_direction(  # noqa: E731
            x, p, rows, ref, pool.y[ref], l2, inverse
        )
        s, plain = make(True), make(False)
        target = {h: expected_target(p, h, small.x.double(), rows, pool.y[rows]) for h in ("argmax", "top2", "nearest")}
        target["true"] = torch.nn.functional.one_hot(pool.y, 10).double()
        by = {h: influence(x[cand], p[cand], t[cand], s) for h, t in target.items()}
        by["true, no inverse"] = influence(x[cand], p[cand], target["true"][cand], plain)
        by["entropy"] = -torch.special.entr(p[cand]).sum(1)
        found = {name: spearman(value, change) for name, value in by.items()}
        found["agree"] = spearman(by["argmax"], by["true"])
        top = [set(by[h].topk(candidates // 5, largest=False).indices.tolist()) for h in ("argmax", "true")]
        found["overlap"] = len(top[0] & top[1]) / len(top[0])
        sums = {name: sums.get(name, 0) + value / draws for name, value in found.items()}
    return sums


def lissa_check(pool: Pool, seed: int, iterations: int, labelled: int = 80, l2: float = 0.05) -> tuple[float, float]:
    """The cosine of LiSSA's H⁻¹ g with the exact one, and how many times its processor time is the exact one's."""
    small = compress(pool, 16)
    g = torch.Generator().manual_seed(seed)
    x = with_bias(small.x)
    order = torch.randperm(len(x), generator=g)
    rows, ref = order[:labelled], order[labelled : labelled + 60]
    p = predict(fit_heads(small.x[rows][None], pool.y[rows][None], 10, l2), small.x)[0]
    target = torch.nn.functional.one_hot(pool.y[ref], 10).float()
    reference = gradients(x[ref], p[ref], target).mean(0)

    def product(i: int, v: Tensor) -> Tensor:
        xi, pi = x[rows[i]], p[rows[i]]
        along = xi @ v.view(len(xi), -1)
        return (xi[:, None] * (pi * along - pi * (pi @ along))).flatten() + l2 * v

    begun = time.process_time()
    exact = solve(hessian(x[rows], p[rows], l2), reference)
    middle = time.process_time()
    about = lissa(product, reference, labelled, generator=g, iterations=iterations, damping=0.0, scale=60.0)
    end = time.process_time()
    return float(torch.cosine_similarity(exact, about, 0)), (end - middle) / max(middle - begun, 1e-6)


def labels_needed(budgets: Sequence[int], values: Sequence[float], level: float) -> float:
    """Labels, by a line between the measured budgets, at which a curve first reaches a level; else the last."""
    for i, value in enumerate(values):
        if value >= level:
            if i == 0:
                return float(budgets[0])
            share = (level - values[i - 1]) / (value - values[i - 1])
            return budgets[i - 1] + share * (budgets[i] - budgets[i - 1])
    return float(budgets[-1])


def sprites(run, seed: int, kind: str = "grid", n: int = 1500, dim: int = 48) -> dict[str, Tensor]:
    """Sprites for training and testing as their leading principal components, and the distances of their labels."""
    train_split, test_split = run.splits
    x, y = label_sprites(run, n, seed, train_split, kind)
    t, y_test = label_sprites(run, n, seed, test_split, kind)
    mean = x.mean(0)
    v = torch.linalg.svd(x - mean, full_matrices=False).Vh[:dim].T
    d = grid_distances(5) if kind == "grid" else cycle_distances(16)
    size = ((x - mean) @ v).square().mean().sqrt()
    return {"x": (x - mean) @ v / size, "y": y, "test": (t - mean) @ v / size, "y_test": y_test, "d": d, "images": t}


def observed_only(s: dict[str, Tensor], observed: Sequence[int], l2: float = 1e-3) -> dict[str, Tensor]:
    """Classifiers that saw only some labels: probabilities of the test images by logistic regression and by 5-NN."""
    o = torch.tensor(observed)
    place = torch.full((len(s["d"]),), -1)
    place[o] = torch.arange(len(o))
    kept = place[s["y"]] >= 0
    x, y = s["x"][kept], place[s["y"][kept]]
    p = predict(fit_heads(x[None], y[None], len(o), l2, 300), s["test"])[0]
    near = knn_probabilities(x, y, s["test"], len(o))
    return {"logistic": p.double(), "5-NN": near, "observed": o, "x": x, "y": o[y]}


def loki_errors(
    s: dict[str, Tensor], made: dict[str, Tensor], head: str = "logistic", t: float = 1.0, d: Tensor | None = None
) -> tuple[float, float, float]:
    """Mean squared distance by argmax and by Loki, and Loki's accuracy on labels that were not observed."""
    p, o, truth = with_temperature(made[head], t), made["observed"], s["y_test"]
    chosen = frechet_mean(p, (s["d"] if d is None else d)[:, o])
    unseen = ~torch.isin(truth, o)
    right = float((chosen == truth)[unseen].double().mean()) if bool(unseen.any()) else 1.0
    return squared_distance(o[p.argmax(1)], truth, s["d"]), squared_distance(chosen, truth, s["d"]), right


def by_coordinates(s: dict[str, Tensor], made: dict[str, Tensor], ridge: float = 0.1) -> float:
    """The obvious rival on a grid: ridge regression of the two coordinates, rounded to the nearest cell.

    ridge  0.1 is the best of 0.01 … 1000, in factors of about three or ten, on other seeds
    """
    side = round(len(s["d"]) ** 0.5)
    at = lambda y: torch.stack([y // side, y % side], 1).float()  # noqa: E731
    x, t = with_bias(made["x"]), with_bias(s["test"])
    w = torch.linalg.solve(x.T @ x + ridge * torch.eye(x.shape[1]), x.T @ at(made["y"]))
    cell = (t @ w).round().clamp(0, side - 1).long()
    return squared_distance(cell[:, 0] * side + cell[:, 1], s["y_test"], s["d"])


def pair_errors(
    n: int, k: int, m: int, draws: int, seed: int, methods: Sequence[str] = ("SACA",), ratio: float = 2.0
) -> dict[str, float]:
    """Mean items wrong of each method over draws of m pairs: "SACA", "components" (not merged), "signed spectral",
    "two colours"."""
    y = hidden_partition(skewed_sizes(n, k, ratio))
    sums = dict.fromkeys(methods, 0.0)
    for draw in range(draws):
        pairs, same = draw_pairs(y, m, torch.Generator().manual_seed(1000 * seed + draw))
        for name in methods:
            found = {
                "SACA": lambda pairs=pairs, same=same: saca(n, pairs, same, k),
                "components": lambda pairs=pairs, same=same: saca(n, pairs, same),
                "signed spectral": lambda pairs=pairs, same=same, draw=draw: signed_spectral(n, pairs, same, k, draw),
                "two colours": lambda pairs=pairs, same=same: two_colouring(n, pairs, same),
            }[name]()
            sums[name] += items_wrong(found, y) / draws
    return sums


def side_errors(n: int, k: int, m: int, agreement: float, draws: int, seed: int) -> tuple[float, float]:
    """Mean items wrong of the baseline with side information, and the graph's mean resistance-weighted cut."""
    y, wrong, cut = hidden_partition(skewed_sizes(n, k)), 0.0, 0.0
    for draw in range(draws):
        g = torch.Generator().manual_seed(1000 * seed + draw)
        pairs, same = draw_pairs(y, m, g)
        graph = planted_graph(y, 10, agreement, g)
        wrong += items_wrong(side_information(graph, pairs, same, k, seed=draw), y) / draws
        cut += resistance_cut(graph, y) / draws
    return wrong, cut


def saca_seconds(n: int, seed: int, k: int = 8, side: bool = False) -> float:
    """Processor time of SACA on n items and 8n pairs, the least of three; or of the baseline with side information."""
    y = hidden_partition(skewed_sizes(n, k))
    g = torch.Generator().manual_seed(seed)
    pairs, same = draw_pairs(y, 8 * n, g)
    graph = planted_graph(y, 10, 0.8, g) if side else None
    spent = []
    for _ in range(3):
        begun = time.process_time()
        if graph is None:
            saca(n, pairs, same, k)
        else:
            side_information(graph, pairs, same, k)
        spent.append(time.process_time() - begun)
    return min(spent)


def cifar100_gain(run, seed: int) -> float:
    """Full scale: the share by which Loki lowers the mean squared distance on CIFAR-100, half of the classes observed.

    A ResNet-18 is trained by contrast without labels; the head is a logistic regression on its features. The metric is
    the tree of the twenty superclasses.
    """
    from ... import nets
    from ...augment import simclr_views
    from ...data import benchmark
    from .cold_start import contrast, encode

    data = benchmark("cifar100", device=run.device)
    few = 512 if run.dry else None
    images, y = data.train_images[:few], data.train_labels[:few]
    tests, y_test = data.test_images[:few], data.test_labels[:few]
    encoder = nets.seeded(seed, nets.ResNet18).to(run.device)
    size = 32 if run.dry else 512
    made = contrast(images, encoder, encoder.features, simclr_views, epochs=200, batch_size=size, lr=1e-3, seed=seed)
    order = torch.randperm(100, generator=torch.Generator().manual_seed(seed))
    s = {"x": 20 * made.features.cpu(), "y": y.cpu(), "test": 20 * encode(encoder, tests).cpu(), "y_test": y_test.cpu(),
         "d": hierarchy_distances()}  # fmt: skip
    plain, mean, _ = loki_errors(s, observed_only(s, sorted(order[:50].tolist())))
    return 1 - mean / max(plain, 1e-9)
