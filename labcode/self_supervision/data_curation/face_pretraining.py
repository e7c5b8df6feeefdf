"""Pre-training for faces (Bulat et al., 2022): fine-tune an encoder on several jobs with few labels."""

import copy

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from ...augment import to_float
from ...data import mixed_seed
from ...loss import unit_rows
from ...train import allowed


class FineTuned(nn.Module):
    """An encoder and a linear layer; ``predict`` gives classes, or values in the targets' own units.

    targets  (n,) whole numbers, any: the classes are those that occur. Or (n, t) values
    """

    def __init__(self, encoder: nn.Module, targets: Tensor):
        super().__init__()
        self.classes = not targets.is_floating_point()
        self.encoder = encoder
        if self.classes:
            self.register_buffer("names", targets.unique())
            self.layer = nn.Linear(encoder.features, len(self.names))
        else:
            self.layer = nn.Linear(encoder.features, targets.shape[1])
            self.register_buffer("mean", targets.mean(0))
            self.register_buffer("scale", targets.std(0, correction=0).clamp_min(1e-8))

    def loss(self, images: Shaped[Tensor, "n c h w"], targets: Tensor) -> Float[Tensor, ""]:
        """Cross entropy, or the squared error in units of the targets' variance."""
        out = self.layer(self.encoder(to_float(images)))
        if self.classes:
            return F.cross_entropy(out, torch.searchsorted(self.names, targets))
        return F.mse_loss(out, (targets - self.mean) / self.scale)

    @torch.no_grad()
    def predict(self, images: Shaped[Tensor, "n c h w"]) -> Tensor:
        """Of uint8 images, or floats in [0, 1], in evaluation mode whatever the module's own."""
        training = self.training
        self.eval()
        out = torch.cat([self.layer(self.encoder(to_float(part))) for part in images.split(2000)])
        self.train(training)
        return self.names[out.argmax(1)] if self.classes else out * self.scale + self.mean


def fine_tune(
    encoder: nn.Module, images: Shaped[Tensor, "n c h w"], targets: Tensor, steps: int, lr: float = 1e-3,
    batch_size: int = 32, seed: int = 0,
) -> FineTuned:  # fmt: skip
    """A copy of the encoder and a new linear layer, trained together on labelled images.

    images   uint8, or floats in [0, 1]
    targets  (n,) whole numbers, any: classes, cross entropy; (n, t) float values: mean squared error
    steps    of AdamW at a cosine rate from lr; batches of at most batch_size, drawn with replacement

    Raises ValueError for images and targets of different length.
    """
    if len(images) != len(targets):
        raise ValueError(f"targets must have one row for each of the {len(images)} images, got {len(targets)}")
    if targets.ndim != 1 + targets.is_floating_point():
        raise ValueError(f"targets must be classes (n,) or values (n, t), got {targets.dtype} {tuple(targets.shape)}")
    if not bool(torch.isfinite(targets).all()):
        raise ValueError("targets must be finite, got NaN or infinity")
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    torch.manual_seed(mixed_seed(seed, len(images)))
    model = FineTuned(copy.deepcopy(encoder), targets).to(images.device).train()
    g, steps = torch.Generator().manual_seed(seed), allowed(steps)
    drawn = torch.randint(len(images), (steps, min(batch_size, len(images))), generator=g).to(images.device)
    optim = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=1e-2)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optim, steps)
    for index in drawn:
        loss = model.loss(images[index], targets[index])
        optim.zero_grad()
        loss.backward()
        optim.step()
        rate.step()
    return model.eval()


def mean_squared_error(predicted: Float[Tensor, "n t"], wanted: Float[Tensor, "n t"]) -> float:
    """Mean squared error as a share of the targets' variance, averaged over targets: 1 is what the mean reaches."""
    if predicted.shape != wanted.shape:
        raise ValueError(f"predicted must be of the targets' shape {tuple(wanted.shape)}, got {tuple(predicted.shape)}")
    return float(((predicted - wanted).square().mean(0) / wanted.var(0, correction=0).clamp_min(1e-12)).mean())


def knn_r2(
    z: Float[Tensor, "n d"], y: Float[Tensor, "n t"], z_test: Float[Tensor, "m d"], y_test: Float[Tensor, "m t"],
    k: int = 20,
) -> float:  # fmt: skip
    """R² on the test rows of the mean target of the k nearest training rows (cosine), averaged over targets.

    Raises ValueError for a k below 1 or above the training rows.
    """
    if not 1 <= k <= len(z):
        raise ValueError(f"k must be between 1 and the {len(z)} training rows, got {k}")
    near = (unit_rows(z_test) @ unit_rows(z).T).topk(k, dim=1).indices
    return 1 - mean_squared_error(y[near].mean(1), y_test)
