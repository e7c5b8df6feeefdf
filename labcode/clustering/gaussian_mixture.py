"""Mixtures of Gaussians, and of Student's t, fitted by EM: all restarts in one batch, on the device of the rows."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..loss import check_finite, check_matrix
from .many_kmeans import many_kmeans

Powers = tuple[Tensor, Tensor] | None
COVARIANCES = ("full", "diagonal", "spherical")
BLOCK = 2**20  # numbers of centred rows that are held at a time


@dataclass(frozen=True)
class GaussianMixture:
    """Fitted mixtures, one a restart; index with ``[i]`` for one of them, ``best`` is the likeliest.

    weights      (r, k), non-negative, each row sums to 1
    means        (r, k, d)
    covariances  (r, k, d, d) full, (r, k, d) diagonal, (r, k) spherical
    score        (r,) mean log-likelihood of a row of the data it was fitted to, in nats
    converged    (r,) whether it gained less than the tolerance in the last iteration
    dof          degrees of freedom of Student's t, or None for Gaussians
    """

    weights: Float[Tensor, "r k"]
    means: Float[Tensor, "r k d"]
    covariances: Float[Tensor, "r k *d"]
    score: Float[Tensor, " r"]
    converged: Tensor
    covariance: str
    dof: float | None = None

    @property
    def best(self) -> int:
        """The restart with the highest likelihood."""
        return int(self.score.argmax())

    def __getitem__(self, i: int) -> "GaussianMixture":
        i = i % len(self.score)
        parts = (self.weights, self.means, self.covariances, self.score, self.converged)
        return GaussianMixture(*(p[i : i + 1] for p in parts), self.covariance, self.dof)

    def log_joint(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "r n k"]:
        """log π_k + log p(x | k)."""
        x, kind = x.to(self.means.dtype), self.covariance
        densities, _ = _log_densities(x, _powers(x, kind), self.means, self.covariances, kind, self.dof)
        return (densities + self.weights.log()[..., None]).transpose(1, 2)

    def log_prob(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "r n"]:
        """log p(x), in nats."""
        return self.log_joint(x).logsumexp(2)

    def responsibilities(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "r n k"]:
        """The posterior of the component, p(k | x)."""
        return self.log_joint(x).softmax(2)

    def predict(self, x: Float[Tensor, "n d"]) -> Int[Tensor, "r n"]:
        """The component with the highest posterior."""
        return self.log_joint(x).argmax(2)

    def bic(self, n: int) -> Float[Tensor, " r"]:
        """Bayes' information criterion on the n rows that it was fitted to; lower is better."""
        k, d = self.means.shape[1:]
        shape = {"full": d * (d + 1) // 2, "diagonal": d, "spherical": 1}[self.covariance]
        return (k * (d + shape) + k - 1) * math.log(n) - 2 * n * self.score


def gaussian_mixture(
    x: Float[Tensor, "n d"], k: int, *, restarts: int, covariance: str, generator: torch.Generator,
    iterations: int = 100, tolerance: float = 1e-3, floor: float = 1e-6, dof: float | None = None,
    start: Int[Tensor, "r n"] | str = "kmeans",
) -> GaussianMixture:  # fmt: skip
    """A mixture of k Gaussians by expectation maximisation, from several starts in one batch.

    Dempster, Laird and Rubin (1977). Maximises Σ_n log Σ_k π_k N(x_n; μ_k, Σ_k).

    restarts    r ≥ 1, all fitted together; all come back
    covariance  "full", "diagonal" (axis-parallel) or "spherical" (one variance a component)
    iterations  at most; ends when the mean log-likelihood of every restart gains less than ``tolerance`` nats
    floor       added to the variances, in the units of x squared: a component on a single row stays finite
    dof         degrees of freedom ν > 0: Student's t components instead (Peel and McLachlan 2000), with ν fixed;
                covariances are then their scale matrices
    start       the first responsibilities: "kmeans", labels of one k-means++ run a restart; "rows", the nearest of k
                drawn rows; or labels (r, n)

    What scikit-learn's ``GaussianMixture`` computes from the same start, with the same floor and stopping rule; there
    restarts run one after another and only the best comes back. Memory O(r k (n + d²)). No gradient.

    Raises ValueError for k outside 1 … n, other covariances and starts, and rows that are not finite.
    """
    check_matrix("x", x)
    check_finite(x=x)
    if not 1 <= k <= len(x):
        raise ValueError(f"k must be between 1 and the {len(x)} rows of x, got {k}")
    if covariance not in COVARIANCES:
        raise ValueError(f"covariance must be one of {', '.join(COVARIANCES)}, got {covariance!r}")
    if restarts < 1 or iterations < 1:
        raise ValueError(f"restarts and iterations must be at least 1, got {restarts} and {iterations}")
    if dof is not None and not dof > 0:
        raise ValueError(f"dof must be positive, got {dof}")
    if not 0 <= floor < math.inf:
        raise ValueError(f"floor must be at least 0 and finite, got {floor}")
    x = x.detach().float() if x.dtype in (torch.float16, torch.bfloat16) else x.detach()
    with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
        middle = x.mean(0)
        x = x - middle  # centred, distances keep their digits
        powers, shares = _powers(x, covariance), _first(x, k, restarts, generator, start)
        pull = torch.ones_like(shares)  # Student's t gives far rows less weight; Gaussians give all the same
        parts = _maximise(x, powers, shares, pull, covariance, floor)
        score = torch.full((restarts,), -math.inf, dtype=x.dtype, device=x.device)
        for _ in range(iterations):
            densities, distance = _log_densities(x, powers, *parts[1:], covariance, dof)
            joint = densities + parts[0].log()[..., None]
            before, evidence = score, joint.logsumexp(1)
            score = evidence.mean(1)
            shares = (joint - evidence[:, None]).exp_()
            if dof is not None:
                pull = (dof + x.shape[1]) / (dof + distance)
            parts = _maximise(x, powers, shares, pull, covariance, floor)
            converged = (score - before).abs() < tolerance
            if bool(converged.all()):
                break
        weights, means, covariances = parts
        return GaussianMixture(weights, means + middle, covariances, score, converged, covariance, dof)


def _first(x: Tensor, k: int, restarts: int, generator: torch.Generator, start) -> Tensor:
    if isinstance(start, str):
        if start not in ("kmeans", "rows"):
            raise ValueError(f"start must be 'kmeans', 'rows' or labels (restarts, n), got {start!r}")
        seeding, iterations = ("plus", 100) if start == "kmeans" else ("rows", 1)
        given = many_kmeans(x, k, restarts=restarts, generator=generator, seeding=seeding, iterations=iterations)
        start = given.labels
    if start.shape != (restarts, len(x)):
        raise ValueError(f"start must be labels of shape ({restarts}, {len(x)}), got {tuple(start.shape)}")
    return (start[:, None] == torch.arange(k, device=x.device)[:, None]).to(x.dtype)


def _maximise(x: Tensor, powers: Powers, shares: Tensor, pull: Tensor, covariance: str, floor: float):
    """The M step: weights (r, k), means (r, k, d), covariances, from responsibilities (r, k, n)."""
    (r, k, _), d = shares.shape, x.shape[1]
    tiny = 10 * torch.finfo(x.dtype).eps
    count = shares.sum(2) + tiny
    pulled = (shares * pull).view(r * k, -1)
    mass = pulled.sum(1, keepdim=True) + tiny
    means = pulled @ x / mass
    if covariance == "full":
        spread = torch.empty(r * k, d, d, dtype=x.dtype, device=x.device)
        for some in _blocks(r * k, x):
            centred = x - means[some, None]
            spread[some] = (centred * pulled[some, :, None]).mT @ centred
        spread = spread.view(r, k, d, d) / count[..., None, None]
        spread += floor * torch.eye(d, dtype=x.dtype, device=x.device)
    else:  # Σ p x² - 2 μ Σ p x + μ² Σ p, in float64: what cancels has digits to spare
        p, m = pulled.double(), means.double()
        squares, firsts = (powers[1] @ p.T.contiguous()).T.split(d, 1)  # twice as fast as p @ powers[0]
        spread = squares - 2 * m * firsts + m.square() * p.sum(1, keepdim=True)
        spread = spread.clamp_(min=0).view(r, k, d).to(x.dtype) / count[..., None] + floor
        spread = spread if covariance == "diagonal" else spread.mean(2)
    return count / count.sum(1, keepdim=True), means.view(r, k, d), spread


def _log_densities(x: Tensor, powers: Powers, means: Tensor, covariances: Tensor, covariance: str, dof: float | None):
    """log p(x | k) and the squared Mahalanobis distance, both (r, k, n)."""
    r, k, d = means.shape
    if covariance == "full":
        root = torch.linalg.cholesky(covariances)
        eye = torch.eye(d, dtype=x.dtype, device=x.device).expand_as(root)
        turn = torch.linalg.solve_triangular(root, eye, upper=False).mT.reshape(r * k, d, d)
        middle, distance = means.view(r * k, 1, d), torch.empty(r * k, len(x), dtype=x.dtype, device=x.device)
        for some in _blocks(r * k, x):
            distance[some] = ((x - middle[some]) @ turn[some]).square().sum(2)
        volume = root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    else:
        scale = covariances if covariance == "diagonal" else covariances[..., None].expand_as(means)
        m, per = means.double().view(r * k, d), 1 / scale.double().reshape(r * k, d)
        shift = (m.square() * per).sum(1, keepdim=True)
        distance = (powers[0] @ torch.cat([per, -2 * m * per], 1).T).T + shift
        distance, volume = distance.clamp_(min=0).to(x.dtype), scale.log().sum(2) / 2
    distance = distance.view(r, k, -1)
    if dof is None:
        density = -0.5 * (d * math.log(2 * math.pi) + distance)
    else:
        head = math.lgamma((dof + d) / 2) - math.lgamma(dof / 2) - d / 2 * math.log(dof * math.pi)
        density = head - (dof + d) / 2 * torch.log1p(distance / dof)
    return density - volume[..., None], distance


def _powers(x: Tensor, covariance: str) -> Powers:
    """The squares of the rows beside the rows, (n, 2d) in float64, and transposed: all that axis-parallel ones need."""
    if covariance == "full":
        return None
    wide = x.double()
    wide = torch.cat([wide.square(), wide], 1)
    return wide, wide.T.contiguous()


def _blocks(count: int, x: Tensor) -> list[slice]:
    """Components that are treated together: all of small problems in one product, those of large ones in turn."""
    size = max(1, BLOCK // x.numel())
    return [slice(i, i + size) for i in range(0, count, size)]
