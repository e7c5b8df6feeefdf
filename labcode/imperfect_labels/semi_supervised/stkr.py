"""Spectrally Transformed Kernel Regression: unlabelled points bend the kernel, ridge regression does the rest.

Zhai and colleagues 2024. Of N points n have labels; S = G / N is the Gram matrix of a base kernel K
over their number, with eigenvalues t in [0, 1]. A function s of them gives the kernel of the regression:

    K_s(x, x') = Σ_p π_p K^p(x, x'),   s(t) = Σ_p π_p t^p,   f(x) = k_s(x)ᵀ a,   (s(S)_nn + ρ I) a = y,   ρ = nβ / N

identity is KRR, which sees labelled points only; t^p looks p hops far; the *inverse Laplacian* t / (1 - ηt) is the
sum of η^(p-1) t^p; a step at the d-th eigenvalue is kernel PCA. s(t) = O(t) for each, and what is given here is the
ratio s(t) / t: K_s(x, ·) = K(x, X) s(S) / S, so a new point needs its K(x, X) and nothing else. That is the
*inductive* estimator.

Departures: the base kernel of a graph is the lazy walk ½ (I + D^-½ W D^-½), positive semi-definite as the theory wants;
the paper's graphs have the walk itself. Richardson's iterations follow the paper's text, not the authors' code.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor

from ...loss import check_index, check_positive

Ratio = Callable[[Tensor], Tensor]
Values = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Base:
    """A base kernel on N points, over N, and the way from M new points to them.

    s       K(X, X) / N, positive semi-definite, eigenvalues at most 1; float64
    new     K(x, X) / N of new points
    weight  of a graph's edges, what label propagation spreads by; None without a graph
    """

    s: Float[Tensor, "N N"]
    new: Float[Tensor, "M N"]
    weight: Float[Tensor, "N N"] | None = None

    @cached_property
    def sparse(self) -> Tensor:
        """The entries of S that are not zero, as compressed rows."""
        with warnings.catch_warnings():  # torch calls them a beta
            warnings.simplefilter("ignore", UserWarning)
            return self.s.to_sparse_csr()

    @property
    def edges(self) -> int:
        """How many entries of S are not zero: what a product costs."""
        return int((self.s != 0).sum())

    @cached_property
    def spectrum(self) -> tuple[Float[Tensor, " N"], Float[Tensor, "N N"]]:
        """Eigenvalues of S, rising, and eigenvectors."""
        t, v = torch.linalg.eigh(self.s)
        return t.clamp_min(0), v

    @cached_property
    def lifted(self) -> Float[Tensor, "M N"]:
        """New points in the eigenvectors: K(x, X) V / N."""
        return self.new @ self.spectrum[1]


def _near(distance: Tensor, k: int) -> Tensor:
    return torch.zeros_like(distance).scatter_(1, distance.topk(k, dim=1, largest=False).indices, 1.0)


def neighbour_kernel(x: Float[Tensor, "N p"], new: Float[Tensor, "M p"] | None = None, k: int = 6) -> Base:
    """The lazy walk on the graph of k nearest neighbours with Gaussian weights; new points join it one by one.

    k  1 … N - 1; an edge stands where either is among the other's nearest. The Gaussian's width is the mean squared
       distance to the k-th neighbour. A new point has edges to its own k nearest

    Raises ValueError for k out of range.
    """
    if not 1 <= k < len(x):
        raise ValueError(f"k must be in 1 … {len(x) - 1}, got {k}")
    x = x.double()
    distance = torch.cdist(x, x).square()
    distance = ((distance + distance.T) / 2).fill_diagonal_(torch.inf)
    kept = _near(distance, k)
    width = distance.topk(k, dim=1, largest=False).values[:, -1].mean()
    weight = torch.exp(-distance / width) * torch.maximum(kept, kept.T)
    away = torch.cdist(x[:0] if new is None else new.double(), x).square()
    return graph_kernel(weight, torch.exp(-away / width) * _near(away, k))


def graph_kernel(weight: Float[Tensor, "N N"], new: Float[Tensor, "M N"]) -> Base:
    """The lazy walk ½ (I + D^-½ W D^-½) of a graph, and edges of new nodes normalised by both degrees.

    weight  symmetric, not negative, diagonal 0; ``new`` edges from new nodes to these. A node without edges keeps its
            own ½. Raises ValueError for a matrix that is not symmetric
    """
    if not torch.allclose(weight, weight.T, atol=1e-12):
        raise ValueError(f"weight must be symmetric, got a matrix {tuple(weight.shape)} that is not")
    degree, own = weight.sum(1).clamp_min(1e-12), new.sum(1, keepdim=True).clamp_min(1e-12)
    walk = weight / (degree[:, None] * degree).sqrt()
    return Base((torch.eye(len(walk)).to(walk) + walk) / 2, new / (own * degree).sqrt() / 2, weight)


def gaussian_kernel(x: Float[Tensor, "N p"], new: Float[Tensor, "M p"], width: float) -> Base:
    """exp(-‖x - x'‖² / width) / N, every entry positive. Raises ValueError for a width that is not positive."""
    check_positive(width=width)
    x, new = x.double(), new.double()
    return Base(*(torch.exp(-torch.cdist(a, x).square() / width) / len(x) for a in (x, new)))


def hops(p: int) -> Ratio:
    """s(t) = t^p: p hops; p = 1 is the base kernel, KRR. Raises ValueError for p below 1."""
    if p < 1:
        raise ValueError(f"p must be at least 1, got {p}")
    return lambda t: t ** (p - 1)


def inverse_laplacian(eta: float) -> Ratio:
    """s(t) = t / (1 - ηt), 0 <= η < 1: every power, weighted by η^(p-1).

    Beyond 1 over the largest eigenvalue, 1 on a graph, the series diverges. Raises ValueError for η out of range."""
    _check_eta(eta)
    return lambda t: 1 / (1 - eta * t)


def top_eigenvectors(d: int) -> Ratio:
    """s(t) = 1 at the d largest eigenvalues, 0 below: ridge regression on d kernel principal components.

    For an s of which nothing is known. Raises ValueError for d below 1."""
    if d < 1:
        raise ValueError(f"d must be at least 1, got {d}")

    def ratio(t: Tensor) -> Tensor:
        return F.pad(1 / t[-d:].clamp_min(1e-12), (max(0, len(t) - d), 0))

    return ratio


def _check_eta(eta: float) -> None:
    if not 0 <= eta < 1:
        raise ValueError(f"eta must be in [0, 1), got {eta}")


def _check_labels(base: Base, index: Tensor, y: Tensor, ridge: float) -> None:
    check_positive(ridge=ridge)
    check_index("index", index, len(base.s))
    if index.ndim != 2 or y.shape[:2] != index.shape or y.ndim != 3:
        raise ValueError(f"y must be (draws, n, classes), index (draws, n), got {tuple(y.shape)}, {tuple(index.shape)}")


def closed_form(
    base: Base, index: Int[Tensor, "r n"], y: Float[Tensor, "r n c"], ratio: Ratio, ridge: float = 0.03
) -> Values:
    """STKR of r draws of labels at once: values at the base's N points (r, N, c), and at the new ones (r, M, c).

    index  places of the labelled points, each draw's own; y their targets, real
    ratio  s(t) / t: ``hops``, ``inverse_laplacian``, ``top_eigenvectors``
    ridge  ρ > 0, nβ / N in the paper's numbers

    By the eigenvectors of S, once for all draws and transforms. Raises ValueError for shapes and numbers out of range.
    """
    _check_labels(base, index, y, ridge)
    t, v = base.spectrum
    scale = ratio(t)
    rows = v[index]
    a = torch.linalg.solve((rows * (t * scale)) @ rows.mT + ridge * torch.eye(index.shape[1]).to(y), y)
    z = scale[:, None] * (rows.mT @ a)
    return v @ (t[:, None] * z), base.lifted @ z


def _columns(base: Base, index: Tensor, a: Tensor) -> Tensor:
    """E a: r draws' values (r, n, c) put among all points, as columns (N, r c)."""
    start = torch.zeros(len(index), len(base.s), a.shape[2]).to(a)
    start.scatter_(1, index[..., None].expand_as(a), a)
    return start.transpose(0, 1).flatten(1)


def _draws(columns: Tensor, like: Tensor) -> Tensor:
    return columns.unflatten(1, (len(like), -1)).transpose(0, 1)


def richardson(
    base: Base, index: Int[Tensor, "r n"], y: Float[Tensor, "r n c"], weights: Sequence[float], ridge: float = 0.03,
    tolerance: float = 1e-10, most: int = 20_000, sparse: bool = True,
) -> tuple[Tensor, Tensor, int]:  # fmt: skip
    """STKR-Prop for s(t) = Σ_p π_p t^p: products with S alone; values as ``closed_form``'s, and how many products.

    weights    π_1 … π_q, not negative
    tolerance  of ‖(s(S)_nn + ρI) a - y‖ over ‖y‖; ``most`` steps at most
    sparse     products with the entries that are not zero

    Richardson's a ← a - γ((s(S)_nn + ρI) a - y), s(S) E a by Horner's rule; the eigenvalues lie between ρ and ρ + Σ π,
    which gives γ. Raises ValueError for negative or no weights.
    """
    _check_labels(base, index, y, ridge)
    if not len(weights) or min(weights) < 0 or not sum(weights) > 0:
        raise ValueError(f"weights must be some numbers of at least 0, not all 0, got {list(weights)}")
    s, products = base.sparse if sparse else base.s, 0
    place, step = index[..., None].expand_as(y), 2 / (2 * ridge + sum(weights))

    def spread(a: Tensor) -> Tensor:
        start = _columns(base, index, a)
        v = weights[-1] * start
        for weight in reversed(weights[:-1]):
            v = s @ v + weight * start
        return v

    a = torch.zeros_like(y)
    for _ in range(most):
        left = y - ridge * a - _draws(s @ spread(a), y).gather(1, place)
        products += len(weights)
        if left.norm() <= tolerance * y.norm():
            break
        a = a + step * left
    v = spread(a)
    return _draws(s @ v, y), _draws(base.new @ v, y), products


def richardson_laplacian(
    base: Base, index: Int[Tensor, "r n"], y: Float[Tensor, "r n c"], eta: float = 0.9, ridge: float = 0.03,
    tolerance: float = 1e-10, most: int = 20_000, sparse: bool = True,
) -> tuple[Tensor, Tensor, int]:  # fmt: skip
    """STKR-Prop for the inverse Laplacian, without its series: one product with S a step.

    With v = (I - ηS)⁻¹ E a the values are S v and the ridge's equation is (E Eᵀ S + ρ (I - ηS)) v = E y, E putting
    labelled values among all. Its eigenvalues are real, between ρ (1 - η) and 1 + ρ: Richardson's step in between.
    Arguments as for ``richardson``; the tolerance is of what is left over E y.
    """
    _check_labels(base, index, y, ridge)
    _check_eta(eta)
    s, target, products = base.sparse if sparse else base.s, _columns(base, index, y), 0
    known = _columns(base, index, torch.ones_like(y))
    step = 2 / (1 + ridge + ridge * (1 - eta))
    v = torch.zeros_like(target)
    for _ in range(most):
        moved = s @ v
        left = target - known * moved - ridge * (v - eta * moved)
        products += 1
        if left.norm() <= tolerance * target.norm():
            break
        v = v + step * left
    return _draws(s @ v, y), _draws(base.new @ v, y), products


def label_spreading(base: Base, index: Int[Tensor, "r n"], y: Float[Tensor, "r n c"], alpha: float = 0.99) -> Values:
    """The rival on any graph (Zhou and others 2004): F = (I - αA)⁻¹ E y, A = D^-½ W D^-½; new points add up their
    neighbours'. alpha in [0, 1). Raises ValueError for a base without a graph."""
    _check_labels(base, index, y, 1.0)
    _check_eta(alpha)
    _degrees(base)
    t, v = base.spectrum  # A = 2 S - I
    found = v @ ((v[index].mT @ y) / (1 - alpha * (2 * t - 1))[:, None])
    return found, base.new @ found


def label_propagation(base: Base, index: Int[Tensor, "r n"], y: Float[Tensor, "r n c"], steps: int = 200) -> Values:
    """The older rival (Zhu and Ghahramani 2002): points take their neighbours' mean, the labelled keep their labels.

    ``steps`` rounds of F ← D⁻¹ W F; so do new points. Raises ValueError for a base without a graph.
    """
    _check_labels(base, index, y, 1.0)
    degree = _degrees(base)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        mean = (base.weight / degree[:, None]).to_sparse_csr()
    target, known = _columns(base, index, y), _columns(base, index, torch.ones_like(y))
    now = target
    for _ in range(steps):
        now = target + (1 - known) * (mean @ now)
    own, found = base.new * degree.sqrt(), _draws(now, y)
    return found, (own / own.sum(1, keepdim=True).clamp_min(1e-12)) @ found


def _degrees(base: Base) -> Float[Tensor, " N"]:
    if base.weight is None:
        raise ValueError("base must be a graph's, got a kernel without edges")
    return base.weight.sum(1).clamp_min(1e-12)


def ridge_on_labels(
    x: Float[Tensor, "r n p"], y: Float[Tensor, "r n c"], new: Float[Tensor, "M p"], width: float, ridge: float = 0.03,
    pool: Float[Tensor, "m p"] | None = None,
) -> Float[Tensor, "r M c"]:  # fmt: skip
    """Ridge regression with the kernel exp(-‖x - x'‖² / width) on labelled points alone: the supervised rival.

    pool  unlabelled points: the first fit gives them hard labels, a second fit sees all, the plain pseudo-label
    ridge is added to the kernel matrix's diagonal. Raises ValueError for a width or ridge that is not positive.
    """
    check_positive(width=width, ridge=ridge)

    def fitted(x: Tensor, y: Tensor, new: Tensor) -> Tensor:
        gram = torch.exp(-torch.cdist(x, x).square() / width) + ridge * torch.eye(x.shape[1]).to(x)
        return torch.exp(-torch.cdist(new.expand(len(x), *new.shape), x).square() / width) @ torch.linalg.solve(gram,
        y)

    if pool is None:
        return fitted(x, y, new)
    guess = F.one_hot(fitted(x, y, pool).argmax(2), y.shape[2]).to(y)
    hard = y.amin((1, 2), True) + (y.amax((1, 2), True) - y.amin((1, 2), True)) * guess
    wide = pool.expand(len(x), *pool.shape)
    return fitted(torch.cat([x, wide], 1), torch.cat([y, hard], 1), new)


def reversed_pairs(
    t: Float[Tensor, " d"], measure: Callable[[Tensor], Tensor], pairs: int = 4000, powers: int = 64, *,
    generator: Generator,
) -> float:  # fmt: skip
    """The theorem of target smoothness on random functions: pairs that all powers of K order alike, ``measure`` not.

    t        eigenvalues of K, in (0, 1], falling
    measure  (pairs, d) coefficients in the eigenfunctions, of length 1, to (pairs,) numbers: how rough a function is.
             By the transform s it is Σ c_i² / s(t_i)
    powers   a pair counts where Σ c_i² / t_i^p is larger for its first function at each p = 1 … powers

    Returns the share, among such pairs, whose first function ``measure`` calls smoother. The theorem: a norm that
    never does is a transform of K's spectrum, s monotone, s(t) = O(t). Raises ValueError where no pair is ordered.
    """
    c = torch.randn(2, pairs, len(t), dtype=torch.float64, generator=generator)
    c = c * torch.rand(2, pairs, 1, dtype=torch.float64, generator=generator) ** torch.arange(len(t))
    c = c / c.norm(dim=2, keepdim=True)
    grows = (t.min() / t) ** torch.arange(1, powers + 1, dtype=torch.float64)[:, None]  # t^-p, the largest made 1
    rough = c.square() @ grows.T
    ordered = (rough[0] > rough[1]).all(1)
    if not bool(ordered.any()):
        raise ValueError(f"pairs must be more, got {pairs} of which none is ordered by all powers")
    return float((measure(c[0]) < measure(c[1]))[ordered].double().mean())


def circle_features(angle: Float[Tensor, "*any"], frequencies: int) -> Float[Tensor, "*any f"]:
    """1, √2 cos kθ, √2 sin kθ for k = 1 … frequencies: the eigenfunctions of every kernel K(θ - θ') on a circle."""
    k = torch.arange(1, frequencies + 1, dtype=torch.float64)
    wave = angle[..., None] * k
    return torch.cat([torch.ones_like(wave[..., :1]), 2**0.5 * wave.cos(), 2**0.5 * wave.sin()], -1)


def known_transform_error(
    counts: Sequence[int], p: int, draws: int = 8, *, generator: Generator, noise: float = 0.3, frequencies: int = 100
) -> list[float]:
    """Mean squared error of STKR on a circle where K and s(t) = t^p are known, at each number n of labels.

    K's eigenvalue at frequency k is (1 + k)⁻², so that those of K_s fall as i^(-2p), and the theorem's rate for these
    is n^(-1 / (1 + 1 / 2p)). The target is at the edge of K_s's ball; β falls with that rate. Enough unlabelled
    points are as many as one likes: K_s is used itself. Raises ValueError for p below 1.
    """
    if p < 1:
        raise ValueError(f"p must be at least 1, got {p}")
    k = torch.arange(1, frequencies + 1, dtype=torch.float64)
    s = torch.cat([torch.ones(1, dtype=torch.float64), (1 + k) ** (-2 * p), (1 + k) ** (-2 * p)])
    sign = torch.randint(2, (draws, len(s)), generator=generator) * 2.0 - 1
    target = sign * s.sqrt() * torch.cat([torch.ones(1), (1 + k) ** -0.6, (1 + k) ** -0.6])
    angle = 2 * torch.pi * torch.rand(draws, max(counts), dtype=torch.float64, generator=generator)
    z = circle_features(angle, frequencies)
    clean = (z @ target[..., None])[..., 0]
    y = clean + noise * torch.randn(clean.shape, dtype=torch.float64, generator=generator)
    errors = []
    for n in counts:
        some, beta = z[:, :n], 0.1 * n ** (-1 / (1 + 1 / (2 * p)))
        gram = (some * s) @ some.mT + n * beta * torch.eye(n, dtype=torch.float64)
        found = s * (some.mT @ torch.linalg.solve(gram, y[:, :n, None]))[..., 0]
        errors.append(float((found - target).square().sum(1).mean()))
    return errors


def sampled_eigenspaces(
    m: int, sizes: Sequence[int] = (3, 5, 7), draws: int = 6, *, generator: Generator
) -> list[float]:
    """How far the top d sampled eigenfunctions are from the true ones, for each d of ``sizes``: kernel PCA's error.

    m points on a circle, the kernel exp(2 cos(θ - θ')). The mean over draws of the Frobenius norm of what the space
    of d sampled eigenfunctions, extended to new points, misses of the d true ones: 0 … √d.

    sizes  odd, 1 … m, so that the true space is whole. Raises ValueError for others.
    """
    if any(d % 2 == 0 or not 1 <= d <= m for d in sizes):
        raise ValueError(f"sizes must be odd and in 1 … {m}, got {list(sizes)}")
    angle = 2 * torch.pi * torch.rand(draws, m, generator=generator, dtype=torch.float64)
    grid = 2 * torch.pi * torch.arange(200, dtype=torch.float64) / 200
    _, v = torch.linalg.eigh(torch.exp(2 * torch.cos(angle[:, :, None] - angle[:, None])))
    near = torch.exp(2 * torch.cos(grid[:, None] - angle[:, None]))
    missed = []
    for d in sizes:
        basis = torch.linalg.qr(near @ v[:, :, -d:]).Q
        k = d // 2
        true = circle_features(grid, max(1, k))[:, : 2 * k + 1] / 200**0.5
        missed.append(float((true - basis @ (basis.mT @ true)).square().sum((1, 2)).sqrt().mean()))
    return missed


def ring(count: int, reach: int = 5) -> Base:
    """The lazy walk on a ring of ``count`` nodes, each beside ``reach`` others on either side: a graph of any size
    whose edges are 2 · reach · count. Raises ValueError for a reach that goes round."""
    if not 1 <= reach < count / 2:
        raise ValueError(f"reach must be in 1 … below {count / 2:g}, got {reach}")
    away = (torch.arange(count)[:, None] - torch.arange(count)).abs()
    away = torch.minimum(away, count - away)
    weight = ((away > 0) & (away <= reach)).double()
    return graph_kernel(weight, weight[:0])
