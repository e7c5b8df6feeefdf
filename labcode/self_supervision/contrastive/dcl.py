"""Decoupled contrastive learning: InfoNCE without the positive in its denominator (Yeh et al., 2022)."""


from jaxtyping import Float
from torch import Tensor


def coupling(logits: Float[Tensor, "... m"]) -> Float[Tensor, "..."]:
    """The negative-positive coupling 1 - q₊ of InfoNCE rows, q₊ the softmax probability of the first entry.

    Decoupled contrastive learning (Yeh et al., 2022), Proposition 1: the gradient of an InfoNCE row is this factor
    times the gradient of the row whose denominator leaves the positive out. In [0, 1].
    """
    return 1 - logits.softmax(-1)[..., 0]
