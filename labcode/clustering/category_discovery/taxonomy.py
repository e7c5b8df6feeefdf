"""The survey's map as code: which problem given assumptions make, and which family a method's reads put it in.

Troisemaine et al. (2023), Novel Class Discovery: an Introduction and Key Concepts.
"""

from dataclasses import dataclass, field

from jaxtyping import Float, Int
from torch import Tensor

from .protocol import Problem


@dataclass(frozen=True)
class Assumptions:
    """What is given and what is wanted.

    labels       some rows have labels
    old          unlabelled rows may be of labelled classes
    new          unlabelled rows may be of classes without any label
    tell_apart   new classes are to be told from one another, not only from the old
    shifts       labelled and unlabelled rows come from different distributions
    few          only a few labels a class
    arrives      unlabelled rows come in sessions
    """

    labels: bool = True
    old: bool = False
    new: bool = False
    tell_apart: bool = False
    shifts: bool = False
    few: bool = False
    arrives: bool = False


def problem_of(a: Assumptions) -> str:
    """The name of the problem that the assumptions make, by the survey's distinctions (section 5).

    Raises ValueError where there is nothing to be found: no new class and no old one.
    """
    if not a.old and not a.new:
        raise ValueError("old and new are both False: unlabelled rows must be of some class")
    if not a.labels:
        return "unsupervised clustering"
    if not a.new:
        return "domain adaptation" if a.shifts else "semi-supervised learning"
    if not a.tell_apart:
        return "open-set recognition" if a.old else "anomaly detection"
    if a.shifts:
        return "cross-domain discovery"
    kind = "generalised category discovery" if a.old else "novel class discovery"
    return ("few-label " if a.few else "") + ("continual " if a.arrives else "") + kind


@dataclass
class Watched:
    """A problem whose rows are handed out under a stage's name, so that it is known who read what, when."""

    problem: Problem
    reads: dict[str, set[str]] = field(default_factory=dict)

    def labelled(self, stage: str) -> tuple[Float[Tensor, "n d"], Int[Tensor, " n"]]:
        """Labelled rows and their classes."""
        self.reads.setdefault(stage, set()).add("labelled")
        at = self.problem.labelled
        return self.problem.x[at], self.problem.y[at]

    def unlabelled(self, stage: str) -> Float[Tensor, "n d"]:
        """Unlabelled rows, (n, d)."""
        self.reads.setdefault(stage, set()).add("unlabelled")
        return self.problem.x[~self.problem.labelled]

    def views(self, stage: str, labelled: bool) -> Float[Tensor, "v n d"]:
        """All augmentations of labelled or of unlabelled rows; the rows themselves where there are none."""
        self.reads.setdefault(stage, set()).add("labelled" if labelled else "unlabelled")
        at = self.problem.labelled if labelled else ~self.problem.labelled
        source = self.problem.x[None] if self.problem.views is None else self.problem.views
        return source[:, at]


def family(reads: dict[str, set[str]]) -> str:
    """The survey's first distinction, from what was read: one-stage if any stage trains on both kinds of rows at once.

    "two-stage" methods learn from labelled rows first, then carry what they learnt over to the unlabelled ones alone;
    "unsupervised" ones read no labelled row. Raises ValueError where no unlabelled row was read.
    """
    if not any("unlabelled" in what for what in reads.values()):
        raise ValueError(f"reads must have a stage with unlabelled rows, got {reads}")
    if any(what >= {"labelled", "unlabelled"} for what in reads.values()):
        return "one-stage"
    return "two-stage" if any("labelled" in what for what in reads.values()) else "unsupervised"
