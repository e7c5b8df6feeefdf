"""What to label next: one signature for every strategy, and the strategies that papers compare with.

    acquire(features, probabilities, labelled, budget, *, generator) -> indices

features       (n, d) of the whole pool, from an encoder that saw no label
probabilities  (n, c) of the present classifier over the pool; uniform rows while there is none
labelled       (m,) indices of the pool that have a label already; may be empty
budget         how many to choose, at least 1
generator      of the strategy's own draws
indices        (budget,) int64, all different, none of them labelled

Changing the strategy means changing one word. Equal scores are ordered at random, so that a strategy that asks the
classifier begins as random choice where there is no classifier: that is what the cold start problem is about.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

Acquire = Callable[..., Int[Tensor, " budget"]]
Pool = Float[Tensor, "n d"]
Probabilities = Float[Tensor, "n c"]
Labelled = Int[Tensor, " m"]


def check_pool(features: Tensor, probabilities: Tensor, labelled: Tensor, budget: int) -> Tensor:
    """Mask (n,) of the rows that may be chosen. Raises ValueError naming the argument that does not fit."""
    if features.ndim != 2 or not len(features):
        raise ValueError(f"features must be (n, d) with n >= 1, got {tuple(features.shape)}")
    if probabilities.ndim != 2 or len(probabilities) != len(features):
        raise ValueError(f"probabilities must be ({len(features)}, classes), got {tuple(probabilities.shape)}")
    if labelled.ndim != 1 or labelled.is_floating_point():
        raise ValueError(f"labelled must be (m,) integers, got {labelled.dtype} {tuple(labelled.shape)}")
    if len(labelled) and not 0 <= int(labelled.min()) <= int(labelled.max()) < len(features):
        raise ValueError(f"labelled must hold indices 0 … {len(features) - 1}, got {labelled.min()} … {labelled.max()}")
    free = torch.ones(len(features), dtype=torch.bool, device=features.device)
    free[labelled] = False
    if not 1 <= budget <= int(free.sum()):
        raise ValueError(f"budget must be 1 … {int(free.sum())}, the rows without a label, got {budget}")
    return free


def largest(score: Float[Tensor, " n"], free: Tensor, budget: int, generator: torch.Generator) -> Int[Tensor, " b"]:
    """The rows of largest score among the free ones; equal scores in a random order."""
    order = torch.randperm(len(score), generator=generator, device=score.device)
    rank = score.masked_fill(~free, -torch.inf)[order].argsort(descending=True, stable=True)
    return order[rank[:budget]]


def random_choice(
    features: Pool, probabilities: Probabilities, labelled: Labelled, budget: int, *, generator: torch.Generator
) -> Int[Tensor, " budget"]:
    """Rows without a label, drawn uniformly: the baseline that every strategy has to beat."""
    free = check_pool(features, probabilities, labelled, budget)
    return largest(torch.zeros_like(features[:, 0]), free, budget, generator)


def margin(
    features: Pool, probabilities: Probabilities, labelled: Labelled, budget: int, *, generator: torch.Generator
) -> Int[Tensor, " budget"]:
    """The smallest gaps between the two most probable classes (margin sampling, Scheffer et al. 2001)."""
    free = check_pool(features, probabilities, labelled, budget)
    top = probabilities.topk(2, dim=1).values
    return largest(top[:, 1] - top[:, 0], free, budget, generator)


def entropy(
    features: Pool, probabilities: Probabilities, labelled: Labelled, budget: int, *, generator: torch.Generator
) -> Int[Tensor, " budget"]:
    """The largest entropies of the classifier's probabilities."""
    free = check_pool(features, probabilities, labelled, budget)
    return largest(torch.special.entr(probabilities).sum(1), free, budget, generator)


def core_set(
    features: Pool, probabilities: Probabilities, labelled: Labelled, budget: int, *, generator: torch.Generator
) -> Int[Tensor, " budget"]:
    """k-centre greedy (Sener and Savarese 2018): in turn the row that is farthest from all that have a label.

    With no label yet the first row is drawn at random.
    """
    free = check_pool(features, probabilities, labelled, budget)
    return _spread(features, free, labelled, budget, generator, greedy=True)


def kmeans_plus_plus(
    features: Pool, probabilities: Probabilities, labelled: Labelled, budget: int, *, generator: torch.Generator
) -> Int[Tensor, " budget"]:
    """The seeds of k-means++: in turn a row drawn in proportion to its squared distance from all that have a label."""
    free = check_pool(features, probabilities, labelled, budget)
    return _spread(features, free, labelled, budget, generator, greedy=False)


def badge(
    features: Pool, probabilities: Probabilities, labelled: Labelled, budget: int, *, generator: torch.Generator
) -> Int[Tensor, " budget"]:
    """BADGE (Ash et al. 2020): k-means++ seeds among the last layer's gradients at the predicted class.

    The gradient of row i is (p_i - e_ŷ) ⊗ x_i. Inner products of two such gradients are products of two small ones, so
    no (n, c·d) table is made. Begins anew each time: gradients of labelled rows take no part, as in the paper.
    """
    free = check_pool(features, probabilities, labelled, budget)
    off = probabilities.clone()
    off.scatter_add_(1, probabilities.argmax(1, keepdim=True), -torch.ones_like(off[:, :1]))
    square = off.square().sum(1) * features.square().sum(1)
    distance = lambda i: square + square[i] - 2 * (off @ off[i]) * (features @ features[i])  # noqa: E731
    return _spread(features, free, labelled[:0], budget, generator, greedy=False, distance=distance)


def _spread(features, free, labelled, budget, generator, greedy, distance=None):
    square = features.square().sum(1)
    from_row = distance or (lambda i: square + square[i] - 2 * (features @ features[i]))
    closest = torch.full_like(square, torch.inf)
    if len(labelled):
        closest = torch.cdist(features, features[labelled]).square().amin(1)
    chosen, free = [], free.clone()
    for _ in range(budget):
        if not (len(labelled) or chosen):
            weight = free.to(square.dtype)  # nothing to be far from: any row
        else:
            weight = closest.clamp(min=0).masked_fill(~free, 0)
            weight = weight if float(weight.sum()) > 0 else free.to(square.dtype)  # only copies are left
        first = not (len(labelled) or chosen)
        pick = int(weight.argmax()) if greedy and not first else int(torch.multinomial(weight, 1, generator=generator))
        chosen.append(pick)
        free[pick] = False
        closest = torch.minimum(closest, from_row(pick))
    return torch.tensor(chosen, device=features.device)
