"""What information is where it can be known: tables of probabilities, and encoders with noise or without."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ...loss import check_matrix, check_positive
from ._common import Rows


def table_information(
    table: Tensor, a: tuple[int, ...], b: tuple[int, ...], given: tuple[int, ...] = ()
) -> float:
    """I(A; B | C) in nats from a joint table with an axis a variable; A, B and C are groups of axes.

    H(A, C) + H(B, C) - H(A, B, C) - H(C), exactly; groups may overlap, and an empty one is a constant.
    Raises ValueError for a table that is no distribution.
    """
    if bool((table < 0).any()) or abs(float(table.sum()) - 1) > 1e-6:
        raise ValueError(f"table must be a distribution, got a sum of {float(table.sum()):.4g}")

    def entropy(axes: set[int]) -> float:
        rest = tuple(i for i in range(table.ndim) if i not in axes)
        return float(torch.special.entr(table.double().sum(rest) if rest else table.double()).sum())

    a, b, c = set(a), set(b), set(given)
    return entropy(a | c) + entropy(b | c) - entropy(a | b | c) - entropy(c)


def shared_private_table(private: float, symbols: int = 4) -> Float[Tensor, "s p q y"]:
    """Joint table of s, p₁, p₂ and y: views are x₁ = (s, p₁) and x₂ = (s, p₂), all uniform.

    private  the chance that the label y is p₁ instead of s: I(y; x₁ | x₂) grows with it from 0
    """
    if not 0 <= private <= 1:
        raise ValueError(f"private must be a probability, got {private}")
    same = torch.eye(symbols, dtype=torch.float64)
    label = (1 - private) * same[:, None] + private * same[None]  # [s, p₁, y]
    return label[:, :, None].expand(-1, -1, symbols, -1) / symbols**3


def random_codes_table(seed: int, sizes: tuple[int, int, int, int] = (5, 4, 3, 4)) -> Float[Tensor, "a b y z"]:
    """Joint table of x₁, x₂, y and a code z: any p(x₁, x₂, y), and any stochastic encoder p(z | x₁)."""
    g = torch.Generator().manual_seed(seed)
    a, b, y, z = sizes
    world = torch.rand(a, b, y, generator=g, dtype=torch.float64).log().neg().pow(3)  # a few entries hold most of it
    encoder = torch.rand(a, z, generator=g, dtype=torch.float64).log().neg().pow(4)
    return (world / world.sum())[..., None] * (encoder / encoder.sum(1, keepdim=True))[:, None, None]


def compression_loss(table: Float[Tensor, "a b y z"]) -> tuple[float, float]:
    """What a code of x₁ loses of the label, I(y; x₁) - I(y; z), and its bound, I(y; x₁ | x₂) + I(x₁; x₂ | z).

    The multi-view assumption makes the first term of the bound small, keeping what the views share the second. Axes
    are x₁, x₂, y and z, and z depends on x₁ alone.
    """
    lost = table_information(table, (2,), (0,)) - table_information(table, (2,), (3,))
    return lost, table_information(table, (2,), (0,), (1,)) + table_information(table, (0,), (1,), (3,))


def noisy_information(z: Rows, sd: float, generator: torch.Generator) -> float:
    """I(X; Z + sd · ε) in nats, ε standard normal, where X is one of the n rows: the code of a deterministic encoder.

    One draw of noise a row, and the exact log of p(z' | x) / mean p(z' | x'). At most log n; log n for little noise.
    """
    check_matrix("z", z, rows=2)
    check_positive(sd=sd)
    z = z.double()
    seen = z + sd * torch.randn(z.shape, generator=generator, dtype=z.dtype)
    logits = -torch.cdist(seen, z).square() / (2 * sd * sd)
    return float((logits.diagonal() - logits.logsumexp(1)).mean()) + math.log(len(z))


def binned_information(z: Rows, width: float) -> float:
    """I(X; bin of Z) = H(bin of Z) in nats, X one of the n rows, each coordinate cut into bins of this width."""
    check_matrix("z", z, rows=1)
    check_positive(width=width)
    counts = torch.unique((z / width).floor(), dim=0, return_counts=True)[1].double()
    return float(torch.special.entr(counts / len(z)).sum())


def gaussian_channel(covariance: Float[Tensor, "d d"], sd: float) -> float:
    """I(X; Z + sd · ε) = ½ log det(1 + C / sd²) for Gaussian Z with covariance C: without noise it has no bound."""
    check_positive(sd=sd)
    return float(torch.linalg.eigvalsh(covariance.double()).clamp_min(0).div(sd * sd).log1p().sum() / 2)


def code_information(
    mu: Rows, log_sd: Float[Tensor, "n d"], symbols: dict[str, Int[Tensor, " n"]], generator: torch.Generator
) -> dict[str, float]:
    """What the codes of a stochastic Gaussian encoder tell, bounded in nats: of the view, and of each symbol.

    "view, at least": p(z | x) is known, so p(z) is a mixture over the n rows; one code is drawn a row. At most log n.
    "view, at most": h(z) is at most that of a Gaussian of the same covariance.
    "symbol": at least; the entropy of the symbol less the cross entropy of a softmax reader, fitted on the first half
    of the rows and judged on the second, 0 if below.
    """
    check_matrix("mu", mu, rows=2)
    check_matrix("log_sd", log_sd, like=mu)
    mu, log_sd = mu.double(), log_sd.double().clamp(-8, 8)
    z = mu + log_sd.exp() * torch.randn(mu.shape, generator=generator, dtype=mu.dtype)
    weight = (-2 * log_sd).exp()
    apart = z.square() @ weight.T - 2 * z @ (mu * weight).T + (mu.square() * weight).sum(1)
    density = -apart / 2 - log_sd.sum(1)  # log p(z_i | x_j), up to a constant
    covariance = torch.cov(mu.T) + torch.diag((2 * log_sd).exp().mean(0))
    found = {
        "view, at least": float((density.diagonal() - density.logsumexp(1)).mean()) + math.log(len(mu)),
        "view, at most": float(torch.logdet(covariance) / 2 - log_sd.sum(1).mean()),
    }
    return found | {name: max(0.0, readable_information(z, y)) for name, y in symbols.items()}


def readable_information(z: Rows, y: Int[Tensor, " n"], l2: float = 1e-3, steps: int = 30) -> float:
    """H(y) less the cross entropy, in nats, of a linear softmax reader of z: a lower bound of I(z; y).

    Fitted on the first half of the rows by L-BFGS, judged on the second. Labels are any integers.
    """
    z = (z - z.mean(0)) / z.std(0).clamp_min(1e-6)
    z, (names, y) = torch.cat([z, torch.ones_like(z[:, :1])], 1), y.unique(return_inverse=True)
    half, w = len(z) // 2, torch.zeros(z.shape[1], len(names), dtype=z.dtype, requires_grad=True)
    solver = torch.optim.LBFGS([w], max_iter=steps, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        solver.zero_grad()
        value = F.cross_entropy(z[:half] @ w, y[:half]) + l2 * w.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        solver.step(closure)
    entropy = float(torch.special.entr(torch.bincount(y[half:]).double() / len(y[half:])).sum())
    return entropy - float(F.cross_entropy(z[half:] @ w.detach(), y[half:]))
