"""The chapter's stage: few labels, many images without, stacks of small networks, one trainer, and the plain rivals.

A *method* is ``method(net, batch) -> loss``, summed over the networks of a stack: comparing two means changing one
word. The networks of a stack share the unlabelled images of a step unless they have pools of their own; each has its
own labelled ones.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from ... import augment
from ...data.batches import mixed_seed
from ...data.synthetic import SPLITS
from ...data.synthetic import digits as all_digits
from ...loss import check_index
from ...nets.conv import ResNet18
from ...nets.stacked import StackedLinear, StackedMLP, take
from ...train import allowed
from .. import views
from ..images import CLASSES, digits
from ..label_sets import few_labels, tail
from ..training import cross_entropy, predict, train

DIGITS, PHOTOS = 14, 32  # pixels a side
MILD = dict(shift=1.0, degrees=15, scale=0.1, cutout=4)  # what supervised training on 14×14 digits likes best
LR = 4e-3  # of all trainings but fine-tuning


@dataclass(frozen=True)
class Images:
    """Rows (N, d) in [0, 1] and their true labels (N,)."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True)
class Labels:
    """Which images of the pool each network of a stack has labels of.

    places  (n, most) in the pool, the shorter sets repeated until they fill their row
    sizes   (n,) how many of a row's places are its own
    """

    places: Int[Tensor, "n most"]
    sizes: Int[Tensor, " n"]

    def draw(self, batch: int, generator: Generator) -> Int[Tensor, "n b"]:
        """A batch of places for each network, uniform and with replacement."""
        u = torch.rand(len(self), batch, generator=generator, device=generator.device)
        return self.places.gather(1, (u * self.sizes[:, None]).long())

    def repeat(self, arms: int) -> "Labels":
        """The same sets for several arms, one arm's networks after another's: network i has set i mod n."""
        return Labels(self.places.repeat(arms, 1), self.sizes.repeat(arms))

    def part(self, rows: slice) -> "Labels":
        return Labels(self.places[rows], self.sizes[rows])

    def __len__(self) -> int:
        return len(self.sizes)


def padded(sets: Sequence[Int[Tensor, "_"]], device=None) -> Labels:
    """Label sets of different sizes side by side. Raises ValueError for none, and for an empty one."""
    if not sets or not min(len(p) for p in sets):
        raise ValueError(f"sets must be one at least, none empty, got sizes {[len(p) for p in sets]}")
    most = max(len(p) for p in sets)
    rows = torch.stack([p.repeat(-(-most // len(p)))[:most] for p in sets])
    return Labels(rows.to(device), torch.tensor([len(p) for p in sets], device=device))


class ResNets(nn.Module):
    """n ResNet-18 with linear heads, one after another: rows of 3·32·32 values, shared or own, to (n, b, outputs).

    The full scale's ``StackedMLP``, with the same ``features`` and ``head``; ``width`` is the first stage's.
    """

    def __init__(self, n: int, outputs: int, width: int = 64, *, generator: Generator, same: bool | int = False):
        super().__init__()
        starts = int(same) or n
        seeds = torch.randint(2**31, (starts,), generator=generator, device=generator.device).tolist()
        made = []
        with torch.random.fork_rng(devices=[]):
            for i in range(n):
                torch.manual_seed(seeds[i % starts])
                made.append(ResNet18(width=width))
        self.n, self.width, self.body = n, made[0].features, nn.ModuleList(made).to(generator.device)
        self.head = StackedLinear(n, self.width, outputs, generator=generator, same=same)

    def features(self, x: Float[Tensor, "*n b d"]) -> Float[Tensor, "n b f"]:
        x = x if x.ndim == 3 else x.expand(self.n, *x.shape)
        pictures = x.reshape(*x.shape[:2], 3, PHOTOS, PHOTOS)
        return torch.stack([net(rows) for net, rows in zip(self.body, pictures, strict=True)])

    def forward(self, x: Float[Tensor, "*n b d"]) -> Float[Tensor, "n b o"]:
        return self.head(self.features(x))


class Stage:
    """Images, networks, views and draws of labels at the scale of ``run``.

    Quick and long: MNIST digits at 14×14 pixels and perceptrons with two hidden layers; full: CIFAR-10 and ResNet-18.
    Everything is rows: views and networks know what pictures they are. ``pool`` is all training images, of which few
    have labels; ``test`` is for the end.

    kind  "mnist", or "optdigits": 8×8 digits of other hands, brought to 14×14, the second data set of longer runs
    """

    def __init__(self, run, kind: str = "mnist"):
        if kind not in ("mnist", "optdigits"):
            raise ValueError(f"kind must be 'mnist' or 'optdigits', got {kind!r}")
        self.run, self.classes, self.hidden = run, CLASSES, (100, 64)
        self.side, self.channels = DIGITS, 1
        if kind == "optdigits":
            images, labels = all_digits("optdigits")
            x = F.interpolate(images[:, None], size=(DIGITS, DIGITS), mode="bilinear").flatten(1)
            (x, y), (tx, ty) = ((x[part], labels[part]) for part in (slice(*SPLITS[kind][s]) for s in run.splits))
            self.source = "optdigits, 14×14 pixels"
        elif run.scale != "full":
            (x, y), (tx, ty) = (digits(split, DIGITS) for split in run.splits)
            self.source = "MNIST, 14×14 pixels"
        else:
            from ...data import benchmark

            data = benchmark("cifar10", device=run.device)
            x, y, tx, ty = data.train_images, data.train_labels, data.test_images, data.test_labels
            if run.tuning:
                x, y, tx, ty = x[:40_000], y[:40_000], x[40_000:], y[40_000:]
            if run.dry:  # a copy may be sorted by class: draw the few at random
                dice = torch.Generator().manual_seed(0)
                few, some = (torch.randperm(len(a), generator=dice)[:1024].to(run.device) for a in (y, ty))
                x, y, tx, ty = x[few], y[few], tx[some[:256]], ty[some[:256]]
            x, tx = (images.flatten(1).float() / 255 for images in (x, tx))
            self.side, self.channels, self.source = PHOTOS, 3, data.source
        self.pool, self.test = Images(x, y), Images(tx, ty)
        if kind == "mnist":
            run.data = self.source

    def generator(self, *numbers: int) -> Generator:
        """A generator on the run's device, for weights, batches and views."""
        return self.run.generator(mixed_seed(*numbers))

    def net(
        self, n: int, outputs: int | None = None, hidden: tuple[int, ...] | None = None, *, generator: Generator,
        same: bool | int = False,
    ) -> nn.Module:  # fmt: skip
        """n networks from pixels to ``outputs`` (the classes); ``same`` as for ``StackedMLP``. Of ``hidden``, widths of
        the hidden layers, a ResNet takes the first for its first stage."""
        outputs = outputs or self.classes
        if self.channels == 3:
            return ResNets(n, outputs, hidden[0] if hidden else 64, generator=generator, same=same)
        return StackedMLP(n, [self.side**2, *(hidden or self.hidden), outputs], generator=generator, same=same)

    def _pictures(self, x: Tensor) -> Tensor:
        return x.reshape(-1, self.channels, self.side, self.side)

    def weak(self, x: Float[Tensor, "*n b d"], generator: Generator) -> Float[Tensor, "*n b d"]:
        """Each row moved by up to a pixel; photographs are mirrored too. The shape stays."""
        if self.channels == 1:
            return views.weak(x, generator=generator)
        moved = augment.affine(self._pictures(x), shift=0.06, generator=generator)
        return augment.hflip(moved, generator=generator).reshape(x.shape)

    def strong(self, x: Float[Tensor, "*n b d"], generator: Generator) -> Float[Tensor, "*n b d"]:
        """Each row moved, turned and scaled a little and a square of it blanked; photographs are recoloured too."""
        if self.channels == 1:
            return views.strong(x, generator=generator, **MILD)
        moved = augment.affine(self._pictures(x), 15, 0.12, (0.8, 1.2), generator=generator)
        moved = augment.colour_jitter(augment.hflip(moved, generator=generator).clamp(0, 1), generator=generator)
        return augment.cutout(moved, 12, generator=generator).reshape(x.shape)

    def both(self, x: Float[Tensor, "*n b d"], generator: Generator) -> Float[Tensor, "*n b d"]:
        """Every other row in a weak view, the others in strong ones: how labelled images are seen by every method."""
        seen = torch.empty_like(x)
        seen[..., ::2, :] = self.weak(x[..., ::2, :], generator)
        seen[..., 1::2, :] = self.strong(x[..., 1::2, :], generator)
        return seen

    def only(self, classes: Sequence[int]) -> "Stage":
        """The same stage with these classes alone, numbered 0 … in their order."""
        made = copy.copy(self)
        places = {c: i for i, c in enumerate(classes)}
        new = torch.tensor([places.get(c, -1) for c in range(self.classes)], device=self.pool.y.device)
        made.pool, made.test = (
            Images(part.x[new[part.y] >= 0], new[part.y][new[part.y] >= 0]) for part in (self.pool, self.test)
        )
        made.classes = len(classes)
        return made

    def subset(self, count: int, weak: bool = False) -> "Stage":
        """The same stage with the first ``count`` images of the pool alone; ``weak``: its strong views are weak too."""
        made = copy.copy(self)
        made.pool = Images(self.pool.x[:count], self.pool.y[:count])
        if weak:
            made.strong = made.weak
        return made

    def label_sets(self, draws: Mapping[int, int], seed: int) -> Labels:
        """``draws[c]`` sets of c labels a class for each number c, in the mapping's order.

        Draw j of any number of labels contains draw j of a smaller one. In a dry run c is at most what a class has.
        """
        y, sets = self.pool.y.cpu(), []
        most = int(torch.bincount(y, minlength=self.classes).min()) if self.run.dry else len(y)
        for c, times in draws.items():
            for j in range(times):
                g = torch.Generator().manual_seed(mixed_seed(seed, 40, j))
                sets.append(few_labels(y, min(c, most), generator=g, classes=self.classes))
        return padded(sets, self.pool.y.device)

    def tailed_sets(self, counts: Int[Tensor, " k"], draws: int, seed: int) -> Labels:
        """``draws`` long-tailed sets with counts[c] labels of class c; see ``label_sets.tail_counts``."""
        y = self.pool.y.cpu()
        counts = torch.minimum(counts, torch.bincount(y, minlength=self.classes)) if self.run.dry else counts
        made = [tail(y, counts, generator=torch.Generator().manual_seed(mixed_seed(seed, 41, j))) for j in range(draws)]
        return padded(made, self.pool.y.device)


@dataclass
class Batch:
    """What a method is given at a step.

    x, y   each network's labelled images, as they are, (n, b, d), and their labels (n, b)
    u      unlabelled images, as they are: (b', d) for all networks, or (n, b', d)
    step   of ``steps``
    g      generator of views and of whatever else is drawn
    """

    x: Tensor
    y: Tensor
    u: Tensor
    step: int
    steps: int
    g: Generator
    stage: Stage

    @property
    def progress(self) -> float:
        """0 at the first step, towards 1 at the last."""
        return self.step / max(1, self.steps)

    def known(self) -> tuple[Tensor, Tensor]:
        """The labelled images as every method sees them, and their labels."""
        return self.stage.both(self.x, self.g), self.y

    def wide(self, u: Tensor) -> Tensor:
        """Rows (b', d) that all networks share as (n, b', d); rows of their own as they are."""
        return u if u.ndim == 3 else u.expand(len(self.x), *u.shape)

    def weak(self) -> Tensor:
        """The unlabelled images in weak views, (n, b', d)."""
        return self.wide(self.stage.weak(self.u, self.g))

    def strong(self) -> Tensor:
        """The unlabelled images in strong views, (n, b', d)."""
        return self.wide(self.stage.strong(self.u, self.g))


Method = Callable[[nn.Module, Batch], Tensor]


def forward(net: nn.Module, *parts: Float[Tensor, "n b d"]) -> tuple[Float[Tensor, "n b k"], ...]:
    """Logits of several batches in one pass, so that BatchNorm sees them together."""
    return net(torch.cat(parts, 1)).split([part.shape[1] for part in parts], 1)


def learn(
    stage: Stage, labels: Labels, method: Method, seed: int, *, steps: int, batch: int = 32, unlabelled: int = 64,
    pool: Float[Tensor, "N d"] | Int[Tensor, "n N"] | None = None, bank: Float[Tensor, "M d"] | None = None,
    lr: float = LR, net: nn.Module | None = None, extra: nn.Module | None = None, same: bool | int = False,
    hidden: tuple[int, ...] | None = None,
) -> nn.Module:  # fmt: skip
    """Train a stack by a method, one network for each set of labels, and return it in evaluation mode.

    steps       of quick scale
    batch       labelled images of a network a step; ``unlabelled`` are the others
    pool        unlabelled images: rows for all networks, or each network's places in ``bank`` (n, N); None is the whole
                pool of the stage. The bank is the stage's pool where none is given
    net         goes on with this one; ``extra`` modules learn with it; a new one has ``same`` and ``hidden`` of
                ``Stage.net``

    AdamW with a warm-up and a cosine. Raises ValueError for places out of range.
    """
    g, total = stage.generator(seed, 31), allowed(steps)
    net = stage.net(len(labels), hidden=hidden, generator=stage.generator(seed, 30), same=same) if net is None else net
    source = stage.pool.x if bank is None else bank
    own = pool is not None and not pool.is_floating_point()
    if own:
        check_index("pool", pool, len(source))
    else:
        source = stage.pool.x if pool is None else pool

    def loss(step: int) -> Tensor:
        rows = labels.draw(batch, g)
        some = torch.randint(pool.shape[1] if own else len(source), (unlabelled,), generator=g, device=g.device)
        u = take(source, pool[:, some], own=False) if own else source[some]
        known = Batch(take(stage.pool.x, rows, own=False), stage.pool.y[rows], u, step, total, g, stage)
        return method(net, known)

    train(net if extra is None else nn.ModuleList([net, extra]), loss, steps, lr=lr)
    return net


def supervised(net: nn.Module, batch: Batch) -> Tensor:
    """Cross-entropy of the labelled images alone, in the views that all methods have: the first rival."""
    x, y = batch.known()
    return cross_entropy(net(x), y)


def pseudo_label(net: nn.Module, batch: Batch) -> Tensor:
    """Plain pseudo-labels (Lee 2013), the second rival: the network's own hard label of an unlabelled image, in a weak
    view, counts as a label; its weight grows from 0 to 1 over the first half of training. No threshold."""
    x, y = batch.known()
    known, own = forward(net, x, batch.weak())
    return cross_entropy(known, y) + min(1.0, 2 * batch.progress) * cross_entropy(own, own.detach().argmax(-1))


def fixmatch(net: nn.Module, batch: Batch, threshold: float = 0.95) -> Tensor:
    """FixMatch (Sohn et al. 2020): the hard label of the weak view, where it is sure, is the strong view's label."""
    x, y = batch.known()
    known, weak, strong = forward(net, x, batch.weak(), batch.strong())
    confidence, label = weak.detach().softmax(-1).max(-1)
    return cross_entropy(known, y) + cross_entropy(strong, label, (confidence >= threshold).float())


def scored(stage: Stage, net: nn.Module) -> Float[Tensor, " n"]:
    """Each network's accuracy on the test images, on the CPU."""
    return (predict(net, stage.test.x).argmax(-1) == stage.test.y).float().mean(1).cpu()


def by_count(values: Float[Tensor, " n"], draws: Mapping[int, int]) -> list[float]:
    """The mean over the draws of each number of labels: see ``Stage.label_sets``."""
    return [float(part.mean()) for part in values.split(list(draws.values()))]


def by_arm(values: Float[Tensor, " n"], arms: Sequence[str]) -> dict[str, float]:
    """The mean over each arm's networks, which stand one arm after another: see ``Labels.repeat``."""
    return dict(zip(arms, values.view(len(arms), -1).mean(1).tolist(), strict=True))


def columns(found: list[dict], *path) -> list[float]:
    """One number a seed: each seed's result, followed down the path of keys and places."""
    for key in path:
        found = [one[key] for one in found]
    return [float(v) for v in found]


def points(found: list[dict], *path) -> list[list[float]]:
    """A curve's values: for each point one number a seed, where the path leads to a list of numbers."""
    for key in path:
        found = [one[key] for one in found]
    return [[float(v) for v in values] for values in zip(*found, strict=True)]
