"""To compress or not (Shwartz-Ziv and LeCun, 2023): a bottleneck between views (Federici et al., 2020)."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...data import shuffled
from ...loss import check_matrix, float32
from ...train import allowed
from ._common import Rows, Scalar, learn, perceptron, ridge_accuracy, watched
from .estimators import Separable, nce_bound
from .exact_information import code_information


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
    spread = 4 * (a - b).sinh().square()  # σ₁²/σ₂² + σ₂²/σ₁² - 2, which rounding would take below 0
    apart = (mu1 - mu2).square() * ((-2 * a).exp() + (-2 * b).exp())
    return (spread + apart).sum(1).mean() / 4


@float32
def gaussian_information(z1: Rows, z2: Float[Tensor, "n e"], ridge: float = 1e-2) -> Scalar:
    """I(z₁; z₂) as if both were Gaussian: ½ (log det C₁ + log det C₂ - log det C), of the batch's correlations + ridge.

    What non-contrastive objectives of covariances maximise, by the review: spread without negatives. Raises ValueError
    for different numbers of rows.
    """
    check_matrix("z1", z1, rows=2)
    check_matrix("z2", z2, rows=2)
    if len(z1) != len(z2):
        raise ValueError(f"z2 must have as many rows as z1, {len(z1)}, got {len(z2)}")
    both = torch.cat([z1, z2], 1)
    both = (both - both.mean(0)) / both.std(0, correction=0).clamp_min(1e-6)
    c = both.T @ both / len(both) + ridge * torch.eye(both.shape[1], dtype=both.dtype, device=both.device)
    d = z1.shape[1]
    return (torch.logdet(c[:d, :d]) + torch.logdet(c[d:, d:]) - torch.logdet(c)) / 2


class Bottleneck(nn.Module):
    """Two views, a stochastic Gaussian encoder each, -[what is kept] + β · symmetric KL between the two Gaussians.

    The review's objective with its special cases. With keep = "contrast" it is MIB (Federici et al., 2020): InfoNCE
    with a separable critic. All take one sample of each code. ``features`` are the means of view 1.

    keep  "contrast": InfoNCE of the codes; "covariances": ``gaussian_information`` of them; "other view": each code
          decodes the other view, mean squared error; "own view": its own; "label": a linear classifier names y
    beta  weight of the compression; 0 is multi-view InfoMax
    """

    KEEPS = ("contrast", "covariances", "other view", "own view", "label")

    def __init__(self, d1: int, d2: int, dim: int = 16, hidden: int = 128, beta: float = 0.0, keep: str = "contrast",
                 classes: int = 8):  # fmt: skip
        super().__init__()
        if keep not in self.KEEPS:
            raise ValueError(f"keep must be one of {', '.join(self.KEEPS)}, got {keep!r}")
        self.beta, self.dim, self.keep = beta, dim, keep
        self.encoders = nn.ModuleList([perceptron(d, hidden, hidden, 2 * dim) for d in (d1, d2)])
        self.critic = Separable(dim, dim)
        shown = {"other view": (d2, d1), "own view": (d1, d2)}.get(keep, ())
        self.decoders = nn.ModuleList([perceptron(dim, hidden, d) for d in shown])
        self.classifier = nn.Linear(dim, classes) if keep == "label" else None

    def codes(self, x1: Rows, x2: Float[Tensor, "n e"]) -> list[tuple[Rows, Rows]]:
        coded = (f(x) for f, x in zip(self.encoders, (x1, x2), strict=True))
        return [(c[:, : self.dim], c[:, self.dim :] - 1) for c in coded]

    def forward(
        self, x1: Rows, x2: Float[Tensor, "n e"], weight: float = 1.0, y: Int[Tensor, " n"] | None = None
    ) -> Scalar:
        """The loss; ``weight`` in [0, 1] is where β's warm-up stands."""
        (mu1, log1), (mu2, log2) = self.codes(x1, x2)
        z1, z2 = (m + s.clamp(-8, 8).exp() * torch.randn_like(m) for m, s in ((mu1, log1), (mu2, log2)))
        loss = -self._kept(z1, z2, x1, x2, y)
        if self.beta:
            loss = loss + self.beta * weight * symmetric_kl(mu1, log1, mu2, log2)
        return loss

    def _kept(self, z1: Rows, z2: Rows, x1: Rows, x2: Tensor, y: Tensor | None) -> Scalar:
        """The first term of the objective, a bound of the information that is asked for, up to constants."""
        if self.keep == "contrast":
            return nce_bound(self.critic(z1, z2))
        if self.keep == "covariances":
            return gaussian_information(z1, z2)
        if self.keep == "label":
            return -F.cross_entropy(self.classifier(z1), y)
        wanted = (x2, x1) if self.keep == "other view" else (x1, x2)
        return -sum(F.mse_loss(d(z), x) for d, z, x in zip(self.decoders, (z1, z2), wanted, strict=True)) * 16

    @torch.no_grad()
    def features(self, x1: Rows) -> Rows:
        return self.encoders[0](x1)[:, : self.dim]


def shared_and_private(
    n: int, seed: int, classes: int = 8, noise: float = 0.4, world: int = 0, surplus: bool = False
) -> dict[str, Tensor]:  # fmt: skip
    """Two views with one shared symbol and a private one each, and two tasks: name the shared one, name view 1's own.

    x₁ = F(code of s + noise, code of p₁ + noise) + noise, x₂ likewise with s and p₂; F is a fixed random two-layer map
    of each view. For the label ``shared`` the multi-view assumption holds exactly, for ``private`` it fails exactly.

    surplus  True: both views show p₁, which is then shared as well, though "shared" is all that a task asks for
    noise    standard deviation about a code, in each of 6 coordinates; shared codes have norm 2, private ones 4
    world    seed of codes and maps, which training and test must share
    """
    fixed, g = torch.Generator().manual_seed(world), torch.Generator().manual_seed(seed)
    books = F.normalize(torch.randn(2, classes, 6, generator=fixed), dim=2)
    s, p1, p2 = torch.randint(classes, (3, n), generator=g)
    views = []
    for p in (p1, p1 if surplus else p2):
        first, second = torch.randn(12, 64, generator=fixed) / math.sqrt(12), torch.randn(64, 32, generator=fixed) / 8
        inner = torch.cat([2 * books[0, s], 4 * books[1, p]], 1)
        inner = inner + noise * torch.randn(inner.shape, generator=g)
        views.append(torch.sin(0.7 * inner @ first) @ second)
    return dict(x1=views[0], x2=views[1], shared=s, private=p1)


def read_codes(
    beta: float | None, seed: int, views: int = 8000, steps: int = 400, few: int = 40, lr: float = 3e-3,
    keep: str = "contrast", surplus: bool = False, mixed: tuple[float, ...] = (), looks: tuple[float, ...] = (),
) -> dict:  # fmt: skip
    """Test accuracy of linear readers of view 1's codes: each task of ``shared_and_private``, with few labels and all.

    β rises exponentially from 1e-4 of its value to all of it over the first 60 % of the steps. Few-label accuracies are
    means over twenty draws of ``few`` labels. beta None reads the view itself.

    keep   what ``Bottleneck`` maximises
    mixed  for each of these chances p "p private, all": the label is the private symbol with chance p, else the shared
    looks  shares of the training at which "over time" has the codes' information

    "nats" has the ``code_information`` of 1,000 new views, "over time" the same at each look and at the end.
    """
    data, new = (shared_and_private(n, s, surplus=surplus) for n, s in ((views, seed), (1000, seed + 500)))
    a, b, found, over_time = data["x1"], new["x1"], {}, []
    g, judged = torch.Generator().manual_seed(seed), shared_and_private(1000, seed + 700, surplus=surplus)
    if beta is not None:
        torch.manual_seed(seed)
        model = Bottleneck(a.shape[1], data["x2"].shape[1], beta=beta, keep=keep)

        def look() -> dict[str, float]:
            with torch.no_grad():
                coded = model.codes(judged["x1"], judged["x2"])[0]
            return code_information(*coded, {task: judged[task] for task in ("shared", "private")}, g)

        def loss(i: Tensor) -> Scalar:
            step = next(count)
            warm = 10 ** (-4 * max(0.0, 1 - step / (0.6 * allowed(steps))))
            return model(data["x1"][i], data["x2"][i], warm, data["shared"][i])

        count, batches = iter(range(10**9)), shuffled(views, 128, seed)
        learn([model], loss, watched(batches, lambda: over_time.append(look()), looks, steps), steps, lr)
        found["nats"] = look()
        found["over time"] = [*over_time, found["nats"]]
        a, b = model.features(a), model.features(b)
    for task in ("shared", "private"):
        drawn = [slice(k, k + few) for k in range(0, 20 * few, few)]
        found[task] = sum(ridge_accuracy(a[d], data[task][d], b, new[task], 0.1) for d in drawn) / 20
        found[f"{task}, all"] = ridge_accuracy(a, data[task], b, new[task])
    for chance in mixed:
        label, asked = (torch.where(torch.rand(len(d["shared"]), generator=g) < chance, d["private"], d["shared"])
                        for d in (data, new))  # fmt: skip
        found[f"{chance:g} private, all"] = ridge_accuracy(a, label, b, asked)
    return found
