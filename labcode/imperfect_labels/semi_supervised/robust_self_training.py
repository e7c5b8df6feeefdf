"""Out-Of-Domain Unlabeled Data Improves Generalization: robust losses of few labels and of many unlabelled points.

The estimator, *robust self-supervised training* (RSS), minimises

    (1/m) Σ_i φ_γ(x_i, y_i; h)  +  (λ/n) Σ_j φ_γ'(u_j, h(u_j); h),    φ_γ(x, y; h) = sup_z ℓ(h; z, y) - γ c(z, x) :

a robust loss of m labelled points and one of n unlabelled points under the classifier's *own* label, which may come
from another, near-by distribution. φ is the dual of a loss that is worst within a Wasserstein ball; a small γ is a
large ball. Here h(x) = sign(w·x + b), ℓ is a clipped hinge and c the squared distance, so that the supremum has a
closed form; ``ascend`` finds it by steps, as one must with a deep network.

Everything is stacked: r draws of the data, and on each a *arms* at once, which share the points and differ in how many
labels they see and in their λ and γ'. Departures: the paper's simulation is known from its poster, and its code is not
released; w is kept at length 1 and goes by steps of set length on the sphere, from the mean of the labelled y x.
"""

import math

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from ...loss import check_positive, unit_rows

SLOPE = 0.5  # of the clipped hinge: a margin of 2 costs nothing
FAR = 1e9  # a price of moving at which nothing moves


def clipped_hinge(margin: Float[Tensor, "..."], slope: float = SLOPE) -> Float[Tensor, "..."]:
    """min(1, max(0, 1 - slope·margin)): the loss ℓ of margins y (w·x + b), in 0 … 1. Raises ValueError for slope <=
    0."""
    check_positive(slope=slope)
    return (1 - slope * margin).clamp(0, 1)


def robust_loss(
    margin: Float[Tensor, "..."], length: Float[Tensor, "..."] | float, gamma: Float[Tensor, "..."] | float,
    slope: float = SLOPE,
) -> Float[Tensor, "..."]:  # fmt: skip
    """φ_γ: the largest clipped hinge less γ times the squared way to it, in closed form, 0 … 1.

    margin  y (w·x + b)
    length  ‖w‖ > 0, of a shape that broadcasts
    gamma   > 0, the price of moving a point, of a shape that broadcasts; infinity moves none: the clipped hinge itself

    The best move goes t along -y w/‖w‖ and costs γ t²; the loss grows by s = slope·‖w‖ for each unit of way. Without
    the clip t = s / 2γ and the loss is the hinge's with s² / 4γ on top; with it t ends where the loss is full, at a
    margin of 0. Raises ValueError for gamma or slope <= 0.
    """
    check_positive(slope=slope)
    gamma = torch.as_tensor(gamma, dtype=margin.dtype, device=margin.device)
    if not bool((gamma > 0).all()):
        raise ValueError(f"gamma must be positive, got {float(gamma.min())}")
    gamma, s = gamma.clamp_max(FAR), slope * torch.as_tensor(length, dtype=margin.dtype, device=margin.device)
    inside = 1 - slope * margin + s.square() / (4 * gamma)
    full = 1 - gamma * (slope * margin / s).square()
    moved = torch.where(s.square() / (2 * gamma) <= slope * margin, inside, full)
    return torch.where(margin <= 0, torch.ones_like(moved), moved.clamp_min(0))


def ascend(
    loss, x: Float[Tensor, "... d"], gamma: float, steps: int = 200, rate: float = 0.05
) -> Float[Tensor, "..."]:
    """φ_γ of any differentiable loss by gradient ascent in z from x: what a deep network needs. The best on the way.

    loss         z (..., d) -> (...)
    steps, rate  of plain ascent: at least 1, > 0. Where the loss is flat at x the ascent stays there, and the value
                 is a lower bound

    Raises ValueError for gamma or rate <= 0 and steps below 1.
    """
    check_positive(gamma=gamma, rate=rate)
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    z = x.detach().clone().requires_grad_()
    best = loss(x).detach()
    for _ in range(steps + 1):
        value = loss(z) - gamma * (z - x).square().sum(-1)
        best = torch.maximum(best, value.detach())
        (slope,) = torch.autograd.grad(value.sum(), z)
        z = (z + rate * slope).detach().requires_grad_()
    return best


def rss_objective(
    w: Float[Tensor, "r a d"], b: Float[Tensor, "r a"] | float, x: Float[Tensor, "r m d"], y: Float[Tensor, "r m"],
    u: Float[Tensor, "r n d"] | None = None, weight: Float[Tensor, "a m"] | None = None, *, gamma=4.0, gamma_u=0.1,
    lam=30.0,
) -> Float[Tensor, "r a"]:  # fmt: skip
    """The objective of a arms on each of r draws; without u the robust loss of the labelled points alone.

    w, b            of each arm's classifier
    y               ±1
    weight          of each arm's labelled points, rows that add up to 1; None is 1/m
    gamma           of labelled points; ``gamma_u`` of unlabelled ones, whose margin is |w·u + b|. Small, it makes φ
                    about 1 - γ'(w·u + b)²/‖w‖²: the objective looks for the direction along which they lie far out
    gamma_u, lam    numbers, or (a,)
    """
    length = w.norm(dim=2)[:, None]
    known = robust_loss(y[..., None] * (_along(x, w) + _row(b)), length, _row(gamma))
    known = known.mean(1) if weight is None else torch.einsum("rma,am->ra", known, weight)
    if u is None or not u.shape[1]:
        return known
    own = (_along(u, w) + _row(b)).abs()
    return known + lam * robust_loss(own, length, _row(gamma_u)).mean(1)


def _along(points: Tensor, w: Tensor) -> Tensor:
    """w·x of each draw's points, (r, n, a): this way round the backward pass copies no points."""
    return (w @ points.mT).mT


def _row(value):
    """A number as it is, (a,) too; (r, a) as (r, 1, a)."""
    return value[:, None] if isinstance(value, Tensor) and value.ndim == 2 else value


def rss(
    x: Float[Tensor, "r m d"], y: Float[Tensor, "r m"], u: Float[Tensor, "r n d"] | None = None,
    weight: Float[Tensor, "a m"] | None = None, *, gamma=4.0, gamma_u=0.1, lam=30.0, bias: bool = False,
    steps: int = 25, rate: float = 0.4,
) -> tuple[Float[Tensor, "r a d"], Float[Tensor, "r a"]]:  # fmt: skip
    """w of length 1 and b of each arm, by steps on the sphere down ``rss_objective``; without u the robust ERM.

    weight       (a, m), which sets the number of arms, or None for as many as ``lam`` or ``gamma_u`` have
    bias         learn b too; else it stays 0
    steps, rate  steps of length ``rate`` that shrink to 0 along half a cosine

    The start is the direction of the mean of y x, all that few labels tell of two equal Gaussians. Raises ValueError
    for labels other than ±1.
    """
    if not bool((y.abs() == 1).all()):
        raise ValueError(f"y must be -1 or 1, got values in {float(y.min()):g} … {float(y.max()):g}")
    sizes = [len(v) for v in (lam, gamma_u, gamma) if isinstance(v, Tensor) and v.ndim]
    if weight is None:
        weight = torch.full((max(sizes, default=1), y.shape[1]), 1 / y.shape[1]).to(x)
    w = mean_direction(x, y, weight)
    b = torch.zeros_like(w[..., 0])
    for i in range(steps):
        w, b = w.detach().requires_grad_(), b.detach().requires_grad_()
        value = rss_objective(w, b, x, y, u, weight, gamma=gamma, gamma_u=gamma_u, lam=lam)
        along, across = torch.autograd.grad(value.sum(), (w, b))
        along = along - (along * w).sum(2, keepdim=True) * w
        size = rate * 0.5 * (1 + math.cos(math.pi * i / steps))
        w = unit_rows(w - size * unit_rows(along))
        if bias:
            b = b - size * across.clamp(-1, 1)
    return w.detach(), b.detach()


def mean_direction(
    x: Float[Tensor, "r m d"], y: Float[Tensor, "r m"], weight: Float[Tensor, "a m"] | None = None
) -> Float[Tensor, "r a d"]:
    """ERM of two equal round Gaussians: the direction of the mean of y x, whose own error is √(d/m)."""
    weight = torch.full((1, y.shape[1]), 1 / y.shape[1]).to(x) if weight is None else weight
    return unit_rows(torch.einsum("rmd,rm,am->rad", x, y, weight))


def self_training(
    x: Float[Tensor, "r m d"], y: Float[Tensor, "r m"], u: Float[Tensor, "r n d"],
    weight: Float[Tensor, "a m"] | None = None, rounds: int = 10, soft: bool = False,
) -> Float[Tensor, "r a d"]:  # fmt: skip
    """The rivals: label u by the classifier, take the mean of y x over all points, ``rounds`` times; (r, a, d),
    length 1.

    soft  tanh(μ·u) instead of sign(μ·u): expectation maximisation of two Gaussians N(±μ, I), which is told the
          covariance

    Labelled points count as many as they are: ``weight`` (a, m) is 1/k on k of them.
    """
    weight = torch.full((1, y.shape[1]), 1 / y.shape[1]).to(x) if weight is None else weight
    count = (weight > 0).sum(1)[:, None]
    known = torch.einsum("rmd,rm,am->rad", x, y, weight) * count
    mean = known / count
    for _ in range(rounds):
        guess = u @ mean.mT
        guess = guess.tanh() if soft else guess.sign()
        mean = (known + guess.mT @ u) / (count + u.shape[1])
    return unit_rows(mean)


def gaussian_pair(
    r: int, m: int, n: int, d: int = 200, shift: float = 0.0, *, generator: Generator,
    spread: Float[Tensor, " d"] | None = None,
) -> tuple[Float[Tensor, "r m d"], Float[Tensor, "r m"], Float[Tensor, "r n d"]]:  # fmt: skip
    """r draws of the paper's data: m labelled points of N(±μ, I), n unlabelled ones of N(±μ_1, I), signs in turn.

    shift   ‖μ_1 - μ‖ in units of ‖μ‖ = 1, in a random direction of each draw, at least 0
    spread  standard deviation along each axis; None is 1

    μ is the first axis. Raises ValueError for d < 2 and a negative shift.
    """
    if d < 2 or shift < 0:
        raise ValueError(f"d must be at least 2 and shift not negative, got {d} and {shift}")
    away = shift * unit_rows(torch.randn(r, d, generator=generator))
    points = torch.randn(r, m + n, d, generator=generator)
    points = points if spread is None else points * spread
    sign = 1 - 2 * (torch.arange(m + n) % 2).float()
    points[..., 0] += sign
    points[:, m:] += sign[m:, None] * away[:, None]
    return points[:, :m], sign[:m].expand(r, m).clone(), points[:, m:]


def one_blob(
    r: int, m: int, n: int, d: int = 200, *, generator: Generator
) -> tuple[Float[Tensor, "r m d"], Float[Tensor, "r m"], Float[Tensor, "r n d"]]:
    """The control: all points from one round Gaussian N(0, I), labels the sign of the first coordinate. Its unlabelled
    points tell nothing of where the boundary lies."""
    points = torch.randn(r, m + n, d, generator=generator)
    return points[:, :m], 1 - 2 * (points[:, :m, 0] < 0).float(), points[:, m:]


def gaussian_accuracy(
    w: Float[Tensor, "*any d"], b: Float[Tensor, "*any"] | float = 0.0, *, spread: Float[Tensor, " d"] | None = None,
    budget: float = 0.0,
) -> Float[Tensor, "*any"]:  # fmt: skip
    """Exact accuracy on N(±μ, Σ) where an adversary moves each point by at most ``budget``; no test sample is drawn.

    The mean of Φ((w·μ ± b - budget ‖w‖) / ‖Σ^½ w‖) over the two classes.
    """
    size = (w if spread is None else w * spread).norm(dim=-1)
    reach = w[..., 0] - budget * w.norm(dim=-1)
    return torch.special.ndtr(torch.stack([(reach + b) / size, (reach - b) / size]).double()).mean(0)


def blob_accuracy(w: Float[Tensor, "*any d"]) -> Float[Tensor, "*any"]:
    """Exact accuracy on ``one_blob``: 1 less the angle between w and the first axis over π."""
    cosine = w[..., 0] / w.norm(dim=-1)
    return 1 - torch.acos(cosine.double().clamp(-1, 1)) / torch.pi
