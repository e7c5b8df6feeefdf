"""SelMix: fine-tune a classifier's last layer by mixup between those pairs of classes that raise a chosen metric
(Ramasubramanian et al., ICLR 2024).

All is a stack of b classifiers. ``confusion`` C (b, K, K) is a joint distribution, C_qm = P(y = q, predicted m), of a
validation set with as many samples of every class, so rows sum to 1/K. A metric is given by its slope M = dψ/dC.
"""

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

Stack = Float[Tensor, "b K K"]
MIX = (0.6, 1.0)  # the mixing weight is uniform between these


def confusion(logits: Float[Tensor, "b n K"], y: Int[Tensor, " n"], soft: bool = False) -> Stack:
    """C_qm = P(y = q, predicted m), every class weighing 1/K however many samples it has.

    soft  predictions by their softmax, as in the derivation; else by the largest logit, as in training
    """
    k = logits.shape[2]
    shown = logits.softmax(2) if soft else torch.nn.functional.one_hot(logits.argmax(2), k).to(logits.dtype)
    member = torch.nn.functional.one_hot(y, k).to(logits.dtype)
    return (member / member.sum(0).clamp_min(1) / k).mT @ shown


def recalls(c: Stack) -> Float[Tensor, "b K"]:
    """Recall of every class, C_qq / P(y = q)."""
    return c.diagonal(dim1=1, dim2=2) * c.shape[1]


def min_recall_slope(c: Stack, eta: float = 50.0) -> Stack:
    """dψ/dC for the worst recall: recalls weighed by multipliers ∝ exp(-eta recall), the paper's update with beta 0."""
    weight = (-eta * recalls(c)).softmax(1)
    return torch.diag_embed(weight * c.shape[1])


def coverage_slope(c: Stack, share: float = 0.95, most: float = 100.0, tau: float = 0.1) -> Stack:
    """dψ/dC for mean recall under the constraint that every class gets at least share/K of the predictions.

    A class that lies below by a relative shortfall s has the multiplier most (1 - exp(-s / tau)), one above has 0.
    """
    k = c.shape[1]
    short = (share / k - c.sum(1)).clamp_min(0) * k
    lam = most * (1 - (-short / tau).exp())
    return torch.eye(k, device=c.device, dtype=c.dtype) + lam[:, None, :]


def mean_slope(c: Stack, power: float) -> Stack:
    """dψ/dC for a power mean of the recalls: 1 the mean, 0 the G-mean, -1 the H-mean."""
    r = recalls(c).clamp_min(1e-2)
    mean = power_mean(r, power)
    return torch.diag_embed((r / mean[:, None]) ** (power - 1))  # K dψ/dr, and dψ/dr holds a 1/K


def power_mean(r: Float[Tensor, "b K"], power: float) -> Float[Tensor, " b"]:
    """The mean of recalls with exponent ``power``; 0 is the geometric mean, -1 the harmonic one."""
    return r.log().mean(1).exp() if power == 0 else r.pow(power).mean(1).pow(1 / power)


def logit_slope(c: Stack, m: Stack) -> Stack:
    """dψ/dA_ql, A_ql the logit of class l for samples of class q, through the softmax of the confusion matrix.

    dC_qm/dA_ql = C_qm (1[m = l] - K C_ql), the soft confusion's Jacobian with balanced classes.
    """
    return c * (m - c.shape[1] * (m * c).sum(2, keepdim=True))


def gains(
    means: Float[Tensor, "b K d"], weight: Float[Tensor, "b K d"], c: Stack, m: Stack, mix: float = sum(MIX) / 2
) -> Stack:
    """G_ij: the first-order change of the metric by one SGD step, of learning rate 1, on a mixup of classes i and j.

    means   class means of the features, a last column of ones standing for the bias
    weight  of the last layer, its bias in that column
    mix     share of class i, whose label the mixture carries alone; 0.8 is the mean of U(0.6, 1)

    z_ij = mix z_i + (1 - mix) z_j changes logit l of class q by D_ij(q, l) = (1[l = i] - p_l(z_ij)) z_ij·z_q, and
    G_ij = Σ_ql dψ/dA_ql D_ij(q, l). Departure from the released code, which takes z_i·z_q for z_ij·z_q beside the
    indicator: finite differences confirm the formula that stands here.
    """
    slope = logit_slope(c, m)
    mixed = mix * means[:, :, None] + (1 - mix) * means[:, None]  # (b, i, j, d)
    p = torch.einsum("bijd,bld->bijl", mixed, weight).softmax(3)
    near = torch.einsum("bijd,bqd->bijq", mixed, means)
    pull = slope.mT[:, :, None] - torch.einsum("bql,bijl->bijq", slope, p)  # (b, i, j, q)
    return (near * pull).sum(3)


def pair_shares(gain: Stack, temperature: float = 0.1) -> Stack:
    """P over pairs: softmax of the gains, those not above 0 left out; sums to 1. No positive gain: all pairs alike.

    Departure: gains are divided by the largest of them, so that the temperature does not depend on the features' scale.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    flat = gain.flatten(1)
    scale = flat.amax(1, keepdim=True).clamp_min(1e-20)
    logits = (flat / scale / temperature).masked_fill(flat <= 0, -torch.inf)
    none = (flat <= 0).all(1, keepdim=True)
    return torch.where(none, torch.zeros_like(flat), logits).softmax(1).view_as(gain)


def class_means(z: Float[Tensor, "b n d"], y: Int[Tensor, " n"], k: int) -> Float[Tensor, "b K d"]:
    """Mean feature of every class."""
    member = torch.nn.functional.one_hot(y, k).to(z.dtype)
    return (member / member.sum(0).clamp_min(1)).mT @ z


def selective(slope, temperature: float = 0.1):
    """SelMix's policy for a metric: pairs by their gains, ``slope`` being C -> dψ/dC."""
    return lambda means, weight, c: pair_shares(gains(means, weight, c, slope(c)), temperature)


def worst_first(eta: float = 50.0):
    """A policy without gains: class i by the same multipliers exp(-eta recall), its partner any class.

    Without mixing it is cost-sensitive training of the last layer, the theory-based rival.
    """
    return lambda means, weight, c: (-eta * recalls(c)).softmax(1)[:, :, None].expand_as(c) / c.shape[1]


def fine_tune(
    weight: Float[Tensor, "b K d"], z: Float[Tensor, "b n d"], y: Int[Tensor, " n"], held: Float[Tensor, "b v d"],
    y_held: Int[Tensor, " v"], policy=None, *, steps: int, lr: float, generator: Generator, batch: int = 64,
    every: int = 50, mix: tuple[float, float] = MIX, trace: list | None = None,
) -> Float[Tensor, "b K d"]:  # fmt: skip
    """The last layers after ``steps`` of SGD, cosine schedule, on mixtures of features of classes (i, j) ~ P.

    z, y     training features and labels, the same labels for all classifiers, sorted by class; last column ones
    held     validation features, from which C, the gains and P are taken anew ``every`` steps
    policy   (class means, weights, C) -> P (b, K, K), such as ``selective(slope)``; None draws all pairs alike (the
             ablation: uniform mixup)
    mix      range of the share of the sample whose label counts; (1, 1) mixes nothing
    trace    gets (step, weights) at every refresh

    Algorithm 1. The features stay, which is the case that the theory covers; the paper fine-tunes the backbone too,
    with BatchNorm frozen. No momentum, no decay.

    Raises ValueError for labels that are not sorted.
    """
    if len(y) > 1 and bool((y.diff() < 0).any()):
        raise ValueError("y must be sorted by class")
    b, k, _ = weight.shape
    counts = torch.bincount(y, minlength=k)
    first = counts.cumsum(0) - counts
    weight, which = weight.clone(), torch.arange(b, device=z.device)[:, None]
    shares = weight.new_full((b, k * k), 1 / k**2)
    means = class_means(held, y_held, k)
    for step in range(steps):
        if step % every == 0:
            if policy is not None:
                shares = policy(means, weight, confusion(held @ weight.mT, y_held)).flatten(1)
            if trace is not None:
                trace.append((step, weight.clone()))
        pair = torch.multinomial(shares, batch, replacement=True, generator=generator)
        i, j = pair // k, pair % k
        one, two = (torch.rand(2, b, batch, generator=generator, device=z.device) * counts[torch.stack([i, j])]).long()
        part = mix[0] + (mix[1] - mix[0]) * torch.rand(b, batch, 1, generator=generator, device=z.device)
        mixed = part * z[which, first[i] + one] + (1 - part) * z[which, first[j] + two]
        off = (mixed @ weight.mT).softmax(2) - torch.nn.functional.one_hot(i, k)
        rate = lr * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * step / steps)))
        weight -= rate / batch * off.mT @ mixed
    if trace is not None:
        trace.append((steps, weight.clone()))
    return weight
