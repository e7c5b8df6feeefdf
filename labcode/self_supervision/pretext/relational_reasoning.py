"""Relational reasoning (Patacchiola and Storkey, 2020): a small network says whether two features are of one image."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Generator, Tensor, nn

from ... import augment
from ...loss import float32, unit_rows
from ...nets import mlp

Copies = Float[Tensor, "m c h w"]
Scalar = Float[Tensor, ""]


def relation_pairs(m: int, k: int, device="cpu") -> tuple[Int[Tensor, " p"], Int[Tensor, " p"], Bool[Tensor, " p"]]:
    """Which rows of k stacked copies of m images are compared: left, right, and whether they show the same image.

    Relational reasoning (Patacchiola and Storkey, 2020), section 3: for every pair of copies a < b the m positives
    (z_a(i), z_b(i)) and as many negatives (z_a(i), z_b(i + shift)). The shift goes through 1 … m-1 and starts again, so
    that it is never 0. In all m·k·(k-1) pairs, half of them positive.

    Raises ValueError for m < 2, as one image has no other to be told from, and for k < 2.
    """
    if m < 2 or k < 2:
        raise ValueError(f"m and k must be at least 2: images to tell apart and views to tell as one, got {m} and {k}")
    a, b = torch.triu_indices(k, k, 1, device=device)[:, :, None]
    image = torch.arange(m, device=device)
    shift = 1 + torch.arange(len(a), device=device)[:, None] % (m - 1)
    left = (a * m + image).flatten()
    right = [(b * m + other).flatten() for other in (image, (image + shift) % m)]
    return left.repeat(2), torch.cat(right), torch.arange(2 * len(left), device=device) < len(left)


@float32
def relation_loss(scores: Float[Tensor, " n"], same: Bool[Tensor, " n"], gamma: float = 2.0) -> Scalar:
    """Binary cross entropy of "the same image?", pairs that are already clear counting less.

    Relational reasoning, section 3.2, with the authors' focal weight: the mean of ½ (1 - p)^γ (-log p), p the
    probability of the right answer. gamma >= 0; at 0 it is half the plain binary cross entropy.

    Raises ValueError for an empty batch, unlike shapes, gamma < 0.
    """
    if scores.ndim != 1 or not len(scores) or not scores.dtype.is_floating_point:
        raise ValueError(f"scores must be a floating-point vector (n,), got {scores.dtype} {tuple(scores.shape)}")
    if same.shape != scores.shape or same.dtype != torch.bool:
        raise ValueError(f"same must be bool {tuple(scores.shape)} like scores, got {same.dtype} {tuple(same.shape)}")
    if not 0 <= gamma < float("inf"):
        raise ValueError(f"gamma must be at least 0, got {gamma}")
    right = torch.where(same, scores, -scores)
    return -(0.5 * (gamma * F.logsigmoid(-right)).exp() * F.logsigmoid(right)).mean()  # (1 - p)^γ in the logarithm


def steady_views(
    x: Shaped[Tensor, "n 3 h w"], generator: Generator, views: int = 2, strength: float = 0.25
) -> Float[Tensor, "{views}*n 3 h w"]:
    """Views of the course's scenes whose colours do not turn: from ground to ink it stays the same way round.

    Contrast and mean of each channel change within ±strength; turned by at most 8°, moved by 5 %, scaled by 12 %. A
    comparison that has to be learnt gets going on them. Row i + v·n is view v of image i. Not clamped.
    """
    x = augment.to_float(x).repeat(views, 1, 1, 1)
    x = augment.affine(x, 8, 0.05, (0.88, 1.12), padding="reflection", generator=generator)
    draw = lambda: strength * (2 * torch.rand(*x.shape[:2], 1, 1, generator=generator, device=x.device) - 1)  # noqa: E731
    mean = x.mean((2, 3), keepdim=True)
    return augment.noise((x - mean) * (1 + draw()) + mean + draw(), 0.03, generator=generator)


class RelationHead(nn.Module):
    """Linear, BatchNorm, LeakyReLU, Linear on concatenated pairs; the pairs are never concatenated.

    W [u, v] = W₁ u + W₂ v, so the first layer works on each of the m·k features once, not on their m·k·(k-1) pairs.
    """

    def __init__(self, features: int, hidden: int = 256):
        super().__init__()
        self.left, self.right = nn.Linear(features, hidden), nn.Linear(features, hidden, bias=False)
        self.rest = nn.Sequential(nn.BatchNorm1d(hidden), nn.LeakyReLU(), nn.Linear(hidden, 1))

    def forward(
        self, h: Float[Tensor, "n d"], left: Int[Tensor, " p"], right: Int[Tensor, " p"]
    ) -> Float[Tensor, " p"]:
        return self.rest(self.left(h)[left] + self.right(h)[right])[:, 0]


class DotHead(nn.Module):
    """The rival: a projection and a scaled cosine in place of the network that compares."""

    def __init__(self, features: int, dim: int = 128):
        super().__init__()
        self.project = mlp([features, features, dim])
        self.scale, self.shift = nn.Parameter(torch.tensor(5.0)), nn.Parameter(torch.tensor(-2.0))

    def forward(
        self, h: Float[Tensor, "n d"], left: Int[Tensor, " p"], right: Int[Tensor, " p"]
    ) -> Float[Tensor, " p"]:
        z = unit_rows(self.project(h))
        return self.scale * (z[left] * z[right]).sum(1) + self.shift


class Relational(nn.Module):
    """Do two features come from the same image? Any number k of views a batch, as many as ``views`` holds.

    head   of the comparison: "relation" or "dot"
    gamma  of the focal weight
    """

    def __init__(self, encoder: nn.Module, head: str = "relation", gamma: float = 2.0):
        super().__init__()
        if head not in ("relation", "dot"):
            raise ValueError(f"head must be 'relation' or 'dot', got {head!r}")
        self.encoder, self.gamma = encoder, gamma
        self.head = (RelationHead if head == "relation" else DotHead)(encoder.features)

    def forward(self, views: Copies, index: Int[Tensor, " n"]) -> Scalar:
        left, right, same = relation_pairs(len(index), len(views) // len(index), views.device)
        return relation_loss(self.head(self.encoder(views), left, right), same, self.gamma)
