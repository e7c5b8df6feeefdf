"""Contrastive learning: tell an image's other view from everything else.

A *method* here is a module with an ``encoder`` and a ``forward(views, index)`` that returns the loss: rows i and i + n
of ``views`` are two views of image ``index[i]``. ``labcode.stage.Stage.pretrain`` trains it.

With several processes, losses that compare the batch's rows see all of them (``parallel.gather``). Queues and banks are
buffers that each process keeps for its own share of a batch. They are replaced, never written in place, so the
backward pass still finds the vectors that the loss saw.
"""

import copy
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from ..augment import colour_jitter, noise, to_float, warp
from ..loss import check_matrix, check_positive, float32
from ..nets import mlp
from ..pairwise import logsumexp_others, off_diagonal
from ..parallel import gather
from .cpc import (  # noqa: F401
    PHONES,
    SPEAKERS,
    VAE,
    Decoder,
    DenoisingAutoencoder,
    LabelledPatches,
    MaskedContext,
    PatchCPC,
    PatchEncoder,
    SpeechCPC,
    SpeechEncoder,
    colour_keeping_views,
    drop_colours,
    gaussian_bound,
    gaussian_mi,
    info_nce,
    log_spectrum,
    mi_bound,
    negative_elbo,
    neighbour_r2,
    noisy_views,
    patch_views,
    patches,
    picture_factors,
    pools,
    speech,
    speech_probe,
)
from .neighbours import (  # noqa: F401
    All4One,
    Centroid,
    DecoupledUniformity,
    InvariancePropagation,
    coupling,
    decoupled_uniformity,
    distinct,
    feature_contrast,
    invariance_propagation,
    kernel_weights,
    nearest,
    neighbour_contrast,
    propagate,
    purity,
    shifted,
)


@float32
def nt_xent(z: Float[Tensor, "two_n d"], tau: float = 0.5) -> Float[Tensor, ""]:
    """Normalised temperature-scaled cross entropy over a batch of positive pairs.

    SimCLR (Chen et al., 2020), eq. 1. Rows i and i + n of ``z`` are the two views of image i; the other 2n - 2 rows
    are its negatives.

    z    unnormalised projections, both views stacked, n >= 2
    tau  temperature > 0; 0.5 is the paper's choice for CIFAR-10

    Raises ValueError for an odd number of rows, n < 2 or tau <= 0. Memory: see ``pairwise.logsumexp_others``.
    """
    check_matrix("z", z, rows=4, even=True)
    check_positive(tau=tau)
    n = len(z) // 2
    z = F.normalize(z, dim=1)
    positive = (z[:n] * z[n:]).sum(1).repeat(2) / tau
    return (logsumexp_others(z, tau) - positive).mean()


@float32
def sup_con(z: Float[Tensor, "n d"], labels: Int[Tensor, " n"], tau: float = 0.1) -> Float[Tensor, ""]:
    """Supervised contrastive loss: every other row of a row's class is a positive, all other rows are in the sum.

    Khosla et al. (2020), eq. 2, L_out: -1/|P(i)| Σ_{p ∈ P(i)} log (exp(zᵢ·z_p/τ) / Σ_{j≠i} exp(zᵢ·zⱼ/τ)), averaged
    over the rows that have a positive; 0 if none has. With the image's number as its label this is ``nt_xent``.

    z       unnormalised projections of any number of views, n >= 2
    labels  any integers
    tau     temperature > 0; 0.1 in the paper

    Raises ValueError for labels that do not fit z, n < 2 or tau <= 0. The positives' mean is a sum over classes, so
    memory is that of ``pairwise.logsumexp_others``.
    """
    check_matrix("z", z, rows=2)
    check_positive(tau=tau)
    if labels.shape != (len(z),):
        raise ValueError(f"labels must name the class of each of the {len(z)} rows, got shape {tuple(labels.shape)}")
    z = F.normalize(z, dim=1)
    ordered, order = labels.sort()  # classes counted from 0, with no wait for the device
    classes = torch.empty_like(order).scatter_(0, order, F.pad((ordered[1:] != ordered[:-1]).cumsum(0), (1, 0)))
    others = torch.zeros_like(z).index_add(0, classes, z)[classes] - z
    count = (torch.zeros_like(z[:, 0]).index_add(0, classes, torch.ones_like(z[:, 0])) - 1)[classes]
    positive = (z * others).sum(1) / (count.clamp_min(1) * tau)
    some = (count > 0).to(z.dtype)
    return ((logsumexp_others(z, tau) - positive) * some).sum() / some.sum().clamp_min(1)


class SimCLR(nn.Module):
    """Encoder, projection head and NT-Xent: the baseline of the chapter.

    dim   width of the projection
    tau   temperature
    head  "linear" or "mlp" (one hidden layer of the encoder's width, with BatchNorm)
    loss  another loss of the stacked projections in place of NT-Xent
    """

    def __init__(self, encoder: nn.Module, dim: int = 128, tau: float = 0.2, head: str = "linear", loss=None):
        super().__init__()
        d = encoder.features
        self.encoder, self.tau = encoder, tau
        self.head = mlp([d, dim] if head == "linear" else [d, d, dim])
        self.loss = loss or (lambda z: nt_xent(z, tau))

    def forward(self, views: Float[Tensor, "two_n c h w"], index: Int[Tensor, "n"]) -> Float[Tensor, ""]:
        return self.loss(gather(self.head(self.encoder(views)), views=2))


# ---------------------------------------------------------------------------------------------------------------------
# NPID: every image is a class
# ---------------------------------------------------------------------------------------------------------------------


@float32
def instance_softmax(
    f: Float[Tensor, "b d"], bank: Float[Tensor, "n d"], index: Int[Tensor, " b"], tau: float = 0.1
) -> Float[Tensor, ""]:
    """Cross entropy of telling which of n images a feature comes from: the non-parametric softmax.

    NPID (Wu et al., 2018), eq. 2: P(i|f) = exp(v_i·f / τ) / Σ_j exp(v_j·f / τ).

    f      unnormalised features of one view of b images
    bank   one vector v_j for every image; normalised here too
    index  which image each row of f shows, in 0 … n - 1
    tau    temperature > 0; 0.1 for CIFAR-10 in the authors' command, 0.07 for ImageNet

    Raises ValueError for an index that does not fit f, or tau <= 0. Memory O(b n).
    """
    f, bank = _unit_rows(f, bank, index)
    check_positive(tau=tau)
    return F.cross_entropy(f @ bank.T / tau, index)


@float32
def instance_nce(
    f: Float[Tensor, "b d"], bank: Float[Tensor, "n d"], index: Int[Tensor, " b"], noise_index: Int[Tensor, "b m"],
    log_z: Float[Tensor, ""], tau: float = 0.1,
) -> Float[Tensor, ""]:  # fmt: skip
    """Noise-contrastive estimate of ``instance_softmax``: the image's own vector against m uniformly drawn ones.

    NPID, eq. 5 to 7: h = P / (P + m/n) with P = exp(v·f / τ) / Z, and J = -log h(own) - Σ_m log(1 - h(noise)).

    noise_index  the m images drawn for each row
    log_z        logarithm of the constant Z; see ``log_partition``

    Raises ValueError as ``instance_softmax`` does. Departure: scores of the whole bank are made and m of them taken,
    which for the sizes of this course is cheaper than gathering b·m vectors.
    """
    f, bank = _unit_rows(f, bank, index, noise_index)
    check_positive(tau=tau)
    score = f @ bank.T / tau
    odds = score - log_z - math.log(noise_index.shape[1] / len(bank))  # log of P / (m Pn)
    own, others = odds.gather(1, index[:, None])[:, 0], odds.gather(1, noise_index)
    return -(F.logsigmoid(own) + F.logsigmoid(-others).sum(1)).mean()


@float32
def log_partition(
    f: Float[Tensor, "b d"], bank: Float[Tensor, "n d"], noise_index: Int[Tensor, "b m"], tau: float
) -> Float[Tensor, ""]:
    """Monte Carlo log Z = log(n · mean exp(v·f / τ)) from the noise of one batch: NPID, eq. 8."""
    f, bank = _unit_rows(f, bank, noise_index=noise_index)
    check_positive(tau=tau)
    score = (f @ bank.T / tau).gather(1, noise_index).flatten()
    return score.logsumexp(0) - math.log(score.numel() / len(bank))


@float32
def proximal(f: Float[Tensor, "b d"], old: Float[Tensor, "b d"]) -> Float[Tensor, ""]:
    """Mean squared distance of normalised features from their vectors in the bank: NPID, eq. 9, without its λ."""
    check_matrix("f", f, rows=1)
    check_matrix("old", old, like=f)
    return (F.normalize(f, dim=1) - old).square().sum(1).mean()


def _unit_rows(f: Tensor, bank: Tensor, index: Tensor | None = None, noise_index: Tensor | None = None) -> tuple:
    """f and bank, normalised, after a look at all that the instance losses take."""
    check_matrix("f", f, rows=1)
    check_matrix("bank", bank, rows=2)
    if bank.shape[1] != f.shape[1]:
        raise ValueError(f"bank must have rows of {f.shape[1]} values like f, got {bank.shape[1]}")
    if index is not None and index.shape != (len(f),):
        raise ValueError(f"index must name the image of each of the {len(f)} rows, got shape {tuple(index.shape)}")
    if noise_index is not None and (noise_index.ndim != 2 or len(noise_index) != len(f) or not noise_index.numel()):
        raise ValueError(f"noise_index must be ({len(f)}, m) with m >= 1, got shape {tuple(noise_index.shape)}")
    return F.normalize(f, dim=1), F.normalize(bank, dim=1)


class NPID(nn.Module):
    """Instance discrimination with a memory bank (Wu et al., 2018). It looks at the first view only.

    images    how many images there are: rows of the bank
    dim       width of a feature
    tau       temperature
    softmax   "full" over all images; "nce" with ``negatives`` noise images and Z frozen after the first batch;
              "sampled" over ``negatives`` rows of the bank drawn once a batch; "parametric", where the bank is a
              weight matrix that gradients train
    momentum  v ← normalise(momentum · v + (1 - momentum) · f), as in the released code
    pull      λ of the proximal term; 30 in the paper, 0 in the released code, whose momentum does its work

    Departures: the bank starts as random unit vectors (the code draws them from a cube), and the parametric softmax
    keeps normalisation and temperature, so that who owns the class vectors is all that differs.
    """

    def __init__(
        self, encoder: nn.Module, images: int, dim: int = 64, tau: float = 0.1, softmax: str = "full",
        negatives: int = 256, momentum: float = 0.5, pull: float = 0.0,
    ):  # fmt: skip
        super().__init__()
        if softmax not in ("full", "nce", "sampled", "parametric"):
            raise ValueError(f"softmax must be 'full', 'nce', 'sampled' or 'parametric', got {softmax!r}")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), got {momentum}")
        self.encoder, self.head = encoder, nn.Linear(encoder.features, dim)
        self.tau, self.softmax, self.negatives, self.momentum, self.pull = tau, softmax, negatives, momentum, pull
        start = F.normalize(torch.randn(images, dim), dim=1)
        if softmax == "parametric":
            self.bank = nn.Parameter(start)
        else:
            self.register_buffer("bank", start)
        self.register_buffer("log_z", torch.tensor(torch.nan))
        self.register_buffer("moved", torch.tensor(torch.nan))  # how far the last batch moved from the bank

    def forward(self, views: Float[Tensor, "views_n c h w"], index: Int[Tensor, "n"]) -> Float[Tensor, ""]:
        f = self.head(self.encoder(views[: len(index)]))
        loss = self.contrast(f, index)
        if self.softmax == "parametric":
            return loss
        if self.pull:
            loss = loss + self.pull * proximal(f, self.bank[index])
        if self.training:
            self.remember(f.detach(), index)
        return loss

    def contrast(self, f: Float[Tensor, "n d"], index: Int[Tensor, "n"]) -> Float[Tensor, ""]:
        n, m = len(self.bank), self.negatives
        if self.softmax in ("full", "parametric"):
            return instance_softmax(f, self.bank, index, self.tau)
        if self.softmax == "sampled":
            drawn = torch.randint(n, (m,), device=f.device)
            return moco_loss(f, self.bank[index], self.bank[drawn], self.tau)
        noise_index = torch.randint(n, (len(f), m), device=f.device)
        first = log_partition(f.detach(), self.bank, noise_index, self.tau)
        self.log_z = torch.where(self.log_z.isnan(), first, self.log_z)  # set once, with no look at the device
        return instance_nce(f, self.bank, index, noise_index, self.log_z, self.tau)

    @torch.no_grad()
    def remember(self, f: Float[Tensor, "n d"], index: Int[Tensor, "n"]) -> None:
        f, old = F.normalize(f.float(), dim=1), self.bank[index]
        new = F.normalize(self.momentum * old + (1 - self.momentum) * f, dim=1)
        self.moved = (f - old).norm(dim=1).mean()
        self.bank = self.bank.index_copy(0, index, new)


# ---------------------------------------------------------------------------------------------------------------------
# MoCo: a queue of keys from a slow encoder
# ---------------------------------------------------------------------------------------------------------------------


@float32
def moco_loss(
    q: Float[Tensor, "n d"], k: Float[Tensor, "n d"], queue: Float[Tensor, "K d"], tau: float = 0.1
) -> Float[Tensor, ""]:
    """InfoNCE of queries against their own keys and a queue of other keys.

    MoCo (He et al., 2020), eq. 1: -log exp(q·k₊ / τ) / (exp(q·k₊ / τ) + Σ_K exp(q·k_i / τ)).

    q, k   unnormalised queries and keys of the same n images; no gradient reaches k or the queue
    queue  K >= 1 older keys
    tau    temperature > 0; 0.07 in the paper, 0.1 in its CIFAR-10 demonstration

    Raises ValueError for shapes that do not fit, or tau <= 0. Memory O(n K).
    """
    check_matrix("q", q, rows=1)
    check_matrix("k", k, like=q)
    check_matrix("queue", queue, rows=1)
    if queue.shape[1] != q.shape[1]:
        raise ValueError(f"queue must have keys of {q.shape[1]} values like q, got {queue.shape[1]}")
    check_positive(tau=tau)
    q, k, queue = F.normalize(q, dim=1), F.normalize(k.detach(), dim=1), F.normalize(queue.detach(), dim=1)
    positive = (q * k).sum(1, keepdim=True)
    logits = torch.cat([positive, q @ queue.T], 1) / tau
    return (logits.logsumexp(1) - logits[:, 0]).mean()


class SplitBatchNorm(nn.Module):
    """A BatchNorm that in training normalises ``splits`` parts of a batch apart, as that many GPUs would.

    Departure: the running statistics are updated once a part.
    """

    def __init__(self, norm: nn.Module, splits: int):
        super().__init__()
        self.norm, self.splits = norm, splits

    def forward(self, x: Float[Tensor, "n c ..."]) -> Float[Tensor, "n c ..."]:
        if not self.training:
            return self.norm(x)
        return torch.cat([self.norm(part) for part in x.tensor_split(self.splits)])


def split_batchnorm(module: nn.Module, splits: int) -> nn.Module:
    """Replace every BatchNorm inside ``module``, in place, by a ``SplitBatchNorm``; returns the module."""
    for name, child in module.named_children():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            setattr(module, name, SplitBatchNorm(child, splits))
        elif not isinstance(child, SplitBatchNorm):
            split_batchnorm(child, splits)
    return module


class MoCo(nn.Module):
    """Momentum contrast: a queue of keys, and a key encoder that follows the query encoder (He et al., 2020).

    dim       width of queries and keys
    tau       temperature; 0.07 in the paper, 0.1 in its CIFAR-10 demonstration, 0.2 in MoCo v2
    queue     K, keys remembered; any K >= 1, newest first
    momentum  m of θ_k ← m θ_k + (1 - m) θ_q, done before the keys are made; 0 copies the query encoder
    head      "linear", or "mlp": MoCo v2's two layers without BatchNorm
    splits    parts in which BatchNorm normalises a batch. Above 1 the keys are shuffled before and put back after,
              so an image's two views share no statistics: ShuffleBN on one device. 1 shuffles nothing, and suits an
              encoder without BatchNorm

    Buffers of the key encoder (running statistics) are its own, as in the paper. Asymmetric: the first view is the
    query.
    """

    def __init__(
        self, encoder: nn.Module, dim: int = 128, tau: float = 0.1, queue: int = 1024, momentum: float = 0.99,
        head: str = "linear", splits: int = 1,
    ):  # fmt: skip
        super().__init__()
        if queue < 1:
            raise ValueError(f"queue must hold at least 1 key, got {queue}")
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum must be in [0, 1], got {momentum}")
        if head not in ("linear", "mlp"):
            raise ValueError(f"head must be 'linear' or 'mlp', got {head!r}")
        d = encoder.features
        self.encoder = encoder if splits == 1 else split_batchnorm(encoder, splits)
        self.head = mlp([d, dim] if head == "linear" else [d, d, dim], norm=False)
        self.key_encoder = copy.deepcopy(nn.Sequential(self.encoder, self.head)).requires_grad_(False)
        self.tau, self.momentum, self.splits = tau, momentum, splits
        self.register_buffer("queue", F.normalize(torch.randn(queue, dim), dim=1))

    def forward(self, views: Float[Tensor, "two_n c h w"], index: Int[Tensor, "n"]) -> Float[Tensor, ""]:
        n = len(index)
        q = self.head(self.encoder(views[:n]))
        with torch.no_grad():
            if self.training:
                self.follow()
            k = self.keys(views[n : 2 * n])
        loss = moco_loss(q, k, self.queue, self.tau)
        if self.training:
            self.queue = torch.cat([k, self.queue])[: len(self.queue)]  # first in, first out
        return loss

    @torch.no_grad()
    def follow(self) -> None:
        """θ_k ← m θ_k + (1 - m) θ_q."""
        keys = list(self.key_encoder.parameters())
        queries = [*self.encoder.parameters(), *self.head.parameters()]
        torch._foreach_lerp_(keys, queries, 1 - self.momentum)

    @torch.no_grad()
    def keys(self, views: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """Normalised keys; with split BatchNorm the batch is shuffled first, and the keys are put back in order."""
        if self.splits == 1 or not self.training:
            return F.normalize(self.key_encoder(views).float(), dim=1)
        order = torch.randperm(len(views), device=views.device)
        return F.normalize(self.key_encoder(views[order])[order.argsort()].float(), dim=1)


def jittered_views(x: Tensor, generator: Generator, views: int = 2) -> Float[Tensor, "views*n 3 h w"]:
    """Views of the scenes with MoCo v1's colours: jitter of 0.4 in all four, always, in place of free colours.

    Geometry and noise are those of ``labcode.augment.scene_views``.
    """
    x = to_float(x).repeat(views, 1, 1, 1)
    x = colour_jitter(x, 0.4, 0.4, 0.4, 0.4, p=1.0, generator=generator)
    away = 0.1 * torch.rand(len(x), 2, 3, generator=generator, device=x.device) - 0.05
    return noise(warp(x, torch.eye(2, 3, device=x.device) + away, padding="reflection"), 0.02, generator=generator)


# ---------------------------------------------------------------------------------------------------------------------
# Debiased contrastive learning: negatives that are not
# ---------------------------------------------------------------------------------------------------------------------


@float32
def debiased_mean(
    negative: Float[Tensor, "b N"], positive: Float[Tensor, "b M"], tau_plus: float, tau: float = 0.5
) -> Float[Tensor, " b"]:
    """The mean of exp(s) over true negatives, estimated from unlabelled samples and known positives.

    Debiased contrastive learning (Chuang et al., 2020), eq. 7:
    g = max{ (mean_N exp(s⁻) - τ⁺ mean_M exp(s⁺)) / (1 - τ⁺), exp(-1/t) }.

    negative  exp(s⁻), s = cosine / t, of N unlabelled samples an anchor
    positive  exp(s⁺) of M samples of the anchor's own class
    tau_plus  τ⁺ in [0, 1), the share of that class among unlabelled samples
    tau       t, the temperature that made the scores: it sets the smallest value possible

    Raises ValueError for tau_plus out of range, tau <= 0, or no sample.
    """
    check_matrix("negative", negative, rows=1)
    check_matrix("positive", positive, rows=1)
    check_positive(tau=tau)
    if not 0 <= tau_plus < 1:
        raise ValueError(f"tau_plus must be in [0, 1), got {tau_plus}")
    if len(positive) != len(negative):
        raise ValueError(f"positive must have a row for each of the {len(negative)} anchors, got {len(positive)}")
    g = (negative.mean(1) - tau_plus * positive.mean(1)) / (1 - tau_plus)
    return g.clamp_min(math.exp(-1 / tau))


@float32
def debiased_nt_xent(
    z: Float[Tensor, "views_n d"], tau_plus: float = 0.1, tau: float = 0.5, views: int = 2
) -> Float[Tensor, ""]:
    """NT-Xent whose negatives are corrected for those of the anchor's own class; τ⁺ = 0 is ``nt_xent``.

    Debiased contrastive learning, eq. 8: -log e^{s⁺} / (e^{s⁺} + N g), with g of ``debiased_mean``.

    z      unnormalised projections: row i + v·n is view v of image i, n >= 2
    views  v >= 2; M = v - 1 positives an anchor, each once in the numerator, and N = v (n - 1) negatives

    The paper's code has two views, so M = 1. Raises ValueError as ``debiased_mean``, and for rows that are not whole
    images.
    """
    if views < 2:
        raise ValueError(f"views must be at least 2, got {views}")
    check_matrix("z", z, rows=2 * views)
    if len(z) % views:
        raise ValueError(f"z must have {views} rows for every image, got {len(z)} rows")
    positive, negative = _exp_scores(z, tau, views)
    total = negative.shape[1] * debiased_mean(negative, positive, tau_plus, tau)
    return ((positive + total[:, None]).log() - positive.log()).mean()


@float32
def oracle_nt_xent(
    z: Float[Tensor, "two_n d"], labels: Int[Tensor, " n"], tau: float = 0.5, rescale: bool = True
) -> Float[Tensor, ""]:
    """NT-Xent with the false negatives taken out by their labels: what the label-free corrections aim at.

    labels   the class of each of the n images
    rescale  the true negatives' mean times N, as the debiased loss estimates it; else their plain sum

    An anchor without a true negative has only its positive, and loss 0. Raises ValueError as ``nt_xent``.
    """
    check_matrix("z", z, rows=4, even=True)
    check_positive(tau=tau)
    n = len(z) // 2
    if labels.shape != (n,):
        raise ValueError(f"labels must name the class of each of the {n} images, got shape {tuple(labels.shape)}")
    z, y = F.normalize(z, dim=1), labels.repeat(2)
    logits = z @ z.T / tau
    true = y[:, None] != y
    positive = (z[:n] * z[n:]).sum(1).repeat(2) / tau
    total = logits.masked_fill(~true, -torch.inf).logsumexp(1)
    if rescale:
        total = total + torch.log((2 * n - 2) / true.sum(1).clamp_min(1).to(z.dtype))
    return (torch.logaddexp(positive, total) - positive).mean()


class Oracle(SimCLR):
    """SimCLR that is told the labels of the images, and uses them only to leave out false negatives."""

    def __init__(self, encoder: nn.Module, labels: Int[Tensor, " n"], tau: float = 0.2, rescale: bool = True):
        super().__init__(encoder, tau=tau)
        self.rescale = rescale
        self.register_buffer("labels", labels, persistent=False)

    def forward(self, views: Float[Tensor, "two_n c h w"], index: Int[Tensor, "n"]) -> Float[Tensor, ""]:
        z = gather(self.head(self.encoder(views)), views=2)
        return oracle_nt_xent(z, self.labels[gather(index)], self.tau, self.rescale)


def ring_means(
    angle: Float[Tensor, " b"], classes: int = 10, kappa: float = 10.0, tau: float = 0.5
) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
    """E exp(s) of anchors with samples of their own class and of the others, for classes on a circle, in closed form.

    Class c is von Mises about the angle 2πc / classes with concentration kappa; s = cos(difference) / tau. With
    Bessel's function, E exp(cos(θ - a) / τ) = I₀(|κ + exp(ia) / τ|) / I₀(κ) for θ about 0.

    angle  of each anchor, in radians from the centre of its class, class 0
    """
    centre = 2 * math.pi / classes * torch.arange(classes, device=angle.device, dtype=angle.dtype)
    length = (kappa**2 + tau**-2 + 2 * kappa / tau * torch.cos(angle[:, None] - centre)).sqrt()
    mean = torch.special.i0(length) / torch.special.i0(torch.full_like(length, kappa))
    return mean[:, 0], mean[:, 1:].mean(1)


def ring_scores(
    angle: Float[Tensor, " b"], unlabelled: int, positives: int, classes: int = 10, kappa: float = 10.0,
    tau: float = 0.5,
) -> tuple[Float[Tensor, "b N"], Float[Tensor, "b M"]]:  # fmt: skip
    """exp(s) of anchors on the circle of ``ring_means`` with N samples of all classes and M of their own."""
    spread = torch.distributions.VonMises(torch.zeros((), dtype=angle.dtype), torch.tensor(kappa, dtype=angle.dtype))
    noise_angle = spread.sample((len(angle), unlabelled + positives))
    which = torch.randint(classes, (len(angle), unlabelled))
    noise_angle[:, :unlabelled] += 2 * math.pi / classes * which
    scores = (torch.cos(noise_angle - angle[:, None]) / tau).exp()
    return scores[:, :unlabelled], scores[:, unlabelled:]


def _exp_scores(z: Tensor, tau: float, views: int) -> tuple[Tensor, Tensor]:
    """exp(cosine / τ) of every row with its image's other views (v - 1) and with all other images' views."""
    check_positive(tau=tau)
    n = len(z) // views
    z = F.normalize(z, dim=1)
    score = (z @ z.T / tau).exp()
    score = score.view(views, n, views, n).transpose(1, 2)  # (view, view, image, image)
    positive = off_diagonal(score.diagonal(dim1=2, dim2=3).permute(2, 0, 1)).transpose(0, 1)
    negative = off_diagonal(score).transpose(1, 2)
    return positive.reshape(len(z), views - 1), negative.reshape(len(z), -1)


# ---------------------------------------------------------------------------------------------------------------------
# G-SimCLR: batches without look-alikes
# ---------------------------------------------------------------------------------------------------------------------


def clean_and_noisy(
    x: Tensor, generator: Generator, std: float = 0.01
) -> Float[Tensor, "two_n c h w"]:
    """The images as they are, then the same with Gaussian noise: what a denoising autoencoder is trained on."""
    x = to_float(x)
    return torch.cat([x, noise(x, std, generator=generator)])


class Autoencoder(nn.Module):
    """G-SimCLR's denoising autoencoder: three blocks of convolution, BatchNorm, ReLU and max-pooling, and back.

    ``encoder`` gives the latents averaged over positions, ``encoder.features`` = 128 of them. ``forward`` takes the
    views of ``clean_and_noisy`` and returns the mean squared error against the clean half. Image sides must be
    multiples of 8.
    """

    def __init__(self, encoder: nn.Module | None = None, widths: tuple[int, ...] = (32, 64, 128), channels: int = 3):
        super().__init__()
        sizes = [channels, *widths]
        down, up = [], []
        for n_in, n_out in zip(sizes[:-1], sizes[1:], strict=True):
            down += [nn.Conv2d(n_in, n_out, 3, padding=1), nn.BatchNorm2d(n_out), nn.ReLU(True), nn.MaxPool2d(2)]
        for n_in, n_out in zip(sizes[:0:-1], sizes[-2:0:-1], strict=False):
            up += [nn.Upsample(scale_factor=2), nn.Conv2d(n_in, n_out, 3, padding=1)]
            up += [nn.BatchNorm2d(n_out), nn.ReLU(True)]
        self.body = nn.Sequential(*down)
        self.decoder = nn.Sequential(*up, nn.Upsample(scale_factor=2), nn.Conv2d(widths[0], channels, 3, padding=1))
        self.encoder = nn.Sequential(self.body, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.encoder.features = widths[-1]

    def forward(self, views: Float[Tensor, "two_n c h w"], index: Int[Tensor, "n"]) -> Float[Tensor, ""]:
        clean, noisy = views.chunk(2)
        return F.mse_loss(self.decoder(self.body(noisy)).float(), clean.float())


def guided_order(clusters: Int[Tensor, " n"], seed: int = 0) -> Int[Tensor, " n"]:
    """An order of the images in which neighbours come from different clusters: rank within the cluster, then cluster.

    G-SimCLR (Chakraborty et al., 2020): with K clusters, batches of K consecutive images hold one image of each for as
    long as every cluster lasts; after that the large clusters repeat.
    """
    n = len(clusters)
    mixed = torch.randperm(n, generator=torch.Generator().manual_seed(seed)).to(clusters.device)
    grouped = mixed[clusters[mixed].argsort(stable=True)]
    sizes = torch.bincount(clusters)
    rank = torch.arange(n, device=clusters.device) - (sizes.cumsum(0) - sizes)[clusters[grouped]]
    return grouped[rank.argsort(stable=True)]


def fixed_batches(order: Int[Tensor, " n"], batch_size: int) -> Callable[[int], Tensor]:
    """The same consecutive batches of an order in every epoch, as G-SimCLR has them: ``step -> (batch_size,)``.

    Raises ValueError for a batch_size outside 1 … n.
    """
    if not 1 <= batch_size <= len(order):
        raise ValueError(f"batch_size must be between 1 and the {len(order)} images, got {batch_size}")
    parts = order[: len(order) // batch_size * batch_size].view(-1, batch_size)
    return lambda step: parts[step % len(parts)]


def false_negative_rate(order: Int[Tensor, " n"], labels: Int[Tensor, " n"], batch_size: int) -> float:
    """Share of an anchor's negatives that have its own label, over consecutive batches of an order. In [0, 1]."""
    parts = labels[order[: len(order) // batch_size * batch_size]].view(-1, batch_size)
    if batch_size < 2 or not len(parts):
        raise ValueError(f"batch_size must be between 2 and the {len(order)} images, got {batch_size}")
    same = (parts[:, :, None] == parts[:, None]).sum((1, 2)) - batch_size
    return float(same.float().mean() / (batch_size * (batch_size - 1)))


# ---------------------------------------------------------------------------------------------------------------------
# Hallucinator: a harder positive, made in feature space
# ---------------------------------------------------------------------------------------------------------------------


@float32
def hallucinate(
    z1: Float[Tensor, "n d"], z2: Float[Tensor, "n d"], amount: Float[Tensor, " n"]
) -> Float[Tensor, "n d"]:
    """z₂ + λ (z₂ - z₁) for normalised z: the second view pushed away from the first, by its own λ for every image.

    Hallucination (Wu et al., 2023). λ > 0 extrapolates, -1 < λ < 0 interpolates, 0 gives z₂.

    Raises ValueError for shapes that do not fit. The formula is our reading of the paper's description.
    """
    check_matrix("z1", z1, rows=1)
    check_matrix("z2", z2, like=z1)
    if amount.shape != (len(z1),):
        raise ValueError(f"amount must be one value for each of the {len(z1)} rows, got shape {tuple(amount.shape)}")
    z1, z2 = F.normalize(z1, dim=1), F.normalize(z2, dim=1)
    return z2 + amount[:, None] * (z2 - z1)


class Hallucinator(SimCLR):
    """SimCLR with a second positive pair (z₁, z_h), z_h made from the features of both views.

    mode       "extrapolate" (λ uniform in 0 … 1), "interpolate" (in -1 … 0), or "none": z_h = z₂
    nonlinear  z_h goes through a small residual network that the same loss trains

    Our choices, as the paper's were not to be confirmed: λ's range, the network (one hidden layer), and the mean of
    the two losses. The hallucination happens between head and loss, so it costs no pass through the encoder.
    """

    def __init__(
        self, encoder: nn.Module, dim: int = 128, tau: float = 0.2, mode: str = "extrapolate", nonlinear: bool = True
    ):
        super().__init__(encoder, dim, tau)
        if mode not in ("extrapolate", "interpolate", "none"):
            raise ValueError(f"mode must be 'extrapolate', 'interpolate' or 'none', got {mode!r}")
        self.sign = {"extrapolate": 1.0, "interpolate": -1.0, "none": 0.0}[mode]
        self.imagine = mlp([dim, dim, dim], norm=False) if nonlinear else None

    def forward(self, views: Float[Tensor, "two_n c h w"], index: Int[Tensor, "n"]) -> Float[Tensor, ""]:
        z = self.head(self.encoder(views))
        z1, z2 = z.chunk(2)
        imagined = torch.cat([z1, self.positive(z1, z2).to(z1.dtype)])
        return (self.loss(gather(z, views=2)) + self.loss(gather(imagined, views=2))) / 2

    def positive(self, z1: Float[Tensor, "n d"], z2: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """The hallucinated partner of z₁."""
        z = hallucinate(z1, z2, self.sign * torch.rand(len(z1), device=z1.device))
        return z if self.imagine is None else z + self.imagine(z)
