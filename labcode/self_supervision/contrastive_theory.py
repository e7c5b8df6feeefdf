"""Why contrast works: bounds, density ratios, temperature, and what the minimum of a loss leaves open.

Latent classes and their bound, landmark embeddings, the gradient of the softmax at a temperature, and the spectral
loss of linear maps are here. ``mutual_information`` holds estimators, invertible encoders, the Wasserstein measure and
the bottleneck; ``dense_contrast`` alignment and uniformity at every position of an image.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..data import shuffled
from ..loss import check_matrix, check_positive, float32
from ..pairwise import off_diagonal
from .dense_contrast import (  # noqa: F401
    DenseContrast,
    DenseNet,
    at_match,
    dense_alignment,
    dense_nce,
    dense_report,
    dense_uniformity,
    dense_views,
    grid_pixels,
    match_coordinates,
    match_features,
    match_random,
    object_scenes,
    positions,
    ridge_accuracy,
)
from .mutual_information import (  # noqa: F401
    Bilinear,
    Bottleneck,
    Flow,
    Joint,
    PairCritic,
    Separable,
    dv_bound,
    gaussian_log_ratio,
    ksg,
    learn,
    linear_evidence,
    lipschitz_penalty,
    logistic_nce,
    nce_bound,
    nwj_bound,
    optimal_transport,
    perceptron,
    read_codes,
    read_tokens,
    shared_and_private,
    spoil,
    symmetric_kl,
    token_pairs,
    wpc_penalty,
)

Rows = Float[Tensor, "n d"]
Labels = Int[Tensor, " n"]
Scalar = Float[Tensor, ""]

# ---------------------------------------------------------------------------------------------------------------------
# Latent classes
# ---------------------------------------------------------------------------------------------------------------------


class LatentClasses:
    """A world of C equally likely classes: x = a fixed random map of (class centre + noise, nuisance).

    ``draw(n)`` gives inputs and classes, ``pairs(n, k)`` an input, another of its class, and k from the marginal: the
    data of A Theoretical Analysis of Contrastive Unsupervised Representation Learning (Arora et al., 2019).

    classes   C >= 2
    noise     standard deviation of a point about its class's centre, in each of ``dim`` coordinates
    nuisance  further coordinates that carry no class
    """

    def __init__(self, classes: int, seed: int = 0, dim: int = 8, noise: float = 0.6, nuisance: int = 8):
        if classes < 2:
            raise ValueError(f"classes must be at least 2, got {classes}")
        fixed = torch.Generator().manual_seed(seed)
        self.classes, self.noise, self.nuisance = classes, noise, nuisance
        self.centres = F.normalize(torch.randn(classes, dim, generator=fixed), dim=1) * math.sqrt(dim) / 2
        width = dim + nuisance
        self.maps = [torch.randn(width, 64, generator=fixed) / math.sqrt(width),
                     torch.randn(64, 32, generator=fixed) / 8]  # fmt: skip

    @property
    def collision(self) -> float:
        """τ = P(c = c'), the chance that a negative is of the positive's class."""
        return 1 / self.classes

    def draw(self, n: int, generator: torch.Generator, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        y = torch.randint(self.classes, (n,), generator=generator) if labels is None else labels
        inner = self.centres[y] + self.noise * torch.randn(n, self.centres.shape[1], generator=generator)
        nuisance = torch.randn(n, self.nuisance, generator=generator)
        return torch.sin(torch.cat([inner, nuisance], 1) @ self.maps[0] / 2) @ self.maps[1], y

    def pairs(self, n: int, k: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """x (n, 32), x⁺ (n, 32), x⁻ (n, k, 32)."""
        x, y = self.draw(n, generator)
        return x, self.draw(n, generator, y)[0], self.draw(n * k, generator)[0].view(n, k, -1)


@float32
def contrastive_logistic(
    f: Float[Tensor, "n d"], f_pos: Float[Tensor, "n d"], f_neg: Float[Tensor, "n k d"]
) -> Scalar:
    """L_un: mean log₂(1 + Σ_k exp(-f(x)ᵀ(f(x⁺) - f(x_k⁻)))).

    Arora et al. (2019), with the logistic loss in bits, for which ℓ(0) = 1 when k = 1: the bound needs
    it. Features are not normalised. With block means in place of f_pos and f_neg this is their block loss, CURL.

    Raises ValueError for shapes that do not fit together and for k = 0.
    """
    check_matrix("f", f)
    check_matrix("f_pos", f_pos, like=f)
    if f_neg.ndim != 3 or not f_neg.is_floating_point() or f_neg.shape[::2] != f.shape or f_neg.shape[1] < 1:
        raise ValueError(f"f_neg must be ({len(f)}, k, {f.shape[1]}) with k >= 1, got shape {tuple(f_neg.shape)}")
    margins = (f * f_pos).sum(1, keepdim=True) - (f_neg @ f[:, :, None])[..., 0]
    return _log2_one_plus(-margins).mean()


def _log2_one_plus(s: Float[Tensor, "n k"]) -> Float[Tensor, " n"]:
    """log₂(1 + Σ_k exp s_k)."""
    return torch.cat([torch.zeros_like(s[:, :1]), s], 1).logsumexp(1) / math.log(2)


def class_means(f: Rows, y: Labels, classes: int) -> Float[Tensor, "c d"]:
    """Mean feature of every class."""
    sums = f.new_zeros(classes, f.shape[1]).index_add_(0, y, f)
    return sums / torch.bincount(y, minlength=classes).clamp_min(1)[:, None]


def mean_classifier_loss(f: Rows, y: Labels, means: Float[Tensor, "c d"]) -> float:
    """L_sup^μ: the logistic loss, in bits, of the classifier f(x)ᵀ(μ_c - μ_c'), over pairs of unlike classes.

    Every ordered pair (c, c') weighs the same, whatever the number of rows of c.
    """
    scores, classes = f @ means.T, len(means)
    margins = scores.gather(1, y[:, None]) - scores
    loss = F.softplus(-margins) / math.log(2)
    each = class_means(loss, y, classes)  # rows: c, columns: c'
    return float((each.sum() - each.diagonal().sum()) / (classes * (classes - 1)))


def mean_classifier_accuracy(f: Rows, y: Labels, means: Float[Tensor, "c d"]) -> float:
    """Share of right answers of f(x)ᵀ μ_c over all classes."""
    return float(((f @ means.T).argmax(1) == y).float().mean())


def pair_classifier_loss(f: Rows, y: Labels, f_new: Rows, y_new: Labels, classes: int, steps: int = 40) -> float:
    """L_sup: as ``mean_classifier_loss`` with the best linear classifier of each pair of classes, no bias.

    Fitted on f, y from the mean classifier on, all pairs at once by L-BFGS; its loss is taken on new rows.
    """
    first, second = torch.triu_indices(classes, classes, 1)
    means = class_means(f, y, classes)
    w = (means[first] - means[second]).clone().requires_grad_()

    def loss(f: Rows, y: Labels) -> Scalar:
        between = w.new_zeros(classes, classes, f.shape[1])  # [c, c'] tells c from c', and [c', c] is its opposite
        between = between.index_put((first, second), w).index_put((second, first), -w)
        each = class_means(F.softplus(-(between[y] @ f[:, :, None])[..., 0]) / math.log(2), y, classes)
        return (each.sum() - each.diagonal().sum()) / (classes * (classes - 1))

    solver = torch.optim.LBFGS([w], max_iter=steps, line_search_fn="strong_wolfe")

    def closure() -> Scalar:
        solver.zero_grad()
        value = loss(f, y)
        value.backward()
        return value

    solver.step(closure)
    with torch.no_grad():
        return float(loss(f_new, y_new))


def arora_bound(unsupervised: float, collision: float) -> float:
    """(L_un - τ)/(1 - τ): what the mean classifier's loss cannot exceed. Arora et al. (2019), lemma 4.3.

    For k = 1, ℓ(0) = 1, population class means and pairs of distinct classes. Raises ValueError for τ outside [0, 1).
    """
    if not 0 <= collision < 1:
        raise ValueError(f"collision must be in [0, 1), got {collision}")
    return (unsupervised - collision) / (1 - collision)


def contrast_classes(world: LatentClasses, net: nn.Module, seed: int, steps: int, k: int = 1) -> nn.Module:
    """Train ``net`` on ``contrastive_logistic`` with k negatives, 64 fresh draws at every step."""
    g = torch.Generator().manual_seed(seed)

    def loss(_: Tensor) -> Scalar:
        x, pos, neg = world.pairs(64, k, g)
        f, f_pos, f_neg = net(torch.cat([x, pos, neg.flatten(0, 1)])).split([64, 64, 64 * k])
        return contrastive_logistic(f, f_pos, f_neg.view(64, k, -1))

    return learn([net], loss, torch.tensor, steps, 3e-3)[0]


@torch.no_grad()
def chain_of_bounds(world: LatentClasses, net: nn.Module, n: int, seed: int, block: int = 5) -> dict[str, float]:
    """The links of the chain on n fresh draws each: "bound", "block bound", "mean classifier", "best linear".

    Class means and the best linear classifiers come from one sample, their losses from another.
    """
    g = torch.Generator().manual_seed(10_000 + seed)
    x, pos, neg = world.pairs(n, 1, g)
    single = contrastive_logistic(net(x), net(pos), net(neg))
    x, y = world.draw(n, g)
    others = torch.randint(world.classes, (n,), generator=g)
    pos, neg = (net(world.draw(n * block, g, c.repeat_interleave(block))[0]).view(n, block, -1) for c in (y, others))
    blocks = contrastive_logistic(net(x), pos.mean(1), neg.mean(1, keepdim=True))
    (a, y_a), (b, y_b) = world.draw(n, g), world.draw(n, g)
    a, b = net(a), net(b)
    with torch.enable_grad():
        best = pair_classifier_loss(a, y_a, b, y_b, world.classes, steps=20)
    return {
        "bound": arora_bound(float(single), world.collision),
        "block bound": arora_bound(float(blocks), world.collision),
        "mean classifier": mean_classifier_loss(b, y_b, class_means(a, y_a, world.classes)),
        "best linear": best,
    }


@torch.no_grad()
def few_shot(world: LatentClasses, encode: Callable[[Tensor], Tensor], seed: int, shots: int = 5,
             nearest: bool = False) -> float:  # fmt: skip
    """Accuracy of the mean classifier with ``shots`` labels a class, over ten draws of them.

    nearest  True takes the nearest mean instead of the largest inner product: fairer to features without a contrast
    """
    g, y = torch.Generator().manual_seed(20_000 + seed), torch.arange(world.classes).repeat(shots)
    new, y_new = world.draw(4000, g)
    new, right = encode(new), []
    for _ in range(10):
        means = class_means(encode(world.draw(len(y), g, y)[0]), y, world.classes)
        if nearest:
            right.append(float((torch.cdist(new, means).argmin(1) == y_new).float().mean()))
        else:
            right.append(mean_classifier_accuracy(new, y_new, means))
    return sum(right) / 10


# ---------------------------------------------------------------------------------------------------------------------
# Two views of a Gaussian, and a linear model on landmarks
# ---------------------------------------------------------------------------------------------------------------------


class TwoViews:
    """X and Z with coordinatewise correlation ρ, and a label that both nearly determine, but for what X alone sees.

    Y = h(s) + c · sin(2 a) + noise: s = (X + Z)/√(2 + 2ρ), the direction that both views see, h(s) = s₁ s₂ (s² - 1 in
    one dimension), a the first of the coordinates of X that have no partner in Z.

    dims     partnered coordinates of each view, >= 1
    private  c, how much of Y only X knows: 0 makes the views redundant up to 1 - ρ
    lonely   coordinates of X without a partner, >= 1
    """

    def __init__(self, dims: int = 2, rho: float = 0.8, private: float = 0.0, lonely: int = 1, noise: float = 0.1):
        if dims < 1 or lonely < 1 or not 0 < rho < 1:
            raise ValueError(f"dims, lonely must be at least 1, rho in (0, 1), got {dims}, {lonely} and {rho}")
        self.dims, self.rho, self.private, self.lonely, self.noise = dims, rho, private, lonely, noise

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """X (n, dims + lonely) with its lonely coordinates last, Z (n, dims), Y (n,)."""
        x, e = torch.randn(2, n, self.dims, generator=generator, dtype=torch.float64)
        z = self.rho * x + math.sqrt(1 - self.rho**2) * e
        x = torch.cat([x, torch.randn(n, self.lonely, generator=generator, dtype=torch.float64)], 1)
        return x, z, self.both(x, z) + self.noise * torch.randn(n, generator=generator, dtype=torch.float64)

    def both(self, x: Float[Tensor, "n d"], z: Float[Tensor, "n e"]) -> Float[Tensor, " n"]:
        """E[Y | X, Z]."""
        s = (x[:, : self.dims] + z) / math.sqrt(2 + 2 * self.rho)
        return self._product(s) + self.private * torch.sin(2 * x[:, self.dims])

    @staticmethod
    def _product(s: Rows) -> Float[Tensor, " n"]:
        return s[:, 0] ** 2 - 1 if s.shape[1] == 1 else s[:, 0] * s[:, 1]

    def given_x(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """E[Y | X]: s given x has mean r x and variance 1 - r², r = √((1 + ρ)/2)."""
        return self._given_view(x[:, : self.dims]) + self.private * torch.sin(2 * x[:, self.dims])

    def given_z(self, z: Rows) -> Float[Tensor, " n"]:
        """E[Y | Z]."""
        return self._given_view(z)

    def _given_view(self, v: Rows) -> Float[Tensor, " n"]:
        r2 = (1 + self.rho) / 2
        return r2 * self._product(v)

    def mu(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """μ(x) = E[E[Y | Z] | X = x]: what landmarks can express. Z given x has mean ρ x and variance 1 - ρ²."""
        return self.rho**2 * (1 + self.rho) / 2 * self._product(x[:, : self.dims])


def landmark_features(log_ratio: Float[Tensor, "n m"], clip: float = 5.0) -> Float[Tensor, "n m"]:
    """φ(x) = (g(x, z₁), …, g(x, z_m)), the density ratios against m landmarks; log ratios are cut at ``clip``.

    Departure: the cut. g has heavy tails, E[g²] = (1 - ρ²)⁻ᵈ for Gaussians under the product of the marginals, and one
    label in the tail would rule the regression.

    Contrastive learning, multi-view redundancy, and linear models (Tosh et al., 2021).
    """
    return log_ratio.clamp(max=clip).exp()


def redundancy_bound(eps_x: float, eps_z: float) -> float:
    """(√ε_X + 2 √ε_Z)²: the most by which μ(X) misses E[Y | X, Z] in mean square. Tosh et al. (2021)."""
    if eps_x < 0 or eps_z < 0:
        raise ValueError(f"eps_x and eps_z must be at least 0, got {eps_x} and {eps_z}")
    return (math.sqrt(eps_x) + 2 * math.sqrt(eps_z)) ** 2


def linear_mse(train: Rows, y: Float[Tensor, " n"], test: Float[Tensor, "m d"], target: Float[Tensor, " m"],
               ridge: float = 1e-4) -> float:  # fmt: skip
    """Mean squared error on the test rows of a ridge regression with intercept; columns are scaled to variance 1."""
    mean, std = train.double().mean(0), train.double().std(0).clamp_min(1e-9)
    a, b = ((v.double() - mean) / std for v in (train, test))
    centre = y.double().mean()
    system = a.T @ a / len(a) + ridge * torch.eye(a.shape[1], dtype=a.dtype)
    w = torch.linalg.solve(system, a.T @ (y.double() - centre) / len(a))
    return float((b @ w + centre - target).square().mean())


def random_features(x: Rows, new: Float[Tensor, "m d"], m: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """√2 cos(ωᵀx + b) for m random ω of unit Gaussians: what linear models use without a contrastive task."""
    g = torch.Generator().manual_seed(seed)
    w = torch.randn(x.shape[1], m, generator=g, dtype=x.dtype)
    b = 2 * math.pi * torch.rand(m, generator=g, dtype=x.dtype)
    return math.sqrt(2) * torch.cos(x @ w + b), math.sqrt(2) * torch.cos(new @ w + b)


def landmark_errors(world: TwoViews, seed: int, m: int, n: int = 20_000, ratio_rho: float | None = None) -> dict:
    """Mean squared errors against E[Y|X,Z] on n new draws: "landmarks", "E[Y|X]", "μ(X)", and the "bound" of the last.

    ratio_rho  correlation in the ratio that landmarks use, if not the true one
    """
    g = torch.Generator().manual_seed(seed)
    (x, _, label), (new, z, _), marks = world.draw(n, g), world.draw(n, g), world.draw(m, g)[1]
    target, rho = world.both(new, z), world.rho if ratio_rho is None else ratio_rho
    eps_x, eps_z = (float((v - target).square().mean()) for v in (world.given_x(new), world.given_z(z)))
    a, b = (landmark_features(gaussian_log_ratio(v[:, : world.dims], marks, rho)) for v in (x, new))
    missed = float((world.mu(new) - target).square().mean())
    return {"landmarks": linear_mse(a, label, b, target), "E[Y|X]": eps_x, "μ(X)": missed,
            "bound": redundancy_bound(eps_x, eps_z)}  # fmt: skip


def few_label_error(kind: str, seed: int, labels: int = 200, m: int = 80, steps: int = 400) -> float:
    """Squared error of a linear model from few labels, where ten coordinates of X have no partner.

    kind  what the model is linear in: "x itself", "random features" of x (m of them), or m landmarks under an
          "untrained ratio", a "learnt ratio" (separable critic, ``logistic_nce`` on unlabelled pairs), the "true ratio"
    """
    world, g = TwoViews(2, 0.8, lonely=10), torch.Generator().manual_seed(seed)
    x, z, _ = (v.float() for v in world.draw(20_000, g))
    (a, _, label), (b, z_new, _), marks = world.draw(labels, g), world.draw(4000, g), world.draw(m, g)[1].float()
    a, b, target = a.float(), b.float(), world.both(b, z_new)
    if kind in ("learnt ratio", "untrained ratio"):
        torch.manual_seed(seed)
        net = Separable(12, 2, 64)
        if kind == "learnt ratio":
            learn([net], lambda i: logistic_nce(net(x[i], z[i])), shuffled(len(x), 256, seed), steps, 5e-3)
        with torch.no_grad():
            a, b = (landmark_features(net(v, marks), clip=3) for v in (a, b))
    elif kind == "true ratio":
        a, b = (landmark_features(gaussian_log_ratio(v[:, :2], marks, 0.8), clip=3) for v in (a, b))
    elif kind == "random features":
        a, b = random_features(a / 12**0.5, b / 12**0.5, m, seed)
    elif kind != "x itself":
        raise ValueError(f"kind must be one of those in the docstring, got {kind!r}")
    return linear_mse(a, label, b, target, ridge=0.03)


# ---------------------------------------------------------------------------------------------------------------------
# Temperature
# ---------------------------------------------------------------------------------------------------------------------


def _negatives(z: Tensor) -> tuple[Float[Tensor, " two_n"], Float[Tensor, "two_n two_n-2"]]:
    """Similarity of each row with its positive, and with its 2n - 2 negatives."""
    check_matrix("z", z, rows=4, even=True)
    n = len(z) // 2
    z = F.normalize(z, dim=1)
    s = z @ z.T
    negatives = off_diagonal(s.view(2, n, 2, n).transpose(1, 2)).transpose(1, 2)
    return (z * z.roll(n, 0)).sum(1), negatives.reshape(2 * n, 2 * n - 2)


@float32
def temperature_loss(
    z: Float[Tensor, "two_n d"], tau: float = 0.2, share: float = 1.0, simple: bool = False
) -> Scalar:
    """Contrastive loss at temperature τ, on all negatives or on the hardest alone; or its limit for τ → ∞.

    Understanding the Behaviour of Contrastive Loss (Wang and Liu, 2021); with share < 1 its hard variant: of each
    row's negatives only those above the upper ``share`` quantile of its similarities count. ``simple`` takes
    -s⁺ + mean s⁻, which the softmax becomes at high temperature (λ one over the number of negatives).

    z      projections of both views stacked, normalised here; n >= 2
    share  of the negatives that is kept, in (0, 1]; the paper's 0.0819 on CIFAR. At least one is kept

    Departure: negatives come from the batch instead of a memory bank. With share = 1 this is ``contrastive.nt_xent``.
    Raises ValueError for an odd number of rows, n < 2, tau <= 0, and a share outside (0, 1].
    """
    check_positive(tau=tau)
    if not 0 < share <= 1:
        raise ValueError(f"share must be in (0, 1], got {share}")
    positive, negatives = _negatives(z)
    if share < 1:
        negatives = negatives.topk(max(1, round(share * negatives.shape[1])), dim=1).values
    if simple:
        return (negatives.mean(1) - positive).mean()
    logits = torch.cat([positive[:, None], negatives], 1) / tau
    return (logits.logsumexp(1) - logits[:, 0]).mean()


def relative_penalty(z: Float[Tensor, "two_n d"], tau: float) -> Float[Tensor, "two_n two_n-2"]:
    """r: each negative's share of the push that all negatives exert, exp(s/τ) / Σ exp(s/τ). Wang and Liu (2021)."""
    check_positive(tau=tau)
    return (_negatives(z)[1] / tau).softmax(1)


def tolerance(z: Rows, y: Labels) -> float:
    """E[z·z' 1(y = y')] over pairs of different rows of the unit sphere. Wang and Liu (2021).

    The indicator is inside the mean, so with C equal classes it is at most 1/C.
    """
    z = F.normalize(z.detach(), dim=1)
    n, sums = len(z), class_means(z, y, int(y.max()) + 1) * torch.bincount(y)[:, None]
    return float((sums.square().sum() - n) / (n * (n - 1)))


# ---------------------------------------------------------------------------------------------------------------------
# Simplicity bias
# ---------------------------------------------------------------------------------------------------------------------


class Features:
    """x = y φ₁ v₁ + y' φ₂ v₂ + u φ₃ v_j + noise: a class, a subclass, an irrelevant feature, all orthonormal.

    Which Features are Learnt by Contrastive Learning? (Xue et al., 2023). y and y' are ±1, j is one of
    ``irrelevant`` directions and u = ±1; noise has norm about ``noise`` and lies in all d dimensions, d > n.
    """

    def __init__(self, d: int = 200, strengths: tuple[float, float, float] = (1.0, 0.6, 0.0), irrelevant: int = 1,
                 noise: float = 1.0):  # fmt: skip
        if d < 2 + irrelevant:
            raise ValueError(f"d must be at least {2 + irrelevant}, got {d}")
        self.d, self.strengths, self.irrelevant, self.noise = d, strengths, irrelevant, noise

    def draw(self, n: int, seed: int) -> tuple[Float[Tensor, "n d"], Labels, Labels]:
        """Inputs, classes (0, 1) and subclasses (0, 1), all four combinations equally often."""
        g = torch.Generator().manual_seed(seed)
        y, sub = torch.arange(n) % 2, torch.arange(n) // 2 % 2
        j = torch.randint(self.irrelevant, (n,), generator=g)
        u = 2.0 * torch.randint(2, (n,), generator=g) - 1
        x = self.noise / math.sqrt(self.d) * torch.randn(n, self.d, generator=g)
        x[:, 0] += self.strengths[0] * (2 * y - 1)
        x[:, 1] += self.strengths[1] * (2 * sub - 1)
        x[torch.arange(n), 2 + j] += self.strengths[2] * u
        return x, y, sub


@float32
def spectral_loss(
    z1: Float[Tensor, "n d"], z2: Float[Tensor, "n d"], positive: Bool[Tensor, "n n"] | None = None
) -> Scalar:
    """-2 E[z·z⁺] + E[(z·z⁻)²]: the spectral contrastive loss (HaoChen et al., 2021), negatives from the marginal.

    z1, z2    features of two views, not normalised
    positive  which pairs (i, j) are positives; None pairs the views of one input (unsupervised). With
              labels[:, None] == labels it is supervised

    Departure: negatives are all n² pairs of the batch, the positive's own among them, as drawn independently.
    Raises ValueError for unlike views and a ``positive`` without a pair.
    """
    check_matrix("z1", z1, rows=1)
    check_matrix("z2", z2, like=z1)
    inner = z1 @ z2.T
    if positive is None:
        return -2 * inner.diagonal().mean() + inner.square().mean()
    if positive.shape != inner.shape:
        raise ValueError(f"positive must be ({len(z1)}, {len(z1)}), got shape {tuple(positive.shape)}")
    if positive.device.type == "cpu" and not bool(positive.any()):
        raise ValueError("positive must hold at least one pair")
    return -2 * (inner * positive).sum() / positive.sum() + inner.square().mean()


def moments(x: Rows, labels: Labels | None, blur: Float[Tensor, "d d"] | float = 0.0) -> tuple[Tensor, Tensor]:
    """E[x xᵀ] and E[x x⁺ᵀ], all that a linear map's spectral loss depends on; both (d, d), exact over augmentations.

    labels  positives share a label (supervised); None: they are two noisy copies of one input
    blur    variance of the Gaussian noise that an augmentation adds, a number or one per direction on a diagonal
    """
    n, d = x.shape
    blur = blur * torch.eye(d) if isinstance(blur, float) else blur
    second = x.T @ x / n + blur
    if labels is None:
        return second, x.T @ x / n
    means = class_means(x, labels, int(labels.max()) + 1)
    share = torch.bincount(labels)[:, None] / n
    return second, means.T @ (share * means)


def spectral_linear(w: Float[Tensor, "k d"], second: Float[Tensor, "d d"], cross: Float[Tensor, "d d"]) -> Scalar:
    """The spectral loss of z = W x: -2 tr(W E[x x⁺ᵀ] Wᵀ) + ‖W E[x xᵀ] Wᵀ‖²."""
    return -2 * (w @ cross * w).sum() + (w @ second @ w.T).square().sum()


def descend(
    second: Float[Tensor, "d d"], cross: Float[Tensor, "d d"], width: int, steps: int, lr: float = 0.1,
    seed: int = 0, start: float = 1e-4, watch: Callable[[Tensor], None] | None = None, every: int = 10,
) -> Float[Tensor, "width d"]:  # fmt: skip
    """Gradient descent on ``spectral_linear`` from small random weights: full batch, gradient by hand.

    watch  called with W every ``every`` steps
    """
    w = start * torch.randn(width, len(second), generator=torch.Generator().manual_seed(seed))
    for i in range(steps):
        if watch is not None and i % every == 0:
            watch(w)
        across = w @ second
        w = w - 4 * lr * ((across @ w.T) @ across - w @ cross)
    return w


def two_minimisers(x: Rows, labels: Labels, v: Float[Tensor, " d"]) -> tuple[Tensor, Tensor]:
    """Two linear maps with the same, smallest supervised loss: the one of least norm, and one that also sees v.

    The first is the row w₀ = Xᵀ(XXᵀ)⁻¹ y. The second adds the row r/‖r‖², r what of v lies outside the span of the
    training inputs: it is zero on every one of them. d > n. Returns (1, d) and (2, d).
    """
    sign = (2.0 * labels - 1).to(x)
    inverse = torch.linalg.inv(x @ x.T)
    w0 = x.T @ (inverse @ sign)
    r = v - x.T @ (inverse @ (x @ v))
    return w0[None], torch.stack([w0, r / r.square().sum()])


def minimum_report(seed: int) -> list[dict[str, float]]:
    """Of the two minimisers: supervised "loss", "norm", and how well the "subclass" is read on new data."""
    world = Features(400, (1.0, 0.6, 0.0))
    (x, y, _), (new, _, sub) = world.draw(100, 2 * seed), world.draw(2000, 2 * seed + 1)
    x, new, found = x.double(), new.double(), []
    for w in two_minimisers(x, y, torch.eye(400, dtype=torch.float64)[1]):
        z, v = x @ w.T, new @ w.T
        read = ridge_accuracy(v[:1000], sub[:1000], v[1000:], sub[1000:])
        loss = float(spectral_loss(z, z, y[:, None] == y))
        found.append({"loss": loss, "norm": float(w.norm()), "subclass": read})
    return found


def subclass_response(losses: str, seed: int, steps: int = 800, every: int = 20) -> list[float]:
    """‖W v₂‖/‖W v₁‖ along gradient descent on the "supervised", "unsupervised" or "joint" (half and half) loss."""
    x, y, _ = Features(200, (1.0, 0.6, 0.0)).draw(100, seed)
    (second, supervised), (_, unsupervised) = moments(x, y), moments(x, None)
    cross = {"supervised": supervised, "unsupervised": unsupervised, "joint": (supervised + unsupervised) / 2}[losses]
    trace: list[float] = []
    descend(second, cross, 8, steps, 0.05, seed, every=every,
            watch=lambda w: trace.append(float(w[:, 1].norm() / w[:, 0].norm())))  # fmt: skip
    return trace


def narrow_subclass(width: int, seed: int, irrelevant: int = 8, steps: int = 800) -> float:
    """Accuracy of reading the subclass from an unsupervised linear map of a given width, strong features about."""
    world = Features(300, (0.7, 0.5, 1.5), irrelevant)
    (x, _, _), (new, _, sub) = world.draw(100, 2 * seed), world.draw(2000, 2 * seed + 1)
    v = new @ descend(*moments(x, None), width, steps, 0.02, seed).T
    return ridge_accuracy(v[:1000], sub[:1000], v[1000:], sub[1000:], 1e-6)


class DigitsWithDistractor:
    """A digit's pixels and, beside them, one of ``kinds`` fixed random patterns: an easy feature next to a hard one.

    ``views`` draws two noisy copies; the pattern is kept in both with probability ``kept``, else each draws its own.
    """

    def __init__(self, pixels: Float[Tensor, "n p"], kinds: int = 16, strength: float = 1.0, seed: int = 0):
        g = torch.Generator().manual_seed(seed)
        self.pixels, self.book = pixels, strength * torch.randn(kinds, 16, generator=g)

    def views(self, index: Labels, generator: torch.Generator, kept: float) -> Float[Tensor, "two_n q"]:
        n, kinds = len(index), len(self.book)
        drawn = torch.randint(kinds, (2, n), generator=generator)
        drawn[1] = torch.where(torch.rand(n, generator=generator) < kept, drawn[0], drawn[1])
        pixels = self.pixels[index].repeat(2, 1)
        pixels = pixels + 0.15 * torch.randn(pixels.shape, generator=generator)
        return torch.cat([pixels, self.book[drawn.flatten()]], 1)

    def plain(self, generator: torch.Generator) -> Float[Tensor, "n q"]:
        """Every digit once, with a pattern of its own."""
        drawn = torch.randint(len(self.book), (len(self.pixels),), generator=generator)
        return torch.cat([self.pixels, self.book[drawn]], 1)


class Encoded(nn.Module):
    """A perceptron encoder whose last layer has ``width`` outputs: the width that suppression depends on."""

    def __init__(self, inputs: int, width: int, hidden: int = 128):
        super().__init__()
        self.net = perceptron(inputs, hidden, hidden, width)

    def forward(self, x: Rows) -> Float[Tensor, "n width"]:
        return self.net(x)
