"""The encoders that the tasks run on: plain classification of the base classes, and an episodic rival."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ...nets import evaluating
from ...train import fit

Classes = Float[Tensor, "c m ch h w"]


def base_training(
    make, images: Classes, seed: int, *, steps: int, batch_size: int = 128, lr: float = 4e-3, smoothing: float = 0.1,
    views=None,
) -> nn.Module:  # fmt: skip
    """An encoder trained to tell the base classes apart by cross entropy with label smoothing; returned without head.

    make       ``make()`` -> encoder with ``features``
    images     (classes, per class, channels, h, w)
    views      ``views(images, generator)`` distorts a batch, or None
    """
    torch.manual_seed(seed)
    encoder = make()
    device, c = images.device, len(images)
    head, g = nn.Linear(encoder.features, c).to(device), torch.Generator(device).manual_seed(seed)
    model = nn.ModuleDict(dict(encoder=encoder, head=head)).to(device)
    flat, y = images.flatten(0, 1), torch.arange(c, device=device).repeat_interleave(images.shape[1])

    def step(index):
        x = flat[index] if views is None else views(flat[index], g)
        return {"loss": F.cross_entropy(head(encoder(x)), y[index], label_smoothing=smoothing)}

    batches = lambda i: torch.randint(len(flat), (batch_size,), generator=g, device=device)  # noqa: E731
    fit(model, step, batches, steps=steps, lr=lr, generators=[g], label=f"base training, seed {seed}")
    return encoder.eval()


def episodic_training(
    make, images: Classes, seed: int, *, steps: int, ways: int = 20, shots: int = 1, queries: int = 5, lr: float = 4e-3,
    scale: float = 1.0,
) -> nn.Module:  # fmt: skip
    """A prototypical network (Snell et al., 2017): each step is a task of the base classes.

    ways, shots, queries  of a training task, queries a class; as many images a step as ways · (shots + queries)
    scale                 of the squared distances, over the number of features
    """
    torch.manual_seed(seed)
    encoder = make()
    device, g = images.device, torch.Generator(images.device).manual_seed(seed)
    encoder = encoder.to(device)

    def step(classes):
        rows = torch.rand(ways, images.shape[1], generator=g, device=device).argsort(1)[:, : shots + queries]
        z = encoder(images[classes[:, None], rows].flatten(0, 1)).view(ways, shots + queries, -1)
        distance = torch.cdist(z[:, shots:].flatten(0, 1), z[:, :shots].mean(1)).square()
        wanted = torch.arange(ways, device=device).repeat_interleave(queries)
        return {"loss": F.cross_entropy(-scale * distance / z.shape[2], wanted)}

    batches = lambda i: torch.randperm(len(images), generator=g, device=device)[:ways]  # noqa: E731
    fit(encoder, step, batches, steps=steps, lr=lr, generators=[g], label=f"episodic training, seed {seed}")
    return encoder.eval()


@torch.no_grad()
def embed(encoder: nn.Module, images: Classes, chunk: int = 2000) -> Float[Tensor, "c m d"]:
    """Features of every image of every class, in evaluation mode."""
    with evaluating(encoder):
        z = torch.cat([encoder(part) for part in images.flatten(0, 1).split(chunk)])
    return z.view(*images.shape[:2], -1).float()
