"""UnMixMatch (Roy and Etemad 2024): learn from unlabelled images that show anything at all.

No unlabelled image is given a class as its target. They are mixed into labelled ones, told apart from each other, and
turned: three uses that do not ask what they show.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from ...data.batches import mixed_seed
from ...loss import check_index, check_positive, raised, unit_rows
from ...nets.stacked import StackedLinear, StackedMLP
from ..images import foreign
from ..training import cross_entropy, predict
from ..views import mix, mixing
from .stage import Batch, Method, Stage, fixmatch, learn, pseudo_label


def soft_labels(
    p: Float[Tensor, "n b k"], running: Float[Tensor, "..."], temperature: float = 0.5
) -> Float[Tensor, "n b k"]:  # fmt: skip
    """Soft labels of unlabelled images: aligned with a uniform distribution of classes, then sharpened.

    p ∝ p_c / r_c, then ∝ p_c^(1/T), each row summing to 1 (ReMixMatch, section 3.1; here only partners of a mixture).

    p            predictions on weak views
    running      r, a running mean of predictions, whose overweight classes are taken down
    temperature  > 0; 0.5 in the authors' code. 1 leaves the aligned row as it is

    In the logarithm: a class of probability 0 stays at 0. No gradient. Raises ValueError for shapes that do not fit and
    a temperature that is not positive.
    """
    check_positive(temperature=temperature)
    if p.ndim != 3 or running.shape != p.shape[::2]:
        raise ValueError(f"p must be (n, b, k) and running (n, k), got {tuple(p.shape)} and {tuple(running.shape)}")
    p, running = raised(p.detach()), raised(running.detach())
    return ((p.log() - running.clamp_min(1e-12).log()[:, None]) / temperature).softmax(-1)


def rand_mixup(
    x: Float[Tensor, "n b d"], y: Float[Tensor, "n b k"], others: Float[Tensor, "n m d"], soft: Float[Tensor, "n m k"],
    share: Float[Tensor, "n _"], partner: Int[Tensor, "..."],
) -> tuple[Float[Tensor, "n b d"], Float[Tensor, "n b k"]]:  # fmt: skip
    """Labelled images, each mixed with a partner from all images, and their targets mixed alike (RandMixUp).

    x, y          labelled images and their one-hot labels
    others, soft  views of unlabelled images and their soft labels; the images need no class for that
    share         λ of the labelled image, (n, 1) or (n, b), at least a half in the paper
    partner       places in [x, others], 0 … b + m - 1

    The authors mix the unlabelled rows too, and use them for nothing: here only the labelled ones are made. Raises
    ValueError for shapes that do not fit and partners out of range.
    """
    b, all_x, all_y = x.shape[1], torch.cat([x, others], 1), torch.cat([y, soft.to(y.dtype)], 1)
    if partner.shape != x.shape[:2] or all_x.shape[:2] != all_y.shape[:2]:
        raise ValueError(f"partner must be {tuple(x.shape[:2])}, one for each row of x, got {tuple(partner.shape)}")
    check_index("partner", partner, all_x.shape[1])
    rows = torch.cat([partner, torch.arange(b, all_x.shape[1], device=x.device).expand(len(x), -1)], 1)
    full = torch.cat([share.expand(len(x), b), torch.ones_like(soft[..., 0], dtype=share.dtype)], 1)
    return mix(all_x, full, rows)[:, :b], mix(all_y, full, rows)[:, :b]


def view_contrast(
    z: Float[Tensor, "n v b d"], tau: float = 0.5, weights: Float[Tensor, " n"] | None = None
) -> Float[Tensor, ""]:
    """NT-Xent with v views an image: each row is to find the other views of its image among all rows of its network.

    -1/(v b) Σ_i 1/(v - 1) Σ_p log exp(z_i·z_p / τ) / Σ_{a ≠ i} exp(z_i·z_a / τ) on rows of length 1, summed over the
    networks (SupCon, equation 2, without labels; v = 2 is SimCLR's loss).

    z        projections, v >= 2 views of b >= 2 images
    tau      > 0; 0.5 in the authors' code
    weights  of the networks

    The released code multiplies by τ / 0.07, so that its weight of 0.1 is one of 0.71. Memory (v b)² a network. Raises
    ValueError for fewer than two views or images and a tau that is not positive.
    """
    check_positive(tau=tau)
    if z.ndim != 4 or z.shape[1] < 2 or z.shape[2] < 2:
        raise ValueError(f"z must be (n, v, b, d) with two views and two images at least, got {tuple(z.shape)}")
    n, v, b, _ = z.shape
    z = unit_rows(raised(z)).flatten(1, 2)
    eye = torch.eye(v * b, dtype=torch.bool, device=z.device)
    logits = z @ z.mT / tau
    log_p = logits - logits.masked_fill(eye, -torch.inf).logsumexp(-1, keepdim=True)
    own = torch.eye(b, dtype=torch.bool, device=z.device).repeat(v, v) & ~eye
    each = -(log_p * own).sum((1, 2)) / ((v - 1) * v * b)
    return each.sum() if weights is None else (each * weights).sum()


def turned(x: Float[Tensor, "*n d"], turns: Int[Tensor, "..."], channels: int = 1) -> Float[Tensor, "*n d"]:
    """Images as rows, each turned anticlockwise by 90° times its number of turns: ``torch.rot90``, one pick a pixel.

    x         rows of channels · side² values
    turns     0 … 3; counted modulo 4

    Raises ValueError for rows that are no squares and turns of another shape.
    """
    side = round((x.shape[-1] / channels) ** 0.5)
    if channels * side * side != x.shape[-1] or turns.shape != x.shape[:-1]:
        raise ValueError(f"x must be square pictures with a turn each, got {tuple(x.shape)} and {tuple(turns.shape)}")
    place = torch.arange(x.shape[-1], device=x.device).view(channels, side, side)
    index = torch.stack([place.rot90(i, (1, 2)).flatten() for i in range(4)])
    return x.gather(-1, index[turns % 4])


@contextmanager
def frozen_statistics(net: nn.Module) -> Iterator[None]:
    """Within it BatchNorm computes with its batch as always, and forgets it: the running statistics stay."""
    norms = [m for m in net.modules() if getattr(m, "running_mean", None) is not None]
    kept = [(m.running_mean, m.running_var) for m in norms]
    for m in norms:
        m.running_mean, m.running_var = m.running_mean.clone(), m.running_var.clone()
    try:
        yield
    finally:
        for m, (mean, var) in zip(norms, kept, strict=True):
            m.running_mean, m.running_var = mean, var


class Heads(nn.Module):
    """What each network has beside its classifier: a projection for the contrast, and four outputs for the turns."""

    def __init__(self, n: int, width: int, outputs: int = 32, *, generator: Generator, same: bool | int = False):
        super().__init__()
        self.project = StackedMLP(n, [width, width, outputs], norm=False, generator=generator, same=same)
        self.turns = StackedLinear(n, width, 4, generator=generator, same=same)


@dataclass(frozen=True)
class UnMixArm:
    """What a network of the comparison does.

    partners  who is mixed into labelled images: "all", "labelled", or "nobody"
    contrast  β, weight of the contrast, of the plain loss
    turns     γ, weight of the prediction of turns
    weak      the contrast also has the weak view
    """

    partners: str = "all"
    contrast: float = 0.5
    turns: float = 0.3
    weak: bool = False


UNMIX_ARMS = {
    "UnMixMatch": UnMixArm(), "without RandMixUp": UnMixArm("nobody"), "without contrast": UnMixArm(contrast=0),
    "without turns": UnMixArm(turns=0), "mixes labelled only": UnMixArm("labelled"),
}  # fmt: skip
UNMIX_ALONE = {  # see no unlabelled image
    "supervised": UnMixArm("nobody", 0, 0), "supervised, MixUp": UnMixArm("labelled", 0, 0),
}  # fmt: skip


class UnMixMatch:
    """The method of a stack whose networks are arms of the comparison: L = L_sup + β L_con + γ L_rot.

    arms         one for each network; all of them or none have the weak view in the contrast
    heads        projection and turns of the stack
    draws        networks i and i + draws see the same labelled images in the same views
    streams      (n,) which of several streams of unlabelled images a network sees; those of one see the same views
    classes      k
    alpha        λ is from Beta(alpha, alpha), at least a half; 0.1 in the authors' code
    temperature  of the partners' soft labels
    tau          temperature of the contrast
    momentum     of the running mean of predictions; 0.999 for a million steps in the paper

    Departures: mixtures, strong views and turned ones go through BatchNorm in one pass, where the released code has
    several, each with a part of the mixtures; at test the network itself speaks, not its average.
    """

    def __init__(
        self, arms: Sequence[UnMixArm], heads: Heads, draws: int, streams: Int[Tensor, " n"], classes: int, *,
        alpha: float = 0.1, temperature: float = 0.5, momentum: float = 0.95, tau: float = 0.5,
    ):  # fmt: skip
        def column(values) -> Tensor:
            return torch.tensor(list(values), device=streams.device)[:, None]

        self.mixes = column(a.partners != "nobody" for a in arms)
        self.widely = column(a.partners == "all" for a in arms)
        self.contrast, self.turns = column(float(a.contrast) for a in arms)[:, 0], column(float(a.turns) for a in arms)
        self.weak = arms[0].weak
        if any(a.weak != self.weak for a in arms):
            raise ValueError("arms must all have the weak view in the contrast, or none")
        self.heads, self.draws, self.streams = heads, draws, streams
        self.first = torch.stack([(streams == s).nonzero()[0, 0] for s in range(int(streams.max()) + 1)])
        self.alpha, self.temperature, self.momentum, self.tau = alpha, temperature, momentum, tau
        self.running = torch.full((len(streams), classes), 1 / classes, device=streams.device)
        self.alone = not bool((self.contrast > 0).any() or (self.turns > 0).any() or self.widely.any())

    def partners(self, n: int, b: int, total: int, g: Generator) -> tuple[Tensor, Tensor]:
        """λ and partners of the labelled images: the draws are the same for all arms."""
        share, anyone = mixing(self.draws, total, self.alpha, generator=g, first=True)
        near = torch.rand(self.draws, b, generator=g, device=g.device).argsort(1)
        share, anyone, near = (t.repeat(n // self.draws, 1) for t in (share, anyone[:, :b], near))
        return torch.where(self.mixes, share, 1.0), torch.where(self.widely, anyone, near)

    @torch.no_grad()
    def guess(self, net: nn.Module, weak: Float[Tensor, "n b d"]) -> Float[Tensor, "n b k"]:
        """Soft labels of the weak views, after the running mean has taken them in."""
        p = raised(net(weak)).softmax(-1)
        self.running = torch.lerp(p.mean(1), self.running.to(p.dtype), self.momentum)
        return soft_labels(p, self.running, self.temperature)

    def __call__(self, net: nn.Module, batch: Batch) -> Float[Tensor, ""]:
        stage, g, n = batch.stage, batch.g, len(self.streams)
        x = stage.both(batch.x[: self.draws], g).repeat(n // self.draws, 1, 1)
        y = batch.y[: self.draws].repeat(n // self.draws, 1)
        one = nn.functional.one_hot(y, self.running.shape[1]).to(x.dtype)
        b, m = x.shape[1], batch.u.shape[1]
        share, partner = self.partners(n, b, b + 3 * m, g)
        if self.alone:  # only labelled images take part: an arm without unlabelled ones
            x, one = rand_mixup(x, one, x[:, :0], one[:, :0], share, partner)
            return cross_entropy(net(x), one)
        u = batch.u[self.first]
        weak, strong, again = (view(u, g)[self.streams] for view in (stage.weak, stage.strong, stage.strong))
        turns = torch.randint(4, u.shape[:2], generator=g, device=u.device)[self.streams]
        with frozen_statistics(net):
            soft = self.guess(net, weak).to(x.dtype)
        x, one = rand_mixup(x, one, torch.cat([strong, again, weak], 1), soft.repeat(1, 3, 1), share, partner)
        seen = [strong, again] + [weak] * self.weak
        sizes = [b, len(seen) * m, m]
        features = net.features(torch.cat([x, *seen, turned(strong, turns, stage.channels)], 1))
        known, pair, last = features.split(sizes, 1)
        z = self.heads.project(pair).unflatten(1, (len(seen), m))
        loss = cross_entropy(net.head(known), one) + view_contrast(z, self.tau, self.contrast)
        return loss + cross_entropy(self.heads.turns(last), turns, self.turns.expand(n, m))


# ---------------------------------------------------------------------------------------------------------------------
# The comparison
# ---------------------------------------------------------------------------------------------------------------------

KNOWN = (0, 1, 2, 3, 4)  # the classes with labels; CIFAR-10's at full scale: aeroplane, car, bird, cat, deer


@dataclass(frozen=True)
class Bank:
    """A stage of a few classes, and images to draw pools from: rows of those classes, and of none of them.

    stage    the known classes alone, renumbered
    inside   how many of the first rows of ``x`` are of a known class: the stage's pool
    x        (M, d)
    """

    stage: Stage
    inside: int
    x: Float[Tensor, "M d"]

    def pool(self, share: float, count: int, seed: int, different: int | None = None) -> Int[Tensor, " count"]:
        """``count`` places, a share of them outside of the known classes, in random order; ``different`` says how many
        of the ``count`` are different, the rest being repetitions."""
        g = torch.Generator().manual_seed(mixed_seed(seed, 43))
        inside, outside = (torch.randperm(m, generator=g) for m in (self.inside, len(self.x) - self.inside))
        kinds = different or count
        far = round(share * kinds)
        near = inside.repeat(-(-kinds // len(inside)))[: kinds - far]
        far = self.inside + outside.repeat(-(-kinds // len(outside)))[:far]
        some = torch.cat([near, far])[torch.randperm(kinds, generator=g)]
        return some.repeat(-(-count // kinds))[:count].to(self.x.device)


def open_bank(stage: Stage, kind: str = "classes", classes: Sequence[int] = KNOWN, count: int = 1200) -> Bank:
    """The known classes of a stage, and images of other kinds.

    kind  "classes": the stage's other classes; "pictures": ``count`` textures and faces, at full scale street-view
          house numbers

    Raises ValueError for another kind.
    """
    if kind not in ("classes", "pictures"):
        raise ValueError(f"kind must be 'classes' or 'pictures', got {kind!r}")
    known = stage.only(classes)
    y = stage.pool.y
    if kind == "classes":
        other = stage.pool.x[~torch.isin(y, torch.tensor(classes, device=y.device))]
    elif stage.channels == 1:
        other = foreign(count, stage.side, seed=14, kind="mixed").to(y.device)
    else:
        from ...data import benchmark

        other = benchmark("svhn", device=y.device).train_images[: len(y) // 2].flatten(1).float() / 255
    return Bank(known, len(known.pool), torch.cat([known.pool.x, other]))


def compare_unmixmatch(
    bank: Bank, seed: int, arms: Mapping[tuple[float, str], UnMixArm], *, per_class: int = 4, draws: int = 3,
    steps: int = 120, count: int = 1000, different: int | None = None, batch: int = 20, unlabelled: int = 48, **how,
) -> dict[tuple[float, str], float]:  # fmt: skip
    """Accuracies of arms trained side by side, mean over the draws of the labels.

    arms       (share of the pool outside of the known classes, name) -> what a network does
    per_class  labels
    count      images of a pool, ``different`` of them different
    how        further arguments of ``UnMixMatch``
    """
    stage = bank.stage
    d = stage.run.pick(quick=draws, full=1)
    shares = list(dict.fromkeys(share for share, _ in arms))
    n, device = d * len(arms), bank.x.device
    pools = torch.stack([bank.pool(s, count, seed + 100 * j, different) for s in shares for j in range(d)])
    streams = torch.cat([torch.arange(d) + d * shares.index(share) for share, _ in arms]).to(device)
    g = stage.generator(seed, 44)
    net = stage.net(n, generator=g, same=d)
    heads = Heads(n, net.head.inputs, generator=g, same=d)
    method = UnMixMatch([a for a in arms.values() for _ in range(d)], heads, d, streams, stage.classes, **how)
    labels = stage.label_sets({per_class: d}, seed).repeat(len(arms))
    learn(
        stage, labels, method, seed, steps=steps, batch=batch, unlabelled=unlabelled, pool=pools[streams], bank=bank.x,
        net=net, extra=heads,
    )  # fmt: skip
    right = (predict(net, stage.test.x).argmax(-1) == stage.test.y).float().mean(1)
    return {arm: float(part.mean()) for arm, part in zip(arms, right.split(d), strict=True)}


LABELLERS: dict[str, Method] = {"FixMatch": fixmatch, "pseudo-label": pseudo_label}


def compare_rivals(
    bank: Bank, seed: int, shares: Sequence[float], names: Sequence[str] = tuple(LABELLERS), *, per_class: int = 4,
    draws: int = 3, steps: int = 120, count: int = 1000, batch: int = 20, unlabelled: int = 48,
) -> dict[tuple[float, str], dict[str, float]]:  # fmt: skip
    """Methods that give unlabelled images classes, on the same labels and pools.

    Returns for each share and name "accuracy", "sure", the share of images of no known class that get one with a
    probability of 0.95 or more, and "caught", the largest share of one class among these.
    """
    stage = bank.stage
    d = stage.run.pick(quick=draws, full=1)
    pools = torch.stack([bank.pool(s, count, seed + 100 * j) for s in shares for j in range(d)])
    found = {}
    for name in names:
        labels = stage.label_sets({per_class: d}, seed).repeat(len(shares))
        net = learn(
            stage, labels, LABELLERS[name], seed, steps=steps, batch=batch, unlabelled=unlabelled, pool=pools,
            bank=bank.x, same=d,
        )  # fmt: skip
        right = (predict(net, stage.test.x).argmax(-1) == stage.test.y).float().mean(1)
        confidence, label = predict(net, bank.x[bank.inside :]).max(-1)
        sure = (confidence >= 0.95).float()
        one = nn.functional.one_hot(label, stage.classes).float().mul(sure[..., None]).sum(1)
        caught = one.amax(1) / one.sum(1).clamp_min(1)
        told = {"accuracy": right, "sure": sure.mean(1), "caught": caught}
        for i, share in enumerate(shares):
            found[share, name] = {what: float(v[i * d : (i + 1) * d].mean()) for what, v in told.items()}
    return found
