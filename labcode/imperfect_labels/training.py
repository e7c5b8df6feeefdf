"""Training of stacks of small networks, and what they predict: the whole stack in one loop."""

from collections.abc import Callable
from itertools import groupby

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from ..loss import check_index, raised
from ..nets import evaluating
from ..nets.stacked import StackedLinear, StackedNorm
from ..train import History, fit


def train(
    net: nn.Module, loss: Callable[[int], Tensor], steps: int, *, lr: float = 3e-3, weight_decay: float = 1e-4,
    warmup: int | None = None, stretch: bool = True, label: str = "", **options,
) -> History:  # fmt: skip
    """Train in place by AdamW with a warm-up and a cosine, and leave the net in evaluation mode.

    net           whatever is learnt: a stack, or several modules in an ``nn.ModuleList``
    loss          ``loss(step)`` draws its own batch and returns a scalar, *summed* over the stack: see
                  ``cross_entropy``. The closure works with the net's parts as it likes
    steps         of the quick scale, 1 at least; four times as many at long scale unless ``stretch`` is False, fewer in
                  a dry run: ``labcode.train.allowed`` says how many, for a loss that has a plan over its steps
    lr            peak, > 0; ``warmup`` steps (a tenth) lead to it
    weight_decay  of the matrices; biases and norms, those of stacks too, have none
    options       of ``labcode.train.fit``: ema, checkpoint, progress, final_lr …; not clip, which ties a stack together

    Returns the history: losses, seconds, steps. Raises ValueError for what ``fit`` refuses, FloatingPointError for a
    loss that is not finite.
    """
    if options.get("clip") is not None:
        raise ValueError(f"clip must be None: one norm for all would tie the networks together, got {options['clip']}")
    if weight_decay < 0:
        raise ValueError(f"weight_decay must be at least 0, got {weight_decay}")
    vectors = set()  # a stack's biases and norms are matrices (n, width), which fit would decay
    for module in net.modules():
        if isinstance(module, StackedNorm):
            vectors |= {id(module.weight), id(module.bias)}
        elif isinstance(module, StackedLinear) and module.bias is not None:
            vectors.add(id(module.bias))

    def optimizer(groups):
        split = []
        for group in groups:
            parameters = sorted(group["params"], key=lambda p: id(p) in vectors)
            for is_vector, part in groupby(parameters, key=lambda p: id(p) in vectors):
                split.append(group | dict(params=list(part)) | (dict(weight_decay=0.0) if is_vector else {}))
        return torch.optim.AdamW(split, betas=(0.9, 0.95), fused=True)

    return fit(
        net, lambda i: {"loss": loss(i)}, lambda i: i, steps=steps, stretch=stretch, lr=lr, optimizer=optimizer,
        weight_decay=weight_decay, warmup=warmup, label=label, **options,
    )  # fmt: skip


def cross_entropy(
    logits: Float[Tensor, "n b k"], targets: Shaped[Tensor, "..."], weights: Float[Tensor, "..."] | None = None
) -> Float[Tensor, ""]:
    """Cross-entropy summed over the n networks of a stack, mean over each one's batch.

    logits   (n, b, k)
    targets  classes 0 … k - 1 as integers (n, b), or (b,) for all networks; or floating-point shares (n, b, k) or
             (b, k), whose gradient is taken too: detach pseudo-labels
    weights  of the samples, (n, b) or (b,): the mean is of weight · cross-entropy over all b, so that weights of 0 and
             1 also say how much of the batch speaks

    Half precision is computed in float32, float64 stays. An empty batch gives 0. Raises ValueError for shapes that do
    not fit and classes out of range.
    """
    if logits.ndim != 3 or not logits.is_floating_point():
        raise ValueError(f"logits must be floating point (n, b, k), got {tuple(logits.shape)} of {logits.dtype}")
    n, b, k = logits.shape
    logits = raised(logits)
    soft = targets.is_floating_point()
    shape = (b, k) if soft else (b,)
    if targets.shape != shape and targets.shape != (n, *shape):
        kind = "shares" if soft else "classes"
        raise ValueError(f"targets must be {kind} {(n, *shape)} or {shape}, got {tuple(targets.shape)}")
    if soft:
        targets = targets.to(logits.dtype)
    else:
        check_index("targets", targets, k)
        targets = targets.long()
    if weights is not None and weights.shape != (b,) and weights.shape != (n, b):
        raise ValueError(f"weights must be {(n, b)} or {(b,)}, got {tuple(weights.shape)}")
    if not b:
        return logits.sum()
    targets = targets.expand(n, *shape).reshape(n * b, *shape[1:])
    each = F.cross_entropy(logits.reshape(n * b, k), targets, reduction="none")
    if weights is not None:
        each = each * weights.to(each.dtype).expand(n, b).reshape(-1)
    return each.sum() / b


@torch.no_grad()
def predict(net: nn.Module, x: Float[Tensor, "..."], block: int = 2000) -> Float[Tensor, "n N k"]:
    """Probabilities (n, N, classes) of a stack, in evaluation mode; the net is left in the mode it was in.

    x      (N, d) for all networks, or (n, N, d)
    block  rows at a time, 1 at least; the probabilities do not depend on it

    float32 at least. Raises ValueError for a block below 1 and what the net refuses.
    """
    if block < 1:
        raise ValueError(f"block must be at least 1, got {block}")
    with evaluating(net):
        return torch.cat([raised(net(part)).softmax(-1) for part in x.split(block, -2)], 1)


def accuracies(net: nn.Module, x: Float[Tensor, "..."], y: Shaped[Tensor, "..."]) -> list[float]:
    """Each network's share of right answers, n numbers.

    x  (N, d) for all networks, or (n, N, d)
    y  classes, (N,) or (n, N)

    Raises ValueError for labels that do not fit.
    """
    found = predict(net, x).argmax(-1)
    if y.shape != found.shape and y.shape != found.shape[1:]:
        raise ValueError(f"y must be {tuple(found.shape)} or {tuple(found.shape[1:])}, got {tuple(y.shape)}")
    return (found == y).double().mean(1).tolist()
