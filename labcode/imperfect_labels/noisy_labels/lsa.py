"""Web noise: a linear separator finds foreign images, small losses find simple clean ones; PLS-LSA takes turns.

Albert et al. 2024, *An accurate detection is not all you need to combat label noise in web-noisy datasets*.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ...loss import raised, unit_rows
from ...nets.stacked import take
from ..measures import auroc, detection
from ..training import accuracies, cross_entropy, predict
from ..views import mix, mixing
from .bootstrapping import uniform_prior
from .contrastive import balanced_separator
from .mixtures import fit_two
from .robust import by_arm, generalised_cross_entropy, per_sample, repeated
from .stage import Images, Stage, learn, rounds


def min_max(loss: Float[Tensor, "n N"]) -> Float[Tensor, "n N"]:
    """Each row brought to 0 … 1; a constant row becomes 0."""
    low, high = loss.amin(1, keepdim=True), loss.amax(1, keepdim=True)
    return (loss - low) / (high - low).clamp_min(1e-12)


def by_small_loss(
    loss: Float[Tensor, "n N"], threshold: float = 0.95
) -> tuple[Bool[Tensor, "n N"], Float[Tensor, "n N"]]:
    """PLS's detection: noisy where the high mode of a Gaussian mixture of the losses has a posterior above 0.95.

    Returns the answers and the posteriors. Departs from the released code in clipping at the 98th percentile: one huge
    loss among a thousand would else be a mode of its own.
    """
    x = min_max(torch.minimum(loss, torch.quantile(loss, 0.98, dim=1, keepdim=True)))
    p = fit_two(x, "gaussian").high(x).float()
    return p > threshold, p


def pseudo_weights(pseudo_loss: Float[Tensor, "n N"], noisy: Bool[Tensor, "n N"]) -> Float[Tensor, "n N"]:
    """How far to trust the guessed label of each detected sample: the low mode's posterior of a Gaussian mixture of the
    detected samples' pseudo-losses alone. 1 for what was not detected, and where fewer than three were."""
    weight = torch.ones_like(pseudo_loss, dtype=torch.float32)
    for i, detected in enumerate(noisy):
        if int(detected.sum()) > 2:
            x = min_max(pseudo_loss[i, detected][None])
            weight[i, detected] = 1 - fit_two(x, "gaussian").high(x)[0].float()
    return weight


def mixed_supervised_contrast(
    f1: Float[Tensor, "n b f"], f2: Float[Tensor, "n b f"], classes: Int[Tensor, "n b"], share: Float[Tensor, "n 1"],
    partner: Int[Tensor, "n b"], mu: float = 0.2,
) -> Float[Tensor, ""]:  # fmt: skip
    """Supervised contrast of mixed images f1 with plain views f2, summed over the networks.

    A row's positives are the views of its class with share λ and of its partner's class with share 1 - λ; the loss is
    cross-entropy over the batch to the mean over the positives, at temperature mu.
    """
    logits = unit_rows(raised(f1)) @ unit_rows(raised(f2)).mT / mu
    alike = (classes[:, :, None] == classes[:, None]).to(logits.dtype)
    alike = alike / alike.sum(-1, keepdim=True)
    target = mix(alike, share, partner)
    return -(target * logits.log_softmax(-1)).sum(-1).mean(-1).sum()


SCHEDULES = {
    "loss only": ("loss",), "linear only": ("linear",), "alternating": ("linear", "loss"), "no detection": ("none",),
}  # fmt: skip


def learn_lsa(
    stage: Stage, images: Images, labels: Int[Tensor, "d N"], foreign: Bool[Tensor, " N"], start, seed: int, *,
    epochs: int, contrast: float = 1.0, batch: int = 64, lr: float = 2e-3,
) -> dict:  # fmt: skip
    """PLS with three ways to detect and none, cross-entropy and GCE, all from the same contrastive start, in one stack.

    images   y is -1 for foreign ones
    start    a SimCLR network whose body is copied; None begins at random
    epochs   after each of them every training image gets a loss and a detection

    After an epoch: losses; their Gaussian mixture splits (``by_small_loss``); in a linear turn a separator is fitted on
    this split (``balanced_separator``, first hidden layer, rows of length 1) and its answer taken. Detected images keep
    in training with the network's own sharpened answer as target, weighed by ``pseudo_weights``. Step: mixup (one λ a
    batch, at least a half), weighted cross-entropy + ``mixed_supervised_contrast`` + the uniform prior.

    Returns by arm "accuracy", and detection of the last two epochs: "AUROC foreign", "precision", "recall", "F1" of
    wrong labels; for the loss-only arm at the end "scores": linear and small-loss posteriors, the flags, the losses.
    Departs: guesses are taken once an epoch from one weak view; AdamW; the projection is the last hidden layer.
    """
    d, count = labels.shape
    names = [*SCHEDULES, "cross-entropy", "GCE"]
    m, n, device = len(SCHEDULES) * d, len(names) * d, labels.device
    g = stage.generator(seed, 81)
    hidden = (256, 128) if stage.channels == 1 else ()
    net = stage.net(n, hidden=hidden, generator=g, same=d)
    if start is not None:
        with torch.no_grad():
            theirs = [start.body] if stage.channels == 1 else [start.body[0]] * n
            for mine, other in zip([net.body] if stage.channels == 1 else net.body, theirs, strict=True):
                for a, b in zip(mine.state_dict().values(), other.state_dict().values(), strict=True):
                    a.copy_(b)
    all_labels, wrong = repeated(labels, len(names)), labels != images.y
    one_hot = F.one_hot(all_labels[:m], stage.classes).float()
    target, weight = one_hot.clone(), torch.ones(m, count, device=device)
    total = rounds(epochs, count, batch)
    turns = [turn for turn in SCHEDULES.values() for _ in range(d)]
    never = torch.tensor([turn == ("none",) for turn in turns], device=device)[:, None]
    found, told = [], {}

    def intermediate(x: Tensor) -> Tensor:
        with torch.no_grad():
            net.eval()
            f = net.body[2](net.body[1](net.body[0](x)))[:m] if stage.channels == 1 else net.features(x)[:m]
            net.train()
        return unit_rows(f)

    def loss(rows: Tensor, epoch: int) -> Tensor:
        x = take(images.x, rows, own=False)
        x1, y = stage.views(x, g, False), take(all_labels, rows, own=True)
        first = rows[:m]
        share, partner = mixing(m, rows.shape[1], 1.0, generator=g, first=True)
        t, w = take(target, first, own=True), take(weight, first, own=True)
        w = w / w.mean(1, keepdim=True).clamp_min(1e-6)
        mixed = torch.cat([mix(stage.views(x[:m], g, False), share, partner), x1[m:]])
        f = net.features(torch.cat([mixed, x1], 1))
        f, plain = f.chunk(2, 1)
        logits = net.head(f)
        soft = mix(t * w[..., None], share, partner)
        value = -(soft * raised(logits[:m]).log_softmax(-1)).sum(-1).mean(1).sum() + uniform_prior(logits[:m]).sum()
        value = value + contrast * mixed_supervised_contrast(f[:m], plain[:m], t.argmax(-1), share, partner)
        value = value + cross_entropy(logits[m : m + d], y[m : m + d])
        return value + generalised_cross_entropy(logits[m + d :], y[m + d :])

    def after(epoch: int) -> None:
        p = predict(net, images.x)[:m]
        losses = per_sample(p.clamp_min(1e-12).log(), all_labels[:m])
        small, posterior = by_small_loss(losses)
        now = torch.tensor([turn[epoch % len(turn)] == "linear" for turn in turns], device=device)[:, None]
        linear, used = posterior.clone(), [i for i, on in enumerate(now[:, 0].tolist()) if on]
        if epoch == total - 1:
            used = sorted({*range(d), *used})
        if used:
            places = torch.tensor(used, device=device)
            f = intermediate(images.x).index_select(0, places)
            linear.index_copy_(0, places, balanced_separator(f, small.index_select(0, places)))
        noisy = torch.where(now, linear > 0.5, small) & ~never
        said = predict(net, stage.views(images.x, g, False))[:m] ** 2
        said = said / said.sum(-1, keepdim=True)
        pseudo = -(said * p.clamp_min(1e-12).log()).sum(-1)
        weight.copy_(pseudo_weights(pseudo, noisy))
        target.copy_(torch.where(noisy[..., None], said, one_hot))
        score = torch.where(now, linear, posterior)
        found.append((noisy, score))
        told["scores"] = {"linear": linear[:d], "loss": losses[:d], "small": small[:d], "separated": linear[:d] > 0.5}

    learn(net, loss, count, networks=n, epochs=epochs, generator=g, batch=batch, lr=lr, streams=d, after=after)
    told["accuracy"] = by_arm(accuracies(net, stage.test.x, stage.test.y), names)
    off = wrong.repeat(len(SCHEDULES), 1)
    last = [detection(noisy, off) for noisy, _ in found[-2:]]
    for name in ("precision", "recall", "F1"):
        told[name] = by_arm((sum(one[name] for one in last) / len(last)).tolist(), list(SCHEDULES))
    area = sum(auroc(score, foreign) for _, score in found[-2:]) / len(found[-2:])
    told["AUROC foreign"] = by_arm(area.tolist(), list(SCHEDULES))
    return told


def ranks_agree(a: Float[Tensor, "d N"], b: Float[Tensor, "d N"]) -> float:
    """Spearman's correlation of two scores, mean over the draws; ties in order of their place."""
    ra, rb = (x.argsort(1).argsort(1).double() for x in (a, b))
    ra, rb = ra - ra.mean(1, keepdim=True), rb - rb.mean(1, keepdim=True)
    return float(((ra * rb).sum(1) / (ra.square().sum(1) * rb.square().sum(1)).sqrt()).mean())
