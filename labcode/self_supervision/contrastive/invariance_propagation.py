"""Invariance propagation: other images as positives, reached on a neighbour graph (Wang et al., 2020)."""

import copy

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ...loss import check_index, check_matrix, check_positive, float32, unit_rows
from ...nets import mlp
from .npid import NPID


def propagate(neighbours: Int[Tensor, "m k"], index: Int[Tensor, "n"], levels: int = 3) -> Int[Tensor, "n reached"]:
    """What l steps on the neighbour graph reach: neighbours, their neighbours, and so on, with repeats.

    Invariance propagation (Wang et al., 2020), section 3.2.

    neighbours  row j holds the k nearest images of image j
    index       the images to start from
    levels      l >= 1; k + k² + … + k^l columns, level after level

    Raises ValueError for levels < 1 or a table that is not a matrix of indices.
    """
    if levels < 1:
        raise ValueError(f"levels must be at least 1, got {levels}")
    if neighbours.ndim != 2 or neighbours.dtype != torch.int64:
        raise ValueError(f"neighbours must be an int64 matrix (m, k), got {neighbours.dtype} {tuple(neighbours.shape)}")
    frontier, reached = index[:, None], []
    for _ in range(levels):
        frontier = neighbours[frontier].flatten(1)
        reached.append(frontier)
    return torch.cat(reached, 1)


def distinct(reached: Int[Tensor, "n r"], index: Int[Tensor, "n"]) -> Bool[Tensor, "n r"]:
    """Which entries of each row are there for the first time and are not the row's own image.

    Memory n·r: the rows are sorted, not compared pair by pair.
    """
    order = reached.argsort(dim=1, stable=True)
    ranked = reached.gather(1, order)
    fresh = torch.ones_like(ranked, dtype=torch.bool)
    fresh[:, 1:] = ranked[:, 1:] != ranked[:, :-1]
    return torch.zeros_like(fresh).scatter_(1, order, fresh) & (reached != index[:, None])


def nearest(
    z: Float[Tensor, "n d"], bank: Float[Tensor, "m d"], k: int, index: Int[Tensor, "n"] | None = None
) -> Int[Tensor, "n k"]:
    """The k most similar rows of the bank, the best first, by inner product; not the row ``index[i]`` for row i.

    Raises ValueError for k out of 1 … m (m - 1 with ``index``).
    """
    if not 1 <= k <= len(bank) - (index is not None):
        raise ValueError(f"k must be between 1 and the bank's {len(bank)} rows without the own, got {k}")
    similarity = z.detach().float() @ bank.float().T
    if index is not None:
        similarity.scatter_(1, index[:, None], -torch.inf)
    return similarity.topk(k, dim=1).indices


def purity(
    members: Int[Tensor, "n r"], kept: Bool[Tensor, "n r"], labels: Int[Tensor, "m"], own: Int[Tensor, "n"]
) -> float:
    """Share of the kept members with their row's label ``own``: the mean over the rows that keep any, in [0, 1]."""
    same = (labels[members] == own[:, None]) & kept
    count = kept.sum(1)
    return (same.sum(1) / count.clamp(min=1))[count > 0].mean().item()


def purities(
    bank: Float[Tensor, "m d"], labels: Int[Tensor, "m"], levels: int, k: int = 4, most: int = 1000
) -> tuple[float, float]:
    """Purity of what ``levels`` steps on the graph of k neighbours reach, and of equally many nearest rows.

    bank  unit rows; the first ``most`` of them are the anchors
    """
    everyone = torch.arange(len(bank), device=bank.device)
    index = everyone[:most]
    links = torch.cat([nearest(bank[i], bank, k, i) for i in everyone.split(2000)])
    reached = propagate(links, index, levels)
    kept = distinct(reached, index)
    near = nearest(bank[index], bank, int(kept.sum(1).max()), index)
    equal = torch.arange(near.shape[1], device=bank.device) < kept.sum(1, keepdim=True)
    return purity(reached, kept, labels, labels[index]), purity(near, equal, labels, labels[index])


@float32
def invariance_propagation(
    z: Float[Tensor, "n d"],
    index: Int[Tensor, "n"],
    bank: Float[Tensor, "m d"],
    reached: Int[Tensor, "n r"],
    tau: float = 0.07,
    positives: int = 20,
    background: int = 256,
    select: str = "hard",
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """The two losses: instance discrimination, and invariance to the hardest propagated positives.

    Invariance propagation (Wang et al., 2020), section 3.3. With s_j = exp(f·v_j / τ) and B the K most similar other
    entries of the bank, L_ins = -log[s_self / (s_self + Σ_B s)] and L_inv = -log[Σ_P s / Σ_B s].

    z           unnormalised projections f of one view an image
    index       each row's own place in the bank
    bank        unit rows; no gradient goes into it
    reached     candidates for positives, from ``propagate``; repeats and the own image do not count
    positives   P: 20 is the released choice for CIFAR-10
    background  K of both denominators, well below m
    select      "hard" takes the P least similar candidates, "easy" the P most similar

    A row with no candidate has no share in L_inv. L_inv is negative where the positives outweigh the background: a
    hard positive need not be among the K. Raises ValueError for K out of 1 … m - 1, P < 1, or an unknown ``select``.

    Departures: the own entry is always in the first denominator (the code has it only when it is among the K + 1 most
    similar), and candidates are counted once, not as often as paths reach them.
    """
    check_matrix("z", z)
    check_matrix("bank", bank, rows=2)
    if len(z) != len(index) or len(z) != len(reached) or z.shape[1] != bank.shape[1]:
        wanted = (len(index), bank.shape[1])
        raise ValueError(f"z must be {wanted} like index, reached and bank, got {tuple(z.shape)}")
    check_positive(tau=tau, positives=positives)
    if not 1 <= background < len(bank):
        raise ValueError(f"background must be between 1 and {len(bank) - 1}, got {background}")
    if select not in ("hard", "easy"):
        raise ValueError(f"select must be 'hard' or 'easy', got {select!r}")
    check_index("index", index, len(bank))
    check_index("reached", reached, len(bank))
    logits = unit_rows(z) @ bank.detach().to(z.dtype).T / tau
    own = logits.gather(1, index[:, None])
    shared = logits.scatter(1, index[:, None], -torch.inf).topk(background, dim=1).values.logsumexp(1)
    instance = -F.logsigmoid(own[:, 0] - shared)

    kept = distinct(reached, index)
    similar = logits.gather(1, reached)
    away = torch.inf if select == "hard" else -torch.inf
    chosen = similar.masked_fill(~kept, away).topk(min(positives, reached.shape[1]), largest=select == "easy").indices
    present = kept.gather(1, chosen)
    some = present.any(1)
    candidates = similar.gather(1, chosen).masked_fill(~present & some[:, None], -torch.inf)
    invariance = torch.where(some, shared - candidates.logsumexp(1), 0.0)
    return instance.mean(), invariance.sum() / some.sum().clamp(min=1)


class InvariancePropagation(nn.Module):
    """A memory bank, its neighbour graph, and both losses. Trained on **one** view an image, as in the paper.

    count       images in the training set: rows of the bank
    dim         width of the projection
    select      "none" (instance discrimination alone), "hard" or "easy"
    weight      of the invariance loss; 0.6 as released
    k, levels   of the neighbour graph; 4 and 3 for CIFAR-10 as released
    momentum    of the bank: v ← normalise(momentum · v + (1 - momentum) · f)

    Buffers: ``bank`` (count, dim), unit rows, random at first; ``neighbours`` (count, k), renewed for the images of
    each batch. Departure: an image that was not visited yet is its own neighbour, so it has no positives; the
    released code points it to image 0.
    """

    def __init__(
        self, encoder: nn.Module, count: int, dim: int = 64, tau: float = 0.07, select: str = "none",
        weight: float = 0.6, k: int = 4, levels: int = 3, positives: int = 20, background: int = 256,
        momentum: float = 0.5,
    ):  # fmt: skip
        super().__init__()
        self.encoder, self.head = encoder, mlp([encoder.features, dim])
        self.tau, self.select, self.weight, self.k, self.levels = tau, select, weight, k, levels
        self.positives, self.background, self.momentum = positives, background, momentum
        self.register_buffer("bank", unit_rows(torch.randn(count, dim)))
        self.register_buffer("neighbours", torch.arange(count)[:, None].repeat(1, k))

    @classmethod
    def following(cls, npid: NPID, select: str = "none", **options) -> "InvariancePropagation":
        """Go on from instance discrimination: copies of its encoder, head and bank, and the graph of that bank."""
        count, dim = npid.bank.shape
        model = cls(copy.deepcopy(npid.encoder), count, dim, select=select, **options)
        model.head, model.bank = copy.deepcopy(npid.head), npid.bank.detach().clone()
        everyone = torch.arange(count, device=model.bank.device)
        model.neighbours = torch.cat([nearest(model.bank[i], model.bank, model.k, i) for i in everyone.split(2000)])
        return model

    def branch(self, select: str, **changed) -> "InvariancePropagation":
        """A copy of everything learnt so far, to be trained on with another choice of positives."""
        twin = copy.deepcopy(self)
        twin.select = select
        for name, value in changed.items():
            setattr(twin, name, value)
        return twin

    def forward(self, views: Float[Tensor, "n c h w"], index: Int[Tensor, "n"]) -> Float[Tensor, ""]:
        if len(views) != len(index):
            raise ValueError(f"views must be one an image, {len(index)}, got {len(views)}")
        z = self.head(self.encoder(views))
        reached = propagate(self.neighbours, index, self.levels)
        select = "hard" if self.select == "none" else self.select
        instance, invariance = invariance_propagation(
            z, index, self.bank, reached, self.tau, self.positives, self.background, select)  # fmt: skip
        if self.training:
            self.remember(z.detach(), index)
        return instance if self.select == "none" else instance + self.weight * invariance

    @torch.no_grad()
    def remember(self, z: Float[Tensor, "n d"], index: Int[Tensor, "n"]) -> None:
        """Renew the neighbours and the bank's rows of the images just seen."""
        f = unit_rows(z)
        self.neighbours = self.neighbours.index_copy(0, index, nearest(f, self.bank, self.k, index))
        mixed = self.momentum * self.bank[index] + (1 - self.momentum) * f
        self.bank = self.bank.index_copy(0, index, unit_rows(mixed))  # not in place: backward needs it
