"""MNIST-Nd: digits encoded by mixture VAEs of growing dimension, to compare clusterings over it."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class MixtureVAE(nn.Module):
    """A VAE whose prior is a mixture of Gaussians with learnt means and scales; Monte-Carlo KL.

    Turishcheva et al. (2024): loss = reconstruction + β (log q(z|x) - log p(z)), β falling with the dimension, so that
    signal and noise stay in proportion. Perceptrons instead of the paper's network (ours), binary cross entropy.

    pixels      of an image, in [0, 1]
    dimensions  of z
    beta        weight of the KL term, in nats a dimension of reconstruction
    """

    def __init__(self, pixels: int, dimensions: int, beta: float, components: int = 10, width: int = 128):
        super().__init__()
        self.beta = beta
        self.encoder = nn.Sequential(nn.Linear(pixels, width), nn.ReLU(), nn.Linear(width, 2 * dimensions))
        self.decoder = nn.Sequential(nn.Linear(dimensions, width), nn.ReLU(), nn.Linear(width, pixels))
        self.means = nn.Parameter(2 * torch.randn(components, dimensions) / dimensions**0.5)
        self.log_scales = nn.Parameter(torch.zeros(components, dimensions) - 0.5)
        self.logits = nn.Parameter(torch.zeros(components))

    def encode(self, x: Float[Tensor, "n p"]) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]:
        """Mean and standard deviation of q(z|x)."""
        mean, log_scale = self.encoder(x).chunk(2, 1)
        return mean, log_scale.clamp(-6, 3).exp()

    def log_prior(self, z: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """log Σ_k π_k N(z; m_k, s_k²)."""
        scaled = (z[:, None] - self.means) * (-self.log_scales).exp()
        each = -0.5 * scaled.square().sum(2) - self.log_scales.sum(1) - z.shape[1] / 2 * math.log(2 * math.pi)
        return torch.logsumexp(each + self.logits.log_softmax(0), 1)

    def step(self, x: Float[Tensor, "n p"]) -> dict[str, Tensor]:
        """The loss of a batch."""
        mean, scale = self.encode(x)
        noise = torch.randn_like(mean)
        z = mean + scale * noise
        log_q = (-0.5 * noise.square() - scale.log() - 0.5 * math.log(2 * math.pi)).sum(1)
        kl = log_q - self.log_prior(z)
        reconstruction = F.binary_cross_entropy_with_logits(self.decoder(z), x, reduction="none").sum(1)
        return {"loss": (reconstruction + self.beta * kl).mean()}

    def forward(self, x: Float[Tensor, "n p"]) -> dict[str, Tensor]:
        return self.step(x)


def encode_digits(
    train: Float[Tensor, "n p"], test: Float[Tensor, "m p"], dimensions: int, beta: float, *, steps: int, seed: int,
    sampled: bool = True, batch: int = 128, lr: float = 5e-3,
) -> Float[Tensor, "m d"]:  # fmt: skip
    """One data set of MNIST-Nd: a mixture VAE trained on ``train``, and the encodings of ``test``.

    sampled  draws from q(z|x), as the noise belongs to the data set; False gives the means
    """
    from ...data import shuffled
    from ...nets import seeded
    from ...train import allowed

    model = seeded(seed, MixtureVAE, train.shape[1], dimensions, beta).to(train.device)
    steps, optimiser = allowed(steps), torch.optim.AdamW(model.parameters(), lr)
    rows = shuffled(len(train), batch, seed, train.device)
    with torch.random.fork_rng([train.device] if train.is_cuda else []):
        torch.manual_seed(seed)
        for step in range(steps):
            for group in optimiser.param_groups:
                group["lr"] = lr * (1 + math.cos(math.pi * step / steps)) / 2
            loss = model.step(train[rows(step)])["loss"]
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            mean, scale = model.encode(test)
            return mean + scale * torch.randn_like(mean) if sampled else mean


def density_peaks(x: Float[Tensor, "n d"], neighbours: int = 15, percentile: float = 95.0) -> int:
    """Modes of a cloud: points denser than all their neighbours and far from any denser one (Rodriguez and Laio 2014).

    Density is the inverse distance to the k-th neighbour. A peak is no neighbour of a denser point, and its distance to
    the nearest denser one exceeds that percentile of all such distances. The densest point counts.
    """
    distance = torch.cdist(x, x)
    near = distance.topk(neighbours + 1, largest=False)
    density = 1 / near.values[:, -1].clamp_min(1e-12)
    denser = density[:, None] < density
    separation = torch.where(denser, distance, torch.inf).amin(1)
    top = ~denser.gather(1, near.indices[:, 1:]).any(1)
    finite = separation[torch.isfinite(separation)]
    if not len(finite):
        return 1  # all equally dense
    return int((top & (separation >= torch.quantile(finite, percentile / 100))).sum())
