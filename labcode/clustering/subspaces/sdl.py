"""Supervised dictionary learning with covariates (Lee et al., 2022): one factorisation that rebuilds and classifies.

As in the paper samples are *columns*: X (p, n), dictionary W (p, r), codes H (r, n), labels y (n,) in {0, 1} and
covariates X' (q, n). The filter model's logit is βᵀWᵀx + γᵀx', the feature model's βᵀh + γᵀx'.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ...loss import check_matrix, check_positive

Columns = Float[Tensor, "p n"]
MODELS = ("filter", "feature")


@dataclass
class Fitted:
    """What was learnt: ``score`` and ``rebuilt`` take new columns, ``objective`` and ``trace`` are of each step."""

    model: str
    w: Float[Tensor, "p r"]
    beta: Float[Tensor, " r"]
    gamma: Float[Tensor, " q"]
    lifted: Tensor  # [A, B]: (p, 1 + n) of the filter model, (1 + p, n) of the feature model
    nonnegative: bool = False
    objective: list[float] = field(default_factory=list)
    trace: list[Tensor] = field(default_factory=list)

    def codes(self, x: Columns) -> Float[Tensor, "r n"]:
        """The codes of new columns: least squares, or non-negative ones by 200 projected gradient steps."""
        if not self.nonnegative:
            return torch.linalg.lstsq(self.w, x).solution
        gram, match = self.w.T @ self.w, self.w.T @ x
        rate, h = 1 / float(torch.linalg.matrix_norm(gram, 2)), torch.zeros_like(match)
        for _ in range(200):
            h = (h - rate * (gram @ h - match)).clamp_min(0)
        return h

    def score(self, x: Columns, covariates: Float[Tensor, "q n"] | None = None) -> Float[Tensor, " n"]:
        """The logit of each column."""
        a = (self.w @ self.beta) @ x if self.model == "filter" else self.beta @ self.codes(x)
        return a if covariates is None else a + self.gamma @ covariates

    def rebuilt(self, x: Columns) -> float:
        """The share of the squared norm of x that the dictionary misses."""
        return float((x - self.w @ self.codes(x)).square().sum() / x.square().sum())


def _check(x, y, rank, xi, nu, model):
    check_matrix("x", x)
    if y.shape != (x.shape[1],):
        raise ValueError(f"y must be one label a column ({x.shape[1]},), got {tuple(y.shape)}")
    if not 1 <= rank <= min(x.shape):
        raise ValueError(f"rank must be between 1 and {min(x.shape)}, got {rank}")
    if xi < 0 or nu < 0:
        raise ValueError(f"xi and nu must be at least 0, got {xi} and {nu}")
    if model not in MODELS:
        raise ValueError(f"model must be one of {', '.join(MODELS)}, got {model!r}")


def objective(
    a: Float[Tensor, " m"], b: Columns, gamma: Tensor, x: Columns, y: Tensor, covariates: Tensor, xi: float, nu: float,
    model: str,
) -> Tensor:  # fmt: skip
    """Σ logistic(y, logit) + ξ ‖X - B‖² + ν (‖A‖² + ‖B‖² + ‖γ‖²): eq. 4 in the lifted variables, with its ridge."""
    logit = (a @ x if model == "filter" else a) + gamma @ covariates
    loss = F.binary_cross_entropy_with_logits(logit, y.to(x.dtype), reduction="sum")
    return loss + xi * (x - b).square().sum() + nu * (a.square().sum() + b.square().sum() + gamma.square().sum())


def truncate(m: Tensor, rank: int) -> Tensor:
    """The nearest matrix of this rank: what its first singular vectors span (Eckart and Young, 1936).

    By the eigenvectors of the smaller Gram matrix: a fifth of a decomposition's time. In float64 where the small
    singular values matter.
    """
    if m.shape[0] > m.shape[1]:
        return truncate(m.T, rank).T
    top = torch.linalg.eigh(m @ m.T).eigenvectors[:, -rank:]
    return top @ (top.T @ m)


def lpgd(
    x: Columns, y: Float[Tensor, " n"], rank: int, xi: float = 1.0, *, model: str = "filter", nu: float = 0.0,
    covariates: Float[Tensor, "q n"] | None = None, rate: float | None = None, steps: int = 100,
    start: Tensor | None = None, trace: bool = False,
) -> Fitted:  # fmt: skip
    """Low-rank projected gradient descent on the lifted problem: one gradient step on A, B and γ, one truncation.

    Algorithm 1. With the filter A = Wβ (p,), B = WH (p, n) and [A, B] has rank <= r; with the feature model it is
    A = βᵀH (n,) and [A; B]. The objective is convex in [A, B]; where its largest curvature is under three times the
    smallest, the steps converge linearly to the global optimum (theorem 1).

    xi     ξ >= 0, weight of reconstruction
    nu     ν >= 0, of a ridge: the smallest curvature is 2ν for the filter model
    rate   τ > 0; 1 over the largest curvature if None. The released code's t^-b is left out
    start  of [A, B], zeros if None
    trace  keep [A, B] after every step

    Raises ValueError for shapes that do not fit, weights below 0, and an unknown model.
    """
    _check(x, y, rank, xi, nu, model)
    n = x.shape[1]
    covariates = x.new_zeros(0, n) if covariates is None else covariates
    y, gamma = y.to(x.dtype), x.new_zeros(len(covariates))
    inside = torch.cat([x, covariates]) if model == "filter" else covariates
    steep = (_norm(inside) + (model == "feature")) / 4 if len(inside) else 0.25  # the logistic loss bends by 1/4
    rate = rate or 1 / (max(steep, 2 * xi) + 2 * nu)
    check_positive(rate=rate)
    axis = 1 if model == "filter" else 0
    lifted = torch.zeros(len(x) + 1 - axis, n + axis, dtype=x.dtype) if start is None else start.clone()
    found = Fitted(model, x[:, :rank], x[0, :rank], gamma, lifted)
    for _ in range(steps):
        a, b = (lifted[:, 0], lifted[:, 1:]) if axis else (lifted[0], lifted[1:])
        found.objective.append(float(objective(a, b, gamma, x, y, covariates, xi, nu, model)))
        off = ((a @ x if axis else a) + gamma @ covariates).sigmoid() - y  # p - y
        slope_a = (x @ off if axis else off) + 2 * nu * a
        slope_b = 2 * xi * (b - x) + 2 * nu * b
        slope = torch.cat([slope_a[:, None], slope_b], 1) if axis else torch.cat([slope_a[None], slope_b])
        gamma = gamma - rate * (covariates @ off + 2 * nu * gamma)
        lifted = truncate(lifted - rate * slope, rank)
        if trace:
            found.trace.append(lifted)
    u, s, v = torch.linalg.svd(lifted, full_matrices=False)
    u, v = u[:, :rank] * s[:rank], v[:rank]
    found.lifted, found.gamma = lifted, gamma
    if axis:  # [A, B] = W [β', H]: a basis W of length 1 makes A = Wβ
        found.w, found.beta = u / s[:rank].clamp_min(1e-12), s[:rank] * v[:, 0]
    else:  # [A; B] = [βᵀ; W] H
        found.w, found.beta = u[1:], u[0]
    return found


def bcd(
    x: Columns, y: Float[Tensor, " n"], rank: int, xi: float = 1.0, *, model: str = "filter", nu: float = 1e-3,
    covariates: Float[Tensor, "q n"] | None = None, rounds: int = 60, inner: int = 2, nonnegative: bool = True,
    generator: torch.Generator | None = None,
) -> Fitted:  # fmt: skip
    """Block coordinate descent on the factors themselves: projected gradient steps on H, then on W, then β and γ anew.

    Algorithm 2: not convex, so it ends at a stationary point, after O(ε⁻¹ log² ε⁻¹) rounds for a gap of ε (theorem 2).
    Each block's objective is convex and its step 1 over the block's largest curvature: the objective never rises.

    nu           ν > 0 keeps the weights of separable labels finite; here of W, H, β and γ
    inner        steps on H and on W
    nonnegative  W and H, as in the paper: a dictionary of parts, each with columns of length at most 1

    Departure: β and γ are brought to their minimum by Newton's steps, in place of gradient steps.
    Raises ValueError as ``lpgd``.
    """
    _check(x, y, rank, xi, nu, model)
    n = x.shape[1]
    covariates = x.new_zeros(0, n) if covariates is None else covariates
    y, gamma, beta = y.to(x.dtype), x.new_zeros(len(covariates)), x.new_zeros(rank)
    draw = torch.rand if nonnegative else torch.randn
    w = F.normalize(draw(len(x), rank, generator=generator, dtype=x.dtype), dim=0)
    h = draw(rank, n, generator=generator, dtype=x.dtype) * float(x.abs().mean())
    keep = (lambda m: m.clamp_min(0)) if nonnegative else (lambda m: m)
    found = Fitted(model, w, beta, gamma, x[:0], nonnegative)
    broad = float(torch.linalg.matrix_norm(x, 2)) ** 2
    for _ in range(rounds):
        for _ in range(inner):
            off = _off(model, w, h, beta, gamma, x, y, covariates)
            slope = 2 * xi * w.T @ (w @ h - x) + 2 * nu * h + (beta[:, None] * off if model == "feature" else 0)
            extra = float(beta @ beta) / 4 if model == "feature" else 0.0
            h = keep(h - slope / (2 * xi * _norm(w) + 2 * nu + extra + 1e-9))
        for _ in range(inner):
            off = _off(model, w, h, beta, gamma, x, y, covariates)
            slope = 2 * xi * (w @ h - x) @ h.T + 2 * nu * w
            extra = float(beta @ beta) * broad / 4 if model == "filter" else 0.0
            slope = slope + (torch.outer(x @ off, beta) if model == "filter" else 0)
            w = keep(w - slope / (2 * xi * _norm(h) + 2 * nu + extra + 1e-9))
            w = w / w.norm(dim=0).clamp_min(1)
        seen = torch.cat([w.T @ x if model == "filter" else h, covariates])
        both = logistic(seen, y, nu)
        beta, gamma = both[:rank], both[rank:]
        a = w @ beta if model == "filter" else beta @ h
        found.objective.append(float(objective(a, w @ h, gamma, x, y, covariates, xi, 0.0, model)
                                     + nu * (w.square().sum() + h.square().sum() + both.square().sum())))  # fmt: skip
    found.w, found.beta, found.gamma = w, beta, gamma
    return found


def _off(model, w, h, beta, gamma, x, y, covariates):
    """The predicted probability less the label, of each column."""
    logit = (w @ beta) @ x if model == "filter" else beta @ h
    return (logit + gamma @ covariates).sigmoid() - y


def _norm(m: Tensor) -> float:
    return float(torch.linalg.matrix_norm(m, 2)) ** 2


def two_steps(
    x: Columns, y: Tensor, rank: int, *, nonnegative: bool = False, covariates: Tensor | None = None, nu: float = 0.0,
    generator: torch.Generator | None = None,
) -> Fitted:  # fmt: skip
    """The rival: first the factorisation alone (PCA without centring, or NMF), then logistic regression on codes."""
    if nonnegative:
        import warnings

        from sklearn.decomposition import NMF

        seed = int(torch.randint(2**31 - 1, (1,), generator=generator))
        learner = NMF(rank, init="nndsvda", random_state=seed, max_iter=100, tol=1e-3)
        with warnings.catch_warnings():  # the last digits of its objective do not matter here
            warnings.simplefilter("ignore")
            w = torch.from_numpy(learner.fit(x.T.numpy()).components_.T.copy()).to(x.dtype)
        w = w / w.norm(dim=0).clamp_min(1e-12)
    else:
        w = torch.linalg.svd(x, full_matrices=False).U[:, :rank]
    found = Fitted("feature", w, x.new_zeros(rank), x.new_zeros(0), x[:0], nonnegative)
    q = 0 if covariates is None else len(covariates)
    seen = found.codes(x) if q == 0 else torch.cat([found.codes(x), covariates])
    weights = logistic(seen, y, nu)
    found.beta, found.gamma = weights[:rank], weights[rank:]
    return found


def logistic(x: Columns, y: Tensor, nu: float = 0.0, steps: int = 50) -> Float[Tensor, " p"]:
    """The weights (p,) that minimise Σ logistic(y, wᵀx) + ν ‖w‖², by Newton's steps; there is no intercept."""
    w = x.new_zeros(len(x))
    for _ in range(steps):
        p = (w @ x).sigmoid()
        slope = x @ (p - y.to(x.dtype)) + 2 * nu * w
        curve = (x * (p * (1 - p)).clamp_min(1e-6)) @ x.T + (2 * nu + 1e-8) * torch.eye(len(x), dtype=x.dtype)
        step = torch.linalg.solve(curve, slope)
        w = w - step
        if float(step.abs().max()) < 1e-9:
            break
    return w


def f_score(score: Tensor, y: Tensor) -> float:
    """F1 of the predictions score > 0: the harmonic mean of precision and recall of label 1; 0 where none is found."""
    hit = float(((score > 0) & (y == 1)).sum())
    return 2 * hit / max(1.0, float((score > 0).sum() + (y == 1).sum()))


def judged(model: Fitted, x: Columns, y: Tensor, covariates: Tensor | None = None) -> tuple[float, float, float]:
    """Of new columns: accuracy, F-score, and the share of the squared norm that is not rebuilt."""
    score = model.score(x, covariates)
    return float(((score > 0) == (y == 1)).double().mean()), f_score(score, y), model.rebuilt(x)


def digit_mixtures(n: int, seed: int, lean: float = 1.0, side: int = 10) -> tuple[Columns, Float[Tensor, " n"]]:
    """The authors' semi-synthetic design: columns mix 2s and 5s with noise, labels ask for another direction.

    n     columns
    lean  0: the deciding direction lies in the span of the 2s and 5s; 1: it is 4s less 7s outside of that span
    side  of the digits in pixels, p = side²

    Labels are drawn with the logistic probability of the standardised projection, times 4. Noise may be negative.
    """
    from ...data import digits

    images, kind = digits("mnist")
    shapes = F.interpolate(images[:, None], size=side, mode="area").flatten(1).double()
    g = torch.Generator().manual_seed(seed)
    drawn = []
    for digit in (2, 5, 4, 7):
        pool = shapes[kind == digit]
        drawn.append(pool[torch.randint(len(pool), (5,), generator=g)])
    w = torch.cat(drawn[:2]).T
    noise = 0.25 * torch.randn(side**2, n, dtype=torch.float64, generator=g)
    x = w @ torch.rand(10, n, dtype=torch.float64, generator=g) / 2 + noise
    inside, outside = w[:, :5].sum(1) - w[:, 5:].sum(1), drawn[2].sum(0) - drawn[3].sum(0)
    outside = outside - w @ torch.linalg.lstsq(w, outside[:, None]).solution[:, 0]
    project = lambda a: (a @ x - (a @ x).mean()) / (a @ x).std()  # noqa: E731
    logit = (1 - lean) * project(inside) + lean * project(outside)
    chance = (4 * logit / logit.std()).sigmoid()
    return x, (torch.rand(n, dtype=torch.float64, generator=g) < chance).double()


def on_mixtures(
    learner: Callable, n: int, seed: int, *, lean: float = 1.0, positive: bool = False
) -> tuple[float, float, float]:
    """A learner on 2n ``digit_mixtures``: it sees the first half of the columns and is ``judged`` on the second.

    learner   (x, y, covariates, generator) -> Fitted
    positive  columns are cut off at 0 and have an intercept as covariate, as methods of parts want them; else they
              are centred by the first half's mean and have none
    """
    x, y = digit_mixtures(2 * n, seed, lean)
    x = x.clamp_min(0) if positive else x - x[:, :n].mean(1, keepdim=True)
    one = torch.ones(1, n, dtype=x.dtype) if positive else None
    model = learner(x[:, :n], y[:n], one, torch.Generator().manual_seed(seed))
    return judged(model, x[:, n:], y[n:], one)


def planted_classifier(
    n: int, generator: torch.Generator, p: int = 20
) -> tuple[Columns, Float[Tensor, " n"], Float[Tensor, " p"]]:
    """n noisy columns of rank 3, labels that follow logistic regression on them, and the planted weights A."""
    draw = {"dtype": torch.float64, "generator": generator}
    w = torch.linalg.qr(torch.randn(p, 3, **draw)).Q
    true = w @ torch.tensor([1.0, -1.0, 0.5], dtype=torch.float64)
    x = w @ (2 * torch.randn(3, n, **draw)) + 0.3 * torch.randn(p, n, **draw)
    return x, (torch.rand(n, **draw) < (true @ x).sigmoid()).double(), true
