"""Functorial manifold learning (Shiebler, 2022): hierarchical clusterings, fuzzy simplicial sets, their embeddings."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from ...evaluate import linear_probe

Distances = Float[Tensor, "n n"]


def check_distances(d: Distances) -> None:
    """Raise ValueError unless d is a square symmetric matrix of non-negative numbers with a zero diagonal."""
    if d.ndim != 2 or d.shape[0] != d.shape[1]:
        raise ValueError(f"d must be square, got shape {tuple(d.shape)}")
    if not torch.equal(d, d.T) or bool((d < 0).any()) or bool(d.diagonal().any()):
        raise ValueError("d must be symmetric with entries at least 0 and a diagonal of zeros")


def single_linkage(d: Distances) -> Distances:
    """d_SL: the longest step on the path of shortest longest step; the height at which two points join.

    The subdominant ultrametric: the largest ultrametric below d. Single linkage as a functor sends (X, d) to it, and
    maximal linkage, at the other end, leaves d as it is: what lies between is d_SL <= d' <= d (section 3).

    Raises ValueError for what is no matrix of distances.
    """
    from scipy.cluster.hierarchy import cophenet, linkage
    from scipy.spatial.distance import squareform

    check_distances(d)
    if len(d) < 2:
        return d.clone()
    return torch.from_numpy(squareform(cophenet(linkage(squareform(d.double().numpy()), "single")))).to(d.dtype)


def geodesic(d: Distances, k: int) -> Distances:
    """Isomap's distances (Tenenbaum et al., 2000): shortest paths in the graph of the k nearest neighbours.

    Pieces that the graph does not join lie as far apart as the longest path. Raises ValueError for k outside 1 … n - 1.
    """
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import shortest_path

    check_distances(d)
    if not 1 <= k < len(d):
        raise ValueError(f"k must be between 1 and {len(d) - 1}, got {k}")
    near = (d + torch.diag(torch.full((len(d),), torch.inf, dtype=d.dtype))).topk(k, largest=False).indices
    graph = torch.zeros_like(d).scatter_(1, near, d.gather(1, near).clamp_min(1e-12))
    paths = shortest_path(csr_matrix(torch.maximum(graph, graph.T).double().numpy()), directed=False)
    paths[np.isinf(paths)] = paths[np.isfinite(paths)].max()
    return torch.from_numpy(paths).to(d.dtype)


def fuzzy_simplicial_set(d: Distances, k: int = 15, rounds: int = 40) -> Float[Tensor, "n n"]:
    """UMAP's graph (McInnes et al., 2018): each point's own metric, and the fuzzy union of all.

    Strength exp(-(d_ij - ρ_i)_+ / σ_i) to the k nearest, where ρ_i is the nearest distance and σ_i makes the strengths
    sum to log₂ k; then a + b - ab of both directions (algorithms 2 and 3 there; section 4 here).

    k       neighbours, the point itself among them as in umap-learn, 2 … n
    rounds  of bisection for σ

    Departure: umap-learn keeps σ above a thousandth of the mean distance, and so do we.
    """
    check_distances(d)
    if not 2 <= k <= len(d):
        raise ValueError(f"k must be between 2 and the {len(d)} points of d, got {k}")
    near, which = d.topk(k, largest=False)  # the point itself, at distance 0, is first
    near, which = near[:, 1:], which[:, 1:]
    rho = near[:, :1]
    low, high = torch.zeros_like(rho), torch.full_like(rho, 1e4 * float(d.max()) + 1e-6)
    beyond = (near - rho).clamp_min(0)
    wanted = np.log2(k)
    for _ in range(rounds + 20):
        middle = (low + high) / 2
        over = (-beyond / middle).exp().sum(1, keepdim=True) > wanted
        low, high = torch.where(over, low, middle), torch.where(over, middle, high)
    sigma = torch.maximum(high, 1e-3 * near.mean(1, keepdim=True)).clamp_min(1e-12)
    w = torch.zeros_like(d).scatter_(1, which, (-beyond / sigma).exp()).fill_diagonal_(0)
    return w + w.T - w * w.T


def smacof(
    d: Distances, dim: int, generator: Generator, iterations: int = 100, start: Float[Tensor, "n m"] | None = None
) -> Float[Tensor, "n m"]:
    """Points whose distances are as given, in the least squares sense: metric multidimensional scaling.

    Stress Σ_{i<j} (‖x_i - x_j‖ - d_ij)², by the Guttman transform, which never raises it (de Leeuw, 1977).

    start  or a Gaussian draw of d's scale
    """
    check_distances(d)
    n = len(d)
    x = torch.randn(n, dim, generator=generator, dtype=d.dtype) * d.mean() if start is None else start
    for _ in range(iterations):
        ratio = d / torch.cdist(x, x).clamp_min(1e-9)
        ratio.fill_diagonal_(0)
        x = (ratio.sum(1, keepdim=True) * x - ratio @ x) / n
    return x


def stress(x: Float[Tensor, "n m"], d: Distances) -> Float[Tensor, ""]:
    """Σ_{i<j} (‖x_i - x_j‖ - d_ij)²."""
    return (torch.pdist(x) - d[tuple(torch.triu_indices(len(d), len(d), 1))]).square().sum()


def laplacian_eigenmaps(w: Float[Tensor, "n n"], dim: int) -> Float[Tensor, "n m"]:
    """The embedding that varies least along a graph (Belkin and Niyogi, 2003); on UMAP's graph it is the paper's LUMAP.

    The eigenvectors 2 … dim + 1 of the normalised Laplacian, divided by the root of the degree.
    """
    root = w.sum(1).clamp_min(1e-12).sqrt()
    vectors = torch.linalg.eigh(w / root[:, None] / root).eigenvectors
    return (vectors / root[:, None]).flip(1)[:, 1 : dim + 1]


def fuzzy_cross_entropy(
    x: Float[Tensor, "n m"], w: Float[Tensor, "n n"], a: float = 1.577, b: float = 0.895
) -> Float[Tensor, ""]:
    """UMAP's loss, summed over all pairs: -w log q - (1 - w) log(1 - q) with q = 1 / (1 + a ‖x_i - x_j‖^2b).

    a, b  of UMAP's default, min_dist 0.1

    Linear in w: where all q < ½ a stronger graph has the larger loss, so one between two others has a loss between.
    """
    far = torch.pdist(x).square().clamp_min(1e-8)
    odds = b * far.log() + math.log(a)  # q = sigmoid(-odds)
    pairs = w[tuple(torch.triu_indices(len(w), len(w), 1))]
    return (torch.nn.functional.softplus(odds) - (1 - pairs) * odds).sum()


def embed_by_cross_entropy(
    w: Float[Tensor, "n n"], dim: int, generator: Generator, steps: int = 60, lr: float = 0.2
) -> Float[Tensor, "n m"]:
    """Minimise UMAP's loss over all pairs by Adam, from Laplacian eigenmaps of length 10 as UMAP begins.

    On ``fuzzy_simplicial_set`` it is UMAP, on exp(-d) the paper's maximal linkage cross entropy (MLCE).
    Departure: all pairs in place of sampled ones, which at some hundred points is exact and cheaper.
    """
    x = laplacian_eigenmaps(w, dim)
    x = 10 * x / x.abs().max().clamp_min(1e-12) + 1e-4 * torch.randn(x.shape, generator=generator, dtype=x.dtype)
    x = x.clone().requires_grad_()
    adam = torch.optim.Adam([x], lr=lr)
    for i in range(steps):
        adam.param_groups[0]["lr"] = lr * (1 - i / steps)
        adam.zero_grad()
        fuzzy_cross_entropy(x, w).backward()
        adam.step()
    return x.detach()


def dna_chains(
    starts: int, mutations: int, generator: Generator, edits: int = 100, length: int = 1000
) -> tuple[Int[Tensor, "n length"], Float[Tensor, "n n"]]:
    """The authors' simulation: bases edited from one string, each mutated letter by letter into a chain.

    Section 5. Returns sequences of letters 0 … 3, chain by chain, and the share of letters in which two differ.
    """

    def change(strings):
        at = torch.randint(length, (len(strings), 1), generator=generator)
        by = torch.randint(1, 4, (len(strings), 1), generator=generator)
        return strings.scatter(1, at, (strings.gather(1, at) + by) % 4)

    now = torch.randint(4, (1, length), generator=generator).expand(starts, -1)
    for _ in range(edits):
        now = change(now)
    chain = []
    for _ in range(mutations):
        now = change(now)
        chain.append(now)
    strings = torch.stack(chain, 1).flatten(0, 1)
    one_hot = torch.nn.functional.one_hot(strings, 4).float().flatten(1)
    return strings, ((length - one_hot @ one_hot.T) / length).double()


def own_base(x: Float[Tensor, "n m"], mutations: int) -> float:
    """Share of chains whose last string lies nearest to its own first one among all first ones. In [0, 1]."""
    first, last = x[::mutations], x[mutations - 1 :: mutations]
    return float((torch.cdist(last, first).argmin(1) == torch.arange(len(first))).double().mean())


def chain_recall(
    kinds: dict[str, Callable[[Distances], Distances]], starts: int, mutations: int, dim: int, seed: int,
    iterations: int = 80,
) -> tuple[dict[str, float], dict[str, Tensor]]:  # fmt: skip
    """``own_base`` of scaling each kind of distance of one simulation of ``dna_chains``, and the embeddings, by name.

    kinds  what takes the place of the raw distances, e.g. ``single_linkage``. All begin at the same draw
    """
    _, d = dna_chains(starts, mutations, torch.Generator().manual_seed(seed))
    made = {name: smacof(change(d), dim, torch.Generator().manual_seed(seed), iterations)
            for name, change in kinds.items()}  # fmt: skip
    return {name: own_base(x, mutations) for name, x in made.items()}, made


def embedding_accuracy(
    makers: dict[str, Callable], z: Float[Tensor, "n d"], labels: Int[Tensor, " n"], dims: Sequence[int] = (2, 10)
) -> dict[str, dict[int, float]]:
    """Embed all rows without labels, then classify: the mean of logistic regressions from either half to the other.

    makers  (z, w, plain, dim) -> (n, dim) by name, of the rows, UMAP's graph of ten neighbours and exp(-d)
    """
    d = torch.cdist(z, z, compute_mode="donot_use_mm_for_euclid_dist").fill_diagonal_(0)
    d = (d + d.T) / 2
    w, plain = fuzzy_simplicial_set(d, 10), (-d).exp().fill_diagonal_(0)
    later, found = torch.arange(1, len(z) + 1) > len(z) // 2, {name: {} for name in makers}
    for name, dim in ((name, dim) for name in makers for dim in dims):
        e = makers[name](z, w, plain, dim)
        e = (e - e.mean(0)) / e.std(0)
        one, other = ((e[half], labels[half]) for half in (later, ~later))
        either = [linear_probe(*a, *b, l2=(1e-2,)).accuracy for a, b in ((one, other), (other, one))]
        found[name][dim] = sum(either) / 2
    return found
