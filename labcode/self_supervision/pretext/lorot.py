"""LoRot (Moon and Kim et al., 2022): beside the class, ask for the turn of a part of the image.

``turn_cell`` is LoRot-E, ``turn_patch`` LoRot-I; ``TwoHeads`` asks both questions of the same turned image.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ...augment import to_float
from ...loss import check_index, check_matrix, raised
from .classifier import Classifier
from .turning import Images, Labels, Turned, check_square, turn

Copies = Float[Tensor, "m c h w"]
Scalar = Float[Tensor, ""]


def turn_cell(x: Images, grid: int = 2, label: Labels | None = None) -> Turned:
    """LoRot-E: one cell of a grid turned; the label is 4 · cell + quarters, 0 … 4·grid² - 1.

    Moon and Kim et al., 2022. No turn is one of the four, whatever the cell: a quarter of the images stays as it is,
    and grid² labels say the same. So the best accuracy is (3 + 1/grid²)/4, 81.25 % for 2×2.

    label  drawn evenly if None

    Raises ValueError unless grid divides the side, and on a CPU for labels out of range.
    """
    check_square(x)
    n, _, side, _ = x.shape
    if grid < 1 or side % grid:
        raise ValueError(f"grid must divide the side of {side} pixels, got {grid}")
    label = torch.randint(4 * grid**2, (n,), device=x.device) if label is None else label
    check_index("label", label, 4 * grid**2)
    s, image = side // grid, torch.arange(n, device=x.device)
    table = x.unfold(2, s, s).unfold(3, s, s).permute(0, 2, 3, 1, 4, 5).flatten(1, 2).clone()  # (n, cells, c, s, s)
    table[image, label // 4] = turn(table[image, label // 4], label % 4)
    return table.view(n, grid, grid, -1, s, s).permute(0, 3, 1, 4, 2, 5).reshape(x.shape), label


def turn_patch(x: Images, box: tuple[int, int, int] | None = None, label: Labels | None = None) -> Turned:
    """LoRot-I: a square of random side and place turned, the same square in the whole batch; the label is the turn.

    box    (top, left, side) in pixels; drawn with a side in 2 … half the image's if None, one a batch as the authors do
    label  quarters, drawn evenly if None

    Raises ValueError for a box that leaves the image, and for images of less than 4 pixels a side without a box.
    """
    check_square(x)
    n, _, full, _ = x.shape
    if box is None:
        if full < 4:
            raise ValueError(f"x must have sides of at least 4 pixels, got shape {tuple(x.shape)}")
        side = int(torch.randint(2, full // 2 + 1, ()))  # on the host: no waiting for the device
        top, left = torch.randint(full - side + 1, (2,)).tolist()
    else:
        top, left, side = box
        if side < 1 or min(top, left) < 0 or max(top, left) + side > full:
            raise ValueError(f"box must lie in the image of {full}×{full} pixels, got (top, left, side) = {box}")
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


def distance_from_uniform(scores: Float[Tensor, "n c"]) -> Float[Tensor, " n"]:
    """KL(uniform ‖ softmax), LoRot's score of being in-distribution: 0 where all classes are alike, unbounded.

    It is the log of the mean of exp(s - mean s), which keeps its digits where the scores are nearly alike. Half
    precision is raised to float32.
    """
    check_matrix("scores", scores)
    s = raised(scores)
    s = s - s.mean(1, keepdim=True)
    near = s.clamp(-1, 1).expm1().mean(1).clamp_min(0).log1p()
    far = s.logsumexp(1) - math.log(s.shape[1])
    return torch.where(s.abs().amax(1) <= 1, near, far)


def auroc(inside: Float[Tensor, " n"], outside: Float[Tensor, " m"]) -> float:
    """Area under the ROC curve of a score: 1 if it is always higher inside, ½ for chance."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score([1] * len(inside) + [0] * len(outside), torch.cat([inside, outside]).tolist()))


@torch.no_grad()
def noticed(classifier: nn.Module, inside: Tensor, outside: Tensor) -> float:
    """How well a classifier's ``distance_from_uniform`` tells images of its classes from others: AUROC."""
    return auroc(*(distance_from_uniform(classifier.scores(to_float(x))) for x in (inside, outside)))


class TwoHeads(Classifier):
    """A second head says what has been turned: CE(class) + λ CE(task), both of the *same* transformed images.

    task   ``turn_all`` (whole images), ``turn_cell`` (LoRot-E) or ``turn_patch`` (LoRot-I)
    kinds  how many labels the task has
    lam    λ; LoRot takes 0.1 to 0.5, the multi-task rival of SLA 1. Another λ is another method: compare at one
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
