"""Novel class discovery in two stages and in one: KCL, MCL, DTC; AutoNovel, UNO, TabularNCD. One signature for all.

``method(data, k, *, generator, steps) -> clusters of the unlabelled rows``: data are ``Watched``, k is the number of
new classes. All train perceptrons on the rows given, with Adam; papers train networks on images.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from ...loss import check_matrix, check_positive, float32, unit_rows
from ...train import allowed
from ...transport import sinkhorn_codes
from ..many_kmeans import many_kmeans
from .stacked import StackedMLP
from .taxonomy import Watched

HIDDEN, WIDTH, BATCH = 128, 64, 64


@float32
def pair_bce(p: Float[Tensor, "n k"], similar: Float[Tensor, "n n"], other: Float[Tensor, "n k"]) -> Float[Tensor, ""]:
    """Binary cross entropy of the chance p_i · q_j that two rows share a cluster: MCL (Hsu et al., 2019).

    p, other  cluster probabilities, rows sum to 1; of one view and of another
    similar   in [0, 1]: 1 for a pair that is taken for one class

    Chances are kept within [1e-6, 1 - 1e-6]. Raises ValueError for shapes that do not fit.
    """
    check_matrix("p", p)
    check_matrix("other", other)
    check_matrix("similar", similar)
    if other.shape != p.shape or similar.shape != (len(p), len(p)):
        raise ValueError(
            f"similar must be ({len(p)}, {len(p)}) and other like p, got {tuple(similar.shape)}, {tuple(other.shape)}"
        )
    chance = (p @ other.T).clamp(1e-6, 1 - 1e-6)
    similar = similar.clamp(0, 1)
    return -(similar * chance.log() + (1 - similar) * (-chance).log1p()).mean()


@float32
def pair_kl(p: Float[Tensor, "n k"], similar: Float[Tensor, "n n"], margin: float = 2.0) -> Float[Tensor, ""]:
    """KL(p_i | p_j) for a pair that is taken for one class, and the hinge max(0, margin - KL) for one that is not: KCL.

    Hsu et al. (2018), both directions, mean over pairs of different rows. p as in ``pair_bce``; margin > 0 in nats.
    """
    check_matrix("p", p)
    check_matrix("similar", similar)
    check_positive(margin=margin)
    if similar.shape != (len(p), len(p)):
        raise ValueError(f"similar must be ({len(p)}, {len(p)}), got {tuple(similar.shape)}")
    p = p.clamp_min(1e-6)
    kl = (p * p.log()).sum(1)[:, None] - p @ p.log().T
    apart, similar = 1 - torch.eye(len(p), device=p.device, dtype=p.dtype), similar.clamp(0, 1)
    return ((similar * kl + (1 - similar) * (margin - kl).clamp_min(0)) * apart).sum() / apart.sum().clamp_min(1)


@torch.no_grad()
def rank_pairs(z: Float[Tensor, "n d"], top: int = 5) -> Float[Tensor, "n n"]:
    """1 where two rows' ``top`` largest features are the same: AutoNovel's ranking statistics (Han et al., 2020)."""
    check_matrix("z", z)
    if not 1 <= top <= z.shape[1]:
        raise ValueError(f"top must be between 1 and the {z.shape[1]} columns of z, got {top}")
    chosen = torch.zeros_like(z).scatter_(1, z.topk(top, dim=1).indices, 1.0)
    return (chosen @ chosen.T >= top).float()


@torch.no_grad()
def nearest_pairs(z: Float[Tensor, "n d"], share: float = 0.1) -> Float[Tensor, "n n"]:
    """1 for the ``share`` of rows with the largest cosines with a row: TabularNCD's pseudo-labels; symmetric."""
    z = unit_rows(z)
    count = max(1, round(share * len(z)))
    near = torch.zeros(len(z), len(z), device=z.device).scatter_(1, (z @ z.T).topk(count, 1).indices, 1.0)
    return torch.maximum(near, near.T)


def _net(widths, generator):
    return StackedMLP(widths, 1, generator=generator)


def _on(net: StackedMLP, x: Tensor) -> Tensor:
    return net(x[None])[0]


def _pick(rows: Tensor, generator: Generator, size: int = BATCH) -> Tensor:
    return torch.randint(rows.shape[-2], (size,), generator=generator, device=rows.device)


def _fit(parameters, step, steps: int, lr: float = 3e-3) -> None:
    adam = torch.optim.Adam(parameters, lr, fused=True)
    for at in range(allowed(steps)):
        loss = step(at)
        adam.zero_grad()
        loss.backward()
        adam.step()


def taught_trunk(data: Watched, stage: str, *, generator: Generator, steps: int) -> StackedMLP:
    """A perceptron trained to classify the labelled rows, its last layer taken off."""
    x, y = data.views(stage, True), data.labelled(stage)[1]
    trunk, head = _net([x.shape[2], HIDDEN, WIDTH], generator), _net([WIDTH, int(y.max()) + 1], generator)

    def step(_):
        at = _pick(x, generator)
        view = torch.randint(len(x), at.shape, generator=generator, device=at.device)
        return F.cross_entropy(_on(head, F.relu(_on(trunk, x[view, at]))), y[at])

    _fit([*trunk.parameters(), *head.parameters()], step, steps)
    return trunk


def _kmeans(z: Tensor, k: int, generator: Generator):
    found = many_kmeans(z, k, restarts=10, generator=generator)
    return found.labels[found.best], found.centroids[found.best]


@torch.no_grad()
def kmeans_clusters(data: Watched, k: int, *, generator: Generator, steps: int = 0) -> Int[Tensor, " n"]:
    """k-means on the rows as they are: labels play no part."""
    return _kmeans(unit_rows(data.unlabelled("cluster")), k, generator)[0]


def taught_clusters(data: Watched, k: int, *, generator: Generator, steps: int = 150) -> Int[Tensor, " n"]:
    """Two stages, the simplest: a classifier of the labelled rows, then k-means on its features of the others."""
    trunk = taught_trunk(data, "classify", generator=generator, steps=steps)
    with torch.no_grad():
        return _kmeans(unit_rows(F.relu(_on(trunk, data.unlabelled("cluster")))), k, generator)[0]


def pair_clusters(
    data: Watched, k: int, *, generator: Generator, steps: int = 150, loss: str = "mcl"
) -> Int[Tensor, " n"]:
    """Two stages: a net that says whether two rows share a class, learnt from labelled pairs; then clusters that agree.

    loss  "mcl": ``pair_bce``; "kcl": ``pair_kl``

    What is carried over is the pairs' net alone. The clusters' net starts anew, on the rows.
    """
    x, y = data.labelled("similarity")
    narrow, judge = _net([x.shape[1], HIDDEN, 32], generator), _net([64, 32, 1], generator)

    def score(a):
        a, n = _on(narrow, a), len(a)
        return _on(judge, torch.cat([(a[:, None] - a[None]).abs(), a[:, None] * a[None]], 2).flatten(0, 1)).view(n, n)

    def learn(_):
        at = _pick(x, generator, BATCH // 2)
        same = (y[at][:, None] == y[at][None]).float()
        return F.binary_cross_entropy_with_logits(score(x[at]), same, pos_weight=(1 / same.mean() - 1))

    _fit([*narrow.parameters(), *judge.parameters()], learn, steps)
    rows = data.unlabelled("cluster")
    net = _net([rows.shape[1], HIDDEN, k], generator)

    def cluster(_):
        a = rows[_pick(rows, generator, BATCH // 2)]
        p = _on(net, a).softmax(1)
        with torch.no_grad():
            similar = (score(a) > 0).float()
        return pair_bce(p, similar, p) if loss == "mcl" else pair_kl(p, similar)

    _fit(net.parameters(), cluster, steps)
    with torch.no_grad():
        return _on(net, rows).argmax(1)


def dtc_clusters(
    data: Watched, k: int, *, generator: Generator, steps: int = 150, every: int = 30
) -> Int[Tensor, " n"]:
    """Two stages: a classifier's features, then DEC's sharpened targets, averaged over time: DTC (Han et al., 2019).

    Student-t assignments q to centres, targets q² / Σ q normalised; here one Student-t with one degree of freedom, in
    the space of the taught features, which go on being trained. PCA before k-means is left out: features are narrow.
    """
    trunk = taught_trunk(data, "classify", generator=generator, steps=steps)
    rows = data.unlabelled("cluster")
    with torch.no_grad():
        start = _kmeans(unit_rows(F.relu(_on(trunk, rows))), k, generator)[1]
    centres = nn.Parameter(start.clone())

    def assign(x):
        apart = torch.cdist(unit_rows(F.relu(_on(trunk, x))), centres).square()
        return F.normalize(1 / (1 + apart * WIDTH), p=1, dim=1)

    kept = {"target": None}

    def step(at):
        if at % every == 0:
            with torch.no_grad():
                q = assign(rows)
                mean = q if kept["target"] is None else (q + kept["average"]) / 2
                sharp = mean.square() / mean.sum(0)
                kept["average"], kept["target"] = mean, sharp / sharp.sum(1, keepdim=True)
        index = _pick(rows, generator)
        return F.kl_div(assign(rows[index]).log(), kept["target"][index], reduction="batchmean")

    _fit([*trunk.parameters(), centres], step, steps, 1e-3)
    with torch.no_grad():
        return assign(rows).argmax(1)


def _joint(data: Watched, k: int, objective, *, generator: Generator, steps: int, warm: int = 0):
    """One stage: a classifier of labelled rows and an objective on unlabelled ones train the same trunk at once."""
    taught, y = data.views("joint", True), data.labelled("joint")[1]
    free = data.views("joint", False)
    trunk = _net([taught.shape[2], HIDDEN, WIDTH], generator)
    old, new = _net([WIDTH, int(y.max()) + 1], generator), _net([WIDTH, k], generator)

    def step(at):
        a, b = _pick(taught, generator), _pick(free, generator)
        i, j = (torch.randperm(len(free), generator=generator, device=free.device)[:2].tolist() * 2)[:2]
        z_old = F.relu(_on(trunk, taught[i, a]))
        z1, z2 = F.relu(_on(trunk, free[i, b])), F.relu(_on(trunk, free[j, b]))
        return objective(at / steps, old, new, (z_old, y[a]), (z1, z2))

    _fit([*trunk.parameters(), *old.parameters(), *new.parameters()], step, steps)
    with torch.no_grad():
        return _on(new, F.relu(_on(trunk, data.unlabelled("joint")))).argmax(1)


def autonovel_clusters(
    data: Watched, k: int, *, generator: Generator, steps: int = 150, top: int = 5
) -> Int[Tensor, " n"]:
    """One stage: cross entropy on labelled rows, pairs by ranking statistics on the others, consistency that grows in.

    AutoNovel (Han et al., 2020): CE + BCE(s_ij, p_i · p_j) + ω(t) (MSE of two views' predictions of both heads), where
    ω = 5 exp(-5 (1 - t)²). Its self-supervised start is what the rows come from.
    """

    def objective(t, old, new, labelled, free):
        (z, y), (z1, z2) = labelled, free
        p1, p2 = _on(new, z1).softmax(1), _on(new, z2).softmax(1)
        ramp = 5 * torch.tensor(-5 * (1 - t) ** 2).exp().item()
        steady = (p1 - p2).square().mean() + (_on(old, z1).softmax(1) - _on(old, z2).softmax(1)).square().mean()
        return F.cross_entropy(_on(old, z), y) + pair_bce(p1, rank_pairs(z1, top), p2) + ramp * steady

    return _joint(data, k, objective, generator=generator, steps=steps)


def uno_clusters(
    data: Watched, k: int, *, generator: Generator, steps: int = 150, tau: float = 0.1, eps: float = 0.05
) -> Int[Tensor, " n"]:
    """One stage, one cross entropy over old and new heads together, pseudo-labels swapped between views: UNO.

    Fini et al. (2021): the logits of both heads stand side by side; labelled rows have (y, 0), unlabelled ones (0, q),
    q the other view's balanced assignment to the new head (Sinkhorn, 3 iterations, ε 0.05), without gradient. Heads
    are cosines over τ. Multi-head and over-clustering are left out: one head of k.
    """

    def scores(head, z):
        return unit_rows(z) @ F.normalize(head.weights[0][0], dim=0)

    def objective(_, old, new, labelled, free):
        (z, y), c = labelled, old.widths[-1]

        def both(z):
            return torch.cat([scores(old, z), scores(new, z)], 1) / tau

        loss = F.cross_entropy(both(z), y)
        codes = [sinkhorn_codes(scores(new, z).detach(), eps, 3) for z in free]
        for z, q in zip(free, codes[::-1], strict=True):
            loss = loss - (F.pad(q, (c, 0)) * both(z).log_softmax(1)).sum(1).mean() / 2
        return loss

    return _joint(data, k, objective, generator=generator, steps=steps)


def tabular_ncd_clusters(
    data: Watched,
    k: int,
    *,
    generator: Generator,
    steps: int = 150,
    share: float = 0.15,
    weight: float = 0.5,
    near: int = 5,
) -> Int[Tensor, " n"]:
    """One stage for tables: pairs by nearest cosines, and rows mixed with a neighbour as the second view: TabularNCD.

    Troisemaine et al. (2022): (1 - w) CE + w BCE(pairs) + consistency with a row moved towards one of its nearest
    ones, as SMOTE does; here neighbours come from the batch, and w is ``weight``.

    share  of a batch that counts as a row's positives: about one over the number of new classes
    """

    def objective(_, old, new, labelled, free):
        (z, y), (z1, _) = labelled, free
        with torch.no_grad():
            order = torch.cdist(z1, z1).topk(near + 1, 1, largest=False).indices[:, 1:]
            pick = torch.randint(near, (len(z1), 1), generator=generator, device=z1.device)
            other = order.gather(1, pick)[:, 0]
            step = torch.rand(len(z1), 1, generator=generator, device=z1.device)
        moved = z1 + step * (z1[other] - z1)
        p1, p2 = _on(new, z1).softmax(1), _on(new, moved).softmax(1)
        return (
            (1 - weight) * F.cross_entropy(_on(old, z), y)
            + weight * pair_bce(p1, nearest_pairs(z1, share), p2)
            + (p1 - p2).square().mean()
        )

    return _joint(data, k, objective, generator=generator, steps=steps)


NCD = {
    "k-means": kmeans_clusters,
    "taught + k-means": taught_clusters,
    "KCL": lambda *a, **o: pair_clusters(*a, loss="kcl", **o),
    "MCL": pair_clusters,
    "DTC": dtc_clusters,
    "AutoNovel": autonovel_clusters,
    "UNO": uno_clusters,
    "TabularNCD": tabular_ncd_clusters,
}
