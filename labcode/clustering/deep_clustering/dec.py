"""DEC (Xie, Girshick and Farhadi, 2016): clusters that sharpen themselves, in a code learnt by an autoencoder."""

import copy
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from ...loss import check_matrix, check_positive, float32
from .autoencoder import Autoencoder, descend, pretrain
from .common import best_kmeans

Rows = Float[Tensor, "n d"]
Soft = Float[Tensor, "n k"]


@float32
def student_t(z: Float[Tensor, "n d"], centres: Float[Tensor, "k d"], alpha: float = 1.0) -> Float[Tensor, "n k"]:
    """Soft assignments q_ij ∝ (1 + ‖z_i - μ_j‖² / α)^(-(α + 1) / 2), rows of sum 1: the kernel of t-SNE.

    DEC, eq. 1. Of the codes z to the centres μ; α > 0 is fixed at 1 in the paper, and a large one is a Gaussian.

    Raises ValueError for centres of another width, none, and alpha that is not positive.
    """
    check_matrix("z", z, rows=0)
    check_matrix("centres", centres)
    check_positive(alpha=alpha)
    if z.shape[1] != centres.shape[1]:
        raise ValueError(f"centres must be as wide as z, {z.shape[1]}, got {centres.shape[1]}")
    distance = torch.cdist(z, centres, compute_mode="donot_use_mm_for_euclid_dist").square()
    return (-(alpha + 1) / 2 * torch.log1p(distance / alpha)).softmax(1)


def target_distribution(q: Soft, frequency: bool = True) -> Soft:
    """The sharper targets p_ij ∝ q_ij² / f_j with f_j = Σ_i q_ij, rows of sum 1; no gradient.

    DEC, eq. 3. Of *all* samples: f is the soft size of a cluster in the whole set, so that large clusters do not
    swallow the small ones.

    frequency  False leaves the division out: the ablation
    """
    q = q.detach()
    weight = q.square() / q.sum(0).clamp_min(1e-12) if frequency else q.square()
    return weight / weight.sum(1, keepdim=True).clamp_min(1e-30)


@float32
def dec_loss(q: Float[Tensor, "n k"], p: Float[Tensor, "n k"]) -> Float[Tensor, ""]:
    """Mean over the rows of KL(p ‖ q), natural logarithm: DEC, eq. 2, over a batch.

    Rows of both are distributions; q is kept above 1e-12. Departure: the mean over samples, where the paper writes the
    sum, so that a rate does not depend on the batch, as in the released code.
    """
    check_matrix("q", q)
    check_matrix("p", p, like=q)
    q, p = q.clamp(1e-12, 1e12), p.clamp(0, 1e12)
    return (torch.special.entr(p).neg() - p * q.log()).sum(1).mean()


@dataclass
class Refined:
    """What a clustering left behind."""

    clusters: Int[Tensor, " n"]
    encoder: nn.Module
    centres: Float[Tensor, "k d"]
    history: list[Int[Tensor, " n"]]  # the clusters at every refresh of the targets, the first before any step
    changed: list[float]  # share of samples that changed their cluster since the refresh before


def refine(
    encoder: nn.Module, x: Rows, centres: Float[Tensor, "k d"], *, generator: Generator, steps: int = 400,
    every: int = 40, lr: float = 0.1, batch_size: int = 256, frequency: bool = True, frozen: bool = False,
    tolerance: float = 0.0,
) -> Refined:  # fmt: skip
    """DEC's second stage on copies of encoder and centres: SGD on KL(P ‖ Q), P refreshed now and then.

    every      steps between two refreshes of the targets over the whole set: 160, 40 and 20 for the paper's data sets
    frozen     only the centres move: the paper's ablation "DEC w/o backprop"
    tolerance  stop once fewer samples than this share have changed their cluster between two refreshes; 0.001 there.
               Here 0, so that all arms take the same steps

    Momentum 0.9; the paper's rate is 0.01 for many more steps than a minute has.
    """
    encoder, centres = copy.deepcopy(encoder), centres.detach().clone().requires_grad_()
    history, changed, held = [], [], {}

    def refresh() -> None:
        with torch.no_grad():
            q = student_t(encoder(x), centres)
        held["p"] = target_distribution(q, frequency)
        history.append(q.argmax(1))
        if len(history) > 1:
            changed.append(float((history[-1] != history[-2]).float().mean()))
            held["done"] = changed[-1] < tolerance

    def loss(b, step):
        if step % every == 0 and not held.get("done"):
            refresh()
        value = dec_loss(student_t(encoder(x[b]), centres), held["p"][b])
        return 0 * value if held.get("done") else value

    moved = [centres] if frozen else [centres, *encoder.parameters()]
    descend(moved, loss, len(x), generator=generator, steps=steps, lr=lr, optimizer="sgd", batch_size=batch_size)
    refresh()
    return Refined(history[-1], encoder, centres.detach(), history, changed)


def pull_by_certainty(encoder: nn.Module, centres: Float[Tensor, "k d"], x: Rows, frequency: bool = True) -> float:
    """Rank correlation of certainty q_ij and the gradient of cluster j's term in z_i, over that cluster's samples.

    DEC, figure 5, for the largest cluster j. Above 0, certain samples pull more than uncertain ones, which keeps
    mistakes from feeding on themselves. Targets are those of the whole set.
    """
    with torch.no_grad():
        z = encoder(x)
    z.requires_grad_()
    q = student_t(z, centres)
    p, which = target_distribution(q, frequency), q.detach().argmax(1)
    j = int(which.bincount(minlength=len(centres)).argmax())
    slope = torch.autograd.grad((p[:, j] * (p[:, j] / q[:, j]).log()).sum(), z)[0].norm(dim=1)
    ranks = [v.detach()[which == j].argsort().argsort().double() for v in (q[:, j], slope)]
    return float(torch.corrcoef(torch.stack(ranks))[0, 1])


def scaled(x: Rows) -> Rows:
    """x with mean squared entry 1, which is how DEC brings data of all kinds to one learning rate."""
    return x / x.square().mean().sqrt().clamp_min(1e-12)


def dec_clusters(x: Rows, k: int, *, generator: Generator, views=None, steps: int = 200, batch_size: int = 256,
                 hidden: int = 128, code: int = 10) -> Int[Tensor, " n"]:  # fmt: skip
    """DEC from end to end on rows x: half of the steps for the autoencoder, half for the clusters; (n,) labels."""
    x = scaled(x)
    torch.manual_seed(generator.initial_seed() % 2**31)
    net = Autoencoder([x.shape[1], hidden, code]).to(x.device)
    pretrain(net, x, generator=generator, steps=steps // 2)
    with torch.no_grad():
        z = net(x)
    centres, _ = best_kmeans(z, k, generator.initial_seed() % 1000)
    rest = dict(steps=steps - steps // 2, every=20, batch_size=batch_size)
    return refine(net, x, centres, generator=generator, **rest).clusters
