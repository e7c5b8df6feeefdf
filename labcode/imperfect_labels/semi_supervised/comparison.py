"""What the chapter measures of UDA, soft pseudo-labels and SimCLRv2 against the plain rivals. One seed a call."""

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..training import cross_entropy, predict
from .pseudo_label_mixup import Moons, Soft, learn_soft
from .simclr_v2 import Tuned, distil, fine_tune, pretrain
from .stage import Batch, Labels, Stage, by_arm, by_count, learn, pseudo_label, scored, supervised
from .uda import ARMS, KINDS, Arm, noised, parts, uda_method, unreached

Draws = Mapping[int, int]


def rivals(stage: Stage, seed: int, draws: Draws, steps: int) -> dict[str, list[float]]:
    """Test accuracy of both plain rivals at each number of labels a class, mean over its draws."""
    labels = stage.label_sets(draws, seed)
    methods = {"supervised": supervised, "pseudo-label": pseudo_label}
    return {
        name: by_count(scored(stage, learn(stage, labels, method, seed, steps=steps)), draws)
        for name, method in methods.items()
    }


def plain_pseudo(stage: Stage, seed: int, draws: Draws, steps: int) -> list[float]:
    """The second rival alone, where the first is one of the arms."""
    labels = stage.label_sets(draws, seed)
    return by_count(scored(stage, learn(stage, labels, pseudo_label, seed, steps=steps)), draws)


def compare_uda(stage: Stage, seed: int, draws: Draws, steps: int, adversarial: bool = False) -> list[float]:
    """UDA's accuracy, or VAT's, at each number of labels a class."""
    labels = stage.label_sets(draws, seed)
    net = learn(stage, labels, uda_method([Arm()] * len(labels), adversarial), seed, steps=steps)
    return by_count(scored(stage, net), draws)


def all_labels(stage: Stage, rows: int) -> Labels:
    """Every image of the pool labelled, for so many networks."""
    count, device = len(stage.pool), stage.pool.y.device
    return Labels(torch.arange(count, device=device).expand(rows, -1), torch.full((rows,), count, device=device))


def compare_noises(
    stage: Stage, seed: int, count: int, draws: int, steps: int, arms: Mapping[str, Arm] = ARMS
) -> dict[str, dict[str, float]]:
    """UDA with each kind of noise and without each part, "UDA", on ``count`` labels a class; and plain supervised
    training on *all* labels with each kind of noise as its augmentation, "all labels"."""
    labels = stage.label_sets({count: draws}, seed).repeat(len(arms))
    each = [arm for arm in arms.values() for _ in range(draws)]
    net = learn(stage, labels, uda_method(each), seed, steps=steps, unlabelled=48, same=draws)
    kinds = [kind for kind in KINDS if kind in arms or kind == "all together"]

    def augmented(net, batch: Batch) -> Tensor:
        rows = [noised(stage, x, kind, batch.g) for x, kind in zip(batch.x, kinds, strict=True)]
        return cross_entropy(net(torch.stack(rows)), batch.y)

    sets = all_labels(stage, len(kinds))
    full = learn(stage, sets, augmented, seed, steps=steps // 2, batch=64, unlabelled=1, same=True)
    return {"UDA": by_arm(scored(stage, net), list(arms)), "all labels": by_arm(scored(stage, full), kinds)}


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Spearman's: the correlation of the two orders."""
    ranks = [torch.tensor(v).argsort().argsort().double() for v in (a, b)]
    return float(torch.corrcoef(torch.stack(ranks))[0, 1])


def augmentation_graph(
    stage: Stage, seed: int, counts: Sequence[int], images: int = 600, copies: int = 8, radius: float = 3.0,
    tries: int = 200,
) -> dict[str, dict]:  # fmt: skip
    """Images of one class are joined where a view of one comes within ``radius`` of the other, for weak and for strong
    views. For each kind: "parts", "unreached" by theorem 1 at each number of labels, and "drawn", the share that was
    left without a label in ``tries`` draws of labels."""
    g = stage.generator(seed, 70)
    x, y = stage.pool.x[:images], stage.pool.y[:images].cpu()
    told = {}
    for kind, view in {"weak": stage.weak, "strong": stage.strong}.items():
        seen = [view(x, g) for _ in range(copies)]
        near = torch.stack([torch.cdist(v, x) for v in seen]).amin(0).cpu() < radius
        name = parts(near & (y[:, None] == y))
        shares = torch.bincount(name, minlength=len(x)).double() / len(x)
        dice, left = torch.Generator().manual_seed(seed), []
        for m in counts:
            hit = torch.zeros(tries, len(x), dtype=torch.bool)
            hit.scatter_(1, name[torch.randint(len(x), (tries, m), generator=dice)], True)
            left.append(float((~hit[:, name]).double().mean()))
        exact = unreached(shares[shares > 0], torch.tensor(counts)).tolist()
        told[kind] = {"parts": int((shares > 0).sum()), "unreached": exact, "drawn": left}
    return told


def compare_soft(
    stage: Stage, seed: int, ways: Mapping[str, Soft], draws: Draws, steps: int, strong: bool = False
) -> dict[str, dict]:
    """Soft pseudo-labels in several ways at each number of labels a class. By way: "accuracy", a list over the numbers
    of labels; "confirmed", "belief", "largest" (see ``Told``), means over all networks; "rounds", a list."""
    labels = stage.label_sets(draws, seed)
    each = [way for way in ways.values() for _ in range(len(labels))]
    sets = labels.repeat(len(ways))
    net, told = learn_soft(stage, sets, each, seed, steps=steps, strong=strong, same=len(labels))
    found: dict[str, dict] = {
        name: by_arm(getattr(told, name), list(ways)) for name in ("confirmed", "belief", "largest")
    }
    split = scored(stage, net).view(len(ways), -1)
    found["accuracy"] = {name: by_count(row, draws) for name, row in zip(ways, split, strict=True)}
    rounds = told.accuracy.view(-1, len(ways), len(labels)).mean(2).T.tolist()
    return found | {"rounds": dict(zip(ways, rounds, strict=True))}


def compare_moons(run, seed: int, ways: Mapping[str, Soft], draws: int, steps: int, count: int = 3) -> dict:
    """Two moons with ``count`` labels each: "accuracy" by way, the "stage", the first draw's "labels" and the "net"."""
    stage = Moons(run, seed)
    labels = stage.label_sets({count: draws}, seed)
    each = [way for way in ways.values() for _ in range(draws)]
    net, _ = learn_soft(stage, labels.repeat(len(ways)), each, seed, steps=steps, same=draws)
    return {"accuracy": by_arm(scored(stage, net), list(ways)), "stage": stage, "labels": labels.places[0], "net": net}


def compare_chain(
    stage: Stage, seed: int, draws: Draws, *, rates: Mapping[int, float], steps: int, tune: int, distilled: int,
    more: bool = False,
) -> dict:  # fmt: skip
    """SimCLRv2 from end to end: accuracy at each number of labels a class.

    rates   the learning rate of fine-tuning for each width, narrow … wide, each chosen for its width; the widest
            network is the teacher, the narrowest the student
    more    also a head of two layers, and the wide network distilled into itself

    Returns lists over the numbers of labels, by name, for "wide, from the encoder" over the first two; lists by width,
    "by width"; and a number by width, "linear" (frozen encoder, all labels) and "all labels" (supervised on all).
    """
    labels, widths = stage.label_sets(draws, seed), list(rates)
    small, big = widths[0], widths[-1]
    first = dict(list(draws.items())[:2])
    few, every = labels.part(slice(sum(first.values()))), all_labels(stage, 1)

    def by(net, of: Draws = draws) -> list[float]:
        return by_count(scored(stage, net), of)

    def plain(sets: Labels, width: int, batch: int = 32):
        hidden = (width, width)
        return learn(stage, sets, supervised, seed, steps=tune, batch=batch, hidden=hidden, unlabelled=1)

    made = {w: pretrain(stage, w, seed, steps=steps) for w in widths}
    tuned = {w: fine_tune(stage, net, labels, seed, steps=tune, lr=rates[w]) for w, net in made.items()}
    found: dict = {"by width": {w: by(net) for w, net in tuned.items()}}
    found |= {"narrow": found["by width"][small], "wide": found["by width"][big]}
    encoder = fine_tune(stage, made[big], few, seed, steps=tune, layer=0, lr=rates[big])
    found["wide, from the encoder"] = by(encoder, first)
    frozen = {w: fine_tune(stage, net, every, seed, steps=tune, layer=0, frozen=True) for w, net in made.items()}
    found["linear"] = {w: float(scored(stage, net)) for w, net in frozen.items()}
    found["all labels"] = {w: float(scored(stage, plain(every, w, 64))) for w in (small, big)}
    found |= {"wide, supervised": by(plain(labels, big)), "narrow, supervised": by(plain(labels, small))}
    teacher, student, other = tuned[big], tuned[small], copy.deepcopy(tuned[small])
    found["narrow, distilled"] = by(distil(stage, teacher, student, labels, seed, steps=distilled))
    found["narrow, distilled on labelled"] = by(distil(stage, teacher, other, labels, seed, steps=distilled, own=True))
    if more:
        itself = Tuned(made[big], 1, len(labels), stage.classes)
        found["wide, distilled into itself"] = by(distil(stage, teacher, itself, labels, seed, steps=distilled))
        two = pretrain(stage, big, seed, steps=steps, layers=2)
        found["wide, head of two"] = by(fine_tune(stage, two, labels, seed, steps=tune, lr=rates[big]))
    return found


def regions(net, points: Tensor, row: int) -> Tensor:
    """Probability of the second class at each point, by one network of a stack."""
    return predict(net, points)[row, :, 1]
