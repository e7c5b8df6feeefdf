"""One protocol for all of the chapter: labelled old classes, unlabelled old and new ones, one matching of clusters.

Generalised category discovery (Vaze et al., 2022). Novel class discovery is the case in which all rows of old classes
are labelled, so that the unlabelled ones are all new.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from ...loss import check_finite, check_matrix, unit_rows

Rows = Float[Tensor, "n d"]
Labels = Int[Tensor, " n"]


@dataclass(frozen=True)
class Problem:
    """Rows of which some have labels. Classes are numbered anew: 0 … old - 1 are old, old … classes - 1 new.

    x         what a frozen encoder made of each sample, or a table's columns
    y         the true class of every row; methods read it through ``known`` only
    labelled  which rows have their label
    views     the features of some augmentations of every sample, if there are any
    place     each row's place in what the problem was made of
    """

    x: Rows
    y: Labels
    labelled: Bool[Tensor, " n"]
    old: int
    classes: int
    views: Float[Tensor, "v n d"] | None
    place: Int[Tensor, " n"]

    @property
    def known(self) -> Labels:
        """The class of labelled rows, -1 for the others: all that a method may see of y."""
        return torch.where(self.labelled, self.y, -1)

    def judge(self, clusters: Labels) -> dict[str, float]:
        """``discovery_accuracy`` on the unlabelled rows of a partition of all rows."""
        hidden = ~self.labelled
        return discovery_accuracy(clusters[hidden], self.y[hidden], self.old)

    @property
    def unit(self) -> "Problem":
        """The same problem with rows brought to length 1; views too."""
        views = None if self.views is None else unit_rows(self.views, 2)
        return replace(self, x=unit_rows(self.x), views=views)

    def part(self, rows: Tensor) -> "Problem":
        """The problem on some of its rows, by a mask or by places, without views."""
        return Problem(self.x[rows], self.y[rows], self.labelled[rows], self.old, self.classes, None, self.place[rows])

    def among(self, x: Rows) -> "Problem":
        """The same problem on other features of the same rows."""
        return replace(self, x=x, views=None)

    def split_accuracy(self, old: Bool[Tensor, " n"]) -> float:
        """How well a split, True for old, tells unlabelled rows apart: the mean of both kinds' right shares."""
        truth, free = self.y < self.old, ~self.labelled
        return float((old[free & truth].double().mean() + (~old[free & ~truth]).double().mean()) / 2)


def discovery_problem(
    x: Rows,
    labels: Labels,
    old: list[int],
    *,
    share: float = 0.5,
    generator: Generator,
    views: Float[Tensor, "v n d"] | None = None,
    rows: Int[Tensor, " m"] | None = None,
) -> Problem:
    """A problem in which the classes of the list ``old`` are known and ``share`` of their rows have labels.

    labels  true classes of all rows
    old     at least one class, not all of them
    share   in (0, 1]; 0.5 is the field's for images; 1 makes it novel class discovery
    rows    places of the rows that take part, if not all

    Raises ValueError for a share out of range, an old class that is not there, and no new class.
    """
    check_matrix("x", x)
    check_finite(x=x)
    present = labels.unique().tolist()
    if not old or not set(old) < set(present):
        raise ValueError(f"old must name some, not all, of the classes {present}, got {old}")
    if not 0 < share <= 1:
        raise ValueError(f"share must be in (0, 1], got {share}")
    order = torch.full((max(present) + 1,), -1, dtype=torch.int64, device=x.device)
    arrival = torch.tensor([*old, *(c for c in present if c not in old)], device=x.device)
    order[arrival] = torch.arange(len(present), device=x.device)
    place = torch.arange(len(x), device=x.device) if rows is None else rows
    y = order[labels[place]]
    draw = torch.rand(len(y), generator=generator, device=x.device)
    rank = torch.stack([torch.where(y == c, draw, 2.0).argsort().argsort() for c in range(len(old))])
    rank = rank.gather(0, y.clamp(max=len(old) - 1)[None])[0]  # of a row among those of its class
    labelled = (y < len(old)) & (rank < (share * torch.bincount(y, minlength=len(present))[y]).round())
    return Problem(x[place], y, labelled, len(old), len(present), None if views is None else views[:, place], place)


def _matched(clusters: Labels, y: Labels) -> tuple[Tensor, Tensor]:
    """Whether each row is right under the best matching, and its class, on the CPU."""
    from scipy.optimize import linear_sum_assignment

    if clusters.shape != y.shape or not len(y):
        raise ValueError(
            f"clusters must name one cluster for each of the {len(y)} rows, one at least, got {len(clusters)}"
        )
    names, clusters = clusters.cpu().unique(return_inverse=True)
    y = y.cpu()
    counts = torch.zeros(len(names), int(y.max()) + 1, dtype=torch.int64)
    counts.index_put_((clusters, y), torch.ones_like(y), accumulate=True)
    row, column = linear_sum_assignment(counts.numpy(), maximize=True)
    class_of = torch.full((len(names),), -1)
    class_of[torch.from_numpy(row)] = torch.from_numpy(column)
    return (class_of[clusters] == y).double(), y


def discovery_accuracy(clusters: Labels, y: Labels, old: int) -> dict[str, float]:
    """Share of rows in the right cluster: of all, of old and of new classes, under *one* matching for all three.

    The best one-to-one matching of clusters and classes over all rows given (Hungarian); Old and New are read off it.
    The field's protocol since the second version of GCD; its first matched old and new rows each for themselves, so
    that one cluster could count twice. Clusters without a class count as wrong.

    y    true classes, those below ``old`` are old

    NaN for Old or New where there is no such row. Raises ValueError for unequal or empty inputs.
    """
    right, y = _matched(clusters, y)
    return {"All": float(right.mean()), "Old": float(right[y < old].mean()), "New": float(right[y >= old].mean())}


def balanced_accuracy(clusters: Labels, y: Labels) -> float:
    """Mean over the classes present of the share of right rows, under the same matching: all classes count alike."""
    right, y = _matched(clusters, y)
    return float(sum(right[y == c].mean() for c in y.unique()) / len(y.unique()))
