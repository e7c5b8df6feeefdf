"""P²OT (Zhang et al., 2024): pseudo-labels by partial transport whose mass grows, for clusters of unequal size."""

import math
import warnings
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from ...evaluate import clustering_accuracy
from ...loss import check_index, unit_rows
from ...train import allowed
from ..transport import partial_transport
from .heads import draw_views


def mass(progress: float, first: float = 0.1) -> float:
    """The share of the samples that is transported: ρ₀ + (1 - ρ₀) e^{-5 (1 - t)²}. P²OT, section 4.1: a sigmoid ramp.

    progress  t, the share of the training that has passed, in [0, 1]
    first     ρ₀ in (0, 1]; 0.1 in the paper. At 1 all mass is transported from the start
    """
    if not 0 < first <= 1:
        raise ValueError(f"first must be in (0, 1], got {first}")
    return first + (1 - first) * math.exp(-5 * (1 - progress) ** 2)


def p2ot_labels(
    logits: Float[Tensor, "*batch n k"], rho: Tensor | float, weight: Tensor | float = 1.0, eps: float = 0.1, **options
) -> Float[Tensor, "*batch n k"]:
    """Soft pseudo-labels whose rows sum to a sample's weight in [0, 1], and altogether to ρ n. P²OT, eqs. 5 to 8.

    min ⟨Q, -log p⟩ + λ KL(Qᵀ1, ρ/K 1) - ε H(Q) with rows at most 1/n and mass ρ in all; the result is n Q.

    logits  of all samples that take part
    rho     mass in (0, 1]
    weight  λ, how even the clusters must be: infinity is plain partial transport, rho = 1 unbalanced transport

    Rows are not normalised: a sample that the virtual cluster took has no say. No gradient; options as ``scale``.
    """
    cost = -logits.detach().double().log_softmax(-1)
    found = partial_transport(cost, rho, eps, weight, **options)
    return (logits.shape[-2] * found.plan[..., :-1]).to(logits.dtype)


def weighted_cross_entropy(
    logits: Float[Tensor, "*batch n k"], labels: Float[Tensor, "*batch n k"]
) -> Float[Tensor, "*batch"]:
    """-Σ q log p over n: rows of labels that sum to less than 1 weigh less."""
    return -(labels * logits.log_softmax(-1)).sum((-1, -2)) / logits.shape[-2]


def train_heads(
    x: Float[Tensor, "n d"], k: int, assign: Callable, *, arms: int = 1, views: Float[Tensor, "v n d"] | None = None,
    steps: int = 60, lr: float = 0.02, scale: float = 10.0, batch_size: int = 1024, generator: Generator,
    look: Callable | None = None,
) -> Float[Tensor, "arms k d"]:  # fmt: skip
    """Cosine heads on frozen features, several arms at once, by swapped prediction of pseudo-labels. P²OT, section 3.2.

    assign  (logits (arms, 2, m, k), index (m,), progress in [0, 1]) -> labels (arms, 2, m, k): each of two views is
            labelled, and learns from the other's labels
    scale   of the cosines; 10 in the released code
    look    called with (prototypes, labels, index, progress) before every update

    All arms start with the same prototypes and see the same batches. Adam and cosine decay, as released.
    Departure: the released code labels a bank of ten batches, this a batch that may hold all samples; there the
    backbone's last block learns too, here only the head.
    """
    start = torch.randn(k, x.shape[1], generator=generator, device=x.device)
    w = start.repeat(arms, 1, 1).requires_grad_()
    optimiser = torch.optim.Adam([w], lr)
    steps = allowed(steps, True)
    for step in range(steps):
        progress = step / max(1, steps - 1)
        index = torch.arange(len(x), device=x.device)
        if batch_size < len(x):
            index = torch.randperm(len(x), generator=generator, device=x.device)[:batch_size]
        pair = unit_rows(draw_views(x, views, index, 2, generator=generator))
        logits = scale * torch.einsum("vnd,akd->avnk", pair, unit_rows(w))
        labels = assign(logits.detach(), index, progress)
        if look is not None:
            look(unit_rows(w.detach()), labels, index, progress)
        optimiser.param_groups[0]["lr"] = lr * 0.5 * (1 + math.cos(math.pi * progress))
        optimiser.zero_grad()
        weighted_cross_entropy(logits, labels.flip(1)).mean(1).sum().backward()
        optimiser.step()
    return unit_rows(w.detach())


class PartialLabels:
    """Labels of several arms in one stacked solve: each arm has its own ramp of mass and weight of the KL.

    ramps    for each arm a function progress -> ρ, or a number that stays
    weights  for each arm λ; infinity asks for even clusters

    ``rounds`` and ``tolerance`` are those of the solver, which begins where the step before ended.
    """

    def __init__(self, ramps: list, weights: list[float], eps: float = 0.1, tolerance: float = 1e-2, rounds: int = 10):
        if len(ramps) != len(weights):
            raise ValueError(f"ramps and weights must be one for each arm, got {len(ramps)} and {len(weights)}")
        self.ramps, self.weights, self.options = ramps, weights, dict(tolerance=tolerance, rounds=rounds)
        self.eps, self.g = eps, None

    def __call__(self, logits: Float[Tensor, "arms v n k"], index: Int[Tensor, " n"], progress: float) -> Tensor:
        """Labels (arms, v, n, k), rows summing to a sample's weight."""
        rho = torch.tensor([ramp(progress) if callable(ramp) else ramp for ramp in self.ramps])
        rho, weight = (t.double()[:, None].expand(logits.shape[:2]) for t in (rho, torch.tensor(self.weights)))
        cost = -logits.double().log_softmax(-1)
        with warnings.catch_warnings():  # a label need not be exact to teach
            warnings.simplefilter("ignore", RuntimeWarning)
            found = partial_transport(cost, rho, self.eps, weight, start=self.g, **self.options)
        self.g = found.g.clamp(min=-1e3)  # the virtual cluster's is -∞ in the limit ρ = 1
        return (logits.shape[-2] * found.plan[..., :-1]).to(logits.dtype)


def p2ot_arms(
    x: Float[Tensor, "n d"], k: int, ramps: list, weights: list[float], *, generator: Generator, **options
) -> Int[Tensor, "arms n"]:  # fmt: skip
    """The clusters of every row for several settings of P²OT: ``train_heads`` with ``PartialLabels``.

    ramps, weights  as in ``PartialLabels``: ρ = 1 and an infinite weight is uniform transport, ρ = 1 unbalanced, an
                    infinite weight plain partial
    """
    w = train_heads(x, k, PartialLabels(ramps, weights), arms=len(weights), generator=generator, **options)
    return (x @ w.mT).argmax(-1)


def p2ot_clusters(
    x: Float[Tensor, "n d"], k: int, *, generator: Generator, views: Float[Tensor, "v n d"] | None = None,
    steps: int = 200, batch_size: int = 256, first: float = 0.1, weight: float = 1.0,
) -> Int[Tensor, " n"]:  # fmt: skip
    """P²OT with a cosine head on frozen features: the nearest prototype of every row.

    A step takes four times ``batch_size`` samples, for the labels want many, and there are a quarter of ``steps``.
    """
    options = dict(views=views, steps=max(1, steps // 4), batch_size=4 * batch_size)
    return p2ot_arms(x, k, [lambda t: mass(t, first)], [weight], generator=generator, **options)[0]


def class_recall(clusters: Int[Tensor, " n"], labels: Int[Tensor, " n"], k: int) -> Float[Tensor, " k"]:
    """Share of each class that lies in its cluster under the best one-to-one matching; their mean is P²OT's ACC.

    clusters, labels  0 … k - 1; a class without samples has recall 0. The matching is that of plain accuracy.
    """
    from scipy.optimize import linear_sum_assignment

    check_index("clusters", clusters, k)
    check_index("labels", labels, k)
    counts = torch.zeros(k * k).index_add_(0, (clusters * k + labels).cpu(), torch.ones(len(labels))).view(k, k)
    row, column = linear_sum_assignment(-counts.numpy())
    right = torch.zeros(k)
    right[torch.as_tensor(column)] = counts[torch.as_tensor(row), torch.as_tensor(column)]
    return right / counts.sum(0).clamp_min(1)


def label_quality(labels: Float[Tensor, "n k"], y: Int[Tensor, " n"], k: int) -> dict[str, float]:
    """How good pseudo-labels are: "mass" is their share of all, "precision" the accuracy of those of weight over 1/2.

    The accuracy is that of the likeliest clusters of the chosen samples under their own best matching; 0 if none is.
    """
    weight, hard = labels.sum(1), labels.argmax(1)
    chosen = weight > 0.5
    right = clustering_accuracy(hard[chosen], y[chosen]) if bool(chosen.any()) else 0.0
    return {"mass": float(weight.mean()), "precision": right}
