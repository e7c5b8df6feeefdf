"""SLA (Lee et al., 2020): class and turn are one label, and the turns' answers are averaged."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...loss import check_index, check_matrix, float32
from .classifier import Classifier
from .turning import Images, Labels, rotations, turn_all

Copies = Float[Tensor, "m c h w"]
Scalar = Float[Tensor, ""]


def joint_labels(y: Labels, copies: int = 4) -> Int[Tensor, " m"]:
    """Class and turn as one label: copies · y + v for copy v. Rows i + n·v. In int64, where bytes would wrap around."""
    turns = torch.arange(copies, device=y.device)
    return (copies * y.long() + turns[:, None]).flatten()


@float32
def sla_loss(scores: Float[Tensor, "two_n k"], y: Int[Tensor, " n"]) -> Scalar:
    """Cross entropy over joint labels, averaged over the copies.

    SLA (Lee et al., 2020), eq. 4: (1/M) Σ_j CE(σ(f(t_j x); w), (y, j)). The number M of copies follows from the shapes.

    scores  one column a joint label, M · classes of them; rows i + n·v
    y       classes of the n images

    Raises ValueError where rows are no multiple of the images, or columns no multiple of M, and on a CPU for classes
    that have no column.
    """
    copies = _copies(scores, len(y))
    check_index("y", y, scores.shape[1] // copies)
    return F.cross_entropy(scores, joint_labels(y, copies))


@float32
def aggregate(scores: Float[Tensor, "two_n k"], copies: int = 4) -> Float[Tensor, "n classes"]:
    """The joint scores of all copies as scores of the classes: copy v is asked for the labels (·, v) alone.

    SLA, eq. 5: s_i = (1/M) Σ_j w_ij · f(t_j x).
    """
    check_matrix("scores", scores)
    n = len(scores) // max(copies, 1)
    if copies < 1 or n * copies != len(scores) or scores.shape[1] % copies:
        raise ValueError(f"copies must divide the rows and columns of scores, {tuple(scores.shape)}, got {copies}")
    table = scores.view(copies, n, -1, copies)
    return table.diagonal(dim1=0, dim2=3).mean(-1)


@float32
def self_distillation(single: Float[Tensor, "n c"], teacher: Float[Tensor, "n c"], y: Int[Tensor, " n"],
                      beta: float = 1.0) -> Scalar:  # fmt: skip
    """A head for the untouched copy learns what all copies together say: KL(P_aggregated ‖ P) + β CE(P, y).

    SLA, eq. 6. ``teacher`` are the aggregated scores; no gradient goes to them. Temperature 1, as the authors have it.
    """
    check_matrix("single", single)
    check_matrix("teacher", teacher, like=single)
    if y.shape != (len(single),):
        raise ValueError(f"single must have one row a label, {len(y)}, got {tuple(single.shape)}")
    check_index("y", y, single.shape[1])
    wanted = teacher.detach().log_softmax(1)
    told = F.kl_div(single.log_softmax(1), wanted, reduction="batchmean", log_target=True)
    return told + beta * F.cross_entropy(single, y)


def _copies(scores: Tensor, n: int) -> int:
    check_matrix("scores", scores)
    if n == 0 or len(scores) % n or scores.shape[1] % (len(scores) // n):
        raise ValueError(f"scores {tuple(scores.shape)} must have M rows for each of the {n} labels and M | columns")
    return len(scores) // n


class SLA(Classifier):
    """One head over class × turn; with ``distil`` a second, plain one that learns from the aggregated first.

    distil  weight of the self-distillation; 1 in the paper, 0 leaves it out
    """

    def __init__(self, encoder: nn.Module, labels: Labels, classes: int, copies: int = 4, distil: float = 0.0):
        super().__init__(encoder, labels, classes)
        self.copies, self.distil, self.joint = copies, distil, nn.Linear(encoder.features, copies * classes)

    def forward(self, views: Copies, index: Labels) -> Scalar:
        h, y = self.encoder(turn_all(views, self.copies)[0]), self.labels[index]
        scores = self.joint(h)
        loss = sla_loss(scores, y)
        if self.distil:
            loss = loss + self.distil * self_distillation(self.head(h[: len(y)]), aggregate(scores, self.copies), y)
        return loss

    def single(self, x: Images) -> Float[Tensor, "n classes"]:
        """Scores of the classes from the upright image alone: the columns (·, 0)."""
        return self.joint(self.encoder(x))[:, :: self.copies]

    def aggregated(self, x: Images) -> Float[Tensor, "n classes"]:
        """Scores of the classes from all turns of the training."""
        return aggregate(self.joint(self.encoder(rotations(x, range(self.copies)))), self.copies)
