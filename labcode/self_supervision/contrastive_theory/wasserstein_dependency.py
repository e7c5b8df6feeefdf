"""Wasserstein dependency measure (Ozair et al., 2019): transport in place of KL, and a critic that may not be steep."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...data import shuffled
from ...loss import check_matrix, float32
from ._common import Rows, Scalar, learn, perceptron, ridge_accuracy
from .estimators import nce_bound


def optimal_transport(
    p: Float[Tensor, " a"], q: Float[Tensor, " b"], cost: Float[Tensor, "a b"]
) -> tuple[float, Float[Tensor, " a"], Float[Tensor, " b"]]:
    """W₁ between two discrete distributions by linear programming, and the two potentials of its dual.

    The value is Σ p u + Σ q v with u_i + v_j <= cost_ij (strong duality). Small problems only: a·b variables.
    Raises ValueError for distributions that do not sum to one.
    """
    import numpy as np
    from scipy.optimize import linprog
    from scipy.sparse import eye, kron

    for name, w in (("p", p), ("q", q)):
        if abs(float(w.sum()) - 1) > 1e-6 or bool((w < 0).any()):
            raise ValueError(f"{name} must be a distribution, got a sum of {float(w.sum()):.4g}")
    a, b = cost.shape
    rows, columns = kron(eye(a), np.ones((1, b))), kron(np.ones((1, a)), eye(b))
    from scipy.sparse import vstack

    found = linprog(cost.double().flatten().numpy(), A_eq=vstack([rows, columns]).tocsr(),
                    b_eq=np.concatenate([p.double().numpy(), q.double().numpy()]), method="highs")  # fmt: skip
    dual = torch.from_numpy(np.asarray(found.eqlin.marginals))
    return float(found.fun), dual[:a], dual[a:]


@float32
def lipschitz_penalty(gradient: Float[Tensor, "n d"], target: float = 1.0) -> Scalar:
    """mean (‖∇f‖ - target)²: the gradient penalty, of the gradients of a critic at n points.

    Wasserstein dependency measure (Ozair et al., 2019) takes it from improved Wasserstein GANs.
    """
    check_matrix("gradient", gradient)
    if not 0 <= target <= 1e15:
        raise ValueError(f"target must be a length in 0 … 1e15, got {target}")
    return ((gradient.square().sum(1) + 1e-12).sqrt() - target).square().mean()


def wpc_penalty(
    critic: Callable[[Rows, Rows], Float[Tensor, " n"]], x: Rows, y: Float[Tensor, "n e"], order: Int[Tensor, " n"]
) -> Scalar:
    """Gradient penalty of the whole critic, encoders included, between a pair and a shuffled pair.

    Points are (x, t y + (1 - t) y[order]) with t uniform: on the way from the joint distribution to the product of
    the marginals. The gradient is that of both inputs together.

    critic  f(xᵢ, yᵢ), row by row, differentiable twice
    """
    t = torch.rand(len(x), 1, device=x.device)
    x = x.detach().requires_grad_()
    y = (t * y + (1 - t) * y[order]).detach().requires_grad_()
    slopes = torch.autograd.grad(critic(x, y).sum(), (x, y), create_graph=True)
    return lipschitz_penalty(torch.cat(slopes, 1))


def token_pairs(
    n: int, tokens: int, seed: int, classes: int = 10, noise: float = 0.3, scale: float = 3.0, world: int = 0
) -> tuple[Float[Tensor, "n td"], Float[Tensor, "n td"], Int[Tensor, "n t"]]:
    """Two views of ``tokens`` independent symbols: x holds a picture of each of them, y of each one's successor.

    The paper's stacked characters without pictures: I(x; y) grows by nearly log(classes) nats a token, and a
    representation is complete when every token can be read from it. A token's picture is 16 numbers, a fixed random
    map of (the symbol's code + noise, 4 coordinates of nuisance). Returns x, y and the symbols of x.

    noise  standard deviation about the code, in every coordinate; codes have norm 2
    scale  of the pictures: what a slope of 1 means
    world  seed of codes and map, which training and test must share
    """
    fixed, g = torch.Generator().manual_seed(world), torch.Generator().manual_seed(seed)
    codes = 2 * F.normalize(torch.randn(classes, 6, generator=fixed), dim=1)
    first, second = torch.randn(10, 48, generator=fixed) / math.sqrt(10), torch.randn(48, 16, generator=fixed) / 7
    symbols = torch.randint(classes, (n, tokens), generator=g)
    views = []
    for shown in (symbols, (symbols + 1) % classes):
        inner = codes[shown] + noise * torch.randn(n, tokens, 6, generator=g)
        inner = torch.cat([inner, torch.randn(n, tokens, 4, generator=g)], 2)
        views.append((scale * torch.sin(inner @ first / 2) @ second).flatten(1))
    return views[0], views[1], symbols


class PairCritic(nn.Module):
    """g(x)ᵀ W h(y) with perceptrons g and h: CPC's critic for vectors; nothing is normalised.

    spectral  True puts spectral normalisation on every matrix of g, h and W: another way to bound the slope
    """

    def __init__(self, dx: int, dy: int, hidden: int = 256, dim: int = 64, spectral: bool = False):
        super().__init__()
        self.g, self.h = perceptron(dx, hidden, dim), perceptron(dy, hidden, dim)
        self.middle = nn.Linear(dim, dim, bias=False)
        if spectral:
            for layer in [*self.g, *self.h, self.middle]:
                if isinstance(layer, nn.Linear):
                    nn.utils.parametrizations.spectral_norm(layer)

    def forward(self, x: Rows, y: Float[Tensor, "m e"]) -> Float[Tensor, "n m"]:
        return self.middle(self.g(x)) @ self.h(y).T

    def rowwise(self, x: Rows, y: Float[Tensor, "n e"]) -> Float[Tensor, " n"]:
        return (self.middle(self.g(x)) * self.h(y)).sum(1)


def read_tokens(
    arm: str, tokens: int, batch_size: int, seed: int, pairs: int = 4000, steps: int = 500, lam: float = 1.0,
    lr: float = 2e-3,
) -> float:  # fmt: skip
    """Mean over tokens of the test accuracy of a linear reader of g(x), after training by one of the arms.

    arm  "CPC": InfoNCE alone. "WPC": with ``lam`` times the gradient penalty, taken twice on every second step.
         "spectral": InfoNCE with spectral normalisation. "random": no training. "pictures": x itself
    """
    x, y, symbols = token_pairs(pairs, tokens, seed)
    new, _, wanted = token_pairs(1000, tokens, seed + 500)
    torch.manual_seed(seed)
    critic = PairCritic(x.shape[1], y.shape[1], spectral=arm == "spectral")
    g, batches = torch.Generator().manual_seed(seed), shuffled(pairs, batch_size, seed)

    def loss(step: Tensor) -> Scalar:
        i = batches(int(step))
        value = -nce_bound(critic(x[i], y[i]))
        if arm == "WPC" and int(step) % 2:
            order = torch.randperm(len(i), generator=g)
            value = value + 2 * lam * wpc_penalty(critic.rowwise, x[i], y[i], order)
        return value

    if arm not in ("random", "pictures"):
        learn([critic], loss, torch.tensor, steps, lr)
    with torch.no_grad():
        a, b = (x, new) if arm == "pictures" else (critic.g(x), critic.g(new))
    return sum(ridge_accuracy(a, symbols[:, t], b, wanted[:, t]) for t in range(tokens)) / tokens
