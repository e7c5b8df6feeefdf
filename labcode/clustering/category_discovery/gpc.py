"""GPC (Zhao et al., 2023): a semi-supervised mixture that splits and merges, and prototypes that teach features."""

import math

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from ...loss import check_matrix, check_positive, float32, raised, unit_rows
from ..many_kmeans import many_kmeans
from .gcd import Heads, semi_supervised_kmeans, train_gcd
from .protocol import Problem

SMALL = 5  # rows: a part with no more neither arises nor is split, as in the released code


def niw_marginal(
    x: Float[Tensor, "n d"],
    centre: Float[Tensor, " d"],
    psi: float = 0.005,
    kappa: float = 1e-4,
    nu: float | None = None,
) -> float:
    """log ∫ Π N(x; μ, Σ) NIW(μ, Σ) dμ dΣ in nats: how well one Gaussian of unknown mean and covariance explains rows.

    Murphy (2007), eq. 266, which DPGMMs and GPC's Hastings ratio take for a cluster's likelihood.

    centre  the prior's mean
    psi     > 0, the prior's scatter is psi · I, in squared units of x: the size of cluster that is expected
    kappa   > 0, how many rows the centre is worth
    nu      > d - 1, how many the scatter is worth; None is d + 1, the fewest with an expectation

    In float64. An empty x gives 0. Raises ValueError for psi, kappa or nu out of range.
    """
    check_positive(psi=psi, kappa=kappa)
    n, d = x.shape
    nu = d + 1.0 if nu is None else nu
    if not nu > d - 1:
        raise ValueError(f"nu must be above d - 1 = {d - 1}, got {nu}")
    if not n:
        return 0.0
    x, centre = x.double(), centre.double()
    mean = x.mean(0)
    apart = (mean - centre)[:, None]
    scatter = (x - mean).T @ (x - mean) + kappa * n / (kappa + n) * apart @ apart.T
    after = scatter + psi * torch.eye(d, dtype=x.dtype, device=x.device)
    gamma = torch.special.multigammaln(torch.tensor([(nu + n) / 2, nu / 2], dtype=torch.float64), d)
    log_det = float(torch.linalg.slogdet(after)[1])
    value = -n * d / 2 * math.log(math.pi) + float(gamma[0] - gamma[1]) + nu / 2 * d * math.log(psi)
    return value - (nu + n) / 2 * log_det + d / 2 * (math.log(kappa) - math.log(kappa + n))


def log_split_ratio(
    whole: Tensor, first: Tensor, second: Tensor, centre: Tensor, psi: float, alpha: float = 1.0
) -> float:
    """log H of the split of ``whole`` into two parts; minus it is that of their merge.

    H = α Γ(N₁) L₁ Γ(N₂) L₂ / (Γ(N) L), L the marginal likelihood of a part's rows and N their number (GPC, eq. 6, after
    DeepDPM). Above 0 two clusters explain the rows better than one.
    """
    sizes = math.lgamma(len(first)) + math.lgamma(len(second)) - math.lgamma(len(whole))
    parts = niw_marginal(first, centre, psi) + niw_marginal(second, centre, psi) - niw_marginal(whole, centre, psi)
    return math.log(alpha) + sizes + parts


def _accepts(ratio: float, rule: str, generator: Generator) -> bool:
    draw = float(torch.rand((), generator=generator, device=generator.device))
    chance = {"metropolis": math.exp(min(0.0, ratio)), "greedy": 0.0, "constant": 0.1}[rule]
    return ratio > 0 or draw < chance


@torch.no_grad()
def split_and_merge(
    x: Float[Tensor, "n d"],
    known: Int[Tensor, " n"],
    k: int,
    *,
    generator: Generator,
    rounds: int = 10,
    psi: float = 0.005,
    rule: str = "metropolis",
    moves: tuple[str, ...] = ("split", "merge"),
) -> tuple[Int[Tensor, " n"], Float[Tensor, "k d"], list[int]]:
    """Semi-supervised k-means whose number of clusters moves: GPC, section 3.3. Labels, centroids, k after each round.

    Each round: hard semi-supervised k-means from the present centroids; for every cluster without labelled rows the
    split into its 2-means by ``log_split_ratio``; of those that stay whole, each with its nearest by the ratio of the
    merge. Clusters of old classes neither split nor merge. A last k-means without moves ends it.

    known  class or -1
    k      clusters to start from, at least as many as known classes
    psi    the prior's scatter, in squared units of x: it decides how large a cluster is, and so how many there are
    rule   "metropolis": an unlikely move with chance H (the paper); "constant": with chance 0.1 (the released code);
           "greedy": never
    moves  which of "split" and "merge" are made

    Rows are what the paper reduces by PCA first. The released code merges one cluster with several others in one round;
    here a cluster takes part in one move (ours). Raises ValueError for an unknown rule, and as
    ``semi_supervised_kmeans``.
    """
    if rule not in ("metropolis", "constant", "greedy"):
        raise ValueError(f"rule must be 'metropolis', 'constant' or 'greedy', got {rule!r}")
    check_matrix("x", x)
    old, centre, counts, start = int(known.max()) + 1, x.mean(0), [], None
    for _ in range(rounds):
        found = semi_supervised_kmeans(
            x, known, k, generator=generator, restarts=3 if start is None else 1, iterations=20, start=start
        )
        labels, centroids = found.labels[found.best], found.centroids[found.best]
        kept = [centroids[j] for j in range(old)]
        whole = []
        for j in range(old, k):
            rows = x[labels == j]
            halves = _halves(rows, generator) if "split" in moves else None
            if halves and _accepts(log_split_ratio(rows, *halves, centre, psi), rule, generator):
                kept += [part.mean(0) for part in halves]
            elif len(rows):
                whole.append((rows, rows.mean(0)))
        kept += _merged(whole, centre, psi, rule, generator) if "merge" in moves else [mean for _, mean in whole]
        start, k = torch.stack(kept)[None], len(kept)
        counts.append(k)
    found = semi_supervised_kmeans(x, known, k, generator=generator, restarts=1, start=start)
    return found.labels[0], found.centroids[0], counts


def _halves(rows: Tensor, generator: Generator) -> tuple[Tensor, Tensor] | None:
    if len(rows) <= SMALL:
        return None
    two = many_kmeans(rows, 2, restarts=2, generator=generator, iterations=15)
    side = two.labels[two.best].bool()
    parts = rows[~side], rows[side]
    return parts if min(map(len, parts)) > SMALL else None


def _merged(whole: list, centre: Tensor, psi: float, rule: str, generator: Generator) -> list[Tensor]:
    """Each cluster is tried with the nearest that is left; a merged one takes part no more."""
    means, left = [mean for _, mean in whole], list(range(len(whole)))
    result = []
    while left:
        j = left.pop(0)
        if left:
            near = min(left, key=lambda i: float((means[i] - means[j]).square().sum()))
            both = torch.cat([whole[j][0], whole[near][0]])
            if _accepts(-log_split_ratio(both, whole[j][0], whole[near][0], centre, psi), rule, generator):
                left.remove(near)
                result.append(both.mean(0))
                continue
        result.append(means[j])
    return result


def principal(x: Float[Tensor, "n d"], dims: int) -> Float[Tensor, "n dims"]:
    """The rows' coordinates along their ``dims`` widest directions, centred."""
    x = x - x.mean(0)
    _, vectors = torch.linalg.eigh(x.T @ x)
    return x @ vectors[:, -dims:].flip(1)


def concentrations(
    x: Float[Tensor, "n d"], labels: Int[Tensor, " n"], centroids: Float[Tensor, "k d"], tau: float = 0.1
):
    """φ of every prototype: PCL (Li et al., 2021), eq. 12. Mean distance of its rows over log(N + 10), (k,).

    Clusters of one row or none get the largest; then clipped to the 10th and 90th percentile, and scaled to mean
    ``tau``.
    """
    k = len(centroids)
    distance = (x - centroids[labels]).norm(dim=1)
    count = torch.bincount(labels, minlength=k)
    total = torch.zeros(k, dtype=x.dtype, device=x.device).index_add_(0, labels, distance)
    phi = total / count.clamp_min(1) / (count + 10.0).log()
    phi = torch.where(count > 1, phi, phi.max())
    low, high = phi.quantile(torch.tensor([0.1, 0.9], dtype=phi.dtype, device=phi.device))
    phi = phi.clamp(low, high)
    return tau * phi / phi.mean().clamp_min(1e-12)


@float32
def prototype_contrast(
    z: Float[Tensor, "n d"], labels: Int[Tensor, " n"], prototypes: Float[Tensor, "k d"], phi: Float[Tensor, " k"]
) -> Float[Tensor, ""]:
    """-mean log softmax_c(<z, c> / φ_c) at each row's own prototype, over *all* prototypes: GPC's contrast.

    z, prototypes  brought to length 1
    phi            concentrations, raised to 1e-3 at least: where a cluster is tight its prototype pulls harder

    PCL draws some other prototypes as negatives. Raises ValueError for shapes that do not fit.
    """
    check_matrix("z", z)
    check_matrix("prototypes", prototypes)
    if labels.shape != (len(z),):
        raise ValueError(f"labels must name a prototype for each of the {len(z)} rows of z, got {tuple(labels.shape)}")
    if prototypes.shape[1] != z.shape[1] or phi.shape != (len(prototypes),):
        raise ValueError(f"phi must be ({len(prototypes)},) and prototypes as wide as z, got {tuple(phi.shape)}")
    logits = unit_rows(z) @ unit_rows(prototypes).T / phi.clamp_min(1e-3)
    return torch.nn.functional.cross_entropy(logits, labels)


def train_gpc(
    problems: list[Problem],
    *,
    generator: Generator,
    steps: int = 150,
    warm: int = 60,
    every: int = 30,
    start: int = 15,
    dims: int = 8,
    psi: float = 0.005,
    weight: float = 1.0,
    move: bool = True,
    **options,
) -> tuple[Heads, list[list[int]]]:
    """Alternate: after a warm-up of GCD's training, every so many steps a mixture, whose means teach the features.

    start   clusters that the first mixture begins with; later ones begin with the last number
    weight  of the prototypical loss; 0 leaves GCD's training
    move    False keeps ``start`` clusters: prototypes without split and merge

    Returns the heads and, for each problem, the number of clusters after each mixture. Prototypes are means of the
    features of unit length, assignments come from their PCA, both as released.
    """
    state, numbers = [None] * len(problems), [[start] for _ in problems]

    def extra(step, heads, features, known, g):
        if step < warm or not weight:
            return 0.0
        if (step - warm) % every == 0:
            for i, (p, f) in enumerate(
                zip(problems, heads.features(torch.stack([p.x for p in problems])), strict=True)
            ):
                low = principal(f, dims)
                moved = split_and_merge(
                    low,
                    p.known,
                    numbers[i][-1],
                    generator=g,
                    psi=psi,
                    rounds=4,
                    moves=("split", "merge") if move else (),
                )
                labels, k = moved[0], len(moved[1])
                numbers[i].append(k)
                sums = torch.zeros(k, f.shape[1], device=f.device).index_add_(0, labels, f)
                protos = sums / torch.bincount(labels, minlength=k).clamp_min(1)[:, None]
                state[i] = protos, concentrations(f, labels, protos), labels
        total = 0.0
        for z, (protos, phi, _) in zip(features, state, strict=True):
            with torch.no_grad():  # the views of a batch are assigned to the nearest prototype by their mean
                half = unit_rows(z[: len(z) // 2]) + unit_rows(z[len(z) // 2 :])
                near = (unit_rows(half) @ unit_rows(protos).T).argmax(1).repeat(2)
            total = total + weight * prototype_contrast(z, near, protos, phi)
        return total

    return train_gcd(problems, generator=generator, steps=steps, extra=extra, **options), numbers


def bic_classes(x: Float[Tensor, "n d"], ks: tuple[int, ...], *, generator: Generator, covariance: str = "full") -> int:
    """The number of components with the least BIC among ``ks``: a mixture of Gaussians without labels."""
    from ..gaussian_mixture import gaussian_mixture

    found = {
        k: gaussian_mixture(raised(x), k, restarts=1, covariance=covariance, generator=generator, iterations=20)
        for k in ks
    }
    return min(ks, key=lambda k: float(found[k].bic(len(x)).min()))


def gcd_classes(p: Problem, ks: tuple[int, ...], *, generator: Generator, anchors: float = 0.5) -> int:
    """GCD's estimate of the number of classes: the k at which k-means clusters held-out labelled rows best.

    Half of the old classes stay labelled (``anchors``), the rest are hidden; score is the Hungarian accuracy on those.
    The paper searches by Brent's method; here every k is tried. Ties go to the smallest k.
    """
    from .protocol import discovery_accuracy

    kept = max(1, round(p.old * anchors))
    known = torch.where(p.known < kept, p.known, -1)
    probe = p.labelled & (p.y >= kept)

    def score(k):
        found = semi_supervised_kmeans(p.x, known, k, generator=generator, restarts=3, iterations=20)
        return discovery_accuracy(found.labels[found.best][probe], p.y[probe], 0)["All"]

    return max(ks, key=score)
