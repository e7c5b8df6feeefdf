"""UCSL: the embedding of a tracker, trained without identities by matches within and between frames.

Meng et al., "Tracking without Label: Unsupervised Multiple Object Tracking via Contrastive Similarity Learning" (2023).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ...loss import check_positive, float32
from ...nets import mlp

Scalar = Float[Tensor, ""]
Objects = Float[Tensor, "b k d"]
Present = Bool[Tensor, "b k"]


@float32
def match(
    x: Float[Tensor, "b k d"], y: Float[Tensor, "b m d"], here: Bool[Tensor, "b m"] | None = None, tau: float = 0.1
) -> Float[Tensor, "b k m"]:
    """Where each object of one frame goes in another: the row softmax of cosine similarities over the objects there.

    x, y  embeddings of the objects of two frames of b videos, not normalised
    here  which places of y hold an object; None is all. A frame with none gives rows of 0
    tau   temperature > 0

    Raises ValueError for embeddings that do not fit together, or tau <= 0.
    """
    for name, z in (("x", x), ("y", y)):
        if z.ndim != 3 or not z.is_floating_point() or not z.shape[2]:
            raise ValueError(f"{name} must hold float embeddings (videos, objects, d), got shape {tuple(z.shape)}")
    if x.shape[0] != y.shape[0] or x.shape[2] != y.shape[2]:
        raise ValueError(f"y must be of the videos and width of x, {tuple(x.shape)}, got {tuple(y.shape)}")
    check_positive(tau=tau)
    scores = F.normalize(x, dim=2) @ F.normalize(y, dim=2).mT / tau
    if here is None:
        return scores.softmax(2)
    if here.shape != y.shape[:2]:
        raise ValueError(f"here must say which of {tuple(y.shape[:2])} places are taken, got {tuple(here.shape)}")
    scores = scores.masked_fill(~here[:, None], -1e4)
    return scores.softmax(2) * here[:, None]


def direct_contrast(x: Objects, here: Present, tau: float = 0.1) -> Scalar:
    """Self-contrast within a frame: every object matches itself and no other. -log softmax(S_tt / τ)_ii.

    UCSL (Meng et al., 2023), self-contrast, direct. It pushes the objects of a frame apart; any encoder that gives
    them distinct embeddings satisfies it.
    """
    own = match(x, x, here, tau).diagonal(dim1=1, dim2=2)
    return _mean(-own.clamp_min(1e-8).log(), here)


def indirect_contrast(x: Objects, y: Objects, here: Present, there: Present, tau: float = 0.1) -> Scalar:
    """Self-contrast between frames: an object that goes to the next frame and back arrives at itself.

    UCSL, self-contrast, indirect, in our reading: -log (P_xy P_yx)_ii. The frames share at most min(N_x, N_y) objects,
    so only so many rows count, those with the surest round trip: an object that has gone cannot come back.
    """
    back, kept = round_trip(x, y, here, there, tau)
    return _mean(-back.clamp_min(1e-8).log(), kept)


def round_trip(
    x: Objects, y: Objects, here: Present, there: Present, tau: float = 0.1
) -> tuple[Float[Tensor, "b k"], Bool[Tensor, "b k"]]:
    """Probability that each object comes back to itself over the other frame, and which rows count."""
    back = (match(x, y, there, tau) * match(y, x, here, tau).mT).sum(2)
    shared = torch.minimum(here.sum(1), there.sum(1))[:, None]
    rank = back.detach().masked_fill(~here, -1).argsort(1, descending=True).argsort(1)
    return back, here & (rank < shared)


def cross_contrast(
    x: Objects, y: Objects, z: Objects, here: Present, there: Present, later: Present, tau: float = 0.1
) -> Scalar:
    """Cross-contrast: the match over two frames agrees with the two matches one after the other.

    UCSL, cross-contrast, in our reading: -log Σ_j (P_xz)_ij (P_xy P_yz)_ij, the probability that both ways end at the
    same object. Rows count that can be in all three frames, those on which both ways agree best.
    """
    straight = match(x, z, later, tau)
    over = match(x, y, there, tau) @ match(y, z, later, tau)
    agree = (straight * over).sum(2)
    shared = torch.minimum(torch.minimum(here.sum(1), there.sum(1)), later.sum(1))[:, None]
    rank = agree.detach().masked_fill(~here, -1).argsort(1, descending=True).argsort(1)
    return _mean(-agree.clamp_min(1e-8).log(), here & (rank < shared))


def ambiguity_contrast(
    x: Objects, z: Objects, here: Present, later: Present, tau: float = 0.1, sure: float = 0.7
) -> Scalar:
    """Ambiguity contrast: objects without a sure match are matched among themselves, with low entropy.

    UCSL, ambiguity contrast, in our reading: objects whose round trip is less certain than ``sure`` are left over in
    both frames; among them the entropy of the match, over the logarithm of their number, is made small. Entropy alone
    can lock in a wrong match, so start it late.
    """
    check_positive(sure=sure)
    doubt = here & (round_trip(x, z, here, later, tau)[0].detach() < sure)
    open_ = later & (round_trip(z, x, later, here, tau)[0].detach() < sure)
    p = match(x, z, open_, tau)
    entropy = -(p * p.clamp_min(1e-8).log()).sum(2) / open_.sum(1).clamp_min(2).log()[:, None]
    return _mean(entropy, doubt & (open_.sum(1) > 1)[:, None])


def _mean(values: Float[Tensor, "b k"], kept: Bool[Tensor, "b k"]) -> Scalar:
    """The mean over what is kept, 0 where nothing is."""
    return (values * kept).sum() / kept.sum().clamp_min(1)


class UCSL(nn.Module):
    """An embedding of object crops, trained on three frames at a time with the given terms.

    terms       some of "direct", "indirect", "cross", "ambiguity"; or ("supervised",): the cross entropy of the match
                with the true identities, which are the objects' places
    late        share of the training after which the ambiguity term begins

    ``views`` are crops (b, 3, k, c, h, w) of three frames; a place that holds no object is all zero. The terms never
    use that place i of two frames is the same object: they do not change when a frame's places are shuffled.
    """

    def __init__(
        self, encoder: nn.Module, terms: Sequence[str], steps: int, dim: int = 32, tau: float = 0.1, late: float = 0.5
    ):
        super().__init__()
        known = {"direct", "indirect", "cross", "ambiguity", "supervised"}
        if not terms or set(terms) - known:
            raise ValueError(f"terms must be some of {sorted(known)}, got {terms}")
        self.encoder, self.head, self.terms = encoder, mlp([encoder.features, dim]), tuple(terms)
        self.steps, self.tau, self.late, self.seen = steps, tau, late, 0

    def embed(self, crops: Float[Tensor, "b k c h w"]) -> Objects:
        return self.head(self.encoder(crops.flatten(0, 1))).view(*crops.shape[:2], -1)

    def forward(self, views: Float[Tensor, "b t k c h w"], index: Int[Tensor, " b"]) -> Scalar:
        b, t, k = views.shape[:3]
        taken = views.flatten(3).amax(3) > 0
        z = self.embed(views.flatten(0, 1)).view(b, t, k, -1)
        (x, y, w), (here, there, later) = z.unbind(1), taken.unbind(1)
        tau, total = self.tau, z.new_zeros(())
        if "supervised" in self.terms:
            pairs = ((x, y, here, there), (y, w, there, later), (x, w, here, later))
            own = [(match(p, q, there_, tau).diagonal(dim1=1, dim2=2), here_ & there_) for p, q, here_, there_ in pairs]
            return torch.stack([_mean(-p.clamp_min(1e-8).log(), kept) for p, kept in own]).mean()
        if "direct" in self.terms:
            total = total + direct_contrast(z.flatten(0, 1), taken.flatten(0, 1), tau)
        if "indirect" in self.terms:
            total = total + (indirect_contrast(x, y, here, there, tau) + indirect_contrast(y, w, there, later, tau)) / 2
        if "cross" in self.terms:
            total = total + cross_contrast(x, y, w, here, there, later, tau)
        if "ambiguity" in self.terms and self.seen >= self.late * self.steps:
            total = total + ambiguity_contrast(x, w, here, later, tau)
        self.seen += self.training
        return total
