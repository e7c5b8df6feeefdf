"""Turning beside labels: as augmentation, as a second task, locally (LoRot), and as part of the label (SLA).

All take four copies of every labelled image, stacked: row i + v·n is copy v of image i. They differ in what is turned
and in what is asked.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..augment import to_float
from ..loss import check_matrix, float32

Images = Float[Tensor, "n c h w"]
Copies = Float[Tensor, "m c h w"]
Labels = Int[Tensor, " n"]
Scalar = Float[Tensor, ""]
Turned = tuple[Images, Labels]

# ---------------------------------------------------------------------------------------------------------------------
# Turning
# ---------------------------------------------------------------------------------------------------------------------


def rotations(x: Images, turns: Sequence[int] = (0, 1, 2, 3)) -> Float[Tensor, "m c h w"]:
    """All images turned by each number of quarters, counterclockwise: row i + n·v is image i under ``turns[v]``.

    Transposed and mirrored, not resampled: no interpolation gives the turn away. Raises ValueError for images that are
    not square.
    """
    _square(x)
    return torch.cat([torch.rot90(x, turn, (2, 3)) for turn in turns])


def turn(x: Images, quarters: Labels) -> Images:
    """Each image turned by its own number of quarters, counterclockwise."""
    _square(x)
    mirrored = torch.where(_wide(quarters % 4 >= 2), x.flip(2, 3), x)
    return torch.where(_wide(quarters % 2 == 1), torch.rot90(mirrored, 1, (2, 3)), mirrored)


def turn_all(x: Images, copies: int = 4) -> Turned:
    """Whole images: copy v of each is turned by v quarters, which is its label, 0 … 3."""
    quarters = torch.arange(copies, device=x.device).repeat_interleave(len(x) // copies)
    return turn(x, quarters), quarters


def turn_cell(x: Images, grid: int = 2, label: Labels | None = None) -> Turned:
    """LoRot-E: one cell of a grid turned; the label is 4 · cell + quarters, 0 … 4·grid² - 1.

    Moon and Kim et al., 2022. No turn is one of the four, whatever the cell: a quarter of the images stays as it is,
    and grid² labels say the same. So the best accuracy is (3 + 1/grid²)/4, 81.25 % for 2×2.

    label  drawn evenly if None

    Raises ValueError unless grid divides the side.
    """
    _square(x)
    n, _, side, _ = x.shape
    if grid < 1 or side % grid:
        raise ValueError(f"grid must divide the side of {side} pixels, got {grid}")
    label = torch.randint(4 * grid**2, (n,), device=x.device) if label is None else label
    s, image = side // grid, torch.arange(n, device=x.device)
    table = x.unfold(2, s, s).unfold(3, s, s).permute(0, 2, 3, 1, 4, 5).flatten(1, 2).clone()  # (n, cells, c, s, s)
    table[image, label // 4] = turn(table[image, label // 4], label % 4)
    return table.view(n, grid, grid, -1, s, s).permute(0, 3, 1, 4, 2, 5).reshape(x.shape), label


def turn_patch(x: Images, box: tuple[int, int, int] | None = None, label: Labels | None = None) -> Turned:
    """LoRot-I: a square of random side and place turned, the same square in the whole batch; the label is the turn.

    box    (top, left, side) in pixels; drawn with a side in 2 … half the image's if None, one a batch as the authors do
    label  quarters, drawn evenly if None
    """
    _square(x)
    n, _, full, _ = x.shape
    if box is None:
        side = int(torch.randint(2, full // 2 + 1, ()))  # on the host: no waiting for the device
        top, left = torch.randint(full - side + 1, (2,)).tolist()
    else:
        top, left, side = box
    label = torch.randint(4, (n,), device=x.device) if label is None else label
    out = x.clone()
    rows, columns = slice(top, top + side), slice(left, left + side)
    out[:, :, rows, columns] = turn(x[:, :, rows, columns], label)
    return out, label


def affinity(correct: Callable[[Tensor], float], images: Tensor, task: Callable[[Images], Turned]) -> float:
    """Accuracy on transformed images over accuracy on the images themselves: does a task leave the distribution?

    correct  accuracy on float images in the order of ``images`` (uint8); of a network that never saw the task
    """
    x = to_float(images)
    return correct(task(x)[0]) / max(correct(x), 1e-12)


def _square(x: Tensor) -> None:
    if x.ndim != 4 or x.shape[2] != x.shape[3]:
        raise ValueError(f"x must be square images (n, c, s, s), got shape {tuple(x.shape)}")


def _wide(value: Tensor) -> Tensor:
    return value.view(-1, 1, 1, 1)


# ---------------------------------------------------------------------------------------------------------------------
# One label of class and turn
# ---------------------------------------------------------------------------------------------------------------------


def joint_labels(y: Labels, copies: int = 4) -> Int[Tensor, " m"]:
    """Class and turn as one label: copies · y + v for copy v. Rows i + n·v."""
    turns = torch.arange(copies, device=y.device)
    return (copies * y + turns[:, None]).flatten()


@float32
def sla_loss(scores: Float[Tensor, "two_n k"], y: Int[Tensor, " n"]) -> Scalar:
    """Cross entropy over joint labels, averaged over the copies.

    SLA (Lee et al., 2020), eq. 4: (1/M) Σ_j CE(σ(f(t_j x); w), (y, j)). The number M of copies follows from the shapes.

    scores  one column a joint label, M · classes of them; rows i + n·v
    y       classes of the n images

    Raises ValueError where rows are no multiple of the images, or columns no multiple of M.
    """
    return F.cross_entropy(scores, joint_labels(y, _copies(scores, len(y))))


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
        raise ValueError(f"single must have one row a label, {len(y)}, got {len(single)}")
    wanted = teacher.detach().log_softmax(1)
    told = F.kl_div(single.log_softmax(1), wanted, reduction="batchmean", log_target=True)
    return told + beta * F.cross_entropy(single, y)


def _copies(scores: Tensor, n: int) -> int:
    check_matrix("scores", scores)
    if n == 0 or len(scores) % n or scores.shape[1] % (len(scores) // n):
        raise ValueError(f"scores {tuple(scores.shape)} must have M rows for each of the {n} labels and M | columns")
    return len(scores) // n


def distance_from_uniform(scores: Float[Tensor, "n c"]) -> Float[Tensor, " n"]:
    """KL(uniform ‖ softmax), LoRot's score of being in-distribution: 0 where all classes are alike, unbounded."""
    return -scores.log_softmax(1).mean(1) - torch.tensor(float(scores.shape[1])).log()


# ---------------------------------------------------------------------------------------------------------------------
# Classifiers
# ---------------------------------------------------------------------------------------------------------------------


class Classifier(nn.Module):
    """The same classes for every copy of an image: as it is, or turned for augmentation.

    labels  of the training images, in the order of ``index``
    turned  copy v is turned by v quarters
    """

    def __init__(self, encoder: nn.Module, labels: Labels, classes: int, turned: bool = False):
        super().__init__()
        self.encoder, self.turned = encoder, turned
        self.head = nn.Linear(encoder.features, classes)
        self.register_buffer("labels", labels, persistent=False)

    def scores(self, x: Images) -> Float[Tensor, "n c"]:
        return self.head(self.encoder(x))

    def forward(self, views: Copies, index: Labels) -> Scalar:
        copies = len(views) // len(index)
        x = turn_all(views, copies)[0] if self.turned else views
        return F.cross_entropy(self.scores(x), self.labels[index].repeat(copies))


class TwoHeads(Classifier):
    """A second head says what has been turned: CE(class) + λ CE(task), both of the *same* transformed images.

    task   ``turn_all`` (whole images), ``turn_cell`` (LoRot-E) or ``turn_patch`` (LoRot-I)
    kinds  how many labels the task has
    lam    λ; LoRot takes 0.1 to 0.5, the multi-task rival of SLA 1
    """

    def __init__(self, encoder: nn.Module, labels: Labels, classes: int, task: Callable[[Images], Turned],
                 kinds: int, lam: float = 0.1):  # fmt: skip
        super().__init__(encoder, labels, classes)
        self.task, self.lam, self.second = task, lam, nn.Linear(encoder.features, kinds)

    def forward(self, views: Copies, index: Labels) -> Scalar:
        x, what = self.task(views)
        h = self.encoder(x)
        classes = F.cross_entropy(self.head(h), self.labels[index].repeat(len(views) // len(index)))
        return classes + self.lam * F.cross_entropy(self.second(h), what)


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

    def single(self, x: Images) -> Float[Tensor, "n c"]:
        """Scores of the classes from the upright image alone: the columns (·, 0)."""
        return self.joint(self.encoder(x))[:, :: self.copies]

    def aggregated(self, x: Images) -> Float[Tensor, "n c"]:
        """Scores of the classes from all turns."""
        return aggregate(self.joint(self.encoder(rotations(x))), self.copies)
