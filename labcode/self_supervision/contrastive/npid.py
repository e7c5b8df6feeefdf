"""NPID: every image is a class of its own, and a memory bank holds the class vectors (Wu et al., 2018)."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...loss import check_index, check_matrix, check_positive, float32, unit_rows
from .moco import moco_loss


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
    return (unit_rows(f) - old).square().sum(1).mean()


def _unit_rows(f: Tensor, bank: Tensor, index: Tensor | None = None, noise_index: Tensor | None = None) -> tuple:
    """f and bank, normalised, after a look at all that the instance losses take."""
    check_matrix("f", f, rows=1)
    check_matrix("bank", bank, rows=2)
    if bank.shape[1] != f.shape[1]:
        raise ValueError(f"bank must have rows of {f.shape[1]} values like f, got {bank.shape[1]}")
    if index is not None and index.shape != (len(f),):
        raise ValueError(f"index must name the image of each of the {len(f)} rows, got shape {tuple(index.shape)}")
    for name, images in (("index", index), ("noise_index", noise_index)):
        if images is not None:
            check_index(name, images, len(bank))
    if noise_index is not None and (noise_index.ndim != 2 or len(noise_index) != len(f) or not noise_index.numel()):
        raise ValueError(f"noise_index must be ({len(f)}, m) with m >= 1, got shape {tuple(noise_index.shape)}")
    return unit_rows(f), unit_rows(bank)


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
        start = unit_rows(torch.randn(images, dim))
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
        f, old = unit_rows(f), self.bank[index]
        new = unit_rows(self.momentum * old + (1 - self.momentum) * f)
        self.moved = (f - old).norm(dim=1).mean()
        self.bank = self.bank.index_copy(0, index, new)
