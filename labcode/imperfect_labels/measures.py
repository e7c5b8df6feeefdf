"""Measures of imperfect labels: who found the wrong ones, how each class fares, what a budget of labels is worth.

Leading dimensions are a stack's: what is (…, n) below may be (n,), (networks, n) or more, and the answer has one number
for each network. A truth may be shared by all of them.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int, Num
from torch import Tensor

from ..loss import check_finite, check_index


def _like(name: str, other: Tensor, x: Tensor) -> Tensor:
    """``other`` (n,) or of the shape of x, made to fit x."""
    if not x.ndim or not x.shape[-1] or other.shape != x.shape and other.shape != x.shape[-1:]:
        wanted = f"{tuple(x.shape)} or {tuple(x.shape[-1:])}, not empty"
        raise ValueError(f"{name} must be {wanted}, got {tuple(other.shape)}")
    return other.expand(x.shape)


def _mask(name: str, x: Tensor) -> Tensor:
    if x.dtype != torch.bool:
        raise ValueError(f"{name} must be a mask of bools, got {x.dtype}")
    return x


def _ratio(over: Tensor, under: Tensor) -> Tensor:
    """over / under in float64, 0 where there is nothing."""
    return over.double() / under.clamp_min(1)


def detection(found: Bool[Tensor, "*s n"], wrong: Bool[Tensor, "..."]) -> dict[str, Float[Tensor, "*s"]]:
    """How well the wrong labels were found: "precision", "recall" and "F1", each (…) in float64.

    found  (…, n) what a method says is wrong
    wrong  (…, n) or (n,) what is

    A share of nothing is 0, as scikit-learn's with ``zero_division=0``. Raises ValueError for anything but masks of
    fitting shapes.
    """
    wrong = _like("wrong", _mask("wrong", wrong), _mask("found", found))
    both, said, is_so = (found & wrong).sum(-1), found.sum(-1), wrong.sum(-1)
    return {"precision": _ratio(both, said), "recall": _ratio(both, is_so), "F1": _ratio(2 * both, said + is_so)}


def auroc(score: Num[Tensor, "*s n"], wrong: Bool[Tensor, "..."]) -> Float[Tensor, "*s"]:
    """Chance that a wrong sample has a higher score than a right one, ties counting half: (…) in float64.

    score  (…, n), finite, higher for what looks wrong
    wrong  (…, n) or (n,), some of each in every row

    By ranks (Mann and Whitney 1947). Raises ValueError for shapes that do not fit, scores that are not finite and a
    row of one kind.
    """
    wrong = _like("wrong", _mask("wrong", wrong), score)
    check_finite(score=score)
    count = wrong.sum(-1)
    if bool((count == 0).any()) or bool((count == score.shape[-1]).any()):
        raise ValueError(f"wrong must hold some of both kinds, got {count.tolist()} of {score.shape[-1]}")
    score = score.contiguous()
    ordered = score.sort(-1).values
    below, upto = (torch.searchsorted(ordered, score, right=right) for right in (False, True))
    ranks = (below + upto + 1).double() / 2
    count = count.double()
    above = (ranks * wrong).sum(-1) - count * (count + 1) / 2
    return above / (count * (score.shape[-1] - count))


def recalls(predicted: Int[Tensor, "*s n"], labels: Int[Tensor, "..."], classes: int) -> Float[Tensor, "*s k"]:
    """Share of each class's samples that are recognised: (…, classes) in float64, NaN for a class without samples.

    predicted  (…, n), 0 … classes - 1
    labels     (…, n) or (n,)

    Their mean over the last dimension is the balanced accuracy. Raises ValueError for shapes that do not fit and
    classes out of range.
    """
    check_index("predicted", predicted, classes)
    check_index("labels", labels, classes)
    labels = _like("labels", labels, predicted).long()
    right = (predicted == labels).double()
    empty = torch.zeros(*predicted.shape[:-1], classes, dtype=torch.float64, device=predicted.device)
    return empty.scatter_add(-1, labels, right) / empty.scatter_add(-1, labels, torch.ones_like(right))


def many_medium_few(
    recalls: Float[Tensor, "*s k"], counts: Int[Tensor, " k"], groups: tuple[int, int] = (100, 20)
) -> dict[str, Float[Tensor, "*s"]]:
    """Mean recall of the classes with many, medium and few training samples (Liu et al. 2019, OLTR): each (…).

    recalls  (…, k), see ``recalls``
    counts   (k,) training samples of each class, a tensor
    groups   (most, least) of the medium ones: "many" have more than the first, "few" fewer than the second; the paper's
             100 and 20 are for ImageNet-LT

    NaN for a group without classes. Raises ValueError for counts that do not fit and groups out of order.
    """
    counts = torch.as_tensor(counts, device=recalls.device)
    if counts.shape != recalls.shape[-1:]:
        raise ValueError(f"counts must be one for each of the {recalls.shape[-1]} classes, got {tuple(counts.shape)}")
    most, least = groups
    if most < least:
        raise ValueError(f"groups must be (most, least) of the medium classes, got {groups}")
    many, few = counts > most, counts < least
    parts = {"many": many, "medium": ~many & ~few, "few": few}
    return {name: recalls[..., part].mean(-1) for name, part in parts.items()}


def calibration_error(
    probabilities: Float[Tensor, "*s n k"], labels: Int[Tensor, "..."], bins: int = 15
) -> Float[Tensor, "*s"]:
    """Expected calibration error (Guo et al. 2017, equation 3): (…) in float64, in [0, 1].

    probabilities  (…, n, k), in [0, 1]
    labels         (…, n) or (n,), 0 … k - 1
    bins           of the largest probability, equally wide, closed above; 1 at least

    The gap between accuracy and mean confidence in each bin, weighted by its share of samples. Raises ValueError for
    shapes that do not fit, classes and probabilities out of range, and bins below 1.
    """
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}")
    if probabilities.ndim < 2 or not bool(((probabilities >= 0) & (probabilities <= 1 + 1e-6)).all()):
        raise ValueError(f"probabilities must be (…, n, k) in [0, 1], got {tuple(probabilities.shape)}")
    check_index("labels", labels, probabilities.shape[-1])
    confidence, predicted = probabilities.double().max(-1)
    right = (predicted == _like("labels", labels, predicted)).double()
    place = (confidence * bins).ceil().long().sub(1).clamp(0, bins - 1)
    empty = torch.zeros(*place.shape[:-1], bins, dtype=torch.float64, device=place.device)
    return empty.scatter_add(-1, place, right - confidence).abs().sum(-1) / place.shape[-1]


def area(
    budgets: Num[Tensor, " b"] | Sequence[float], values: Float[Tensor, "*s b"] | Sequence[float]
) -> Float[Tensor, "*s"]:
    """Area under a curve over budgets by trapezoids, divided by their range: the mean height, (…) in float64.

    budgets  (b,) rising, two at least, a tensor or a list; hand over their logarithm for a logarithmic axis
    values   (…, b)

    Raises ValueError for budgets that do not rise and values that do not fit.
    """
    budgets, values = torch.as_tensor(budgets).double(), torch.as_tensor(values).double()
    if budgets.ndim != 1 or len(budgets) < 2 or not bool((budgets.diff() > 0).all()):
        raise ValueError(f"budgets must be two rising numbers at least, got {budgets.tolist()}")
    if values.shape[-1:] != budgets.shape:
        raise ValueError(f"values must have one for each of the {len(budgets)} budgets, got {tuple(values.shape)}")
    return torch.trapezoid(values, budgets) / (budgets[-1] - budgets[0])
