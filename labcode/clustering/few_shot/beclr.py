"""BECLR's pretraining (Poulakakis-Daktylidis and Jamali-Rad, 2024): student, teacher and a clustered memory.

    L = -½ Σ_views cos(p, sg z̃ of the other view) + w · log mean_{i≠j} exp(cos(z_i, z_j) / T)

p are the student's predictions, z its projections, z̃ those of the teacher, a moving average. DyCE keeps past
embeddings in a memory whose clusters are filled evenly by optimal transport, and gives every view the nearest members
of its cluster as further positives.
"""

import copy
import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ...cluster import kmeans
from ...loss import check_matrix, check_positive, float32, unit_rows
from ...nets import mlp
from ...train import fit
from ...transport import sinkhorn_codes


@float32
def beclr_loss(
    p: Float[Tensor, "two_n d"],
    target: Float[Tensor, "two_n d"],
    z: Float[Tensor, "two_n d"],
    weight: float = 0.1,
    temperature: float = 2.0,
) -> Float[Tensor, ""]:
    """Alignment of each prediction with the teacher's other view, and uniformity of the student's projections.

    p       predictions of both views stacked, rows i and i + n are of one image
    target  the teacher's projections of the same rows; no gradient goes there
    z       the student's projections; an image's own two views are no pair of the uniformity term

    Raises ValueError for unlike shapes, an odd number of rows and a temperature that is not positive. A
    single image has alignment only.
    """
    check_matrix("p", p, rows=2, even=True)
    check_matrix("target", target, like=p)
    check_matrix("z", z, rows=2, even=True)
    check_positive(temperature=temperature)
    if len(z) != len(p):
        raise ValueError(f"z must have the rows of p, {len(p)}, got {len(z)}")
    loss = -2 * (unit_rows(p) * unit_rows(target.detach()).roll(len(p) // 2, 0)).sum(1).mean() / 2
    return loss + weight * uniformity_term(z, temperature)


def uniformity_term(
    z: Float[Tensor, "two_n d"], temperature: float, extra: Float[Tensor, "m d"] | None = None
) -> Tensor:
    """log mean exp(cos / T) over pairs of rows of different images, and, if given, of rows with ``extra`` ones."""
    n, z = len(z) // 2, unit_rows(z)
    scores = z @ z.T / temperature
    own = torch.eye(n, dtype=torch.bool, device=z.device).repeat(2, 2)
    scores = scores.masked_fill(own, -torch.inf)
    count = 4 * n * (n - 1)
    if extra is not None:
        scores, count = torch.cat([scores, z @ unit_rows(extra).T / temperature], 1), count + 2 * n * len(extra)
    return scores.flatten().logsumexp(0) - math.log(count) if count else z.sum() * 0


class Memory(nn.Module):
    """First in, first out: the teacher's and the student's projections, which image they are of, and their clusters.

    size, clusters  rows and prototypes
    sign            of the cost that fills the clusters: 1 sends near rows together; -1 is what the released code's
                    exponential of plus the distance does
    """

    def __init__(self, size: int, clusters: int, dim: int, sign: float = 1.0):
        super().__init__()
        self.clusters, self.sign, self.filled, self.ready = clusters, sign, 0, False
        self.register_buffer("teacher", torch.zeros(size, dim))
        self.register_buffer("student", torch.zeros(size, dim))
        self.register_buffer("image", torch.full((size,), -1))
        self.register_buffer("cluster", torch.zeros(size, dtype=torch.long))
        self.register_buffer("prototypes", torch.zeros(clusters, dim))

    @torch.no_grad()
    def begin(self, seed: int) -> None:
        """k-means of what is there: the first prototypes."""
        rows = self.teacher[: self.filled]
        self.prototypes, self.cluster[: self.filled] = kmeans(rows, self.clusters, seed)
        self.prototypes, self.ready = unit_rows(self.prototypes), True

    @torch.no_grad()
    def push(self, teacher: Tensor, student: Tensor, image: Tensor, eps: float = 0.05) -> None:
        """Put a batch in front; its rows go evenly to the clusters by Sinkhorn, whose prototypes are then the means."""
        size, n = len(self.teacher), len(teacher)
        codes = torch.zeros(n, dtype=torch.long, device=teacher.device)
        if self.ready:
            codes = sinkhorn_codes(self.sign * unit_rows(teacher) @ self.prototypes.T, eps).argmax(1)
        for name, new in (
            ("teacher", unit_rows(teacher)),
            ("student", unit_rows(student)),
            ("image", image),
            ("cluster", codes),
        ):
            setattr(self, name, torch.cat([new, getattr(self, name)])[:size])
        self.filled = min(size, self.filled + n)
        if self.ready:
            member = F.one_hot(self.cluster[: self.filled], self.clusters).to(self.teacher)
            count = member.sum(0)[:, None]
            mean = unit_rows(member.T @ self.teacher[: self.filled])
            self.prototypes = torch.where(count > 0, mean, self.prototypes)

    @torch.no_grad()
    def neighbours(self, z: Float[Tensor, "n d"], top: int) -> tuple[Int[Tensor, "n top"], Bool[Tensor, "n top"]]:
        """Places of the nearest members of each row's nearest cluster (by cosine), and which are there at all."""
        z = unit_rows(z)
        mine = (z @ self.prototypes.T).argmax(1)
        scores = z @ self.teacher[: self.filled].T
        scores = scores.masked_fill(self.cluster[: self.filled] != mine[:, None], -torch.inf)
        best = scores.topk(min(top, self.filled), dim=1)
        return best.indices, best.values > -torch.inf


class BECLR(nn.Module):
    """Student, teacher and, where asked for, DyCE's memory. ``forward(views, index)`` is the loss.

    dim       of projections and predictions
    memory    rows of the memory, 0 for none; the paper's has 8,000 and 200 clusters
    top       positives added to a view, 5 in the paper
    start     forward passes before the memory is used
    attract   added positives pull the prediction of their view. In the released code memory rows have no gradient
              and meet only memory rows, so that they serve as further negatives alone: False
    momentum  of the teacher
    """

    def __init__(
        self, encoder: nn.Module, dim: int = 64, *, memory: int = 0, clusters: int = 40, top: int = 5, start: int = 0,
        attract: bool = True, sign: float = 1.0, momentum: float = 0.99, weight: float = 0.1, temperature: float = 2.0,
    ):  # fmt: skip
        super().__init__()
        self.encoder = encoder
        self.projector, self.predictor = mlp([encoder.features, dim, dim]), mlp([dim, dim, dim])
        self.teacher = copy.deepcopy(nn.ModuleList([encoder, self.projector])).requires_grad_(False)
        self.memory = Memory(memory, clusters, dim, sign) if memory else None
        self.top, self.start, self.attract, self.momentum, self.seen = top, start, attract, momentum, 0
        self.weight, self.temperature = weight, temperature
        self.purity: list[tuple[Tensor, Tensor]] = []  # images of the views and of what was added to them

    def forward(self, views: Tensor, index: Int[Tensor, " n"]) -> Float[Tensor, ""]:
        z = self.projector(self.encoder(views))
        p = self.predictor(z)
        with torch.no_grad():
            target = self.teacher[1](self.teacher[0](views))
        loss, memory = beclr_loss(p, target, z, self.weight, self.temperature), self.memory
        if memory is not None and self.training:
            if self.seen >= self.start:
                if not memory.ready:
                    memory.begin(self.seen)
                places, there = memory.neighbours(target, self.top)
                self.purity.append((index.repeat(2)[:, None].expand_as(places)[there], memory.image[places][there]))
                if self.attract:
                    cos = (unit_rows(p)[:, None] * memory.teacher[places]).sum(2)
                    loss = loss - (cos * there).sum() / there.sum().clamp_min(1)
                extra = memory.student[places.flatten()[there.flatten()]]
                new = uniformity_term(z, self.temperature, extra) - uniformity_term(z, self.temperature)
                loss = loss + self.weight * new
            memory.push(target, z.detach(), index.repeat(2))
        self.seen += self.training
        return loss

    @torch.no_grad()
    def follow(self) -> None:
        """The teacher's step towards the student."""
        ours = [*self.encoder.parameters(), *self.projector.parameters()]
        torch._foreach_lerp_(list(self.teacher.parameters()), ours, 1 - self.momentum)
        for a, b in zip(self.teacher.buffers(), [*self.encoder.buffers(), *self.projector.buffers()], strict=True):
            a.copy_(b)


def unlabelled_training(
    method,
    make,
    images: Float[Tensor, "c m ch h w"],
    seed: int,
    *,
    steps: int,
    views,
    batch_size: int = 64,
    lr: float = 4e-3,
) -> nn.Module:
    """``method(encoder)`` trained without labels on all images; the method comes back, in evaluation mode.

    views  ``views(images, generator)`` -> both views stacked
    """
    torch.manual_seed(seed)
    model = method(make()).to(images.device).train()
    g, flat = torch.Generator(images.device).manual_seed(seed), images.flatten(0, 1)

    def step(index):
        if hasattr(model, "follow") and model.seen:
            model.follow()
        return {"loss": model(views(flat[index], g), index)}

    batches = lambda i: torch.randint(len(flat), (batch_size,), generator=g, device=images.device)  # noqa: E731
    fit(model, step, batches, steps=steps, lr=lr, generators=[g], label=f"{type(model).__name__}, seed {seed}")
    return model.eval()


def purity(model: BECLR, labels: Int[Tensor, " n"], last: float = 0.5) -> float:
    """The share of added positives that show the view's class, over the last part of the training."""
    kept = model.purity[int(len(model.purity) * (1 - last)) :]
    mine, theirs = (torch.cat(part) for part in zip(*kept, strict=True))
    return float((labels[mine] == labels[theirs]).float().mean())
