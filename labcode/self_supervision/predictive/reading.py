"""A probe in closed form, for sections that read hundreds of values an image and have a minute for everything."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ...loss import check_finite, check_index, check_matrix, raised


@torch.no_grad()
def ridge_probe(
    z: Float[Tensor, "n d"], y: Int[Tensor, " n"], z_new: Float[Tensor, "m d"], y_new: Int[Tensor, " m"],
    l2: float = 0.3,
) -> float:  # fmt: skip
    """Test accuracy of a linear classifier fitted by least squares to one-hot labels, a ridge regression.

    z, z_new  features to learn from and new ones; both are standardised by the mean and deviation of z
    y, y_new  classes 0 … k - 1
    l2        weight of ‖W‖² against the mean squared error; the intercept is free

    A logistic probe of 768 values and 2,000 rows takes forty times as long. Raises ValueError for features that do not
    fit together or are not finite, and labels that are not one a row.
    """
    z, z_new, y = raised(z), raised(z_new), y.long()
    check_matrix("z", z, rows=2)
    check_finite(z=z, z_new=z_new)
    if z_new.ndim != 2 or z_new.shape[1] != z.shape[1]:
        raise ValueError(f"z_new must have {z.shape[1]} features like z, got shape {tuple(z_new.shape)}")
    for name, labels, rows in (("y", y, z), ("y_new", y_new, z_new)):
        if labels.shape != rows.shape[:1]:
            raise ValueError(f"{name} must be one class for each of the {len(rows)} rows, got {tuple(labels.shape)}")
    classes = int(y.max()) + 1
    check_index("y", y, classes)
    std, mean = torch.std_mean(z, 0)
    a, b = ((part - mean) / (std + 1e-6) for part in (z, z_new))
    wanted = F.one_hot(y, classes).to(a)
    gram = a.T @ a + l2 * len(a) * torch.eye(a.shape[1]).to(a)
    weight = torch.linalg.solve(gram, a.T @ (wanted - wanted.mean(0)))
    return float(((b @ weight + wanted.mean(0)).argmax(1) == y_new).float().mean())


def few_labels(
    z: Float[Tensor, "n d"], y: Int[Tensor, " n"], z_new: Float[Tensor, "m d"], y_new: Int[Tensor, " m"], labels: int,
    draws: int = 8, l2: float = 0.3,
) -> float:  # fmt: skip
    """``ridge_probe`` on ``labels`` rows, the mean over several random draws of them, the same for equal arguments.

    Few labels ask for features that lie ready, where many would find anything that is not lost.
    """
    orders = (torch.randperm(len(y), generator=torch.Generator().manual_seed(draw)) for draw in range(draws))
    rows = [order[:labels].to(y.device) for order in orders]
    return sum(ridge_probe(z[r], y[r], z_new, y_new, l2) for r in rows) / draws
