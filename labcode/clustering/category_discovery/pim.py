"""PIM (Chiaroni et al., 2023): a linear classifier on frozen features that maximises a weighted mutual information."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor

from ...loss import check_index, check_positive, float32
from ...train import allowed
from ..many_kmeans import many_kmeans
from .gcd import semi_supervised_kmeans
from .protocol import Problem, discovery_accuracy

LAMBDAS = (0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)


@float32
def pim_loss(
    logits: Float[Tensor, "n k"],
    known: Int[Tensor, " n"],
    lam: float = 1.0,
    marginal: float = 1.0,
    supervised: float = 1.0,
) -> Float[Tensor, ""]:
    """λ H(Y|X) - H(Y) + CE, to be minimised: PIM, eq. 6, in nats.

    H(Y|X) is the mean entropy of the unlabelled rows, H(Y) the entropy of the mean prediction of all rows, CE the mean
    cross entropy of the labelled ones.

    known       class of labelled rows, -1 for the others
    lam         λ >= 0, weight of the conditional entropy; 1 is the mutual information with equal weights
    marginal    weight of H(Y): 1 in the paper
    supervised  weight of CE: 1 in the paper, 0 in its search for λ

    Raises ValueError for known of another shape or beyond the columns, and weights that are negative.
    """
    if logits.ndim != 2 or not logits.is_floating_point() or not logits.numel():
        raise ValueError(f"logits must be a floating-point matrix (n, k), got {logits.dtype} {tuple(logits.shape)}")
    if known.shape != (len(logits),):
        raise ValueError(f"known must name a class or -1 for each of the {len(logits)} rows, got {tuple(known.shape)}")
    if not all(0 <= v < float("inf") for v in (lam, marginal, supervised)):
        raise ValueError(f"lam, marginal and supervised must be >= 0 and finite, got {lam}, {marginal}, {supervised}")
    check_index("known", known.clamp_min(0), logits.shape[1])
    conditional, entropy, taught = (part[0] for part in pim_terms(logits[None], known))
    return lam * conditional - marginal * entropy + supervised * taught


def pim_terms(logits: Tensor, known: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """H(Y|X) of unlabelled rows, H(Y) of all and CE of labelled ones, (a,) each, from logits (a, n, k)."""
    log_p, fixed = logits.log_softmax(2), (known >= 0).to(logits.dtype)
    p = log_p.exp()
    each = -(p * log_p).sum(2)
    conditional = (each * (1 - fixed)).sum(1) / (1 - fixed).sum().clamp_min(1)
    mean = p.mean(1)
    marginal = -(mean * mean.clamp_min(1e-12).log()).sum(1)
    taught = log_p.gather(2, known.clamp_min(0).expand(len(logits), -1)[..., None])[..., 0]
    return conditional, marginal, -(taught * fixed).sum(1) / fixed.sum().clamp_min(1)


def train_pim(
    x: Float[Tensor, "n d"],
    known: Int[Tensor, " n"],
    start: Float[Tensor, "k d"],
    weights: Float[Tensor, "a 3"],
    *,
    steps: int = 120,
    lr: float = 0.01,
    scale: float = 25.0,
    decay: float = 1e-2,
) -> Float[Tensor, "a n k"]:
    """Linear classifiers, one an arm, trained in full batches by Adam from the same prototypes; returns their logits.

    Logits are ``scale`` · (W z): no bias, 25 as released, where it is 1,000 steps at a learning rate of 1e-3.

    start    prototypes, the first W: centroids of semi-supervised k-means
    weights  of H(Y|X), H(Y) and CE for each arm; (λ, 1, 1) is PIM

    Raises ValueError for scale or lr that is not positive.
    """
    check_positive(scale=scale, lr=lr)
    weights = weights.to(x)
    w = start.detach().expand(len(weights), -1, -1).clone().requires_grad_()
    adam = torch.optim.Adam([w], lr, weight_decay=decay, fused=True)
    for _ in range(allowed(steps)):
        conditional, marginal, taught = pim_terms(scale * torch.einsum("nd,akd->ank", x, w), known)
        loss = (weights[:, 0] * conditional - weights[:, 1] * marginal + weights[:, 2] * taught).sum()
        adam.zero_grad()
        loss.backward()
        adam.step()
    with torch.no_grad():
        return scale * torch.einsum("nd,akd->ank", x, w)


def pim_start(p: Problem, k: int, *, generator: Generator, restarts: int = 20) -> Float[Tensor, "k d"]:
    """The best of some semi-supervised k-means: PIM's first prototypes."""
    found = semi_supervised_kmeans(p.x, p.known, k, generator=generator, restarts=restarts)
    return found.centroids[found.best]


def choose_lambda(
    p: Problem,
    k: int,
    lambdas: tuple[float, ...] = LAMBDAS,
    *,
    generator: Generator,
    restarts: int = 20,
    most: float = 1.0,
    **options,
) -> tuple[float, list[float]]:
    """λ by the labelled rows alone: train without CE from k-means, score the clusters of the labelled rows.

    The λ with the highest Hungarian accuracy on labelled rows, the smallest of equals; 0.05 is tried and not chosen, as
    in the released code, and so are values above ``most``. Returns it and the accuracy of every λ. Options are those of
    ``train_pim``.
    """
    plain = many_kmeans(p.x, k, restarts=restarts, generator=generator)
    weights = torch.tensor([[lam, 1.0, 0.0] for lam in lambdas])
    free = torch.full_like(p.known, -1)
    clusters = train_pim(p.x, free, plain.centroids[plain.best], weights, **options).argmax(2)
    taught = p.labelled
    scores = [discovery_accuracy(c[taught], p.y[taught], p.old)["All"] for c in clusters]
    may = [i for i, lam in enumerate(lambdas) if 0.05 < lam <= most]
    return lambdas[max(may, key=lambda i: scores[i])], scores


def pim(
    p: Problem, k: int, lambdas: tuple[float, ...] = LAMBDAS, *, generator: Generator, restarts: int = 20, **options
) -> tuple[Int[Tensor, " n"], float]:
    """The whole method: find λ, train with it, return a cluster for every row and λ."""
    lam, _ = choose_lambda(p, k, lambdas, generator=generator, restarts=restarts, **options)
    start = pim_start(p, k, generator=generator, restarts=restarts)
    return train_pim(p.x, p.known, start, torch.tensor([[lam, 1.0, 1.0]]), **options)[0].argmax(1), lam


def soft_sizes(logits: Float[Tensor, "a n k"]) -> Float[Tensor, " a"]:
    """Entropy of the mean prediction over log k: 1 where all classes are as large."""
    mean = F.softmax(logits, 2).mean(1)
    return torch.special.entr(mean).sum(1) / torch.tensor(float(mean.shape[1])).log()
