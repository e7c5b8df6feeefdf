"""Wasserstein dependency measure (Ozair et al., 2019): transport in place of KL, and a critic that may not be steep."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...data import shuffled
from ...loss import check_matrix, float32
from ...pairwise import off_diagonal
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


def block_slopes(
    critic: Callable[[Rows, Rows], Float[Tensor, " n"]], x: Rows, y: Float[Tensor, "n e"], width: int,
    keep_graph: bool = False,
) -> Float[Tensor, "n blocks"]:  # fmt: skip
    """‖∇f‖ at every point with respect to each block of ``width`` inputs of x and of y, all blocks side by side.

    f has slope at most 1 in the metric Σ_blocks ‖·‖ if none of them exceeds 1 anywhere: the metric in which W₁ of
    independent symbols is the sum of theirs.
    """
    x, y = (v.detach().requires_grad_() for v in (x, y))
    slopes = torch.autograd.grad(critic(x, y).sum(), (x, y), create_graph=keep_graph)
    return (torch.cat(slopes, 1).unflatten(1, (-1, width)).square().sum(2) + 1e-12).sqrt()


def symbol_codes(classes: int = 10, world: int = 0) -> Float[Tensor, "c 6"]:
    """A code of norm 2 in a random direction for each symbol."""
    return 2 * F.normalize(torch.randn(classes, 6, generator=torch.Generator().manual_seed(world)), dim=1)


def dependency_of_symbol(codes: Float[Tensor, "c d"]) -> tuple[float, Tensor, Tensor]:
    """I_W of one symbol and its successor by linear programming, and the best potential at all pairs, (c, c).

    Moving (a, b) to (c, d) costs ‖a - c‖ + ‖b - d‖. The potential is f(a, b) = min over pairs of (cost - u), u the
    dual at the pairs, with sign turned: 1-Lipschitz everywhere, and optimal. Returns value, potential, cost (c², c²).
    """
    c = len(codes)
    apart, here = torch.cdist(codes.double(), codes.double()), torch.arange(c)
    then, (left, right) = (here + 1) % c, torch.cartesian_prod(here, here).T
    cost = apart[left[:, None], left] + apart[right[:, None], right]
    pairs = c * here + then
    uniform = torch.ones(c, dtype=torch.float64) / c
    value, u, _ = optimal_transport(uniform, torch.ones(c * c, dtype=torch.float64) / c**2, cost[pairs])
    return value, (u[:, None] - cost[pairs]).amax(0).view(c, c), cost


def slope_of_table(f: Float[Tensor, "c c"], cost: Float[Tensor, "cc cc"]) -> float:
    """The Lipschitz constant of a function of two symbols, exactly: the steepest way between two of the c² points."""
    rise = (f.flatten()[:, None] - f.flatten()).abs().double()
    return float((rise / cost.clamp_min(1e-12)).fill_diagonal_(0).max())


def learn_dependency(
    objective: str, tokens: int, seed: int, pairs: int = 4000, steps: int = 400, lam: float = 100.0, lr: float = 1e-2,
    batch_size: int = 64,
) -> dict[str, float]:  # fmt: skip
    """A measure of ``tokens`` symbols and their successors with a *learnt* critic, on fresh pairs.

    objective  "Wasserstein": mean over pairs minus mean over shuffled pairs, less ``lam`` times the mean over points
               and blocks of max(0, slope - 1)², at points between a pair and a shuffled pair; on every second step,
               twice. "InfoNCE": its bound, and no penalty. Batches of ``batch_size`` out of ``pairs``

    Returns "value" on fresh batches of the same size, "slope", the steepest block at 2,000 fresh points between pairs
    and shuffled pairs, and "at most", value / max(1, slope): a lower bound of the Wasserstein measure as far as no
    place is steeper than those looked at. The critic is g(x)ᵀ W h(y).
    """
    codes, g = symbol_codes(), torch.Generator().manual_seed(seed)

    def draw(n: int) -> tuple[Tensor, Tensor]:
        s = torch.randint(len(codes), (n, tokens), generator=g)
        return codes[s].flatten(1), codes[(s + 1) % len(codes)].flatten(1)

    x, y = draw(pairs)
    torch.manual_seed(seed)
    critic, batches = PairCritic(6 * tokens, 6 * tokens, 128, 64), shuffled(pairs, batch_size, seed)

    def measure(scores: Tensor) -> Scalar:
        if objective == "InfoNCE":
            return nce_bound(scores)
        return scores.diagonal().mean() - off_diagonal(scores).mean()

    def slopes(x: Tensor, y: Tensor, keep_graph: bool) -> Tensor:
        t = torch.rand(len(x), 1, generator=g)
        between = t * y + (1 - t) * y[torch.randperm(len(y), generator=g)]
        return block_slopes(critic.rowwise, x, between, 6, keep_graph)

    def loss(step: Tensor) -> Scalar:
        i = batches(int(step))
        value = -measure(critic(x[i], y[i]))
        if objective == "Wasserstein" and int(step) % 2:
            value = value + 2 * lam * torch.relu(slopes(x[i], y[i], True) - 1).square().mean()
        return value

    learn([critic], loss, torch.tensor, steps, lr)
    new = draw(64 * 32)
    with torch.no_grad():
        each = [measure(critic(a, b)) for a, b in zip(*(v.split(batch_size) for v in new), strict=True)]
    value, slope = float(torch.stack(each).mean()), float(slopes(*new, False).max())
    return {"value": value, "slope": slope, "at most": value / max(1.0, slope)}


def bounds_of_critic(objective: str, seed: int, steps: int = 300, n: int = 64) -> dict[str, float]:
    """Of a critic of one symbol and its successor, trained by ``objective``, what it promises and may promise.

    "gap" E f over pairs minus E f over all combinations, "InfoNCE" the mean of the objective over 400 batches of n,
    "slope" the Lipschitz constant over all c² points, and "truth", I_W. In every batch InfoNCE is at most the mean
    score of its pairs less that of all its combinations, by Jensen's inequality ("excess": by how much more, at worst);
    and gap <= slope · truth, by the definition of I_W.

    objective  as in ``read_tokens``: "CPC", "WPC" with the two-sided penalty, or "random"
    """
    codes = symbol_codes()
    truth, _, cost = dependency_of_symbol(codes)
    g, c = torch.Generator().manual_seed(seed), len(codes)
    torch.manual_seed(seed)
    critic = PairCritic(6, 6, 64, 16)

    def loss(_: Tensor) -> Scalar:
        s = torch.randint(c, (n,), generator=g)
        x, y = codes[s], codes[(s + 1) % c]
        value = -nce_bound(critic(x, y))
        return value + wpc_penalty(critic.rowwise, x, y, s.roll(1)) if objective == "WPC" else value

    if objective != "random":
        learn([critic], loss, torch.tensor, steps, 2e-3)
    with torch.no_grad():
        table, then = critic(codes, codes).double(), (torch.arange(c) + 1) % c
        s = torch.randint(c, (400, n), generator=g)
        batches = [table[row][:, then[row]] for row in s]
        told = torch.stack([nce_bound(scores) for scores in batches])
        apart = torch.stack([scores.diagonal().mean() - scores.mean() for scores in batches])
    gap = float(table[torch.arange(c), then].mean() - table.mean())
    return {"InfoNCE": float(told.mean()), "excess": float((told - apart).max()), "gap": gap,
            "slope": slope_of_table(table, cost), "truth": truth}  # fmt: skip


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


def digit_grids(
    digits: Float[Tensor, "m 8 8"], labels: Int[Tensor, " m"], n: int, seed: int, stacked: bool
) -> tuple[Float[Tensor, "n p"], Float[Tensor, "n p"], Int[Tensor, "n 4"]]:
    """Two views of four digits as one picture each: x of any digits, y of other pictures of their successors.

    The paper's SpatialMultiOmniglot and StackedMultiOmniglot with digits for characters: the four stand in a 2×2 grid
    of one channel, (1, 16, 16), or, ``stacked``, in four channels, (4, 8, 8). Rows are flat; also the digits of x.
    """
    g, order = torch.Generator().manual_seed(seed), labels.argsort()
    counts = torch.bincount(labels, minlength=10)
    wanted = torch.randint(10, (n, 4), generator=g)
    views = []
    for shown in (wanted, (wanted + 1) % 10):
        among = (torch.rand(n, 4, generator=g) * counts[shown]).long()
        cells = digits[order[(counts.cumsum(0) - counts)[shown] + among]]
        if not stacked:
            cells = cells.view(n, 2, 2, 8, 8).transpose(2, 3)
        views.append(cells.reshape(n, 256))
    return views[0], views[1], wanted


class PairCritic(nn.Module):
    """g(x)ᵀ W h(y) with perceptrons g and h: CPC's critic for vectors; nothing is normalised.

    spectral  True puts spectral normalisation on every matrix of g, h and W: another way to bound the slope
    shape     (c, h, w): g and h are two convolutions of stride 2 and a linear layer, on rows that are flat pictures
    """

    def __init__(self, dx: int, dy: int, hidden: int = 256, dim: int = 64, spectral: bool = False,
                 shape: tuple[int, int, int] | None = None):  # fmt: skip
        super().__init__()
        self.g, self.h = (convolutions(shape, dim) if shape else perceptron(d, hidden, dim) for d in (dx, dy))
        self.middle = nn.Linear(dim, dim, bias=False)
        if spectral:
            for layer in [*self.g, *self.h, self.middle]:
                if isinstance(layer, nn.Linear):
                    nn.utils.parametrizations.spectral_norm(layer)

    def forward(self, x: Rows, y: Float[Tensor, "m e"]) -> Float[Tensor, "n m"]:
        return self.middle(self.g(x)) @ self.h(y).T

    def rowwise(self, x: Rows, y: Float[Tensor, "n e"]) -> Float[Tensor, " n"]:
        return (self.middle(self.g(x)) * self.h(y)).sum(1)


def convolutions(shape: tuple[int, int, int], dim: int) -> nn.Sequential:
    """Two convolutions of stride 2 and a linear layer, from flat pictures of this shape to ``dim`` numbers."""
    c, h, w = shape
    return nn.Sequential(
        nn.Unflatten(1, shape), nn.Conv2d(c, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(),
        nn.Flatten(), nn.Linear(2 * h * w, dim),
    )  # fmt: skip


Views = tuple[Rows, Rows, Int[Tensor, "n t"]]


def train_critic(
    arm: str, x: Rows, y: Rows, seed: int, batch_size: int = 16, steps: int = 500, lam: float = 1.0, lr: float = 2e-3,
    shape: tuple[int, int, int] | None = None,
) -> PairCritic:  # fmt: skip
    """A critic of pairs by one of the arms of ``read_tokens``."""
    torch.manual_seed(seed)
    critic = PairCritic(x.shape[1], y.shape[1], spectral=arm == "spectral", shape=shape)
    g, batches = torch.Generator().manual_seed(seed), shuffled(len(x), batch_size, seed)

    def loss(step: Tensor) -> Scalar:
        i = batches(int(step))
        value = -nce_bound(critic(x[i], y[i]))
        if arm == "WPC" and int(step) % 2:
            order = torch.randperm(len(i), generator=g)
            value = value + 2 * lam * wpc_penalty(critic.rowwise, x[i], y[i], order)
        return value

    if arm not in ("random", "pictures"):
        learn([critic], loss, torch.tensor, steps, lr)
    return critic


def report_critic(critic: PairCritic, train: Views, test: Views, pictures: bool = False, size: int = 16) -> dict:
    """What a critic is worth: "each" symbol's test accuracy under a linear reader of g(x), and "read", their mean;

    "train" and "test", the InfoNCE bound in batches of ``size``; "slope", the mean ‖∇f‖ over test pairs, both inputs.

    pictures  the reader sees x itself
    """
    (x, y, symbols), (new, new_y, wanted) = train, test
    with torch.no_grad():
        a, b = (x, new) if pictures else (critic.g(x), critic.g(new))
        told = {}
        for name, pair in (("train", (x[: len(new)], y[: len(new)])), ("test", (new, new_y))):
            kept = len(new) // size * size
            batches = zip(*(v[:kept].split(size) for v in pair), strict=True)
            told[name] = float(torch.stack([nce_bound(critic(*batch)) for batch in batches]).mean())
    slope = block_slopes(critic.rowwise, new, new_y, new.shape[1]).square().sum(1).sqrt().mean()
    each = [ridge_accuracy(a, symbols[:, t], b, wanted[:, t]) for t in range(symbols.shape[1])]
    return {"read": sum(each) / len(each), "each": each, "slope": float(slope)} | told


def read_tokens(
    arm: str, tokens: int, batch_size: int, seed: int, pairs: int = 4000, steps: int = 500, lam: float = 1.0,
    lr: float = 2e-3,
) -> dict:  # fmt: skip
    """``report_critic`` on the pictures of ``token_pairs`` after training by one of the arms.

    arm  "CPC": InfoNCE alone. "WPC": with ``lam`` times the gradient penalty, taken twice on every second step.
         "spectral": InfoNCE with spectral normalisation. "random": no training. "pictures": x itself
    """
    train, test = token_pairs(pairs, tokens, seed), token_pairs(1000, tokens, seed + 500)
    critic = train_critic(arm, *train[:2], seed, batch_size, steps, lam, lr)
    return report_critic(critic, train, test, arm == "pictures", batch_size)


def read_grids(
    arm: str, stacked: bool, conv: bool, pools: tuple, seed: int, pairs: int = 4000, steps: int = 500, lam: float = 1.0
) -> float:
    """Mean accuracy over the four digits of ``digit_grids``, after training a perceptron or convolutions by an arm.

    pools  digits and labels to draw training pairs from, then those for test pairs
    """
    train = digit_grids(*pools[0], pairs, seed, stacked)
    test = digit_grids(*pools[1], 1000, seed + 500, stacked)
    shape = ((4, 8, 8) if stacked else (1, 16, 16)) if conv else None
    critic = train_critic(arm, *train[:2], seed, 16, steps, lam, shape=shape)
    return report_critic(critic, train, test, arm == "pictures")["read"]
