"""Many models on candidates for new test sets and on the samples of a lifelong benchmark.

What ``imagenet_v2.py`` and ``sort_and_search.py`` measure on: scikit-learn's classifiers on digits at quick scale,
speed-run networks on CIFAR-10 at full.
"""

import warnings
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Generator, Tensor

from ...data.batches import mixed_seed
from .airbench import FLIPS
from .sort_and_search import mixture
from .speed_run import MUON, Recipe, SpeedRun, repeated
from .tiny_runs import Schedule, TinyRuns, grey_digits


@dataclass(frozen=True)
class Field:
    """Many models on candidates for test sets and on samples of a lifelong benchmark, all on the CPU."""

    said: Int[Tensor, "m n"]  # the class that every model gives every candidate
    labels: Int[Tensor, " n"]
    frequency: Float[Tensor, " n"]  # share of annotators who agree with a candidate's label
    right: Bool[Tensor, "m s"]  # outcomes on the samples, clean and corrupted ones mixed


def field_of(said: Int[Tensor, "m t"], labels: Int[Tensor, " t"], votes: Int[Tensor, "a n"], seed: int) -> Field:
    """A field from what models said about candidates and, behind them, samples; the samples are mixed."""
    n = votes.shape[1]
    order = torch.randperm(len(labels) - n, generator=Generator().manual_seed(seed))
    right = (said == labels)[:, n:][:, order]
    return Field(said[:, :n], labels[:n], (votes == labels[:n]).double().mean(0), right)


def digit_field(
    seed: int, train: str, test: str, candidates: int = 6000, samples: int = 1500, annotators: int = 20
) -> Field:
    """The quick scale's field: scikit-learn's classifiers on digits in a little noise.

    Annotators are tiny networks trained on images of their own, which see the candidates without noise.

    train, test  splits of the digits, see ``scenes``
    """
    x, y = grey_digits(candidates + samples, mixed_seed(seed, 1), test, 0.1)
    clear, _ = grey_digits(candidates + samples, mixed_seed(seed, 1), test, 0.0)
    crowd = TinyRuns(*grey_digits(2500, mixed_seed(seed, 2), train, 0.0), clear[:candidates], seed, Schedule(epochs=12))
    votes = crowd(runs=annotators, hidden=(32,))[12]
    shown = torch.cat([x[:candidates], mixture(x[candidates:].view(-1, 1, 8, 8), seed).flatten(1)])
    said = predicted(classifiers(*grey_digits(2500, mixed_seed(seed, 3), train, 0.1)), shown)
    return field_of(said, y, votes, seed)


def classifiers(
    x: Float[Tensor, "n d"], y: Int[Tensor, " n"], sizes: tuple[int, ...] = (150, 400, 1000, 2500)
) -> dict[str, object]:
    """scikit-learn classifiers of every family, each fitted on the first images of the training set, for every size.

    Linear models, discriminants, neighbours, naive Bayes, trees, forests, support vectors and a small net: all have
    ``predict``. One that has no fit on so few images is left out. Deterministic.

    Raises ValueError for sizes beyond the number of images.
    """
    if max(sizes) > len(x):
        raise ValueError(f"sizes must be at most the number of images, {len(x)}, got {max(sizes)}")
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
    from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression, Perceptron, RidgeClassifier
    from sklearn.naive_bayes import BernoulliNB, GaussianNB
    from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
    from sklearn.neural_network import MLPClassifier
    from sklearn.svm import SVC, LinearSVC
    from sklearn.tree import DecisionTreeClassifier

    fixed = dict(random_state=0)
    families = {
        "logistic, C = 0.01": lambda: LogisticRegression(C=0.01, max_iter=60),
        "logistic, C = 1": lambda: LogisticRegression(max_iter=60),
        "ridge": lambda: RidgeClassifier(10.0),
        "perceptron": lambda: Perceptron(max_iter=20, **fixed),
        "linear discriminant": lambda: LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.1),
        "quadratic discriminant": lambda: QuadraticDiscriminantAnalysis(solver="eigen", shrinkage=0.4),
        **{f"{k} neighbours": lambda k=k: KNeighborsClassifier(k) for k in (1, 5, 25)},
        "centroids": NearestCentroid,
        "Gaussian Bayes": GaussianNB,
        "Bernoulli Bayes": lambda: BernoulliNB(binarize=0.5),
        **{f"tree, depth {d}": lambda d=d: DecisionTreeClassifier(max_depth=d, **fixed) for d in (3, 5, None)},
        "forest": lambda: RandomForestClassifier(30, **fixed),
        "random trees": lambda: ExtraTreesClassifier(40, **fixed),
        "support vectors, Gaussian": lambda: SVC(C=5.0),
        "support vectors, square": lambda: SVC(kernel="poly", degree=2),
        "support vectors, linear": lambda: LinearSVC(C=0.1, **fixed),
        "small net": lambda: MLPClassifier((64,), max_iter=20, learning_rate_init=0.01, **fixed),
    }
    found, x, y = {}, x.numpy(), y.numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of trainings cut short on purpose
        for name, make in families.items():
            for size in sizes:
                try:
                    found[f"{name}, {size} images"] = make().fit(x[:size], y[:size])
                except (ValueError, ArithmeticError):
                    continue
    return found


def predicted(models: dict[str, object], x: Shaped[Tensor, "n d"]) -> Int[Tensor, "m n"]:
    """The class that each classifier gives each image."""
    return torch.stack([torch.as_tensor(m.predict(x.numpy())) for m in models.values()])


def speed_classifiers(
    images: Shaped[Tensor, "n c h w"], labels: Int[Tensor, " n"], test: Shaped[Tensor, "m c h w"], seed: int = 0,
    recipe: Recipe = MUON, sizes: tuple[int, ...] = (8, 24, 64), epochs: tuple[float, ...] = (0.25, 0.5, 1, 2, 4, 8),
) -> Int[Tensor, "r m"]:  # fmt: skip
    """Predictions on the test images, on the CPU, of speed-run networks of several widths, lengths and flips.

    recipe  of which widths, length and flip are changed
    sizes   width of the first block; the others have four times as many channels
    """
    found, unknown = [], torch.zeros(len(test), dtype=torch.int64, device=test.device)
    for width in sizes:
        train = SpeedRun(replace(recipe, widths=(width, 4 * width, 4 * width)), images, labels, test, unknown).warm_up()
        for length in epochs:
            for flip in FLIPS:
                train(mixed_seed(seed, len(found)), flip, max(2, round(length * len(images) / recipe.batch)))
                found.append(train.predicted)
    return torch.stack(found).cpu()


def speed_field(
    images: Shaped[Tensor, "n c h w"], labels: Int[Tensor, " n"], test: Shaped[Tensor, "t c h w"],
    test_labels: Int[Tensor, " t"], candidates: int, annotators: int, seed: int, recipe: Recipe = MUON,
) -> Field:  # fmt: skip
    """The full scale's field: models trained on one half of the images, annotators on the other."""
    half, test = len(images) // 2, test.float() / 255 if test.dtype == torch.uint8 else test
    crowd = SpeedRun(recipe, images[half:], labels[half:], test[:candidates], test_labels[:candidates]).warm_up()
    votes = repeated(crowd, (True, True, True), annotators, seed)
    shown = torch.cat([test[:candidates], mixture(test[candidates:], seed)])
    said = speed_classifiers(images[:half], labels[:half], shown, seed, recipe)
    return field_of(said, test_labels.cpu(), votes, seed)
