"""Multi-view redundancy (Tosh et al., 2021): density ratios against landmarks, and a linear model on them."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from ...data import shuffled
from ._common import Rows, learn
from .estimators import Separable, gaussian_log_ratio, logistic_nce


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


class Topics:
    """Documents of one topic each, cut in halves: X and Z are the counts of two halves of ``words`` words.

    The paper's topic model, in its simplest form: given the topic the halves are independent, so the ratio is a sum
    over topics, exactly. Y is the topic's own number, ±1 or less, drawn once.

    topics, vocabulary  k and how many words there are; each topic prefers some of them
    """

    def __init__(self, words: int = 10, topics: int = 8, vocabulary: int = 200, seed: int = 0):
        g = torch.Generator().manual_seed(seed)
        draw = torch.rand(topics, vocabulary, generator=g, dtype=torch.float64).log().neg()
        self.words, self.book = words, draw / draw.sum(1, keepdim=True)
        self.value = torch.linspace(-1, 1, topics, dtype=torch.float64)

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Counts X (n, vocabulary), Z likewise, and Y (n,)."""
        topic = torch.randint(len(self.book), (n,), generator=generator)
        drawn = torch.multinomial(self.book[topic], 2 * self.words, replacement=True, generator=generator)
        halves = [torch.zeros(n, self.book.shape[1], dtype=torch.float64).scatter_add_(1, part, torch.ones_like(
            part, dtype=torch.float64)) for part in drawn.split(self.words, 1)]  # fmt: skip
        return halves[0], halves[1], self.value[topic]

    def posterior(self, counts: Float[Tensor, "n v"]) -> Float[Tensor, "n k"]:
        """P(topic | words): of a half, or of the sum of both halves' counts."""
        return (counts @ self.book.log().T).softmax(1)

    def expected(self, counts: Float[Tensor, "n v"]) -> Float[Tensor, " n"]:
        """E[Y | these words]."""
        return self.posterior(counts) @ self.value

    def log_ratio(self, x: Float[Tensor, "n v"], z: Float[Tensor, "m v"]) -> Float[Tensor, "n m"]:
        """log p(x, z) / (p(x) p(z)) = log k Σ_t p(t | x) p(t | z), as topics are equally likely."""
        return (len(self.book) * self.posterior(x) @ self.posterior(z).T).log()


def topic_errors(words: int, seed: int, m: int = 80, labels: int = 200, n: int = 2000) -> dict[str, float]:
    """Squared errors against E[Y | X, Z] on n documents: linear models from ``labels`` labels on "landmarks" or "word
    counts" of X, the best of X, "E[Y|X]", the two-step "μ(X)" and the redundancy "bound" of the last."""
    world, g = Topics(words), torch.Generator().manual_seed(seed)
    (x, _, y), (new, z, _), marks = world.draw(labels, g), world.draw(n, g), world.draw(m, g)[1]
    target = world.expected(new + z)
    eps_x, eps_z = (float((world.expected(v) - target).square().mean()) for v in (new, z))
    many = world.draw(5000, g)[1]  # μ(x) = Σ_t P(t | x) E[E[Y | Z] | t], the inner mean over documents
    inner = (len(world.book) * world.posterior(many) * world.expected(many)[:, None]).mean(0)
    a, b = (landmark_features(world.log_ratio(v, marks)) for v in (x, new))
    missed = float((world.posterior(new) @ inner - target).square().mean())
    return {"landmarks": linear_mse(a, y, b, target, 0.03), "word counts": linear_mse(x, y, new, target, 1.0),
            "E[Y|X]": eps_x, "μ(X)": missed, "bound": redundancy_bound(eps_x, eps_z)}  # fmt: skip


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
          "untrained ratio", a "learnt ratio" (separable critic, ``logistic_nce`` on unlabelled pairs), the "true
          ratio". "embedding": what the learnt critic makes of x before it meets a landmark, as many numbers as 64
    """
    world, g = TwoViews(2, 0.8, lonely=10), torch.Generator().manual_seed(seed)
    x, z, _ = (v.float() for v in world.draw(20_000, g))
    (a, _, label), (b, z_new, _), marks = world.draw(labels, g), world.draw(4000, g), world.draw(m, g)[1].float()
    a, b, target = a.float(), b.float(), world.both(b, z_new)
    if kind in ("learnt ratio", "untrained ratio", "embedding"):
        torch.manual_seed(seed)
        net = Separable(12, 2, 64)
        if kind != "untrained ratio":
            learn([net], lambda i: logistic_nce(net(x[i], z[i])), shuffled(len(x), 256, seed), steps, 5e-3)
        with torch.no_grad():
            a, b = (net.left(v) if kind == "embedding" else landmark_features(net(v, marks), clip=3) for v in (a, b))
    elif kind == "true ratio":
        a, b = (landmark_features(gaussian_log_ratio(v[:, :2], marks, 0.8), clip=3) for v in (a, b))
    elif kind == "random features":
        a, b = random_features(a / 12**0.5, b / 12**0.5, m, seed)
    elif kind != "x itself":
        raise ValueError(f"kind must be one of those in the docstring, got {kind!r}")
    return linear_mse(a, label, b, target, ridge=0.03)
