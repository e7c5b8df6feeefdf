"""Few-shot tasks, hundreds in one batch, and the simple classifiers that all papers of the chapter are held against.

A *task* has some labelled *supports* of k classes and unlabelled *queries*. A classifier takes a batch of tasks and
returns soft assignments (t, q, k); inductive ones look at one query at a time, transductive ones at all of a task.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

Soft = Float[Tensor, "t q k"]


@dataclass(frozen=True)
class Tasks:
    """A batch of tasks: supports (t, s, d) with labels (t, s), queries (t, q, d) with labels (t, q), k classes."""

    support: Float[Tensor, "t s d"]
    support_y: Int[Tensor, "t s"]
    query: Float[Tensor, "t q d"]
    query_y: Int[Tensor, "t q"]
    ways: int

    @property
    def one_hot(self) -> Float[Tensor, "t s k"]:
        """Labels of the supports as rows of zeros and a one."""
        return F.one_hot(self.support_y, self.ways).to(self.support.dtype)

    @property
    def prototypes(self) -> Float[Tensor, "t k d"]:
        """The mean support of every class."""
        members = self.one_hot
        return members.mT @ self.support / members.sum(1)[..., None]

    def map(self, change) -> "Tasks":
        """The same tasks with supports and queries changed by a function of features."""
        return replace(self, support=change(self.support), query=change(self.query))

    def __getitem__(self, which) -> "Tasks":
        parts = (self.support, self.support_y, self.query, self.query_y)
        return Tasks(*(p[which] for p in parts), self.ways)


def draw_tasks(
    features: Float[Tensor, "c m d"], tasks: int, generator: torch.Generator, *, ways: int = 5, shots: int = 1,
    queries: int = 75, present: int | None = None, skew: float | None = None,
) -> Tasks:  # fmt: skip
    """A batch of tasks from classes of m samples each; a sample is support or query of a task, never both.

    ways     k classes, drawn anew for every task
    shots    supports of each class
    queries  of all classes together
    present  how many of the k classes have queries; None is all. PADDLE and UNEM have 5 of 20
    skew     a of a Dirichlet (a, …, a) from which the classes' shares are drawn, as α-TIM has 2; None makes them even

    Raises ValueError for more ways than classes, more of a class than it has samples, and present outside 1 … ways.
    """
    c, m, d = features.shape
    present = ways if present is None else present
    if not 2 <= ways <= c:
        raise ValueError(f"ways must be between 2 and the {c} classes of features, got {ways}")
    if not 1 <= present <= ways:
        raise ValueError(f"present must be between 1 and ways, {ways}, got {present}")
    if shots < 1 or queries < 1 or shots >= m:
        raise ValueError(f"shots must be between 1 and {m - 1} and queries positive, got {shots} and {queries}")
    device = features.device
    draw = lambda *shape: torch.rand(*shape, generator=generator, device=device)  # noqa: E731
    classes = draw(tasks, c).argsort(1)[:, :ways]
    rank = draw(tasks, ways).argsort(1).argsort(1)
    if skew is None:  # even shares; what is left over goes to the first ranks
        count = torch.where(rank < present, queries // present + (rank < queries % present).long(), 0)
        label = torch.arange(ways, device=device).expand(tasks, ways)
        query_y = label.flatten().repeat_interleave(count.flatten()).view(tasks, queries)
    else:
        a = torch.full((tasks, ways), float(skew), device=device)
        share = torch._standard_gamma(a, generator=generator).masked_fill(rank >= present, 0) + 1e-12
        query_y = torch.multinomial(share, queries, replacement=True, generator=generator).sort(1).values
    member = F.one_hot(query_y, ways)
    place = (member.cumsum(1) * member).sum(2) - 1 + shots  # the how-manieth of its class, supports come first
    if int(place.max()) >= m:
        raise ValueError(f"queries must leave at most {m - shots} to a class of {m} samples, got {int(place.max())}")
    order = draw(tasks, ways, m).argsort(2)
    rows = torch.arange(tasks, device=device)[:, None]
    query = features[classes[rows, query_y], order[rows, query_y, place]]
    support = features[classes[..., None], order[..., :shots]].view(tasks, ways * shots, d)
    support_y = torch.arange(ways, device=device).repeat_interleave(shots).expand(tasks, -1)
    return Tasks(support, support_y, query, query_y, ways)


def centred_unit(mean: Float[Tensor, " d"]):
    """SimpleShot's CL2N: features less the mean of the base classes, then of length 1. For ``Tasks.map``."""
    return lambda z: F.normalize(z - mean, dim=-1)


def accuracy(assigned: Soft, tasks: Tasks) -> float:
    """The share of right queries, over all tasks."""
    return float((assigned.argmax(2) == tasks.query_y).float().mean())


def check_floating(**tensors: Tensor) -> None:
    """Raise ValueError unless every named tensor is of real floating point."""
    for name, x in tensors.items():
        if not x.is_floating_point():
            raise ValueError(f"{name} must be floating point, got {x.dtype}")


def squared(x: Float[Tensor, "t n d"], w: Float[Tensor, "t k d"]) -> Float[Tensor, "t n k"]:
    """Squared distances of all rows from all centres of their task."""
    return (x.square().sum(2)[..., None] - 2 * x @ w.mT + w.square().sum(2)[:, None]).clamp_min(0)


def nearest_prototype(tasks: Tasks) -> Soft:
    """Prototypical networks' classifier (Snell et al., 2017): softmax of minus the squared distance. Inductive."""
    return (-squared(tasks.query, tasks.prototypes)).softmax(2)


def logistic(tasks: Tasks, l2: float = 1e-2, steps: int = 60, lr: float = 1.0) -> Soft:
    """Multinomial logistic regression on the supports of each task, with an intercept. Inductive.

    Minimises the mean cross entropy + l2/2 ‖W‖² by accelerated gradient steps of all tasks at once: what scikit-learn
    finds with C = 1 / (l2 · supports). Raises ValueError for l2 <= 0.
    """
    if not l2 > 0:
        raise ValueError(f"l2 must be positive, got {l2}")
    x, y = tasks.support, tasks.one_hot
    middle = x.mean(1, keepdim=True)
    scale = (x - middle).square().sum(2).amax(1).clamp_min(1e-12)[:, None, None]  # bounds the curvature
    x = F.pad(x - middle, (0, 1), value=1.0)
    keep = torch.ones(x.shape[2], 1, dtype=x.dtype, device=x.device)
    keep[-1] = 0
    w = ahead = x.new_zeros(len(x), x.shape[2], tasks.ways)
    for step in range(steps):
        off = (x @ ahead).softmax(2) - y
        new = ahead - lr / (0.5 * (scale + 1) + l2) * (x.mT @ off / x.shape[1] + l2 * keep * ahead)
        ahead, w = new + step / (step + 3) * (new - w), new
    return (F.pad(tasks.query - middle, (0, 1), value=1.0) @ w).softmax(2)


def seeded_kmeans(tasks: Tasks, rounds: int = 10, soft: float | None = None) -> Soft:
    """k-means of supports and queries from the prototypes, supports held at their labels (Basu et al., 2002).

    soft  None assigns hard; else by softmax(-soft · distance²)
    """
    w, members = tasks.prototypes, tasks.one_hot
    fixed, count = members.mT @ tasks.support, members.sum(1)
    for _ in range(rounds):
        s = assign(squared(tasks.query, w), soft)
        w = (fixed + s.mT @ tasks.query) / (count + s.sum(1))[..., None]
    return assign(squared(tasks.query, w), soft)


def assign(distance: Float[Tensor, "t q k"], soft: float | None) -> Soft:
    """One at the nearest centre, or a softmax of minus ``soft`` times the distances."""
    if soft is not None:
        return (-soft * distance).softmax(2)
    return F.one_hot(distance.argmin(2), distance.shape[2]).to(distance.dtype)
