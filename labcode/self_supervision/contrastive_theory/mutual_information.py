"""On Mutual Information Maximization (Tschannen et al., 2020): bijections, and one trained to hide the classes."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...data import shuffled
from ...nets import evaluating
from ._common import Rows, Scalar, learn, perceptron, watched
from .estimators import nce_bound


class Flow(nn.Module):
    """A bijection of ℝᵈ: coupling layers as in RealNVP. I(g(x); y) = I(x; y) whatever its weights.

    Half of the coordinates move by what a perceptron makes of the other half, y₂ = s(x₁) x₂ + t(x₁), then the halves
    change roles. Near the identity at first: the perceptron's last layer starts at a standard deviation of 1e-4.

    affine  False: s = 1, volumes are kept (the paper's first experiment); True: s = softplus (its second)
    """

    def __init__(self, dim: int, couplings: int = 6, hidden: int = 128, affine: bool = False):
        super().__init__()
        if dim < 2:
            raise ValueError(f"dim must be at least 2 to have two halves, got {dim}")
        self.first, self.affine = dim // 2, affine
        wide = [dim // 2 if i % 2 == 0 else dim - dim // 2 for i in range(couplings)]
        self.nets = nn.ModuleList(perceptron(n, hidden, hidden, (1 + affine) * (dim - n)) for n in wide)
        for net in self.nets:
            nn.init.normal_(net[-1].weight, std=1e-4)
            nn.init.zeros_(net[-1].bias)

    def _shift(self, net: nn.Module, x: Tensor, width: int) -> tuple[Tensor, Tensor | float]:
        if not self.affine:
            return net(x), 1.0
        shift, scale = net(x).split(width, 1)
        return shift, F.softplus(scale + math.log(math.e - 1))

    def forward(self, x: Rows) -> Rows:
        a, b = x[:, : self.first], x[:, self.first :]
        for net in self.nets:
            shift, scale = self._shift(net, a, b.shape[1])
            a, b = b * scale + shift, a
        return torch.cat([a, b] if len(self.nets) % 2 == 0 else [b, a], 1)

    def inverse(self, y: Rows) -> Rows:
        """x from g(x)."""
        even = len(self.nets) % 2 == 0
        parts = (self.first, y.shape[1] - self.first)
        a, b = y.split(parts, 1) if even else y.split(parts, 1)[::-1]
        for net in reversed(self.nets):
            shift, scale = self._shift(net, b, a.shape[1])
            a, b = b, (a - shift) / scale
        return torch.cat([a, b], 1)


class Residual(nn.Module):
    """x ↦ x + W₂ relu(W₁ x), several times over: can be inverted at first, and nothing keeps it so.

    The encoder whose Jacobian the paper follows while the bound is maximised (five layers of 392 there). W₂ starts
    small, so that the net starts near the identity.
    """

    def __init__(self, dim: int, blocks: int = 3, hidden: int = 128):
        super().__init__()
        self.blocks = nn.ModuleList(perceptron(dim, hidden, dim) for _ in range(blocks))
        for block in self.blocks:
            nn.init.normal_(block[-1].weight, std=1e-2)

    def forward(self, x: Rows) -> Rows:
        for block in self.blocks:
            x = x + block(x)
        return x


def log_condition(encode: Callable[[Rows], Rows], x: Rows) -> float:
    """Mean over rows of log₁₀ of the Jacobian's condition number, largest over smallest singular value."""
    jacobian = torch.func.vmap(torch.func.jacrev(lambda row: encode(row[None])[0]))(x)
    values = torch.linalg.svdvals(jacobian.detach().double())
    return float((values[:, 0] / values[:, -1].clamp_min(1e-12)).log10().mean())


def infomax(
    x1: Rows, x2: Float[Tensor, "n e"], make: Callable[[], nn.Module], critic: Callable[[], nn.Module],
    loss: Callable[[Tensor], Scalar], seed: int, steps: int, lr: float = 1e-3,
    watch: Callable[[nn.Module], None] | None = None, looks: tuple[float, ...] = (0.0, 0.25, 0.5),
) -> list[nn.Module]:  # fmt: skip
    """Two encoders ``make()`` and a critic, trained on loss(scores) over batches of 64 pairs; returns all three.

    watch  called with view 1's encoder at shares ``looks`` of the training and at its end
    """
    torch.manual_seed(seed)
    g1, g2, f = make(), make(), critic()

    def look() -> None:
        if watch:
            with evaluating(g1):
                watch(g1)

    batches = watched(shuffled(len(x1), 64, seed), look, looks, steps)
    learn([g1, g2, f], lambda i: loss(f(g1(x1[i]), g2(x2[i]))), batches, steps, lr, clip=1.0)
    look()
    return [g1, g2, f]


@torch.no_grad()
def held_out_bound(
    g1: nn.Module, g2: nn.Module, f: nn.Module, x1: Rows, x2: Float[Tensor, "n e"], size: int = 64
) -> float:
    """The InfoNCE bound in nats on held-out pairs, averaged over batches of ``size``; what is left over is dropped."""
    kept = len(x1) // size * size
    pairs = zip(x1[:kept].split(size), x2[:kept].split(size), strict=True)
    return float(torch.stack([nce_bound(f(g1(a), g2(b))) for a, b in pairs]).mean())


def linear_evidence(z: Rows, y: Int[Tensor, " n"], classes: int, ridge: float = 1e-2) -> Scalar:
    """How much of the one-hot labels a ridge regression on standardised features explains: tr(CᵀS⁻¹C), >= 0."""
    z = z - z.mean(0)
    z = z / z.std(0).clamp_min(1e-3)
    target = F.one_hot(y, classes).to(z)
    across = z.T @ (target - target.mean(0)) / len(z)
    within = z.T @ z / len(z) + ridge * torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
    return (across * torch.linalg.solve(within, across)).sum()


def spoil(
    flow: Flow, x: Rows, y: Int[Tensor, " n"], steps: int, lr: float = 1e-3, batch_size: int = 500, seed: int = 0
) -> Flow:
    """Train a bijection *against* linear readers: after it, none finds the classes.

    The adversarially trained encoders of On Mutual Information Maximization. Departure: there, ten gradient steps of a
    classifier alternate with one of the encoder, for thousands of steps. Here the reader is a ridge regression, whose
    optimum on the batch is known, so the encoder descends on what the *best* reader finds (``linear_evidence``).
    """
    g, classes = torch.Generator().manual_seed(seed), int(y.max()) + 1

    def batch(_: int) -> Tensor:
        return torch.randint(len(x), (min(batch_size, len(x)),), generator=g)

    return learn([flow], lambda i: linear_evidence(flow(x[i]), y[i], classes), batch, steps, lr)[0]
