"""RankMe (Garrido et al., 2023) and the other scores that choose a run without labels."""

import torch
from torch import Tensor, nn

from ...course.stage import Stage
from ...data import Difficulty, benchmark, scenes
from ...evaluate import effective_rank, linear_probe
from ...loss import check_matrix
from .cross_norm import Rows

Images = tuple[Tensor, Tensor, Tensor, Tensor]  # for training and their labels, for testing and theirs

rankme = effective_rank


def alpha_req(z: Rows, skip: int = 1) -> float:
    """Decay exponent of the covariance spectrum, λ_k ∝ k^-α, by least squares on the logarithms (α-ReQ).

    Agrawal et al., 2022: near 1 is said to be best; large means few directions carry all.

    skip  leading eigenvalues to leave out
    """
    check_matrix("z", z, rows=3)
    values = torch.linalg.svdvals((z - z.mean(0)).double()).square()
    values = values[values > 1e-10 * values[0]][skip:]
    if len(values) < 2:
        return float("inf")
    x = torch.arange(skip + 1, skip + 1 + len(values), dtype=torch.float64, device=z.device).log()
    y = values.log()
    x, y = x - x.mean(), y - y.mean()
    return float(-(x * y).sum() / (x * x).sum())


def spearman(a: list[float], b: list[float]) -> float:
    """Rank correlation of two lists in [-1, 1]; NaN where one of them is constant."""
    from scipy.stats import spearmanr

    return float(spearmanr(a, b).statistic)


def regret(scores: list[float], accuracies: list[float]) -> float:
    """What choosing the run with the highest score loses against the best run, in accuracy."""
    chosen = max(range(len(scores)), key=lambda i: scores[i])
    return max(accuracies) - accuracies[chosen]


def second_data(stage: Stage) -> Images:
    """Images that no run was trained on: scenes with digits of another hand, or SVHN at full scale."""

    def drawn() -> Images:
        hand = Difficulty(digits="optdigits")
        train, test = (scenes(n, 2, split, hand) for n, split in zip((1000, 500), stage.run.splits, strict=True))
        return train.images, train.labels, test.images, test.labels

    def loaded() -> Images:
        svhn = benchmark("svhn", device=stage.run.device)
        return svhn.train_images, svhn.train_labels, svhn.test_images, svhn.test_labels

    return stage.run.pick(quick=drawn, full=loaded)()


def probe_on(stage: Stage, encoder: nn.Module, images: Images) -> float:
    """Test accuracy of a linear probe on frozen features of these images, with one regulariser for all runs."""
    train, y, test, y_test = images
    return linear_probe(stage.features(encoder, train), y, stage.features(encoder, test), y_test, l2=(0.01,)).accuracy
