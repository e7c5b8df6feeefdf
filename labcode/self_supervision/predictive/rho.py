"""Several clips of one video as each other's positives: ρMoCo, ρSimCLR, ρBYOL and ρSwAV.

Feichtenhofer et al., "A Large-Scale Study on Unsupervised Spatiotemporal Representation Learning" (2021).
"""

import copy
import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Generator, Tensor, nn

from ...loss import check_matrix, check_positive, float32, unit_rows
from ...nets import mlp
from ...transport import sinkhorn_codes
from ..contrastive import moco_loss
from .clips import Clips, cut

Scalar = Float[Tensor, ""]


def rho_clips(
    frames: Shaped[Tensor, "n t c h w"], rho: int, length: int, span: int | None = None, *, generator: Generator
) -> Shaped[Tensor, "m l c h w"]:
    """ρ clips a video at random times; rows j·n + i are clip j of video i. ρ = 1 gives two copies of one clip.

    A Large-Scale Study on Unsupervised Spatiotemporal Representation Learning (Feichtenhofer et al., 2021), section 3.

    length  frames of a clip
    span    largest distance in frames between two starts; None is the whole video

    Raises ValueError for rho < 1, a negative span, and a length that the videos do not have.
    """
    n, t = frames.shape[:2]
    if rho < 1 or (span is not None and span < 0):
        raise ValueError(f"rho must be at least 1 and span at least 0, got {rho} and {span}")
    if not 1 <= length <= t:
        raise ValueError(f"length must be between 1 and the {t} frames, got {length}")
    last = t - length
    span = last if span is None else min(span, last)
    draw = torch.rand(1 + rho, n, generator=generator, device=frames.device)
    window = (draw[0] * (last - span + 1)).floor()  # where the video's clips may begin at the earliest
    start = (window + (draw[1:] * (span + 1)).floor()).long()
    return cut(frames, (start if rho > 1 else start.repeat(2, 1)).flatten(), length)


@float32
def rho_nt_xent(z: Float[Tensor, "two_n d"], rho: int = 2, tau: float = 0.1) -> Scalar:
    """NT-Xent with ρ clips of each video: every clip against each of its ρ - 1 positives, then the mean.

    Feichtenhofer et al., section 3.1, SimCLR. A term's denominator holds its own positive and the clips of other
    videos, never the clip itself nor its other positives. For ρ = 2 this is NT-Xent.

    z    unnormalised projections (ρ·n, d); rows j·n + i are clips of video i, n >= 2 videos. Rows of zeros get no
         gradient (``loss.unit_rows``)
    tau  temperature > 0, 0.1 in the paper

    Raises ValueError for a number of rows that ρ does not divide, a single video, which has nothing to be told from,
    ρ < 2, or tau <= 0.
    """
    n = _videos("z", z, rho, 2)
    check_positive(tau=tau)
    z = unit_rows(z)
    scores = z @ z.T / tau
    video = torch.arange(len(z), device=z.device) % n
    others = scores.masked_fill(video[:, None] == video, -torch.inf).logsumexp(1)  # of other videos
    own = scores.view(rho, n, rho, n).diagonal(dim1=1, dim2=3)  # of the same video, the clip itself among them
    own = own.transpose(1, 2).reshape(len(z), rho)
    itself = torch.eye(rho, dtype=torch.bool, device=z.device).repeat_interleave(n, 0)
    terms = F.softplus(others[:, None] - own)
    return terms.masked_fill(itself, 0).sum() / (len(z) * (rho - 1))


@float32
def rho_moco(
    q: Float[Tensor, "two_n d"], k: Float[Tensor, "two_n d"], queue: Float[Tensor, "K d"], rho: int = 2,
    tau: float = 0.1,
) -> Scalar:  # fmt: skip
    """InfoNCE of every clip's query against the key of each other clip of its video, and a queue: ``moco_loss`` means.

    Feichtenhofer et al., section 3.1, MoCo. No gradient reaches k or the queue; no clip is its own key. One video is
    enough: its negatives are in the queue.
    """
    n = _videos("q", q, rho)
    check_matrix("k", k, like=q)
    terms = [moco_loss(q, k.roll(j * n, 0), queue, tau) for j in range(1, rho)]
    return torch.stack(terms).mean()


@float32
def rho_byol(p: Float[Tensor, "two_n d"], k: Float[Tensor, "two_n d"], rho: int = 2) -> Scalar:
    """Squared distance 2 - 2 cos between every clip's prediction and the target of each other clip of its video.

    Feichtenhofer et al., section 3.1, BYOL. No gradient reaches k. One video is enough: there are no negatives. A row
    of zeros, which agrees with nothing, gets no gradient.

    Raises ValueError for a number of rows that ρ does not divide, and ρ < 2.
    """
    n = _videos("p", p, rho)
    check_matrix("k", k, like=p)
    p, k = unit_rows(p), unit_rows(k.detach())
    agree = torch.stack([(p * k.roll(j * n, 0)).sum(1).mean() for j in range(1, rho)])
    return 2 - 2 * agree.mean()


@float32
def rho_swav(
    scores: Float[Tensor, "two_n K"], rho: int = 2, tau: float = 0.1, eps: float = 0.05, iterations: int = 3
) -> Scalar:
    """Codes of the first two clips of each video, predicted by its other clips.

    Feichtenhofer et al., section 3.1, SwAV: the cross entropy -Σ code · log softmax(scores / τ), meaned over pairs of a
    code and another clip.

    scores  cosines of every clip with every prototype, (ρ·n, K), n >= 2 videos

    Raises ValueError for a number of rows that ρ does not divide, a single video, whose codes would be equal for all
    prototypes whatever it shows, ρ < 2, or tau <= 0.
    """
    n = _videos("scores", scores, rho, 2)
    check_positive(tau=tau, eps=eps)
    log_p = (scores / tau).log_softmax(1).view(rho, n, -1)
    terms = []
    for code in range(2):
        q = sinkhorn_codes(scores[code * n : (code + 1) * n], eps, iterations)
        cross = -(q * log_p).sum(2).mean(1)  # (rho,)
        terms.append((cross.sum() - cross[code]) / (rho - 1))
    return torch.stack(terms).mean()


def _videos(name: str, z: Tensor, rho: int, least: int = 1) -> int:
    """How many videos the rows are of, after a look at both."""
    if rho < 2:
        raise ValueError(f"rho must be at least 2, got {rho}")
    check_matrix(name, z, rows=rho)
    if len(z) % rho:
        raise ValueError(f"{name} must have {rho} rows a video, got {len(z)} rows")
    if len(z) < least * rho:
        raise ValueError(
            f"{name} must hold {least} videos or more, since one alone has nothing to be told from: got {len(z)} rows"
        )
    return len(z) // rho


class Rho(nn.Module):
    """One encoder, one head, and the loss of ρ clips in the given framework.

    framework  "simclr", "moco", "byol" or "swav"
    rho        clips a video; 1 is two augmentations of one clip
    dim        width of the projection
    momentum   of the target network at the start, MoCo and BYOL; it rises to 1 by a cosine over ``steps``
    queue      keys remembered by MoCo, all ρ clips of a video enqueued
    prototypes of SwAV

    Departures: BYOL's and SwAV's heads have the same two layers as the others'; targets see the same augmented clips.
    """

    def __init__(
        self, encoder: nn.Module, framework: str, rho: int = 2, dim: int = 64, tau: float = 0.1, momentum: float = 0.97,
        steps: int = 100, queue: int = 512, prototypes: int = 16,
    ):  # fmt: skip
        super().__init__()
        if framework not in ("simclr", "moco", "byol", "swav"):
            raise ValueError(f"framework must be 'simclr', 'moco', 'byol' or 'swav', got {framework!r}")
        d = encoder.features
        self.encoder, self.head, self.framework, self.rho = encoder, mlp([d, d, dim]), framework, max(2, rho)
        self.tau, self.momentum, self.steps, self.seen = tau, momentum, steps, 0
        if framework in ("moco", "byol"):
            self.target = copy.deepcopy(nn.Sequential(self.encoder, self.head)).requires_grad_(False)
        if framework == "moco":
            self.register_buffer("queue", unit_rows(torch.randn(queue, dim)))
        if framework == "byol":
            self.predictor = mlp([dim, d, dim])
        if framework == "swav":
            self.prototypes = nn.Linear(dim, prototypes, bias=False)

    def forward(self, views: Clips, index: Int[Tensor, " videos"]) -> Scalar:
        z = self.head(self.encoder(views))
        if self.framework == "simclr":
            return rho_nt_xent(z, self.rho, self.tau)
        if self.framework == "swav":
            with torch.autocast(z.device.type, enabled=False):  # cosines in half precision are too coarse for codes
                scores = unit_rows(z) @ unit_rows(self.prototypes.weight).T
            return rho_swav(scores, self.rho, self.tau)
        with torch.no_grad():
            if self.training:
                self.follow()
            k = unit_rows(self.target(views))
        if self.framework == "byol":
            return rho_byol(self.predictor(z), k, self.rho)
        loss = rho_moco(z, k, self.queue, self.rho, self.tau)
        if self.training:
            self.queue = torch.cat([k, self.queue])[: len(self.queue)]
        return loss

    @torch.no_grad()
    def follow(self) -> None:
        """θ' ← m θ' + (1 - m) θ, m rising to 1 by a cosine."""
        rest = (1 - self.momentum) * (1 + math.cos(math.pi * min(1.0, self.seen / self.steps))) / 2
        ours = [*self.encoder.parameters(), *self.head.parameters()]
        torch._foreach_lerp_(list(self.target.parameters()), ours, rest)
        self.seen += 1
