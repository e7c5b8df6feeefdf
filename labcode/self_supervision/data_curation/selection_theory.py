"""Theory of data selection (Kolossov, Montanari and Tandon, 2024): choose by a surrogate's uncertainty."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ...loss import check_positive, raised


def mislabelled_gaussians(
    replications: int, n: int, p: int, norm: float = 5.0, flip: float = 0.05, seed: int = 0
) -> tuple[Float[Tensor, "r n p"], Float[Tensor, "r n"], Float[Tensor, "r p"]]:
    """x ~ N(0, I_p), a parameter θ* of the given norm, and labels ±1, sign(θ*·x) except for a share ``flip``.

    Towards a statistical theory of data selection, section 3: the labels are *not* logistic, which is what lets a
    selection beat the full sample. Float64.
    """
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(replications, n, p, generator=g, dtype=torch.float64)
    theta = F.normalize(torch.randn(replications, p, generator=g, dtype=torch.float64), dim=1) * norm
    y = torch.einsum("rnp,rp->rn", x, theta).sign()
    return x, torch.where(torch.rand(replications, n, generator=g) < flip, -y, y), theta


def misspecified_error(
    theta: Float[Tensor, "*r p"], truth: Float[Tensor, "*r p"], flip: float = 0.05
) -> Float[Tensor, "*r"]:
    """The exact test error of sign(θ·x) on ``mislabelled_gaussians``: flip + (1 - 2 flip) · angle(θ, θ*)/π."""
    cosine = F.cosine_similarity(theta, truth, dim=-1).clamp(-1, 1)
    return flip + (1 - 2 * flip) * cosine.arccos() / math.pi


def inclusion(logits: Float[Tensor, "r n"], count: int, alpha: float) -> Float[Tensor, "r n"]:
    """Probability of choosing each sample: min(1, c · [p(1 - p)]^α), with c such that they sum to ``count``.

    logits  of the surrogate model, clipped to ±10; p = sigmoid
    count   expected number of samples, 1 … n
    alpha   above 0 prefers hard (uncertain) samples, below 0 easy ones, 0 is random

    c is found by bisection on its logarithm, in float64. Raises ValueError for a count out of range, an alpha that is
    not finite, and on a CPU for logits that are not.
    """
    n = logits.shape[-1]
    if not math.isfinite(alpha):
        raise ValueError(f"alpha must be finite, got {alpha}")
    if not 1 <= count <= n:
        raise ValueError(f"count must be between 1 and the {n} samples, got {count}")
    if logits.device.type == "cpu" and not bool(torch.isfinite(logits).all()):
        raise ValueError("logits must be finite, got NaN or infinity")
    kind, logits = logits.dtype, logits.double().clamp(-10, 10)
    score = alpha * (F.logsigmoid(logits) + F.logsigmoid(-logits))  # log of [p(1 - p)]^α
    low, high = -score.amax(-1, keepdim=True) - 50, -score.amin(-1, keepdim=True)
    for _ in range(80):
        middle = (low + high) / 2
        enough = (middle + score).exp().clamp(max=1).sum(-1, keepdim=True) >= count
        low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
    return (high + score).exp().clamp(max=1).to(kind)


def logistic(
    x: Float[Tensor, "r n p"], y: Float[Tensor, "r n"], weight: Float[Tensor, "r n"], lam: float, steps: int = 30
) -> Float[Tensor, "r p"]:
    """Ridge logistic regressions, all replications at once: argmin Σ wᵢ log(1 + exp(-yᵢ θ·xᵢ)) + λ n/2 ‖θ‖².

    y       labels ±1
    weight  0 leaves a sample out; 1/π makes a selection unbiased
    lam     λ > 0. It multiplies the *pool's* size n, whatever was selected

    Damped Newton steps: each is halved until the objective does not rise. Raises ValueError for λ <= 0, unlike
    shapes, and on a CPU for other labels and for values that are not finite.
    """
    check_positive(lam=lam)
    if y.shape != x.shape[:2] or weight.shape != y.shape:
        raise ValueError(f"y and weight must be {tuple(x.shape[:2])}, got {tuple(y.shape)} and {tuple(weight.shape)}")
    if x.device.type == "cpu":
        for name, values in (("x", x), ("weight", weight)):
            if not bool(torch.isfinite(values).all()):
                raise ValueError(f"{name} must be finite, got NaN or infinity")
        if not bool((y.abs() == 1).all()):
            raise ValueError("y must hold labels -1 and 1 alone")
    x, y, weight = raised(x), raised(y), raised(weight)
    r, n, p = x.shape
    theta = x.new_zeros(r, p)
    eye = lam * n * torch.eye(p, dtype=x.dtype, device=x.device)

    def objective(theta):
        margin = y * torch.einsum("rnp,rp->rn", x, theta)
        return (weight * F.softplus(-margin)).sum(1) + lam * n / 2 * theta.square().sum(1)

    for _ in range(steps):
        margin = y * torch.einsum("rnp,rp->rn", x, theta)
        slope, curve = weight * torch.sigmoid(-margin), weight * torch.sigmoid(margin) * torch.sigmoid(-margin)
        gradient = lam * n * theta - torch.einsum("rn,rnp->rp", slope * y, x)
        step = torch.linalg.solve((x * curve[:, :, None]).mT @ x + eye, gradient)
        size, before = x.new_ones(r, 1), objective(theta)
        for _ in range(6):
            worse = objective(theta - size * step) > before + 1e-12
            size = torch.where(worse[:, None], size / 2, size)
        theta = theta - size * step
        if bool(gradient.norm(dim=1).max() < 1e-8 * n):
            break
    return theta
