"""Contrastive learning with more positives than an image's own views: neighbours in a bank or a queue, and priors.

Three papers: invariance propagation (a neighbour graph on a memory bank), decoupled uniformity with a kernel (similar
images by a prior), All4One (neighbours in a queue, a centroid of them, and a contrast of features). The public names
are reached through ``labcode.self_supervision.contrastive``.
"""

import copy
import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..loss import check_matrix, check_positive, float32
from ..nets import mlp
from ..pairwise import off_diagonal
from ..parallel import gather

# ---------------------------------------------------------------------------------------------------------------------
# Invariance propagation
# ---------------------------------------------------------------------------------------------------------------------


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
    logits = F.normalize(z, dim=1) @ bank.detach().to(z.dtype).T / tau
    own = logits.gather(1, index[:, None])
    shared = logits.scatter(1, index[:, None], -torch.inf).topk(background, dim=1).values.logsumexp(1)
    instance = torch.logaddexp(own[:, 0], shared) - own[:, 0]

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
        self.register_buffer("bank", F.normalize(torch.randn(count, dim), dim=1))
        self.register_buffer("neighbours", torch.arange(count)[:, None].repeat(1, k))

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
        f = F.normalize(z.float(), dim=1)
        self.neighbours = self.neighbours.index_copy(0, index, nearest(f, self.bank, self.k, index))
        mixed = self.momentum * self.bank[index] + (1 - self.momentum) * f
        self.bank = self.bank.index_copy(0, index, F.normalize(mixed, dim=1))  # not in place: backward needs it


# ---------------------------------------------------------------------------------------------------------------------
# Decoupled uniformity
# ---------------------------------------------------------------------------------------------------------------------


def coupling(logits: Float[Tensor, "... m"]) -> Float[Tensor, "..."]:
    """The negative-positive coupling 1 - q₊ of InfoNCE rows, q₊ the softmax probability of the first entry.

    Decoupled contrastive learning (Yeh et al., 2022), Proposition 1: the gradient of an InfoNCE row is this factor
    times the gradient of the row whose denominator leaves the positive out. In [0, 1].
    """
    return 1 - logits.softmax(-1)[..., 0]


@float32
@torch.no_grad()
def kernel_weights(
    prior: Float[Tensor, "n a"], sigma: float | None = None, lam: float = 0.01
) -> Float[Tensor, "n n"]:
    """Weights α = (K + λI)⁻¹ K of the conditional mean embedding, K_ij = exp(-‖p_i - p_j‖² / 2σ²).

    Kernel decoupled uniformity (Dufumier et al., 2023), section 4. K is symmetric, so α is too.

    prior  what is known of the images: attributes or a generative model's codes
    sigma  width of the kernel; the median distance if None. Too large, and all centroids become one
    lam    ridge λ > 0; 0.01 as released, where λ stands for the theorem's nλ

    No gradient. Raises ValueError for fewer than 2 rows, or σ or λ that is not positive.
    """
    check_matrix("prior", prior, rows=2)
    check_positive(lam=lam)
    squared = torch.cdist(prior, prior, compute_mode="donot_use_mm_for_euclid_dist").square()
    eye = torch.eye(len(prior), device=prior.device, dtype=prior.dtype)
    if sigma is None:
        width = off_diagonal(squared).median()
    else:
        check_positive(sigma=sigma)
        width = squared.new_full((), sigma**2)
    kernel = torch.exp(-squared / (2 * width.clamp(min=1e-12)))
    factor = torch.linalg.cholesky_ex(kernel + lam * eye).L  # λ makes it definite: no look at whether it was
    return torch.cholesky_solve(kernel, factor)


@float32
def decoupled_uniformity(
    z: Float[Tensor, "two_n d"], weights: Float[Tensor, "n n"] | None = None, t: float = 2.0
) -> Float[Tensor, ""]:
    """log mean over x ≠ x' of exp(-t ‖μ_x - μ_x'‖²), with μ_x the mean of the views' unit vectors.

    Decoupled uniformity (Dufumier et al., 2023), eq. 3; with ``weights`` its kernel form, μ ← α μ. A centroid is not
    brought back to unit length: its length is how well the views agree, so spreading centroids pulls views together.

    z        unnormalised projections, both views stacked: rows i and i + n are image i; n >= 2
    weights  α from ``kernel_weights``, a constant; None leaves every centroid alone
    t        2 as released

    Between -4t and 0 without weights. Raises ValueError for an odd number of rows, n < 2, t <= 0, or weights of
    another shape.
    """
    check_matrix("z", z, rows=4, even=True)
    check_positive(t=t)
    n = len(z) // 2
    unit = F.normalize(z, dim=1)
    centroid = (unit[:n] + unit[n:]) / 2
    if weights is not None:
        if weights.shape != (n, n):
            raise ValueError(f"weights must be ({n}, {n}), got {tuple(weights.shape)}")
        centroid = weights.detach().to(centroid.dtype) @ centroid
    length = centroid.square().sum(1)
    squared = length[:, None] + length - 2 * centroid @ centroid.T
    return (-t * off_diagonal(squared)).flatten().logsumexp(0) - math.log(n * (n - 1))


class DecoupledUniformity(nn.Module):
    """Encoder, linear head and decoupled uniformity; with a prior, its kernel form.

    prior   (count, a) attributes of all training images, or None
    sigma   width of the kernel; the median distance within each batch if None
    """

    def __init__(
        self, encoder: nn.Module, prior: Float[Tensor, "m a"] | None = None, dim: int = 128, t: float = 2.0,
        sigma: float | None = None, lam: float = 0.01,
    ):  # fmt: skip
        super().__init__()
        self.encoder, self.head = encoder, mlp([encoder.features, dim])
        self.t, self.sigma, self.lam = t, sigma, lam
        self.register_buffer("prior", prior, persistent=False)

    def forward(self, views: Float[Tensor, "two_n c h w"], index: Int[Tensor, "n"]) -> Float[Tensor, ""]:
        weights = None if self.prior is None else kernel_weights(self.prior[gather(index)], self.sigma, self.lam)
        return decoupled_uniformity(gather(self.head(self.encoder(views)), views=2), weights, self.t)


# ---------------------------------------------------------------------------------------------------------------------
# All4One
# ---------------------------------------------------------------------------------------------------------------------


@float32
def neighbour_contrast(
    targets: Float[Tensor, "n d"], p: Float[Tensor, "n d"], tau: float = 0.2
) -> Float[Tensor, ""]:
    """Cross entropy of finding, for each target, the prediction of the same image among the batch's.

    NNCLR (Dwibedi et al., 2021), eq. 3, and All4One (Estepa et al., 2023), eq. 1: the mean over i of
    -log[exp(t_i·p_i / τ) / Σ_j exp(t_i·p_j / τ)], rows brought to unit length.

    targets  neighbours of one view's keys, or centroids; the gradient goes through if there is one
    p        predictions from the other view; n >= 2

    Raises ValueError for unlike shapes, n < 2 or tau <= 0.
    """
    check_matrix("targets", targets, rows=2)
    check_matrix("p", p, like=targets)
    check_positive(tau=tau)
    logits = F.normalize(targets, dim=1) @ F.normalize(p, dim=1).T / tau
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
    unit = lambda x: F.normalize(x.view(2, n, d), dim=1)  # noqa: E731
    c = unit(keys.detach()).flip(0).transpose(1, 2) @ unit(z)
    diagonal = c.diagonal(dim1=1, dim2=2)
    off = off_diagonal(c)
    tiny = torch.finfo(z.dtype).tiny  # the root's slope at 0 is infinite
    return 5 * ((diagonal - 1).square().mean() + tiny).sqrt() + 5 * (off.square().mean() + tiny).sqrt()


class Centroid(nn.Module):
    """One vector for a short sequence of neighbours: self-attention, read off at the first place; or the mean.

    dim     width, divisible by ``heads`` and by 2
    pool    "attention" or "mean"
    layers, heads   3 and 8 in the paper; feed-forward 2·dim, dropout 0.1, sinusoidal positions added
    """

    def __init__(self, dim: int, pool: str = "attention", layers: int = 1, heads: int = 2, places: int = 5):
        super().__init__()
        if pool not in ("attention", "mean"):
            raise ValueError(f"pool must be 'attention' or 'mean', got {pool!r}")
        if dim % heads or dim % 2:
            raise ValueError(f"dim must be even and divisible by heads={heads}, got {dim}")
        layer = nn.TransformerEncoderLayer(dim, heads, 2 * dim, dropout=0.1, batch_first=True)
        stack = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.body = stack if pool == "attention" else None
        angle = torch.arange(places)[:, None] / 10000 ** (torch.arange(0, dim, 2) / dim)
        self.register_buffer("places", torch.stack([angle.sin(), angle.cos()], 2).flatten(1), persistent=False)

    def forward(self, sequence: Float[Tensor, "n k d"]) -> Float[Tensor, "n d"]:
        if self.body is None:
            return sequence.mean(1)
        return self.body(sequence + self.places[: sequence.shape[1]])[:, 0]


def shifted(query: Float[Tensor, "n d"], sequence: Float[Tensor, "n k d"]) -> Float[Tensor, "n k d"]:
    """The query in front, the neighbours moved back one place, the last one dropped: All4One's shift."""
    return torch.cat([query[:, None].to(sequence.dtype), sequence[:, :-1]], 1)


class All4One(nn.Module):
    """Neighbours from a queue of momentum keys; three contrasts: neighbour, centroid, feature.

    weights   of (neighbour, centroid, feature); 0.5 each as released; (0.5, 0, 0) is NNCLR with a momentum encoder
    pool      "attention" or "mean": what makes the centroid
    queue     rows of the queue, a multiple of no particular batch; random unit rows at first
    k         neighbours a key; the neighbour contrast uses the nearest alone
    momentum  of the key network

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
        self.projector = mlp([encoder.features, hidden, dim])
        self.predictor, self.query = mlp([dim, hidden, dim]), mlp([dim, hidden, dim])
        self.centroid = Centroid(dim, pool, layers, heads, places=k)
        self.keys = copy.deepcopy(nn.Sequential(encoder, self.projector)).requires_grad_(False)
        self.register_buffer("queue", F.normalize(torch.randn(queue, dim), dim=1))
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
        return F.normalize(self.keys(views).float(), dim=1)

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
