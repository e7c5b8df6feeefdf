"""SP²OT (Zhang et al., 2024): P²OT whose labels agree along a graph of similar samples, by majorise-minimise."""

import math
import warnings
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from ...loss import check_matrix, check_positive
from ..transport import Transport, partial_transport
from .p2ot import mass, train_heads


def similarity_graph(
    z: Float[Tensor, "n d"], k: int = 20, width: float = 2.0, symmetric: bool = False
) -> Float[Tensor, "n n"]:
    """Gaussian similarities exp(-‖z - z'‖² / (2 width² d)), kept for each row's k nearest others, 0 elsewhere.

    SP²OT, section 3.3; from fixed features of the start, not those being trained.

    symmetric  mean of the graph and its transpose; the released default leaves it as it is, and the method's ⟨S, QQᵀ⟩
               sees the symmetric part alone

    Memory n². Raises ValueError for k outside 1 … n - 1.
    """
    check_matrix("z", z, rows=2)
    check_positive(width=width)
    if not 1 <= k < len(z):
        raise ValueError(f"k must be between 1 and the {len(z) - 1} other rows, got {k}")
    far = torch.cdist(z, z).square().fill_diagonal_(math.inf)
    near = far.topk(k, largest=False).indices
    graph = torch.zeros_like(far).scatter_(1, near, (-far.gather(1, near) / (2 * width**2 * z.shape[1])).exp())
    return (graph + graph.T) / 2 if symmetric else graph


@dataclass(frozen=True)
class Descent:
    """What majorise-minimise left behind."""

    labels: Float[Tensor, "*batch n k"]  # n Q of the real clusters: rows sum to a sample's weight
    objectives: Float[Tensor, "rounds *batch"]  # the start first; KL and entropy included
    last: Transport  # of the last round; its ``g`` starts the next solve
    rounds: int  # inner rounds of scaling, all told


def sp2ot_objective(
    plan: Float[Tensor, "*batch n k1"], cost: Float[Tensor, "*batch n k"], graph: Tensor, semantic, rho,
    weight: float = 1.0, eps: float = 0.1,
) -> Float[Tensor, "*batch"]:  # fmt: skip
    """⟨Q, C⟩ - λ₁ ⟨S, QQᵀ⟩ + λ KL(Qᵀ1 | ρ/K) + ε Σ P (log P - 1), P the plan with its virtual column last.

    Departure: the released stopping value leaves the KL out, and can rise while this falls.
    """
    q, kept = plan[..., :-1], plan[..., :-1].sum(-2)
    goal = torch.as_tensor(rho, dtype=kept.dtype)[..., None] / cost.shape[-1]
    kl = (torch.xlogy(kept, kept) - torch.xlogy(kept, goal) - kept + goal).sum(-1)
    pull = (q * _along(graph, q)).sum((-1, -2))
    entropy = (torch.xlogy(plan, plan) - plan).sum((-1, -2))
    return (q * cost).sum((-1, -2)) - torch.as_tensor(semantic) * pull + weight * kl + eps * entropy


def _both_ways(graph: Tensor) -> Tensor:
    """S + Sᵀ, sparse where S is."""
    if graph.layout == torch.strided:
        return graph + graph.mT
    graph = graph.to_sparse_coo()
    with warnings.catch_warnings():  # that torch's compressed rows are young
        warnings.simplefilter("ignore", UserWarning)
        return (graph + graph.mT).coalesce().to_sparse_csr()


def _along(graph: Tensor, q: Float[Tensor, "*batch n k"]) -> Float[Tensor, "*batch n k"]:
    """graph @ q for each of a batch: one product, for a sparse graph too."""
    wide = q.movedim(-2, 0)  # (n, *batch, k)
    return (graph @ wide.reshape(len(wide), -1)).view(wide.shape).movedim(0, -2)


@torch.no_grad()
def sp2ot_labels(
    logits: Float[Tensor, "*batch n k"], graph: Float[Tensor, "n n"], semantic, rho, weight: float = 1.0,
    eps: float = 0.1, outer: int = 100, tolerance: float | None = 1e-6, inner: int = 1000,
    inner_tolerance: float = 1e-6, start: Tensor | None = None, both: Tensor | None = None,
) -> Descent:  # fmt: skip
    """P²OT's labels with a reward for neighbours that agree. SP²OT, section 3.4.

    min over Q of P²OT's objective - λ₁ ⟨S, QQᵀ⟩. The quadratic gives way to its tangent at the current Q, so that each
    round is P²OT with cost C - λ₁ (S + Sᵀ) Q. Where S is positive semidefinite the tangent lies above -λ₁ ⟨S, QQᵀ⟩ and
    no round can raise the objective; a graph without diagonal has negative eigenvalues, and there it usually holds.

    logits     problems of one graph may be stacked
    graph      S (n, n), dense or sparse
    semantic   λ₁ >= 0, a number or one a problem. Entries of Q are about 1/(nK), so it is about n: 1000 (1 - ρ) in the
               paper, for 5120 samples
    rho        mass in (0, 1], a number or one a problem
    outer      rounds at most; ends when no objective changes by ``tolerance``; None makes all and measures nothing
    inner      rounds of scaling within one; too few of them and an objective may rise
    start      potentials g of an earlier solve
    both       S + Sᵀ, where it has been made before

    The first Q is ρ/(nK) everywhere, as released. Raises ValueError for a graph that is not (n, n), for λ₁ < 0, and as
    ``scale``.
    """
    n, k = logits.shape[-2:]
    if graph.shape != (n, n):
        raise ValueError(f"graph must be ({n}, {n}), one row and column a sample, got {tuple(graph.shape)}")
    semantic, rho = (torch.as_tensor(t, dtype=torch.float64).expand(logits.shape[:-2]) for t in (semantic, rho))
    if not bool((semantic >= 0).all()):
        raise ValueError(f"semantic must be at least 0, got {semantic.tolist()}")
    cost, graph = -logits.detach().double().log_softmax(-1), graph.double()
    both = _both_ways(graph) if both is None else both
    share = rho[..., None, None]
    plan = torch.cat([(share / (n * k)).expand(cost.shape), ((1 - share) / n).expand(*cost.shape[:-1], 1)], -1)
    fixed = dict(graph=graph, semantic=semantic, rho=rho, weight=weight, eps=eps)
    values = [] if tolerance is None else [sp2ot_objective(plan, cost, **fixed)]
    g, spent = start, 0
    for _ in range(outer):
        with warnings.catch_warnings():  # an early round need not be solved to the end
            warnings.simplefilter("ignore", RuntimeWarning)
            tangent = cost - semantic[..., None, None] * _along(both, plan[..., :-1])
            found = partial_transport(tangent, rho, eps, weight, start=g, tolerance=inner_tolerance, rounds=inner)
        plan, g, spent = found.plan, found.g, spent + found.rounds
        if tolerance is not None:
            values.append(sp2ot_objective(plan, cost, **fixed))
            if bool(((values[-1] - values[-2]).abs() < tolerance).all()):
                break
    objectives = torch.stack(values) if values else cost.new_empty(0, *cost.shape[:-2])
    return Descent((n * plan[..., :-1]).to(logits.dtype), objectives, found, spent)


class SemanticLabels:
    """Labels of several arms for ``train_heads``: ``sp2ot_labels``, stacked, with a reward that may fade as ρ grows.

    graph     (n, n) of all samples, cut down to the batch's where that is smaller
    semantic  for each arm λ₁ at ρ = 0; 0 is P²OT
    ramp      progress -> ρ, or a number
    fade      for each arm whether λ₁ is multiplied by 1 - ρ, as released
    outer     rounds of majorise-minimise, 100 at most in the released code
    """

    def __init__(self, graph: Tensor, semantic: list[float], ramp, fade: list[bool] | None = None, outer: int = 2,
                 inner: int = 20, **options):  # fmt: skip
        with warnings.catch_warnings():  # that torch's compressed rows are young
            warnings.simplefilter("ignore", UserWarning)
            self.graph, self.sparse = graph, graph.double().to_sparse_csr()
        self.both = _both_ways(self.sparse)
        self.semantic, self.ramp = torch.tensor(semantic).double(), ramp
        self.fade = torch.tensor(fade if fade is not None else [True] * len(semantic))
        self.options = dict(outer=outer, inner=inner, inner_tolerance=1e-3, tolerance=None) | options
        self.g = None

    def __call__(self, logits: Float[Tensor, "arms v n k"], index: Int[Tensor, " n"], progress: float) -> Tensor:
        """Labels (arms, v, n, k), rows summing to a sample's weight."""
        rho = self.ramp(progress) if callable(self.ramp) else self.ramp
        semantic = torch.where(self.fade, self.semantic * (1 - rho), self.semantic)[:, None].expand(logits.shape[:2])
        whole = len(index) == len(self.graph)
        graph, both = (self.sparse, self.both) if whole else (self.graph[index][:, index], None)
        found = sp2ot_labels(logits, graph, semantic, rho, start=self.g, both=both, **self.options)
        self.g = found.last.g.clamp(min=-1e3)
        return found.labels


def sp2ot_arms(
    x: Float[Tensor, "n d"], k: int, graph: Tensor, semantic: list[float], *, generator: Generator, first: float = 0.1,
    fade: list[bool] | None = None, batch_size: int = 1024, **options,
) -> Int[Tensor, "arms n"]:  # fmt: skip
    """The clusters of every row for several weights of the graph: ``train_heads`` with ``SemanticLabels``.

    semantic  λ₁ over the number of samples in a batch: 1000 of 5120, 0.2, in the paper; 0 is P²OT
    """
    size = min(len(x), batch_size)
    assign = SemanticLabels(graph, [s * size for s in semantic], lambda t: mass(t, first), fade)
    w = train_heads(x, k, assign, arms=len(semantic), generator=generator, batch_size=size, **options)
    return (x @ w.mT).argmax(-1)


def sp2ot_clusters(
    x: Float[Tensor, "n d"], k: int, *, generator: Generator, views: Float[Tensor, "v n d"] | None = None,
    steps: int = 200, batch_size: int = 256, first: float = 0.1, semantic: float = 0.2, neighbours: int = 20,
) -> Int[Tensor, " n"]:  # fmt: skip
    """SP²OT with a cosine head on frozen features, its graph that of the features: the nearest prototype of every row.

    Batches and steps as in ``p2ot_clusters``, ``semantic`` as in ``sp2ot_arms``.
    """
    options = dict(views=views, steps=max(1, steps // 4), batch_size=4 * batch_size, first=first)
    return sp2ot_arms(x, k, similarity_graph(x, neighbours), [semantic], generator=generator, **options)[0]
