"""SupCon: rows of one class are each other's positives (Khosla et al., 2020)."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ...loss import check_matrix, check_positive, float32, not_negative, unit_rows
from ...pairwise import logsumexp_others


@float32
def sup_con(z: Float[Tensor, "n d"], labels: Int[Tensor, " n"], tau: float = 0.1) -> Float[Tensor, ""]:
    """Supervised contrastive loss: every other row of a row's class is a positive, all other rows are in the sum.

    Khosla et al. (2020), eq. 2, L_out: -1/|P(i)| Σ_{p ∈ P(i)} log (exp(zᵢ·z_p/τ) / Σ_{j≠i} exp(zᵢ·zⱼ/τ)), averaged
    over the rows that have a positive; 0 if none has. With the image's number as its label this is ``nt_xent``.

    z       unnormalised projections of any number of views, n >= 1
    labels  any integers
    tau     temperature > 0; 0.1 in the paper

    Raises ValueError for labels that do not fit z, no row or tau <= 0. The positives' mean is a sum over classes, so
    memory is that of ``pairwise.logsumexp_others``.
    """
    check_matrix("z", z)
    check_positive(tau=tau)
    if labels.shape != (len(z),):
        raise ValueError(f"labels must name the class of each of the {len(z)} rows, got shape {tuple(labels.shape)}")
    z = unit_rows(z)
    if len(z) == 1:
        return z.sum() * 0
    ordered, order = labels.sort()  # classes counted from 0, with no wait for the device
    classes = torch.empty_like(order).scatter_(0, order, F.pad((ordered[1:] != ordered[:-1]).cumsum(0), (1, 0)))
    others = torch.zeros_like(z).index_add(0, classes, z)[classes] - z
    count = (torch.zeros_like(z[:, 0]).index_add(0, classes, torch.ones_like(z[:, 0])) - 1)[classes]
    positive = (z * others).sum(1) / (count.clamp_min(1) * tau)
    some = (count > 0).to(z.dtype)
    return (not_negative(logsumexp_others(z, tau) - positive) * some).sum() / some.sum().clamp_min(1)
