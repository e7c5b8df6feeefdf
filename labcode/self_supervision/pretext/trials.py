"""What LoRot (Moon and Kim et al., 2022) tries its classifiers with: jigsaws, diversity, attacks, what a step costs.

Each takes trained networks as they are; nothing here trains.
"""

import time
from collections.abc import Callable
from itertools import permutations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ...loss import check_index
from ..contrastive.jigsaw import tiled
from .classifier import Classifier
from .turning import Images, Labels, Turned


def shuffle_quarters(x: Images, label: Labels | None = None) -> Turned:
    """A jigsaw as second task: the image's four quarters in one of 24 orders, which is the label, 0 … 23.

    Noroozi and Favaro (2016), with four tiles read as one picture. ``tiled`` says which quarter goes where; order 0
    leaves the image alone.

    label  drawn evenly if None

    Raises ValueError for odd sides, and on a CPU for labels out of range.
    """
    orders = torch.tensor(list(permutations(range(4))), device=x.device)
    label = torch.randint(len(orders), x.shape[:1], device=x.device) if label is None else label
    check_index("label", label, len(orders))
    return tiled(x, orders[label]), label


@torch.no_grad()
def class_loss(classifier: Classifier, x: Images, y: Labels, task: Callable[[Images], Turned] | None = None) -> float:
    """Cross entropy of the classes on images, as they are or as a task transforms them."""
    return float(F.cross_entropy(classifier.scores(x if task is None else task(x)[0]), y))


def diversity(
    taught: Classifier, plain: Classifier, x: Images, y: Labels, task: Callable[[Images], Turned] | None = None
) -> float:
    """Training loss with a task over training loss without: how much more a task gives a network to learn.

    Gontijo-Lopes et al. (2021), whom LoRot follows. ``taught`` has met ``task`` in its training and is asked about
    images that it transforms; ``plain`` never met it and is asked about the same images as they are. 1 for a task that
    changes nothing; undefined, and large, where plain has learnt its images by heart.

    x, y  training images with their own classes
    """
    return class_loss(taught, x, y, task) / max(class_loss(plain, x, y), 1e-12)


def attacked(
    scores: Callable[[Images], Float[Tensor, "n c"]], x: Images, y: Labels, size: float, steps: int = 5
) -> Images:
    """Images in [0, 1] moved by at most ``size`` a value to raise the loss: projected gradient descent.

    Madry et al. (2018): x ← clip(x + α sign ∇CE), α = 2.5 size/steps, from x itself; each step is brought back to the
    box around x and to [0, 1]. The network's own parameters get no gradient.

    Raises ValueError for a negative size or less than one step.
    """
    if size < 0 or steps < 1:
        raise ValueError(f"size must be at least 0 and steps at least 1, got {size} and {steps}")
    low, high, moved = (x - size).clamp(0, 1), (x + size).clamp(0, 1), x.clone()
    for _ in range(steps):
        moved.requires_grad_()
        (slope,) = torch.autograd.grad(F.cross_entropy(scores(moved), y, reduction="sum"), moved)
        moved = torch.minimum(torch.maximum(moved.detach() + 2.5 * size / steps * slope.sign(), low), high)
    return moved


def step_cost(method: nn.Module, views: Float[Tensor, "m c h w"], index: Labels, repeats: int = 5) -> tuple[int, float]:
    """What one training step of a method costs: images that go through its encoder, and seconds there and back.

    The shortest of ``repeats`` steps counts, of the processor's own time; mode, statistics, gradients and torch's
    random numbers are left as they were.
    """
    seen: list[int] = []
    hook = method.encoder.register_forward_hook(lambda net, given, made: seen.append(len(given[0])))
    kept, mode, spent = {k: v.clone() for k, v in method.state_dict().items()}, method.training, []
    with torch.random.fork_rng([views.device] if views.is_cuda else []):
        for _ in range(repeats):
            begun = time.process_time()
            torch.autograd.grad(method.train()(views, index), [*method.encoder.parameters()], allow_unused=True)
            spent.append(time.process_time() - begun)
    hook.remove()
    method.load_state_dict(kept)
    method.train(mode)
    return sum(seen) // repeats, min(spent)
