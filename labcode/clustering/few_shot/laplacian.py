"""Clustering a task's queries (Ziko et al., 2021): prototypes, a Laplacian over neighbours, supports held fixed.

The relaxed energy over assignments s_i on the simplex, supports' rows fixed at their labels, is

    E(S, m) = Σ_i s_i·a_i - λ/2 Σ_ij w_ij s_i·s_j + Σ_i s_i·log s_i,    a_ik = β ‖f_i - m_k‖²

The pairwise term is concave where W is positive semi-definite; its tangent bounds it, and the bound is minimal at
s_i ∝ exp(-a_i + λ Σ_j w_ij s_j): all queries at once. LaplacianShot (Ziko et al., 2020) keeps the prototypes; here they
follow the assignments, and with λ = 0 the method is k-means seeded by the supports.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ...loss import check_finite, float32
from .episodes import Soft, Tasks, check_floating, squared


def affinity(
    x: Float[Tensor, "t n d"], knn: int = 3, symmetric: bool = True, shift: bool = False
) -> Float[Tensor, "t n n"]:
    """Binary affinities to the ``knn`` nearest rows of the same task, the row itself not counted.

    symmetric  the mean with its transpose; False is what LaplacianShot's code has, for which the energy need not fall
    shift      adds every row's sum to the diagonal, which makes W positive semi-definite (Gershgorin). It does more:
               -λ/2 w_ii ‖s_i‖² sharpens the assignments

    LaplacianShot counts the row itself among its 3 and drops it. Raises ValueError for knn outside 1 … n - 1.
    """
    n = x.shape[1]
    if not 1 <= knn < n:
        raise ValueError(f"knn must be between 1 and {n - 1}, got {knn}")
    distance = squared(x, x) + torch.diag(torch.full((n,), float("inf"), dtype=x.dtype, device=x.device))
    w = torch.zeros_like(distance).scatter_(2, distance.topk(knn, largest=False).indices, 1.0)
    w = (w + w.mT) / 2 if symmetric else w
    return w + torch.diag_embed(w.sum(2)) if shift else w


@float32
def energy(
    s: Float[Tensor, "b n k"], a: Float[Tensor, "b n k"], w: Float[Tensor, "b n n"], lam: float
) -> Float[Tensor, " b"]:
    """E of the module's head, one value a task; 0 log 0 is 0.

    s    assignments, rows on the simplex
    a    unary costs, at rows that are fixed too
    lam  λ >= 0

    Raises ValueError for shapes that do not fit, negative assignments and λ < 0.
    """
    if s.ndim != 3 or a.shape != s.shape:
        raise ValueError(f"a must have the shape of s, (b, n, k), got {tuple(a.shape)} and {tuple(s.shape)}")
    if w.shape != (*s.shape[:2], s.shape[1]):
        raise ValueError(f"w must be (b, n, n) with the rows of s, {tuple(s.shape[:2])}, got {tuple(w.shape)}")
    if not lam >= 0:
        raise ValueError(f"lam must be at least 0, got {lam}")
    check_floating(s=s, a=a, w=w)
    inside = s.clamp_min(0)
    return (
        (a * inside).sum((1, 2))
        - lam / 2 * (inside * (w @ inside)).sum((1, 2))
        + torch.xlogy(inside, inside).sum((1, 2))
    )


def bound_updates(
    a: Float[Tensor, "t n k"], w: Float[Tensor, "t n n"], lam: float, fixed: Float[Tensor, "t s k"], steps: int = 20,
    start: Float[Tensor, "t n k"] | None = None,
) -> Float[Tensor, "t n k"]:  # fmt: skip
    """Minimise E over the rows after the first s, which stay at ``fixed``: parallel updates.

    start  from these assignments, so that E falls where a has changed in between; None, or λ = 0, is from softmax(-a)
    """
    s = fixed.shape[1]
    found = torch.cat([fixed, (-a[:, s:]).softmax(2)], 1) if start is None or not lam else start
    for _ in range(steps if lam else 0):
        found = torch.cat([fixed, (lam * (w[:, s:] @ found) - a[:, s:]).softmax(2)], 1)
    return found


def laplacian(
    tasks: Tasks, lam: float = 0.7, *, beta: float = 10.0, knn: int = 3, rounds: int = 10, steps: int = 5,
    symmetric: bool = True, shift: bool = False, prototypes: Float[Tensor, "t k d"] | None = None,
    trace: list | None = None,
) -> Soft:  # fmt: skip
    """Assignments of the queries by block-coordinate descent on E: bound updates of S, then means as prototypes.

    lam         λ >= 0, tuned on validation tasks in the paper's code, 0.1 to 1.5
    beta        β > 0 of the squared distances; the features' scale, which is ours to choose for features of length 1
    rounds      of both; 1 keeps the first prototypes, as LaplacianShot
    steps       updates of S a round, at most 20 in the paper's code
    prototypes  to start from instead of the mean supports, for instance ``rectified``
    trace       a list that gets E (t,) after every update of S or m

    Raises ValueError for λ < 0, β <= 0, rounds below 1 and features that are not finite.
    """
    if not lam >= 0 or not beta > 0 or rounds < 1:
        raise ValueError(f"lam must be at least 0, beta positive, rounds at least 1, got {lam}, {beta} and {rounds}")
    check_finite(support=tasks.support, query=tasks.query)
    x, fixed = torch.cat([tasks.support, tasks.query], 1), tasks.one_hot
    w = affinity(x, min(knn, x.shape[1] - 1), symmetric, shift)
    m, s = tasks.prototypes if prototypes is None else prototypes, None
    for turn in range(rounds):
        a = beta * squared(x, m)
        s = bound_updates(a, w, lam, fixed, steps, start=s)  # on from the last assignments
        if trace is not None:
            trace.append(energy(s, a, w, lam))
        if turn + 1 < rounds:
            m = s.mT @ x / s.sum(1)[..., None]  # the minimum of E over m
            if trace is not None:
                trace.append(energy(s, beta * squared(x, m), w, lam))
    return s[:, fixed.shape[1] :]


def rectified(tasks: Tasks, sharp: float = 10.0) -> tuple[Tasks, Float[Tensor, "t k d"]]:
    """BD-CSPN's prototypes (Liu et al., 2020): queries moved onto the supports' mean, then averaged in by cosine.

    sharp  ε of softmax(ε cos(f, m)), which weighs supports and queries alike

    Returns the tasks with moved queries, and the prototypes.
    """
    moved = tasks.query + (tasks.support.mean(1) - tasks.query.mean(1))[:, None]
    tasks = Tasks(tasks.support, tasks.support_y, moved, tasks.query_y, tasks.ways)
    x = torch.cat([tasks.support, moved], 1)
    weight = (sharp * F.normalize(x, dim=2) @ F.normalize(tasks.prototypes, dim=2).mT).softmax(2)
    return tasks, weight.mT @ x / weight.sum(1)[..., None]


def bd_cspn(tasks: Tasks) -> Soft:
    """Nearest of BD-CSPN's rectified prototypes, by cosine."""
    tasks, m = rectified(tasks)
    return (10 * F.normalize(tasks.query, dim=2) @ F.normalize(m, dim=2).mT).softmax(2)


def laplacian_shot(tasks: Tasks, lam: float = 0.7, **options) -> Soft:
    """LaplacianShot: rectified prototypes, kept, and the Laplacian."""
    moved, m = rectified(tasks)
    return laplacian(moved, lam, rounds=1, prototypes=m, **options)
