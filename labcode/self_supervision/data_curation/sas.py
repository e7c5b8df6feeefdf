"""SAS (Joshi and Mirzasoleiman, 2023): subsets by augmentation similarity."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...loss import unit_rows

Index = Int[Tensor, " chosen"]


def augmentation_similarity(views: Float[Tensor, "v n d"]) -> Float[Tensor, "n n"]:
    """Expected cosine of the augmented views of two images under a proxy encoder, negative values set to 0.

    views  features of v >= 2 views of n images; the estimate averages over pairs of *different* draws. Half precision
           is raised to float32; a row of zeros is like nothing

    Raises ValueError for another shape, and on a CPU for features that are not finite.
    """
    if views.ndim != 3 or len(views) < 2:
        raise ValueError(f"views must be features (v, n, d) of at least two views, got shape {tuple(views.shape)}")
    if views.device.type == "cpu" and not bool(torch.isfinite(views).all()):
        raise ValueError("views must be finite, got NaN or infinity")
    unit = unit_rows(views)
    v, total = len(unit), unit.sum(0)
    same = torch.einsum("vnd,vmd->nm", unit, unit)
    return ((total @ total.T - same) / (v * (v - 1))).clamp_min(0)


def graph_cut(similarity: Float[Tensor, "n n"], chosen: Index) -> float:
    """Σ_{i not chosen} Σ_{j chosen} s_ij: how well the chosen stand for those left out. SAS, eq. 7."""
    _square(similarity)
    inside = torch.zeros(len(similarity), dtype=torch.bool, device=similarity.device)
    inside[chosen] = True
    return float(similarity[~inside][:, inside].sum())


def class_cut(similarity: Float[Tensor, "n n"], classes: Int[Tensor, " n"], chosen: Index) -> float:
    """``graph_cut`` within each class, added up: the objective that ``sas`` maximises class by class."""
    inside = torch.zeros(len(classes), dtype=torch.bool, device=classes.device)
    inside[chosen] = True
    members = [(classes == one).nonzero()[:, 0] for one in classes.unique().tolist()]
    return sum(graph_cut(similarity[rows][:, rows], inside[rows].nonzero()[:, 0]) for rows in members)


def greedy_graph_cut(similarity: Float[Tensor, "n n"], count: int) -> Index:
    """``count`` rows that greedily maximise ``graph_cut``, in the order of choice.

    Adding e gains Σᵢ s_ie - s_ee - 2 Σ_{j chosen} s_je, so a choice lowers the gain of all that resemble it: one row
    of the matrix is subtracted a step, O(n · count). For symmetric similarities. Raises ValueError for a count out of
    range.

    Departure: the released code never subtracts, which leaves a ranking by row sums.
    """
    _square(similarity)
    if not 1 <= count <= len(similarity):
        raise ValueError(f"count must be between 1 and the {len(similarity)} rows, got {count}")
    gain = similarity.sum(0) - similarity.diagonal()
    picked = torch.empty(count, dtype=torch.int64, device=similarity.device)
    used = torch.zeros(len(similarity), dtype=torch.bool, device=similarity.device)
    for i in range(count):
        best = gain.masked_fill(used, -math.inf).argmax()
        picked[i] = best
        used[best] = True
        gain = gain - 2 * similarity[best]
    return picked


def sas(
    similarity: Float[Tensor, "n n"], classes: Int[Tensor, " n"], share: float, greedy: bool = True, low: bool = False
) -> Index:
    """The subset for contrastive learning: the same share of every (approximate) class, by augmentation similarity.

    classes  labels, or clusters of proxy features: SAS never compares across them
    share    of every class, in (0, 1]
    greedy   the submodular choice; False ranks by row sums, as the released code does
    low      the least similar instead: the control

    Raises ValueError for a share out of range.
    """
    _square(similarity)
    if not 0 < share <= 1:
        raise ValueError(f"share must be in (0, 1], got {share}")
    if classes.shape != similarity.shape[:1]:
        raise ValueError(f"classes must have one entry a row, {len(similarity)}, got shape {tuple(classes.shape)}")
    chosen = []
    for one in classes.unique().tolist():
        members = (classes == one).nonzero()[:, 0]
        block = similarity[members][:, members]
        count = max(1, round(share * len(members)))
        if greedy and not low:
            chosen.append(members[greedy_graph_cut(block, count)])
        else:
            chosen.append(members[(block.sum(0) - block.diagonal()).argsort(descending=not low)[:count]])
    return torch.cat(chosen).sort().values


def _square(similarity: Tensor) -> None:
    if similarity.ndim != 2 or similarity.shape[0] != similarity.shape[1]:
        raise ValueError(f"similarity must be a square matrix (n, n), got shape {tuple(similarity.shape)}")
    if similarity.device.type == "cpu" and not bool(torch.isfinite(similarity).all()):
        raise ValueError("similarity must be finite, got NaN or infinity")
