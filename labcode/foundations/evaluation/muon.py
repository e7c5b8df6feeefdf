"""Muon: momentum whose step on a layer is made orthogonal by a few Newton-Schulz iterations.

The optimiser of airbench's later version (Jordan, 2024).
"""

from collections.abc import Callable, Iterable
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from ...loss import raised

NS5 = (3.4445, -4.7750, 2.0315)  # Muon: as steep as possible at zero, singular values end in about 0.7 … 1.2


def newton_schulz(g: Float[Tensor, "a b"], steps: int = 5, eps: float = 1e-7) -> Float[Tensor, "a b"]:
    """About the nearest matrix with orthonormal rows or columns: U Vᵀ for g = U S Vᵀ, by products alone (Muon).

    The quintic p(s) = 3.4445 s - 4.7750 s³ + 2.0315 s⁵ is applied ``steps`` times to the singular values of g/‖g‖. It
    lifts small ones fast and leaves them scattered about 1, which an optimiser does not mind. bfloat16 on a GPU.

    Raises ValueError for a g that is no matrix.
    """
    if g.ndim != 2:
        raise ValueError(f"g must be a matrix, got {tuple(g.shape)}")
    a, b, c = NS5
    x = g.bfloat16() if g.is_cuda else raised(g)
    x = x / (x.norm() + eps)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x  # the Gram matrix on the shorter side
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.T if tall else x).to(g.dtype)


class Muon(torch.optim.Optimizer):
    """Nesterov momentum whose step on a layer is made orthogonal; for filters, seen as matrices (k, c·a·b).

    ``torch.optim.Muon`` takes matrices only and leaves the weights' norms alone. Here, as in the airbench version,
    every layer's norm is first set to the root of its number of filters: the rate is relative to the weights.

    lr        relative size of a step, > 0
    momentum  in [0, 1)
    steps     of Newton-Schulz
    """

    def __init__(self, params: Iterable[Tensor], lr: float = 0.24, momentum: float = 0.6, steps: int = 3):
        if not lr > 0:
            raise ValueError(f"lr must be positive, got {lr}")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), got {momentum}")
        super().__init__(params, dict(lr=lr, momentum=momentum, steps=steps))

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in (p for p in group["params"] if p.grad is not None):
                state = self.state[p]
                if not state:
                    state["momentum"] = torch.zeros_like(p)
                buffer = state["momentum"]
                buffer.mul_(group["momentum"]).add_(p.grad)
                update = p.grad + group["momentum"] * buffer
                p.mul_(len(p) ** 0.5 / p.norm().clamp_min(1e-12))  # weights that are all 0 stay so
                p.sub_(_orthogonal(update.flatten(1), group["steps"]).view_as(p) * group["lr"])


def _orthogonal(g: Tensor, steps: int) -> Tensor:
    return (_compiled_newton_schulz() if g.is_cuda else newton_schulz)(g, steps)


@lru_cache(1)
def _compiled_newton_schulz() -> Callable[..., Tensor]:
    return torch.compile(newton_schulz, dynamic=False)
