"""What the chapter measures on wrong labels: AUM, bootstrapping, compression, splitting. One seed a call."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ...nets.stacked import take
from ..label_sets import LabelSet, flip, instance_noise, several, transition
from ..measures import auroc, detection
from ..training import cross_entropy, predict
from .aum import flagged, learn_aum
from .bootstrapping import ARMS, learn_bootstrapped
from .crosssplit import SPLITS, learn_crosssplit
from .lsa import ranks_agree
from .mixtures import fit_two, normalised
from .nested_dropout import learn_compressed
from .robust import rivals
from .stage import Images, Stage, learn

AUM_EPOCHS, EPOCHS = 12, 30  # of AUM's runs at a constant rate; of all other trainings


def noisy(stage: Stage, images: Images, kind: str, rate: float, seed: int, draws: int | None = None) -> LabelSet:
    """Draws of wrong labels for the stage's images, on its device.

    kind  "symmetric", "pair", "uniform" (``label_sets.transition``) or "instance" (``label_sets.instance_noise``)
    """
    g, draws = torch.Generator().manual_seed(seed), draws or stage.draws
    y = images.y.cpu()
    if kind == "instance":
        made = several(draws, instance_noise, images.x.cpu(), y, rate, stage.classes, generator=g)
    else:
        made = several(draws, flip, y, transition(kind, stage.classes, rate), generator=g)
    device = images.y.device
    return LabelSet(made.labels.to(device), made.truth.to(device), made.foreign.to(device))


def columns(found: list[dict], *path) -> list[float]:
    """One number a seed: each seed's result, followed down the path of keys."""
    for key in path:
        found = [one[key] for one in found]
    return [float(v) for v in found]


def points(found: list[dict], *path) -> list[list[float]]:
    """A curve's values: for each point, one number a seed, where the path leads to a list of numbers."""
    for key in path:
        found = [one[key] for one in found]
    return [[float(v) for v in values] for values in zip(*found, strict=True)]


def share(masks: Bool[Tensor, "..."]) -> float:
    return float(masks.double().mean())


def judged(found: Bool[Tensor, "d N"], wrong: Bool[Tensor, "d N"]) -> dict[str, float]:
    """Precision, recall, F1 and the removed share, mean over the draws."""
    return {k: float(v.mean()) for k, v in detection(found, wrong).items()} | {"removed": share(found)}


def cross_validated(stage: Stage, images: Images, labels: Int[Tensor, "d N"], seed: int, epochs: int) -> Tensor:
    """What a network taught with the other half of the samples does not confirm, (d, N): the core of INCV (Chen et al.
    2019), without its iterations."""
    d, count = labels.shape
    g = stage.generator(seed, 25)
    half = torch.arange(count, device=labels.device) % 2
    weights = torch.stack([half, 1 - half]).float().repeat_interleave(d, 0)
    both = labels.repeat(2, 1)
    net = stage.net(2 * d, hidden=(64,), generator=g, same=d)

    def loss(rows: Tensor, epoch: int) -> Tensor:
        logits = net(take(images.x, rows, own=False))
        return cross_entropy(logits, take(both, rows, own=True), 2 * take(weights, rows, own=True))

    learn(net, loss, count, networks=2 * d, epochs=epochs, generator=g, batch=32, streams=d)
    said = predict(net, images.x).argmax(-1)
    return torch.where(half.bool(), said[d:], said[:d]) != labels


def compare_aum(stage: Stage, seed: int, kind: str, rate: float, *, retrain: bool = False, epochs: int = AUM_EPOCHS,
                rival_epochs: int = EPOCHS, **how) -> dict:  # fmt: skip
    """AUM and its rivals at finding wrong labels of one kind, and what retraining on the rest is worth.

    Returns "AUROC" by score, "AUM", "one run", "beta mixture", "known rate", "halves" (precision, recall, F1, removed),
    "agree" (rank correlation of two runs by score), "track" of the margins, "lowest" (places of the 16 lowest AUM), and
    "retrained" where asked for: the rivals' and AUM's accuracies.
    """
    images = stage.images(seed)
    set_ = noisy(stage, images, kind, rate, seed)
    wrong, labels = set_.wrong, set_.labels
    how = dict(lr=0.2, batch=16, hidden=(64,)) | how
    o = learn_aum(stage, images, labels, seed, epochs=epochs, **how)
    found = flagged(o["aum"], o["thresholds"])
    told = {"AUM": judged(found, wrong), "one run": judged(flagged(o["aum"][:, :1], o["thresholds"][:, :1]), wrong)}
    told["agree"] = {name: ranks_agree(o[name][:, 0], o[name][:, 1]) for name in ("aum", "last")}
    track = o["track"].tolist()
    names = ("right", "wrong", "threshold", "AUROC of the mean", "AUROC of the last")
    told["track"] = dict(zip(names, track, strict=True))
    told["lowest"] = o["aum"].mean((0, 1)).argsort()[:16].cpu()
    if rate:
        each = wrong[:, None].expand_as(o["aum"])
        scores = {"AUM": -o["aum"], "last margin": -o["last"], "last loss": o["loss"]}
        told["AUROC"] = {name: float(auroc(score, each).mean()) for name, score in scores.items()}
        last = o["loss"].mean(1)
        x = normalised(last)
        told["beta mixture"] = judged(fit_two(x).looked_up(x) > 0.5, wrong)
        count = round(rate * last.shape[1])
        most = torch.zeros_like(wrong).scatter_(1, last.topk(count, dim=1).indices, True)
        told["known rate"] = judged(most, wrong)
        told["halves"] = judged(cross_validated(stage, images, labels, seed, epochs), wrong)
    if retrain:
        extra = {"AUM": ~found, "oracle": ~wrong}
        made = rivals(stage, images, labels, seed, rival_epochs, extra={k: v.float() for k, v in extra.items()})
        told["retrained"], told["memorised"] = made["accuracy"], made["memorised"]
    return told


def compare_bootstrapping(stage: Stage, seed: int, rate: float, arms: tuple[str, ...] | None = None, *,
                          kind: str = "uniform", epochs: int = EPOCHS, draws: int | None = None,
                          against: bool = True) -> dict:  # fmt: skip
    """Bootstrapping's arms on one noise, and the rivals where ``against``: see ``learn_bootstrapped``."""
    images = stage.images(seed)
    labels = noisy(stage, images, kind, rate, seed + 1, draws).labels
    chosen = {name: ARMS[name] for name in arms or ARMS}
    told = learn_bootstrapped(stage, images, labels, seed, chosen, epochs=epochs, switch=0.15)
    if against:
        told["rivals"] = rivals(stage, images, labels, seed, epochs)["accuracy"]
    return told


def compare_compression(stage: Stage, seed: int, *, rate: float = 0.4, kind: str = "symmetric", sigma: float = 10.0,
                        second: int = 6, draws: int = 2, epochs: int = 24) -> dict:  # fmt: skip
    """Nested dropout, dropout, cross-entropy and GCE, alone and under Co-teaching: see ``learn_compressed``."""
    images = stage.images(seed)
    labels = noisy(stage, images, kind, rate, seed, draws).labels
    return learn_compressed(stage, images, labels, seed, epochs=epochs, sigma=sigma, keep=1 - rate, second=second)


def compare_splits(stage: Stage, seed: int, arms: tuple[str, ...], *, kind: str = "pair", rate: float = 0.4,
                   draws: int = 2, epochs: int = 24, against: bool = True) -> dict:  # fmt: skip
    """CrossSplit and its parts on one noise, and the rivals where ``against``: see ``learn_crosssplit``."""
    images = stage.images(seed)
    labels = noisy(stage, images, kind, rate, seed + 3, draws).labels
    chosen = {name: SPLITS[name] for name in arms}
    told = learn_crosssplit(stage, images, labels, seed, chosen, epochs=epochs, warm=0.25)
    if against:
        made = rivals(stage, images, labels, seed, EPOCHS)
        told["rivals"], told["rivals memorised"] = made["accuracy"], made["memorised"]
    return told
