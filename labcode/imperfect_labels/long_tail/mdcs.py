"""MDCS: experts that look at different parts of a long tail, each taught by its own view of easier images (Zhao et al.,
ICCV 2023).

n networks with e experts each are trained as one stack: logits are (n, e, b, K), labels (n, b), and what tells the arms
of a comparison apart (the priors' exponents, the weight of the distillation, whether all images take part) is one
number a network.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from ...nets.stacked import StackedLinear, StackedMLP, StackedNorm
from .backbone import COLOUR, StackedResNet

MANY_ALL_FEW = (-0.5, 1.0, 2.5)


class Experts(nn.Module):
    """n networks: a shared first layer, then e experts with a hidden layer and a cosine classifier of their own.

    x (n, b, d), or (b, d) for all, to logits (n, e, b, K). The first layer stands for the stem and first stage of the
    paper's ResNet-32, the rest for an expert's own stages; for colour images a whole ResNet-18 is shared.
    """

    def __init__(
        self, n: int, inputs: int, classes: int, *, generator: Generator, experts: int = 3, trunk: int = 96,
        hidden: int = 48, same: int = 0,
    ):  # fmt: skip
        super().__init__()
        self.n, self.experts = n, experts
        if inputs == COLOUR:
            self.trunk = StackedResNet(n, generator=generator, same=same)
        else:
            first = StackedLinear(n, inputs, trunk, bias=False, generator=generator, same=same)
            self.trunk = nn.Sequential(first, StackedNorm(n, trunk, device=generator.device), nn.ReLU())
        trunk = self.trunk.body[0].features if inputs == COLOUR else trunk
        widths = [trunk, hidden, classes]
        self.heads = StackedMLP(n * experts, widths, generator=generator, cosine=True, same=same * experts)

    def forward(self, x: Float[Tensor, "*n b d"]) -> Float[Tensor, "n e b K"]:
        h = self.trunk(x).repeat_interleave(self.experts, 0)
        return self.heads(h).unflatten(0, (self.n, self.experts))


def by_prior(
    logits: Float[Tensor, "n e b K"], counts: Int[Tensor, " K"], exponents: Float[Tensor, "n e"]
) -> Float[Tensor, "n e b K"]:
    """Logits plus λ log n_c, each expert with its own λ: -0.5 for many-shot classes, 1 (balanced softmax), 2.5 for few.

    With λ = 0 it is plain training. Added in training only: what the prior explains the logits need not say.
    """
    return logits + (exponents[..., None] * counts.log().to(logits))[:, :, None]


def diversity_loss(
    logits: Float[Tensor, "n e b K"], y: Int[Tensor, "n b"], counts: Int[Tensor, " K"], exponents: Float[Tensor, "n e"]
) -> Float[Tensor, " n"]:
    """Sum over experts of the cross entropy of logits with their prior; the mean over the batch. Equation 3."""
    log_p = by_prior(logits, counts, exponents).log_softmax(3)
    picked = log_p.gather(3, y[:, None, :, None].expand(-1, log_p.shape[1], -1, 1))
    return -picked.mean((2, 3)).sum(1)


def consistency_loss(
    weak: Float[Tensor, "n e b K"], strong: Float[Tensor, "n e b K"], y: Int[Tensor, "n b"],
    confident: Tensor | bool = True,
) -> Float[Tensor, " n"]:  # fmt: skip
    """Sum over experts of KL(weak || strong), both with their prior; only of images whose weak view is right.

    weak, strong  logits of the two views *with the prior added*; the weak view gets no gradient
    confident     per network, or one for all: whether only images that the expert classifies right in the weak view
                  take part (confident instance sampling, judged per expert on these logits), or all

    The mean is over the images kept; an expert that has none adds 0. Temperature 1.
    """
    target = weak.detach().log_softmax(3)
    kl = (target.exp() * (target - strong.log_softmax(3))).sum(3)  # (n, e, b)
    only = torch.as_tensor(confident, device=weak.device).expand(len(weak))[:, None, None]
    keep = ((weak.argmax(3) == y[:, None]) | ~only).to(kl.dtype)
    return ((kl * keep).sum(2) / keep.sum(2).clamp_min(1)).sum(1)


def mdcs_loss(
    weak: Float[Tensor, "n e b K"], strong: Float[Tensor, "n e b K"], y: Int[Tensor, "n b"], counts: Int[Tensor, " K"],
    exponents: Float[Tensor, "n e"], weight: Float[Tensor, " n"], confident: Tensor | bool = True,
) -> Float[Tensor, " n"]:  # fmt: skip
    """The loss of every network: diversity loss on both views plus ``weight`` times the self-distillation.

    Equation 6; the paper's weight is 0.6, reached linearly over the first 20 of 400 epochs. Both views' cross entropies
    are one mean, as in the released code.
    """
    both = torch.cat([weak, strong], 2)
    dl = diversity_loss(both, torch.cat([y, y], 1), counts, exponents)
    weak, strong = (by_prior(z, counts, exponents) for z in (weak, strong))
    return dl + weight * consistency_loss(weak, strong, y, confident)


def ensemble(logits: Float[Tensor, "n e b K"]) -> Float[Tensor, "n b K"]:
    """What is used at test: the plain mean of the experts' logits, without the prior."""
    return logits.mean(1)


def disagreement(logits: Float[Tensor, "n e b K"]) -> Float[Tensor, " n"]:
    """The share of images on which two experts differ, a mean over pairs: how diverse the experts are."""
    said = logits.argmax(3)
    pairs = torch.combinations(torch.arange(said.shape[1]))
    return (said[:, pairs[:, 0]] != said[:, pairs[:, 1]]).double().mean((1, 2)).float()


def bias_variance(p: Float[Tensor, "m b K"], y: Int[Tensor, " b"]) -> tuple[float, float]:
    """Squared bias and variance of predictions over m trainings: Σ_k of (mean p - y)² and of (p - mean p)².

    p  probabilities of m networks trained on different parts of the data, m >= 2; the variance is unbiased, and its
       share in the bias is taken out

    Raises ValueError for a single training.
    """
    m = len(p)
    if m < 2:
        raise ValueError(f"p must be of at least 2 trainings, got {m}")
    mean = p.double().mean(0)
    variance = float((p.double() - mean).square().sum(2).sum(0).mean() / (m - 1))
    bias = float((mean - F.one_hot(y, p.shape[2])).square().sum(1).mean()) - variance / m
    return bias, variance
