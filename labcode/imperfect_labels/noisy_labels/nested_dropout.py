"""Nested dropout: keep the first k features, a random k for each batch, so that features order themselves by use.

Chen et al. 2021, *Compressing Features for Learning with Noisy Labels*; nested dropout is of Rippel et al. 2014.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor

from ...loss import check_positive
from ...nets.stacked import take
from ..training import cross_entropy, predict
from .robust import by_arm, co_teaching_weights, generalised_cross_entropy, per_sample, repeated
from .stage import Images, Stage, learn


def truncation(features: int, sigma: float) -> Float[Tensor, " f"]:
    """P(k) for k = 1 … features, proportional to exp(-(k / sigma)^2): half a normal distribution, its mean at 0.

    sigma  10 on CIFAR-10, 100 on larger label sets, in the released code; > 0

    Raises ValueError for a sigma that is not positive.
    """
    check_positive(sigma=sigma)
    k = torch.arange(1, features + 1, dtype=torch.float64)
    return torch.softmax(-((k / sigma) ** 2), 0)


def draw_lengths(n: int, features: int, sigma: float, *, generator: Generator) -> Int[Tensor, " n"]:
    """One k a network, for its whole batch."""
    chance = truncation(features, sigma).float().to(generator.device)
    return torch.multinomial(chance, n, True, generator=generator) + 1


def keep_first(f: Float[Tensor, "n b f"], k: Int[Tensor, " n"]) -> Float[Tensor, "n b f"]:
    """Features 1 … k of each network, zeros behind; not rescaled (the paper's M(k))."""
    return f * (torch.arange(f.shape[-1], device=f.device) < k[:, None])[:, None].to(f.dtype)


def logits_by_length(
    f: Float[Tensor, "n b f"], weight: Float[Tensor, "n k f"], bias: Float[Tensor, "n k"], lengths: list[int]
) -> Float[Tensor, "l n b k"]:
    """What a linear head says on the first 1, 2, … features: logits for every length asked for, in one pass.

    Partial sums: a longer prefix adds its features' products to a shorter one's.
    """
    out, done, at = [], bias[:, None].expand(*f.shape[:2], -1), 0
    for length in lengths:
        done = done + f[..., at:length] @ weight[..., at:length].mT
        at = length
        out.append(done)
    return torch.stack(out)


def saturation(accuracy: Float[Tensor, "l *n"], lengths: list[int], within: float = 0.01) -> Float[Tensor, "*n"]:
    """The smallest length whose accuracy is within ``within`` of the best: how many features do the work."""
    enough = accuracy >= accuracy.max(0, keepdim=True).values - within
    return torch.tensor(lengths, dtype=torch.float64)[enough.int().argmax(0)]


def smooth_regression(
    seed: int, *, hidden: int = 64, features: int = 64, points: int = 60, noise: float = 0.8, sigma: float = 10.0,
    steps: int = 500, draws: int = 8,
) -> dict[str, Tensor]:  # fmt: skip
    """The paper's one-dimensional picture: noisy points of a sine, fitted with and without nested dropout.

    Returns "x" (grid), "truth", "points" (2, points), "plain" (grid,) and "nested" (lengths, grid) of the first draw,
    "lengths", and the mean squared errors "error plain" (1,) and "error nested" (lengths,), median over the draws: now
    and then a fit without a limit on its last features runs far off.
    """
    from ...nets.stacked import StackedMLP
    from ..training import train

    g = torch.Generator().manual_seed(seed + 91)
    x = torch.rand(draws, points, 1, generator=g) * 2 - 1
    t = torch.sin(torch.pi * x) + noise * torch.randn(x.shape, generator=g)
    net = StackedMLP(2 * draws, [1, hidden, features, 1], norm=False, generator=g, same=draws)
    with torch.no_grad():
        net.body[0].weight.mul_(8)
        net.body[0].bias.mul_(8)
    x2, t2 = x.repeat(2, 1, 1), t.repeat(2, 1, 1)

    def loss(step: int) -> Tensor:
        k = draw_lengths(2 * draws, features, sigma, generator=g)
        k[:draws] = features
        return ((net.head(keep_first(net.features(x2), k)) - t2) ** 2).mean((1, 2)).sum()

    train(net, loss, steps, lr=5e-3)
    grid, lengths = torch.linspace(-1, 1, 200)[:, None], [1, 2, 4, 8, 16, 32, 64]
    with torch.no_grad():
        fits = logits_by_length(net.features(grid), net.head.weight, net.head.bias, lengths)[..., 0]
    truth = torch.sin(torch.pi * grid[:, 0])
    error = ((fits - truth) ** 2).mean(-1)
    told = {"x": grid[:, 0], "truth": truth, "points": torch.stack([x[0, :, 0], t[0, :, 0]]), "plain": fits[-1, 0]}
    told |= {"nested": fits[:, draws], "lengths": torch.tensor(lengths)}
    plain, nested = error[-1:, :draws], error[:, draws:]
    return told | {"error plain": plain.median(1).values, "error nested": nested.median(1).values}


LENGTHS = [1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128]
KINDS = ("cross-entropy", "dropout", "nested", "GCE")


def learn_compressed(
    stage: Stage, images: Images, labels: Int[Tensor, "d N"], seed: int, *, epochs: int, sigma: float = 10.0,
    p: float = 0.3, keep: float | None = None, second: int = 0, **how,
) -> dict:  # fmt: skip
    """Stage one: networks without compression, with dropout, with nested dropout, and with GCE; stage two: Co-teaching.

    labels  one row a draw; every arm has two networks a draw, which teach each other in stage two
    sigma   of ``truncation``; p of dropout, before the head only
    keep    share of small losses in stage two: 1 - noise rate in the paper
    second  epochs of stage two at a tenth of the learning rate; 0 leaves it out

    Returns for each stage, 1 and 2, by arm: test accuracy with all features ("full") and with the number that is best
    on clean and on noisy held-out labels ("clean k", "noisy k"), "by length" at "lengths", "memorised", "features"
    (see ``saturation``), and of the probabilities' mean over an arm's networks "bias", of their spread "variance".
    Departs: held-out images are 300 further ones; AdamW; both networks see the same batch.
    """
    d, count = labels.shape
    twice = labels.repeat_interleave(2, 0)
    all_labels = repeated(twice, len(KINDS))
    n, each = len(all_labels), 2 * d
    g = stage.generator(seed, 41)
    net = stage.net(n, generator=g, same=each)
    width = net.head.weight.shape[-1]
    lengths = [k for k in LENGTHS if k < width] + [width]
    parts = {name: slice(i * each, (i + 1) * each) for i, name in enumerate(KINDS)}

    def masked(f: Tensor) -> Tensor:
        k = torch.full((n,), width, device=f.device)
        k[parts["nested"]] = draw_lengths(each, width, sigma, generator=g)
        f = keep_first(f, k)
        some = f[parts["dropout"]]
        kept = (torch.rand(some.shape, generator=g, device=f.device) >= p).to(f.dtype) / (1 - p)
        return torch.cat([f[: each], some * kept, f[2 * each :]])

    def logits_of(rows: Tensor) -> tuple[Tensor, Tensor]:
        return net.head(masked(net.features(take(images.x, rows, own=False)))), take(all_labels, rows, own=True)

    def loss(rows: Tensor, epoch: int) -> Tensor:
        logits, y = logits_of(rows)
        plain = slice(0, 3 * each)
        return cross_entropy(logits[plain], y[plain]) + generalised_cross_entropy(logits[3 * each :], y[3 * each :])

    def taught(rows: Tensor, epoch: int) -> Tensor:
        logits, y = logits_of(rows)
        with torch.no_grad():
            clean = per_sample(net.head(keep_first(net.features(take(images.x, rows, own=False)), best)), y)
        return (per_sample(logits, y) * co_teaching_weights(clean, keep)).sum()

    told = {}
    learn(net, loss, count, networks=n, epochs=epochs, generator=g, streams=d, **how)
    told[1], best = _measured(stage, net, images, all_labels, lengths, seed)
    if second:
        order = dict(streams=1) | how | {"lr": how.get("lr", 3e-3) / 10}
        learn(net, taught, count, networks=n, epochs=second, generator=g, **order)
        told[2], _ = _measured(stage, net, images, all_labels, lengths, seed)
    return told


@torch.no_grad()
def _measured(stage: Stage, net, images: Images, labels: Tensor, lengths: list[int], seed: int):
    net.eval()
    names, n = list(KINDS), len(labels)
    more = stage.images(seed + 1000, 300)
    noise = torch.Generator().manual_seed(seed)
    flips = (torch.rand(len(more.y), generator=noise) < 0.4).to(more.y.device)
    other = torch.randint(1, stage.classes, (len(more.y),), generator=noise).to(more.y.device)
    noisy = torch.where(flips, (more.y + other) % stage.classes, more.y)

    def right(x: Tensor, *ys: Tensor) -> list[Tensor]:
        said = logits_by_length(net.features(x), net.head.weight, net.head.bias, lengths).argmax(-1)
        return [(said == y).double().mean(-1).cpu() for y in ys]

    by_clean, by_noisy = right(more.x, more.y, noisy)
    (test,) = right(stage.test.x, stage.test.y)
    tie = -1e-5 * torch.tensor(lengths, dtype=torch.float64)[:, None]
    chosen = {"clean k": (by_clean + tie).argmax(0), "noisy k": (by_noisy + tie).argmax(0)}
    told = {"full": by_arm(test[-1].tolist(), names), "by length": by_arm(list(test.T), names), "lengths": lengths}
    for name, k in chosen.items():
        told[name] = by_arm(test[k, torch.arange(n)].tolist(), names)
    told["features"] = by_arm(saturation(test, lengths).tolist(), names)
    said = predict(net, images.x).argmax(-1)
    wrong = labels != images.y
    told["memorised"] = by_arm((((said == labels) & wrong).sum(1) / wrong.sum(1).clamp_min(1)).tolist(), names)
    p = predict(net, stage.test.x)
    p = p.view(len(names), -1, *p.shape[1:])
    told["variance"] = dict(zip(names, p.var(1).sum(-1).mean(-1).tolist(), strict=True))
    truth = F.one_hot(stage.test.y, stage.classes).to(p)
    told["bias"] = dict(zip(names, (p.mean(1) - truth).square().sum(-1).mean(-1).tolist(), strict=True))
    best = torch.tensor(lengths)[chosen["clean k"]].to(labels.device)
    best[len(best) // 4 * 3 :] = lengths[-1]
    return told, best
