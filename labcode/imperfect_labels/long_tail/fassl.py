"""Frequency-aware self-supervision (FASSL) of a long tail without labels: prototypes whose sizes follow the data, then
images against prototypes, the rare ones weighing more (Lin, Yang and Wang, ICME 2023).

The stages and their order are the paper's; the forms of the losses are not public in code, so that those below are *in
the spirit of* it: stage 1 swaps assignments between views as SwAV does, but with a marginal that is estimated instead
of uniform; stage 2 lets views agree in their relations to frozen prototypes, each image weighed by how rare its
prototype is, beside SimCLR's loss. All is a stack of b networks.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ...loss import unit_rows


def assignments(
    scores: Float[Tensor, "b n K"], marginal: Float[Tensor, "b K"] | None = None, eps: float = 0.05,
    iterations: int = 3, strength: Float[Tensor, " b"] | float = 1.0,
) -> Float[Tensor, "b n K"]:  # fmt: skip
    """Soft assignments of n samples to K prototypes: rows sum to 1, columns to about n times the marginal.

    marginal  the prototypes' shares, positive, sum 1; None for equal shares, which is SwAV's equipartition
    eps       entropy of the assignments, > 0
    strength  how far each step moves the columns' sums towards the marginal, one number or one a network: 1 enforces
              it, 0 leaves softmax(scores / eps), between them the marginal is only a wish (unbalanced transport)

    Sinkhorn's steps in logarithms, ending with the rows; no gradient. Raises ValueError for eps or iterations not
    positive.
    """
    if not eps > 0 or iterations < 1:
        raise ValueError(f"eps must be positive and iterations at least 1, got {eps} and {iterations}")
    b, _, k = scores.shape
    with torch.no_grad():
        log_q = scores.float() / eps
        target = log_q.new_full((b, k), 1 / k) if marginal is None else marginal.clamp_min(1e-12)
        for _ in range(iterations):
            off = log_q.logsumexp(1, keepdim=True) - (len(log_q[0]) * target).log()[:, None]
            log_q = log_q - (strength if isinstance(strength, float) else strength.view(-1, 1, 1)) * off
            log_q = log_q - log_q.logsumexp(2, keepdim=True)
        return log_q.exp()


def follow(
    marginal: Float[Tensor, "b K"], q: Float[Tensor, "b n K"], momentum: float = 0.9, floor: float = 0.2
) -> Float[Tensor, "b K"]:
    """The running mean of the prototypes' shares after a batch: frequencies that follow the data.

    q         the batch's assignments. Enforced ones only give the marginal back; those of a strength below 1 move it
    momentum  of the mean, in [0, 1)
    floor     no prototype's share falls below about floor / K: the guard against a collapse onto a few, in [0, 1]

    Raises ValueError for momentum or floor out of range.
    """
    if not 0 <= momentum < 1 or not 0 <= floor <= 1:
        raise ValueError(f"momentum must be in [0, 1) and floor in [0, 1], got {momentum} and {floor}")
    with torch.no_grad():
        found = momentum * marginal + (1 - momentum) * q.float().mean(1)
        found = found.clamp_min(floor / found.shape[1])
        return found / found.sum(1, keepdim=True)


def swapped(
    one: Float[Tensor, "b n K"], two: Float[Tensor, "b n K"], q_one: Float[Tensor, "b n K"],
    q_two: Float[Tensor, "b n K"], tau: float = 0.1,
) -> Float[Tensor, " b"]:  # fmt: skip
    """Each view predicts the other's assignment: SwAV's loss, a mean over both directions.

    one, two      scores of the two views; q_one, q_two their assignments, which get no gradient
    """
    cross = lambda q, s: -(q.detach() * (s / tau).log_softmax(2)).sum(2).mean(1)  # noqa: E731
    return (cross(q_two, one) + cross(q_one, two)) / 2


def rare_weights(
    scores: Float[Tensor, "b n K"], marginal: Float[Tensor, "b K"], gamma: float = 0.5, tau: float = 0.1
) -> Float[Tensor, "b n"]:
    """A weight for each image, Σ_k p_k π_k^-γ with p = softmax(scores / τ): large near rare prototypes; mean 1.

    gamma  0 weighs all images alike
    """
    with torch.no_grad():
        weight = ((scores / tau).softmax(2) * marginal.clamp_min(1e-12).pow(-gamma)[:, None]).sum(2)
        return weight / weight.mean(1, keepdim=True)


def rebalanced(
    one: Float[Tensor, "b n K"], two: Float[Tensor, "b n K"], weight: Float[Tensor, "b n"], tau: float = 0.1,
    sharp: float = 0.05,
) -> Float[Tensor, " b"]:  # fmt: skip
    """Views agree in their relations to the frozen prototypes, images weighed: the second stage's loss.

    tau    temperature of the view that learns
    sharp  temperature of the other, the target, which gets no gradient; below tau, so that agreement is not reached by
           relations that say nothing
    """
    cross = lambda t, s: -((t.detach() / sharp).softmax(2) * (s / tau).log_softmax(2)).sum(2)  # noqa: E731
    return (weight * (cross(two, one) + cross(one, two)) / 2).mean(1)


def contrast(
    one: Float[Tensor, "b n d"], two: Float[Tensor, "b n d"], tau: float = 0.2,
    weight: Float[Tensor, "b n"] | None = None,
) -> Float[Tensor, " b"]:  # fmt: skip
    """NT-Xent of every network: two views of an image against all other rows of its own batch.

    weight  of each image; None for 1
    """
    z = unit_rows(torch.cat([one, two], 1))
    b, rows, _ = z.shape
    itself = torch.eye(rows, dtype=torch.bool, device=z.device)
    logits = (z @ z.mT / tau).masked_fill(itself, -torch.inf)
    other = torch.arange(rows, device=z.device).roll(rows // 2)
    each = F.cross_entropy(logits.flatten(0, 1), other.repeat(b), reduction="none").view(b, 2, rows // 2)
    return (each if weight is None else each * weight[:, None]).mean((1, 2))


def mass_correlation(marginal: Float[Tensor, "b K"], owners: Float[Tensor, "b K C"]) -> Float[Tensor, " b"]:
    """Correlation, over classes, of the prototypes' mass on a class with how many samples the class has.

    marginal  shares of the prototypes
    owners    samples of each class that lie at each prototype: a prototype's share goes to its most frequent class
    """
    classes = owners.shape[2]
    mass = owners.new_zeros(len(marginal), classes).scatter_add_(1, owners.argmax(2), marginal.to(owners))
    truth = owners.sum(1)
    mass, truth = (t - t.mean(1, keepdim=True) for t in (mass, truth))
    return (mass * truth).sum(1) / (mass.norm(dim=1) * truth.norm(dim=1)).clamp_min(1e-12)


def purity(owners: Float[Tensor, "b K C"], classes: slice = slice(None)) -> Float[Tensor, " b"]:
    """The share of the samples of some classes that lie at a prototype whose most frequent class is theirs."""
    c = owners.shape[2]
    own = F.one_hot(owners.argmax(2), c) * owners
    return own[:, :, classes].sum((1, 2)) / owners[:, :, classes].sum((1, 2)).clamp_min(1)
