"""ClAM: prototypes as the memories of an associative memory, trained by completing masked points."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ...loss import check_finite, check_matrix, check_positive


def recall(
    v: Float[Tensor, "*b n d"], prototypes: Float[Tensor, "*b k d"], beta: float | Float[Tensor, "*b 1 1"],
    mask: Bool[Tensor, "*b n d"] | None = None, steps: int = 10, rate: float | None = None,
) -> Float[Tensor, "*b n d"]:  # fmt: skip
    """Steps down the energy: v ← v + α m ⊙ Σ_k softmax_k(-(β/2) ‖v - r_k‖²) (r_k - v), ClAM, eq. 4.

    v           states; visible coordinates stay as they are
    prototypes  r_k, the memories
    beta        β > 0, inverse temperature
    mask        m, true where a coordinate is hidden and may move; default all
    rate        α; default 1/steps, as in the paper
    """
    rate = 1 / steps if rate is None else rate
    gate = torch.full_like(v, rate) if mask is None else rate * mask.to(v.dtype)
    sharp, offset = (beta * prototypes).mT, beta / 2 * prototypes.square().sum(-1)[..., None, :]
    for _ in range(steps):
        pull = (v @ sharp - offset).softmax(-1) @ prototypes - v  # ‖v‖² is the same for every prototype
        v = torch.addcmul(v, gate, pull)
    return v


def energy(v: Float[Tensor, "*b n d"], prototypes: Float[Tensor, "*b k d"], beta: float) -> Float[Tensor, "*b n"]:
    """E(v) = -(1/β) log Σ_k exp(-(β/2) ‖v - r_k‖²): ``recall`` without a mask is gradient descent on it."""
    return -torch.logsumexp(-beta / 2 * torch.cdist(v, prototypes).square(), -1) / beta


@dataclass(frozen=True)
class Memories:
    """Trained prototypes (r, k, d), one set for each of r runs, with inverse temperatures (r,) and losses (r,)."""

    prototypes: Float[Tensor, "r k d"]
    beta: Float[Tensor, " r"]
    loss: Float[Tensor, " r"]
    steps: int

    def labels(self, x: Float[Tensor, "n d"]) -> Int[Tensor, "r n"]:
        """Each row goes down the energy with nothing clamped, and takes the prototype nearest to where it ends."""
        states = recall(x.expand(len(self.beta), *x.shape), self.prototypes, self.beta[:, None, None], steps=self.steps)
        return torch.cdist(states, self.prototypes).argmin(2)


def clam(
    x: Float[Tensor, "n d"], k: int, *, beta: Float[Tensor, " r"], generator: torch.Generator, masked: float = 0.2,
    steps: int = 10, epochs: int = 60, batch: int = 64, lr: float = 0.1, start: str = "rows",
) -> Memories:  # fmt: skip
    """Prototypes that complete hidden coordinates best, for several runs in one batch; Saha et al. (2023).

    x       rows, standardised by column
    beta    inverse temperatures, one a run: equal entries are restarts
    masked  share of the coordinates that are hidden, replaced by the column's mean, 0; at least one in every row.
            0 is the ablation: the whole row moves and is compared with where it came from
    steps   T of the recursion, with rate 1/T
    lr      of Adam; falls by 0.8 every tenth of the training, where the paper waits for a plateau
    start   "rows" for k rows of x, "normal" for the paper's N(0.1, 0.1²), which lets more prototypes die

    The masks are drawn anew in every step; the released code draws them a batch at a time, shares one every third epoch
    and never hides the first column. Only the prototypes are trained. The set with the least loss of an epoch is kept.

    Raises ValueError for k outside 1 … n, masked outside [0, 1), and rows that are not finite.
    """
    check_matrix("x", x)
    check_finite(x=x)
    check_positive(lr=lr)
    if not 1 <= k <= len(x):
        raise ValueError(f"k must be between 1 and the {len(x)} rows of x, got {k}")
    if not 0 <= masked < 1:
        raise ValueError(f"masked must be in [0, 1), got {masked}")
    if start not in ("rows", "normal"):
        raise ValueError(f"start must be 'rows' or 'normal', got {start!r}")
    x, runs = x.float(), len(beta)

    def draw(*shape):
        return torch.rand(*shape, generator=generator, device=x.device)

    if start == "rows":
        prototypes = x[draw(runs, len(x)).argsort(1)[:, :k]].clone()
    else:
        prototypes = 0.1 + 0.1 * torch.randn(runs, k, x.shape[1], generator=generator, device=x.device)
    prototypes.requires_grad_()
    optimiser = torch.optim.Adam([prototypes], lr)
    schedule = torch.optim.lr_scheduler.StepLR(optimiser, max(1, epochs // 10), 0.8)
    wide, best = beta.to(x)[:, None, None], torch.full((runs,), torch.inf, device=x.device)
    kept, hidden = prototypes.detach().clone(), max(1, round(masked * x.shape[1]))
    for _ in range(epochs):
        before, losses = prototypes.detach().clone(), torch.zeros(runs, device=x.device)
        for rows in draw(len(x)).argsort().split(batch):
            target = x[rows].expand(runs, -1, -1)
            if masked:
                mask = draw(runs, len(rows), x.shape[1]).argsort(2) < hidden
                out = recall(torch.where(mask, 0.0, target), prototypes, wide, mask, steps)
                loss = ((out - target).square() * mask).sum((1, 2)) / (len(rows) * hidden)
            else:
                loss = (recall(target, prototypes, wide, None, steps) - target).square().mean((1, 2))
            optimiser.zero_grad(set_to_none=True)
            loss.sum().backward()
            optimiser.step()
            losses += loss.detach() * len(rows) / len(x)
        schedule.step()
        better = losses < best
        best = torch.where(better, losses, best)
        kept = torch.where(better[:, None, None], before, kept)
    return Memories(kept, beta.to(x), best, steps)


def soft_kmeans(
    x: Float[Tensor, "n d"], k: int, *, beta: Float[Tensor, " r"], generator: torch.Generator, iterations: int = 200
) -> Memories:
    """The continuous relaxation: centroids as softmax-weighted means at a fixed β, several runs in one batch."""
    check_matrix("x", x)
    x = x.float()
    order = torch.rand(len(beta), len(x), generator=generator, device=x.device).argsort(1)
    centroids = x[order[:, :k]]
    for _ in range(iterations):
        score = beta.to(x)[:, None, None] * (x @ centroids.mT - centroids.square().sum(2)[:, None] / 2)
        weight = score.softmax(2)
        centroids = weight.mT @ x / weight.sum(1).clamp_min(1e-8)[..., None]
    loss = torch.cdist(x.expand(len(beta), *x.shape), centroids).square().amin(2).mean(1)
    return Memories(centroids, beta.to(x), loss, 1)


def self_trained(
    x: Float[Tensor, "n d"], start: Float[Tensor, "r k d"], iterations: int = 100, lr: float = 0.05
) -> Memories:
    """DEC's clustering loss (Xie et al. 2016) on the rows themselves: KL to the sharpened Student's t memberships.

    start  centroids of k-means runs. The embedding stays the identity: what is compared is the loss, not a network.
    """
    x = x.float()
    centroids = start.float().clone().requires_grad_()
    optimiser = torch.optim.Adam([centroids], lr)
    for _ in range(iterations):
        q = 1 / (1 + torch.cdist(x.expand(len(start), *x.shape), centroids).square())
        q = q / q.sum(2, keepdim=True)
        p = (q.square() / q.sum(1, keepdim=True)).detach()
        p = p / p.sum(2, keepdim=True)
        loss = (p * (p.log() - q.log())).sum(2).mean(1)
        optimiser.zero_grad(set_to_none=True)
        loss.sum().backward()
        optimiser.step()
    return Memories(centroids.detach(), torch.full((len(start),), 1e3), loss.detach(), 1)
