"""UNEM (Zhou et al., 2025): generalised EM for a task's queries, its iterations unrolled and their settings learnt.

One layer, for features z_i, scaled by t, of Gaussian classes with identity covariance (of Dirichlet classes α_k):

    u_ik = softmax_k((log p(z_i | k) + γ_l (log π_k + 1)) / T_l),   π_k = mean_i u_ik,   w_k = mean of both

γ = T = 1 is EM. A large γ empties classes: with γ the number of queries it is PADDLE's penalty (Martin et al., 2022).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ...train import allowed
from .episodes import Soft, Tasks, accuracy, squared

MODELS = ("gaussian", "dirichlet")


@dataclass(frozen=True)
class Settings:
    """Class weight γ and temperature T of each layer (l,), and the scale t of features or similarities."""

    gamma: Float[Tensor, " l"]
    temperature: Float[Tensor, " l"]
    scale: Float[Tensor, ""]

    @staticmethod
    def fixed(gamma: float, temperature: float = 1.0, scale: float = 1.0, layers: int = 10) -> "Settings":
        """The same in every layer. Raises ValueError for γ < 0, T <= 0, scale <= 0 and layers < 1."""
        if not gamma >= 0 or not temperature > 0 or not scale > 0 or layers < 1:
            raise ValueError("gamma must be at least 0, temperature and scale positive, layers at least 1, got "
                             f"{gamma}, {temperature}, {scale} and {layers}")  # fmt: skip
        return Settings(
            torch.full((layers,), float(gamma)), torch.full((layers,), float(temperature)), torch.tensor(float(scale))
        )


def generalised_em(tasks: Tasks, settings: Settings, model: str = "gaussian", trace: list | None = None) -> Soft:
    """Soft assignments of the queries after as many layers as the settings have; differentiable in the settings.

    tasks     for "gaussian" features; for "dirichlet" similarities to the class names, see ``name_probabilities``,
              which this function turns into probabilities by softmax(scale · similarity)
    trace     a list that gets log u of every layer

    Supports enter through the means (or α) only, as in the released code. Raises ValueError for an unknown model.
    """
    if model not in MODELS:
        raise ValueError(f"model must be one of {', '.join(MODELS)}, got {model!r}")
    change = (lambda z: settings.scale * z) if model == "gaussian" else (lambda z: (settings.scale * z).log_softmax(-1))
    tasks, members, alpha, weight = tasks.map(change), tasks.one_hot, None, 0.0
    fixed, count = members.mT @ tasks.support, members.sum(1)[..., None]
    mean = fixed / count
    for gamma, temperature in zip(settings.gamma, settings.temperature, strict=True):
        if model == "gaussian":
            log_p = -0.5 * squared(tasks.query, mean)
        else:
            alpha = fit_dirichlet(mean, alpha, 20 if alpha is None else 3)
            log_p = log_dirichlet(tasks.query, alpha)
        log_u = ((log_p + gamma * weight) / temperature).log_softmax(2)
        u = log_u.exp()
        weight = (u.mean(1, keepdim=True) + 1e-6).log() + 1
        mean = (fixed + u.mT @ tasks.query) / (count + u.sum(1)[..., None])
        if trace is not None:
            trace.append(log_u)
    return log_u.exp()


def searched(tasks: Tasks, grid: Sequence[Settings], model: str = "gaussian") -> Settings:
    """The settings of a grid with the highest accuracy on labelled validation tasks; the first of equals."""
    return max(grid, key=lambda settings: accuracy(generalised_em(tasks, settings, model), tasks))


def log_dirichlet(log_z: Float[Tensor, "t n d"], alpha: Float[Tensor, "t k d"]) -> Float[Tensor, "t n k"]:
    """log density of each row under each Dirichlet of its task, from log z."""
    constant = torch.lgamma(alpha.sum(2)) - torch.lgamma(alpha).sum(2)
    return constant[:, None] + log_z @ (alpha - 1).mT


def fit_dirichlet(
    mean_log: Float[Tensor, "*b d"], start: Float[Tensor, "*b d"] | None = None, steps: int = 20, most: float = 1e3
) -> Float[Tensor, "*b d"]:
    """Maximum likelihood α of a Dirichlet whose log z have this mean: ψ(α_d) = ψ(Σ α) + mean log z_d.

    Minka's fixed point (2000), which maximises a minorant in every step, as EM-Dirichlet's does with another one.
    α stays below ``most``: a single sample, or equal ones, have no finite maximum.
    """
    alpha = torch.ones_like(mean_log) if start is None else start
    for _ in range(steps):
        alpha = inverse_digamma(torch.digamma(alpha.sum(-1, keepdim=True)) + mean_log).clamp(1e-4, most)
    return alpha


def inverse_digamma(y: Tensor, steps: int = 4) -> Tensor:
    """x > 0 with ψ(x) = y, by Newton from Minka's start; nine digits after four steps."""
    x = torch.where(y >= -2.22, y.clamp(max=50).exp() + 0.5, -1 / (y.clamp(max=-2.22) + 0.5772156649))
    for _ in range(steps):
        x = x - (torch.digamma(x) - y) / torch.polygamma(1, x)
    return x


def name_probabilities(tasks: Tasks, names: Float[Tensor, "t k d"]) -> Tasks:
    """Tasks whose features are cosines to the k class names of their task: what CLIP's text encoder would give."""
    to = F.normalize(names, dim=2)
    return tasks.map(lambda z: F.normalize(z, dim=2) @ to.mT)


def unroll(
    tasks: Tasks, *, start: Settings, model: str = "gaussian", steps: int = 60, lr: float = 0.1, per_layer: bool = True,
    learn: tuple[str, ...] = ("gamma", "temperature", "scale"),
) -> Settings:  # fmt: skip
    """Learn the settings by gradient descent through all layers, on the queries' labels of validation tasks.

    start      first values; γ = softplus(a), T = 1 + softplus(b), t = softplus(c) as in the paper
    lr         of Adam, halved every half of the steps; the paper has 0.1 and 100 full-batch steps
    per_layer  a γ and a T for each layer, or one for all
    learn      which of the three are learnt

    The loss is -log u at the labels. The released code hands probabilities to a cross entropy, which takes a second
    softmax of them. Raises ValueError for names in ``learn`` that are no setting.
    """
    if odd := set(learn) - {"gamma", "temperature", "scale"}:
        raise ValueError(f"learn must hold gamma, temperature or scale, got {sorted(odd)}")
    device, layers = tasks.query.device, len(start.gamma)
    wide = layers if per_layer else 1
    first = dict(gamma=start.gamma, temperature=(start.temperature - 1).clamp_min(1e-2), scale=start.scale)
    raw = {k: _inverse_softplus(v.to(device).clamp_min(1e-2)) for k, v in first.items()}
    raw = {k: (v[:wide] if v.ndim else v).clone().requires_grad_(k in learn) for k, v in raw.items()}

    def settings():
        a, b, c = (F.softplus(raw[k]) for k in ("gamma", "temperature", "scale"))
        temperature = (1 + b).expand(layers) if "temperature" in learn else start.temperature.to(device)
        return Settings(a.expand(layers), temperature, c)

    optimizer = torch.optim.Adam([raw[k] for k in learn], lr)
    steps = allowed(steps)
    halve = torch.optim.lr_scheduler.StepLR(optimizer, max(1, steps // 2), 0.5)
    for _ in range(steps):
        trace = []
        generalised_em(tasks, settings(), model, trace)
        loss = F.nll_loss(trace[-1].flatten(0, 1), tasks.query_y.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        halve.step()
    found = settings()
    return Settings(*(v.detach().clone() for v in (found.gamma, found.temperature, found.scale)))


def _inverse_softplus(y: Tensor) -> Tensor:
    return y + torch.log(-torch.expm1(-y))


def alpha_tim(tasks: Tasks, alpha: float = 2.0, *, steps: int = 60, lr: float = 0.02, scale: float = 15.0) -> Soft:
    """α-TIM (Veilleux et al., 2021): prototypes moved to lower cross entropy and raise the α-mutual information.

    Minimises CE(supports) + mean H_α(queries) - H_α(mean query) with Tsallis' H_α(p) = (1 - Σ p^α) / (α - 1); α = 1 is
    TIM (Boudiaf et al., 2020), whose marginal term wants all classes alike.

    lr     of Adam on the prototypes, from the mean supports
    scale  τ of the logits -τ/2 ‖z - w‖²

    Raises ValueError for α < 1 and scale <= 0.
    """
    if not alpha >= 1 or not scale > 0:
        raise ValueError(f"alpha must be at least 1 and scale positive, got {alpha} and {scale}")
    w = tasks.prototypes.clone().requires_grad_()
    optimizer = torch.optim.Adam([w], lr)

    def entropy(p):
        return torch.special.entr(p).sum(-1) if alpha == 1 else (1 - p.pow(alpha).sum(-1)) / (alpha - 1)

    for _ in range(steps):
        p = (-scale / 2 * squared(tasks.query, w)).softmax(2)
        known = (-scale / 2 * squared(tasks.support, w)).log_softmax(2)
        loss = -(known * tasks.one_hot).sum(2).mean(1) + entropy(p).mean(1) - entropy(p.mean(1))
        optimizer.zero_grad()
        loss.sum().backward()
        optimizer.step()
    return (-scale / 2 * squared(tasks.query, w.detach())).softmax(2)
