"""The chapter's measurements: for every seed of a run the same draws, starts and budgets for all arms of a comparison.

Functions take the run and return, for each arm and measure, one value a seed: the mean over that seed's draws.
"""

import inspect
import time
from collections import defaultdict

import torch
from torch import Generator, Tensor

from ..training import predict
from . import domains as D
from . import selmix as S
from .inverse_image_frequency import VARIANTS, adjusted, iif, rarity
from .lls_ddfa import anchor_words, label_posteriors, matched_error, word_shares
from .stage import GROUPS, LOSSES, Tail, class_recalls, features_of, learn_tail, logits_of, long_tail, told

Table = dict[str, dict[str, list[float]]]  # arm -> measure -> one value a seed
TAUS = tuple(i / 10 for i in range(31))


def budget(run) -> tuple[int, int]:
    """Draws a seed and steps of what is trained by the classic losses."""
    return run.pick(quick=(10, 300), long=(12, 300), full=(1, 8000))


def sheet(run, tail: Tail) -> dict[str, str]:
    """The stage in words and numbers, for the page."""
    chosen = {name: p.default for name, p in inspect.signature(learn_tail).parameters.items()}
    (draws, steps), classes = budget(run), len(tail.counts)
    kept, told_of = (len(y) // classes for y in (tail.y_held, tail.y_test))
    return {
        "training": f"{int(tail.counts.max())} to {int(tail.counts.min())} images a class, {len(tail.y)} in all",
        "held out": f"{kept} images of every class, balanced; to choose or to steer by",
        "test": f"{told_of} images of every class, balanced",
        "network": f"{tail.x.shape[2]} pixels, BatchNorm and ReLU, {chosen['width']} features, linear or cosine head",
        "budget": f"{run_steps(run, steps)} steps of {chosen['batch']} images, AdamW, {chosen['lr']}, cosine schedule",
        "draws a seed": f"{draws} for IIF and SelMix, {rare_draws(run)} for MDCS and FASSL; values are their means",
    }


def rare_draws(run) -> int:
    """Draws a seed of the costlier comparisons, MDCS and FASSL."""
    return run.pick(quick=4, long=5, full=1)


def generator(run, seed: int, part: int) -> Generator:
    """Random numbers of a seed for one part of the chapter."""
    return torch.Generator(run.device).manual_seed(10_000 * (seed + 1) + part)


def gather(rows: list[dict[str, dict[str, float]]]) -> Table:
    """One dictionary a seed, arm -> measure -> value, as lists over seeds."""
    found = defaultdict(lambda: defaultdict(list))
    for row in rows:
        for arm, values in row.items():
            for measure, value in values.items():
                found[arm][measure].append(value)
    return {arm: dict(values) for arm, values in found.items()}


def column(table: Table, measure: str, arms=None) -> dict[str, list[float]]:
    """One measure of a table: arm -> values."""
    return {arm: table[arm][measure] for arm in (arms or table)}


def taught(run, seed: int, ratio: float = 50.0, *, cosine: bool = False, source=None, size=None, short: bool = False):
    """A seed's long tail and the networks that the classic losses make of it, trained once in a run.

    short  half the draws, and the first two losses alone: for sweeps
    """

    def made():
        draws, steps = budget(run)
        tail = long_tail(run, seed, ratio, draws=(draws + 1) // 2 if short else draws, size=size, source=source)
        losses = list(LOSSES)[:2] if short else list(LOSSES)
        return tail, learn_tail(tail, losses, cosine=cosine, steps=steps, generator=generator(run, seed, 1 + cosine))

    return run.once(("taught", seed, ratio, cosine, source, short), made)


# Inverse image frequency


def like_few(logits: Tensor, held: Tensor, tail: Tail, variant: str) -> Tensor:
    """Logits adjusted additively with the τ that gives the held-out few-shot classes the recall that IIF gives them."""
    few = GROUPS["few"]
    out = []
    for z, h in zip(logits, held, strict=True):
        want = float(class_recalls(iif(h, tail.counts, variant), tail.y_held)[few].mean())
        reached = {t: float(class_recalls(adjusted(h, tail.counts, t), tail.y_held)[few].mean()) for t in TAUS}
        out.append(adjusted(z, tail.counts, min(TAUS, key=lambda t: abs(reached[t] - want))))  # noqa: B023
    return torch.stack(out)


def adjustments(run, *, cosine: bool, ratio: float = 50.0, source=None, size=None, short: bool = False) -> Table:
    """Every adjustment of one cross-entropy network at inference, and the losses that work in training."""
    rows = []
    for seed in run.seeds:
        tail, net = taught(run, seed, ratio, cosine=cosine, source=source, size=size, short=short)
        trained, held = logits_of(net, tail.test), logits_of(net, tail.held)[0]
        z = trained[0]
        arms = {"cross entropy": z} | {f"IIF {v}": iif(z, tail.counts, v) for v in VARIANTS}
        arms["logit adjustment"] = adjusted(z, tail.counts)
        arms["logit adjustment, same few"] = like_few(z, held, tail, "raw")
        arms |= {name: trained[i] for i, name in enumerate(list(LOSSES)[: len(trained)]) if i}
        rows.append({name: told(each, tail.y_test) for name, each in arms.items()})
    return gather(rows)


def second_stage(run, steps: int, variant: str = "smooth") -> Table:
    """The cosine classifier trained on with frozen features, by IIF's loss or by plain cross entropy, and what
    adjusting at inference alone gives."""
    rows = []
    for seed in run.seeds:
        tail, net = taught(run, seed, cosine=True)
        z, test = (features_of(net, x)[0, ..., :-1] for x in (tail.x, tail.test))
        z, test = (torch.nn.functional.normalize(part, dim=2) for part in (z, test))
        begin = net.head.weight.detach().unflatten(0, (-1, tail.draws))[0]
        one, scale = torch.ones(len(tail.counts), device=z.device), net.head.scale
        weights = {"trained on, plain": one, "trained on, IIF": rarity(tail.counts, variant)}
        row = {}
        for name, w in weights.items():
            weight, g = begin.clone().requires_grad_(), generator(run, seed, 30)
            optim = torch.optim.SGD([weight], lr=0.5, momentum=0.9)
            for _ in range(run_steps(run, steps)):
                at = torch.randint(len(tail.y), (len(z), 64), generator=g, device=z.device)
                rows_of = z.gather(1, at[..., None].expand(-1, -1, z.shape[2]))
                logits = scale * rows_of @ torch.nn.functional.normalize(weight, dim=2).mT * w.to(z)
                loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tail.y[at].flatten(), reduction="none")
                optim.zero_grad()
                (loss.view(len(z), -1).mean(1).sum() / scale).backward()
                optim.step()
            logits = scale * test @ torch.nn.functional.normalize(weight.detach(), dim=2).mT * w.to(z)
            row[name] = told(logits, tail.y_test)
        rows.append(row)
    return gather(rows)


def run_steps(run, steps: int) -> int:
    """So many steps of a loop that is not ``fit``'s."""
    from ...train import allowed

    return allowed(steps)


# SelMix


def last_layers(net, tail: Tail, loss: int) -> Tensor:
    """Weights and biases of the networks of one loss, side by side."""
    both = torch.cat([net.head.weight, net.head.bias[..., None]], 2).detach()
    return both.unflatten(0, (-1, tail.draws))[loss]


POLICIES = {
    "uniform mixup": None,
    "SelMix, worst recall": S.selective(S.min_recall_slope),
    "SelMix, H-mean": S.selective(lambda c: S.mean_slope(c, -1)),
    "SelMix, mean recall": S.selective(lambda c: S.mean_slope(c, 1)),
    "SelMix, coverage": S.selective(S.coverage_slope),
    "worst class mixed with any": S.worst_first(),
    "worst class, not mixed": S.worst_first(),
    "trained on the held-out": None,
}
UNMIXED = {"worst class, not mixed": 0.1, "trained on the held-out": 0.1}  # learning rates; that of mixtures is 0.03


def tuned_layers(run, seed: int, start: str, name: str, policy=None) -> list[tuple[int, Tensor]]:
    """The last layers along one policy's fine-tuning, (step, weights); ``start`` is a loss of ``LOSSES``.

    One policy is none: it trains on the held-out images themselves, all classes alike, instead of steering by them.
    """
    tail, net = taught(run, seed)
    at, trace = list(LOSSES).index(start), []
    z, held = (features_of(net, x)[at] for x in (tail.x, tail.held))
    seen = (held, tail.y_held) if name == "trained on the held-out" else (z, tail.y)
    steps = run_steps(run, run.pick(quick=500, full=10_000))
    S.fine_tune(
        last_layers(net, tail, at), *seen, held, tail.y_held, policy or POLICIES[name], steps=steps,
        lr=UNMIXED.get(name, 0.03), generator=generator(run, seed, 40),
        mix=(1.0, 1.0) if name in UNMIXED else S.MIX, trace=trace,
    )  # fmt: skip
    return trace


def fine(run, seed: int, start: str, name: str, at: int = -1) -> Tensor:
    """Test logits after one policy's fine-tuning, which runs once for all figures; ``at`` a place in its trace."""
    trace = run.once(("fine", seed, start, name), lambda: tuned_layers(run, seed, start, name))
    tail, net = taught(run, seed)
    return features_of(net, tail.test)[list(LOSSES).index(start)] @ trace[at][1].mT


def objectives(logits: Tensor, y: Tensor) -> dict[str, float]:
    """``told``, H-mean and G-mean of the recalls, and the smallest coverage times the number of classes."""
    r, k = class_recalls(logits, y).clamp_min(1e-2), logits.shape[2]
    cover = S.confusion(logits, y).sum(1).amin(1) * k
    return told(logits, y) | {
        "H": float(S.power_mean(r, -1).mean()), "G": float(S.power_mean(r, 0).mean()), "coverage": float(cover.mean()),
    }  # fmt: skip


def fine_tuned(run, start: str, policies=tuple(POLICIES)) -> Table:
    """SelMix and its rivals from one start; every arm may look at the same held-out images."""
    rows = []
    for seed in run.seeds:
        tail, net = taught(run, seed)
        at = list(LOSSES).index(start)
        z, held = logits_of(net, tail.test)[at], logits_of(net, tail.held)[at]
        best = [max(TAUS, key=lambda t, h=h: _held_worst(adjusted(h, tail.counts, t), tail)) for h in held]
        shifted = torch.stack([adjusted(each, tail.counts, tau) for each, tau in zip(z, best, strict=True)])
        row = {"start": objectives(z, tail.y_test), "logit adjustment, τ chosen": objectives(shifted, tail.y_test)}
        row |= {name: objectives(fine(run, seed, start, name), tail.y_test) for name in policies}
        rows.append(row)
    return gather(rows)


def _held_worst(logits: Tensor, tail: Tail) -> float:
    """Worst recall of held-out images; ties, which are many, go to the higher mean."""
    r = class_recalls(logits, tail.y_held)
    return float(r.min() + 0.01 * r.mean())


def over_steps(run, start: str, names, every: int) -> tuple[list[int], dict[str, list[list[float]]]]:
    """Worst test recall along the fine-tuning: steps, and for each arm a list a point of one value a seed."""
    found, at = {name: [] for name in names}, []
    for seed in run.seeds:
        y = taught(run, seed)[0].y_test
        for name in names:
            fine(run, seed, start, name)
            walked = [s for s, _ in run.once(("fine", seed, start, name), list)]
            places = [i for i, s in enumerate(walked) if s % every == 0 or i == len(walked) - 1]
            at = [walked[i] for i in places]
            found[name].append([told(fine(run, seed, start, name, i), y)["worst"] for i in places])
    return at, {name: [list(p) for p in zip(*each, strict=True)] for name, each in found.items()}


def gain_check(run, start: str = "balanced softmax", rate: float = 1e-3, samples: int = 64) -> dict[str, list[float]]:
    """Rank correlation, over all pairs, of what is said of a pair with what one step on it does to held-out images.

    The step is the mean over ``samples`` real mixtures of the pair, the metric that of the soft confusion matrix with
    the multipliers held fixed. "gain" is SelMix's; "recall alone" is minus the recall of the labelled class.
    """
    from scipy.stats import spearmanr

    found = {"gain": [], "recall alone": []}
    for seed in run.seeds:
        tail, net = taught(run, seed)
        at, g = list(LOSSES).index(start), generator(run, seed, 41)
        z, held = (features_of(net, x)[at] for x in (tail.x, tail.held))
        weight, k = last_layers(net, tail, at), len(tail.counts)
        c = S.confusion(held @ weight.mT, tail.y_held, soft=True)
        slope = S.min_recall_slope(c, eta=10.0)
        gain = S.gains(S.class_means(held, tail.y_held, k), weight, c, slope)
        first = tail.counts.cumsum(0) - tail.counts
        place = torch.arange(k, device=z.device)
        i, j = place.repeat_interleave(k), place.repeat(k)
        scores = []
        for r in range(tail.draws):
            drawn = torch.rand(2, k * k, samples, generator=g, device=z.device)
            one, two = (drawn * tail.counts[torch.stack([i, j])][..., None]).long()
            part = 0.6 + 0.4 * torch.rand(k * k, samples, 1, generator=g, device=z.device)
            mixed = part * z[r, first[i, None] + one] + (1 - part) * z[r, first[j, None] + two]
            off = (mixed @ weight[r].T).softmax(2) - torch.nn.functional.one_hot(i, k)[:, None]
            moved = weight[r] - rate * off.mT @ mixed / samples
            after = S.confusion(held[r] @ moved.mT, tail.y_held, soft=True)
            change = ((after - c[r]) * slope[r]).sum((1, 2))
            alone = -S.recalls(c)[r][i]
            change = change.cpu()
            scores.append([float(spearmanr(said.cpu(), change).statistic) for said in (gain[r].flatten(), alone)])
        for name, values in zip(found, zip(*scores, strict=True), strict=True):
            found[name].append(sum(values) / len(values))
    return found


def cost_ratio(run, most: float = 8.0) -> list[float]:
    """How many times longer training takes than fine-tuning the last layer by SelMix, counted up to ``most``."""
    found = []
    for seed in run.seeds:
        tail, _ = taught(run, seed)
        begun = time.process_time()
        learn_tail(tail, steps=run.pick(quick=300, full=8000), generator=generator(run, seed, 1))
        between = time.process_time()
        tuned_layers(run, seed, "balanced softmax", "SelMix, worst recall")
        found.append(min((between - begun) / max(1e-6, time.process_time() - between), most))
    return found


# Latent label shift


def shifted_table(data: D.Domains, net, g: Generator, scan=None, mixture: bool = True) -> dict[str, tuple[list, list]]:
    """For each way to label test samples: accuracies and marginals' errors, one a problem."""
    out = D.ddfa(net, data, generator=g)
    error = matched_error(out["marginals"], data.marginals).tolist()
    found = {"DDFA": (D.judged(out["known"], data), error)}
    found["DDFA, domain hidden"] = D.judged(out["blind"], data), error
    if scan is not None:
        labels = predict(scan, data.test).argmax(2)
        found["SCAN"] = (D.judged(labels, data), D.implied(labels, data))
    for name, labels in D.by_similarity(data, generator=g, net=net, mixture=mixture).items():
        found[name] = (D.judged(labels, data), D.implied(labels, data))
    return found


def by_alpha(table: dict[str, tuple[list, list]], alphas, draws: int, what: int = 0) -> dict[str, dict[float, float]]:
    """Means over the draws: arm -> alpha -> accuracy (0) or error (1)."""
    mean = lambda v: sum(v) / len(v)  # noqa: E731
    return {n: {a: mean(t[what][i * draws : (i + 1) * draws]) for i, a in enumerate(alphas)} for n, t in table.items()}


def on_mixtures(run, alphas, *, draws: int = 4, domains: int = 6, steps: int = 250) -> list[tuple[dict, dict]]:
    """Blobs with a misleading geometry, all arms: accuracies and errors by alpha, a pair of tables a seed."""
    found = []
    for seed in run.seeds:
        g, drawn = generator(run, seed, 50 + domains), torch.Generator().manual_seed(10_000 * (seed + 1) + domains)
        data = D.misleading_mixture([a for a in alphas for _ in range(draws)], domains, generator=drawn).to(run.device)
        net = D.discriminate(data, steps=steps, generator=g)
        table = shifted_table(data, net, g)
        raw = D.ddfa(net, data, generator=g, given=data.x)
        error = matched_error(raw["marginals"], data.marginals).tolist()
        table["words of x itself"] = D.judged(raw["known"], data), error
        table["anchor words"] = by_anchors(data, net, g)
        found.append(tuple(by_alpha(table, alphas, draws, what) for what in (0, 1)))
    return found


def by_anchors(data: D.Domains, net, g: Generator, words: int = 12) -> tuple[list, list]:
    """The pipeline with the theorem's anchor words in place of the factorisation: fewer words, rare ones no anchors."""
    p, p_test = predict(net, data.x), predict(net, data.test)
    k, r = data.marginals.shape[1:]
    vocabulary, _ = D.words_of(p, p_test, words, generator=g)
    marginals = anchor_words(word_shares(vocabulary, data.domain, words, r), k, least=0.03)
    labels = label_posteriors(p_test, marginals, data.domain_test).argmax(2)
    return D.judged(labels, data), matched_error(marginals, data.marginals).tolist()


def on_digits(run, alphas, *, group: int, domains: int, draws: int = 3, source=None, steps: int = 150):
    """Digits in domains: DDFA plain and from SCAN's weights, SCAN, k-means; tables by alpha as ``on_mixtures``."""
    found = []
    for seed in run.seeds:
        g = generator(run, seed, 70 + group)
        data = D.padded(D.digit_domains(run, seed, alphas, domains, group=group, draws=draws, source=source))
        scan = D.scan_clusters(data, steps=steps, generator=g, widths=(96, 96))
        plain, warm = (
            D.discriminate(data, steps=steps, generator=g, widths=(96, 96), images=True, start=s) for s in (None, scan)
        )
        table = shifted_table(data, plain, g, scan, mixture=False)
        out = D.ddfa(warm, data, generator=g)
        error = matched_error(out["marginals"], data.marginals).tolist()
        table["DDFA from SCAN"] = D.judged(out["known"], data), error
        found.append(tuple(by_alpha(table, alphas, draws, what) for what in (0, 1)))
    return found


def at(found: list[tuple[dict, dict]], arm: str, alpha: float, what: int = 0) -> list[float]:
    """One arm's accuracies (0) or errors (1) at one alpha, a value a seed."""
    return [row[what][arm][alpha] for row in found]


def at_temperature(run, seed: int, temperature: float) -> dict[str, float]:
    """SelMix for the worst recall, from cross entropy, with another temperature of the pairs."""
    policy = S.selective(S.min_recall_slope, temperature)
    tail, net = taught(run, seed)
    weight = tuned_layers(run, seed, "cross entropy", "SelMix", policy)[-1][1]
    return told(features_of(net, tail.test)[list(LOSSES).index("cross entropy")] @ weight.mT, tail.y_test)


def ceiling(run) -> list[float]:
    """Balanced accuracy of the same network on as many images of every class as the largest has."""
    found = []
    for seed in run.seeds:
        tail = long_tail(run, seed, 1.0, draws=2)
        net = learn_tail(tail, steps=run.pick(quick=300, full=8000), generator=generator(run, seed, 3))
        found.append(told(logits_of(net, tail.test)[0], tail.y_test)["balanced"])
    return found
