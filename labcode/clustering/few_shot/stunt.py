"""STUNT (Nam et al., 2023): tasks from an unlabelled table, whose classes are k-means of hidden columns.

A task: draw a share of the columns between 0.2 and 0.5, cluster all rows by them into k pseudo-classes, and replace
those columns by draws from their marginals, so that the label must be read from the others. A prototypical network is
trained on such tasks.
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ...loss import check_finite, check_matrix
from ...train import allowed
from .episodes import Tasks, nearest_prototype, squared

Table = Float[Tensor, "n d"]
LABELS, PERTURBED = ("kmeans", "column", "random"), ("marginal", "noise", "none")


def minmax(x: Table, like: Table | None = None) -> Table:
    """Columns in [0, 1] over the rows of ``like``; a constant column is 0."""
    like = x if like is None else like
    low, high = like.amin(0), like.amax(0)
    return (x - low) / torch.where(high > low, high - low, 1.0)


def subset_kmeans(
    x: Table, columns: Bool[Tensor, "t d"], k: int, generator: torch.Generator, iterations: int = 10
) -> Int[Tensor, "t n"]:
    """Labels of t k-means, each on its own columns, from k random rows: Lloyd's iterations of all in one batch.

    A cluster that loses its rows stays where it is. Raises ValueError for k outside 1 … n and no column in a task.
    """
    check_matrix("x", x)
    check_finite(x=x)
    if not 1 <= k <= len(x):
        raise ValueError(f"k must be between 1 and the {len(x)} rows of x, got {k}")
    if columns.ndim != 2 or columns.shape[1] != x.shape[1] or not bool(columns.any(1).all()):
        raise ValueError(
            f"columns must be (t, {x.shape[1]}) with one at least in every row, got {tuple(columns.shape)}"
        )
    seen = columns.to(x.dtype)
    start = torch.rand(len(columns), len(x), generator=generator, device=x.device).argsort(1)[:, :k]
    centres = x[start] * seen[:, None]
    for _ in range(iterations):
        labels = (centres.square().sum(2)[:, None] - 2 * x @ centres.mT).argmin(2)
        member = (labels[..., None] == torch.arange(k, device=x.device)).to(x.dtype)
        count = member.sum(1)[..., None]
        centres = torch.where(count > 0, member.mT @ x / count.clamp_min(1), centres) * seen[:, None]
    return (centres.square().sum(2)[:, None] - 2 * x @ centres.mT).argmin(2)


@dataclass(frozen=True)
class Generator:
    """How tasks are made; the defaults are the paper's.

    labels     "kmeans" of the columns; "column", quantiles of a single one; "random", rows drawn to classes
    perturbed  what the columns become: draws from their "marginal", plus "noise" of their deviation, or "none"
    ratio      least and largest share of the columns
    """

    k: int
    shots: int = 1
    queries: int = 15
    ratio: tuple[float, float] = (0.2, 0.5)
    labels: str = "kmeans"
    perturbed: str = "marginal"

    def __post_init__(self):
        if self.labels not in LABELS or self.perturbed not in PERTURBED:
            raise ValueError(
                f"labels must be one of {LABELS} and perturbed of {PERTURBED}, got {self.labels!r}, {self.perturbed!r}"
            )
        if not 0 < self.ratio[0] <= self.ratio[1] <= 1:
            raise ValueError(f"ratio must be two shares in order, got {self.ratio}")

    def __call__(self, x: Table, tasks: int, generator: torch.Generator, tries: int = 50) -> Tasks:
        """Tasks from the rows of a table. Clusters too small for shots and queries are drawn again, ``tries`` times.

        Raises ValueError where that was not enough: the released code would look for ever.
        """
        n, d = x.shape
        each, kept = self.shots + self.queries, []
        for _ in range(tries):
            columns, labels = self._draw(x, tasks, generator)
            good = (F.one_hot(labels, self.k).sum(1) >= each).all(1)
            kept.append((columns[good], labels[good]))
            if sum(len(c) for c, _ in kept) >= tasks:
                break
        else:
            raise ValueError(f"x must have clusters of {each} rows; in {tries} tries there were too few of them")
        columns, labels = (torch.cat(parts)[:tasks] for parts in zip(*kept, strict=True))
        order = torch.rand(tasks, self.k, n, generator=generator, device=x.device)
        order = order.masked_fill(labels[:, None] != torch.arange(self.k, device=x.device)[:, None], 2)
        rows = order.topk(each, largest=False).indices  # (t, k, each), of the class
        values = x[rows]
        if self.perturbed == "marginal":
            other = x[
                torch.randint(n, values.shape, generator=generator, device=x.device), torch.arange(d, device=x.device)
            ]
        elif self.perturbed == "noise":
            other = values + x.std(0) * torch.randn(values.shape, generator=generator, device=x.device)
        else:
            other = values
        values = torch.where(columns[:, None, None], other, values)
        y = torch.arange(self.k, device=x.device)[:, None]
        support_y, query_y = (y.expand(-1, m).flatten().expand(tasks, -1) for m in (self.shots, self.queries))
        return Tasks(
            values[:, :, : self.shots].flatten(1, 2),
            support_y,
            values[:, :, self.shots :].flatten(1, 2),
            query_y,
            self.k,
        )

    def _draw(self, x: Table, tasks: int, generator: torch.Generator):
        n, d = x.shape
        rank = torch.rand(tasks, d, generator=generator, device=x.device).argsort(1).argsort(1)
        low, high = self.ratio
        share = low + (high - low) * torch.rand(tasks, 1, generator=generator, device=x.device)
        columns = rank < (1 if self.labels == "column" else (share * d).floor().clamp_min(1))
        if self.labels == "random":
            return columns, torch.randint(self.k, (tasks, n), generator=generator, device=x.device)
        if self.labels == "column":
            chosen = x[:, columns.float().argmax(1)].T + 1e-6 * torch.rand(
                tasks, n, generator=generator, device=x.device
            )
            return columns, chosen.argsort(1).argsort(1) * self.k // n
        return columns, subset_kmeans(x, columns, self.k, generator)


class Embedding(nn.Sequential):
    """d - hidden - hidden with one ReLU; 1024 in the paper. Outputs are not normalised."""

    def __init__(self, d: int, hidden: int = 1024):
        super().__init__(nn.Linear(d, hidden), nn.ReLU(), nn.Linear(hidden, hidden))


@dataclass
class Trained:
    """The last encoder, and at every look the encoder's state, the step and the pseudo-validation accuracy."""

    encoder: nn.Module
    states: list[dict] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    pseudo: list[float] = field(default_factory=list)

    def best(self) -> nn.Module:
        """The encoder as it was at the highest pseudo-validation accuracy: early stopping without labels."""
        self.encoder.load_state_dict(self.states[max(range(len(self.pseudo)), key=self.pseudo.__getitem__)])
        return self.encoder


def stunt(
    x: Table, make: Generator, seed: int, *, steps: int = 200, tasks: int = 4, hidden: int = 128, lr: float = 1e-3,
    looks: int = 0, held: float = 0.2, pool: int = 40, rows: int = 400,
) -> Trained:  # fmt: skip
    """A prototypical network trained on tasks that ``make`` draws from the rows of x.

    tasks  a step, a divisor of ``pool``; the paper has 4, and 10,000 steps
    looks  how often pseudo-validation is made, on a share ``held`` of the rows that are kept out of the training:
           k-means of all their columns are labels, and 50 tasks of one shot and at most 30 queries a class are scored
    pool   how many tasks are clustered at once, on ``rows`` rows drawn anew; the paper clusters all rows each time
    """
    if pool % tasks:
        raise ValueError(f"tasks must divide pool, {pool}, got {tasks}")
    torch.manual_seed(seed)
    g = torch.Generator(x.device).manual_seed(seed)
    x = x[torch.randperm(len(x), generator=g, device=x.device)]
    kept, out = (x[: int(len(x) * (1 - held))], x[int(len(x) * (1 - held)) :]) if looks else (x, None)
    encoder = Embedding(x.shape[1], hidden).to(x.device)
    optimizer = torch.optim.Adam(encoder.parameters(), lr)
    found, steps = Trained(encoder), allowed(steps)
    judge = pseudo_validation(out, make.k, g) if looks else None
    for step in range(steps):
        at = step * tasks % pool
        if at == 0:
            batch = make(kept[torch.randperm(len(kept), generator=g, device=x.device)[:rows]], pool, g)
        now = batch[at : at + tasks]
        z = now.map(encoder)
        loss = F.nll_loss(nearest_prototype(z).clamp_min(1e-30).log().flatten(0, 1), z.query_y.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if looks and (step + 1) % max(1, steps // looks) == 0:
            with torch.no_grad():
                z = judge.map(encoder)
                found.pseudo.append(float((nearest_prototype(z).argmax(2) == z.query_y).float().mean()))
            found.states.append({k: v.clone() for k, v in encoder.state_dict().items()})
            found.steps.append(step + 1)
    return found


def pseudo_validation(x: Table, k: int, generator: torch.Generator, tasks: int = 50) -> Tasks:
    """Tasks of one shot whose classes are k-means of all columns; 30 queries of each at most."""
    labels = subset_kmeans(x, torch.ones(20, x.shape[1], dtype=torch.bool, device=x.device), k, generator)
    least = F.one_hot(labels, k).sum(1).amin(1)
    labels, queries = labels[least.argmax()], int(min(30, int(least.max()) - 1))
    if queries < 1:
        raise ValueError(f"x must have {k} clusters of two rows at least, got {len(x)} rows")
    order = torch.rand(tasks, k, len(x), generator=generator, device=x.device)
    order = order.masked_fill(labels != torch.arange(k, device=x.device)[:, None], 2)
    rows = order.topk(1 + queries, largest=False).indices
    y = torch.arange(k, device=x.device)[:, None]
    return Tasks(
        x[rows[:, :, 0]],
        y[:, 0].expand(tasks, -1),
        x[rows[:, :, 1:]].flatten(1, 2),
        y.expand(-1, queries).flatten().expand(tasks, -1),
        k,
    )


def labelled_tasks(
    x: Table,
    y: Int[Tensor, " n"],
    new: Table,
    new_y: Int[Tensor, " m"],
    shots: int,
    draws: int,
    generator: torch.Generator,
) -> Tasks:
    """``draws`` times ``shots`` labelled rows of each class of a table; the queries are all new rows, every time."""
    k = int(y.max()) + 1
    order = torch.rand(draws, k, len(x), generator=generator, device=x.device)
    order = order.masked_fill(y != torch.arange(k, device=x.device)[:, None], 2)
    rows = order.topk(shots, largest=False).indices.flatten(1)
    support_y = torch.arange(k, device=x.device).repeat_interleave(shots).expand(draws, -1)
    return Tasks(x[rows], support_y, new.expand(draws, -1, -1), new_y.expand(draws, -1), k)


def nearest_neighbour(tasks: Tasks) -> Float[Tensor, "t q k"]:
    """The class of the nearest support, as rows of a one."""
    nearest = squared(tasks.query, tasks.support).argmin(2)
    return F.one_hot(tasks.support_y.gather(1, nearest), tasks.ways).to(tasks.query.dtype)


def corrupted_autoencoder(
    x: Table, seed: int, *, steps: int = 200, hidden: int = 128, share: float = 0.3, lr: float = 1e-3
) -> nn.Module:
    """A rival in the manner of VIME (Yoon et al., 2020): rebuild rows, and the mask, from replaced entries."""
    torch.manual_seed(seed)
    g, (n, d) = torch.Generator(x.device).manual_seed(seed), x.shape
    encoder, rebuild, which = (
        Embedding(d, hidden).to(x.device),
        nn.Linear(hidden, d).to(x.device),
        nn.Linear(hidden, d).to(x.device),
    )
    optimizer = torch.optim.Adam([*encoder.parameters(), *rebuild.parameters(), *which.parameters()], lr)
    for _ in range(allowed(steps)):
        rows = x[torch.randint(n, (256,), generator=g, device=x.device)]
        hide = torch.rand(rows.shape, generator=g, device=x.device) < share
        other = x[torch.randint(n, rows.shape, generator=g, device=x.device), torch.arange(d, device=x.device)]
        z = F.relu(encoder(torch.where(hide, other, rows)))
        loss = 2 * F.mse_loss(rebuild(z).sigmoid(), rows) + F.binary_cross_entropy_with_logits(
            which(z), hide.to(z.dtype)
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return encoder
