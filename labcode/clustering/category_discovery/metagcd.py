"""MetaGCD (Wu et al., 2023): rehearse, on old classes, how to discover new ones without losing what was there."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor
from torch.func import functional_call

from ...loss import check_positive, unit_rows
from ...train import allowed
from ..many_kmeans import many_kmeans
from .gcd import Heads, same_class, same_view, weighted_contrast
from .protocol import discovery_accuracy
from .stacked import draw_rows


@torch.no_grad()
def soft_neighbours(
    z: Float[Tensor, "r 2n d"], threshold: float = 0.85, tau: float = 0.07, soft: bool = True
) -> Float[Tensor, "r 2n 2n"]:
    """The weights of MetaGCD's positives: samples whose views come nearer than a cosine of ``threshold``.

    MetaGCD (Wu et al., 2023), section 3.3, as released: the similarity of two samples is the largest cosine between
    their views; a sample's neighbours are those at or above the threshold, itself among them; their weights are the
    softmax of the similarities over τ, divided by the largest of the row. A sample with no neighbour but itself has no
    positive at all.

    z          unnormalised, two views stacked
    threshold  in [-1, 1]; 1 and above leaves nothing
    tau        of the weights' softmax (ours; the released code takes the loss's)
    soft       False gives every neighbour weight 1

    For ``weighted_contrast``. Raises ValueError for an odd number of rows and tau <= 0.
    """
    check_positive(tau=tau)
    if z.ndim != 3 or z.shape[1] % 2:
        raise ValueError(f"z must be (r, 2n, d), two views stacked, got {tuple(z.shape)}")
    z, n = unit_rows(z, 2), z.shape[1] // 2
    cosine = (z @ z.mT).view(len(z), 2, n, 2, n).amax((1, 3))
    near = cosine >= threshold
    near |= torch.eye(n, dtype=torch.bool, device=z.device)
    weight = (cosine / tau).masked_fill(~near, -torch.inf).softmax(2)
    weight = weight / weight.amax(2, keepdim=True) if soft else near.to(z.dtype)
    weight = weight * (near.sum(2) > 1)[..., None]
    return weight.repeat(1, 2, 2)


@dataclass(frozen=True)
class Continual:
    """Sessions that bring new classes, for r class orders at once.

    views  (v, n, d) features of augmented samples, shared; x (n, d) those of the samples themselves
    y      (r, n) classes numbered in the order in which they arrive
    part   (r, n) the session whose training rows a sample belongs to: 0 is the labelled start
    upto   classes that have been there by the end of each session
    """

    views: Float[Tensor, "v n d"]
    x: Float[Tensor, "n d"]
    y: Int[Tensor, "r n"]
    part: Int[Tensor, "r n"]
    upto: tuple[int, ...]


def continual(
    x: Tensor,
    views: Tensor,
    labels: Int[Tensor, " n"],
    orders: Int[Tensor, "r c"],
    upto: tuple[int, ...],
    *,
    generator: Generator,
    start: float = 0.6,
) -> Continual:
    """Deal samples to sessions: ``start`` of the base classes' rows are labelled, the rest of every class is spread
    evenly over the sessions from the one that brings it on.

    orders  each row a permutation of the classes, the order in which they arrive
    upto    how many have arrived after each session, rising, all at the end

    Raises ValueError for sessions that do not bring all classes.
    """
    classes = orders.shape[1]
    if list(upto) != sorted(set(upto)) or upto[-1] != classes:
        raise ValueError(f"upto must rise to all {classes} classes, got {upto}")
    inverse = orders.argsort(1)
    y = inverse[:, labels]
    first = torch.tensor([next(s for s, c in enumerate(upto) if k < c) for k in range(classes)], device=x.device)[y]
    draw = torch.rand(y.shape, generator=generator, device=x.device)
    last = len(upto) - 1
    begin = first.clamp_min(1)
    part = begin + (draw * (last - begin + 1)).long().clamp_max(last)
    base = (first == 0) & (torch.rand(y.shape, generator=generator, device=x.device) < start)
    return Continual(views, x, y, torch.where(base, 0, part), tuple(upto))


def session_loss(
    z: Tensor, *, threshold: float = 0.85, soft: bool = True, share: float = 0.5, tau: float = 0.3, tau_sup: float = 0.1
):
    """0.5 InfoNCE + 0.5 contrast with soft neighbours: what a session trains on. ``share`` 0: InfoNCE alone."""
    r, n = z.shape[0], z.shape[1] // 2
    loss = (1 - share) * weighted_contrast(z, same_view(n, r, z.device), tau)
    return (
        loss + share * weighted_contrast(z, soft_neighbours(z.detach(), threshold, soft=soft), tau_sup)
        if share
        else loss
    )


def outer_loss(
    z: Tensor, y: Int[Tensor, "r n"], info: float = 0.5, taught: float = 0.5, tau: float = 0.3, tau_sup: float = 0.1
):
    """0.5 InfoNCE + 0.5 SupCon with the true labels of old and pseudo-new classes: what a rehearsal is judged by."""
    r, n = y.shape
    return info * weighted_contrast(z, same_view(n, r, z.device), tau) + taught * weighted_contrast(
        z, same_class(y), tau_sup
    )


def _batch(c: Continual, allowed: Tensor, size: int, generator: Generator):
    """Two views of rows drawn where ``allowed`` (r, n): (r, 2 size, d), and their places."""
    at = draw_rows(allowed.float(), size, generator=generator)
    first, second = torch.randperm(len(c.views), generator=generator, device=at.device)[:2]
    return torch.cat([c.views[first][at], c.views[second][at]], 1), at


def _sgd(heads: Heads, values: dict, loss: Tensor, rate: float, create: bool) -> dict:
    slopes = torch.autograd.grad(loss, list(values.values()), create_graph=create, retain_graph=create)
    return {name: v - rate * g for (name, v), g in zip(values.items(), slopes, strict=True)}


def meta_train(
    heads: Heads,
    c: Continual,
    *,
    generator: Generator,
    tasks: int = 40,
    inner: int = 3,
    batch: int = 64,
    rate: float = 0.3,
    lr: float = 1e-3,
    order: int = 1,
    **options,
) -> Heads:
    """Rehearse sessions with the labelled base classes: adapt without labels, be judged with them, correct the start.

    MetaGCD, algorithm 1. Each task takes some base classes as pseudo-new; ``inner`` steps of ``session_loss`` at rate
    ``rate`` lead from the present weights θ to θ'; the gradient of ``outer_loss`` at θ' on another batch moves θ
    (Adam).

    order    1: the gradient at θ' is taken for that at θ (first-order MAML); 2: through the inner steps
    inner    0 is plain supervised training on the same batches: no rehearsal
    options  threshold, soft, share, for ``session_loss``; info, taught for ``outer_loss``

    The released code restores θ before it differentiates, so its outer step does not see the inner one. Pseudo-new
    classes are drawn anew for each task; half of the base, one at least.
    """
    judged = {k: options.pop(k) for k in ("info", "taught") if k in options}
    adam = torch.optim.Adam(heads.parameters(), lr, fused=True)
    base, start = c.upto[0], c.part == 0
    for _ in range(allowed(tasks)):
        new = torch.randperm(base, generator=generator, device=c.y.device)[: max(1, base // 2)]
        weight = start.float() * torch.where(torch.isin(c.y, new), 1.0, 0.5)  # new ones and fewer of the old
        theta = dict(heads.named_parameters())
        values = theta if order == 2 else {k: v.detach().requires_grad_() for k, v in theta.items()}
        for _ in range(inner):
            z, _ = _batch(c, weight, batch, generator)
            values = _sgd(
                heads,
                values,
                session_loss(functional_call(heads, values, (z,))[1], **options) * len(c.y),
                rate,
                order == 2,
            )
            if order == 1:
                values = {k: v.detach().requires_grad_() for k, v in values.items()}
        z, at = _batch(c, start, batch, generator)
        loss = outer_loss(functional_call(heads, values, (z,))[1], c.y.gather(1, at), **judged) * len(c.y)
        slopes = torch.autograd.grad(loss, list(values.values()) if order == 1 else list(theta.values()))
        for p, slope in zip(heads.parameters(), slopes, strict=True):
            p.grad = slope
        adam.step()
    return heads


def run_sessions(
    heads: Heads,
    c: Continual,
    *,
    generator: Generator,
    steps: int = 15,
    batch: int = 64,
    rate: float = 0.3,
    replay: bool = False,
    restarts: int = 10,
    count=None,
    last: bool = False,
    **options,
) -> list[dict[str, list[float]]]:
    """Meet the sessions in turn; after each, All, Old and New accuracy on all rows seen without labels so far.

    Old are the base classes, New all that came later. k-means on the trunk's features with the true number of classes
    present (or what ``count(features, present)`` says), one matching, as released; plain k-means, for each class order.

    steps    SGD steps a session; 0 leaves the features as they are
    replay   half of every batch are the labelled rows of the start, with their SupCon: GCD with replay
    last     measure after the last session alone
    options  those of ``session_loss``
    """
    values, end = {k: v.detach().clone() for k, v in heads.named_parameters()}, len(c.upto) - 1
    found = [] if last else [_measure(heads, values, c, 0, restarts, generator, count)]
    for session in range(1, end + 1):
        for _ in range(allowed(steps)):
            live = {k: v.requires_grad_() for k, v in values.items()}
            z, _ = _batch(c, c.part == session, batch, generator)
            loss = session_loss(functional_call(heads, live, (z,))[1], **options)
            if replay:
                old, at = _batch(c, c.part == 0, batch, generator)
                loss = (loss + outer_loss(functional_call(heads, live, (old,))[1], c.y.gather(1, at))) / 2
            values = {k: v.detach() for k, v in _sgd(heads, live, loss * len(c.y), rate, False).items()}
        if session == end or not last:
            found.append(_measure(heads, values, c, session, restarts, generator, count))
    return found


@torch.no_grad()
def _measure(
    heads: Heads, values: dict, c: Continual, session: int, restarts: int, generator: Generator, count
) -> dict:
    x = c.x.expand(len(c.y), *c.x.shape)
    features = unit_rows(functional_call(heads, values, (x,))[0], 2)
    result: dict[str, list[float]] = {"All": [], "Old": [], "New": []}
    for z, y, part in zip(features, c.y, c.part, strict=True):
        seen = (part <= session) & (part > 0) if session else part == 0
        k = count(z[seen], c.upto[session]) if count else c.upto[session]
        clusters = many_kmeans(z[seen], k, restarts=restarts, generator=generator)
        for name, value in discovery_accuracy(clusters.labels[clusters.best], y[seen], c.upto[0]).items():
            result[name].append(value)
    return result
