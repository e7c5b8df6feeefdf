"""Redundancy reduction: no negatives, but every feature must say something that the others do not.

Pure losses on the projections of two views (``barlow_twins``, ``mixed_barlow``, ``ssl_ey``, ``vicreg``, ``e2mc``), the
closed-form predictors of a linear BYOL, and what RankMe needs. ``TwoViews``, ``MixedBarlow`` and ``LinearBYOL`` hold
the parameters; rows i and i + n of their ``views`` show the same image.
"""

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..evaluate import effective_rank
from ..loss import check_matrix, check_positive, float32
from ..nets import mlp
from ..parallel import gather

Rows = Float[Tensor, "n d"]
Other = Float[Tensor, "m d"]
Square = Float[Tensor, "d d"]
Scalar = Float[Tensor, ""]

# ---------------------------------------------------------------------------------------------------------------------
# Cross-correlations: Barlow Twins, its mixed guard, VICReg
# ---------------------------------------------------------------------------------------------------------------------


def cross_norm2(a: Rows, b: Rows, gram: bool | None = None) -> Scalar:
    """‖aᵀb‖², the squared Frobenius norm of a d×d matrix that need not be made.

    As ‖aᵀb‖² = ⟨aaᵀ, bbᵀ⟩, two n×n Gram matrices give the same value, and the gradients 2 b bᵀa and 2 a aᵀb. Forward
    and backward cost 3 n d² multiplications one way and 3 n² d the other (2 n d² and 1.5 n² d where b is a), so None
    takes the Gram matrices when d > n.

    gram  True or False forces the way. Once differentiable
    """
    return _CrossNorm2.apply(a, b, a.shape[1] > a.shape[0] if gram is None else gram)


class _CrossNorm2(torch.autograd.Function):
    """Autograd would multiply twice as often: it does not know that Gram matrices are symmetric."""

    @staticmethod
    def forward(ctx, a: Tensor, b: Tensor, gram: bool) -> Tensor:
        ctx.gram, ctx.same = gram, a is b
        made = (_gram(a),) if gram and ctx.same else (_gram(a), _gram(b)) if gram else (a.T @ b,)
        ctx.save_for_backward(a, b, *made)
        return (made[0] * made[-1]).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        a, b, *made = ctx.saved_tensors
        to_a = (made[-1] @ a if ctx.gram else b @ made[0].T).mul_(2 * grad)
        if ctx.same:
            return to_a, to_a, None  # each argument's half of the gradient
        return to_a, (made[0] @ b if ctx.gram else a @ made[0]).mul_(2 * grad), None


def _gram(a: Rows) -> Tensor:
    """aaᵀ; in strips from the diagonal on, mirrored, where multiplications cost more than the copy."""
    n, side = len(a), 128
    if a.device.type != "cpu" or n <= side:
        return a @ a.T
    out = a.new_empty(n, n)
    for i in range(0, n, side):
        out[i : i + side, i:] = a[i : i + side] @ a[i:].T
        out[i + side :, i : i + side] = out[i : i + side, i + side :].T
    return out


def standardise(z: Rows, eps: float = 1e-5) -> Rows:
    """Every feature with mean 0 and biased variance 1 over the batch: BatchNorm without parameters."""
    return F.batch_norm(z, None, None, training=True, eps=eps)


@float32
def cross_correlation(z1: Rows, z2: Rows) -> Square:
    """C, the correlation over the batch of every feature of one view with every feature of the other; in [-1, 1].

    Barlow Twins (Zbontar et al., 2021), eq. 2.
    """
    _views(z1, z2)
    return standardise(z1).T @ standardise(z2) / len(z1)


@float32
def barlow_twins(
    z1: Rows, z2: Rows, lam: float = 0.0051, on: float = 1.0, gram: bool | None = None, within: bool = False
) -> Scalar:
    """Cross-correlation matrix towards the identity: on · Σᵢ (1 - Cᵢᵢ)² + λ · Σᵢ≠ⱼ Cᵢⱼ².

    Barlow Twins, eq. 1. Gradients flow through both views.

    z1, z2  projections (n, d) of the two views, n >= 2, not normalised
    lam     λ >= 0; the paper's 0.0051 belongs to d = 8192. The sum has d² terms: take about 1/d when d changes
    on      weight of the diagonal; 1 in the paper, 0 leaves the off-diagonal term alone
    gram    see ``cross_norm2``: C itself is never made where the n×n matrices are cheaper
    within  a control, not the paper's: redundancy is measured within each view, Σᵢ≠ⱼ of both autocorrelations halved

    Raises ValueError for unlike views, n < 2, and negative weights.
    Departure: 1e-5 under the root of the variance, as in BatchNorm, so a constant feature has correlation 0.
    """
    _views(z1, z2)
    if lam < 0 or on < 0:
        raise ValueError(f"lam and on must be at least 0, got {lam} and {on}")
    a, b = standardise(z1), standardise(z2)
    diagonal = (a * b).mean(0)
    loss = on * (1 - diagonal).square().sum()
    if lam and within:
        for z in (a, b):
            loss = loss + lam / 2 * (cross_norm2(z, z, gram) / len(z) ** 2 - z.square().mean(0).square().sum())
    elif lam:
        loss = loss + lam * (cross_norm2(a, b, gram) / len(a) ** 2 - diagonal.square().sum())
    return loss


@float32
def mixed_barlow(
    z_mixed: Rows, z1: Rows, z2: Rows, alpha: float | Tensor, order: Int[Tensor, " n"], gram: bool | None = None
) -> Scalar:
    """How far the mixed images' features are from the mixture of features: ‖C_MA - G_MA‖² + ‖C_MB - G_MB‖².

    Mixed Barlow Twins (Bandara et al., 2023): C_MA = z_Mᵀz_A/n is measured, G_MA = α z_Aᵀz_A/n + (1-α) z_B[order]ᵀz_A/n
    is what linear interpolation would give; likewise with B. All d² entries count, gradients flow through the targets.

    z_mixed  projections of α · x_A + (1-α) · x_B[order]
    alpha    in [0, 1], one for the batch
    order    the permutation of the second view

    Raises ValueError for shapes that do not fit together.

    Both differences have the residual r = z_M - α z_A - (1-α) z_B[order] as first factor, so this is
    (‖rᵀz_A‖² + ‖rᵀz_B‖²)/n², without a target matrix.
    """
    _views(z1, z2)
    check_matrix("z_mixed", z_mixed, rows=2, like=z1)
    if order.shape != (len(z1),):
        raise ValueError(f"order must be a permutation of the {len(z1)} rows, got shape {tuple(order.shape)}")
    m, a, b = standardise(z_mixed), standardise(z1), standardise(z2)
    residual = m - alpha * a - (1 - alpha) * b[order]
    return (cross_norm2(residual, a, gram) + cross_norm2(residual, b, gram)) / len(a) ** 2


@float32
def vicreg(
    z1: Rows, z2: Rows, sim: float = 25.0, std: float = 25.0, cov: float = 1.0, gram: bool | None = None
) -> Scalar:
    """Invariance, variance and covariance: the base loss of the continued training.

    VICReg (Bardes et al., 2022), eq. 1 to 6: sim · mean squared distance + std · mean hinge(1 - √(Var + 1e-4)),
    averaged over views + cov · Σᵢ≠ⱼ Cov²ᵢⱼ / d, summed over views.

    Departure: distances are averaged over features and hinges over views, as in the authors' code, to which the
    weights 25, 25 and 1 belong. Raises ValueError for unlike views and n < 2.
    """
    _views(z1, z2)
    loss, (n, d) = sim * F.mse_loss(z1, z2), z1.shape
    for z in (z1, z2):
        centred = z - z.mean(0)
        variance = centred.square().sum(0) / (n - 1)
        loss = loss + std / 2 * F.relu(1 - (variance + 1e-4).sqrt()).mean()
        loss = loss + cov / d * (cross_norm2(centred, centred, gram) / (n - 1) ** 2 - variance.square().sum())
    return loss


@float32
def covariance_penalty(z: Rows, gram: bool | None = None) -> Scalar:
    """Σᵢ≠ⱼ Cov(z)²ᵢⱼ / d over a batch of n >= 2 rows."""
    check_matrix("z", z, rows=2)
    n, d = z.shape
    centred = z - z.mean(0)
    return (cross_norm2(centred, centred, gram) / (n - 1) ** 2 - z.var(0).square().sum()) / d


# ---------------------------------------------------------------------------------------------------------------------
# Canonical correlation without constraints
# ---------------------------------------------------------------------------------------------------------------------


@float32
def ssl_ey(z1: Rows, z2: Rows, other: tuple[Other, Other] | None = None) -> Scalar:
    """Eckart-Young loss of two views: -2 tr C + tr(V V'), whose minimum is minus the sum of squared correlations.

    Unconstrained Stochastic CCA (Chapman et al., 2024): C = 2 z₁ᵀz₂/(n-1), V = z₁ᵀz₁/(n-1) + z₂ᵀz₂/(n-1), centred.
    Nothing is normalised and there is no weight to set: V tells the features to be uncorrelated and how large to be.

    other  the two views of an independent batch, which gives V': an unbiased estimate. None takes V' = V, the released
           SSL-EY, biased upwards by one batch's noise
    """
    _views(z1, z2)
    cross, within = _cross_within(z1, z2)
    if other is None:
        return -2 * cross + within.square().sum()
    _views(*other)
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
    _views(z1, z2)
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


# ---------------------------------------------------------------------------------------------------------------------
# Entropy of each feature: E2MC
# ---------------------------------------------------------------------------------------------------------------------


@float32
def m_spacing_entropy(u: Rows, m: int | None = None, eps: float = 1e-7) -> Float[Tensor, " d"]:
    """Differential entropy of every column in nats, from the gaps between its sorted values (Vasicek).

    E2MC (Chakraborty et al., 2024): H = 1/(n-m) Σᵢ log((n+1)/m · (u₍ᵢ₊ₘ₎ - u₍ᵢ₎) + eps). On [0, 1] the largest
    entropy is 0, of the uniform distribution.

    m    spacing, 1 … n-1; None is round(√n)
    eps  1e-7; values that tie give log(eps) each

    Raises ValueError for n < 2 and an m out of range. A finite sample is biased downwards by a few hundredths of a nat.
    """
    check_matrix("u", u, rows=2)
    n = len(u)
    m = max(1, round(n**0.5)) if m is None else m
    if not 1 <= m < n:
        raise ValueError(f"m must be between 1 and {n - 1}, got {m}")
    ordered = u.sort(0).values
    return ((n + 1) / m * (ordered[m:] - ordered[:-m]) + eps).log().mean(0)


@float32
def e2mc(z1: Rows, z2: Rows, entropy: float = 10.0, cov: float = 1.0) -> Scalar:
    """Maximum entropy of each feature and no pairwise covariance: what is added to a trained model's own loss.

    cov · L_cov - entropy · mean_d H_d, of the embeddings mapped to (0, 1) by the sigmoid (for VICReg), averaged over
    views. Weights 10 and 1 are the defaults of the authors' parser.
    """
    _views(z1, z2)
    total = z1.new_zeros(())
    for u in (z1.sigmoid(), z2.sigmoid()):
        if entropy:
            total = total - entropy / 2 * m_spacing_entropy(u).mean()
        if cov:
            total = total + cov / 2 * covariance_penalty(u)
    return total


@float32
def uniformity_loss(z: Rows, t: float = 2.0) -> Scalar:
    """log mean exp(-t ‖zᵢ - zⱼ‖²) over pairs on the unit sphere (Wang and Isola, 2020): the rival add-on."""
    check_matrix("z", z, rows=2)
    return F.pdist(F.normalize(z, dim=1)).square().mul(-t).exp().mean().log()


def distance_to_uniform(u: Rows) -> float:
    """Mean over columns of the Kolmogorov-Smirnov distance to the uniform distribution on [0, 1]."""
    n = len(u)
    grid = torch.arange(n + 1, device=u.device, dtype=u.dtype)[:, None] / n
    ordered = u.sort(0).values
    return torch.maximum(grid[1:] - ordered, ordered - grid[:-1]).amax(0).mean().item()


# ---------------------------------------------------------------------------------------------------------------------
# Linear BYOL with closed-form predictors
# ---------------------------------------------------------------------------------------------------------------------


def newton_schulz(s: Square, steps: int = 9) -> tuple[Square, Square]:
    """The square root of a positive semi-definite matrix and its inverse, by matrix products alone.

    Coupled iteration: A₀ = S/‖S‖, B₀ = I; A ← A(3I - BA)/2, B ← (3I - BA)B/2. Returns A √‖S‖ → S^½ and B/√‖S‖ → S^-½.
    Small eigenvalues converge last: one of 1e-6 ‖S‖ needs about 20 steps.
    """
    norm = s.norm().clamp_min(1e-12)
    eye = torch.eye(len(s), device=s.device, dtype=s.dtype)
    a, b = s / norm, eye
    for _ in range(steps):
        middle = (3 * eye - b @ a) / 2
        a, b = a @ middle, middle @ b
    return a * norm.sqrt(), b / norm.sqrt()


def visser(s: Square, steps: int = 36, eta: float = 0.5) -> Square:
    """The square root of a positive semi-definite matrix of norm at most 1: P₀ = I/(2η), P ← P + η(S - P²)."""
    p = torch.eye(len(s), device=s.device, dtype=s.dtype) / (2 * eta)
    for _ in range(steps):
        p = p + eta * (s - p @ p)
    return p


@torch.no_grad()
def closed_form_predictor(z: Rows, target: Rows, kind: str, alpha: float = 0.0) -> Square:
    """The linear predictor of BYOL from one batch, by matrix products alone.

    The Edge of Orthogonality (Richemond et al., 2023). With S = zᵀz and T = zᵀz':
    "ne"       2T - ST, the first terms of the Neumann series of the least-squares optimum S⁻¹T
    "visser"   S^½ by Visser's iteration
    "ns"       S^½ by nine Newton-Schulz steps
    "stiefel"  the orthogonal polar factor of S, Newton-Schulz on SᵀS: (SᵀS)^-½ Sᵀ

    z, target  projections of the online network and of the target for the other view
    alpha      ridge: P + α I

    Departure: rows are normalised and S and T divided by ‖S‖, so that all four iterations converge and α means the same
    for each; the loss does not see the predictor's scale. No gradient.
    Raises ValueError for another kind and for unlike matrices.
    """
    check_matrix("z", z, rows=2)
    check_matrix("target", target, rows=2, like=z)
    z, target = F.normalize(z.float(), dim=1), F.normalize(target.float(), dim=1)
    with torch.autocast(z.device.type, enabled=False):
        s = z.T @ z
        norm = s.norm()
        s = s / norm
        if kind == "ne":
            t = z.T @ target / norm
            p = 2 * t - s @ t
        elif kind == "visser":
            p = visser(s)
        elif kind == "ns":
            p = newton_schulz(s)[0]
        elif kind == "stiefel":
            p = newton_schulz(s.T @ s)[1] @ s.T
        else:
            raise ValueError(f"kind must be 'ne', 'visser', 'ns' or 'stiefel', got {kind!r}")
    return p + alpha * torch.eye(len(p), device=p.device)


def stable_rank(p: Square) -> float:
    """‖P‖² (Frobenius) over ‖P‖² (spectral): between 1 and the rank, and the rank itself for a projection."""
    values = torch.linalg.svdvals(p.double())
    return float(values.square().sum() / values[0].square().clamp_min(1e-300))


def polar_distance(p: Square) -> float:
    """How far P is from orthogonal: min over scales c of ‖P - cQ‖/‖P‖, Q its orthogonal polar factor. In [0, 1]."""
    values = torch.linalg.svdvals(p.double())
    return float((1 - values.sum() ** 2 / (len(values) * values.square().sum().clamp_min(1e-300))).clamp_min(0).sqrt())


class Projected(nn.Module):
    """An ``encoder`` and a ``head``, with both as one ``network``."""

    encoder: nn.Module
    head: nn.Module

    @property
    def network(self) -> nn.Sequential:
        return nn.Sequential(self.encoder, self.head)

    def project(self, views: Float[Tensor, "n c h w"]) -> Rows:
        return self.head(self.encoder(views))


class LinearBYOL(Projected):
    """BYOL (Grill et al., 2020) whose predictor is one matrix: trained, closed-form, or the identity.

    dim            width of the projection
    predictor      "trained", "identity", or a kind of ``closed_form_predictor``
    alpha          ridge of the closed form
    momentum       of the target network, τ; 0 makes the target the online network of the last step
    memory         of the closed-form predictor over batches
    stop_gradient  False lets the gradient into the target branch, which is then the online network itself

    ``trace`` keeps the predictor of every tenth training step.
    """

    def __init__(self, encoder: nn.Module, dim: int = 64, predictor: str = "trained", alpha: float = 0.0,
                 momentum: float = 0.95, memory: float = 0.5, stop_gradient: bool = True):  # fmt: skip
        super().__init__()
        if not 0 <= momentum < 1 or not 0 <= memory < 1:
            raise ValueError(f"momentum and memory must be in [0, 1), got {momentum} and {memory}")
        self.encoder, self.head = encoder, mlp([encoder.features, encoder.features, dim], last_norm=True)
        self.kind, self.alpha, self.momentum, self.memory = predictor, alpha, momentum, memory
        self.stop_gradient, self.trace, self.seen = stop_gradient, [], 0
        self.target = nn.ModuleList(copy.deepcopy(m) for m in (self.encoder, self.head)).requires_grad_(False)
        if predictor == "trained":
            self.predictor = nn.Parameter(torch.empty(dim, dim))
            nn.init.kaiming_uniform_(self.predictor, a=5**0.5)
        else:
            self.register_buffer("predictor", torch.eye(dim))

    @torch.no_grad()
    def follow(self) -> None:
        """The target takes a step of 1 - τ towards the online network; buffers are copied."""
        online = nn.ModuleList([self.encoder, self.head])
        theirs, ours = list(self.target.parameters()), [p.detach() for p in online.parameters()]
        torch._foreach_lerp_(theirs, ours, 1 - self.momentum)

    def forward(self, views: Float[Tensor, "two_n c h w"], index: Int[Tensor, " n"]) -> Scalar:
        z = self.project(views)
        if self.stop_gradient:
            if self.training:
                self.follow()
            with torch.no_grad():
                wanted = self.target[1](self.target[0](views)).roll(len(views) // 2, 0)
        else:
            wanted = z.roll(len(views) // 2, 0)
        if self.training and self.kind not in ("trained", "identity"):
            pairs = gather(z.detach(), views=2), gather(wanted.detach(), views=2)
            fresh = closed_form_predictor(*pairs, self.kind, self.alpha)
            self.predictor.lerp_(fresh, 1 - self.memory if self.seen else 1)
        if self.training:
            if self.seen % 10 == 0:
                self.trace.append(self.predictor.detach().clone())
            self.seen += 1
        predicted = z @ self.predictor.to(z.dtype)
        return 2 - 2 * F.cosine_similarity(predicted.float(), wanted.float(), dim=1).mean()


# ---------------------------------------------------------------------------------------------------------------------
# Modules for the losses above
# ---------------------------------------------------------------------------------------------------------------------


class TwoViews(Projected):
    """Encoder, projector and a loss of the two views' projections.

    loss   ``loss(z1, z2)``
    dim    width of the projection
    head   "linear", "mlp" (one hidden layer of width dim), or a trained projector to go on with
    scale  multiplies the loss: AdamW hardly feels it, SGD at full scale does
    """

    def __init__(self, encoder: nn.Module, loss: Callable[[Rows, Rows], Scalar], dim: int = 256,
                 head: str | nn.Module = "mlp", scale: float = 1.0):  # fmt: skip
        super().__init__()
        check_positive(scale=scale)
        self.encoder, self.loss, self.scale = encoder, loss, scale
        if head in ("linear", "mlp"):
            head = mlp([encoder.features, dim] if head == "linear" else [encoder.features, dim, dim])
        self.head = head

    def forward(self, views: Float[Tensor, "two_n c h w"], index: Int[Tensor, " n"]) -> Scalar:
        return self.scale * self.loss(*gather(self.project(views), views=2).chunk(2))


class MixedBarlow(Projected):
    """Barlow Twins with the mixed guard: ``barlow_twins`` + weight · λ · ``mixed_barlow``.

    dim     width of the projector
    lam     λ; None is 1/dim
    weight  λ_reg; 4 in the paper's CIFAR recipe, 0 is plain Barlow Twins without the third forward

    Views and mixture go through the network one by one, as in the paper: with batch statistics of their own the guard
    is exactly 0 at α = 0 and α = 1. α is uniform, Beta(1, 1), one a batch.
    """

    def __init__(self, encoder: nn.Module, dim: int = 256, lam: float | None = None, weight: float = 4.0,
                 scale: float = 1.0):  # fmt: skip
        super().__init__()
        check_positive(scale=scale)
        self.encoder, self.head = encoder, mlp([encoder.features, dim, dim])
        self.lam, self.weight, self.scale = 1 / dim if lam is None else lam, weight, scale

    def forward(self, views: Float[Tensor, "two_n c h w"], index: Int[Tensor, " n"]) -> Scalar:
        x1, x2 = views.chunk(2)
        z1, z2 = gather(self.project(x1)), gather(self.project(x2))
        loss = barlow_twins(z1, z2, self.lam)
        if self.weight:
            alpha, order = gather(torch.rand(1, device=x1.device))[0], torch.randperm(len(x1), device=x1.device)
            loss = loss + self.weight * self.lam * self.guard(x1, x2, z1, z2, alpha, order)
        return self.scale * loss

    def guard(self, x1, x2, z1: Rows, z2: Rows, alpha: float | Tensor, order: Int[Tensor, " n"]) -> Scalar:
        """``mixed_barlow`` of the images mixed with α: the third forward.

        With several processes the images are one's own, z1 and z2 those of all.
        """
        mixed, everyone = gather(self.project(alpha * x1 + (1 - alpha) * x2[order])), gather(order)
        first = torch.arange(len(everyone), device=order.device) // len(order) * len(order)
        return mixed_barlow(mixed, z1, z2, alpha, everyone + first)


class FlatNet(nn.Module):
    """A two-layer perceptron on the pixels, for long trainings on few images: a tenth of a conv net's cost."""

    def __init__(self, pixels: int = 192, features: int = 256):
        super().__init__()
        self.features = features
        self.body = nn.Sequential(
            nn.Flatten(), nn.Linear(pixels, features, bias=False), nn.BatchNorm1d(features), nn.ReLU(),
            nn.Linear(features, features, bias=False), nn.BatchNorm1d(features), nn.ReLU(),
        )  # fmt: skip

    def forward(self, x: Float[Tensor, "n c h w"]) -> Rows:
        return self.body(x - 0.5)


# ---------------------------------------------------------------------------------------------------------------------
# RankMe and the other label-free scores
# ---------------------------------------------------------------------------------------------------------------------

rankme = effective_rank


def alpha_req(z: Rows, skip: int = 1) -> float:
    """Decay exponent of the covariance spectrum, λ_k ∝ k^-α, by least squares on the logarithms (α-ReQ).

    Agrawal et al., 2022: near 1 is said to be best; large means few directions carry all.

    skip  leading eigenvalues to leave out
    """
    check_matrix("z", z, rows=3)
    values = torch.linalg.svdvals((z - z.mean(0)).double()).square()
    values = values[values > 1e-10 * values[0]][skip:]
    if len(values) < 2:
        return float("inf")
    x = torch.arange(skip + 1, skip + 1 + len(values), dtype=torch.float64, device=z.device).log()
    y = values.log()
    x, y = x - x.mean(), y - y.mean()
    return float(-(x * y).sum() / (x * x).sum())


def spearman(a: list[float], b: list[float]) -> float:
    """Rank correlation of two lists in [-1, 1]; NaN where one of them is constant."""
    from scipy.stats import spearmanr

    return float(spearmanr(a, b).statistic)


def regret(scores: list[float], accuracies: list[float]) -> float:
    """What choosing the run with the highest score loses against the best run, in accuracy."""
    chosen = max(range(len(scores)), key=lambda i: scores[i])
    return max(accuracies) - accuracies[chosen]


def _views(z1: Tensor, z2: Tensor) -> None:
    check_matrix("z1", z1, rows=2)
    check_matrix("z2", z2, rows=2, like=z1)
