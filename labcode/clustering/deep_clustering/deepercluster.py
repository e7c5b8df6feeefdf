"""DeeperCluster (Caron et al., 2019): clusters of clusters times four rotations, for images that nobody has sorted."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from ...loss import check_index, check_matrix, float32
from ...train import allowed
from ..measures import sizes
from .deepcluster import Bootstrapped, reassign, uniform_rows

Rows = Float[Tensor, "n d"]
Labels = Int[Tensor, " n"]


def hierarchy(features: Rows, m: int, k: int, seed: int = 0, dim: int = 32) -> tuple[Labels, Labels]:
    """Super-clusters 0 … m - 1 of upright images' features, and within each its own sub-clusters 0 … k/m - 1.

    DeeperCluster, section 3.2. Rotations do not take part: they multiply the classes afterwards.

    k  sub-clusters in all, a multiple of m. A super-cluster with fewer samples than k/m has as many as it can.

    Raises ValueError for k that is no multiple of m.
    """
    if m < 1 or k < m or k % m:
        raise ValueError(f"k must be a multiple of m, got {k} and {m}")
    upper = reassign(features, m, seed, dim) if m > 1 else torch.zeros(len(features), dtype=torch.int64)
    upper = upper.to(features.device)
    lower = torch.zeros_like(upper)
    for j in range(m):
        rows = (upper == j).nonzero()[:, 0]
        count = min(k // m, len(rows) // 2)
        if count > 1:
            lower[rows] = reassign(features[rows], count, seed + 1, dim)
    return upper, lower


def rotated(x: Float[Tensor, "n c s s"], turns: Int[Tensor, " n"]) -> Float[Tensor, "n c s s"]:
    """Every image turned by its number of quarter turns, counter-clockwise."""
    check_index("turns", turns, 4)
    every = torch.stack([torch.rot90(x, i, (2, 3)) for i in range(4)])
    return every[turns, torch.arange(len(x), device=x.device)]


@float32
def two_level_loss(
    z: Float[Tensor, "n d"], upper: Float[Tensor, "c d"], lower: Float[Tensor, "c m d"], above: Int[Tensor, " n"],
    below: Int[Tensor, " n"],
) -> Float[Tensor, ""]:  # fmt: skip
    """Cross entropy of the super-class, plus that of the sub-class by the head that its super-class owns.

    DeeperCluster, eq. 4, unit weights. Class c of C is a super-cluster in one rotation and has sub-clusters of its own.

    z      (n, d) features
    upper  (C, d) the super-head; lower (C, S, d) the sub-heads, one for each super-class
    above  super-class of each row, 0 … C - 1; below its sub-class, 0 … S - 1

    Raises ValueError for shapes that do not fit and for labels out of range.
    """
    check_matrix("z", z)
    check_matrix("upper", upper)
    if upper.shape[1] != z.shape[1]:
        raise ValueError(f"upper must be as wide as z, {z.shape[1]}, got {upper.shape[1]}")
    if lower.ndim != 3 or lower.shape[::2] != upper.shape or not lower.shape[1]:
        raise ValueError(f"lower must be (C, S, d) with C, d of {tuple(upper.shape)}, got {tuple(lower.shape)}")
    if not lower.is_floating_point():
        raise ValueError(f"lower must be floating point, got {lower.dtype}")
    for name, label, count in (("above", above, len(upper)), ("below", below, lower.shape[1])):
        if label.shape != z.shape[:1]:
            raise ValueError(f"{name} must hold one class a row, {len(z)}, got {tuple(label.shape)}")
        check_index(name, label, count)
    sub = torch.einsum("nd,nsd->ns", z, lower[above])
    return F.cross_entropy(z @ upper.T, above) + F.cross_entropy(sub, below)


def deepercluster(
    encoder: nn.Module, images: Tensor, m: int, k: int, *, see: Callable, embed: Callable, width: int,
    generator: Generator, rotate: bool = True, shuffled: bool = False, rounds: int = 2, steps: int = 40,
    batch_size: int = 64, lr: float = 3e-3, dim: int = 32,
) -> Bootstrapped:  # fmt: skip
    """Rounds of hierarchical clustering and of two-level training, in place.

    m, k       super-clusters and sub-clusters in all. (1, 1) with rotations is RotNet, (1, k) without is DeepCluster
    rotate     whether images are turned, and the turn is part of the super-class
    shuffled   every image has the clusters of another one for a round, of the same sizes, and its own turn: the
               ablation that keeps as many classes and takes away what they say
    see, embed, width  as in ``deepcluster``

    Images are drawn uniformly over sub-clusters; heads are new in every round. Starts from a RotNet in the paper.
    Departures: AdamW instead of SGD at 0.1; two rounds instead of a clustering every three epochs.
    """
    found = Bootstrapped(encoder)
    optim = torch.optim.AdamW(encoder.parameters(), lr=lr, weight_decay=1e-4, fused=True)
    turns, per = 4 if rotate else 1, k // m
    for turn in range(rounds):
        above, below = hierarchy(embed(encoder), m, k, turn + 1000 * (generator.initial_seed() % 1000), dim)
        if shuffled:
            order = torch.randperm(len(above), generator=generator, device=above.device)
            above, below = above[order], below[order]
        flat = above * per + below
        found.history.append(flat)
        heads = [torch.zeros(*shape, device=flat.device) for shape in ((turns * m, width), (turns * m, per, width))]
        heads = [h.normal_(0, 0.01, generator=generator).requires_grad_() for h in heads]
        classify = torch.optim.AdamW(heads, lr=lr, weight_decay=0.0, fused=True)
        encoder.train()
        losses = []
        for _ in range(allowed(steps)):
            rows = uniform_rows(flat, batch_size, k, generator=generator)
            seen, way = see(images[rows], generator), torch.zeros_like(rows)
            if rotate:
                way = torch.randint(4, (batch_size,), generator=generator, device=rows.device)
                seen = rotated(seen, way)
            loss = two_level_loss(encoder(seen), *heads, turns * above[rows] + way, below[rows])
            for o in (optim, classify):
                o.zero_grad(set_to_none=True)
            loss.backward()
            for o in (optim, classify):
                o.step()
            losses.append(loss.detach())
        found.losses.append(float(torch.stack(losses).mean()))
    encoder.eval()
    return found


def largest_share(labels: Labels, k: int) -> float:
    """Share of the samples that lie in the largest cluster: 1 where all do."""
    return float(sizes(labels, k).max() / max(1, len(labels)))
