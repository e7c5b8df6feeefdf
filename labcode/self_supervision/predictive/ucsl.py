"""UCSL: the embedding of a tracker, trained without identities by matches within and between frames.

Meng et al., "Tracking without Label: Unsupervised Multiple Object Tracking via Contrastive Similarity Learning" (2023).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ...loss import check_positive, float32, unit_rows
from ...nets import mlp

Scalar = Float[Tensor, ""]
Objects = Float[Tensor, "b k d"]
Present = Bool[Tensor, "b k"]


NOWHERE = -1e32  # in place of log 0: below any cosine over any temperature, and its gradient is 0, not NaN


@float32
def match(
    x: Float[Tensor, "b k d"], y: Float[Tensor, "b m d"], here: Bool[Tensor, "b m"] | None = None, tau: float = 0.1
) -> Float[Tensor, "b k m"]:
    """Where each object of one frame goes in another: the row softmax of cosine similarities over the objects there.

    x, y  embeddings of the objects of two frames of b videos, not normalised; zeros are unlike all alike
    here  which places of y hold an object; None is all. A frame with none gives rows of 0
    tau   temperature > 0

    Raises ValueError for embeddings that do not fit together, or tau <= 0.
    """
    return _log_match(x, y, here, tau).exp()


def _log_match(x: Tensor, y: Tensor, here: Tensor | None, tau: float, names=("x", "y", "here")) -> Tensor:
    """The logarithm of ``match``, NOWHERE where no object is: finite at any temperature, as is its gradient."""
    for name, z in zip(names, (x, y), strict=False):
        if z.ndim != 3 or not z.is_floating_point() or not z.shape[2]:
            got = f"{z.dtype} {tuple(z.shape)}"
            raise ValueError(f"{name} must hold float embeddings (videos, objects, d), got {got}")
    if x.shape[0] != y.shape[0] or x.shape[2] != y.shape[2]:
        raise ValueError(
            f"{names[1]} must be of the videos and width of {names[0]}, {tuple(x.shape)}, got {tuple(y.shape)}"
        )
    check_positive(tau=tau)
    scores = unit_rows(x) @ unit_rows(y).mT / tau
    if here is None:
        return scores.log_softmax(2)
    _places(names[2], here, y)
    away = ~here[:, None]
    return scores.masked_fill(away, 10 * NOWHERE).log_softmax(2).masked_fill(away, NOWHERE)


def _places(name: str, here: Tensor, x: Tensor) -> None:
    if here.shape != x.shape[:2] or here.dtype != torch.bool:
        raise ValueError(
            f"{name} must say which of {tuple(x.shape[:2])} places are taken, got {here.dtype} {tuple(here.shape)}"
        )


@float32
def direct_contrast(x: Float[Tensor, "b k d"], here: Bool[Tensor, "b k"], tau: float = 0.1) -> Scalar:
    """Self-contrast within a frame: every object matches itself and no other. -log softmax(S_tt / τ)_ii.

    UCSL (Meng et al., 2023), self-contrast, direct. It pushes the objects of a frame apart; any encoder that gives
    them distinct embeddings satisfies it.

    here  which places hold an object. None at all gives 0

    Raises ValueError for what does not fit together, or tau <= 0.
    """
    own = _log_match(x, x, here, tau, ("x", "x", "here")).diagonal(dim1=1, dim2=2)
    return _mean(-own, here)


@float32
def indirect_contrast(
    x: Float[Tensor, "b k d"], y: Float[Tensor, "b k d"], here: Bool[Tensor, "b k"], there: Bool[Tensor, "b k"],
    tau: float = 0.1,
) -> Scalar:  # fmt: skip
    """Self-contrast between frames: an object that goes to the next frame and back arrives at itself.

    UCSL, self-contrast, indirect, in our reading: -log (P_xy P_yx)_ii. The frames share at most min(N_x, N_y) objects,
    so only so many rows count, those with the surest round trip: an object that has gone cannot come back.

    here, there  which places of x and of y hold an object

    Raises ValueError for what does not fit together, or tau <= 0.
    """
    back, kept = _log_round_trip(x, y, here, there, tau)
    return _mean(-back, kept)


@float32
def round_trip(
    x: Float[Tensor, "b k d"], y: Float[Tensor, "b k d"], here: Bool[Tensor, "b k"], there: Bool[Tensor, "b k"],
    tau: float = 0.1,
) -> tuple[Float[Tensor, "b k"], Bool[Tensor, "b k"]]:  # fmt: skip
    """Probability that each object comes back to itself over the other frame, and which rows count."""
    back, kept = _log_round_trip(x, y, here, there, tau)
    return back.exp(), kept


def _log_round_trip(x, y, here, there, tau, names=("x", "y", "here", "there")):
    to = _log_match(x, y, there, tau, (names[0], names[1], names[3]))
    back = (to + _log_match(y, x, here, tau, (names[1], names[0], names[2])).mT).logsumexp(2)
    return back, _surest(back, here, torch.minimum(here.sum(1), there.sum(1)))


def _surest(values: Float[Tensor, "b k"], here: Present, count: Int[Tensor, " b"]) -> Present:
    """Of the objects here, so many of each video as ``count`` says, those of the largest values."""
    rank = values.detach().masked_fill(~here, -torch.inf).argsort(1, descending=True).argsort(1)
    return here & (rank < count[:, None])


@float32
def cross_contrast(
    x: Float[Tensor, "b k d"], y: Float[Tensor, "b k d"], z: Float[Tensor, "b k d"], here: Bool[Tensor, "b k"],
    there: Bool[Tensor, "b k"], later: Bool[Tensor, "b k"], tau: float = 0.1,
) -> Scalar:  # fmt: skip
    """Cross-contrast: the match over two frames agrees with the two matches one after the other.

    UCSL, cross-contrast, in our reading: -log Σ_j (P_xz)_ij (P_xy P_yz)_ij, the probability that both ways end at the
    same object. Rows count that can be in all three frames, those on which both ways agree best. Memory O(b k³).

    here, there, later  which places of x, y and z hold an object

    Raises ValueError for what does not fit together, or tau <= 0.
    """
    _places("here", here, x)
    first, second = _log_match(x, y, there, tau, ("x", "y", "there")), _log_match(y, z, later, tau, ("y", "z", "later"))
    over = (first[:, :, :, None] + second[:, None]).logsumexp(2)
    agree = (_log_match(x, z, later, tau, ("x", "z", "later")) + over).logsumexp(2)
    shared = torch.minimum(torch.minimum(here.sum(1), there.sum(1)), later.sum(1))
    return _mean(-agree, _surest(agree, here, shared))


@float32
def ambiguity_contrast(
    x: Float[Tensor, "b k d"], z: Float[Tensor, "b k d"], here: Bool[Tensor, "b k"], later: Bool[Tensor, "b k"],
    tau: float = 0.1, sure: float = 0.7,
) -> Scalar:  # fmt: skip
    """Ambiguity contrast: objects without a sure match are matched among themselves, with low entropy.

    UCSL, ambiguity contrast, in our reading: objects whose round trip is less certain than ``sure`` are left over in
    both frames; among them the entropy of the match, over the logarithm of their number, is made small. Entropy alone
    can lock in a wrong match, so start it late.

    here, later  which places of x and of z hold an object

    Raises ValueError for what does not fit together, tau <= 0 or sure <= 0.
    """
    check_positive(sure=sure)
    names = ("x", "z", "here", "later")
    doubt = here & (_log_round_trip(x, z, here, later, tau, names)[0].detach().exp() < sure)
    back = _log_round_trip(z, x, later, here, tau, ("z", "x", "later", "here"))[0]
    open_ = later & (back.detach().exp() < sure)
    log_p = _log_match(x, z, open_, tau)
    entropy = -(log_p.exp() * log_p).sum(2) / open_.sum(1).clamp_min(2).log()[:, None]
    return _mean(entropy, doubt & (open_.sum(1) > 1)[:, None])


@float32
def _supervised(
    x: Float[Tensor, "b k d"], y: Float[Tensor, "b k d"], here: Bool[Tensor, "b k"], there: Bool[Tensor, "b k"],
    tau: float = 0.1,
) -> Scalar:  # fmt: skip
    """-log softmax(S_xy / τ)_ii over the objects in both frames: place i of two frames is the same object."""
    return _mean(-_log_match(x, y, there, tau).diagonal(dim1=1, dim2=2), here & there)


def _mean(values: Float[Tensor, "b k"], kept: Bool[Tensor, "b k"]) -> Scalar:
    """The mean over what is kept, 0 where nothing is."""
    return values.masked_fill(~kept, 0).sum() / kept.sum().clamp_min(1)


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
        if views.ndim != 6 or views.shape[1] != 3:
            raise ValueError(f"views must be crops (b, 3, k, c, h, w) of three frames, got shape {tuple(views.shape)}")
        b, t, k = views.shape[:3]
        taken = views.flatten(3).amax(3) > 0
        z = self.embed(views.flatten(0, 1)).view(b, t, k, -1)
        (x, y, w), (here, there, later) = z.unbind(1), taken.unbind(1)
        tau, total = self.tau, z.new_zeros(())
        if "supervised" in self.terms:
            pairs = ((x, y, here, there), (y, w, there, later), (x, w, here, later))
            return torch.stack([_supervised(*pair, tau) for pair in pairs]).mean()
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
