"""Many small classifiers at once: logistic regressions on frozen features, one for every draw of labelled rows.

An acquisition experiment with one draw says little: ten labels are ten accidents. Here all draws of a seed are fitted
in one batch, for the price of two or three.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .acquisition import Acquire


def fit_heads(
    x: Float[Tensor, "r m d"], y: Int[Tensor, "r m"], classes: int, l2: float = 0.01, steps: int = 150,
    weights: Float[Tensor, "r m"] | None = None,
) -> Float[Tensor, "r d_ classes"]:  # fmt: skip
    """Multinomial logistic regressions, one a draw: weights (r, d + 1, classes), the bias as last row.

    Minimises mean cross entropy + l2/2 · ‖W‖², bias included, by accelerated gradient steps (Nesterov 1983, with the
    constant momentum of a strongly convex function) of length 1 / L; L is half the largest eigenvalue of the rows'
    second moment, plus l2.

    weights  of the rows, not negative, of any sum above 0; a weight of 0 leaves a row out

    Raises ValueError for l2 <= 0, labels outside 0 … classes - 1, steps < 1 and shapes that do not fit.
    """
    if l2 <= 0 or steps < 1:
        raise ValueError(f"l2 must be positive and steps at least 1, got {l2} and {steps}")
    if x.ndim != 3 or y.shape != x.shape[:2] or not y.numel():
        raise ValueError(f"x must be (r, m, d) and y (r, m), not empty, got {tuple(x.shape)} and {tuple(y.shape)}")
    if int(y.min()) < 0 or int(y.max()) >= classes:
        raise ValueError(f"y must hold classes 0 … {classes - 1}, got {int(y.min())} … {int(y.max())}")
    z = with_bias(x)
    share = torch.full_like(z[..., :1], 1 / z.shape[1]) if weights is None else weights[..., None]
    share = share / share.sum(1, keepdim=True)
    target = torch.nn.functional.one_hot(y.long(), classes).to(z.dtype)
    small = z.mT @ (share * z) if z.shape[2] <= z.shape[1] else (share.sqrt() * z) @ (share.sqrt() * z).mT
    smooth = 0.5 * torch.linalg.eigvalsh(small)[:, -1:, None] + l2
    ratio = (l2 / smooth).sqrt()
    momentum = (1 - ratio) / (1 + ratio)
    w = ahead = z.new_zeros(len(z), z.shape[2], classes)
    for _ in range(steps):
        off = share * (torch.softmax(z @ ahead, 2) - target)
        new = ahead - (torch.baddbmm(l2 * ahead, z.mT, off)) / smooth
        w, ahead = new, new + momentum * (new - w)
    return w


def with_bias(x: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d_"]:
    """Rows with a 1 at their end."""
    return torch.cat([x, torch.ones_like(x[..., :1])], -1)


def predict(w: Float[Tensor, "r d_ classes"], x: Float[Tensor, "n d"]) -> Float[Tensor, "r n classes"]:
    """Probabilities of every draw's head for the same rows."""
    return torch.softmax(with_bias(x) @ w, 2)


def accuracy(p: Float[Tensor, "r n classes"], y: Int[Tensor, " n"]) -> Float[Tensor, " r"]:
    """Share of rows whose most probable class is theirs."""
    return (p.argmax(2) == y).double().mean(1)


def macro_auc(p: Float[Tensor, "r n classes"], y: Int[Tensor, " n"]) -> Float[Tensor, " r"]:
    """Area under the ROC curve of each class against the rest, averaged over classes that y holds.

    From rank sums (Mann and Whitney 1947), ties in the order of the sort: probabilities hardly tie.
    Raises ValueError where y holds one class alone.
    """
    present = y.unique()
    if len(present) < 2:
        raise ValueError(f"y must hold two classes or more, got {len(present)}")
    rank = p.double().argsort(1).argsort(1).double() + 1
    areas = []
    for c in present.tolist():
        mine = y == c
        n, rest = int(mine.sum()), int((~mine).sum())
        areas.append((rank[:, mine, c].sum(1) - n * (n + 1) / 2) / (n * rest))
    return torch.stack(areas).mean(0)


def acquire_rounds(
    acquire: Acquire | list[Acquire], features: Float[Tensor, "n d"], labels: Int[Tensor, " n"],
    budgets: Sequence[int], draws: int, *, seed: int, classes: int = 10,
    start: Int[Tensor, "draws m"] | None = None, l2: float = 0.01, steps: int = 150,
) -> list[Int[Tensor, "draws b"]]:  # fmt: skip
    """Rounds of active learning, every draw for itself: the labelled rows (draws, budget) after each round.

    acquire  a strategy, see ``acquisition``, or a list of one for each draw
    labels   of the pool; only those of chosen rows are looked at
    budgets  labels in all after each round, rising
    start    rows that have labels already, one set a draw; they count in the budgets

    Raises ValueError for budgets that do not rise.
    """
    if list(budgets) != sorted(set(budgets)) or not budgets:
        raise ValueError(f"budgets must rise, got {list(budgets)}")
    make = lambda i: torch.Generator(features.device).manual_seed(seed * 1009 + i)  # noqa: E731
    generators = [make(i) for i in range(draws)]
    labelled = torch.empty(draws, 0, dtype=torch.int64, device=features.device) if start is None else start
    found = []
    each = acquire if isinstance(acquire, list) else [acquire] * draws
    p = features.new_full((draws, len(features), classes), 1 / classes)
    for budget in budgets:
        add = budget - labelled.shape[1]
        if add > 0:
            if labelled.shape[1]:
                p = predict(fit_heads(features[labelled], labels[labelled], classes, l2, steps), features)
            asked = zip(each, p, labelled, generators, strict=True)
            new = [ask(features, q, have, add, generator=g) for ask, q, have, g in asked]
            labelled = torch.cat([labelled, torch.stack(new)], 1)
        found.append(labelled)
    return found


def judge_rounds(
    rounds: Sequence[Int[Tensor, "draws b"]], features: Float[Tensor, "n d"], labels: Int[Tensor, " n"],
    test: Float[Tensor, "t d"], test_labels: Int[Tensor, " t"], *, classes: int = 10, l2: float = 0.01,
    steps: int = 150, measure=accuracy,
) -> list[float]:  # fmt: skip
    """The mean over draws of a measure on the test rows, after each round."""
    heads = (fit_heads(features[chosen], labels[chosen], classes, l2, steps) for chosen in rounds)
    return [float(measure(predict(w, test), test_labels).mean()) for w in heads]
