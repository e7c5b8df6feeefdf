"""MacroStd: how unequal a classifier's accuracies are within a class, over subgroups by background colour.

"Better May Not Be Fairer: A Study on Subgroup Discrepancy in Image Classification". Its augmentation, FlowAug, is in
``flowaug.py``.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from ...data.batches import mixed_seed
from ...data.synthetic import EIGHT, Scenes, scenes
from ...loss import check_index, raised

Labels = Int[Tensor, " n"]


def subgroup_accuracy(
    correct: Bool[Tensor, " n"], labels: Labels, groups: Labels, classes: int, subgroups: int
) -> tuple[Float[Tensor, "c g"], Float[Tensor, "c g"]]:
    """Accuracy of every class in every subgroup, 0 where there is no image, and the number of images.

    Raises ValueError for labels outside 0 … classes - 1, groups outside 0 … subgroups - 1, or not one an image.
    """
    for name, x, count in (("labels", labels, classes), ("groups", groups, subgroups)):
        check_index(name, x, count)
        if x.shape != correct.shape:
            raise ValueError(f"{name} must be one an image, {len(correct)}, got {tuple(x.shape)}")
    cell = labels * subgroups + groups
    counts = torch.bincount(cell, minlength=classes * subgroups).double()
    hits = torch.bincount(cell, correct.double(), minlength=classes * subgroups)
    shape = (classes, subgroups)
    return (hits / counts.clamp(min=1)).view(shape), counts.view(shape)


def macro_std(accuracy: Float[Tensor, "c g"], counts: Float[Tensor, "c g"]) -> float:
    """MacroStd: the standard deviation of a class's subgroup accuracies, weighted by images; the mean over classes.

        σ_c² = Σ_g w_cg (a_cg - ā_c)²,   ā_c = Σ_g w_cg a_cg,   w_cg = n_cg / Σ_g n_cg,   MacroStd = (1/C) Σ_c σ_c

    0 for equal accuracies, at most 0.5. A subgroup without images has no weight. Few images in a subgroup make its
    accuracy uneven by chance: compare with ``chance_macro_std``.

    Raises ValueError for a class without images.
    """
    total = counts.sum(1, keepdim=True)
    if not (total > 0).all():
        raise ValueError(f"every class needs images, got none for {torch.nonzero(total[:, 0] <= 0)[:, 0].tolist()}")
    weight = counts / total
    mean = (weight * accuracy).sum(1, keepdim=True)
    return float((weight * (accuracy - mean).square()).sum(1).sqrt().mean())


def chance_macro_std(
    correct: Bool[Tensor, " n"], labels: Labels, groups: Labels, classes: int, subgroups: int, seed: int = 0,
    draws: int = 20,
) -> float:  # fmt: skip
    """MacroStd when subgroups are dealt anew at random within each class: what unevenness by chance alone gives."""
    g, found = Generator().manual_seed(seed), []
    correct, labels, groups = correct.cpu(), labels.cpu(), groups.cpu()
    grouped = labels.argsort(stable=True)
    for _ in range(draws):
        mixed = torch.randperm(len(labels), generator=g)
        dealt = torch.empty_like(groups)
        dealt[mixed[labels[mixed].argsort(stable=True)]] = groups[grouped]
        found.append(macro_std(*subgroup_accuracy(correct, labels, dealt, classes, subgroups)))
    return sum(found) / draws


def subgroup_scores(
    predict: Callable[[Tensor], Tensor], usual: tuple[Tensor, Labels, Labels], even: tuple[Tensor, Tensor, Tensor],
    classes: int, subgroups: int,
) -> tuple[dict[str, float], Float[Tensor, "c g"]]:  # fmt: skip
    """What a classifier is worth: its scores, and its accuracies by class and subgroup on the usual test set.

    predict      images -> their classes
    usual, even  (images, labels, subgroups): a test set like the training set, and one on whose subgroups, weighted
                 alike, accuracy should not depend

    Scores are "accuracy", "macro" and "chance", MacroStd and what chance alone makes of it, on the usual set, and
    "even", the mean over all classes and subgroups of the other one.
    """
    right = [predict(images) == labels for images, labels, _ in (usual, even)]
    cells, others = (
        subgroup_accuracy(r, *one[1:], classes, subgroups) for r, one in zip(right, (usual, even), strict=True)
    )
    scores = {
        "accuracy": float(right[0].float().mean()),
        "macro": macro_std(*cells),
        "even": float(others[0][others[1] > 0].mean()),
        "chance": chance_macro_std(right[0], *usual[1:], classes, subgroups, draws=5),
    }
    return scores, cells[0]


PALETTE = ((0.15, 0.15, 0.15), (0.75, 0.25, 0.2), (0.25, 0.7, 0.25), (0.2, 0.3, 0.8), (0.85, 0.85, 0.85))


def coloured_scenes(n: int, seed: int, split: str, rho: float) -> Scenes:
    """Scenes whose background colour goes with the class: class c has colour c mod 5 of ``PALETTE`` with probability
    rho, else any of the five. The factor "group" is the colour; every channel varies by ±0.05 about it.

    Raises ValueError for rho outside [0, 1].
    """
    if not 0 <= rho <= 1:
        raise ValueError(f"rho must be in [0, 1], got {rho}")
    g = Generator().manual_seed(mixed_seed(seed, 9, round(1000 * rho)))
    labels = torch.randint(10, (n,), generator=g)
    other = torch.randint(len(PALETTE), (n,), generator=g)
    group = torch.where(torch.rand(n, generator=g) < rho, labels % len(PALETTE), other)
    colour = torch.tensor(PALETTE)[group] + 0.1 * (torch.rand(n, 3, generator=g) - 0.5)
    made = scenes(n, mixed_seed(seed, 10, round(1000 * rho)), split, EIGHT, label=labels, background=colour)
    made.factors["group"] = group
    return made


def border_colours(images: Float[Tensor, "n 3 h w"], width: int = 2) -> Labels:
    """Subgroups of photographs without annotation: which colour of ``PALETTE`` is nearest to the mean of the border.

    Stands for the paper's human annotation of background colours.

    images  float in [0, 1]

    Raises ValueError for others, and for a border as wide as half of an image.
    """
    if not images.is_floating_point() or images.numel() and not bool(((images >= -1) & (images <= 2)).all()):
        raise ValueError(f"images must be float in [0, 1], got {images.dtype}: divide bytes by 255")
    if not 1 <= width < min(images.shape[-2:]) / 2:
        raise ValueError(f"width must be in 1 … {(min(images.shape[-2:]) - 1) // 2}, got {width}")
    images = raised(images)
    inner = torch.zeros(images.shape[-2:], dtype=torch.bool, device=images.device)
    inner[width:-width, width:-width] = True
    mean = images[:, :, ~inner].mean(2)
    return torch.cdist(mean, torch.tensor(PALETTE, device=images.device)).argmin(1)
