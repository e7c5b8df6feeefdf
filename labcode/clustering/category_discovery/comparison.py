"""What the chapter runs on one problem for each paper: a method's arms beside its rivals, and how they measure.

Experiments, not methods. Every function takes a problem and a ``seed``; arms of one call draw from generators of the
same seed, so that they differ in nothing but what is compared. The notebook averages over problems and draws.
"""

import torch
from jaxtyping import Bool, Int
from torch import Generator, Tensor

from ...loss import unit_rows
from ..measures import long_tailed
from ..spectral import spectral
from .gcd import best_kmeans, semi_supervised_kmeans
from .gpc import principal, split_and_merge
from .ncd import NCD
from .pbn import hidden_class_folds, known_split, ncd_kmeans, ncd_spectral, train_pbn, tree_affinity
from .pim import choose_lambda, train_pim
from .protocol import Problem, discovery_accuracy
from .proxy_anchor import ProxyNet, affinity_clusters, discover, first_split, nearest_proxy, refine_split
from .taxonomy import Watched, family

Measures = dict[str, float]


def _drawn(p: Problem, seed: int) -> Generator:
    return Generator(p.x.device).manual_seed(seed)


def new_accuracy(p: Problem, clusters: Int[Tensor, " m"]) -> float:
    """New accuracy of clusters of the unlabelled rows, where all of these are of new classes."""
    return discovery_accuracy(clusters, p.y[~p.labelled], p.old)["New"]


def discovered(name: str, p: Problem, *, seed: int, steps: int) -> tuple[float, str]:
    """New accuracy of the method of that name in ``NCD``, and the family that its reads put it in."""
    data = Watched(p)
    clusters = NCD[name](data, p.classes - p.old, generator=_drawn(p, seed), steps=steps)
    return new_accuracy(p, clusters), family(data.reads)


def pbn_arms(
    p: Problem, settings: list[tuple[float, int]], *, seed: int, hide: int = 2, folds: int = 2, **options
) -> dict:
    """PBN on one table: all settings and all folds trained side by side, the setting chosen by hidden classes.

    settings  pairs of the classifier's weight w and the width of the latent; some have w = 1, the baseline
    options   of ``train_pbn``, whose latent is brought to length 1

    Returns, by setting, the accuracy on ``hidden`` classes (mean over folds) and on new ones from latents of length 1
    (``new``) and as they come (``raw``, as the released code predicts); that of the setting which the hidden classes
    choose (``PBN``), its ``w`` and its latent of the new rows (``z``), and that of the chosen one with w = 1
    (``baseline``).
    """
    g = torch.Generator().manual_seed(seed)
    dealt, k = [[], *hidden_class_folds(p.old, hide, folds, generator=g)], p.classes - p.old
    gone = [torch.tensor(f, dtype=torch.int64) for f in dealt]
    known = torch.stack([torch.where(torch.isin(p.known, f), -1, p.known) for f in gone for _ in settings])
    w, width = zip(*settings * len(dealt), strict=True)
    net = train_pbn(p.x, known, torch.tensor(w), list(width), generator=g, norm="l2", **options)
    with torch.no_grad():
        raw = net.encoder(p.x.expand(len(known), -1, -1)) * net.keep
    raw = raw.view(len(dealt), len(settings), *raw.shape[1:])
    z, novel = unit_rows(raw, 3), ~p.labelled

    def clustered(rows, n):
        return best_kmeans(rows, n, generator=torch.Generator().manual_seed(0))

    def on_hidden(fold, at):
        rows = torch.isin(p.y, gone[fold]) & p.labelled
        return discovery_accuracy(clustered(z[fold, at][rows], hide), p.y[rows], 0)["All"]

    every = range(len(settings))
    hidden = [sum(on_hidden(fold, at) for fold in range(1, len(dealt))) / folds for at in every]
    new, unscaled = ([new_accuracy(p, clustered(each[0, at][novel], k)) for at in every] for each in (z, raw))
    best = max(every, key=lambda at: hidden[at])
    taught = max((at for at in every if settings[at][0] == 1.0), key=lambda at: hidden[at])
    chosen = dict(z=z[0, best][novel], w=settings[best][0], PBN=new[best], baseline=new[taught])
    return chosen | dict(hidden=hidden, new=new, raw=unscaled)


def table_rivals(p: Problem, *, seed: int, spectrum: bool = True) -> Measures:
    """New accuracy of what trains nothing, on one table: k-means and spectral clustering without and with known rows.

    spectrum  False leaves the spectral pair out
    """
    known, novel = known_split(p)
    y, k, g = p.y[p.labelled], p.classes - p.old, _drawn(p, seed)
    seeds = ncd_kmeans(novel, torch.stack([known[y == c].mean(0) for c in range(p.old)]), k, generator=g)
    plain = best_kmeans(novel, k, generator=_drawn(p, seed))
    found = {"k-means": plain, "NCD k-means": seeds.labels[seeds.best]}
    if spectrum:
        found["spectral"] = spectral(tree_affinity(novel, 0.5), k, seed)
        found["NCD spectral"] = ncd_spectral(novel, known, y, k, generator=g)
    return {name: new_accuracy(p, clusters) for name, clusters in found.items()}


def moved(p: Problem, start: int, *, seed: int, dims: int, psi: float, rounds: int, **options) -> dict:
    """Split and merge from ``start`` clusters on the problem's principal components, by GPC.

    All, Old and New, the number of clusters found (``k``), how far it is off (``off``), and the numbers on the way.
    """
    low = principal(p.x, dims)
    found = split_and_merge(low, p.known, start, generator=_drawn(p, seed), rounds=rounds, psi=psi, **options)
    labels, _, counts = found
    return p.judge(labels) | {"k": counts[-1], "counts": [start, *counts], "off": abs(counts[-1] - p.classes)}


def pim_arms(
    p: Problem,
    grid: tuple[float, ...],
    off: dict[str, tuple[float, float, float]],
    *,
    seed: int,
    k: int | None = None,
    restarts: int = 10,
    **options,
) -> dict:
    """PIM for every λ of a grid and with terms taken out, from one start: semi-supervised k-means, its first rival.

    off      names and weights of H(Y|X), H(Y) and CE for the arms beside the grid
    k        clusters, if not the true number
    options  of ``train_pim``

    Returns measures ``by`` λ and name, the λ found (``lam``), the search's accuracy of labelled rows by λ, the measures
    of the λ found (``chosen``) and of k-means (``semi``).
    """
    k = k or p.classes
    lam, labelled = choose_lambda(p, k, grid, generator=_drawn(p, seed), restarts=restarts, **options)
    start = semi_supervised_kmeans(p.x, p.known, k, generator=_drawn(p, seed), restarts=restarts)
    weights = torch.tensor([(v, 1.0, 1.0) for v in grid] + list(off.values()))
    clusters = train_pim(p.x, p.known, start.centroids[start.best], weights, **options).argmax(2)
    by = dict(zip([*grid, *off], (p.judge(c) for c in clusters), strict=True))
    return dict(by=by, lam=lam, labelled=labelled, chosen=by[lam], semi=p.judge(start.labels[start.best]))


def tailed(p: Problem, ratio: float, *, seed: int) -> Problem:
    """The problem with classes made uneven: the largest ``ratio`` times as large as the smallest, in random order."""
    g = _drawn(p, seed)
    order = torch.randperm(p.classes, generator=g, device=g.device)
    return p.part(long_tailed(order[p.y], ratio, generator=g))


def split_arms(p: Problem, net: ProxyNet, *, seed: int, near: float) -> dict[str, Bool[Tensor, " n"]]:
    """Who is taken for old: by the cosine and by the refined net, from a threshold of ``near`` and from the released 0.

    Keys are "cosine" and "refined" with the threshold.
    """
    found = {}
    for at in (near, 0.0):
        found["cosine", at] = first_split(net, p.x, at)
        found["refined", at] = refine_split(net, p.x, generator=_drawn(p, seed), threshold=at)
    return found


@torch.no_grad()
def split_area(p: Problem, net: ProxyNet) -> float:
    """How often an old unlabelled row has a larger cosine with its nearest proxy than a new one: area under the ROC."""
    from sklearn.metrics import roc_auc_score

    nearest = net.similar(p.x).amax(1)[~p.labelled]
    return float(roc_auc_score((p.y < p.old)[~p.labelled].cpu(), nearest.cpu()))


@torch.no_grad()
def count_new(p: Problem, net: ProxyNet, old: Bool[Tensor, " n"], preference: float) -> int:
    """How many new classes affinity propagation finds among the unlabelled rows that a split takes for new."""
    z = unit_rows(net(p.x))[~p.labelled & ~old]
    return len(affinity_clusters(z, preference)[1]) if len(z) > 1 else len(z)


def proxy_session(p: Problem, net: ProxyNet, old: Bool[Tensor, " n"], *, seed: int, **options) -> Measures:
    """All, Old, New after PA-CGCD's second session, the number of new proxies, and what was forgotten.

    Forgetting is how far the accuracy on unlabelled old rows falls below that of the first session's nearest proxy.
    Options are those of ``discover``.
    """
    after, k = discover(p, net, old, generator=_drawn(p, seed), **options)
    rows = ~p.labelled & (p.y < p.old)
    was = float((nearest_proxy(net, p.x)[rows] == p.y[rows]).double().mean())
    measured = p.judge(nearest_proxy(after, p.x))
    return measured | {"forgot": was - measured["Old"], "k": k}
