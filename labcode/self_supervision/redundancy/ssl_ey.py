"""SSL-EY (Chapman et al., 2024): canonical correlation without constraints, and what it is held against.

``ssl_ey`` and ``ey_halves`` are the loss. ``planted_views`` makes views whose canonical correlations are known,
``canonical_correlations`` finds them exactly, ``linear_cca`` by gradient steps on a loss.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from ...loss import float32
from .cross_norm import Rows, Scalar, check_views

Other = Float[Tensor, "m d"]
Square = Float[Tensor, "d d"]


@float32
def ssl_ey(z1: Rows, z2: Rows, other: tuple[Other, Other] | None = None) -> Scalar:
    """Eckart-Young loss of two views: -2 tr C + tr(V V'), whose minimum is minus the sum of squared correlations.

    Unconstrained Stochastic CCA (Chapman et al., 2024): C = 2 z₁ᵀz₂/(n-1), V = z₁ᵀz₁/(n-1) + z₂ᵀz₂/(n-1), centred.
    Nothing is normalised and there is no weight to set: V tells the features to be uncorrelated and how large to be.

    other  the two views of an independent batch, which gives V': an unbiased estimate. None takes V' = V, the released
           SSL-EY, biased upwards by one batch's noise
    """
    check_views(z1, z2)
    cross, within = _cross_within(z1, z2)
    if other is None:
        return -2 * cross + within.square().sum()
    check_views(*other)
    return -2 * cross + (within * _cross_within(*other)[1]).sum()


def _cross_within(z1: Rows, z2: Rows) -> tuple[Scalar, Square]:
    a, b = z1 - z1.mean(0), z2 - z2.mean(0)
    return 2 * (a * b).sum() / (len(a) - 1), (a.T @ a + b.T @ b) / (len(a) - 1)


def ey_halves(z1: Rows, z2: Rows) -> Scalar:
    """The unbiased ``ssl_ey`` of one batch: each half is the other's independent batch, and the two are averaged."""
    n = len(z1) // 2
    first, second = (z1[:n], z2[:n]), (z1[n:], z2[n:])
    return (ssl_ey(*first, other=second) + ssl_ey(*second, other=first)) / 2


@float32
def whitened_correlation(z1: Rows, z2: Rows, ridge: float = 1e-3) -> Scalar:
    """Minus the sum of the batch's canonical correlations: deep CCA's objective, whitened with batch covariances."""
    check_views(z1, z2)
    return -_correlations(z1, z2, ridge).sum()


def _correlations(x1: Rows, x2: Rows, ridge: float = 0.0) -> Float[Tensor, " d"]:
    a, b = x1 - x1.mean(0), x2 - x2.mean(0)
    eye = ridge * torch.eye(a.shape[1], device=a.device, dtype=a.dtype)
    left, right = (torch.linalg.cholesky(x.T @ x / (len(x) - 1) + eye) for x in (a, b))
    half = torch.linalg.solve_triangular(left, a.T @ b / (len(a) - 1), upper=False)
    return torch.linalg.svdvals(torch.linalg.solve_triangular(right, half.T, upper=False))


def canonical_correlations(x1: Rows, x2: Rows) -> Float[Tensor, " d"]:
    """All canonical correlations of two sets of variables, in float64, largest first: the exact answer, n > 2d.

    Raises ValueError for fewer rows than columns, where the covariances have no inverse.
    """
    if len(x1) <= x1.shape[1]:
        raise ValueError(f"x1 must have more rows than columns, got shape {tuple(x1.shape)}")
    return _correlations(x1.double(), x2.double())


def planted_views(n: int, p: int, rho: tuple[float, ...], seed: int = 0) -> tuple[Rows, Rows]:
    """Two Gaussian views (n, p) with the given canonical correlations, hidden by a random mixing of each view."""
    g = torch.Generator().manual_seed(seed)
    wanted = torch.zeros(p)
    wanted[: len(rho)] = torch.tensor(rho)
    x1 = torch.randn(n, p, generator=g)
    x2 = wanted * x1 + (1 - wanted**2).sqrt() * torch.randn(n, p, generator=g)
    spread = torch.linspace(0.5, 2, p)  # unequal variances, so that the largest are not the most correlated
    mixings = [torch.linalg.qr(torch.randn(p, p, generator=g))[0] for _ in range(2)]
    order = torch.randperm(p, generator=g)
    return (x1 * spread[order]) @ mixings[0], (x2 * spread[order.flip(0)]) @ mixings[1]


def linear_cca(
    loss: Callable[[Rows, Rows], Scalar], x1: Rows, x2: Rows, k: int, steps: int, batch_size: int, lr: float,
    seed: int = 0,
) -> tuple[Float[Tensor, "p k"], Float[Tensor, "p k"]]:  # fmt: skip
    """Weights of two linear maps trained by Adam on ``loss(x1 W1, x2 W2)`` over random batches; cosine to zero."""
    g = torch.Generator().manual_seed(seed)
    w1, w2 = ((0.1 * torch.randn(x.shape[1], k, generator=g)).requires_grad_() for x in (x1, x2))
    optim = torch.optim.Adam([w1, w2], lr=lr)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optim, steps)
    for _ in range(steps):
        index = torch.randint(len(x1), (batch_size,), generator=g)
        optim.zero_grad()
        loss(x1[index] @ w1, x2[index] @ w2).backward()
        optim.step()
        rate.step()
    return w1.detach(), w2.detach()
