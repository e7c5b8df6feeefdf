"""DASO's comparison: long-tailed labels beside three kinds of unlabelled pools, and what becomes of the labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...data.batches import mixed_seed
from ...nets import evaluating
from ...nets.stacked import take
from ..label_sets import tail, tail_counts
from ..measures import recalls
from ..training import predict
from .daso import Daso, DasoArm, blended, similarities
from .stage import Labels, ResNets, Stage, learn, padded

GROUPS = {"many": slice(0, 3), "medium": slice(3, 7), "few": slice(7, 10)}  # of the classes, by how frequent they are
DASO_POOLS = ("matched", "uniform", "reversed")  # how the unlabelled images' classes are distributed
FIXMATCH = DasoArm(v=0, align=0, threshold=0.95)
DASO_MAIN = {
    "supervised": replace(FIXMATCH, unlabelled=0), "FixMatch": FIXMATCH,
    "FixMatch, adjusted": replace(FIXMATCH, adjust=1), "DASO": DasoArm(), "DASO, adjusted": DasoArm(adjust=1),
}  # fmt: skip
DASO_PARTS = {
    "linear": DasoArm(v=0, align=0), "linear, aligned": DasoArm(v=0), "semantic": DasoArm(v=1, align=0),
    "semantic, aligned": DasoArm(v=1), "one half": DasoArm(v=0.5, align=0), "one half, aligned": DasoArm(v=0.5),
    "by class": DasoArm(align=0),
}  # fmt: skip


def daso_arms(
    pool: str, names: Sequence[str] = tuple(DASO_MAIN), temperatures: Sequence[float] = ()
) -> dict[tuple[str, str], DasoArm]:  # fmt: skip
    """The arms on one kind of pool, by (pool, name): those of ``DASO_MAIN`` and ``DASO_PARTS`` that are named, and
    "T = …" for DASO with other temperatures."""
    made = {name: (DASO_MAIN | DASO_PARTS)[name] for name in names}
    made |= {f"T = {t:g}": DasoArm(temperature=t) for t in temperatures}
    return {(pool, name): arm for name, arm in made.items()}


@dataclass(frozen=True)
class Tails:
    """Draws of a long-tailed labelled set and of unlabelled ones beside it.

    names   (draws, k) the class of each rank, 0 the most frequent: it differs from draw to draw
    counts  (k,) labels by rank
    labels  of the draws
    pools   kind -> (draws, N) places in the stage's pool, in random order; the smaller sets are repeated
    sizes   kind -> how many of them are different
    """

    names: Int[Tensor, "draws k"]
    counts: Int[Tensor, " k"]
    labels: Labels
    pools: dict[str, Int[Tensor, "draws N"]]
    sizes: dict[str, int]


def long_tails(
    stage: Stage, seed: int, draws: int, ratio: float = 50, sizes: tuple[int, int] = (100, 200)
) -> Tails:  # fmt: skip
    """Long-tailed labels, and unlabelled images distributed alike, uniformly, and the other way round.

    ratio  of the most frequent to the rarest class, in labels and in the long-tailed pools
    sizes  (labels, unlabelled images) of the most frequent class; the uniform pool has the latter number of every class

    No image is in both. Raises ValueError where a class has too few images.
    """
    y, k = stage.pool.y.cpu(), stage.classes
    labelled, free = sizes
    counts = tail_counts(k, labelled, ratio)
    kinds = {
        "matched": tail_counts(k, free, ratio), "uniform": torch.full((k,), free),
        "reversed": tail_counts(k, free, 1 / ratio),
    }  # fmt: skip
    names, sets, pools = [], [], {kind: [] for kind in kinds}
    longest = max(int(c.sum()) for c in kinds.values())
    for j in range(draws):
        g = torch.Generator().manual_seed(mixed_seed(seed, 42, j))
        name = torch.randperm(k, generator=g)
        rank = name.argsort()
        known = tail(y, counts[rank], generator=g)
        left = torch.ones(len(y), dtype=torch.bool)
        left[known] = False
        rest = left.nonzero()[:, 0]
        names.append(name)
        sets.append(known)
        for kind, of_rank in kinds.items():
            some = rest[tail(y[rest], of_rank[rank], generator=g)]
            pools[kind].append(some.repeat(-(-longest // len(some)))[:longest])
    device = stage.pool.y.device
    stacked = {kind: torch.stack(each).to(device) for kind, each in pools.items()}
    totals = {kind: int(c.sum()) for kind, c in kinds.items()}
    return Tails(torch.stack(names).to(device), counts, padded(sets, device), stacked, totals)


def by_rank(values: Float[Tensor, "n k"], names: Int[Tensor, "n k"]) -> Float[Tensor, "n k"]:
    """A value for each class in the order of the ranks."""
    return values.gather(1, names)


def precisions(predicted: Int[Tensor, "n N"], labels: Int[Tensor, "n N"], classes: int) -> Float[Tensor, "n k"]:
    """Share of what is called a class that is of it, (n, k) in float64; 0 for a class that is never called.

    Raises ValueError for classes out of range.
    """
    return recalls(labels, predicted, classes).nan_to_num(0.0)


def judged(values: Float[Tensor, "n k"]) -> dict[str, float | list]:
    """Values by rank: mean over the networks by group, of all classes, and "each" rank's."""
    groups = {name: float(values[:, part].mean()) for name, part in GROUPS.items()}
    return groups | {"all": float(values.mean()), "each": values.mean(0).tolist()}


def branched(stage: Stage, net: nn.Module, index: Int[Tensor, " m"], hidden: tuple[int, ...] | None) -> nn.Module:
    """A stack whose network i is a copy of network index[i] of another one."""
    made = stage.net(len(index), hidden=hidden, generator=stage.generator(0))
    if isinstance(net, ResNets):
        for mine, i in zip(made.body, index.tolist(), strict=True):
            mine.load_state_dict(net.body[i].state_dict())
        made.head.load_state_dict({name: value[index] for name, value in net.head.state_dict().items()})
    else:
        made.load_state_dict({name: value[index] for name, value in net.state_dict().items()})
    return made


def first_stage(arm: DasoArm) -> DasoArm:
    """What an arm is before labels are mixed: FixMatch, FixMatch with logit adjustment, or supervised training."""
    return replace(FIXMATCH, adjust=arm.adjust, unlabelled=arm.unlabelled)


def compare_daso(
    stage: Stage, seed: int, arms: Mapping[tuple[str, str], DasoArm], *, draws: int = 2,
    steps: tuple[int, int] = (180, 110), ratio: float = 20, sizes: tuple[int, int] = (100, 200), batch: int = 32,
    unlabelled: int = 48, hidden: tuple[int, ...] | None = None, lr: float = 2e-3, **how,
) -> dict[tuple[str, str], dict]:  # fmt: skip
    """Train all arms side by side and look at their accuracy and their pseudo-labels.

    arms   (pool, name) -> what a network does
    steps  of the first stage, which arms with the same first stage share, and of the second, whose peak rate is ``lr``
    how    further arguments of ``Daso``

    Returns for each arm "test", recalls of the test images, and "recall" and "precision" of the pseudo-labels of the
    whole pool by "linear", "semantic" and "mixed" label: each many, medium, few, all, and a list by rank.
    """
    run = stage.run
    d = run.pick(quick=draws, full=1)
    sizes = run.pick(quick=sizes, full=(20, 30) if run.dry else (500, 4000))
    tails = long_tails(stage, seed, d, ratio, sizes)
    firsts = list(dict.fromkeys((kind, first_stage(arm)) for (kind, _), arm in arms.items()))
    options = dict(batch=batch, unlabelled=unlabelled, same=d, hidden=hidden)
    net, *_ = taught(stage, tails, firsts, seed + 1, steps=steps[0], **options)
    begin = [firsts.index((kind, first_stage(arm))) for (kind, _), arm in arms.items()]
    index = torch.cat([torch.arange(d) + d * i for i in begin]).to(stage.pool.y.device)
    net = branched(stage, net, index, hidden)
    cells = [(kind, arm) for (kind, _), arm in arms.items()]
    options |= dict(steps=steps[1], net=net, lr=lr, how=how)
    net, method, places, names = taught(stage, tails, cells, seed + 2, **options)
    k = stage.classes
    test = judged_many(by_rank(recalls(predict(net, stage.test.x).argmax(-1), stage.test.y, k), names), d)
    found = {arm: {"test": one, "recall": {}, "precision": {}} for arm, one in zip(arms, test, strict=True)}
    truth = stage.pool.y[places]
    for name, label in pseudo_labels(stage, net, method, places).items():
        for measure, values in (("recall", recalls(label, truth, k)), ("precision", precisions(label, truth, k))):
            for arm, one in zip(arms, judged_many(by_rank(values, names), d), strict=True):
                found[arm][measure][name] = one
    return found


def taught(
    stage: Stage, tails: Tails, cells: Sequence[tuple[str, DasoArm]], seed: int, *, how: Mapping = {}, **options
) -> tuple[nn.Module, Daso, Tensor, Tensor]:  # fmt: skip
    """A stack of (pool, arm) times draws, trained: the networks, the method, their pools' places and their classes'
    names."""
    d, k, device = len(tails.names), stage.classes, stage.pool.y.device
    kinds = list(dict.fromkeys(kind for kind, _ in cells))
    streams = torch.cat([torch.arange(d) + d * kinds.index(kind) for kind, _ in cells]).to(device)
    names = tails.names.repeat(len(cells), 1)
    prior = (tails.counts / tails.counts.sum()).to(device)
    priors = torch.zeros(len(names), k, device=device).scatter_(1, names, prior.expand(len(names), k).float())
    method = Daso([arm for _, arm in cells for _ in range(d)], priors, d, streams, **how)
    places = torch.cat([tails.pools[kind] for kind, _ in cells])
    net = learn(stage, tails.labels.repeat(len(cells)), method, seed, pool=places, **options)
    return net, method, places, names


def judged_many(values: Float[Tensor, "n k"], draws: int) -> list[dict]:
    """``judged`` of each arm's networks, which stand one arm after another."""
    return [judged(part) for part in values.cpu().split(draws)]


@torch.no_grad()
def pseudo_labels(
    stage: Stage, net: nn.Module, method: Daso, places: Int[Tensor, "n N"], block: int = 500
) -> dict[str, Int[Tensor, "n N"]]:
    """The linear, the semantic and the mixed hard label of each network's unlabelled images, as they are."""
    found = {"linear": [], "semantic": [], "mixed": []}
    with evaluating(net):
        for part in places.split(block, 1):
            features = net.features(take(stage.pool.x, part, own=False))
            p = net.head(features).softmax(-1)
            q = similarities(features, method.queue.prototypes, method.tau).softmax(-1)
            each = {"linear": p, "semantic": q, "mixed": blended(p, q, method.shares())}
            for name, label in each.items():
                found[name].append(label.argmax(-1))
    return {name: torch.cat(parts, 1) for name, parts in found.items()}
