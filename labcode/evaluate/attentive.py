"""Reading frozen tokens: a probe that may choose where to look."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..data import shuffled
from ..train import fit

Tokens = Float[Tensor, "n k d"]


class AttentiveProbe(nn.Module):
    """A classifier on frozen tokens: a learned query attends to them, a linear layer reads what it found.

    AIM (El-Nouby et al., 2024), section 3.3: BatchNorm without parameters, one query, keys and values by one linear
    layer each, a linear classifier. Unlike a mean over tokens it may choose where to look.
    """

    def __init__(self, width: int, classes: int, heads: int = 4):
        super().__init__()
        if width % heads:
            raise ValueError(f"heads must divide the width {width}, got {heads}")
        self.norm = nn.BatchNorm1d(width, affine=False)
        self.query = nn.Parameter(0.02 * torch.randn(heads, width // heads))
        self.kv = nn.Linear(width, 2 * width, bias=False)
        self.head = nn.Linear(width, classes)

    def forward(self, tokens: Tokens) -> Float[Tensor, "n classes"]:
        k, v = self.kv(self.norm(tokens.flatten(0, 1)).view_as(tokens)).chunk(2, -1)
        k, v = (part.unflatten(2, (len(self.query), -1)).transpose(1, 2) for part in (k, v))
        query = self.query[None, :, None].expand(len(tokens), -1, -1, -1)
        return self.head(F.scaled_dot_product_attention(query, k, v).transpose(1, 2).flatten(1))


def attentive_probe(
    train: Tokens, train_y: Int[Tensor, " n"], test: Float[Tensor, "m k d"], test_y: Int[Tensor, " m"], *,
    classes: int | None = None, heads: int = 4, steps: int = 200, batch_size: int = 256, lr: float = 5e-3,
    weight_decay: float = 0.05, seed: int = 0,
) -> float:  # fmt: skip
    """Test accuracy, in [0, 1], of an ``AttentiveProbe`` trained on frozen tokens; the last step counts.

    AdamW with a cosine; batches and weights are drawn from the seed. Tokens of any precision are read in float32.

    train_y, test_y  any integers; a test label that no training token has counts as wrong
    classes          how many the probe tells apart, if more than the training labels have

    Raises ValueError for tokens that do not fit together or are not finite, for labels that are not one a row, and for
    fewer ``classes`` than there are.
    """
    if train.ndim != 3 or test.ndim != 3 or train.shape[1:] != test.shape[1:] or not len(train) or not len(test):
        raise ValueError(
            f"train and test must be tokens (n, k, d) of one k and d, got {tuple(train.shape)} and {tuple(test.shape)}"
        )
    for name, x, y in (("train", train, train_y), ("test", test, test_y)):
        if y.shape != x.shape[:1] or y.is_floating_point():
            raise ValueError(f"{name}_y must be {len(x)} integers, got {y.dtype} {tuple(y.shape)}")
        if not bool(torch.isfinite(x).all()):
            raise ValueError(f"{name} must be finite, got NaN or infinity")
    known, train_y = train_y.unique(return_inverse=True)
    classes = len(known) if classes is None else classes
    if classes < len(known):
        raise ValueError(f"classes must be at least {len(known)}, the number of training labels, got {classes}")
    with torch.random.fork_rng([train.device] if train.is_cuda else []):
        torch.manual_seed(seed)
        probe = AttentiveProbe(train.shape[2], classes, heads).to(train.device)
    train, test = train.detach().float(), test.detach().float()

    def step(index: Tensor) -> dict[str, Tensor]:
        return {"loss": F.cross_entropy(probe(train[index]), train_y[index])}

    batches = shuffled(len(train), min(batch_size, len(train)), seed, train.device)
    fit(probe, step, batches, steps=steps, lr=lr, weight_decay=weight_decay, progress=False, stretch=False)
    with torch.no_grad():
        best = torch.cat([probe(part)[:, : len(known)].argmax(1) for part in test.split(2048)])
    return (known[best] == test_y).float().mean().item()
