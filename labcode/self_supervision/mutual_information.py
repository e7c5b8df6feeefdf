"""Information and what replaces it: estimators, critics, invertible encoders, a Lipschitz penalty, a bottleneck.

Estimators take a square matrix of scores: ``scores[i, j]`` = f(xᵢ, yⱼ), so the pairs stand on the diagonal and
products of the marginals off it. All information is in nats.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..data import shuffled
from ..loss import check_matrix, float32
from ..train import fit
from .dense_contrast import ridge_accuracy

Rows = Float[Tensor, "n d"]
Scores = Float[Tensor, "n n"]
Scalar = Float[Tensor, ""]


def learn(
    modules: list[nn.Module], loss: Callable[[Tensor], Scalar], batches: Callable[[int], Tensor], steps: int,
    lr: float = 2e-3, weight_decay: float = 0.0, **options,
) -> list[nn.Module]:  # fmt: skip
    """Train several modules together on ``loss(indices)`` with ``train.fit``; returns them in evaluation mode."""
    both = nn.ModuleList(modules)
    fit(both, lambda index: {"loss": loss(index)}, batches, steps=steps, lr=lr, weight_decay=weight_decay, **options)
    return modules


def perceptron(*widths: int) -> nn.Sequential:
    """Linear layers with ReLU between them and no normalisation, so that rows of a batch do not see each other."""
    layers: list[nn.Module] = []
    for n_in, n_out in zip(widths[:-1], widths[1:], strict=True):
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


# ---------------------------------------------------------------------------------------------------------------------
# Estimators of mutual information
# ---------------------------------------------------------------------------------------------------------------------


def _check_scores(scores: Tensor) -> None:
    check_matrix("scores", scores, rows=2)
    if scores.shape[0] != scores.shape[1]:
        raise ValueError(f"scores must be square, f(x_i, y_j) for all i and j, got shape {tuple(scores.shape)}")


def _off_diagonal(scores: Scores) -> Float[Tensor, "n n-1"]:
    n = len(scores)
    return scores.flatten()[1:].view(n - 1, n + 1)[:, :-1].reshape(n, n - 1)


@float32
def nce_bound(scores: Scores) -> Scalar:
    """InfoNCE's lower bound: log n + meanᵢ (Sᵢᵢ - log Σⱼ exp Sᵢⱼ). At most log n; low variance.

    On Mutual Information Maximization (Tschannen et al., 2020); the same as CPC's log N - L_N.
    Raises ValueError for scores that are not square, n >= 2.
    """
    _check_scores(scores)
    return math.log(len(scores)) + (scores.diagonal() - scores.logsumexp(1)).mean()


@float32
def nwj_bound(scores: Scores, clip: float = 40.0) -> Scalar:
    """The bound of Nguyen, Wainwright and Jordan: 1 + mean (Sᵢᵢ - 1) - mean_{i≠j} exp(Sᵢⱼ - 1).

    On Mutual Information Maximization. Unbiased for its critic, with a variance that grows like exp(I); the
    best critic is 1 + log p(x,y)/(p(x)p(y)).

    clip  scores off the diagonal are cut at this value before the exponential, which float32 would not survive
    """
    _check_scores(scores)
    return scores.diagonal().mean() - _off_diagonal(scores).clamp(max=clip).sub(1).exp().mean()


@float32
def dv_bound(scores: Scores) -> Scalar:
    """The bound of Donsker and Varadhan, which MINE maximises: mean Sᵢᵢ - log mean_{i≠j} exp Sᵢⱼ."""
    _check_scores(scores)
    off = _off_diagonal(scores)
    return scores.diagonal().mean() - off.flatten().logsumexp(0) + math.log(off.numel())


@float32
def logistic_nce(scores: Scores) -> Scalar:
    """Logistic loss of telling pairs from shuffled pairs, both equally likely: softplus(-Sᵢᵢ) + softplus(Sᵢⱼ), i≠j.

    Its minimiser is S = log p(x,z)/(p(x)p(z)): multi-view redundancy (Tosh et al., 2021).
    """
    _check_scores(scores)
    return F.softplus(-scores.diagonal()).mean() + F.softplus(_off_diagonal(scores)).mean()


def ksg(x: Rows, y: Float[Tensor, "n e"], k: int = 3) -> float:
    """Nearest-neighbour estimate of I(x; y) (Kraskov, Stögbauer and Grassberger, their first): no critic at all.

    ψ(k) + ψ(n) - mean [ψ(1 + n_x) + ψ(1 + n_y)], n_x the points closer in x than the k-th neighbour in the joint
    space, by the maximum norm. Good in few dimensions only. Memory O(n²).

    Raises ValueError for k outside 1 … n - 1 and unlike lengths.
    """
    check_matrix("x", x, rows=2)
    check_matrix("y", y, rows=2)
    n = len(x)
    if len(y) != n:
        raise ValueError(f"y must have one row for each of the {n} rows of x, got {len(y)}")
    if not 1 <= k < n:
        raise ValueError(f"k must be between 1 and {n - 1}, got {k}")
    apart = [torch.cdist(v.double(), v.double(), p=math.inf).fill_diagonal_(math.inf) for v in (x, y)]
    radius = torch.maximum(*apart).kthvalue(k, dim=1).values[:, None]
    counts = [(d < radius).sum(1) for d in apart]
    psi = torch.digamma
    mean = sum(psi(c + 1.0).mean() for c in counts)
    return float(psi(torch.tensor(float(k))) + psi(torch.tensor(float(n))) - mean)


def gaussian_log_ratio(x: Rows, z: Float[Tensor, "m d"], rho: float) -> Float[Tensor, "n m"]:
    """log p(x, z)/(p(x) p(z)) for all pairs of rows, where each coordinate pair is Gaussian with correlation rho.

    The best critic there is: everything that an estimate still gets wrong with it is the estimator's own fault.
    Raises ValueError for rho outside (-1, 1) and unlike columns.
    """
    if not -1 < rho < 1:
        raise ValueError(f"rho must be in (-1, 1), got {rho}")
    check_matrix("x", x)
    check_matrix("z", z)
    if x.shape[1] != z.shape[1]:
        raise ValueError(f"z must have {x.shape[1]} columns like x, got {z.shape[1]}")
    rest = 1 - rho * rho
    squares = x.square().sum(1)[:, None] + z.square().sum(1)
    return (rho * x @ z.T - rho * rho / 2 * squares) / rest - x.shape[1] / 2 * math.log(rest)


# ---------------------------------------------------------------------------------------------------------------------
# Critics and invertible encoders
# ---------------------------------------------------------------------------------------------------------------------


class Bilinear(nn.Module):
    """f(x, y) = xᵀ W y: the scores of all pairs, (n, m)."""

    def __init__(self, dx: int, dy: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(dx, dy) / math.sqrt(dx * dy))

    def forward(self, x: Rows, y: Float[Tensor, "m e"]) -> Float[Tensor, "n m"]:
        return x @ self.weight @ y.T


class Separable(nn.Module):
    """f(x, y) = φ(x)ᵀ ψ(y), one hidden layer each."""

    def __init__(self, dx: int, dy: int, hidden: int = 100):
        super().__init__()
        self.left, self.right = perceptron(dx, hidden, hidden), perceptron(dy, hidden, hidden)

    def forward(self, x: Rows, y: Float[Tensor, "m e"]) -> Float[Tensor, "n m"]:
        return self.left(x) @ self.right(y).T / math.sqrt(self.left[-1].out_features)


class Joint(nn.Module):
    """f(x, y) = vᵀ relu(A x + B y + c): a perceptron on the concatenation, the most capable of the three.

    The first layer acts on x and y apart, so no pair is ever concatenated; the hidden layer of n·m·hidden numbers
    cannot be avoided.
    """

    def __init__(self, dx: int, dy: int, hidden: int = 200):
        super().__init__()
        self.left, self.right = nn.Linear(dx, hidden), nn.Linear(dy, hidden, bias=False)
        self.out = nn.Linear(hidden, 1)

    def forward(self, x: Rows, y: Float[Tensor, "m e"]) -> Float[Tensor, "n m"]:
        hidden = F.relu(self.left(x)[:, None] + self.right(y)[None])
        return self.out(hidden)[..., 0]


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


# ---------------------------------------------------------------------------------------------------------------------
# Wasserstein in place of KL
# ---------------------------------------------------------------------------------------------------------------------


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
    arm: str, tokens: int, batch_size: int, seed: int, pairs: int = 4000, steps: int = 700, lam: float = 1.0
) -> float:
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
        learn([critic], loss, torch.tensor, steps, 1e-3)
    with torch.no_grad():
        a, b = (x, new) if arm == "pictures" else (critic.g(x), critic.g(new))
    return sum(ridge_accuracy(a, symbols[:, t], b, wanted[:, t]) for t in range(tokens)) / tokens


# ---------------------------------------------------------------------------------------------------------------------
# A bottleneck between views
# ---------------------------------------------------------------------------------------------------------------------


@float32
def symmetric_kl(mu1: Rows, log_sd1: Rows, mu2: Rows, log_sd2: Rows) -> Scalar:
    """½ [KL(p₁‖p₂) + KL(p₂‖p₁)] of diagonal Gaussians, summed over dimensions, averaged over rows.

    The compression term of the multi-view information bottleneck (Federici et al., 2020), which the review states as
    I(Z₁; X₁ | X₂): what view 1's code holds that view 2 could not have told. Zero for equal arguments.

    log_sd1, log_sd2  logarithms of standard deviations; cut to ±8
    """
    check_matrix("mu1", mu1)
    for name, value in (("log_sd1", log_sd1), ("mu2", mu2), ("log_sd2", log_sd2)):
        check_matrix(name, value, like=mu1)
    a, b = log_sd1.clamp(-8, 8), log_sd2.clamp(-8, 8)
    apart = (mu1 - mu2).square()
    forward = ((2 * a).exp() + apart) * (-2 * b).exp()
    backward = ((2 * b).exp() + apart) * (-2 * a).exp()
    return (forward + backward - 2).sum(1).mean() / 4


class Bottleneck(nn.Module):
    """Two views, a stochastic Gaussian encoder each, -I(Z₁; Z₂) + β · symmetric KL: MIB (Federici et al., 2020).

    I is the InfoNCE bound with a separable critic, on one sample of each code. ``features`` are the means of view 1.

    beta  weight of the compression; 0 is multi-view InfoMax
    """

    def __init__(self, d1: int, d2: int, dim: int = 16, hidden: int = 128, beta: float = 0.0):
        super().__init__()
        self.beta, self.dim = beta, dim
        self.encoders = nn.ModuleList([perceptron(d, hidden, hidden, 2 * dim) for d in (d1, d2)])
        self.critic = Separable(dim, dim)

    def codes(self, x1: Rows, x2: Float[Tensor, "n e"]) -> list[tuple[Rows, Rows]]:
        coded = (f(x) for f, x in zip(self.encoders, (x1, x2), strict=True))
        return [(c[:, : self.dim], c[:, self.dim :] - 1) for c in coded]

    def forward(self, x1: Rows, x2: Float[Tensor, "n e"], weight: float = 1.0) -> Scalar:
        """The loss; ``weight`` in [0, 1] is where β's warm-up stands."""
        (mu1, log1), (mu2, log2) = self.codes(x1, x2)
        z1, z2 = (m + s.clamp(-8, 8).exp() * torch.randn_like(m) for m, s in ((mu1, log1), (mu2, log2)))
        loss = -nce_bound(self.critic(z1, z2))
        if self.beta:
            loss = loss + self.beta * weight * symmetric_kl(mu1, log1, mu2, log2)
        return loss

    @torch.no_grad()
    def features(self, x1: Rows) -> Rows:
        return self.encoders[0](x1)[:, : self.dim]


def shared_and_private(n: int, seed: int, classes: int = 8, noise: float = 0.4, world: int = 0) -> dict[str, Tensor]:
    """Two views with one shared symbol and a private one each, and two tasks: name the shared one, name view 1's own.

    x₁ = F(code of s + noise, code of p₁ + noise) + noise, x₂ likewise with s and p₂; F is a fixed random two-layer map
    of each view. For the label ``shared`` the multi-view assumption holds exactly, for ``private`` it fails exactly.

    noise  standard deviation about a code, in each of 6 coordinates; shared codes have norm 2, private ones 4
    world  seed of codes and maps, which training and test must share
    """
    fixed, g = torch.Generator().manual_seed(world), torch.Generator().manual_seed(seed)
    books = F.normalize(torch.randn(2, classes, 6, generator=fixed), dim=2)
    s, p1, p2 = torch.randint(classes, (3, n), generator=g)
    views = []
    for p in (p1, p2):
        first, second = torch.randn(12, 64, generator=fixed) / math.sqrt(12), torch.randn(64, 32, generator=fixed) / 8
        inner = torch.cat([2 * books[0, s], 4 * books[1, p]], 1)
        inner = inner + noise * torch.randn(inner.shape, generator=g)
        views.append(torch.sin(0.7 * inner @ first) @ second)
    return dict(x1=views[0], x2=views[1], shared=s, private=p1)


def read_codes(beta: float | None, seed: int, views: int = 8000, steps: int = 600, few: int = 40) -> dict[str, float]:
    """Test accuracy of linear readers of view 1's codes: each task of ``shared_and_private``, with few labels and all.

    β rises exponentially from 1e-4 of its value to all of it over the first 60 % of the steps. Few-label accuracies are
    means over twenty draws of ``few`` labels. beta None reads the view itself.
    """
    data, new = shared_and_private(views, seed), shared_and_private(1000, seed + 500)
    a, b = data["x1"], new["x1"]
    if beta is not None:
        torch.manual_seed(seed)
        model, batches = Bottleneck(a.shape[1], data["x2"].shape[1], beta=beta), shuffled(views, 128, seed)

        def loss(step: Tensor) -> Scalar:
            i = batches(int(step))
            return model(data["x1"][i], data["x2"][i], 10 ** (-4 * max(0.0, 1 - int(step) / (0.6 * steps))))

        learn([model], loss, torch.tensor, steps, 1e-3)
        a, b = model.features(a), model.features(b)
    found = {}
    for task in ("shared", "private"):
        drawn = [slice(k, k + few) for k in range(0, 20 * few, few)]
        found[task] = sum(ridge_accuracy(a[d], data[task][d], b, new[task], 0.1) for d in drawn) / 20
        found[f"{task}, all"] = ridge_accuracy(a, data[task], b, new[task])
    return found
