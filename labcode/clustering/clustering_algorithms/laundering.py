"""Customers of a bank from generated transactions, four ways of reducing their features, and three inner indices."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...loss import check_finite, check_matrix

CHANNELS = ("cash in", "cash out", "wire in", "wire out", "card", "transfer")
SEGMENTS = ("salaried", "retired", "shop", "company")
WINDOWS, MEASURES, LIMIT = 5, ("count", "amount", "spread", "largest", "under the limit"), 10_000.0
# transactions a window by channel, and the logarithm of a usual amount
RATES = torch.tensor([[1.0, 3, 1, 1, 12, 3], [0.5, 2, 1, 0.5, 3, 1], [10.0, 2, 1, 3, 25, 4], [1.0, 0.5, 6, 8, 4, 10]])
AMOUNTS = torch.tensor(
    [[5.5, 4.5, 7.5, 6, 3.5, 5], [5, 4.5, 7.0, 6, 3, 4.5], [6.5, 6, 7, 7, 3.5, 6.5], [7, 6, 9, 9, 5, 8.5]]
)


@dataclass(frozen=True)
class Customers:
    """Features (n, 150) as channel × window × measure, the segment of each customer, who launders, how many rows."""

    features: Float[Tensor, "n 150"]
    segment: Int[Tensor, " n"]
    launders: Tensor
    transactions: int


def customers(n: int, generator: torch.Generator, share: float = 0.03, spread: float = 0.5) -> Customers:
    """Customers of four segments and, hidden in two of them, launderers; features come from their single transactions.

    Ours: the paper's customers are a bank's own. Half of the launderers *structure*: many cash deposits just under the
    limit above which a bank reports. The other half *layer*: large wires come in and leave again within the window.

    share   of launderers
    spread  of customers within a segment, standard deviation of the logarithms of rates and amounts; the windows of one
            customer share its draw, so that the features are correlated

    Raises ValueError for n below 8, a share outside [0, 1), spread below 0.
    """
    if n < 8 or not 0 <= share < 1 or spread < 0:
        raise ValueError(f"n must be at least 8, share in [0, 1), spread at least 0, got {n}, {share}, {spread}")

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    segment = torch.multinomial(torch.tensor([0.4, 0.25, 0.2, 0.15]), n, True, generator=generator)
    rates = RATES[segment] * torch.exp(spread * (0.7 * draw(n, 1) + 0.7 * draw(n, len(CHANNELS))))
    amounts = AMOUNTS[segment] + spread * (0.7 * draw(n, 1) + 0.7 * draw(n, len(CHANNELS)))
    count = round(share * n)
    launders = torch.zeros(n, dtype=torch.bool)
    hidden = torch.nonzero(segment % 2 == 0)[:, 0]  # salaried people and shops
    launders[hidden[torch.randperm(len(hidden), generator=generator)[:count]]] = True
    structures = launders & (torch.arange(n) % 2 == 0)
    layers = launders & ~structures
    rates[structures, 0] += 8
    rates[layers, 2] += 4
    rates[layers, 3] += 4
    amounts[layers, 2:4] = 9 + 0.3 * draw(int(layers.sum()), 1)
    number = torch.poisson(
        rates[:, None].expand(-1, WINDOWS, -1).contiguous(), generator
    ).long()  # (n, windows, channels)
    cell = torch.arange(number.numel()).repeat_interleave(number.flatten())
    who, channel = cell // (WINDOWS * len(CHANNELS)), cell % len(CHANNELS)
    value = torch.exp(amounts[who, channel] + 0.5 * draw(len(cell)))
    just = LIMIT * (0.9 + 0.1 * torch.rand(len(cell), generator=generator))
    value = torch.where(
        structures[who] & (channel == 0) & (torch.rand(len(cell), generator=generator) < 0.8), just, value
    )

    def sums(v):
        return torch.zeros(number.numel()).index_add_(0, cell, v)

    top = torch.zeros(number.numel()).scatter_reduce(0, cell, value, "amax")
    size, total = number.flatten().float(), sums(value)
    mean = total / size.clamp(min=1)
    deviation = (sums(value.square()) / size.clamp(min=1) - mean.square()).clamp(min=0).sqrt()
    under = sums(((value > 0.9 * LIMIT) & (value < LIMIT)).float())
    table = torch.stack([torch.log1p(size), torch.log1p(total), torch.log1p(deviation), torch.log1p(top), under], 1)
    return Customers(table.view(n, -1), segment, launders, len(cell))


def standardise(x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Columns with mean 0 and standard deviation 1; a constant column is 0."""
    return (x - x.mean(0)) / x.std(0, correction=0).clamp_min(1e-8)


def svd(x: Float[Tensor, "n d"], dimensions: int) -> Float[Tensor, "n c"]:
    """The rows in the first singular directions of the standardised table: the linear reference."""
    u, s, _ = torch.linalg.svd(x - x.mean(0), full_matrices=False)
    return u[:, :dimensions] * s[:dimensions]


def kernel_pca(x: Float[Tensor, "n d"], dimensions: int, gamma: float) -> Float[Tensor, "n c"]:
    """Principal components of exp(-γ ‖x - y‖²) feature space (Schölkopf et al. 1998): centred kernel, √λ u."""
    if not gamma > 0:
        raise ValueError(f"gamma must be positive, got {gamma}")
    k = torch.exp(-gamma * torch.cdist(x.double(), x.double()).square())
    k = k - k.mean(0) - k.mean(1, keepdim=True) + k.mean()
    values, vectors = torch.linalg.eigh(k)
    values, vectors = values.flip(0)[:dimensions].clamp_min(0), vectors.flip(1)[:, :dimensions]
    return (vectors * values.sqrt()).to(x.dtype)


def locality_preserving(
    x: Float[Tensor, "n d"], dimensions: int, neighbours: int = 10, first: int = 30
) -> Float[Tensor, "n c"]:
    """Locality preserving projections (He and Niyogi 2003): min Σ W_ij (y_i - y_j)² over y = xᵀa, with yᵀDy = 1.

    The generalised eigenproblem Xᵀ L X a = μ Xᵀ D X a, smallest μ, on a kNN graph with heat-kernel weights W.

    first  principal components are taken before, or XᵀDX has no inverse
    """
    n = len(x)
    if not 1 <= neighbours < n:
        raise ValueError(f"neighbours must be between 1 and {n - 1}, got {neighbours}")
    z = svd(x.double(), first)
    z = z / z.std().clamp_min(1e-12)
    distance = torch.cdist(z, z)
    near = distance.topk(neighbours + 1, largest=False)
    heat = torch.exp(-(near.values / near.values[:, -1:].mean()).square())
    w = torch.zeros(n, n, dtype=z.dtype).scatter_(1, near.indices, heat)
    w = torch.maximum(w, w.T).fill_diagonal_(0)
    degree = w.sum(1)
    right = z.T @ (degree[:, None] * z)
    left = right - z.T @ w @ z
    root = torch.linalg.cholesky(right + 1e-9 * right.diagonal().mean() * torch.eye(len(right), dtype=z.dtype))
    inner = torch.linalg.solve_triangular(root, torch.linalg.solve_triangular(root, left, upper=False).T, upper=False)
    vectors = torch.linalg.eigh((inner + inner.T) / 2)[1][:, :dimensions]
    return (z @ torch.linalg.solve_triangular(root.T, vectors, upper=True)).to(x.dtype)


def ica(x: Float[Tensor, "n d"], dimensions: int, generator: torch.Generator, steps: int = 100) -> Float[Tensor, "n c"]:
    """FastICA (Hyvärinen 1999), symmetric, with log cosh: whitened rows turned to be as far from Gaussian as can be."""
    z = svd(x.double(), dimensions)
    z = z / z.std(0, correction=0).clamp_min(1e-12)
    w = torch.linalg.qr(torch.randn(z.shape[1], z.shape[1], generator=generator, dtype=torch.float64))[0]
    for _ in range(steps):
        s = torch.tanh(z @ w.T)
        new = s.T @ z / len(z) - (1 - s.square()).mean(0)[:, None] * w
        u, _, v = torch.linalg.svd(new)
        before, w = w, u @ v
        if float(((w * before).sum(1).abs() - 1).abs().max()) < 1e-6:
            break
    return (z @ w.T).to(x.dtype)


def agglomerate(x: Float[Tensor, "n d"], k: int, linkage: str = "ward") -> Int[Tensor, " n"]:
    """Agglomerative clustering cut at k clusters, by SciPy."""
    from scipy.cluster.hierarchy import fcluster
    from scipy.cluster.hierarchy import linkage as merge

    check_matrix("x", x, rows=2)
    check_finite(x=x)
    return torch.from_numpy(fcluster(merge(x.double().numpy(), linkage), k, "maxclust")).long() - 1


def indices(x: Float[Tensor, "n d"], labels: Int[Tensor, " n"]) -> dict[str, float]:
    """Silhouette, Davies–Bouldin (negated: higher is better) and Calinski–Harabasz of a partition, by scikit-learn.

    A single cluster gets the worst: -1, and 0 for the last.
    """
    from sklearn.metrics import calinski_harabasz_score, davies_bouldin_score, silhouette_score

    z, y = x.double().numpy(), labels.numpy()
    if len(set(y.tolist())) < 2:
        return {"silhouette": -1.0, "Davies–Bouldin": -10.0, "Calinski–Harabasz": 0.0}
    return {"silhouette": float(silhouette_score(z, y)), "Davies–Bouldin": -float(davies_bouldin_score(z, y)),
            "Calinski–Harabasz": float(calinski_harabasz_score(z, y))}  # fmt: skip
