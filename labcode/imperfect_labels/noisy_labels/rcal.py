"""Wrong labels on a long tail: mend each class's distribution of features, then draw from it.

Zhang et al. 2023, *When Noisy Labels Meet Long Tail Dilemmas: A Representation Calibration Method* (RCAL).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from ...nets.stacked import StackedLinear, take
from ..label_sets import flip
from ..measures import many_medium_few, recalls
from ..training import cross_entropy, train
from ..views import mix, mixing
from .robust import by_arm, generalised_cross_entropy
from .stage import Stage


def local_outlier_factor(z: Float[Tensor, "n f"], k: int = 20) -> Float[Tensor, " n"]:
    """How much sparser a point lies than its k neighbours do: about 1 inside, above 1 outside (Breunig et al. 2000).

    k  at most n - 1; the smaller of the two is taken

    Reachability of a from b is max(distance, distance of b to its k-th neighbour); the density of a point is one over
    the mean reachability from its neighbours. A single point gets 1. O(n²) memory: for one class at a time.
    """
    n = len(z)
    if n < 3:
        return torch.ones(n, dtype=z.dtype, device=z.device)
    k = min(k, n - 1)
    distance = torch.cdist(z, z)
    distance.fill_diagonal_(torch.inf)
    near, place = distance.topk(k, dim=1, largest=False)
    reach = torch.maximum(near, near[:, -1][place])
    density = 1 / reach.mean(1).clamp_min(1e-10)
    return density[place].mean(1) / density


def inliers(
    z: Float[Tensor, "N f"], labels: Int[Tensor, " N"], classes: int, share: float, k: int = 20
) -> Bool[Tensor, " N"]:
    """Within each given label, all but the share with the highest outlier factor; three are kept at least.

    share  to be dropped, in [0, 1): the suspected share of wrong labels. Raises ValueError for another one.
    """
    if not 0 <= share < 1:
        raise ValueError(f"share must be in [0, 1), got {share}")
    kept = torch.ones(len(z), dtype=torch.bool, device=z.device)
    for c in range(classes):
        places = (labels == c).nonzero()[:, 0]
        drop = min(round(share * len(places)), max(0, len(places) - 3))
        if drop:
            kept[places[local_outlier_factor(z[places], k).topk(drop).indices]] = False
    return kept


def class_statistics(
    z: Float[Tensor, "N f"], labels: Int[Tensor, " N"], classes: int, kept: Bool[Tensor, " N"] | None = None,
    shrink: float = 0.0,
) -> tuple[Float[Tensor, "k f"], Float[Tensor, "k f f"], Float[Tensor, " k"]]:  # fmt: skip
    """Mean, covariance and number of the kept samples of each given label.

    shrink  share of the covariance that is the mean one of all classes, so that few samples still give a matrix of full
            rank; in [0, 1]

    Covariances divide by n; a label without samples has a mean of 0.
    """
    kept = torch.ones_like(labels, dtype=torch.bool) if kept is None else kept
    share = (F.one_hot(labels.long(), classes) * kept[:, None]).to(z.dtype)
    count = share.sum(0)
    mean = share.T @ z / count.clamp_min(1)[:, None]
    centred = z - mean[labels.long()]
    cov = torch.einsum("nk,na,nb->kab", share, centred, centred) / count.clamp_min(1)[:, None, None]
    pooled = (cov * count[:, None, None]).sum(0) / count.sum().clamp_min(1)
    return mean, torch.lerp(cov, pooled.expand_as(cov), shrink), count


def borrow(
    mean: Float[Tensor, "k f"], cov: Float[Tensor, "k f f"], count: Float[Tensor, " k"], *, head: int = 5,
    near: int = 2, own: float = 0.7, spread: float = 0.0,
) -> tuple[Float[Tensor, "k f"], Float[Tensor, "k f f"]]:  # fmt: skip
    """Tail classes take part of the statistics of the head classes whose means are nearest.

    head    so many classes with the largest counts are the head, and stay as they are
    near    head classes that a tail class borrows from, weighed by count over squared distance
    own     share that stays a tail class's own: mean' = own · mean + (1 - own) · borrowed; in [0, 1]
    spread  is added to the diagonal of a tail class's covariance

    Raises ValueError for a share out of range. The paper's weights are not public beyond their outline; these are ours.
    """
    if not 0 <= own <= 1:
        raise ValueError(f"own must be in [0, 1], got {own}")
    order = count.argsort(descending=True)
    heads, tails = order[:head], order[head:]
    if not len(tails):
        return mean, cov
    distance = torch.cdist(mean[tails], mean[heads])
    closest, place = distance.topk(min(near, len(heads)), dim=1, largest=False)
    weight = count[heads][place] / closest.square().clamp_min(1e-8)
    weight = weight / weight.sum(1, keepdim=True)
    theirs = heads[place]
    new_mean, new_cov = mean.clone(), cov.clone()
    new_mean[tails] = own * mean[tails] + (1 - own) * (weight[..., None] * mean[theirs]).sum(1)
    borrowed = (weight[..., None, None] * cov[theirs]).sum(1)
    eye = spread * torch.eye(mean.shape[1], dtype=cov.dtype, device=cov.device)
    new_cov[tails] = own * cov[tails] + (1 - own) * borrowed + eye
    return new_mean, new_cov


def virtual_features(
    mean: Float[Tensor, "k f"], cov: Float[Tensor, "k f f"], wanted: Int[Tensor, " k"], *, generator: Generator
) -> tuple[Float[Tensor, "m f"], Int[Tensor, " m"]]:
    """``wanted[c]`` draws from each class's normal distribution, and their labels; eigenvalues below 0 count as 0."""
    labels = torch.repeat_interleave(torch.arange(len(mean), device=mean.device), wanted)
    value, vector = torch.linalg.eigh(cov)
    root = vector * value.clamp_min(0).sqrt()[:, None]
    noise = torch.randn(len(labels), mean.shape[1], generator=generator, device=mean.device, dtype=mean.dtype)
    return mean[labels] + torch.einsum("nab,nb->na", root[labels], noise), labels


def prior_flips(counts: Int[Tensor, " k"], rate: float) -> Float[Tensor, "k k"]:
    """Noise by the classes' sizes: wrong with chance ``rate``, then class c with a share in proportion to its count.

    The head's labels are the frequent mistakes, so that the tail's samples drown: rows are true classes.
    """
    share = counts.double().expand(len(counts), -1).clone().fill_diagonal_(0)
    share = share / share.sum(1, keepdim=True)
    return (1 - rate) * torch.eye(len(counts), dtype=torch.float64) + rate * share


def estimation_error(
    mean: Tensor, cov: Tensor, true_mean: Tensor, true_cov: Tensor, which: Int[Tensor, " c"]
) -> tuple[float, float]:
    """Mean distance of the means, and of the covariances (Frobenius) as a share of the true one's norm."""
    off = (mean - true_mean).norm(dim=1)[which].mean()
    spread = ((cov - true_cov).norm(dim=(1, 2)) / true_cov.norm(dim=(1, 2)))[which].mean()
    return float(off), float(spread)


def known_gaussians(
    ratio: float, rate: float, seed: int, *, classes: int = 10, dim: int = 8, largest: int = 400, draws: int = 4,
    distance: float = 3.0,
) -> dict[str, dict[str, float]]:  # fmt: skip
    """Error of the class statistics where the truth is known: {"raw", "LOF", "LOF, borrow", "oracle"} → parts.

    Ten Gaussians of random covariance, a tail of ``ratio``, flips by ``prior_flips`` at ``rate``. The oracle knows
    which labels are right.
    """
    from ..label_sets import tail_counts

    told: dict = {}
    for draw in range(draws):
        g = torch.Generator().manual_seed(1000 * seed + draw)
        counts = tail_counts(classes, largest, ratio)
        means = distance * torch.randn(classes, dim, generator=g)
        roots = torch.randn(classes, dim, dim, generator=g) / dim**0.5
        y = torch.repeat_interleave(torch.arange(classes), counts)
        z = means[y] + torch.einsum("nab,nb->na", roots[y], torch.randn(len(y), dim, generator=g))
        truth = roots @ roots.mT
        labels = flip(y, prior_flips(counts, rate), generator=g).labels
        kept = inliers(z, labels, classes, rate)
        ways = {"raw": None, "LOF": kept, "oracle": labels == y}
        found = {name: class_statistics(z, labels, classes, mask) for name, mask in ways.items()}
        found["LOF, borrow"] = (*borrow(*found["LOF"]), found["LOF"][2])
        for name, (m, s, _) in found.items():
            for part, which in (("head", torch.arange(5)), ("tail", torch.arange(5, classes))):
                off, spread = estimation_error(m, s, means, truth, which)
                told.setdefault(name, {}).setdefault(part, []).append(off)
                told[name].setdefault(f"{part} covariance", []).append(spread)
    return {name: {key: sum(v) / len(v) for key, v in each.items()} for name, each in told.items()}


@dataclass(frozen=True)
class Recipe:
    """How a classifier on contrastive features is trained.

    lof, borrow  parts of the distributional calibration; ``virtual`` draws features so that all classes are alike
    loss         "ce", "GCE", "logit adjustment" (Menon et al. 2021, by the given labels' counts; at weight 1 that is
                 the balanced softmax of Ren et al. 2020), "GCE adjusted": GCE of the adjusted logits
    penalty      weight of the squared distance to the contrastive features (individual calibration); the features move
                 by a linear map that begins as the identity. None leaves them frozen
    """

    lof: bool = False
    borrow: bool = False
    virtual: bool = False
    loss: str = "ce"
    penalty: float | None = None


RECIPES = {
    "cross-entropy": Recipe(penalty=0.0), "GCE": Recipe(loss="GCE", penalty=0.0),
    "logit adjustment": Recipe(loss="logit adjustment", penalty=0.0),
    "GCE, adjusted": Recipe(loss="GCE adjusted", penalty=0.0),
    "naive Gaussians": Recipe(virtual=True, penalty=1.0), "no LOF": Recipe(borrow=True, virtual=True, penalty=1.0),
    "no borrowing": Recipe(lof=True, virtual=True, penalty=1.0),
    "no sampling": Recipe(lof=True, penalty=1.0),
    "no penalty": Recipe(True, True, True, penalty=0.0), "RCAL": Recipe(True, True, True, penalty=1.0),
}  # fmt: skip


def learn_rcal(
    stage: Stage, z: Float[Tensor, "N f"], labels: Int[Tensor, "d N"], test: Float[Tensor, "M f"], counts: Tensor,
    seed: int, recipes: dict[str, Recipe], *, steps: int, rate: float, batch: int = 128, own: float = 0.7,
) -> dict:  # fmt: skip
    """Train a classifier, and with it a linear map of the features, for every recipe and draw in one stack.

    z, test  contrastive features of training and test images; standardised here
    counts   true class sizes, for the groups of the report
    rate     suspected share of wrong labels, which is what LOF drops

    Returns by recipe "balanced" accuracy, "many", "medium", "few". A batch has as many virtual as real features where a
    recipe draws them; mixup as in the paper. Departs: the encoder is frozen behind a map that is learnt, which stands
    for fine-tuning it; the order of the paper's steps and its weights are ours.
    """
    d, count = labels.shape
    mean, std = z.mean(0), z.std(0).clamp_min(1e-3)
    z, test = (z - mean) / std, (test - mean) / std
    names, k, f = list(recipes), stage.classes, z.shape[1]
    n, device = d * len(names), z.device
    g = stage.generator(seed, 95)
    all_labels = labels.repeat(len(names), 1)
    drawn, drawn_y = [], []
    most = int(torch.stack([torch.bincount(y, minlength=k).max() for y in labels]).max())
    mask, offset = torch.ones(n, count, device=device), torch.zeros(n, k, device=device)
    for i in range(n):
        recipe, y = recipes[names[i // d]], labels[i % d]
        kept = inliers(z, y, k, rate) if recipe.lof else torch.ones_like(y, dtype=torch.bool)
        stats = class_statistics(z, y, k, kept, shrink=0.3)
        mask[i] = kept.float()
        if recipe.loss.endswith(("adjustment", "adjusted")):
            offset[i] = (stats[2] + 1).log()
        m, s = borrow(*stats, own=own) if recipe.borrow else stats[:2]
        x, vy = virtual_features(m, s, torch.full((k,), max(1, most // 2), device=device), generator=g)
        drawn.append(x)
        drawn_y.append(vy)
    drawn, drawn_y = torch.stack(drawn), torch.stack(drawn_y)

    def each(of) -> Tensor:
        return torch.tensor([of(r) for r in recipes.values()], device=device).repeat_interleave(d)

    virtual = each(lambda r: float(r.virtual))
    free, penalty = each(lambda r: float(r.penalty is not None)), each(lambda r: r.penalty or 0.0)
    is_robust = torch.tensor([recipes[names[i // d]].loss.startswith("GCE") for i in range(n)])
    robust, plain = (mask.nonzero()[:, 0].to(device) for mask in (is_robust, ~is_robust))
    move = StackedLinear(n, f, f, generator=g, same=True)
    head = StackedLinear(n, f, k, generator=g, same=True)
    with torch.no_grad():
        move.weight.zero_()
        move.bias.zero_()
    both = torch.nn.ModuleList([move, head])

    def moved(x: Tensor) -> Tensor:
        return x + free[:, None, None] * move(x)

    def loss(step: int) -> Tensor:
        rows = torch.multinomial(mask, batch, True, generator=g)
        more = torch.randint(drawn.shape[1], (n, batch), generator=g, device=device)
        pick = (virtual[:, None] * (torch.arange(batch, device=device) % 2)).bool()  # every second one is virtual
        x = torch.where(pick[..., None], take(drawn, more, own=True), take(z, rows, own=False))
        y = torch.where(pick, take(drawn_y, more, own=True), take(all_labels, rows, own=True))
        share, partner = mixing(n, batch, 1.0, generator=g, first=True)
        x0, t = mix(x, share, partner), mix(F.one_hot(y, k).float(), share, partner)
        f1 = moved(x0)
        logits = head(f1) + offset[:, None]
        some = logits.index_select(0, plain)
        value = cross_entropy(some, t.index_select(0, plain)) + (penalty * (f1 - x0).square().mean((1, 2))).sum()
        if len(robust):
            hard, bias = moved(x).index_select(0, robust), head.bias.index_select(0, robust)[:, None]
            unmixed = torch.baddbmm(bias, hard, head.weight.index_select(0, robust).mT)
            unmixed = unmixed + offset.index_select(0, robust)[:, None]
            value = value + generalised_cross_entropy(unmixed, y.index_select(0, robust))
        return value

    train(both, loss, steps, lr=3e-3, weight_decay=1e-2)
    with torch.no_grad():
        said = head(moved(test.expand(n, *test.shape))).argmax(-1)
    each_class = recalls(said, stage.test.y, k)
    told = {"balanced": by_arm(each_class.mean(1).tolist(), names)}
    largest = int(counts.max())
    for name, values in many_medium_few(each_class, counts, (largest // 2, largest // 8)).items():
        told[name] = by_arm(values.tolist(), names)
    return told
