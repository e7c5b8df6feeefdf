"""Inverse image frequency (IIF): logits times how rare their class is (Alexandridis et al., TIP 2023), and additive
logit adjustment (Menon et al., ICLR 2021), its rival.

n_c training images have class c, N all of them. Both work on a trained classifier, or inside the loss.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ...loss import check_index, check_matrix, float32

VARIANTS = ("raw", "smooth", "relative", "normit", "gombit", "base2", "base10")


def rarity(counts: Int[Tensor, " K"], variant: str = "smooth") -> Float[Tensor, " K"]:
    """The weight of each class's logit, large for rare ones; table 1 of the paper.

    counts   n_c; below 1 they count as 1, so that a class without images has no infinite weight
    variant  "raw" log N/n_c; "smooth" log (N+1)/(n_c+1) + 1, the released code's default; "relative" log (N-n_c)/n_c;
             "normit" -Φ⁻¹(n_c/N); "gombit" -log(-log(1-n_c/N)); "base2" and "base10" raw in other logarithms

    relative, normit and gombit turn negative for classes with most of the images. No look at the data, so that a GPU
    is not waited for. Raises ValueError for fewer than two classes, and an unknown variant.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant must be one of {', '.join(VARIANTS)}, got {variant!r}")
    if counts.ndim != 1 or len(counts) < 2:
        raise ValueError(f"counts must be of two classes or more, got shape {tuple(counts.shape)}")
    n = counts.double().clamp_min(1)
    total = n.sum()
    share = n / total
    found = {
        "raw": lambda: -share.log(),
        "smooth": lambda: ((total + 1) / (n + 1)).log() + 1,
        "relative": lambda: ((total - n) / n).log(),
        "normit": lambda: -torch.special.ndtri(share),
        "gombit": lambda: -(-torch.log1p(-share)).log(),
        "base2": lambda: -share.log2(),
        "base10": lambda: -share.log10(),
    }[variant]()
    return found.float()


def iif(
    logits: Float[Tensor, "*n K"], counts: Int[Tensor, " K"], variant: str = "smooth"
) -> Float[Tensor, "*n K"]:
    """Logits times their class's rarity: the multiplicative adjustment, at inference or in the loss.

    The value depends on where the logits' zero lies: a positive logit of a rare class grows, a negative one sinks.
    """
    return logits * rarity(counts, variant).to(logits)


def adjusted(
    logits: Float[Tensor, "*n K"], counts: Int[Tensor, " K"], tau: float = 1.0
) -> Float[Tensor, "*n K"]:
    """Logits less tau log(n_c / N): the additive adjustment at inference, logit adjustment."""
    return logits - tau * (counts / counts.sum()).log().to(logits)


@float32
def iif_loss(
    logits: Float[Tensor, "n K"], y: Int[Tensor, " n"], counts: Int[Tensor, " K"], variant: str = "smooth"
) -> Float[Tensor, ""]:
    """Cross entropy of the weighed logits, of the second stage; inference weighs them too.

    Behind a linear layer without a norm it is the loss of the layer with rows w_c W_c: only a re-parametrisation.
    Behind a cosine classifier it is not, since the rows' lengths are fixed. Raises ValueError for shapes that do not
    fit and labels out of range.
    """
    _check(logits, y, counts)
    return F.cross_entropy(iif(logits, counts, variant), y)


@float32
def balanced_softmax(
    logits: Float[Tensor, "n K"], y: Int[Tensor, " n"], counts: Int[Tensor, " K"]
) -> Float[Tensor, ""]:
    """Cross entropy of logits plus log n_c (Ren et al., NeurIPS 2020); inference takes the logits as they are.

    Counts below 1 count as 1. Raises ValueError for shapes that do not fit and labels out of range.
    """
    _check(logits, y, counts)
    return F.cross_entropy(logits + counts.clamp_min(1).log().to(logits), y)


def _check(logits: Tensor, y: Tensor, counts: Tensor) -> None:
    check_matrix("logits", logits)
    if y.shape != logits.shape[:1]:
        raise ValueError(f"y must be a label for each of {len(logits)} rows of logits, got {tuple(y.shape)}")
    if counts.shape != logits.shape[1:]:
        raise ValueError(f"counts must be of the {logits.shape[1]} classes of logits, got {tuple(counts.shape)}")
    check_index("y", y, logits.shape[1])
