"""The chapter's stage: images with wrong labels, stacks of small networks, and one loop of epochs for all methods."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from ... import augment
from ...data.batches import mixed_seed
from ...data.synthetic import SPLITS
from ...data.synthetic import digits as all_digits
from ...nets.conv import ResNet18
from ...nets.stacked import StackedLinear, StackedMLP
from ...train import allowed, fit
from .. import views
from ..images import CLASSES, digits
from ..training import train

DIGITS, PHOTOS = 14, 32  # pixels a side


@dataclass(frozen=True)
class Images:
    """Rows (N, d) in [0, 1] and their true labels (N,)."""

    x: Tensor
    y: Tensor


class ResNets(nn.Module):
    """n ResNet-18 with linear heads: rows of 3·32·32 values, (b, 3072) for all or (n, b, 3072), to (n, b, outputs).

    The full scale's stand-in for ``StackedMLP``: the same names, n networks one after another.
    """

    def __init__(self, n: int, outputs: int, *, generator: Generator, same: bool | int = False):
        super().__init__()
        starts = int(same) or n
        seeds = torch.randint(2**31, (starts,), generator=generator, device=generator.device).tolist()
        with torch.random.fork_rng(devices=[]):
            made = []
            for i in range(n):
                torch.manual_seed(seeds[i % starts])
                made.append(ResNet18())
        self.n, self.body = n, nn.ModuleList(made).to(generator.device)
        self.head = StackedLinear(n, made[0].features, outputs, generator=generator, same=same)

    def features(self, x: Float[Tensor, "*n b d"]) -> Float[Tensor, "n b f"]:
        x = x if x.ndim == 3 else x.expand(self.n, *x.shape)
        pictures = x.unflatten(2, (3, PHOTOS, PHOTOS))
        return torch.stack([net(rows) for net, rows in zip(self.body, pictures, strict=True)])

    def forward(self, x: Float[Tensor, "*n b d"]) -> Float[Tensor, "n b o"]:
        return self.head(self.features(x))


class Stage:
    """Images, networks and views at the scale of ``run``.

    Quick and long: MNIST digits at 14×14 pixels, ``count`` of them a seed, and perceptrons. Full: CIFAR-10 and
    ResNet-18. Everything is rows: the views and the networks know what pictures they are.

    count   labelled training images a seed
    draws   sets of wrong labels a seed: all of an arm's networks train side by side, and a seed's value is their mean
    kind    "mnist", or "optdigits": 8×8 digits of other hands, the second data set of longer runs
    """

    def __init__(self, run, count: int = 1000, draws: int = 2, kind: str = "mnist"):
        self.run, self.draws, self.classes = run, draws, CLASSES
        if kind == "optdigits":
            images, labels = all_digits("optdigits")
            parts = [slice(*SPLITS[kind][split]) for split in run.splits]
            (x, y), (tx, ty) = ((images[part].flatten(1), labels[part]) for part in parts)
            self.count, self.side, self.channels, self.source = min(count, len(x)), 8, 1, "optdigits, 8×8 pixels"
        elif run.scale != "full":
            (x, y), (tx, ty) = (digits(split, DIGITS) for split in run.splits)
            self.count, self.side, self.channels = min(count, len(x)), DIGITS, 1
            self.source = "MNIST, 14×14 pixels"
        else:
            from ...data import benchmark

            data = benchmark("cifar10", device=run.device)
            x, y, tx, ty = data.train_images, data.train_labels, data.test_images, data.test_labels
            if run.tuning:
                x, y, tx, ty = x[:40_000], y[:40_000], x[40_000:], y[40_000:]
            if run.dry:  # a copy may be sorted by class: draw the few at random
                dice = torch.Generator().manual_seed(0)
                few, some = (torch.randperm(len(a), generator=dice)[:512].to(run.device) for a in (y, ty))
                x, y, tx, ty = x[few], y[few], tx[some[:256]], ty[some[:256]]
            x, tx = (images.flatten(1).float() / 255 for images in (x, tx))
            self.count, self.side, self.channels, self.source = len(x), PHOTOS, 3, data.source
        self.pool, self.test = Images(x, y), Images(tx, ty)
        if kind == "mnist":
            run.data = self.source

    def images(self, seed: int, count: int | None = None) -> Images:
        """``count`` training images of a seed, those of all seeds alike in their classes but for chance."""
        g = torch.Generator().manual_seed(mixed_seed(seed, 7))
        some = torch.randperm(len(self.pool.y), generator=g)[: count or self.count].to(self.pool.y.device)
        return Images(self.pool.x[some], self.pool.y[some])

    def generator(self, *numbers: int) -> Generator:
        """A generator on the run's device, for weights and batches."""
        return self.run.generator(mixed_seed(*numbers))

    def net(
        self, n: int, outputs: int = CLASSES, hidden: tuple = (128,), *, generator: Generator, same: bool | int = False
    ) -> nn.Module:
        """n networks from pixels to ``outputs``; ``same`` as for ``StackedMLP``."""
        if self.channels == 3:
            return ResNets(n, outputs, generator=generator, same=same)
        return StackedMLP(n, [self.side**2, *hidden, outputs], generator=generator, same=same)

    def views(self, x: Float[Tensor, "*n b d"], generator: Generator, strong: bool = True) -> Float[Tensor, "*n b d"]:
        """Each row moved a little or (``strong``) moved, turned and scaled, with a square blanked; the shape stays.

        Digits: ``views.weak`` and ``views.strong`` of the part. Photographs are mirrored too, and recoloured if strong.
        """
        if self.channels == 1:
            return views.strong(x, generator=generator) if strong else views.weak(x, generator=generator)
        flat = augment.hflip(x.reshape(-1, self.channels, self.side, self.side), generator=generator)
        a = 2.5 if strong else 1.0
        flat = augment.affine(flat, 10 * a, 0.055 * a, (1 - 0.1 * a, 1 + 0.12 * a), 6 * a, generator=generator)
        if strong:
            flat = augment.colour_jitter(flat, generator=generator)
        return flat.reshape(x.shape)


def rounds(epochs: int, count: int, batch: int) -> int:
    """How many epochs a training of ``learn`` has: four times as many at long scale, one at least in a dry run."""
    each = max(1, count // batch)
    return max(1, allowed(epochs * each) // each)


def learn(
    module: nn.Module, loss: Callable[[Int[Tensor, "n b"], int], Tensor], count: int, *, networks: int, epochs: int,
    generator: Generator, batch: int = 64, lr: float = 3e-3, constant: bool = False, streams: int | None = None,
    after: Callable[[int], None] | None = None, weight_decay: float = 1e-4, sgd: bool = False, label: str = "",
):  # fmt: skip
    """Train a stack for some epochs over ``count`` samples, each network going through them in an order of its own.

    module    whatever is learnt
    loss      ``loss(rows, epoch)``: rows (networks, batch) are places 0 … count - 1; returns the sum over the networks
    epochs    of the quick scale; ``rounds`` says how many there are
    constant  the learning rate stays at its peak from the first step on: no warm-up, no cosine
    streams   number of different orders: network i has that of network i mod streams, so that arms are paired
    sgd       stochastic gradient descent with momentum 0.9 in place of AdamW
    after     ``after(epoch)`` is called when an epoch is over, the module in training mode

    Every sample is drawn at most once an epoch; what does not fill a batch waits for the next order. Returns the
    history of ``labcode.imperfect_labels.training.train``.
    """
    batch = min(batch, count)
    each = count // batch
    streams = streams or networks
    order = torch.empty(0)

    def step(i: int) -> Tensor:
        nonlocal order
        epoch, place = divmod(i, each)
        if place == 0:
            if epoch and after:
                after(epoch - 1)
            drawn = torch.rand(streams, count, generator=generator, device=generator.device).argsort(1)
            order = drawn[torch.arange(networks, device=drawn.device) % streams]
        return loss(order[:, place * batch : (place + 1) * batch], epoch)

    fixed = dict(warmup=0, final_lr=lr) if constant else {}
    options = dict(steps=epochs * each, lr=lr, weight_decay=weight_decay, label=label) | fixed
    if sgd:
        history = fit(module, lambda i: {"loss": step(i)}, lambda i: i, optimizer="sgd", **options)
    else:
        history = train(module, step, **options)
    if after:
        module.train()
        after(rounds(epochs, count, batch) - 1)
        module.eval()
    return history
