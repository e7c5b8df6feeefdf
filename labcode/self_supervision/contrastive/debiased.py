"""Debiased contrastive learning: negatives of the anchor's own class are subtracted (Chuang et al., 2020).

The estimator, the loss, an oracle that knows the labels, and classes on a circle whose means have a closed form.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...loss import check_matrix, check_positive, float32, unit_rows
from ...pairwise import off_diagonal
from ...parallel import gather
from .simclr import SimCLR


@float32
def debiased_mean(
    negative: Float[Tensor, "b N"], positive: Float[Tensor, "b M"], tau_plus: float, tau: float = 0.5
) -> Float[Tensor, " b"]:
    """The mean of exp(s) over true negatives, estimated from unlabelled samples and known positives: by the letter.

    Debiased contrastive learning (Chuang et al., 2020), eq. 7:
    g = max{ (mean_N exp(s⁻) - τ⁺ mean_M exp(s⁺)) / (1 - τ⁺), exp(-1/t) }.

    negative  exp(s⁻), s = cosine / t, of N unlabelled samples an anchor
    positive  exp(s⁺) of M samples of the anchor's own class
    tau_plus  τ⁺ in [0, 1), the share of that class among unlabelled samples
    tau       t, the temperature that made the scores: it sets the smallest value possible

    Raises ValueError for tau_plus out of range, tau <= 0, or no sample. The loss uses ``debiased_log_mean``, since
    exp(s) leaves float32 where t < 1/88.
    """
    _check_samples(negative, positive, tau_plus, tau)
    g = (negative.mean(1) - tau_plus * positive.mean(1)) / (1 - tau_plus)
    return g.clamp_min(torch.exp(-1 / tau) if isinstance(tau, Tensor) else math.exp(-1 / tau))  # learnt or given


@float32
def debiased_log_mean(
    negative: Float[Tensor, "b N"], positive: Float[Tensor, "b M"], tau_plus: float, tau: float = 0.5
) -> Float[Tensor, " b"]:
    """log of ``debiased_mean`` from the scores s themselves, so that any temperature will do.

    With a and b the logarithms of the two means, log(eᵃ - τ⁺eᵇ) = a + log(1 - exp(b + log τ⁺ - a)). Where the smallest
    value possible holds there is no gradient, as in the paper's maximum.

    negative, positive, tau_plus, tau  as ``debiased_mean``, but s = cosine / t in place of exp(s)
    """
    _check_samples(negative, positive, tau_plus, tau)
    mixed, own = (s.logsumexp(1) - math.log(s.shape[1]) for s in (negative, positive))
    if not tau_plus:
        return mixed  # an average of exp(s) is nowhere below the smallest value possible
    rest = own + math.log(tau_plus) - mixed
    g = lambda rest: mixed + (-rest.expm1()).log() - math.log1p(-tau_plus)  # noqa: E731
    with torch.no_grad():
        above = (rest < 0) & (g(rest) > -1 / tau)
    return torch.where(above, g(rest.where(above, -1.0)), -1 / tau)


def _check_samples(negative: Tensor, positive: Tensor, tau_plus: float, tau: float) -> None:
    check_matrix("negative", negative, rows=1)
    check_matrix("positive", positive, rows=1)
    check_positive(tau=tau)
    if not 0 <= tau_plus < 1:
        raise ValueError(f"tau_plus must be in [0, 1), got {tau_plus}")
    if len(positive) != len(negative):
        raise ValueError(f"positive must have a row for each of the {len(negative)} anchors, got {len(positive)}")


@float32
def debiased_nt_xent(
    z: Float[Tensor, "views_n d"], tau_plus: float = 0.1, tau: float = 0.5, views: int = 2
) -> Float[Tensor, ""]:
    """NT-Xent whose negatives are corrected for those of the anchor's own class; τ⁺ = 0 is ``nt_xent``.

    Debiased contrastive learning, eq. 8: -log e^{s⁺} / (e^{s⁺} + N g), with g of ``debiased_mean``, in the logarithm.

    z      unnormalised projections: row i + v·n is view v of image i, n >= 1; a single image has loss 0
    views  v >= 2; M = v - 1 positives an anchor, each once in the numerator, and N = v (n - 1) negatives

    The paper's code has two views, so M = 1. Raises ValueError as ``debiased_mean``, and for rows that are not whole
    images.
    """
    if views < 2:
        raise ValueError(f"views must be at least 2, got {views}")
    check_matrix("z", z, rows=views)
    if len(z) % views:
        raise ValueError(f"z must have {views} rows for every image, got {len(z)} rows")
    positive, negative = _scores(z, tau, views)
    if not negative.numel():
        return positive.sum() * 0
    total = math.log(negative.shape[1]) + debiased_log_mean(negative, positive, tau_plus, tau)
    return -F.logsigmoid(positive - total[:, None]).mean()


def _scores(z: Tensor, tau: float, views: int) -> tuple[Tensor, Tensor]:
    """cosine / τ of every row with its image's other views (v - 1) and with all other images' views."""
    check_positive(tau=tau)
    n, z = len(z) // views, unit_rows(z)
    score = z @ z.T / tau
    score = score.view(views, n, views, n).transpose(1, 2)  # (view, view, image, image)
    positive = off_diagonal(score.diagonal(dim1=2, dim2=3).permute(2, 0, 1)).transpose(0, 1)
    negative = off_diagonal(score).transpose(1, 2)
    return positive.reshape(len(z), views - 1), negative.reshape(len(z), -1)


@float32
def oracle_nt_xent(
    z: Float[Tensor, "two_n d"], labels: Int[Tensor, " n"], tau: float = 0.5, rescale: bool = True
) -> Float[Tensor, ""]:
    """NT-Xent with the false negatives taken out by their labels: what the label-free corrections aim at.

    labels   the class of each of the n images, any integers; n >= 1
    rescale  the true negatives' mean times N, as the debiased loss estimates it; else their plain sum

    An anchor without a true negative has only its positive, and loss 0. Raises ValueError as ``nt_xent``.
    """
    check_matrix("z", z, rows=2, even=True)
    check_positive(tau=tau)
    n = len(z) // 2
    if labels.shape != (n,):
        raise ValueError(f"labels must name the class of each of the {n} images, got shape {tuple(labels.shape)}")
    z, y = unit_rows(z), labels.repeat(2)
    logits = z @ z.T / tau
    true = y[:, None] != y
    positive = (z[:n] * z[n:]).sum(1).repeat(2) / tau
    total = logits.masked_fill(~true, -torch.inf).logsumexp(1)
    if rescale:
        total = total + torch.log((2 * n - 2) / true.sum(1).clamp_min(1).to(z.dtype))
    return -F.logsigmoid(positive - total).mean()


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

    Raises ValueError where exp(1 / tau), which s can reach, does not fit the angle's precision.
    """
    _check_reach(angle, tau)
    centre = 2 * math.pi / classes * torch.arange(classes, device=angle.device, dtype=angle.dtype)
    length = (kappa**2 + tau**-2 + 2 * kappa / tau * torch.cos(angle[:, None] - centre)).sqrt()
    scaled = torch.special.i0e(length) / torch.special.i0e(torch.full_like(length, kappa))
    mean = scaled * (length - kappa).exp()  # I₀(x) itself leaves float32 at x = 91
    return mean[:, 0], mean[:, 1:].mean(1)


def ring_scores(
    angle: Float[Tensor, " b"], unlabelled: int, positives: int, classes: int = 10, kappa: float = 10.0,
    tau: float = 0.5,
) -> tuple[Float[Tensor, "b N"], Float[Tensor, "b M"]]:  # fmt: skip
    """exp(s) of anchors on the circle of ``ring_means`` with N samples of all classes and M of their own."""
    _check_reach(angle, tau)
    spread = torch.distributions.VonMises(torch.zeros((), dtype=angle.dtype), torch.tensor(kappa, dtype=angle.dtype))
    noise_angle = spread.sample((len(angle), unlabelled + positives))
    which = torch.randint(classes, (len(angle), unlabelled))
    noise_angle[:, :unlabelled] += 2 * math.pi / classes * which
    scores = (torch.cos(noise_angle - angle[:, None]) / tau).exp()
    return scores[:, :unlabelled], scores[:, unlabelled:]


def _check_reach(angle: Tensor, tau: float) -> None:
    check_positive(tau=tau)
    if 1 / tau > math.log(torch.finfo(angle.dtype).max):
        raise ValueError(f"tau must be so large that exp(1 / tau) fits {angle.dtype}, got {tau}")
