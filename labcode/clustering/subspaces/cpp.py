"""CPP (Chu et al., 2024): rate reduction on pretrained features, and the number of clusters by coding length."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...cluster import kmeans
from ...loss import check_matrix, unit_rows
from ..spectral import spectral_vectors
from .coding_rate import coding_length, coding_rate
from .mlc import TwoHeads, learn_heads, mlc

Rows = Float[Tensor, "n d"]


def learn_cpp(
    x: Rows, seed: int, *, warm: int = 30, steps: int = 100, eps2: float = 0.1, eta: float = 0.175,
    gamma: float = 0.025, **options,
) -> TwoHeads:  # fmt: skip
    """Two heads on frozen features: first the total rate alone, then one copy of the head, then rate reduction.

    Section 3.2 and the released code: no views, no cluster number. Without warm-up (0) the head is copied at the start.

    gamma    γ of ‖Π‖² / n, here a mean over rows so that it does not depend on the batch
    options  of ``learn_heads``: dim, width, batch_size, lr

    Departure: AdamW for SGD.
    """
    views = x[None]
    model = learn_heads(views, lambda z, c: -coding_rate(z, eps2), seed, steps=warm, **options) if warm else None
    if model is None:
        torch.manual_seed(1000 + seed)
        kept = {k: options[k] for k in ("width", "dim") if k in options}
        model = TwoHeads(x.shape[1], **kept).to(x.device)
    model.copy_head()
    loss = lambda z, c: mlc(z, c, eps2, eta, gamma / len(z))  # noqa: E731
    return learn_heads(views, loss, seed, steps=steps, start=model, **options)


def lengths_by_k(
    z: Rows, affinity: Float[Tensor, "n n"], candidates: Sequence[int], eps2: float = 0.1, seed: int = 0
) -> tuple[list[float], list[Int[Tensor, " n"]]]:
    """For each number of clusters the coding length of Z in that many spectral clusters, nats a row, and the clusters.

    Section 3.3, algorithm 2: training needs no K, and the K of the shortest code is the estimate. The eigenvectors of
    the affinity are made once, for the largest K.

    Raises ValueError for candidates outside 1 … n.
    """
    check_matrix("z", z)
    if not candidates or min(candidates) < 1 or max(candidates) > len(z):
        raise ValueError(f"candidates must lie between 1 and the {len(z)} rows of z, got {list(candidates)}")
    vectors = spectral_vectors(affinity, max(candidates))
    found = [kmeans(unit_rows(vectors[:, :k]), k, seed)[1] for k in candidates]
    return [coding_length(unit_rows(z), labels, eps2) / len(z) for labels in found], found


def retrieval_precision(z: Rows, labels: Int[Tensor, " n"], k: int = 8) -> float:
    """Share of the k nearest others by cosine that have the query's label: image-to-image search, in [0, 1]."""
    from .tldr import nearest_neighbours

    return float((labels[nearest_neighbours(z, k)] == labels[:, None]).double().mean())
