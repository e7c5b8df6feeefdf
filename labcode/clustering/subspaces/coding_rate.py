"""Coding rates: how many bits a set of features takes, alone and in groups (Ma et al., 2007; Yu et al., 2020, MCR²)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...loss import check_matrix, check_positive, float32, raised

Rows = Float[Tensor, "n d"]


class _LogDeterminant(torch.autograd.Function):
    """Its gradient is the inverse, which the factor gives in half the time of a backward pass through Cholesky."""

    @staticmethod
    def forward(ctx, m):
        factor = torch.linalg.cholesky_ex(m).L
        ctx.save_for_backward(factor)
        return 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    @staticmethod
    def backward(ctx, grad):
        return grad[..., None, None] * torch.cholesky_inverse(ctx.saved_tensors[0])


def log_determinant(m: Float[Tensor, "*any d d"]) -> Float[Tensor, "*any"]:
    """log det of symmetric positive definite matrices, by Cholesky; a GPU is not waited for. Differentiable once.

    A matrix that is not positive definite gives NaN or a wrong number: ``I`` plus a Gram matrix always is one.
    """
    return _LogDeterminant.apply(m)


@float32
def coding_rate(z: Rows, eps2: float = 0.1) -> Float[Tensor, ""]:
    """R(Z) = ½ log det(I + d / (n ε²) Zᵀ Z): half the log-volume of the features, in nats a row.

    MCR² (Yu et al., 2020), eq. 4; the paper MLC leaves the ½ out, its released code and CPP have it.

    z     features (n, d), n >= 1, rows of length 1 in both papers
    eps2  ε² > 0, the squared error that the code may make; 0.1 in CPP's code

    Raises ValueError for anything but a matrix, and for eps2 that is not positive.
    """
    check_matrix("z", z)
    check_positive(eps2=eps2)
    n, d = z.shape
    return log_determinant(torch.eye(d, device=z.device, dtype=z.dtype) + d / (n * eps2) * z.T @ z) / 2


def group_rates(
    z: Rows, membership: Float[Tensor, "n k"], eps2: float = 0.1
) -> tuple[Float[Tensor, " k"], Float[Tensor, " k"]]:
    """For each column of a membership its weight w_j = Σᵢ πᵢⱼ, and ½ log det(I + d / (w_j ε²) Zᵀ diag(π_j) Z).

    All k products Zᵀ diag(π_j) Z are one product of πᵀ with the rows' outer products: memory n·d² + k·d².
    """
    n, d = z.shape
    weight = membership.sum(0)
    outer = (z[:, :, None] * z[:, None, :]).view(n, d * d)
    scale = d / (eps2 * (weight + 1e-8))
    grams = scale[:, None, None] * (membership.T @ outer).view(-1, d, d)
    return weight, log_determinant(torch.eye(d, device=z.device, dtype=z.dtype) + grams) / 2


def segmented_rate(z: Rows, membership: Float[Tensor, "n k"], eps2: float = 0.1) -> Float[Tensor, ""]:
    """Rc(Z, Π) = Σⱼ (w_j / n) · ½ log det(I + d / (w_j ε²) Zᵀ diag(π_j) Z): the rate when rows are coded in k groups.

    MCR², eq. 6. With an n × K membership there is a term a cluster; with MLC's and CPP's doubly stochastic n × n one a
    *sample*, all of weight 1.

    membership  π (n, k) >= 0; half precision is raised to float32

    Raises ValueError for other shapes, negative entries and eps2 that is not positive.
    """
    check_matrix("z", z)
    check_matrix("membership", membership)
    check_positive(eps2=eps2)
    if len(membership) != len(z):
        raise ValueError(f"membership must have the {len(z)} rows of z, got {len(membership)}")
    if membership.device.type == "cpu" and bool((membership.detach() < 0).any()):
        raise ValueError(f"membership must not be negative, got {float(membership.detach().min()):.3g}")
    weight, rates = group_rates(raised(z), raised(membership), eps2)
    return (weight * rates).sum() / len(z)


@torch.no_grad()
def coding_length(z: Rows, labels: Int[Tensor, " n"], eps2: float = 0.1) -> float:
    """Nats to code all rows group by group, and the groups' names: what CPP chooses the number of clusters by.

    Ma et al. (2007), eq. 8; CPP, section 3.3: Σⱼ (n_j + d)/2 · log det(I + d / (ε² n_j) Z_jᵀ Z_j) - n_j log(n_j / n).

    labels  the group of each row, any integers

    Raises ValueError for labels that are not one a row.
    """
    check_matrix("z", z)
    if labels.shape != (len(z),):
        raise ValueError(f"labels must be one integer a row ({len(z)},), got {tuple(labels.shape)}")
    _, which = labels.unique(return_inverse=True)
    weight, rates = group_rates(z.double(), torch.nn.functional.one_hot(which).double(), eps2)
    return float(((weight + z.shape[1]) * rates - weight * (weight / len(z)).log()).sum())


def numerical_rank(z: Rows, energy: float = 0.95) -> int:
    """How many singular values hold this share of the sum of their squares; between 1 and min(n, d).

    MLC, section 5, measures subspaces by it: 0.95, features of length 1. Raises ValueError for a share outside (0, 1].
    """
    check_matrix("z", z)
    if not 0 < energy <= 1:
        raise ValueError(f"energy must be a share in (0, 1], got {energy}")
    held = torch.linalg.svdvals(raised(z)).square().cumsum(0)
    return int((held < energy * held[-1] - 1e-12 * held[-1]).sum()) + 1


def structure(z: Rows, labels: Int[Tensor, " n"]) -> dict[str, float]:
    """How far features are a union of subspaces: ranks at 95 % energy, and mean |cosine| within and between classes.

    Keys: "rank, all", "rank, class" (mean over classes), "within", "between". Rows are normalised first.
    """
    z = torch.nn.functional.normalize(raised(z), dim=1)
    cosine, same = (z @ z.T).abs(), labels[:, None] == labels
    same = same & ~torch.eye(len(z), dtype=torch.bool, device=z.device)
    other = labels[:, None] != labels
    ranks = [numerical_rank(z[labels == c]) for c in labels.unique()]
    return {
        "rank, all": float(numerical_rank(z)), "rank, class": sum(ranks) / len(ranks),
        "within": float(cosine[same].mean()), "between": float(cosine[other].mean()),
    }  # fmt: skip
