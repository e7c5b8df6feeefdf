"""The Edge of Orthogonality (Richemond et al., 2023): a linear BYOL whose predictor is a formula."""

import copy

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...loss import check_matrix, unit_rows
from ...nets import mlp
from ...parallel import gather
from .cross_norm import Rows, Scalar
from .two_views import Projected

Square = Float[Tensor, "d d"]


def newton_schulz(s: Square, steps: int = 9) -> tuple[Square, Square]:
    """The square root of a positive semi-definite matrix and its inverse, by matrix products alone.

    Coupled iteration: A₀ = S/‖S‖, B₀ = I; A ← A(3I - BA)/2, B ← (3I - BA)B/2. Returns A √‖S‖ → S^½ and B/√‖S‖ → S^-½.
    Small eigenvalues converge last: one of 1e-6 ‖S‖ needs about 20 steps.
    """
    largest = s.abs().amax()
    largest = torch.where(largest > 0, largest, torch.ones_like(largest))  # so that no square leaves the range
    norm = (s / largest).norm() * largest
    norm = torch.where(norm > 0, norm, torch.ones_like(norm))
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
    if z.device.type == "cpu" and not bool(torch.isfinite(z).all() & torch.isfinite(target).all()):
        raise ValueError("z and target must be finite, got NaN or infinity")
    if not alpha >= 0:
        raise ValueError(f"alpha must be at least 0, got {alpha}")
    z, target = unit_rows(z.float()), unit_rows(target.float())
    with torch.autocast(z.device.type, enabled=False):
        s = z.T @ z
        norm = s.norm().clamp_min(torch.finfo(s.dtype).tiny)  # rows of zeros alone
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
        return 2 - 2 * (unit_rows(predicted.float()) * unit_rows(wanted.float())).sum(1).mean()
