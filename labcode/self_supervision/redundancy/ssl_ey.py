"""SSL-EY (Chapman et al., 2024): canonical correlation without constraints, and what it is held against.

``ssl_ey`` and ``ey_halves`` are the loss. ``planted_views`` makes views whose canonical correlations are known,
``canonical_correlations`` finds them exactly, ``linear_cca`` by gradient steps on a loss.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from ...loss import check_matrix, float32, raised
from .cross_norm import Rows, Scalar, centred, check_views, cross_norm2

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
    both = torch.cat([centred(z1), centred(z2)]) / (len(z1) - 1) ** 0.5  # V is its second moment, tr C twice a·b
    cross = 2 * (both[: len(z1)] * both[len(z1) :]).sum()
    if other is None:
        return -2 * cross + cross_norm2(both, both)  # tr V² = ‖bothᵀ both‖²
    check_views(*other)
    if z1.device.type == "cpu" and not all(bool(torch.isfinite(z).all()) for z in other):
        raise ValueError("other must be finite, got NaN or infinity")
    if other[0].shape[1] != z1.shape[1]:
        raise ValueError(f"other must be as wide as z1, {z1.shape[1]}, got shape {tuple(other[0].shape)}")
    second = torch.cat([centred(z) for z in map(raised, other)]) / (len(other[0]) - 1) ** 0.5
    if both.shape[1] > len(both):
        return -2 * cross + (both @ second.T).square().sum()
    return -2 * cross + ((both.T @ both) * (second.T @ second)).sum()


def ey_halves(z1: Rows, z2: Rows) -> Scalar:
    """The unbiased ``ssl_ey`` of one batch: each half is the other's independent batch, and the two are averaged."""
    n = len(z1) // 2
    if n < 2:
        raise ValueError(f"z1 must have at least 4 rows, a half needs two to have a covariance, got {len(z1)}")
    first, second = (z1[:n], z2[:n]), (z1[n:], z2[n:])
    return (ssl_ey(*first, other=second) + ssl_ey(*second, other=first)) / 2


@float32
def sgha(z1: Rows, z2: Rows) -> Scalar:
    """The Hebbian rival of ``ssl_ey``: -2 tr C + tr(sg(C) V), where sg stops the gradient, so C weighs V's columns.

    Its gradient is the update of the stochastic generalised Hebbian algorithm (Chen et al., 2019), A W - B W (WᵀA W),
    as the released code of Unconstrained Stochastic CCA writes it, with C symmetrised; no function has this gradient.
    """
    check_views(z1, z2)
    a, b = (centred(z) / (len(z1) - 1) ** 0.5 for z in (z1, z2))
    c = a.T @ b + b.T @ a
    return -2 * c.trace() + (c.detach() * (a.T @ a + b.T @ b)).sum()


@float32
def whitened_correlation(z1: Rows, z2: Rows, ridge: float = 1e-3) -> Scalar:
    """Minus the sum of the batch's canonical correlations: deep CCA's objective, whitened with batch covariances.

    ridge  added to the covariances, >= 0 and never less than 1e-6 of their mean variance (1e-14 in float64): without
           it the covariance of fewer rows than columns has no inverse

    Raises ValueError for unlike views, n < 2 and a negative ridge.
    """
    check_views(z1, z2)
    if not 0 <= ridge < float("inf"):
        raise ValueError(f"ridge must be at least 0, got {ridge}")
    n, d = z1.shape
    inverse = []
    for z in (z1, z2):
        x = centred(z)
        size = x.detach().square().mean().mul(n / (n - 1)).sqrt()  # the mean feature has variance 1, at any scale
        size = torch.where(size > 0, size, torch.ones_like(size))
        x = x / size
        floor = (ridge / size**2).clamp(1e-6 if x.dtype == torch.float32 else 1e-14, 1e30)  # a root, however small z
        root = torch.linalg.cholesky(x.T @ x / (n - 1) + floor * torch.eye(d, device=x.device, dtype=x.dtype))
        inverse.append(torch.linalg.solve_triangular(root, x.T, upper=False))  # whitened, (d, n)
    return -torch.linalg.svdvals(inverse[0] @ inverse[1].T / (n - 1)).sum()


@torch.no_grad()
def canonical_correlations(x1: Rows, x2: Rows) -> Float[Tensor, " d"]:
    """All canonical correlations of two sets of d variables, in float64, largest first: the exact answer, n > d.

    Cosines between the spaces that the variables span (Björck and Golub); the scale of a variable does not matter, and
    where variables depend on one another the missing correlations are 0.

    Raises ValueError for fewer rows than columns, where the correlations say nothing, for unlike numbers of rows, and
    for values that are not finite.
    """
    bases = []
    for name, x in (("x1", x1), ("x2", x2)):
        check_matrix(name, x, rows=2)
        if len(x) <= x.shape[1]:
            raise ValueError(f"{name} must have more rows than columns, got shape {tuple(x.shape)}")
        if len(x) != len(x1):
            raise ValueError(f"{name} must have as many rows as x1, {len(x1)}, got {len(x)}")
        if not bool(torch.isfinite(x).all()):
            raise ValueError(f"{name} must be finite, got NaN or infinity")
        x = centred(x.double())
        size = x.abs().amax(0)
        u, s, _ = torch.linalg.svd(x / torch.where(size > 0, size, torch.ones_like(size)), full_matrices=False)
        bases.append(u * (s > 1e-10 * s[0]))
    return torch.linalg.svdvals(bases[0].T @ bases[1]).clamp_max(1)


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
