"""Many models on candidates for new test sets and on the samples of a lifelong benchmark.

What ``imagenet_v2.py`` and ``sort_and_search.py`` measure on: scikit-learn's classifiers on digits at quick scale,
speed-run networks on CIFAR-10 at full.
"""

import warnings
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Generator, Tensor
from torch.func import functional_call, vmap

from ...data.batches import mixed_seed
from .airbench import FLIPS
from .sort_and_search import mixture
from .speed_run import MUON, Recipe, SpeedRun
from .tiny_runs import Schedule, grey_digits, last, mlp, stacked, traced_digits, train_many


@dataclass(frozen=True)
class Field:
    """Many models on candidates for test sets and on samples of a lifelong benchmark, all on the CPU."""

    said: Int[Tensor, "m n"]  # the class that every model gives every candidate
    labels: Int[Tensor, " n"]
    agree: Bool[Tensor, "a n"]  # whether each annotator finds each candidate to be what its label says
    fresh: Bool[Tensor, " n"]  # the candidates from the second source, where new test sets come from
    right: Bool[Tensor, "m s"]  # outcomes on the samples, clean and corrupted ones mixed
    origin: Int[Tensor, " n"]  # the image that a candidate was made from: two of one origin are near duplicates
    names: tuple[str, ...] = ()  # of the models: the kind, a comma, how long or on how many images it was trained
    adapted: Int[Tensor, "r n"] | None = None  # what models say that saw a part of the second source in training
    partners: tuple[int, ...] = ()  # rows of ``said``: the same models without that part


def field_of(
    said: Int[Tensor, "m t"], labels: Int[Tensor, " t"], agree: Bool[Tensor, "a n"], fresh: Bool[Tensor, " n"],
    seed: int, origin: Int[Tensor, " n"] | None = None, **more,
) -> Field:  # fmt: skip
    """A field from what models said about candidates and, behind them, samples; the samples are mixed.

    origin  of each candidate; by default each is an image of its own
    """
    n = agree.shape[1]
    order = torch.randperm(len(labels) - n, generator=Generator().manual_seed(seed))
    right = (said == labels)[:, n:][:, order]
    return Field(said[:, :n], labels[:n], agree, fresh, right, torch.arange(n) if origin is None else origin, **more)


def hurried(
    images: Float[Tensor, "n 64"], labels: Int[Tensor, " n"], shown: Float[Tensor, "k 64"], noise: float, count: int,
    seed: int, epochs: int = 8, chunk: int = 500,
) -> Int[Tensor, "a k"]:  # fmt: skip
    """The class that each of ``count`` annotators in a hurry sees in each image of ``shown``: they stand for people.

    Annotators are tiny networks with weights and an order of images of their own, trained on ``images`` in noise. Each
    sees each image once, in noise of its own, and so they differ on images that are not clear.

    noise  standard deviation, of training images and of every look
    """
    net, numbers = mlp(images.shape[1], (32,), int(labels.max()) + 1), [mixed_seed(seed, i) for i in range(count)]
    start = stacked(lambda: mlp(images.shape[1], (32,), int(labels.max()) + 1), numbers)
    weights = last(train_many(net, start, images[None], labels, numbers, numbers, Schedule(epochs)))
    look, g = vmap(lambda w, x: functional_call(net, w, (x,))), Generator().manual_seed(seed)
    with torch.no_grad():
        parts = (part + noise * torch.randn(count, *part.shape, generator=g) for part in shown.split(chunk))
        return torch.cat([look(weights, part).argmax(2) for part in parts], 1)


def digit_field(
    seed: int, train: str, test: str, candidates: tuple[int, int] = (2700, 4500), samples: int = 1000,
    annotators: int = 40, harder: float = 0.5, hurry: float = 0.4, share: float = 0.2,
    sizes: tuple[int, ...] = (150, 350, 800, 1800),
) -> Field:  # fmt: skip
    """The quick scale's field: scikit-learn's classifiers on digits in a little noise.

    train, test  splits of the digits, see ``scenes``
    candidates   how many from the first and from the second source
    harder       by so much digits of the second source are shifted, turned and scaled more, see ``grey_digits``
    hurry        noise in which annotators see a candidate, see ``hurried``; they have learnt from digits in between
    share        of the second source's in the training set of the ``adapted`` models, which is as large as the largest
    sizes        of training sets, rising
    """
    first, second = candidates
    noise, kinds = 0.1, ((first, 0.0), (second, harder), (samples, 0.0))
    drawn = [traced_digits(n, mixed_seed(seed, i), test, noise, more) for i, (n, more) in enumerate(kinds)]
    x, y, origin = (torch.cat(parts) for parts in zip(*drawn, strict=True))
    clear = [grey_digits(n, mixed_seed(seed, i), test, 0.0, more)[0] for i, (n, more) in enumerate(kinds[:2])]
    learnt = grey_digits(1500, mixed_seed(seed, 4), train, hurry, harder / 2)
    votes = hurried(*learnt, torch.cat(clear), hurry, annotators, seed)
    n, fit = first + second, grey_digits(sizes[-1], mixed_seed(seed, 3), train, noise)
    shown = torch.cat([x[:n], mixture(x[n:].view(-1, 1, 8, 8), seed).flatten(1)])
    models = classifiers(*fit, sizes)
    few = grey_digits(round(share * sizes[-1]), mixed_seed(seed, 5), train, noise, harder)
    mixed = classifiers(*(torch.cat([a[len(b) :], b]) for a, b in zip(fit, few, strict=True)), sizes[-1:])
    names = tuple(models)
    more = dict(adapted=predicted(mixed, x[:n]), partners=tuple(names.index(name) for name in mixed if name in names))
    return field_of(predicted(models, shown), y, votes == y[:n], torch.arange(n) >= first, seed, origin[:n],
                    names=names, **more)  # fmt: skip


def classifiers(
    x: Float[Tensor, "n d"], y: Int[Tensor, " n"], sizes: tuple[int, ...] = (150, 350, 800, 1800)
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
    from threadpoolctl import threadpool_limits

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
    with warnings.catch_warnings(), threadpool_limits(1):  # as small as this, more threads wait for each other
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


def by_kind(names: tuple[str, ...], folds: int, seed: int) -> Int[Tensor, " m"]:
    """The fold of every model, all of a kind in one: kinds differ in what stands before a name's last comma."""
    kinds = [name.rsplit(", ", 1)[0] for name in names]
    each = list(dict.fromkeys(kinds))
    order = torch.randperm(len(each), generator=Generator().manual_seed(seed)).tolist()
    fold = {each[place]: i % folds for i, place in enumerate(order)}
    return torch.tensor([fold[kind] for kind in kinds])


def speed_classifiers(
    images: Shaped[Tensor, "n c h w"], labels: Int[Tensor, " n"], test: Shaped[Tensor, "m c h w"], seed: int = 0,
    recipe: Recipe = MUON, sizes: tuple[int, ...] = (8, 24, 64), epochs: tuple[float, ...] = (0.25, 0.5, 1, 2, 4, 8),
) -> dict[str, Int[Tensor, " m"]]:  # fmt: skip
    """Predictions on the test images, on the CPU, of speed-run networks of several widths, lengths and flips, by name.

    recipe  of which widths, length and flip are changed
    sizes   width of the first block; the others have four times as many channels
    """
    found, unknown = {}, torch.zeros(len(test), dtype=torch.int64, device=test.device)
    for width in sizes:
        train = SpeedRun(replace(recipe, widths=(width, 4 * width, 4 * width)), images, labels, test, unknown).warm_up()
        for length in epochs:
            for flip in FLIPS:
                train(mixed_seed(seed, len(found)), flip, max(2, round(length * len(images) / recipe.batch)))
                found[f"width {width}, {flip} flip, {length:g} epochs"] = train.predicted
    said = torch.stack(list(found.values())).cpu()
    return dict(zip(found, said, strict=True))


def speed_field(
    images: Shaped[Tensor, "n c h w"], labels: Int[Tensor, " n"], test: Shaped[Tensor, "t c h w"],
    test_labels: Int[Tensor, " t"], candidates: tuple[int, int], annotators: int, seed: int, recipe: Recipe = MUON,
    harder: float = 0.3, hurry: float = 0.2, share: float = 0.2, sizes: tuple[int, ...] = (8, 24, 64),
    epochs: tuple[float, ...] = (0.25, 0.5, 1, 2, 4, 8),
) -> Field:  # fmt: skip
    """The full scale's field: models trained on one half of the images, annotators on the other.

    The second source's candidates are other images, most of them corrupted with severity ``harder``; annotators see
    every candidate in noise of the standard deviation ``hurry``, drawn anew for each of them. The ``adapted`` models
    are the widest and longest, trained on a set of which a ``share`` is corrupted likewise. ``sizes`` and ``epochs``
    as in ``speed_classifiers``.
    """
    first, n = candidates[0], sum(candidates)
    images, test = (x.float() / 255 if x.dtype == torch.uint8 else x for x in (images, test))
    half = len(images) // 2
    test = torch.cat([test[:first], mixture(test[first:n], seed + 1, harder), test[n:]])
    crowd = SpeedRun(recipe, images[half:], labels[half:], test[:n], test_labels[:n]).warm_up()
    clear, g, votes = crowd.test_images, Generator(test.device).manual_seed(seed), []
    for i in range(annotators):
        noise = torch.randn(clear.shape, generator=g, device=clear.device)
        crowd.test_images = clear + (hurry / 0.25) * noise.to(clear)  # pixels are standardised: 0.25 became 1
        crowd(mixed_seed(seed, 5, i))
        votes.append(crowd.predicted)
    shown, kept = torch.cat([test[:n], mixture(test[n:], seed)]), half - round(share * half)
    made = speed_classifiers(images[:half], labels[:half], shown, seed, recipe, sizes, epochs)
    partly = torch.cat([images[:kept], mixture(images[kept:half], seed + 2, harder)])
    mixed = speed_classifiers(partly, labels[:half], test[:n], seed, recipe, sizes[-1:], epochs[-1:])
    agree, names = (torch.stack(votes) == test_labels[:n]).cpu(), tuple(made)
    more = dict(adapted=torch.stack(list(mixed.values())), partners=tuple(names.index(name) for name in mixed))
    said = torch.stack(list(made.values()))
    return field_of(said, test_labels.cpu(), agree, torch.arange(n) >= first, seed, names=names, **more)
