"""Dynamic bootstrapping: a mixture of two betas says how much to trust each label, mixup keeps the rest honest.

Arazo et al. 2019, *Unsupervised Label Noise Modeling and Loss Correction*.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ...loss import raised
from ...nets.stacked import take
from ..measures import auroc, detection
from ..training import accuracies, cross_entropy, predict
from ..views import mix, mixing
from .mixtures import fit_two, normalised
from .robust import by_arm, per_sample, repeated
from .stage import Images, Stage, learn, rounds


def bootstrapped(
    labels: Float[Tensor, "n b k"], said: Float[Tensor, "n b k"], w: Float[Tensor, "n b"]
) -> Float[Tensor, "n b k"]:
    """(1 - w) y + w z (equations 7 and 8): the target where w is the probability that the label y is wrong.

    said  z: what the network says, one-hot ("hard") or softmax ("soft"); no gradient goes into it
    """
    return torch.lerp(labels, said.detach(), w[..., None])


def uniform_prior(logits: Float[Tensor, "n b k"]) -> Float[Tensor, " n"]:
    """Sum over classes of (1/k) log((1/k) / mean p): KL of the uniform prior from the batch's mean prediction.

    Equation 11's regulariser, against all samples going to one class. Not negative. One value a network.
    """
    mean = raised(logits).softmax(-1).mean(1).clamp_min(1e-12)
    k = logits.shape[-1]
    return -(mean * k).log().mean(-1)


def mixing_shares(w: Float[Tensor, "n b"], partner: Int[Tensor, "n b"]) -> Float[Tensor, "n b"]:
    """Dynamic mixup (MD, section 3.4): a pair is mixed in proportion to how probably each label is right."""
    right = 1 - w
    other = right.gather(1, partner)
    return (right + 1e-4) / (right + other + 2e-4)


@dataclass(frozen=True)
class Arm:
    """One way to train: what is mixed, and how much of the target is the network's own answer.

    mixup    "none", "fixed" (λ from Beta(32, 32), nearly one half) or "dynamic" (``mixing_shares``)
    weight   "none", "static" (w = ``share`` for all) or "dynamic" (the beta mixture's posterior)
    hard     z is the most probable class; otherwise the softmax, sharpened from temperature 1 to 0.05 as training goes
    prior    weight of ``uniform_prior``
    share    the static w
    """

    mixup: str = "none"
    weight: str = "none"
    hard: bool = True
    prior: float = 0.0
    share: float = 0.2


ARMS = {
    "cross-entropy": Arm(),
    "mixup": Arm("fixed"),
    "static": Arm(weight="static"),
    "dynamic": Arm(weight="dynamic", prior=1.0),
    "dynamic, mixup": Arm("fixed", "dynamic", prior=1.0),
    "no prior": Arm("fixed", "dynamic"),
    "soft": Arm("fixed", "dynamic", hard=False, prior=1.0),
    "MD-DYR-SH": Arm("dynamic", "dynamic", hard=False, prior=1.0),
}


def learn_bootstrapped(
    stage: Stage, images: Images, labels: Int[Tensor, "d N"], seed: int, arms: dict[str, Arm], *, epochs: int,
    switch: float = 1 / 3, **how,
) -> dict:  # fmt: skip
    """Train every arm on every draw in one stack; up to the share ``switch`` of the epochs labels are taken as given.

    Returns {"last", "best": test accuracies, arm by arm; "track": accuracies after each epoch; "AUROC", "F1",
    "log-likelihood" of the mixtures at the switch on the first arm's losses, for "beta" and "gaussian"; "posterior",
    "wrong" (N,) at the switch for the first draw; "memorised"; "largest class": its share of the
    predictions}. Departs from the released code: one extra forward pass gives z and no second one; AdamW.
    """
    d, count = labels.shape
    names, all_labels = list(arms), repeated(labels, len(arms))
    n = len(all_labels)
    g = stage.generator(seed, 31)
    net = stage.net(n, generator=g, same=d)

    def each(of) -> Tensor:
        return torch.tensor([of(a) for a in arms.values()], device=labels.device).repeat_interleave(d)

    fixed, dynamic_mix = each(lambda a: a.mixup == "fixed"), each(lambda a: a.mixup == "dynamic")
    dynamic, hard = each(lambda a: a.weight == "dynamic"), each(lambda a: a.hard)
    prior, static = each(lambda a: a.prior), each(lambda a: a.share if a.weight == "static" else 0.0)
    total = rounds(epochs, count, how.get("batch", 64))
    begin, track, told, wrong = max(1, round(switch * total)), [], {}, labels != images.y
    w_all = torch.zeros(n, count, device=labels.device)

    def loss(rows: Tensor, epoch: int) -> Tensor:
        x, y = take(images.x, rows, own=False), F.one_hot(take(all_labels, rows, own=True), stage.classes).float()
        share, partner = mixing(n, rows.shape[1], 32.0, generator=g)
        on = epoch >= begin
        w = take(w_all, rows, own=True)
        share = torch.where(fixed[:, None], share, torch.ones_like(share)).expand(rows.shape)
        if on:
            share = torch.where(dynamic_mix[:, None], mixing_shares(w, partner), share)
        elif bool(dynamic_mix.any()):
            share = torch.where(dynamic_mix[:, None], torch.full_like(share, 0.5), share)
        if on:
            with torch.no_grad():
                z = net(x)
            sharp = 1.0 + (0.05 - 1.0) * (epoch - begin) / max(1, total - begin)
            said = F.one_hot(z.argmax(-1), stage.classes).float()
            said = torch.where(hard[:, None, None], said, (z / sharp).softmax(-1))
            y = bootstrapped(y, said, w)
        logits = net(mix(x, share, partner))
        weight = prior if on else torch.zeros_like(prior)
        return cross_entropy(logits, mix(y, share, partner)) + (weight * uniform_prior(logits)).sum()

    def after(epoch: int) -> None:
        track.append(torch.tensor(accuracies(net, stage.test.x, stage.test.y)))
        if epoch < begin - 1:
            return
        x = normalised(per_sample(predict(net, images.x).clamp_min(1e-12).log(), all_labels))
        beta = fit_two(x)
        found = beta.looked_up(x).float()
        w_all.copy_(torch.where(dynamic[:, None], found, static[:, None].expand_as(found)))
        if epoch == begin - 1:
            normal, mixed = fit_two(x[:d], "gaussian"), bool((wrong.any(1) & ~wrong.all(1)).all())
            for name, bumps, p in (("beta", beta, found[:d]), ("gaussian", normal, normal.high(x[:d]))):
                told["log-likelihood", name] = float(bumps.log_likelihood(x[: len(bumps.a)])[:d].mean())
                told["F1", name] = float(detection(p > 0.5, wrong)["F1"].mean())
                told["AUROC", name] = float(auroc(p, wrong).mean()) if mixed else 0.5
            told["posterior"], told["wrong"], told["losses"] = found[0].cpu(), wrong[0].cpu(), x[0].cpu()

    learn(net, loss, count, networks=n, epochs=epochs, generator=g, streams=d, after=after, **how)
    curve = torch.stack(track, 1)
    said = predict(net, images.x).argmax(-1)
    off = all_labels != images.y
    memorised = ((said == all_labels) & off).sum(1) / off.sum(1).clamp_min(1)
    most = F.one_hot(said, stage.classes).float().mean(1).max(1).values
    return told | {
        "last": by_arm(curve[:, -1].tolist(), names), "best": by_arm(curve.max(1).values.tolist(), names),
        "track": by_arm(curve, names), "memorised": by_arm(memorised.tolist(), names),
        "largest class": by_arm(most.tolist(), names),
    }  # fmt: skip
