"""To compress or not (Shwartz-Ziv and LeCun, 2023): a bottleneck between views (Federici et al., 2020)."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ...data import shuffled
from ...loss import check_matrix, float32
from ._common import Rows, Scalar, learn, perceptron, ridge_accuracy
from .estimators import Separable, nce_bound


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


def read_codes(
    beta: float | None, seed: int, views: int = 8000, steps: int = 400, few: int = 40, lr: float = 3e-3
) -> dict[str, float]:
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

        learn([model], loss, torch.tensor, steps, lr)
        a, b = model.features(a), model.features(b)
    found = {}
    for task in ("shared", "private"):
        drawn = [slice(k, k + few) for k in range(0, 20 * few, few)]
        found[task] = sum(ridge_accuracy(a[d], data[task][d], b, new[task], 0.1) for d in drawn) / 20
        found[f"{task}, all"] = ridge_accuracy(a, data[task], b, new[task])
    return found
