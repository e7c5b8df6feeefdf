"""Decoupled contrastive learning: InfoNCE without the positive in its denominator (Yeh et al., 2022)."""

import torch
from jaxtyping import Float
from torch import Tensor

from ...loss import check_matrix, check_positive, float32, unit_rows
from ...pairwise import off_diagonal


@float32
def dcl(z: Float[Tensor, "two_n d"], tau: float = 0.1, sigma: float | None = None) -> Float[Tensor, ""]:
    """The decoupled contrastive loss, DCL, or with ``sigma`` its weighted form, DCLW.

    Yeh et al. (2022), eq. 6: -w s⁺/τ + log Σ exp(s⁻/τ) over both views of all other images, averaged over the 2n rows.
    In the denominator of ``simclr.nt_xent`` the positive stands too; here it does not, so the push of the negatives no
    longer fades where the positive is near (``coupling``).

    z      unnormalised projections, both views stacked: rows i and i + n are image i; n >= 2
    tau    temperature > 0; 0.1 in the authors' code
    sigma  σ > 0 of the weight w = 2 - exp(s⁺/σ) / mean exp(s⁺/σ), which has no gradient; 0.5 in the paper. None: w = 1

    Unlike NT-Xent it has no lower bound of 0: down to log(2n - 2) - 2/τ. Raises ValueError for an odd number of rows,
    n < 2 (a single image has nothing in its denominator), or tau or sigma <= 0. Memory O(n²). Departure from the
    authors' code: the excluded pairs are left out; there they get -103 on their scores and come back where τ < 0.02.
    """
    check_matrix("z", z, rows=4, even=True)
    check_positive(tau=tau)
    n, z = len(z) // 2, unit_rows(z)
    positive = (z[:n] * z[n:]).sum(1)
    score = (z @ z.T / tau).view(2, n, 2, n).transpose(1, 2)  # (view, view, image, image)
    push = off_diagonal(score).transpose(1, 2).reshape(2 * n, 2 * n - 2).logsumexp(1)
    weight = 1.0
    if sigma is not None:
        check_positive(sigma=sigma)
        weight = 2 - n * (positive.detach() / sigma).softmax(0)
    return push.mean() - (weight * positive).mean() / tau


def coupling(logits: Float[Tensor, "... m"]) -> Float[Tensor, "..."]:
    """The negative-positive coupling 1 - q₊ of InfoNCE rows, q₊ the softmax probability of the first entry.

    Yeh et al. (2022), Proposition 1: the gradient of an InfoNCE row is this factor times the gradient of the row whose
    denominator leaves the positive out. In [0, 1], and as exact near 0 as near 1; 0 for a row of one entry.
    """
    logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    return (logits[..., 1:].logsumexp(-1) - logits[..., 0]).sigmoid()
