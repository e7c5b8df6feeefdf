"""FASSL's and MDCS' measurements: a table a comparison, one value a seed for every arm."""

import torch

from ...loss import unit_rows
from ..measures import auroc
from . import experts as E
from . import prototypes as P
from .comparison import Table, gather, generator, rare_draws, taught
from .fassl import mass_correlation, purity, rare_weights
from .mdcs import bias_variance, disagreement, ensemble
from .stage import GROUPS, LOSSES, Tail, features_of, long_tail, told


def rare_tail(run, seed: int, ratio: float = 50.0, source=None, size=None) -> Tail:
    """A seed's long tail, with fewer draws than the cheaper comparisons have."""
    made = lambda: long_tail(run, seed, ratio, draws=rare_draws(run), size=size, source=source)  # noqa: E731
    return run.once(("tail", seed, ratio, source), made)


# Frequency-aware self-supervision


def first_stages(run, prototypes: int, *, uneven=(None, False, True), **options):
    """Stage 1 of a seed each: SimCLR, even prototypes beside it (SwAV), and those whose sizes follow the data."""

    def made(seed):
        tail = rare_tail(run, seed)
        g, steps = generator(run, seed, 80), run.pick(quick=320, full=8000)
        model = P.stage_one(tail, prototypes=prototypes, steps=steps, generator=g, beside=1.0, uneven=uneven, **options)
        return tail, model

    key = ("first", prototypes, uneven, *sorted(options.items()))
    return [run.once((seed, *key), lambda seed=seed: made(seed)) for seed in run.seeds]


def second_stages(run, prototypes: int, gammas=(None, 0.0, 0.5), *, start: int = 2):
    """Stage 2 from an arm of stage 1, an arm for each gamma; None goes on with SimCLR's loss alone."""

    def made(seed, tail, first):
        g, steps = generator(run, seed, 81), run.pick(quick=120, full=4000)
        return tail, P.stage_two(first, tail, gammas, steps=steps, generator=g, start=start)

    pairs = zip(run.seeds, first_stages(run, prototypes), strict=True)
    return [run.once((s, "second", prototypes, gammas, start), lambda s=s, p=p: made(s, *p)) for s, p in pairs]


def probed(run, stages, names, per_class: int = 10) -> Table:
    """Linear probes on ``per_class`` balanced labels of every arm, means over four sets of labels: ``told``."""
    rows = []
    for tail, model in stages:
        z, test = P.features(model, tail.held), P.features(model, tail.test)
        rows.append({name: _probe(z[i], test[i], tail, per_class) for i, name in enumerate(names)})
    return gather(rows)


def _probe(z, test, tail: Tail, per_class: int) -> dict[str, float]:
    places = P.few_labels_of(tail, per_class)  # (sets, labels)
    seen, test = z[:, places].flatten(0, 1), test.repeat_interleave(len(places), 0)
    return told(P.probe(seen, tail.y_held[places[0]], test), tail.y_test)


def floors(run, per_class: int = 10) -> Table:
    """The same probe on pixels, on an untrained encoder, and on features of networks taught with the tail's labels."""
    rows = []
    for seed in run.seeds:
        tail = rare_tail(run, seed)
        bare = P.Prototypical(tail.draws, tail.x.shape[2], 2, generator=generator(run, seed, 82))
        with torch.no_grad():  # running statistics of the norms, from one pass over the training images
            bare.train()
            for _ in range(20):
                bare.net(tail.x[:, :2000])
            bare.eval()
        std = lambda x, m: (x - m) / 0.3  # noqa: E731
        mean = tail.x.mean(1, keepdim=True)
        row = {"pixels": _probe(std(tail.held, mean), std(tail.test, mean), tail, per_class)}
        row["untrained"] = _probe(P.features(bare, tail.held)[0], P.features(bare, tail.test)[0], tail, per_class)
        labelled, net = taught(run, seed)
        z, test = (features_of(net, x)[..., :-1] for x in (labelled.held, labelled.test))
        z, test = ((p - p.mean(2, keepdim=True)) / p.std(2, keepdim=True).clamp_min(1e-6) for p in (z, test))
        for i, name in enumerate(list(LOSSES)[:2]):
            row[f"{name}, the tail's labels"] = _probe(z[i], test[i], labelled, per_class)
        rows.append(row)
    return gather(rows)


def sizes_of(stages, names) -> Table:
    """What prototypes tell of the frequencies: correlation of mass with class sizes, purity, that of few-shot images
    alone, the largest share over the smallest, and how well an image's weight, or its mean distance from its ten
    nearest neighbours, tells few-shot images from the others (AUROC)."""
    rows = []
    for tail, model in stages:
        o, arms = P.owners(model, tail), len(names)
        measures = {
            "correlation": mass_correlation(model.pi, o), "purity": purity(o), "purity, few": purity(o, GROUPS["few"]),
            "spread": model.pi.amax(1) / model.pi.amin(1), "AUROC, weight": auroc(*rare(model, tail)),
            "AUROC, distance": auroc(*lonely(model, tail)),
        }  # fmt: skip
        means = {name: v.float().view(arms, -1).mean(1).tolist() for name, v in measures.items()}
        rows.append({name: {m: v[i] for m, v in means.items()} for i, name in enumerate(names)})
    return gather(rows)


@torch.no_grad()
def rare(model, tail: Tail):
    """Weights of the training images by their prototypes' shares, and whether they are of a few-shot class."""
    x = tail.x.repeat(len(model.pi) // tail.draws, 1, 1)
    weight = rare_weights(model.scores(model.net(x)), model.pi)
    return weight, (tail.y >= GROUPS["few"].start).expand(len(weight), -1)


@torch.no_grad()
def lonely(model, tail: Tail):
    """The same by the mean distance from the ten nearest training images, in the features' directions."""
    z = unit_rows(model.features(tail.x.repeat(len(model.pi) // tail.draws, 1, 1)))
    far = torch.stack([torch.cdist(each, each).topk(11, largest=False).values[:, 1:].mean(1) for each in z])
    return far, (tail.y >= GROUPS["few"].start).expand(len(far), -1)


# Diverse experts


def experts(run, arms=None, *, ratio: float = 50.0, source=None, size=None) -> Table:
    """Every arm of MDCS: the ensemble's ``told``, the experts' disagreement, and each expert's many and few."""
    arms = arms or E.ARMS
    rows = []
    for seed in run.seeds:
        tail = rare_tail(run, seed, ratio, source, size)
        steps = run.pick(quick=250, full=20_000)
        net = E.learn_experts(tail, arms.values(), steps=steps, generator=generator(run, seed, 90))
        z = E.expert_logits(net, tail.test)
        row = {}
        for i, name in enumerate(arms):
            row[name] = told(ensemble(z[i]), tail.y_test) | {"disagreement": float(disagreement(z[i]).mean())}
            for e in range(z.shape[2]):
                one = told(z[i][:, e], tail.y_test)
                row[name] |= {f"{m} of expert {e + 1}": one[m] for m in ("balanced", "many", "few")}
        rows.append(row)
    return gather(rows)


def variances(run, names, *, parts: int = 4) -> Table:
    """Bias² and variance of the ensembles' predictions over trainings on random halves of the first draw's images."""
    rows = []
    for seed in run.seeds:
        g = generator(run, seed, 91)
        tail = E.halves(rare_tail(run, seed), parts, generator=g)
        steps = run.pick(quick=150, full=8000)
        net = E.learn_experts(tail, [E.ARMS[n] for n in names], steps=steps, generator=g)
        p = ensemble(E.expert_logits(net, tail.test).flatten(0, 1)).softmax(2).unflatten(0, (len(names), -1))
        told_of = [dict(zip(("bias²", "variance"), bias_variance(each, tail.y_test), strict=True)) for each in p]
        rows.append(dict(zip(names, told_of, strict=True)))
    return gather(rows)
