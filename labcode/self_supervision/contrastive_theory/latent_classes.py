"""Latent classes (Arora et al., 2019): the contrastive loss bounds that of a classifier made of class means."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ...loss import check_matrix, float32
from ._common import Labels, Rows, Scalar, class_means, learn, ridge_accuracy


class LatentClasses:
    """A world of C equally likely classes: x = a fixed random map of (class centre + noise, nuisance).

    ``draw(n)`` gives inputs and classes, ``pairs(n, k)`` an input, another of its class, and k from the marginal: the
    data of A Theoretical Analysis of Contrastive Unsupervised Representation Learning (Arora et al., 2019).

    classes   C >= 2
    noise     standard deviation of a point about its class's centre, in each of ``dim`` coordinates
    nuisance  further coordinates that carry no class
    """

    def __init__(self, classes: int, seed: int = 0, dim: int = 8, noise: float = 0.6, nuisance: int = 8):
        if classes < 2:
            raise ValueError(f"classes must be at least 2, got {classes}")
        fixed = torch.Generator().manual_seed(seed)
        self.classes, self.noise, self.nuisance = classes, noise, nuisance
        self.centres = F.normalize(torch.randn(classes, dim, generator=fixed), dim=1) * math.sqrt(dim) / 2
        width = dim + nuisance
        self.maps = [torch.randn(width, 64, generator=fixed) / math.sqrt(width),
                     torch.randn(64, 32, generator=fixed) / 8]  # fmt: skip

    @property
    def collision(self) -> float:
        """τ = P(c = c'), the chance that a negative is of the positive's class."""
        return 1 / self.classes

    def draw(self, n: int, generator: torch.Generator, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        y = torch.randint(self.classes, (n,), generator=generator) if labels is None else labels
        inner = self.centres[y] + self.noise * torch.randn(n, self.centres.shape[1], generator=generator)
        nuisance = torch.randn(n, self.nuisance, generator=generator)
        return torch.sin(torch.cat([inner, nuisance], 1) @ self.maps[0] / 2) @ self.maps[1], y

    def pairs(self, n: int, k: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """x (n, 32), x⁺ (n, 32), x⁻ (n, k, 32)."""
        x, y = self.draw(n, generator)
        return x, self.draw(n, generator, y)[0], self.draw(n * k, generator)[0].view(n, k, -1)


@float32
def contrastive_logistic(
    f: Float[Tensor, "n d"], f_pos: Float[Tensor, "n d"], f_neg: Float[Tensor, "n k d"]
) -> Scalar:
    """L_un: mean log₂(1 + Σ_k exp(-f(x)ᵀ(f(x⁺) - f(x_k⁻)))).

    Arora et al. (2019), with the logistic loss in bits, for which ℓ(0) = 1 when k = 1: the bound needs
    it. Features are not normalised. With block means in place of f_pos and f_neg this is their block loss, CURL.

    Raises ValueError for shapes that do not fit together and for k = 0.
    """
    check_matrix("f", f)
    check_matrix("f_pos", f_pos, like=f)
    if f_neg.ndim != 3 or not f_neg.is_floating_point() or f_neg.shape[::2] != f.shape or f_neg.shape[1] < 1:
        raise ValueError(f"f_neg must be ({len(f)}, k, {f.shape[1]}) with k >= 1, got shape {tuple(f_neg.shape)}")
    margins = (f * f_pos).sum(1, keepdim=True) - (f_neg @ f[:, :, None])[..., 0]
    return _log2_one_plus(-margins).mean()


def _log2_one_plus(s: Float[Tensor, "n k"]) -> Float[Tensor, " n"]:
    """log₂(1 + Σ_k exp s_k)."""
    return torch.cat([torch.zeros_like(s[:, :1]), s], 1).logsumexp(1) / math.log(2)


def mean_classifier_loss(f: Rows, y: Labels, means: Float[Tensor, "c d"]) -> float:
    """L_sup^μ: the logistic loss, in bits, of the classifier f(x)ᵀ(μ_c - μ_c'), over pairs of unlike classes.

    Every ordered pair (c, c') weighs the same, whatever the number of rows of c.
    """
    scores, classes = f @ means.T, len(means)
    margins = scores.gather(1, y[:, None]) - scores
    loss = F.softplus(-margins) / math.log(2)
    each = class_means(loss, y, classes)  # rows: c, columns: c'
    return float((each.sum() - each.diagonal().sum()) / (classes * (classes - 1)))


def mean_classifier_accuracy(f: Rows, y: Labels, means: Float[Tensor, "c d"]) -> float:
    """Share of right answers of f(x)ᵀ μ_c over all classes."""
    return float(((f @ means.T).argmax(1) == y).float().mean())


def pair_classifier_loss(f: Rows, y: Labels, f_new: Rows, y_new: Labels, classes: int, steps: int = 40) -> float:
    """L_sup: as ``mean_classifier_loss`` with the best linear classifier of each pair of classes, no bias.

    Fitted on f, y from the mean classifier on, all pairs at once by L-BFGS; its loss is taken on new rows.
    """
    first, second = torch.triu_indices(classes, classes, 1)
    means = class_means(f, y, classes)
    w = (means[first] - means[second]).clone().requires_grad_()

    def loss(f: Rows, y: Labels) -> Scalar:
        between = w.new_zeros(classes, classes, f.shape[1])  # [c, c'] tells c from c', and [c', c] is its opposite
        between = between.index_put((first, second), w).index_put((second, first), -w)
        each = class_means(F.softplus(-(between[y] @ f[:, :, None])[..., 0]) / math.log(2), y, classes)
        return (each.sum() - each.diagonal().sum()) / (classes * (classes - 1))

    solver = torch.optim.LBFGS([w], max_iter=steps, line_search_fn="strong_wolfe")

    def closure() -> Scalar:
        solver.zero_grad()
        value = loss(f, y)
        value.backward()
        return value

    solver.step(closure)
    with torch.no_grad():
        return float(loss(f_new, y_new))


def arora_bound(unsupervised: float, collision: float) -> float:
    """(L_un - τ)/(1 - τ): what the mean classifier's loss cannot exceed. Arora et al. (2019), lemma 4.3.

    For k = 1, ℓ(0) = 1, population class means and pairs of distinct classes. Raises ValueError for τ outside [0, 1).
    """
    if not 0 <= collision < 1:
        raise ValueError(f"collision must be in [0, 1), got {collision}")
    return (unsupervised - collision) / (1 - collision)


def contrast_classes(
    world: LatentClasses, net: nn.Module, seed: int, steps: int, k: int = 1, block: int = 1
) -> nn.Module:
    """Train ``net`` on ``contrastive_logistic`` with k negatives, 64 fresh draws at every step.

    block  x⁺ and each x⁻ are the means of so many draws of one class: the paper's CURL, for block > 1
    """
    g = torch.Generator().manual_seed(seed)

    def mean_of_block(classes: Labels) -> Rows:
        x, _ = world.draw(block * len(classes), g, classes.repeat_interleave(block))
        return net(x).view(len(classes), block, -1).mean(1)

    def loss(_: Tensor) -> Scalar:
        if block > 1:
            x, y = world.draw(64, g)
            negatives = mean_of_block(torch.randint(world.classes, (64 * k,), generator=g))
            return contrastive_logistic(net(x), mean_of_block(y), negatives.view(64, k, -1))
        x, pos, neg = world.pairs(64, k, g)
        f, f_pos, f_neg = net(torch.cat([x, pos, neg.flatten(0, 1)])).split([64, 64, 64 * k])
        return contrastive_logistic(f, f_pos, f_neg.view(64, k, -1))

    return learn([net], loss, torch.tensor, steps, 3e-3)[0]


@torch.no_grad()
def chain_of_bounds(world: LatentClasses, net: nn.Module, n: int, seed: int, block: int = 5) -> dict[str, float]:
    """The links of the chain on n fresh draws each: "bound", "block bound", "mean classifier", "best linear".

    Class means and the best linear classifiers come from one sample, their losses from another.
    """
    g = torch.Generator().manual_seed(10_000 + seed)
    x, pos, neg = world.pairs(n, 1, g)
    single = contrastive_logistic(net(x), net(pos), net(neg))
    x, y = world.draw(n, g)
    others = torch.randint(world.classes, (n,), generator=g)
    pos, neg = (net(world.draw(n * block, g, c.repeat_interleave(block))[0]).view(n, block, -1) for c in (y, others))
    blocks = contrastive_logistic(net(x), pos.mean(1), neg.mean(1, keepdim=True))
    (a, y_a), (b, y_b) = world.draw(n, g), world.draw(n, g)
    a, b = net(a), net(b)
    with torch.enable_grad():
        best = pair_classifier_loss(a, y_a, b, y_b, world.classes, steps=20)
    return {
        "bound": arora_bound(float(single), world.collision),
        "block bound": arora_bound(float(blocks), world.collision),
        "mean classifier": mean_classifier_loss(b, y_b, class_means(a, y_a, world.classes)),
        "best linear": best,
    }


def taught_classes(world: LatentClasses, net: nn.Module, seed: int, steps: int) -> nn.Module:
    """Train ``net`` under a linear classifier on the labels, 64 fresh draws at every step: the supervised features."""
    g, head = torch.Generator().manual_seed(seed), nn.Linear(net[-1].out_features, world.classes)

    def loss(_: Tensor) -> Scalar:
        x, y = world.draw(64, g)
        return F.cross_entropy(head(net(x)), y)

    return learn([net, head], loss, torch.tensor, steps, 3e-3)[0]


@torch.no_grad()
def taken_apart(
    world: LatentClasses, net: Callable[[Tensor], Tensor], n: int, seed: int, shrink: float = 1.0
) -> dict[str, float]:
    """L_un on n fresh draws by whether the negative's class is the positive's: theorem 4.5 of Arora et al. (2019).

    "whole" L_un, "parted" τ L_= + (1 - τ) L_≠ from draws of their own, "collision" L_= - 1, "spread" s(f), the mean
    over classes of √‖Σ_c‖ times the mean of ‖f‖ there, and "bound" √2 / log 2 · s(f): no collision costs more, since
    ℓ(v) <= 1 + |v| / log 2 and E |f(x)ᵀ(f(x⁺) - f(x⁻))| <= ‖f(x)‖ √(2 ‖Σ_c‖).

    shrink  moves every feature to its class mean until this share of the distance is left
    """
    g = torch.Generator().manual_seed(30_000 + seed)
    x, y = world.draw(n, g)
    means = class_means(net(x), y, world.classes)

    def features(classes: Labels) -> Rows:
        f = net(world.draw(len(classes), g, classes)[0])
        return means[classes] + shrink * (f - means[classes])

    def drawn() -> Labels:
        return torch.randint(world.classes, (n,), generator=g)

    c, other = drawn(), drawn()
    whole = float(contrastive_logistic(features(c), features(c), features(other)[:, None]))
    other = (c + torch.randint(1, world.classes, (n,), generator=g)) % world.classes
    f, pos, same, unlike = features(c), features(c), features(c)[:, None], features(other)[:, None]
    equal, distinct = (float(contrastive_logistic(f, pos, neg)) for neg in (same, unlike))
    centred = pos - class_means(pos, c, world.classes)[c]
    spread = sum(
        float(torch.linalg.eigvalsh(centred[c == k].T @ centred[c == k] / (c == k).sum())[-1].sqrt()
              * f[c == k].norm(dim=1).mean()) for k in range(world.classes)
    ) / world.classes  # fmt: skip
    parted = world.collision * equal + (1 - world.collision) * distinct
    return {"whole": whole, "parted": parted, "collision": equal - 1, "spread": spread,
            "bound": math.sqrt(2) / math.log(2) * spread}  # fmt: skip


@torch.no_grad()
def few_shot(world: LatentClasses, encode: Callable[[Tensor], Tensor], seed: int, shots: int = 5,
             nearest: bool = False) -> float:  # fmt: skip
    """Accuracy of the mean classifier with ``shots`` labels a class, over ten draws of them.

    nearest  True takes the nearest mean instead of the largest inner product: fairer to features without a contrast
    """
    g, y = torch.Generator().manual_seed(20_000 + seed), torch.arange(world.classes).repeat(shots)
    new, y_new = world.draw(4000, g)
    new, right = encode(new), []
    for _ in range(10):
        means = class_means(encode(world.draw(len(y), g, y)[0]), y, world.classes)
        if nearest:
            right.append(float((torch.cdist(new, means).argmin(1) == y_new).float().mean()))
        else:
            right.append(mean_classifier_accuracy(new, y_new, means))
    return sum(right) / 10


@torch.no_grad()
def linear_accuracy(world: LatentClasses, encode: Callable[[Tensor], Tensor], seed: int, labels: int = 2000) -> float:
    """Accuracy of a trained linear reader of the features, over all classes at once: the mean classifier's rival."""
    g = torch.Generator().manual_seed(20_000 + seed)
    new, y_new = world.draw(4000, g)
    x, y = world.draw(labels, g)
    return ridge_accuracy(encode(x), y, encode(new), y_new)
