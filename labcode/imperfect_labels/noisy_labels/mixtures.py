"""Which of two bumps a loss lies in: beta and Gaussian mixtures of two components, for many networks at once."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

EDGE = 1e-4  # losses are kept this far from 0 and 1


@dataclass(frozen=True)
class TwoBumps:
    """Two components for each row: the first has the lower mean. All (rows, 2).

    kind    "beta": ``a`` and ``b`` are its two shapes; "gaussian": mean and variance
    weight  shares that add up to 1
    """

    kind: str
    a: Tensor
    b: Tensor
    weight: Tensor

    @property
    def mean(self) -> Float[Tensor, "r 2"]:
        return self.a / (self.a + self.b) if self.kind == "beta" else self.a

    def log_joint(self, x: Float[Tensor, "r N"]) -> Float[Tensor, "r N 2"]:
        """Logarithm of weight times density."""
        a, b, x = self.a[:, None], self.b[:, None], x[..., None]
        if self.kind == "beta":
            density = (a - 1) * x.log() + (b - 1) * torch.log1p(-x) + _log_one_over_beta(a, b)
        else:
            density = -((x - a) ** 2) / (2 * b) - 0.5 * torch.log(2 * torch.pi * b)
        return density + self.weight.log()[:, None]

    def log_likelihood(self, x: Float[Tensor, "r N"]) -> Float[Tensor, " r"]:
        """Mean over the samples, nats."""
        return self.log_joint(x).logsumexp(-1).mean(1)

    def high(self, x: Float[Tensor, "r N"]) -> Float[Tensor, "r N"]:
        """Posterior of the component with the higher mean."""
        return self.log_joint(x).softmax(-1)[..., 1]

    def looked_up(self, x: Float[Tensor, "r N"], bins: int = 100) -> Float[Tensor, "r N"]:
        """``high`` from a table of ``bins`` places in [0, 1], which never falls after its maximum: a loss beyond it is
        no cleaner for being larger. As in the released code of the beta mixture."""
        places = torch.linspace(EDGE, 1 - EDGE, bins, dtype=x.dtype, device=x.device)
        table = self.high(places.expand(len(x), bins))
        top = table.argmax(1, keepdim=True)
        beyond = torch.arange(bins, device=x.device) >= top
        table = torch.where(beyond, table.gather(1, top), table)
        return table.gather(1, (x * bins).long().clamp(0, bins - 1))


def _two_means(x: Float[Tensor, "r N"], steps: int = 10) -> tuple[Tensor, Tensor, Tensor]:
    """Means, variances and shares of the two clusters of each row by k-means, begun at its two extremes."""
    centre = torch.stack([x.amin(1), x.amax(1)], 1)
    for _ in range(steps + 1):
        high = (x > centre.mean(1, keepdim=True)).to(x.dtype)
        share = torch.stack([1 - high, high], -1) + 1e-12
        total = share.sum(1)
        centre = (share * x[..., None]).sum(1) / total
    var = (share * (x[..., None] - centre[:, None]) ** 2).sum(1) / total
    return centre, var + 5e-4, total / total.sum(1, keepdim=True)


def _log_one_over_beta(a: Tensor, b: Tensor) -> Tensor:
    return torch.lgamma(a + b) - torch.lgamma(a) - torch.lgamma(b)


def normalised(loss: Float[Tensor, "..."], clip: tuple[float, float] = (0.05, 0.95)) -> Float[Tensor, "r N"]:
    """Each row's losses clipped to two of its quantiles and brought to [1e-4, 1 - 1e-4], as in the released code.

    loss  (rows, N)

    A row of one value becomes 1e-4 throughout. Raises ValueError for losses that are no matrix.
    """
    if loss.ndim != 2 or not loss.shape[1]:
        raise ValueError(f"loss must be (rows, N) with N at least 1, got {tuple(loss.shape)}")
    loss = loss.detach().double()
    low, high = (torch.quantile(loss, c, dim=1, keepdim=True) for c in clip)
    loss = torch.minimum(torch.maximum(loss, low), high)
    return ((loss - low) / (high - low).clamp_min(1e-12)).clamp(EDGE, 1 - EDGE)


def fit_two(x: Float[Tensor, "r N"], kind: str = "beta", steps: int = 10) -> TwoBumps:
    """Two components for each row of x, by expectation and maximisation.

    x      in (0, 1) for "beta", as ``normalised`` makes it; any finite values for "gaussian"
    steps  of EM; 10 in both papers

    Beta (Arazo et al. 2019, section 3.1): begun at shapes (1, 2) and (2, 1); the new shapes have the weighted mean m
    and variance v, a = m (m (1 - m) / v - 1), b = a (1 - m) / m, which is not the maximum of the likelihood. Gaussian:
    begun at two means, as scikit-learn does; 5e-4 is added to the variances, as in Albert et al. 2024.
    Raises ValueError for an unknown kind and beta values outside (0, 1).
    """
    if kind not in ("beta", "gaussian"):
        raise ValueError(f"kind must be 'beta' or 'gaussian', got {kind!r}")
    if kind == "beta" and bool(((x <= 0) | (x >= 1)).any()):
        raise ValueError("x must lie in (0, 1) for a beta mixture: see normalised")
    x = x.double()
    rows = len(x)
    if kind == "beta":
        a, b = x.new_tensor([1.0, 2.0]).repeat(rows, 1), x.new_tensor([2.0, 1.0]).repeat(rows, 1)
    else:
        a, b, weight = _two_means(x)
    found = TwoBumps(kind, a, b, torch.full_like(a, 0.5) if kind == "beta" else weight)
    for _ in range(steps):
        share = found.log_joint(x).softmax(-1) + 1e-12
        total = share.sum(1)
        m = (share * x[..., None]).sum(1) / total
        v = (share * (x[..., None] - m[:, None]) ** 2).sum(1) / total
        if kind == "beta":
            v = torch.minimum(v.clamp_min(1e-6), 0.99 * m * (1 - m))
            a = m * (m * (1 - m) / v - 1)
            b = a * (1 - m) / m
        else:
            a, b = m, v + 5e-4
        found = TwoBumps(kind, a, b, total / total.sum(1, keepdim=True))
    order = found.mean.argsort(1)
    return TwoBumps(kind, *(part.gather(1, order) for part in (found.a, found.b, found.weight)))
