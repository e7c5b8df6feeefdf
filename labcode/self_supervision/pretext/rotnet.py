"""RotNet (Gidaris et al., 2018): by how many quarters has the image been turned?"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ... import augment
from ...loss import check_matrix, float32
from .turning import Images, rotations

Copies = Float[Tensor, "m c h w"]
Scalar = Float[Tensor, ""]


@float32
def rotation_loss(scores: Float[Tensor, "two_n k"]) -> Scalar:
    """Cross entropy of telling the turns apart, the k turns of a batch stacked: rows v·n … (v + 1)·n are turn v.

    RotNet (Gidaris et al., 2018), eq. 2 and 3. Raises ValueError unless k divides the number of rows.
    """
    check_matrix("scores", scores)
    rows, k = scores.shape
    if rows % k:
        raise ValueError(f"scores must hold each image under all {k} turns, got {rows} rows")
    return F.cross_entropy(scores, torch.arange(k, device=scores.device).repeat_interleave(rows // k))


class RotNet(nn.Module):
    """By how many quarters has the image been turned?

    turns  the quarters to tell apart; (0, 1, 2, 3) in the paper
    """

    def __init__(self, encoder: nn.Module, turns: Sequence[int] = (0, 1, 2, 3)):
        super().__init__()
        self.encoder, self.turns, self.head = encoder, tuple(turns), nn.Linear(encoder.features, len(turns))

    def scores(self, x: Images) -> Float[Tensor, "m k"]:
        return self.head(self.encoder(rotations(x, self.turns)))

    def forward(self, views: Copies, index: Int[Tensor, " n"]) -> Scalar:
        return rotation_loss(self.scores(views))

    @torch.no_grad()
    def correct(self, images: Tensor) -> Bool[Tensor, "n k"]:
        """Which turns of which images (uint8) the network tells."""
        guess = self.scores(augment.to_float(images)).argmax(1)
        return (guess.view(len(self.turns), -1) == torch.arange(len(self.turns), device=guess.device)[:, None]).T
