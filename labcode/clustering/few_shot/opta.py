"""OpTA (Poulakakis-Daktylidis and Jamali-Rad, 2024): prototypes carried onto the queries by optimal transport."""

import torch
from jaxtyping import Float
from torch import Tensor

from ..transport import balanced_transport
from .episodes import Soft, Tasks, logistic, squared


def transport_plan(
    prototypes: Float[Tensor, "t k d"], query: Float[Tensor, "t q d"], eps: float = 0.05, rounds: int = 50
) -> Float[Tensor, "t q k"]:
    """How much of each query goes to each prototype: rows sum to 1/q, columns, after enough rounds, to 1/k."""
    cost = squared(query, prototypes)
    cost = cost / cost.amax((1, 2), keepdim=True).clamp_min(1e-12)
    return balanced_transport(cost, eps, tolerance=None, rounds=rounds).plan.to(query.dtype)


def transported(
    prototypes: Float[Tensor, "t k d"], query: Float[Tensor, "t q d"], eps: float = 0.05, rounds: int = 50
) -> Float[Tensor, "t k d"]:
    """Every prototype at the barycentre of the queries that the entropic plan sends to it.

    The plan has even marginals, 1/k a prototype and 1/q a query: queries are taken to be balanced. Its cost is the
    squared distance over its largest, as in the released code (there the largest of the whole batch, here of the task).

    eps     ε > 0 of the entropy, relative to the largest cost
    rounds  of scaling, all of them made

    Raises ValueError for eps <= 0 and features that are not finite.
    """
    plan = transport_plan(prototypes, query, eps, rounds)
    return plan.mT @ query / plan.sum(1)[..., None]


def opta(tasks: Tasks, passes: int = 5, eps: float = 0.05, classifier=logistic, trace: list | None = None) -> Soft:
    """BECLR's inference: ``passes`` transports of the prototypes, then a classifier fitted to them.

    passes      5 for one shot and 1 for five in the released configurations; 0 is the inductive classifier
    classifier  of tasks whose supports are the prototypes, one a class; logistic regression in the paper
    trace       a list that gets the prototypes before the first pass and after each

    Raises ValueError for negative passes.
    """
    if passes < 0:
        raise ValueError(f"passes must be at least 0, got {passes}")
    m = tasks.prototypes
    for turn in range(passes + 1):
        if trace is not None:
            trace.append(m)
        if turn < passes:
            m = transported(m, tasks.query, eps)
    y = torch.arange(tasks.ways, device=m.device).expand(len(m), -1)
    return classifier(Tasks(m, y, tasks.query, tasks.query_y, tasks.ways))
