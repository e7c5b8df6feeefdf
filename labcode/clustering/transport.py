"""Entropic optimal transport by scaling, in the logarithm: balanced, unbalanced and partial, with a certificate.

One problem and one loop serve SeLa, SwAV, P²OT and SP²OT. For a cost C (n, k), row masses r and column masses c,

    min over P ≥ 0 with P 1 = r of  ⟨C, P⟩ + ε Σ P (log P - 1) + Σ_j w_j KL(Σ_i P_ij | c_j),

where w_j says how firmly column j keeps its mass: infinity is an equality, and KL(a | b) = a log(a/b) - a + b.
"""

import math
import warnings
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from ..loss import check_finite, check_positive

LOOK = 10  # rounds between two looks at the convergence: each of them waits for a GPU
FAR = 1e100  # a scaling vector beyond it, or below its inverse, is taken into the logarithm first


@dataclass(frozen=True)
class Transport:
    """A transport plan, its potentials, and how far it is from the optimum."""

    plan: Float[Tensor, "*batch n k"]  # float64; its rows sum to r
    f: Float[Tensor, "*batch n"]  # plan = exp((f + g - cost) / eps)
    g: Float[Tensor, "*batch k"]  # hand it to the next solve as ``start``
    rounds: int  # that were made
    change: float  # largest change of g / eps in the last round looked at: for w = ∞ the column's relative error
    problem: tuple = field(repr=False)  # cost, eps, rows, columns, weight

    def objective(self) -> Float[Tensor, "*batch"]:
        """What is minimised, at this plan; columns with an infinite weight count as kept."""
        cost, eps, _, columns, weight = self.problem
        p, soft = self.plan, weight.isfinite()
        inner = (p * cost + eps * (torch.xlogy(p, p) - p)).sum((-1, -2))
        kept = p.sum(-2)
        kl = torch.xlogy(kept, kept) - torch.xlogy(kept, columns) - kept + columns
        return inner + torch.where(soft, weight.where(soft, 0) * kl, 0).sum(-1)

    def dual(self) -> Float[Tensor, "*batch"]:
        """The dual at the potentials, never above the optimum: Σ rf - Σ w c (e^(-g/w) - 1) - ε Σ P; Σ cg for w = ∞."""
        _, eps, rows, columns, weight = self.problem
        soft = weight.isfinite()
        pay = torch.where(soft, -weight.where(soft, 1) * torch.expm1(-self.g / weight.where(soft, 1)), self.g)
        return (rows * self.f).sum(-1) + (columns * pay).sum(-1) - eps * self.plan.sum((-1, -2))

    def gap(self) -> float:
        """Objective less dual, the largest of a batch: 0 at the optimum, up to the error of the columns."""
        return float((self.objective() - self.dual()).abs().max())


@torch.no_grad()
def scale(
    cost: Float[Tensor, "*batch n k"], eps: float, rows: Tensor | None = None, columns: Tensor | None = None,
    weight: Tensor | float = math.inf, start: Tensor | None = None, tolerance: float | None = 1e-6, rounds: int = 1000,
) -> Transport:  # fmt: skip
    """Solve the problem at the head of this module by scaling rows and columns in turn (Chizat et al., 2018).

    cost       (…, n, k), problems of one shape may be stacked; half precision and float32 are raised to float64
    eps        weight of the entropy, > 0, in the cost's unit; costs may be any multiple of it
    rows       (…, n) masses; None is 1/n each
    columns    (…, k) masses; None is 1/k each
    weight     a number or (…, k), > 0: how firmly a column keeps its mass; infinity is an equality
    start      (…, k) potentials g to begin with, for instance an earlier solve's
    tolerance  of the largest change of g / eps in a round; None makes all rounds, as SwAV's three
    rounds     at most; a RuntimeWarning says so where they were not enough for the tolerance

    Columns first and rows last, so rows are always exact. Kernels are exp((f + g - cost) / eps) with the potentials
    inside, taken up again when the factors outside grow: no cost and no eps over- or underflows. No gradient.
    Raises ValueError for another shape, masses that are not positive or, where all columns are equalities, do not add
    up to the rows', and what is not finite.
    """
    check_positive(eps=eps, rounds=rounds)
    if cost.ndim < 2 or not cost.numel() or not cost.is_floating_point():
        raise ValueError(f"cost must be a floating-point matrix (n, k), got {cost.dtype} {tuple(cost.shape)}")
    check_finite(cost=cost)
    cost = cost.double()
    n, k = cost.shape[-2:]
    rows = _masses("rows", rows, cost.shape[:-1], cost.device)
    columns = _masses("columns", columns, (*cost.shape[:-2], k), cost.device)
    weight = torch.as_tensor(weight, dtype=cost.dtype, device=cost.device).expand(columns.shape)
    if not bool((weight > 0).all()):
        raise ValueError("weight must be positive; it may be infinite")
    if bool(weight.isinf().all()) and not torch.allclose(rows.sum(-1), columns.sum(-1), rtol=1e-6):
        raise ValueError("columns must add up to the mass of the rows where all of them are equalities")
    relax = torch.where(weight.isfinite(), weight / (weight + eps), 1.0)
    log_rows, log_columns, x = rows.log(), columns.log(), cost / -eps
    b = torch.zeros_like(columns) if start is None else start.to(cost) / eps
    a = log_rows if start is None else log_rows - (x + b[..., None, :]).logsumexp(-1)
    done, change = 0, math.inf
    while done < rounds and not (tolerance is not None and change <= tolerance):
        before = b
        b = relax * (log_columns - (x + a[..., None]).logsumexp(-2))  # one round in the logarithm
        a = log_rows - (x + b[..., None, :]).logsumexp(-1)
        done, change = done + 1, float((b - before).abs().max())
        if done < rounds and not (tolerance is not None and change <= tolerance):
            u, v, made, change = _products(x, a, b, rows, columns, relax, tolerance, rounds - done)
            a, b, done = a + u.log(), b + v.log(), done + made
    if tolerance is not None and change > tolerance:
        warnings.warn(f"the columns still change by {change:.2g} after {done} rounds, tolerance is {tolerance:.2g}: "
                      "raise rounds, eps or tolerance", RuntimeWarning, stacklevel=2)  # fmt: skip
    plan = (x + a[..., None] + b[..., None, :]).exp()
    return Transport(plan, eps * a, eps * b, done, change, (cost, eps, rows, columns, weight))


def _products(x, a, b, rows, columns, relax, tolerance, rounds):
    """Rounds of products with the kernel exp(x + a + b): scalings u and v, how many, and the last change of log v."""
    kernel = (x + a[..., None] + b[..., None, :]).exp()  # its rows have the masses, so no entry is above them
    turned, pull = kernel.mT.contiguous(), ((relax - 1) * b).exp()
    u, v, made, change = torch.ones_like(a), torch.ones_like(b), 0, math.inf
    while made < rounds:
        new_u, new_v = u, v
        for _ in range(min(LOOK, rounds - made)):
            last = new_v
            new_v = (columns / (turned @ new_u[..., None])[..., 0]) ** relax * pull
            new_u = rows / (kernel @ new_v[..., None])[..., 0]
        low, high = torch.cat([new_u, new_v], -1).aminmax()
        if not (low > 1 / FAR and high < FAR):  # NaN too: go back to the last look and into the logarithm
            break
        made += min(LOOK, rounds - made)
        u, v, change = new_u, new_v, float((new_v.log() - last.log()).abs().max())
        if tolerance is not None and change <= tolerance:
            break
    return u, v, made, change


def _masses(name: str, given: Tensor | None, shape: tuple, device) -> Tensor:
    if given is None:
        return torch.full(shape, 1 / shape[-1], dtype=torch.float64, device=device)
    if given.shape[-1:] != shape[-1:]:
        raise ValueError(f"{name} must have {shape[-1]} masses, got shape {tuple(given.shape)}")
    if not bool((given > 0).all() & given.isfinite().all()):
        raise ValueError(f"{name} must be positive and finite")
    return given.to(device, torch.float64).expand(shape)


def balanced_transport(cost: Float[Tensor, "*batch n k"], eps: float = 0.05, **options) -> Transport:
    """All rows and all columns keep their masses, 1/n and 1/k unless told otherwise: SeLa's and SwAV's problem.

    Options are those of ``scale``.
    """
    return scale(cost, eps, **options)


def unbalanced_transport(
    cost: Float[Tensor, "*batch n k"], eps: float = 0.1, weight: float = 1.0, **options
) -> Transport:
    """Rows keep their masses; columns are drawn towards theirs by ``weight`` · KL. Options are those of ``scale``."""
    return scale(cost, eps, weight=weight, **options)


def partial_transport(
    cost: Float[Tensor, "*batch n k"], mass: Tensor | float, eps: float = 0.1, weight: Tensor | float = 1.0, **options
) -> Transport:
    """Only the share ``mass`` of the rows' mass reaches a column, the cheapest of it: P²OT (Zhang et al., 2024), eq. 6.

    A virtual column of cost 0 takes the rest and is the plan's last one: real labels are ``n * plan[..., :-1]``, whose
    row sums, at most 1, are the samples' weights. Real columns have mass/k each, held by ``weight`` · KL (infinity:
    exactly, plain partial transport); the virtual one has 1 - mass, exactly.

    mass  in (0, 1], a number or (…,) for stacked problems; at 1 the virtual column keeps 1e-12

    Raises ValueError for a mass outside, and as ``scale``, whose options these are.
    """
    mass = torch.as_tensor(mass, dtype=torch.float64, device=cost.device).expand(cost.shape[:-2])
    if not bool(((mass > 0) & (mass <= 1)).all()):
        raise ValueError(f"mass must be in (0, 1], got {mass.tolist()}")
    k, mass = cost.shape[-1], mass.clamp(max=1 - 1e-12)[..., None]
    columns = torch.cat([(mass / k).expand(*mass.shape[:-1], k), 1 - mass], -1)
    weight = torch.as_tensor(weight, dtype=torch.float64, device=cost.device)
    weight = (weight[..., None] if weight.ndim else weight).expand(*mass.shape[:-1], k)
    firm = torch.cat([weight, torch.full_like(mass, math.inf)], -1)
    wide = torch.cat([cost, torch.zeros_like(cost[..., :1])], -1)
    return scale(wide, eps, columns=columns, weight=firm, **options)
