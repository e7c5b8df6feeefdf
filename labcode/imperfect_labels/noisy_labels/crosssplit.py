"""CrossSplit: two networks on two halves, each correcting the labels of the half that it has never been taught.

Kim et al. 2023, *CrossSplit: Mitigating Label Noise Memorization through Data Splitting*.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ...loss import check_positive, raised
from ...nets.stacked import take
from ..training import cross_entropy, predict
from ..views import mix, mixing
from .bootstrapping import uniform_prior
from .contrastive import nt_xent
from .stage import Images, Stage, learn, rounds


def label_divergence(q: Float[Tensor, "*any k"], labels: Int[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """Jensen-Shannon divergence of a prediction and a one-hot label, in bits: 0 … 1 (equation 2).

    With the label's probability p it is 1 - ((1 + p) log2(1 + p) - p log2 p) / 2: nothing else of q matters.
    """
    p = raised(q).gather(-1, labels.long()[..., None])[..., 0].clamp(0, 1)
    return 1 - ((1 + p) * torch.log2(1 + p) - torch.xlogy(p, p) / torch.log(torch.tensor(2.0))) / 2


def mixing_weight(
    divergence: Float[Tensor, "n N"], labels: Int[Tensor, "n N"], classes: int, gamma: float = 1.0,
    by_class: bool = True,
) -> Float[Tensor, "n N"]:  # fmt: skip
    """How much of the target is the peer's prediction: the divergence, brought to 0 … 1 within each given label.

    gamma     draws the weights towards one half: (b - 0.5) gamma + 0.5; in [0, 1]
    by_class  least and largest divergence of the samples with the same given label (equation 3); else of all samples

    A class of one value gets weight 0 before gamma. Raises ValueError for gamma out of range.
    """
    if not 0 <= gamma <= 1:
        raise ValueError(f"gamma must be in [0, 1], got {gamma}")
    group = labels.long() if by_class else torch.zeros_like(labels).long()
    low = torch.full((len(labels), classes), torch.inf, dtype=divergence.dtype, device=labels.device)
    high = -low
    low = low.scatter_reduce(1, group, divergence, "amin").gather(1, group)
    high = high.scatter_reduce(1, group, divergence, "amax").gather(1, group)
    b = ((divergence - low) / (high - low).clamp_min(1e-8)).clamp(0, 1)
    return (b - 0.5) * gamma + 0.5


def sharpen(p: Float[Tensor, "*any k"], temperature: float = 0.5) -> Float[Tensor, "*any k"]:
    """p^(1/T) brought back to sum 1. Raises ValueError for a temperature that is not positive."""
    check_positive(temperature=temperature)
    return (raised(p).clamp_min(1e-12).log() / temperature).softmax(-1)


def corrected(
    labels: Float[Tensor, "*any k"], q: Float[Tensor, "*any k"], b: Float[Tensor, "*any"], temperature: float = 0.5
) -> Float[Tensor, "*any k"]:
    """The target s = sharpen(b q + (1 - b) y) (equation 4); y is one-hot, q the peer's prediction."""
    return sharpen(torch.lerp(labels, q.detach().to(labels.dtype), b[..., None].to(labels.dtype)), temperature)


@dataclass(frozen=True)
class Split:
    """One way to correct labels: the paper's, or the paper's without a part.

    halves    each network is taught the labels of one half only; else both see all labels, as in the released code
    source    whose prediction corrects: "peer", "self", or "none" for the labels as they are given
    ssl       the other half is used without its labels, and the contrastive term with it
    by_class  divergences are normalised within each given label
    """

    halves: bool = True
    source: str = "peer"
    ssl: bool = True
    by_class: bool = True


SPLITS = {
    "CrossSplit": Split(), "no split": Split(halves=False), "self": Split(source="self"),
    "no unlabelled half": Split(ssl=False), "labels as given": Split(source="none"),
    "not by class": Split(by_class=False),
}  # fmt: skip


def learn_crosssplit(
    stage: Stage, images: Images, labels: Int[Tensor, "d N"], seed: int, arms: dict[str, Split], *, epochs: int,
    warm: float = 0.2, batch: int = 64, lamu: float = 5.0, contrast: float = 0.025, tau: float = 0.05,
) -> dict:  # fmt: skip
    """Train all arms, two networks each a draw, in one stack.

    epochs  passes over a half
    warm    share of the epochs with cross-entropy on the network's own labels and nothing else
    lamu    weight of the squared error on the unlabelled half, reached over a third of the epochs
    contrast, tau  weight and temperature of SimCLR's loss on two strong views of the unlabelled half

    A step: labelled and unlabelled strong views are mixed by MixMatch (Beta(4, 4), λ at least a half); cross-entropy to
    corrected targets + lamu · squared error to the sharpened mean of the network's own two weak views + contrast ·
    SimCLR + KL(uniform || mean prediction). Returns by arm "accuracy" (logits of the pair added), "memorised" (share of
    the wrong labels that the network which gives the target agrees with), "fitted" (… that the network taught with them
    agrees with), "track": memorised after each epoch, "at the start": when
    correction begins, and "targets": share of the wrong labels whose target is the truth.

    Departs from the paper: peers and own predictions are taken once an epoch, not every step; warm-up on the own half,
    without views (the released loaders hand both networks the whole set); λu is 5, not 30, for a short training.
    """
    d, count = labels.shape
    names, half = list(arms), count // 2
    n, device = 2 * len(arms) * d, labels.device  # network 2i and 2i + 1 are a pair
    g = stage.generator(seed, 71)
    net = stage.net(n, hidden=(128, 64) if stage.channels == 1 else (), generator=g, same=2 * d)
    pairs = labels.repeat(len(arms), 1).repeat_interleave(2, 0)
    one_hot = F.one_hot(pairs, stage.classes).float()

    def each(of) -> Tensor:
        return torch.tensor([of(a) for a in arms.values()], device=device).repeat_interleave(2 * d)

    halves, ssl = each(lambda a: a.halves), each(lambda a: a.ssl).float()
    peer, given = each(lambda a: a.source == "peer"), each(lambda a: a.source == "none")
    by_class = each(lambda a: a.by_class)
    total, swap = rounds(epochs, half, batch), torch.arange(n, device=device) ^ 1
    start = max(1, round(warm * total))
    parts = torch.stack([torch.randperm(count, generator=g, device=device) for _ in range(d)]).repeat(len(arms), 1)
    own = torch.stack([parts[:, :half], parts[:, half : 2 * half]], 1).flatten(0, 1)
    target, guess, mine, track = one_hot.clone(), one_hot.clone(), own.clone(), []

    def other(rows: Tensor) -> Tensor:
        return rows[swap]

    def loss(rows: Tensor, epoch: int) -> Tensor:
        at = mine.gather(1, rows)
        x = take(images.x, at, own=False)
        if epoch < start:
            return cross_entropy(net(x), take(pairs, at, own=True))
        elsewhere = other(mine).gather(1, rows)
        u = stage.views(torch.cat([take(images.x, elsewhere, own=False)] * 2, 1), g)
        y = torch.cat([take(target, at, own=True), take(guess, elsewhere, own=True)], 1)
        m = rows.shape[1]
        both = torch.cat([stage.views(x, g), u[:, :m]], 1)
        share, partner = mixing(n, 2 * m, 4.0, generator=g, first=True)
        within = partner[:, :m] % m
        partner = torch.where(ssl[:, None] > 0, partner, torch.cat([within, within + m], 1))
        mixed, y = mix(both, share, partner), mix(y, share, partner)
        f = net.features(torch.cat([mixed, u], 1))
        logits = net.head(f[:, : 2 * m])
        ramp = min(1.0, (epoch - start) / max(1, total / 3))
        labelled, unlabelled = logits[:, :m], logits[:, m : 2 * m]
        squared = ((raised(unlabelled).softmax(-1) - y[:, m:]) ** 2).mean((1, 2))
        value = cross_entropy(labelled, y[:, :m]) + (lamu * ramp * ssl * squared).sum()
        value = value + uniform_prior(labelled).sum()
        return value + contrast * _contrast(f[:, 2 * m :], ssl, tau)

    def after(epoch: int) -> None:
        nonlocal mine
        if epoch >= start - 1:
            q = (predict(net, stage.views(images.x, g, False)) + predict(net, stage.views(images.x, g, False))) / 2
            step = (epoch - start) / max(1, total - start)
            gamma = 0.6 if step < 0.3 else 0.8 if step < 0.5 else 1.0
            source = torch.where(peer[:, None, None], q[swap], q)
            off = label_divergence(source, pairs)
            b = torch.where(by_class[:, None], mixing_weight(off, pairs, stage.classes, gamma),
                            mixing_weight(off, pairs, stage.classes, gamma, False))  # fmt: skip
            b = torch.where(given[:, None], torch.zeros_like(b), b)
            target.copy_(corrected(one_hot, source, b))
            guess.copy_(sharpen(q))
        anew = torch.stack([torch.randperm(count, generator=g, device=device) for _ in range(n // 2)])
        anew = torch.stack([anew[:, :half], anew[:, half : 2 * half]], 1).flatten(0, 1)
        mine = torch.where(halves[:, None], own, anew)
        track.append(_agree(net, images, pairs, own, halves, peer, swap)[0])

    learn(net, loss, half, networks=n, epochs=epochs, generator=g, batch=batch, streams=2 * d, after=after)
    giver, fitted = _agree(net, images, pairs, own, halves, peer, swap)
    logits = predict(net, stage.test.x).clamp_min(1e-12).log()
    answers = (logits[0::2] + logits[1::2]).argmax(-1)
    accuracy = (answers == stage.test.y).double().mean(1)
    wrong = pairs != images.y
    mended = ((target.argmax(-1) == images.y) & wrong).sum(1) / wrong.sum(1).clamp_min(1)

    def arm(values: Tensor) -> dict:
        per = len(values) // len(names)
        return {name: float(values[i * per : (i + 1) * per].double().mean()) for i, name in enumerate(names)}

    told = {"accuracy": arm(accuracy), "memorised": arm(giver), "fitted": arm(fitted), "targets": arm(mended)}
    told["at the start"] = arm(track[min(start, len(track)) - 1])
    return told | {"track": {name: [arm(v)[name] for v in track] for name in names}}


def _contrast(f: Tensor, ssl: Tensor, tau: float) -> Tensor:
    """SimCLR's loss on the features of two strong views, of the networks that use the unlabelled half."""
    used = [i for i, on in enumerate(ssl.tolist()) if on]
    return nt_xent(f[used], tau) if used else f.sum() * 0


@torch.no_grad()
def _agree(net, images: Images, pairs: Tensor, own: Tensor, halves: Tensor, peer: Tensor, swap: Tensor):
    """Of the wrong labels of a network's own half: the share that who gives their target agrees with, and the share
    that the network itself does."""
    said = predict(net, images.x).argmax(-1)
    wrong = (pairs != images.y).gather(1, own)
    given = pairs.gather(1, own)
    source = torch.where(peer[:, None], said[swap], said).gather(1, own)
    count = wrong.sum(1).clamp_min(1)
    return ((source == given) & wrong).sum(1) / count, ((said.gather(1, own) == given) & wrong).sum(1) / count
