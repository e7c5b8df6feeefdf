"""Estimators of mutual information, and the critics whose scores they take.

Estimators take a square matrix of scores: ``scores[i, j]`` = f(xᵢ, yⱼ), so the pairs stand on the diagonal and
products of the marginals off it. All information is in nats.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ...loss import check_matrix, float32
from ...pairwise import off_diagonal
from ._common import Rows, Scalar, perceptron

Scores = Float[Tensor, "n n"]


def _check_scores(scores: Tensor) -> None:
    check_matrix("scores", scores, rows=2)
    if scores.shape[0] != scores.shape[1]:
        raise ValueError(f"scores must be square, f(x_i, y_j) for all i and j, got shape {tuple(scores.shape)}")


@float32
def nce_bound(scores: Scores) -> Scalar:
    """InfoNCE's lower bound: log n + meanᵢ (Sᵢᵢ - log Σⱼ exp Sᵢⱼ). At most log n; low variance.

    On Mutual Information Maximization (Tschannen et al., 2020); the same as CPC's log N - L_N.
    Raises ValueError for scores that are not square, n >= 2.
    """
    _check_scores(scores)
    return math.log(len(scores)) + (scores.diagonal() - scores.logsumexp(1)).mean()


@float32
def nwj_bound(scores: Scores, clip: float = 40.0) -> Scalar:
    """The bound of Nguyen, Wainwright and Jordan: 1 + mean (Sᵢᵢ - 1) - mean_{i≠j} exp(Sᵢⱼ - 1).

    On Mutual Information Maximization. Unbiased for its critic, with a variance that grows like exp(I); the
    best critic is 1 + log p(x,y)/(p(x)p(y)).

    clip  scores off the diagonal are cut at this value before the exponential, which float32 would not survive
    """
    _check_scores(scores)
    if math.isnan(clip):
        raise ValueError("clip must be a number, got nan")
    return scores.diagonal().mean() - off_diagonal(scores).clamp(max=clip).sub(1).exp().mean()


@float32
def dv_bound(scores: Scores) -> Scalar:
    """The bound of Donsker and Varadhan, which MINE maximises: mean Sᵢᵢ - log mean_{i≠j} exp Sᵢⱼ."""
    _check_scores(scores)
    off = off_diagonal(scores)
    return scores.diagonal().mean() - off.flatten().logsumexp(0) + math.log(off.numel())


@float32
def logistic_nce(scores: Scores) -> Scalar:
    """Logistic loss of telling pairs from shuffled pairs, both equally likely: softplus(-Sᵢᵢ) + softplus(Sᵢⱼ), i≠j.

    Its minimiser is S = log p(x,z)/(p(x)p(z)): multi-view redundancy (Tosh et al., 2021).
    """
    _check_scores(scores)
    return F.softplus(-scores.diagonal()).mean() + F.softplus(off_diagonal(scores)).mean()


def ksg(x: Rows, y: Float[Tensor, "n e"], k: int = 3) -> float:
    """Nearest-neighbour estimate of I(x; y) (Kraskov, Stögbauer and Grassberger, their first): no critic at all.

    ψ(k) + ψ(n) - mean [ψ(1 + n_x) + ψ(1 + n_y)], n_x the points closer in x than the k-th neighbour in the joint
    space, by the maximum norm. Good in few dimensions only. Memory O(n²).

    Raises ValueError for k outside 1 … n - 1 and unlike lengths.
    """
    check_matrix("x", x, rows=2)
    check_matrix("y", y, rows=2)
    n = len(x)
    if len(y) != n:
        raise ValueError(f"y must have one row for each of the {n} rows of x, got {len(y)}")
    if not 1 <= k < n:
        raise ValueError(f"k must be between 1 and {n - 1}, got {k}")
    apart = [torch.cdist(v.double(), v.double(), p=math.inf).fill_diagonal_(math.inf) for v in (x, y)]
    radius = torch.maximum(*apart).kthvalue(k, dim=1).values[:, None]
    counts = [(d < radius).sum(1) for d in apart]
    psi = torch.digamma
    mean = sum(psi(c + 1.0).mean() for c in counts)
    return float(psi(torch.tensor(float(k))) + psi(torch.tensor(float(n))) - mean)


def gaussian_log_ratio(x: Rows, z: Float[Tensor, "m d"], rho: float) -> Float[Tensor, "n m"]:
    """log p(x, z)/(p(x) p(z)) for all pairs of rows, where each coordinate pair is Gaussian with correlation rho.

    The best critic there is: everything that an estimate still gets wrong with it is the estimator's own fault.
    Raises ValueError for rho outside (-1, 1) and unlike columns.
    """
    if not -1 < rho < 1:
        raise ValueError(f"rho must be in (-1, 1), got {rho}")
    check_matrix("x", x)
    check_matrix("z", z)
    if x.shape[1] != z.shape[1]:
        raise ValueError(f"z must have {x.shape[1]} columns like x, got {z.shape[1]}")
    rest = 1 - rho * rho
    squares = x.square().sum(1)[:, None] + z.square().sum(1)
    return (rho * x @ z.T - rho * rho / 2 * squares) / rest - x.shape[1] / 2 * math.log(rest)


def try_estimators(nats: float, dims: int, tries: int, seed: int, n: int = 64) -> dict[str, Float[Tensor, " tries"]]:
    """What each estimator makes of n pairs of correlated Gaussians that share ``nats``, given the best critic.

    "InfoNCE", "NWJ", "DV" (Donsker and Varadhan), and "kNN", which needs no critic: ``tries`` values each.
    """
    rho, g = math.sqrt(1 - math.exp(-2 * nats / dims)), torch.Generator().manual_seed(seed)
    found: dict[str, list[float]] = {"InfoNCE": [], "NWJ": [], "DV": [], "kNN": []}
    for _ in range(tries):
        x, e = torch.randn(2, n, dims, generator=g)
        y = rho * x + math.sqrt(1 - rho * rho) * e
        scores = gaussian_log_ratio(x, y, rho)
        told = (nce_bound(scores), nwj_bound(scores + 1), dv_bound(scores), ksg(x, y))
        for values, value in zip(found.values(), told, strict=True):
            values.append(float(value))
    return {name: torch.tensor(values) for name, values in found.items()}


class Bilinear(nn.Module):
    """f(x, y) = xᵀ W y: the scores of all pairs, (n, m)."""

    def __init__(self, dx: int, dy: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(dx, dy) / math.sqrt(dx * dy))

    def forward(self, x: Rows, y: Float[Tensor, "m e"]) -> Float[Tensor, "n m"]:
        return x @ self.weight @ y.T


class Separable(nn.Module):
    """f(x, y) = φ(x)ᵀ ψ(y), one hidden layer each."""

    def __init__(self, dx: int, dy: int, hidden: int = 100):
        super().__init__()
        self.left, self.right = perceptron(dx, hidden, hidden), perceptron(dy, hidden, hidden)

    def forward(self, x: Rows, y: Float[Tensor, "m e"]) -> Float[Tensor, "n m"]:
        return self.left(x) @ self.right(y).T / math.sqrt(self.left[-1].out_features)


class Joint(nn.Module):
    """f(x, y) = vᵀ relu(A x + B y + c): a perceptron on the concatenation, the most capable of the three.

    The first layer acts on x and y apart, so no pair is ever concatenated; the hidden layer of n·m·hidden numbers
    cannot be avoided.
    """

    def __init__(self, dx: int, dy: int, hidden: int = 200):
        super().__init__()
        self.left, self.right = nn.Linear(dx, hidden), nn.Linear(dy, hidden, bias=False)
        self.out = nn.Linear(hidden, 1)

    def forward(self, x: Rows, y: Float[Tensor, "m e"]) -> Float[Tensor, "n m"]:
        hidden = F.relu(self.left(x)[:, None] + self.right(y)[None])
        return self.out(hidden)[..., 0]
