"""Von Mises–Fisher distributions on the sphere, and their mixture by EM, in as many dimensions as one likes."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...loss import check_finite, check_matrix
from ..many_kmeans import many_kmeans
from .log_bessel import bessel_ratio, log_iv


def log_vmf_constant(p: int, kappa: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """log C_p(κ), the normaliser of C_p(κ) exp(κ μ·x) on the unit sphere of p dimensions.

    (p/2 - 1) log κ - (p/2) log 2π - log I_{p/2-1}(κ); at κ = 0 minus the logarithm of the sphere's area.
    """
    kappa = kappa.double()
    safe = kappa.clamp_min(1e-30)
    value = (p / 2 - 1) * safe.log() - p / 2 * math.log(2 * math.pi) - log_iv(p / 2 - 1, safe)
    area = math.log(2) + p / 2 * math.log(math.pi) - math.lgamma(p / 2)
    return torch.where(kappa > 1e-30, value, torch.full_like(value, -area))


def fit_kappa(length: Float[Tensor, "*any"], p: int, steps: int = 2) -> Float[Tensor, "*any"]:
    """The concentration κ with A_p(κ) = I_{p/2}(κ) / I_{p/2-1}(κ) equal to a mean resultant length.

    Banerjee et al. (2005), κ₀ = R(p - R²)/(1 - R²), then Newton's steps of Sra (2012) with A' = 1 - A² - (p-1)/κ A.

    length  R in [0, 1]; from 1 - 1e-12 on it counts as that
    """
    length = length.double().clamp(0, 1 - 1e-12)
    kappa = length * (p - length.square()) / (1 - length.square())
    for _ in range(steps):
        at = kappa.clamp_min(1e-12)
        a = bessel_ratio(p / 2 - 1, at)
        slope = 1 - a.square() - (p - 1) / at * a
        kappa = torch.where(length > 0, (kappa - (a - length) / slope.clamp_min(1e-300)).clamp_min(0), kappa)
    return kappa


def sample_cosines(n: int, p: int, kappa: float, generator: torch.Generator) -> Float[Tensor, " n"]:
    """Cosines μ·x of n draws of a von Mises–Fisher distribution, by Wood's rejection (1994); float64.

    Raises ValueError for p < 2, n < 1 or kappa < 0.
    """
    if p < 2 or n < 1 or not 0 <= kappa < math.inf:
        raise ValueError(f"p must be at least 2, n at least 1, kappa at least 0, got {p}, {n}, {kappa}")
    b = (p - 1) / (2 * kappa + math.sqrt(4 * kappa**2 + (p - 1) ** 2))
    x0 = (1 - b) / (1 + b)
    c = kappa * x0 + (p - 1) * math.log1p(-(x0**2))
    found = torch.empty(0, dtype=torch.float64, device=generator.device)
    while len(found) < n:
        shape = torch.full((2 * n,), (p - 1) / 2, dtype=torch.float64, device=generator.device)
        one, two = (torch._standard_gamma(shape, generator=generator) for _ in range(2))
        z = one / (one + two)
        w = (1 - (1 + b) * z) / (1 - (1 - b) * z)
        u = torch.rand(2 * n, dtype=torch.float64, device=generator.device, generator=generator)
        keep = kappa * w + (p - 1) * torch.log1p(-x0 * w) - c >= u.log()
        found = torch.cat([found, w[keep]])
    return found[:n]


def sample_vmf(n: int, mu: Float[Tensor, " p"], kappa: float, generator: torch.Generator) -> Float[Tensor, "n p"]:
    """n draws from a von Mises–Fisher distribution around the unit vector mu, float64."""
    mu = mu.double()
    w = sample_cosines(n, len(mu), kappa, generator)[:, None]
    side = torch.randn(n, len(mu), dtype=torch.float64, generator=generator, device=mu.device)
    side = side - (side @ mu)[:, None] * mu
    return w * mu + (1 - w.square()).clamp_min(0).sqrt() * side / side.norm(dim=1, keepdim=True)


@dataclass(frozen=True)
class VMFMixture:
    """Fitted mixtures, one a restart: weights (r, k), unit means (r, k, p), kappa (r, k), score (r,) in nats a row."""

    weights: Float[Tensor, "r k"]
    means: Float[Tensor, "r k p"]
    kappa: Float[Tensor, "r k"]
    score: Float[Tensor, " r"]

    @property
    def best(self) -> int:
        """The restart with the highest likelihood."""
        return int(self.score.argmax())

    def log_joint(self, x: Float[Tensor, "n p"]) -> Float[Tensor, "r n k"]:
        """log π_k + log p(x | k)."""
        cosine = torch.einsum("np,rkp->rnk", x.to(self.means.dtype), self.means)
        return (self.weights.log() + log_vmf_constant(x.shape[1], self.kappa))[:, None] + self.kappa[:, None] * cosine

    def predict(self, x: Float[Tensor, "n p"]) -> Int[Tensor, "r n"]:
        """The component with the highest posterior."""
        return self.log_joint(x).argmax(2)


def vmf_mixture(
    x: Float[Tensor, "n p"], k: int, *, restarts: int, generator: torch.Generator, iterations: int = 50,
    tolerance: float = 1e-4, largest: float = 1e6, normaliser: bool = True,
) -> VMFMixture:  # fmt: skip
    """A mixture of k von Mises–Fisher distributions by EM, all restarts in one batch; Banerjee et al. (2005), soft.

    x           rows on the unit sphere; they are normalised here
    largest     κ is held below it: a component on a single row has none
    normaliser  False leaves log C_p(κ) out, and with it all that is hard: components then compete by κ alone

    Starts from k-means++ of the rows. float64. Raises ValueError for a row of zeros and what ``many_kmeans`` raises.
    """
    check_matrix("x", x)
    check_finite(x=x)
    size = x.norm(dim=1, keepdim=True)
    if bool((size == 0).any()):
        raise ValueError("x must have no row of zeros: it has no direction")
    x, p = (x / size).double(), x.shape[1]
    labels = many_kmeans(x, k, restarts=restarts, generator=generator).labels
    shares = torch.nn.functional.one_hot(labels, k).double()
    score = torch.full((restarts,), -math.inf, dtype=torch.float64, device=x.device)
    for _ in range(iterations):
        mass = shares.sum(1) + 1e-10
        total = torch.einsum("rnk,np->rkp", shares, x)
        length = total.norm(dim=2)
        kappa = fit_kappa((length / mass).clamp(max=1.0), p).clamp(max=largest)
        fitted = VMFMixture(mass / mass.sum(1, keepdim=True), total / length.clamp_min(1e-300)[..., None], kappa, score)
        joint = fitted.log_joint(x) if normaliser else fitted.log_joint(x) - log_vmf_constant(p, kappa)[:, None]
        before, evidence = score, joint.logsumexp(2)
        score, shares = evidence.mean(1), (joint - evidence[..., None]).exp()
        if bool((score - before < tolerance).all()):
            break
    return VMFMixture(fitted.weights, fitted.means, fitted.kappa, score)
