"""GCD (Vaze et al., 2022), where the chapter's methods start: contrastive features, semi-supervised k-means."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from ...loss import check_finite, check_matrix, check_positive, float32, unit_rows
from ...train import allowed
from ..many_kmeans import Partitions, many_kmeans
from .protocol import Problem
from .stacked import StackedMLP


@float32
def weighted_contrast(z: Float[Tensor, "r n d"], weight: Float[Tensor, "r n n"], tau: float = 0.1) -> Float[Tensor, ""]:
    """Contrast in which row i pulls row j with weight w_ij: InfoNCE, SupCon and MetaGCD's loss are three tables of w.

    -1/|A| Σ_{i ∈ A} Σ_j w_ij / N_i · log (exp(zᵢ·zⱼ/τ) / Σ_{l≠i} exp(zᵢ·z_l/τ)), A the rows with a positive weight and
    N_i how many they have. w is 1 for the other view alone: InfoNCE (``nt_xent``); 1 for the row's class: SupCon.

    z       unnormalised, r batches side by side, n >= 2
    weight  >= 0; the diagonal is not looked at; no gradient flows into it
    tau     temperature > 0

    The mean over r batches; 0 where no row has a positive weight. Raises ValueError for weights of another shape.
    """
    if z.ndim != 3 or not z.is_floating_point() or z.shape[1] < 2 or not z.shape[0] or not z.shape[2]:
        raise ValueError(f"z must be a floating-point tensor (r, n, d) with n >= 2, got {z.dtype} {tuple(z.shape)}")
    if weight.shape != (*z.shape[:2], z.shape[1]) or not weight.is_floating_point():
        raise ValueError(
            f"weight must be {(*z.shape[:2], z.shape[1])} of floats, got {weight.dtype} {tuple(weight.shape)}"
        )
    check_positive(tau=tau)
    z, itself = unit_rows(z, 2), torch.eye(z.shape[1], dtype=torch.bool, device=z.device)
    weight = weight.detach().clamp_min(0).masked_fill(itself, 0)
    logits = (z @ z.mT / tau).masked_fill(itself, -torch.inf)
    log_p = logits.log_softmax(2).masked_fill(itself, 0)
    count = (weight > 0).sum(2)
    each = -(weight * log_p).sum(2) / count.clamp_min(1)
    some = (count > 0).to(z.dtype)
    return (each * some).sum() / some.sum().clamp_min(1)


def same_view(n: int, r: int, device=None) -> Float[Tensor, "r 2n 2n"]:
    """InfoNCE's weights for two stacked views of n samples."""
    return torch.eye(n, device=device).repeat(2, 2).expand(r, -1, -1)


def same_class(known: Int[Tensor, "r n"]) -> Float[Tensor, "r 2n 2n"]:
    """SupCon's weights for two stacked views: labelled samples of one class; -1 has no label and no positive."""
    pair = (known[:, :, None] == known[:, None]) & (known >= 0)[:, :, None]
    return pair.float().repeat(1, 2, 2)


@torch.no_grad()
def semi_supervised_kmeans(
    x: Float[Tensor, "n d"],
    known: Int[Tensor, " n"],
    k: int,
    *,
    generator: Generator,
    restarts: int = 10,
    iterations: int = 50,
    start: Float[Tensor, "r k d"] | None = None,
) -> Partitions:
    """k-means in which labelled rows stay in the cluster of their class. GCD, section 3.2; all restarts in one batch.

    known  class 0 … c - 1 of labelled rows, all c of them present; -1 for the others. Cluster j is class j for j < c
    k      clusters in all, at least c; the k - c others are seeded by k-means++ among the unlabelled rows
    start  (r, k, d) centroids to begin with, instead of class means and drawn ones

    Inertia is that of all rows, as in the released code. A centroid that loses its rows stays where it is (ours).
    Raises ValueError for k outside c … n, known of another length, rows that are not finite.
    """
    check_matrix("x", x)
    check_finite(x=x)
    if known.shape != (len(x),):
        raise ValueError(f"known must name a class or -1 for each of the {len(x)} rows, got {tuple(known.shape)}")
    c = int(known.max()) + 1
    if not max(c, 1) <= k <= len(x):
        raise ValueError(f"k must be between the {c} known classes and the {len(x)} rows, got {k}")
    x = x.detach().float() if x.dtype in (torch.float16, torch.bfloat16) else x.detach()
    fixed, free = known >= 0, x[known < 0]
    centroids = _seeds(x, known, free, c, k, restarts, generator) if start is None else start.to(x)
    pinned = F.one_hot(known.clamp_min(0), k).to(x.dtype) * fixed[:, None]
    before = None
    for _ in range(iterations):
        labels, near = _assign(x, centroids, known)
        if before is not None and torch.equal(labels, before):
            break
        before = labels
        member = torch.where(fixed[:, None], pinned, F.one_hot(labels, k).to(x.dtype))
        count = member.sum(1)
        means = torch.einsum("rnk,nd->rkd", member, x) / count.clamp_min(1)[..., None]
        centroids = torch.where((count > 0)[..., None], means, centroids)
    labels, near = _assign(x, centroids, known)
    return Partitions(labels, centroids, near.sum(1))


def _assign(x: Tensor, centroids: Tensor, known: Tensor):
    cross = torch.einsum("nd,rkd->rnk", x, centroids)
    distance = (x.square().sum(1)[:, None] - 2 * cross + centroids.square().sum(2)[:, None]).clamp_min_(0)
    near, labels = distance.min(2)
    labels = torch.where(known >= 0, known, labels)
    return labels, distance.gather(2, labels[..., None])[..., 0]


def _seeds(x, known, free, c, k, restarts, generator):
    means = [x[known == j].mean(0).expand(restarts, -1) for j in range(c)]
    chosen = torch.stack(means, 1) if means else free[:0].expand(restarts, 0, x.shape[1])
    while chosen.shape[1] < k:
        draw = torch.rand(restarts, 1, generator=generator, device=x.device, dtype=x.dtype)
        if chosen.shape[1]:
            near = (
                torch.cdist(free, chosen.transpose(0, 1).reshape(-1, x.shape[1]))
                .view(len(free), -1, restarts)
                .amin(1)
                .T.square()
            )
        else:
            near = torch.ones(restarts, len(free), dtype=x.dtype, device=x.device)
        at = near.cumsum(1)
        pick = torch.searchsorted(at, draw * at[:, -1:]).clamp_(max=len(free) - 1)[:, 0]
        chosen = torch.cat([chosen, free[pick][:, None]], 1)
    return chosen


def best_semi(p: Problem, k: int, *, generator: Generator) -> Int[Tensor, " n"]:
    """The best of ten semi-supervised k-means on a problem: a cluster for each of its rows."""
    found = semi_supervised_kmeans(p.x, p.known, k, generator=generator)
    return found.labels[found.best]


def best_kmeans(x: Float[Tensor, "n d"], k: int, *, generator: Generator) -> Int[Tensor, " n"]:
    """The best of ten k-means on these rows, which knows no label."""
    found = many_kmeans(x, k, restarts=10, generator=generator)
    return found.labels[found.best]


class Heads(nn.Module):
    """What is trained on frozen features, one a problem: a trunk, whose output is clustered, and a projection head."""

    def __init__(self, d: int, r: int, *, generator: Generator, hidden: int = 128, out: int = 64, project: int = 64):
        super().__init__()
        self.trunk = StackedMLP([d, hidden, out], r, generator=generator, copies=True)
        self.head = StackedMLP([out, out, project], r, generator=generator, copies=True)

    def forward(self, x: Float[Tensor, "r n d"]) -> tuple[Tensor, Tensor]:
        z = self.trunk(x)
        return z, self.head(z)

    @torch.no_grad()
    def features(self, x: Float[Tensor, "*r n d"]) -> Float[Tensor, "r n e"]:
        """The trunk's output, rows of unit length."""
        r = len(self.trunk.weights[0])
        return unit_rows(self.trunk(x.expand(r, *x.shape[-2:])), 2)


def two_views(problems: list[Problem], batch: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """A batch for each problem: two views of the same samples stacked (r, 2b, d), and their known classes (r, b)."""
    views, known = [], []
    for p in problems:
        index = torch.randint(len(p.y), (batch,), generator=generator, device=p.x.device)
        first, second = torch.randperm(len(p.views), generator=generator, device=p.x.device)[:2]
        views.append(torch.cat([p.views[first, index], p.views[second, index]]))
        known.append(p.known[index])
    return torch.stack(views), torch.stack(known)


def gcd_loss(
    z: Float[Tensor, "r 2n d"], known: Int[Tensor, "r n"], share: float = 0.35, tau: float = 0.3, tau_sup: float = 0.1
):
    """(1 - λ) InfoNCE of all samples + λ SupCon of the labelled ones: GCD, eq. 3, λ = 0.35 (``share``)."""
    r, n = known.shape
    info = weighted_contrast(z, same_view(n, r, z.device), tau)
    return (1 - share) * info + share * weighted_contrast(z, same_class(known), tau_sup)


def train_gcd(
    problems: list[Problem],
    *,
    generator: Generator,
    steps: int = 150,
    batch: int = 128,
    lr: float = 3e-3,
    share: float = 0.35,
    heads: Heads | None = None,
    extra=None,
) -> Heads:
    """GCD's representation for several problems at once: heads on the frozen features of augmented views.

    GCD trains the last block of a pre-trained vision transformer by SGD for 200 epochs at τ = 1 (InfoNCE) and 0.07
    (SupCon); here a perceptron stands for the block, with Adam, τ = 0.3 and 0.1.

    extra  ``extra(step, heads, features, known, generator)``: a loss to add, for methods that go on from here

    Raises ValueError for problems without views.
    """
    if any(p.views is None or len(p.views) < 2 for p in problems):
        raise ValueError("problems must have two views of every sample at least")
    steps = allowed(steps)
    heads = heads or Heads(problems[0].x.shape[1], len(problems), generator=generator)
    adam = torch.optim.Adam(heads.parameters(), lr, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    for step in range(steps):
        views, known = two_views(problems, batch, generator)
        features, z = heads(views)
        loss = gcd_loss(z, known, share) * len(problems)
        if extra is not None:
            loss = loss + extra(step, heads, features, known, generator)
        adam.zero_grad()
        loss.backward()
        adam.step()
        schedule.step()
    return heads
