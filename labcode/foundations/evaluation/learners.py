"""Classifiers as functions ``learn(images, labels) -> predict``: scikit-learn's kinds, and networks."""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from ...data.batches import mixed_seed, shuffled
from ...loss import check_finite, check_index
from ...nets import ResNet18, SmallNet, seeded
from ...train import fit

Images = Float[Tensor, "n c h w"]
Labels = Int[Tensor, " n"]


def scikit(make: Callable[[], object]) -> Callable[[Images, Labels], Callable[[Images], Labels]]:
    """A scikit-learn classifier as a function ``learn(images, labels) -> predict``."""

    def learn(x: Images, y: Labels) -> Callable[[Images], Labels]:
        model = make().fit(x.flatten(1).numpy(), y.numpy())
        return lambda new: torch.from_numpy(model.predict(new.flatten(1).numpy()))

    return learn


class Classifier(nn.Module):
    """An encoder with a linear head."""

    def __init__(self, encoder: nn.Module, classes: int):
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(encoder.features, classes)

    def forward(self, x: Images) -> Float[Tensor, "n k"]:
        return self.head(self.encoder(x))

    @torch.no_grad()
    def predicted(self, x: Images, chunk: int = 2000) -> Labels:
        """The class of every image, in evaluation mode: the result does not depend on the chunk, no statistics move."""
        training = self.training
        self.eval()
        found = torch.cat([self(part).argmax(1) for part in x.split(chunk)])
        self.train(training)
        return found


def mixup_loss(
    model: Callable[[Images], Float[Tensor, "n k"]], x: Images, y: Labels, share: float, other: Labels
) -> Float[Tensor, ""]:
    """mixup (Zhang et al.): cross entropy of ``share`` x + (1 - share) x[other], with labels mixed in the same way."""
    scores = model(share * x + (1 - share) * x[other])
    return share * F.cross_entropy(scores, y) + (1 - share) * F.cross_entropy(scores, y[other])


def cutmix(
    x: Images, share: float, other: Labels, generator: Generator
) -> tuple[Images, float]:  # fmt: skip
    """CutMix (Yun et al.): a box of x[other] pasted on x, at a random place, about 1 - ``share`` of the image's area.

    One box for the whole batch, as in the authors' code. Returns the images, and the share of x that is left, by which
    labels are mixed.
    """
    h, w = x.shape[2:]
    sides = [round(s * math.sqrt(1 - share)) for s in (h, w)]
    at = [int(torch.randint(s, (1,), generator=generator)) for s in (h, w)]  # the box's middle; it may stick out
    (top, bottom), (left, right) = (
        (max(0, middle - side // 2), min(whole, middle - side // 2 + side))
        for middle, side, whole in zip(at, sides, (h, w), strict=True)
    )
    mixed = x.clone()
    mixed[:, :, top:bottom, left:right] = x[other][:, :, top:bottom, left:right]
    return mixed, 1 - (bottom - top) * (right - left) / (h * w)


def fit_classifier(
    model: Classifier, images: Images, labels: Labels, steps: int, seed: int,
    augment: Callable[..., Images] | None = None, mixup: float = 0.0, cut: float = 0.0, batch: int = 128,
    lr: float = 2e-3, optimizer: str = "adamw", weight_decay: float = 1e-4, precision: str = "no",
) -> Classifier:  # fmt: skip
    """Train with cross entropy; images in [0, 1], labels 0 … classes - 1.

    augment  ``augment(x, generator=…)``, applied to every batch
    mixup    α of the Beta(α, α) from which every batch draws the share of ``mixup_loss``; 0: none
    cut      the same for ``cutmix``, which takes mixup's place

    Raises ValueError for images that are not float or not finite, and labels that are no class or not one an image.
    """
    if not images.is_floating_point():
        raise ValueError(f"images must be float in [0, 1], got {images.dtype}")
    check_finite(images=images)
    check_index("labels", labels, model.head.out_features)
    if labels.shape != images.shape[:1]:
        raise ValueError(f"labels must be one an image, {len(images)}, got {tuple(labels.shape)}")
    g = Generator(images.device).manual_seed(mixed_seed(seed, 11))
    beta, boxes = np.random.default_rng(mixed_seed(seed, 12)), Generator().manual_seed(mixed_seed(seed, 14))

    def step(index: Tensor) -> dict[str, Tensor]:
        x, y = images[index], labels[index]
        x = x if augment is None else augment(x, generator=g)
        if not (mixup or cut):
            return {"loss": F.cross_entropy(model(x), y)}
        share = float(beta.beta(mixup or cut, mixup or cut))
        other = torch.randperm(len(x), generator=g, device=x.device)
        if cut:
            x, share = cutmix(x, share, other, boxes)
            scores = model(x)
            return {"loss": share * F.cross_entropy(scores, y) + (1 - share) * F.cross_entropy(scores, y[other])}
        return {"loss": mixup_loss(model, x, y, share, other)}

    order = shuffled(len(images), min(batch, len(images)), seed, images.device)
    options = dict(lr=lr, optimizer=optimizer, weight_decay=weight_decay, precision=precision, generators=[g])
    fit(model, step, order, steps=steps, progress=False, **options)
    return model.eval()


def crop_flip(padding: int, flip: float) -> Callable[..., Images]:
    """The usual augmentation of small images: a crop after padding by reflection, and a mirror in a share ``flip``."""

    def augment(x: Images, *, generator: Generator) -> Images:
        n, _, h, w = x.shape
        corner = torch.randint(2 * padding + 1, (n, 2), generator=generator, device=x.device)
        mirror = torch.rand(n, generator=generator, device=x.device) < flip
        rows = corner[:, :1] + torch.arange(h, device=x.device)
        line = torch.arange(w, device=x.device)
        columns = corner[:, 1:] + torch.where(mirror[:, None], w - 1 - line, line)
        padded = F.pad(x, (padding,) * 4, "reflect")
        which = torch.arange(n, device=x.device)[:, None, None]
        return padded[which, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)

    return augment


def network(
    make: Callable[[], nn.Module], classes: int, steps: int, seed: int, **options
) -> Callable[[Images, Labels], Callable[[Images], Labels]]:
    """A network as a function ``learn(images, labels) -> predict``: encoder from ``make()``, and ``fit_classifier``."""

    def learn(x: Images, y: Labels) -> Callable[[Images], Labels]:
        model = seeded(seed, lambda: Classifier(make(), classes)).to(x.device)
        return fit_classifier(model, x, y, steps, seed, **options).predicted

    return learn


def learners(seed: int, steps: int = 0, precision: str = "no") -> dict[str, Callable]:
    """Name -> ``learn(images, labels) -> predict``: ten of scikit-learn's kinds, the strongest first.

    steps  if above 0, residual and plain networks of three widths each instead, for images of 32×32 pixels
    """
    if steps:
        nets = {f"ResNet-18, width {w}": partial(ResNet18, w) for w in (64, 32, 16)}
        nets |= {f"small net, width {w}": partial(SmallNet, w, 2 * w, 32) for w in (128, 64, 32)}
        options = dict(batch=256, precision=precision, augment=crop_flip(4, 0.5))
        return {name: network(make, 10, steps, seed, **options) for name, make in nets.items()}
    from sklearn import discriminant_analysis, ensemble, linear_model, naive_bayes, neighbors, svm, tree

    made = {
        "SVM": partial(svm.SVC, C=10), "linear SVM": partial(svm.SVC, kernel="linear"),
        "ridge": linear_model.RidgeClassifier, "logistic": partial(linear_model.LogisticRegression, max_iter=200),
        "1 neighbour": partial(neighbors.KNeighborsClassifier, n_neighbors=1),
        "5 neighbours": neighbors.KNeighborsClassifier,
        "forest": partial(ensemble.RandomForestClassifier, n_estimators=30, random_state=seed),
        "tree": partial(tree.DecisionTreeClassifier, random_state=seed),
        "naive Bayes": partial(naive_bayes.GaussianNB, var_smoothing=0.01),
        "discriminant": partial(discriminant_analysis.LinearDiscriminantAnalysis, solver="lsqr", shrinkage=0.1),
    }  # fmt: skip
    return {name: scikit(make) for name, make in made.items()}


def reseeded(seed: int, steps: int = 0, precision: str = "no") -> Callable:
    """The one of ``learners`` whose seed is varied: a forest, or with ``steps`` the narrowest residual network."""
    return learners(seed, steps, precision)["ResNet-18, width 16" if steps else "forest"]
