"""Imperfect labels with the truth kept beside them: wrong ones, foreign images, few of them, long tails, annotators.

Every function draws from the generator that it is given and from nothing else, on the CPU: the same generator state,
the same labels. ``several`` makes many draws of any of them at once, one for each network of a stack.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from ..loss import check_finite, check_index

Matrix = Float[Tensor, "k k"]
NOBODY = -1  # the truth of a foreign image, and the answer of an annotator who was not asked


@dataclass(frozen=True)
class LabelSet:
    """Labels as they are given, the true ones, and which samples belong to no class at all; each (n,) or (draws, n).

    labels   0 … classes - 1
    truth    0 … classes - 1, or -1 for a foreign sample
    foreign  True for a sample of no class
    """

    labels: Int[Tensor, "*draws n"]
    truth: Int[Tensor, "*draws n"]
    foreign: Bool[Tensor, "*draws n"]

    @property
    def wrong(self) -> Bool[Tensor, "*draws n"]:
        """Where the label is not the truth; a foreign sample's label is always wrong."""
        return self.labels != self.truth

    @property
    def flipped(self) -> Bool[Tensor, "*draws n"]:
        """Where a sample of a class has the label of another one."""
        return self.wrong & ~self.foreign

    def __len__(self) -> int:
        return self.labels.shape[-1]


def _check_share(name: str, value: float, open_low: bool = False) -> None:
    if not 0 <= value <= 1 or (open_low and value == 0):
        raise ValueError(f"{name} must be in {'(' if open_low else '['}0, 1], got {value}")


def _check_classes(classes: int, least: int = 2) -> None:
    if classes < least:
        raise ValueError(f"classes must be at least {least}, got {classes}")


def _check_generator(generator: Generator) -> None:
    if not isinstance(generator, Generator) or generator.device.type != "cpu":
        raise ValueError(f"generator must be a torch.Generator of the CPU, got {generator!r}")


def _check_stochastic(name: str, matrix: Tensor) -> None:
    if matrix.ndim < 2 or matrix.shape[-1] != matrix.shape[-2]:
        raise ValueError(f"{name} must be square, got shape {tuple(matrix.shape)}")
    check_finite(**{name: matrix})
    sums = matrix.double().sum(-1)
    if bool((matrix < 0).any()) or bool(((sums - 1).abs() > 1e-5).any()):
        raise ValueError(f"{name} must have rows of shares that add up to 1, got sums {sums.min():g} … {sums.max():g}")


def _draw(shares: Float[Tensor, "*any k"], generator: Generator) -> Int[Tensor, "*any"]:
    """A class for each row of shares."""
    steps = shares.double().cumsum(-1)
    steps = steps / steps[..., -1:]
    u = torch.rand(steps.shape[:-1], dtype=torch.float64, generator=generator)
    return (u[..., None] >= steps).sum(-1)


def transition(kind: str, classes: int, rate: float) -> Matrix:
    """The matrix of a noise that looks at the class alone: entry (a, b) is the chance that class a is labelled b.

    kind     "symmetric": wrong with chance ``rate``, all wrong classes alike; "pair": wrong with chance ``rate``, then
             always the next class, the last one's being the first (Han et al. 2018, Co-teaching); "uniform": with
             chance ``rate`` the label is drawn anew from *all* classes, so that rate (classes - 1) / classes is wrong.
             Some papers call this one symmetric
    classes  2 at least
    rate     in [0, 1]

    float64, rows add up to 1. Raises ValueError for an unknown kind and for numbers out of range.
    """
    _check_classes(classes)
    _check_share("rate", rate)
    one = torch.eye(classes, dtype=torch.float64)
    if kind == "symmetric":
        return (1 - rate) * one + rate / (classes - 1) * (1 - one)
    if kind == "pair":
        return (1 - rate) * one + rate * one.roll(1, 1)
    if kind == "uniform":
        return (1 - rate) * one + rate / classes
    raise ValueError(f"kind must be 'symmetric', 'pair' or 'uniform', got {kind!r}")


def _clean(labels: Tensor, given: Tensor) -> LabelSet:
    return LabelSet(given, labels.long().clone(), torch.zeros_like(given, dtype=torch.bool))


def flip(labels: Int[Tensor, " n"], matrix: Matrix, *, generator: Generator) -> LabelSet:
    """Each label drawn from its class's row of the matrix, independently.

    labels  the true ones, 0 … k - 1
    matrix  (k, k), rows add up to 1; see ``transition``

    Raises ValueError for labels out of range and a matrix that is not stochastic.
    """
    _check_generator(generator)
    _check_stochastic("matrix", matrix)
    check_index("labels", labels, len(matrix))
    return _clean(labels, _draw(matrix[labels.long()], generator))


def instance_noise(
    x: Float[Tensor, "n d"], labels: Int[Tensor, " n"], rate: float, classes: int, *, generator: Generator,
    spread: float = 0.1,
) -> LabelSet:  # fmt: skip
    """Noise that depends on the image (Xia et al. 2020, *Part-dependent label noise*, algorithm 2).

    x       images as rows, finite; whatever their range, it sets how sharply the image decides on the wrong class
    labels  the true ones, 0 … classes - 1
    rate    mean share of wrong labels, in [0, 1]
    spread  standard deviation of the samples' own rates, > 0; 0.1 in the paper

    Sample i is wrong with a chance q_i of its own, from a normal distribution around ``rate`` truncated to [0, 1] (near
    0 and 1 its mean lies further inside than ``rate``), and then takes class c with a share softmax_c(x_i W_y) over the
    classes other than its own y, where the (d, classes) matrices W_y are standard normal. As in the authors' code.
    Raises ValueError for shapes that do not fit, and for numbers out of range.
    """
    _check_generator(generator)
    _check_classes(classes)
    _check_share("rate", rate)
    if not 0 < spread < float("inf"):
        raise ValueError(f"spread must be positive, got {spread}")
    if x.ndim != 2 or labels.shape != x.shape[:1]:
        raise ValueError(f"x must be (n, d) with a label for each row, got {tuple(x.shape)} and {tuple(labels.shape)}")
    check_finite(x=x)
    check_index("labels", labels, classes)
    labels = labels.long()
    low, high = (torch.special.ndtr(torch.tensor((end - rate) / spread, dtype=torch.float64)) for end in (0, 1))
    u = torch.rand(len(x), dtype=torch.float64, generator=generator)
    own = (rate + spread * torch.special.ndtri(low + (high - low) * u)).clamp(0, 1)
    project = torch.randn(classes, x.shape[1], classes, generator=generator)
    scores = torch.empty(len(x), classes, dtype=torch.float64)
    for c in range(classes):
        scores[labels == c] = (x[labels == c].float() @ project[c]).double()
    shares = torch.softmax(scores.scatter(1, labels[:, None], -torch.inf), 1) * own[:, None]
    return _clean(labels, _draw(shares.scatter(1, labels[:, None], 1 - own[:, None]), generator))


def annotators(
    labels: Int[Tensor, " n"], matrices: Float[Tensor, "a k k"], coverage: float, *, generator: Generator
) -> Int[Tensor, "n a"]:
    """What each of several annotators says of each sample: (n, annotators), -1 where one was not asked.

    labels    the true ones, 0 … k - 1
    matrices  (annotators, k, k), rows add up to 1: entry (r, a, b) is the chance that annotator r says b of class a
    coverage  chance in (0, 1] that an annotator is asked; a sample that nobody would be asked about is given to one of
              them, drawn at random

    Answers are independent given the truth (Dawid and Skene 1979). Raises ValueError for labels out of range, matrices
    that are not stochastic and a coverage out of range.
    """
    _check_generator(generator)
    if matrices.ndim != 3:
        raise ValueError(f"matrices must be (annotators, k, k), got {tuple(matrices.shape)}")
    _check_stochastic("matrices", matrices)
    _check_share("coverage", coverage, open_low=True)
    check_index("labels", labels, matrices.shape[-1])
    said = _draw(matrices[:, labels.long()].transpose(0, 1), generator)
    order = torch.rand(said.shape, dtype=torch.float64, generator=generator)
    asked = (order < coverage) | (order == order.min(1, keepdim=True).values)
    return said.masked_fill(~asked, NOBODY)


def confusion(accuracy: float | Sequence[float], classes: int, *, generator: Generator) -> Float[Tensor, "*a k k"]:
    """Confusion matrices of random annotators: right with a given chance, their mistakes spread at random.

    accuracy  in [0, 1]: a number for one matrix (k, k), or one for each annotator for (annotators, k, k)
    classes   2 at least

    Each row's mistakes are uniform on the simplex of the other classes (Dirichlet 1). float64. Raises ValueError for
    numbers out of range.
    """
    _check_generator(generator)
    _check_classes(classes)
    right = torch.as_tensor(accuracy, dtype=torch.float64)
    if right.ndim > 1 or bool(((right < 0) | (right > 1) | right.isnan()).any()):
        raise ValueError(f"accuracy must hold numbers in [0, 1], got {accuracy}")
    share = -torch.log1p(-torch.rand(*right.shape, classes, classes, dtype=torch.float64, generator=generator))
    one = torch.eye(classes, dtype=torch.float64)
    share = (share + 1e-12) * (1 - one)
    right = right[..., None, None]
    return right * one + (1 - right) * share / share.sum(-1, keepdim=True)


def web_noise(
    labels: Int[Tensor, " n"], rate_wrong: float, n_foreign: int, classes: int = 10, *, generator: Generator
) -> LabelSet:
    """Labels as a search engine gives them: some are wrong, and some images show nothing of the sort.

    labels      the true ones of n images, 0 … classes - 1
    rate_wrong  chance, in [0, 1], that one of them has a wrong label, all wrong classes alike
    n_foreign   so many foreign images stand behind them, 0 at least: their labels are uniform, their truth is -1

    The set has n + n_foreign entries: stack the images in this order, and shuffle as you draw. Raises ValueError for
    numbers out of range.
    """
    if n_foreign < 0:
        raise ValueError(f"n_foreign must be at least 0, got {n_foreign}")
    _check_share("rate_wrong", rate_wrong)
    known = flip(labels, transition("symmetric", classes, rate_wrong), generator=generator)
    random = torch.randint(classes, (n_foreign,), generator=generator)
    return LabelSet(
        torch.cat([known.labels, random]),
        torch.cat([known.truth, torch.full_like(random, NOBODY)]),
        torch.cat([known.foreign, torch.ones_like(random, dtype=torch.bool)]),
    )


def tail_counts(classes: int, largest: int, ratio: float) -> Int[Tensor, " k"]:
    """The long-tailed profile: class c of k has largest · ratio^(-c / (k - 1)) samples, rounded, one at least (Cao et
    al. 2019, LDAM, who round down).

    classes  1 at least
    largest  samples of class 0, 1 at least
    ratio    of the largest to the smallest class, >= 1; below 1 the profile is turned round with 1 / ratio, as for
             unlabelled data whose tail is the labels' head

    Raises ValueError for numbers out of range.
    """
    _check_classes(classes, 1)
    if largest < 1:
        raise ValueError(f"largest must be at least 1, got {largest}")
    if not 0 < ratio < float("inf"):
        raise ValueError(f"ratio must be positive, got {ratio}")
    place = torch.arange(classes, dtype=torch.float64) / max(1, classes - 1)
    counts = (largest * max(ratio, 1 / ratio) ** -place).round().long().clamp_min(1)
    return counts if ratio >= 1 else counts.flip(0)


def tail(
    labels: Int[Tensor, " n"], counts: Int[Tensor, " k"] | Sequence[int], *, generator: Generator
) -> Int[Tensor, " m"]:
    """Places of ``counts[c]`` samples of each class c, drawn without replacement, in random order.

    labels  0 … k - 1
    counts  for each class, 0 at least; see ``tail_counts``

    Raises ValueError for labels out of range, negative counts and a class that has fewer samples than are wanted.
    """
    _check_generator(generator)
    counts = torch.as_tensor(counts, dtype=torch.int64)
    if counts.ndim != 1 or not len(counts) or bool((counts < 0).any()):
        raise ValueError(f"counts must be a number of at least 0 for each class, got {counts.tolist()}")
    check_index("labels", labels, len(counts))
    kept = torch.cat(_of_each(labels, counts.tolist(), "counts", generator))
    return kept[torch.randperm(len(kept), generator=generator)]


def _of_each(labels: Tensor, counts: list[int], name: str, generator: Generator) -> list[Tensor]:
    order = torch.randperm(len(labels), generator=generator)
    drawn = []
    for c, count in enumerate(counts):
        of_class = order[labels[order] == c]
        if len(of_class) < count:
            raise ValueError(f"{name} must be at most the {len(of_class)} samples of class {c}, got {count}")
        drawn.append(of_class[:count])
    return drawn


def few_labels(
    labels: Int[Tensor, " n"], per_class: int, *, generator: Generator, classes: int | None = None
) -> Int[Tensor, " m"]:
    """Places of ``per_class`` samples of each class, drawn without replacement: place i is of class i mod k.

    labels     0 … k - 1
    per_class  1 at least
    classes    k; None is the largest label and one

    Raises ValueError for labels out of range, and a class that has fewer samples than are wanted.
    """
    _check_generator(generator)
    if per_class < 1:
        raise ValueError(f"per_class must be at least 1, got {per_class}")
    if classes is None:
        classes = int(labels.max()) + 1 if len(labels) else 0
    _check_classes(classes, 1)
    check_index("labels", labels, classes)
    return torch.stack(_of_each(labels, [per_class] * classes, "per_class", generator), 1).view(-1)


def several(draws: int, make: Callable, *arguments, generator: Generator, **keywords):
    """``make(*arguments, generator=generator, **keywords)`` so many times, stacked: (draws, …).

    draws  1 at least
    make   a function of this file that returns a tensor or a ``LabelSet`` of one size, e.g. ``few_labels``

    ``several(10, few_labels, labels, 4, generator=g)`` is (10, 40): places for ten networks. The first draws are the
    same whatever the number of draws. Raises ValueError for draws below 1 and what ``make`` refuses.
    """
    if draws < 1:
        raise ValueError(f"draws must be at least 1, got {draws}")
    made = [make(*arguments, generator=generator, **keywords) for _ in range(draws)]
    if isinstance(made[0], LabelSet):
        return LabelSet(*(torch.stack([getattr(one, f.name) for one in made]) for f in fields(LabelSet)))
    return torch.stack(made)
