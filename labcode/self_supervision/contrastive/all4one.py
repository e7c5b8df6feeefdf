"""All4One: neighbours from a queue, a centroid of them, and a contrast of features (Estepa et al., 2023)."""

import copy

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...loss import check_matrix, check_positive, float32, unit_rows
from ...nets import mlp
from ...pairwise import off_diagonal
from .invariance_propagation import nearest


@float32
def neighbour_contrast(
    targets: Float[Tensor, "n d"], p: Float[Tensor, "n d"], tau: float = 0.2
) -> Float[Tensor, ""]:
    """Cross entropy of finding, for each target, the prediction of the same image among the batch's.

    NNCLR (Dwibedi et al., 2021), eq. 3, and All4One (Estepa et al., 2023), eq. 1: the mean over i of
    -log[exp(t_i·p_i / τ) / Σ_j exp(t_i·p_j / τ)], rows brought to unit length.

    targets  neighbours of one view's keys, or centroids; the gradient goes through if there is one
    p        predictions from the other view

    At least 0, and 0 for a single image, which finds itself. Raises ValueError for unlike shapes, no row or tau <= 0.
    """
    check_matrix("targets", targets)
    check_matrix("p", p, like=targets)
    check_positive(tau=tau)
    logits = unit_rows(targets) @ unit_rows(p).T / tau
    return F.cross_entropy(logits, torch.arange(len(p), device=p.device))


@float32
def feature_contrast(keys: Float[Tensor, "two_n d"], z: Float[Tensor, "two_n d"]) -> Float[Tensor, ""]:
    """Feature contrast: the cross-correlation of features over the batch should be the identity.

    All4One (Estepa et al., 2023), section 3.3, as released: C = keys_1ᵀ z_2, columns of unit length over the batch
    and **not** centred, unlike Barlow Twins; 10 · (½ rms(diag C - 1) + ½ rms(off-diagonal C)), root mean squares
    over both directions.

    keys  momentum projections of both views, stacked; no gradient
    z     online projections, likewise; n >= 2, d >= 2

    In [0, 15]. Raises ValueError for an odd number of rows, n < 2 or d < 2.
    """
    check_matrix("keys", keys, rows=4, even=True)
    check_matrix("z", z, like=keys)
    n, d = len(z) // 2, z.shape[1]
    if d < 2:
        raise ValueError(f"z must have at least 2 columns, got {d}")
    unit = lambda x: unit_rows(x.view(2, n, d), 1)  # noqa: E731
    c = unit(keys.detach()).flip(0).transpose(1, 2) @ unit(z)
    diagonal = c.diagonal(dim1=1, dim2=2)
    off = off_diagonal(c)
    tiny = torch.finfo(z.dtype).tiny  # the root's slope at 0 is infinite
    return 5 * ((diagonal - 1).square().mean() + tiny).sqrt() + 5 * (off.square().mean() + tiny).sqrt()


def shifted(query: Float[Tensor, "n d"], sequence: Float[Tensor, "n k d"]) -> Float[Tensor, "n k d"]:
    """The query in front, the neighbours moved back one place, the last one dropped: All4One's shift."""
    return torch.cat([query[:, None].to(sequence.dtype), sequence[:, :-1]], 1)


class Centroid(nn.Module):
    """One vector for a short sequence of neighbours: self-attention, read off at the first place; or the mean.

    dim     width, divisible by ``heads``
    pool    "attention" or "mean"
    layers, heads   3 and 8 in the paper; feed-forward 2·dim, dropout 0.1

    What is added to tell the places apart is the released code's, whose axes are exchanged: a wave along the *features*
    for each place, sin or cos of one of three frequencies, in place of the usual sinusoids along the places.
    """

    def __init__(self, dim: int, pool: str = "attention", layers: int = 1, heads: int = 2, places: int = 5):
        super().__init__()
        if pool not in ("attention", "mean"):
            raise ValueError(f"pool must be 'attention' or 'mean', got {pool!r}")
        if dim % heads:
            raise ValueError(f"dim must be divisible by heads={heads}, got {dim}")
        layer = nn.TransformerEncoderLayer(dim, heads, 2 * dim, dropout=0.1, batch_first=True)
        stack = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.body = stack if pool == "attention" else None
        even = places + places % 2
        angle = torch.arange(dim) / 10000 ** (torch.arange(0, even, 2)[:, None] / even)
        waves = torch.stack([angle.sin(), angle.cos()], 1).flatten(0, 1)[:places]  # (places, dim)
        self.register_buffer("places", waves, persistent=False)

    def forward(self, sequence: Float[Tensor, "n k d"]) -> Float[Tensor, "n d"]:
        if self.body is None:
            return sequence.mean(1)
        return self.body(sequence + self.places[: sequence.shape[1]])[:, 0]


class All4One(nn.Module):
    """Neighbours from a queue of momentum keys; three contrasts: neighbour, centroid, feature.

    weights   of (neighbour, centroid, feature); 0.5 each as released; (0.5, 0, 0) is NNCLR with a momentum encoder
    pool      "attention" or "mean": what makes the centroid
    queue     rows of the queue, a multiple of no particular batch; random unit rows at first
    k         neighbours a key; the neighbour contrast uses the nearest alone
    momentum  of the key network
    hidden    width of the hidden layers: two in the projector, which ends in a BatchNorm, one in either predictor

    Networks and losses are the released code's. Departures: the transformer trains at the rate of the rest (there at
    0.1, whatever the rest has), and the keys follow before they are made, not after the step.

    Buffers ``queue`` (rows, dim), ``origin`` (rows,) the image of each row, -1 at first, and ``pointer``.
    """

    def __init__(
        self, encoder: nn.Module, dim: int = 64, weights: tuple[float, float, float] = (0.5, 0.5, 0.5),
        pool: str = "attention", queue: int = 1024, k: int = 5, tau: float = 0.2, centroid_tau: float = 0.1,
        momentum: float = 0.99, hidden: int = 256, layers: int = 1, heads: int = 2,
    ):  # fmt: skip
        super().__init__()
        self.encoder, self.weights, self.k, self.momentum = encoder, weights, k, momentum
        self.tau, self.centroid_tau = tau, centroid_tau
        self.projector = nn.Sequential(*mlp([encoder.features, hidden, hidden, dim]), nn.BatchNorm1d(dim))
        self.predictor, self.query = mlp([dim, hidden, dim]), mlp([dim, hidden, dim])
        self.centroid = Centroid(dim, pool, layers, heads, places=k)
        self.keys = copy.deepcopy(nn.Sequential(encoder, self.projector)).requires_grad_(False)
        self.register_buffer("queue", unit_rows(torch.randn(queue, dim)))
        self.register_buffer("origin", torch.full((queue,), -1))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))

    def forward(self, views: Float[Tensor, "two_n c h w"], index: Int[Tensor, "n"]) -> Float[Tensor, ""]:
        neighbour, centroid, feature = self.terms(views, index)
        a, b, c = self.weights
        return a * neighbour + b * centroid + c * feature

    def terms(self, views: Float[Tensor, "two_n c h w"], index: Int[Tensor, "n"]) -> tuple[Tensor, Tensor, Tensor]:
        """The three losses, each symmetric in the views; one with weight 0 is not computed. Steps the queue."""
        n = len(index)
        z = self.projector(self.encoder(views))
        with torch.no_grad():
            if self.training:
                self.follow()
            keys = self.keyed(views)
            found = self.queue[nearest(keys, self.queue, self.k)]  # before this batch's keys go in
        p, nothing = self.predictor(z), z.new_zeros(())
        both = lambda f, a, b: (f(a[:n], b[n:]) + f(a[n:], b[:n])) / 2  # noqa: E731
        neighbour = both(lambda a, b: neighbour_contrast(a, b, self.tau), found[:, 0], p)
        centroid = feature = nothing
        if self.weights[1]:
            ours, other = self.centroid(found), self.centroid(shifted(self.query(z), found))
            centroid = both(lambda a, b: neighbour_contrast(a, b, self.centroid_tau), ours, other)
        if self.weights[2]:
            feature = feature_contrast(keys, z)
        if self.training:
            self.enqueue(keys[:n], index)
        return neighbour, centroid, feature

    @torch.no_grad()
    def keyed(self, views: Float[Tensor, "m c h w"]) -> Float[Tensor, "m d"]:
        """Unit momentum projections."""
        return unit_rows(self.keys(views))

    @torch.no_grad()
    def follow(self) -> None:
        """The key network's weights: key ← momentum · key + (1 - momentum) · online."""
        online = [*self.encoder.parameters(), *self.projector.parameters()]
        for key, new in zip(self.keys.parameters(), online, strict=True):
            key.lerp_(new, 1 - self.momentum)

    @torch.no_grad()
    def enqueue(self, keys: Float[Tensor, "n d"], index: Int[Tensor, "n"]) -> None:
        """First in, first out: the newest keys overwrite the oldest rows."""
        rows = len(self.queue)
        place = (self.pointer + torch.arange(len(keys), device=keys.device)) % rows
        self.queue = self.queue.index_copy(0, place[-rows:], keys[-rows:])
        self.origin = self.origin.index_copy(0, place[-rows:], index[-rows:])
        self.pointer = (self.pointer + len(keys)) % rows
