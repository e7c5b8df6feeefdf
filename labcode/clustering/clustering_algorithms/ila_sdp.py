"""iLA-SDP: clusters of different shapes by a semidefinite programme over lifted memberships; no centroid anywhere."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...loss import check_finite, check_matrix


def likelihood_affinity(x: Float[Tensor, "n d"], covariances: Float[Tensor, "*b k d d"]) -> Float[Tensor, "*b k n n"]:
    """A_k(i, j), the pairwise form of twice the Gaussian log-likelihood with the means maximised out.

    A_k = X Σ_k⁻¹ Xᵀ - (d_k 1ᵀ + 1 d_kᵀ)/2 - log det Σ_k 11ᵀ with d_ki = x_iᵀ Σ_k⁻¹ x_i, that is minus half the squared
    Mahalanobis distance of i and j, minus log det Σ_k. For a cluster G of size n_k the sum over its pairs, over n_k, is
    Σ_{i∈G} -(x_i - mean)ᵀ Σ_k⁻¹ (x_i - mean) - n_k log det Σ_k.
    """
    root = torch.linalg.cholesky(covariances)
    white = torch.linalg.solve_triangular(root, x.T.expand(*root.shape[:-1], len(x)), upper=False).mT
    square = white.square().sum(-1)
    half = white @ white.mT - (square[..., :, None] + square[..., None, :]) / 2
    return half - 2 * root.diagonal(dim1=-2, dim2=-1).log().sum(-1)[..., None, None]


@dataclass(frozen=True)
class Lifted:
    """A solved relaxation: z (…, k, n, n), its value (…), a dual bound (…) that no feasible z exceeds, steps taken."""

    z: Float[Tensor, "*b k n n"]
    value: Float[Tensor, "*b"]
    bound: Float[Tensor, "*b"]
    steps: int
    state: tuple

    @property
    def memberships(self) -> Float[Tensor, "*b n k"]:
        """Row sums of each Z_k: how much of i belongs to group k; they sum to 1 over the groups."""
        return self.z.sum(-1).mT

    @property
    def labels(self) -> Int[Tensor, "*b n"]:
        """Rounding (ours): the group that holds most of a row."""
        return self.memberships.argmax(-1)


def solve_lifted(
    a: Float[Tensor, "*b k n n"], traces: tuple[float, ...] | None = None, steps: int = 300, tolerance: float = 1e-4,
    state: tuple | None = None,
) -> Lifted:  # fmt: skip
    """max Σ_k ⟨A_k, Z_k⟩ over Z_k ⪰ 0, Z_k ≥ 0, tr Z_k given, (Σ_k Z_k) 1 = 1, by ADMM; problems in one batch.

    LA-SDP; ours, as the authors solve it with a package. Three copies of Z, one for each kind of constraint: the affine
    ones are projected on in closed form, the cone by eigenvalues, the entries by clipping. k = 1 with trace K is the
    k-means relaxation of Peng and Wei (2007).

    traces     default 1 for each group, as it is for Z_k = 11ᵀ/n_k
    tolerance  of the mean change and of the mean disagreement of the copies, in units of an entry 1/n
    state      of an earlier solution of the same shape, to start from

    ``bound`` is a certificate: for any row multipliers μ and B_k ≥ 0 the value is at most Σ μ_i +
    Σ_k tr Z_k λ_max(A_k + B_k - (μ1ᵀ + 1μᵀ)/2), here with the multipliers that ADMM ends with.
    Raises ValueError for matrices that are not square or not finite and for traces that do not fit.
    """
    if a.ndim < 3 or a.shape[-1] != a.shape[-2] or a.shape[-1] < 2:
        raise ValueError(f"a must be (…, k, n, n) with n at least 2, got {tuple(a.shape)}")
    check_finite(a=a)
    k, n = a.shape[-3], a.shape[-1]
    trace = torch.tensor(traces or (1.0,) * k, dtype=a.dtype, device=a.device)
    if len(trace) != k or not 0 < float(trace.sum()) <= n:
        raise ValueError(f"traces must be {k} numbers with a sum of at most {n}, got {traces}")
    offset = a.mean((-3, -2, -1), keepdim=True)  # a constant changes the value by n times it, and nothing else
    a = (a + a.mT) / 2 - offset
    scale = a.square().mean((-3, -2, -1), keepdim=True).sqrt().clamp_min(1e-30)
    step = a / scale / n  # entries of Z are about 1/n
    if state is None:
        zero = torch.zeros_like(a)
        state = (zero + 1 / (n * k), zero + 1 / (n * k), zero, zero)
    psd, positive, u, w = state
    for taken in range(1, steps + 1):
        before = psd
        z, lam, mu = _affine((psd - u + positive - w + step) / 2, trace)
        values, vectors = torch.linalg.eigh(z + u)
        psd = (vectors * values.clamp_min(0)[..., None, :]) @ vectors.mT
        positive = (z + w).clamp_min(0)
        u, w = u + z - psd, w + z - positive
        if taken % 20 == 0:
            apart = torch.maximum((z - psd).abs().mean((-3, -2, -1)), (z - positive).abs().mean((-3, -2, -1)))
            moved = (psd - before).abs().mean((-3, -2, -1))
            if bool((torch.maximum(apart, moved) * n < tolerance).all()):
                break
    shares = positive / positive.sum((-3, -1), keepdim=True).clamp_min(1e-12)  # rows of the sum are 1 exactly
    extra = (-w).clamp_min(0) * n * scale  # multipliers of the entries' signs
    rows = 2 * mu * n * scale[..., 0]  # and of the row sums
    top = torch.linalg.eigvalsh(a + extra - (rows[..., None] + rows[..., None, :]) / 2)[..., -1]
    bound = rows[..., 0, :].sum(-1) + (top * trace).sum(-1)
    constant = offset[..., 0, 0, 0] * n
    return Lifted(shares, (a * z).sum((-3, -2, -1)) + constant, bound + constant, taken, (psd, positive, u, w))


def _affine(y: Tensor, trace: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The nearest symmetric Z to Y with the traces and row sums: Z_k = Y_k - λ_k I - (μ1ᵀ + 1μᵀ)/2; also λ and μ."""
    k, n = y.shape[-3], y.shape[-1]
    rest = y.sum((-3, -1)) - 1  # (…, n)
    over = y.diagonal(dim1=-2, dim2=-1).sum(-1) - trace  # (…, k)
    total = (rest.sum(-1) - over.sum(-1)) / (k * (n - 1))  # 1ᵀμ
    lams = (over - total[..., None]) / n
    mu = 2 / (k * n) * (rest - lams.sum(-1, keepdim=True)) - total[..., None] / n
    mu = mu[..., None, :]  # the same for every group
    eye = torch.eye(n, dtype=y.dtype, device=y.device)
    z = y - lams[..., None, None] * eye - (mu[..., None] + mu[..., None, :]) / 2
    return z, lams, mu


def _spread(x: Tensor, z: Tensor, floor: float) -> Tensor:
    """Σ_k = Xᵀ (diag(Z_k 1) - Z_k) X / (1ᵀ Z_k 1), the group's covariance without its centroid."""
    rows = z.sum(-1)
    covariance = torch.einsum("...kn,nd,ne->...kde", rows, x, x) - x.T @ z @ x
    covariance = covariance / rows.sum(-1).clamp_min(1e-6)[..., None, None]
    values, vectors = torch.linalg.eigh((covariance + covariance.mT) / 2)
    least = (floor * x.var(0).mean()).clamp_min(1e-9)  # of the data's own spread: no group shrinks to a point
    return (vectors * values.clamp_min(least)[..., None, :]) @ vectors.mT


def group_covariances(
    x: Float[Tensor, "n d"], labels: Int[Tensor, "*b n"], k: int, floor: float = 0.02
) -> Float[Tensor, "*b k d d"]:
    """Covariances of the groups of a partition, eigenvalues floored: what the alternation starts from."""
    member = torch.nn.functional.one_hot(labels, k).to(x.dtype).mT
    z = member[..., :, None] * member[..., None, :] / member.sum(-1).clamp_min(1)[..., None, None]
    return _spread(x, z, floor)


def ila_sdp(
    x: Float[Tensor, "n d"], k: int, start: Int[Tensor, "*b n"], rounds: int = 4, steps: int = 300, floor: float = 0.02,
    adjust: bool = True,
) -> Lifted:  # fmt: skip
    """Alternate LA-SDP with the covariances of its solution; Zhuang, Chen and Yang (2023).

    start   labels of rough partitions, all solved in one batch; the groups must differ in shape, or nothing tells them
            apart
    floor   least eigenvalue of a covariance, a share of the mean variance of a column (ours)
    adjust  False keeps the covariances of the start: one solution

    Each round begins where the last ended. n ≤ 200, as a round takes eigenvalues of k n×n matrices a step.
    Raises ValueError for labels outside 0 … k - 1 and rows that are not finite.
    """
    check_matrix("x", x, rows=2)
    check_finite(x=x)
    if start.shape[-1] != len(x) or int(start.min()) < 0 or int(start.max()) >= k:
        raise ValueError(f"start must be labels 0 … {k - 1} of the {len(x)} rows, got shape {tuple(start.shape)}")
    x = (x - x.mean(0)).double()
    covariances, solved = group_covariances(x, start, k, floor), None
    for _ in range(rounds if adjust else 1):
        state = solved.state if solved else None
        solved = solve_lifted(likelihood_affinity(x, covariances), steps=steps, state=state)
        covariances = _spread(x, solved.z, floor)
    return solved


def kmeans_sdp(x: Float[Tensor, "n d"], k: int, steps: int = 300) -> Lifted:
    """The semidefinite relaxation of k-means (Peng and Wei 2007): one Z with trace k and the squared distances."""
    x = (x - x.mean(0)).double()
    eye = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    return solve_lifted(likelihood_affinity(x, eye[None]), (float(k),), steps)
