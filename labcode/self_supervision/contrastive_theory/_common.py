"""What the chapter's files share: training on a loss of indices, perceptrons, class means and a linear reader."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...train import allowed, fit

Rows = Float[Tensor, "n d"]
Labels = Int[Tensor, " n"]
Scalar = Float[Tensor, ""]


def learn(
    modules: list[nn.Module], loss: Callable[[Tensor], Scalar], batches: Callable[[int], Tensor], steps: int,
    lr: float = 2e-3, weight_decay: float = 0.0, **options,
) -> list[nn.Module]:  # fmt: skip
    """Train several modules together on ``loss(indices)`` with ``train.fit``; returns them in evaluation mode."""
    both = nn.ModuleList(modules)
    fit(both, lambda index: {"loss": loss(index)}, batches, steps=steps, lr=lr, weight_decay=weight_decay, **options)
    return modules


def watched(
    batches: Callable[[int], Tensor], watch: Callable[[], None], looks: tuple[float, ...], steps: int
) -> Callable[[int], Tensor]:
    """``batches`` that calls ``watch()`` at these shares, in [0, 1), of a training of ``steps``."""
    at = [int(share * allowed(steps)) for share in looks]

    def draw(step: int) -> Tensor:
        for _ in range(at.count(step)):  # in a dry run of two steps, several looks fall together
            watch()
        return batches(step)

    return draw


def perceptron(*widths: int) -> nn.Sequential:
    """Linear layers with ReLU between them and no normalisation, so that rows of a batch do not see each other."""
    layers: list[nn.Module] = []
    for n_in, n_out in zip(widths[:-1], widths[1:], strict=True):
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def class_means(f: Rows, y: Labels, classes: int) -> Float[Tensor, "c d"]:
    """Mean feature of every class."""
    sums = f.new_zeros(classes, f.shape[1]).index_add_(0, y.long(), f)
    return sums / torch.bincount(y.long(), minlength=classes).clamp_min(1)[:, None]


def ridge_accuracy(
    train: Float[Tensor, "n d"], y: Int[Tensor, " n"], test: Float[Tensor, "m d"], y_test: Int[Tensor, " m"],
    l2: float = 1e-3,
) -> float:  # fmt: skip
    """Mean recall over classes of a class-balanced ridge regression onto one-hot labels: a linear reader in one solve.

    Minimises the mean over classes of the mean squared error + l2 ‖W‖² over standardised features. Chance is one
    over the number of classes, however unequal they are. Labels are any integers.
    """
    names, both = torch.cat([y, y_test]).unique(return_inverse=True)
    classes, (y, y_test) = len(names), both.split([len(y), len(y_test)])
    mean, std = train.mean(0), train.std(0, correction=0).clamp_min(1e-6)
    a, b = (torch.cat([(v - mean) / std, torch.ones_like(v[:, :1])], 1).double() for v in (train, test))
    target = F.one_hot(y, classes).double()
    weight = (target / target.sum(0).clamp_min(1)).sum(1, keepdim=True) / classes
    eye = l2 * torch.eye(a.shape[1], dtype=a.dtype, device=a.device)
    solution = torch.linalg.solve(a.T @ (weight * a) + eye, a.T @ (weight * target))
    right = (b @ solution).argmax(1) == y_test
    counts = torch.bincount(y_test, minlength=classes)
    recall = torch.bincount(y_test, right.double(), minlength=classes) / counts.clamp_min(1)
    return float(recall[counts > 0].mean())
