"""The stage: a pool of images without labels, and features of them that no label took part in."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ... import nets
from ..images import digits
from ..label_sets import tail, tail_counts
from .cold_start import contrast, encode

MOST_ROWS = 13_000  # of a pool; CIFAR-10-LT has some 12,000


@dataclass(frozen=True)
class Pool:
    """Features (n, d) and labels of the pool and of test images, the images, and the log of contrastive training."""

    x: Float[Tensor, "n d"]
    y: Int[Tensor, " n"]
    test: Float[Tensor, "t d"]
    y_test: Int[Tensor, " t"]
    images: Tensor
    test_images: Tensor
    log: Float[Tensor, "epochs n"]
    encoder: nn.Module


def warp(images: Float[Tensor, "n c h w"], generator: torch.Generator, shift: float = 0.1, turn: float = 0.2) -> Tensor:
    """Images moved, turned and scaled at random, then brightened or darkened, with a little noise."""
    n, device = len(images), images.device
    u = lambda *s: torch.rand(*s, generator=generator, device=device) * 2 - 1  # noqa: E731
    angle, size = u(n) * turn, 1 + 0.2 * u(n)
    cos, sin, across, down = angle.cos() / size, angle.sin() / size, u(n) * shift * 2, u(n) * shift * 2
    rows = torch.stack([cos, -sin, across, sin, cos, down], 1).view(n, 2, 3)
    moved = F.grid_sample(images, F.affine_grid(rows, list(images.shape), False), align_corners=False)
    gain = 1 + 0.3 * u(n, 1, 1, 1)
    return moved * gain + 0.05 * torch.randn(moved.shape, generator=generator, device=device)


def two_views(images: Tensor, generator: torch.Generator) -> Tensor:
    """Two warped copies of digits given as rows of pixels, as rows: image i is rows i and i + n."""
    side = round(images.shape[1] ** 0.5)
    square = images.view(-1, 1, side, side).repeat(2, 1, 1, 1)
    return warp(square, generator).flatten(1)


def _perceptron(pixels: int) -> nn.Module:
    return nn.Sequential(nn.Linear(pixels, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, 64))


def _scaled(x: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """Centred by the pool's mean and brought to a mean square of 1 a feature, one scale for all features."""
    mean, std = x.mean(0), (x - x.mean(0)).square().mean().sqrt()
    return (x - mean) / std, (test - mean) / std


def _learnt(run, images, y, test_images, y_test, seed, epochs) -> Pool:
    from ...augment import simclr_views

    if run.scale == "full":
        encoder = nets.seeded(seed, nets.ResNet18).to(run.device)
        size = 32 if run.dry else 512
        options = dict(epochs=200, batch_size=size, lr=1e-3, seed=seed)
        made = contrast(images, encoder, encoder.features, simclr_views, **options)
    else:
        encoder = nets.seeded(seed, _perceptron, images.shape[1])
        made = contrast(images, encoder, 64, two_views, epochs=epochs, lr=5e-3, seed=seed)
    with torch.no_grad():
        x, test = _scaled(made.features, encode(encoder, test_images))
    kept = torch.arange(len(x))
    if len(x) > MOST_ROWS:  # full scale: strategies compare all pairs of rows
        kept = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:MOST_ROWS]
    on_host = [t.cpu() for t in (x, y, test, y_test, images, test_images, made.log.T)]  # choices are made row by row
    x, y, test, y_test, images, test_images, log = on_host
    return Pool(x[kept], y[kept], test, y_test, images[kept], test_images, log[kept].T, encoder)


def _data(run):
    """Training and test images with labels at the run's scale: digits as rows, or CIFAR-10."""
    if run.scale != "full":
        (images, y), (test_images, y_test) = (digits(split) for split in run.splits)
        return images, y, test_images, y_test
    from ...data import benchmark

    data = benchmark("cifar10", device=run.device)
    counts = len(data.train_labels), len(data.test_labels)
    order = [torch.randperm(n, generator=torch.Generator().manual_seed(0)) for n in counts]
    order = [o[: 512 if run.dry else None].to(run.device) for o in order]  # a copy may be sorted by class
    if run.tuning:  # the last fifth of the training images takes the place of the test images
        cut = len(order[0]) * 4 // 5
        fit, held = order[0][:cut], order[0][cut:]
        return data.train_images[fit], data.train_labels[fit], data.train_images[held], data.train_labels[held]
    (fit, held), (x, y, t, y_test) = order, (data.train_images, data.train_labels, data.test_images, data.test_labels)
    return x[fit], y[fit], t[held], y_test[held]


def make_pool(run, seed: int, size: int = 2000, epochs: int = 30) -> Pool:
    """A balanced pool: ``size`` images of the training split, drawn by the seed; all images at full scale."""
    images, y, test_images, y_test = _data(run)
    if run.scale != "full":
        kept = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))[:size]
        images, y = images[kept], y[kept]
    return _learnt(run, images, y, test_images, y_test, seed, epochs)


def long_tail_pool(run, seed: int, largest: int = 320, ratio: float = 50.0, epochs: int = 30) -> Pool:
    """A long-tailed pool: the classes' sizes fall geometrically from ``largest``; the test images stay balanced."""
    images, y, test_images, y_test = _data(run)
    largest = run.pick(quick=largest, full=min(5000, int(torch.bincount(y.cpu()).min())))
    kept = tail(y.cpu(), tail_counts(10, largest, ratio), generator=torch.Generator().manual_seed(seed))
    return _learnt(run, images[kept.to(y.device)], y[kept.to(y.device)], test_images, y_test, seed, epochs)


def second_pool(run, seed: int) -> Pool:
    """Other digits, of 8×8 pixels and other hands, as they come with scikit-learn: pixels are the features."""
    from ...data.synthetic import SPLITS
    from ...data.synthetic import digits as all_digits

    images, y = all_digits("optdigits")
    (a, b), (c, d) = (SPLITS["optdigits"][s] for s in run.splits)
    order = torch.randperm(b - a, generator=torch.Generator().manual_seed(seed)) + a
    rows = images.flatten(1)
    x, test = _scaled(rows[order], rows[c:d])
    return Pool(x, y[order], test, y[c:d], rows[order], rows[c:d], torch.zeros(1, len(x)), nn.Identity())


def label_sprites(
    run, n: int, seed: int, split: str, kind: str = "grid", side: int = 5
) -> tuple[Float[Tensor, "n p"], Int[Tensor, " n"]]:
    """Digits whose *place* is the label: images (n, 400) of 20×20 pixels and cells 0 … side² - 1; or whose *turn* is.

    kind  "grid": a digit of 10×10 pixels, moved to a cell of a square grid, cells overlapping; "ring": turned by one
          of 16 angles of the full circle
    """
    rows, _ = digits(split)
    g = torch.Generator().manual_seed(2 * seed + (split in ("test", "validation")))
    index = torch.randint(len(rows), (n,), generator=g)
    picture = rows[index].view(n, 1, 14, 14)
    labels = torch.randint(side * side if kind == "grid" else 16, (n,), generator=g)
    if kind == "grid":
        at = torch.stack([labels % side, labels // side], 1).double() / (side - 1) * 2 - 1  # in ±1
        jitter = (torch.rand(n, 2, generator=g) - 0.5) * 0.3 / (side - 1)
        zoom, centre, turn = 1.8, (at * 0.45 + jitter).float(), torch.zeros(n)
    else:
        turn = labels / 16 * 2 * torch.pi + (torch.rand(n, generator=g) - 0.5) * 0.2
        zoom, centre = 1.0, torch.zeros(n, 2)
    cos, sin = turn.cos() * zoom, turn.sin() * zoom
    theta = torch.stack([cos, -sin, -(cos * centre[:, 0] - sin * centre[:, 1]), sin, cos,
                         -(sin * centre[:, 0] + cos * centre[:, 1])], 1).view(n, 2, 3)  # fmt: skip
    drawn = F.grid_sample(picture, F.affine_grid(theta, [n, 1, 20, 20], False), align_corners=False)
    drawn = drawn + 0.05 * torch.randn(drawn.shape, generator=g)
    return drawn.flatten(1), labels


