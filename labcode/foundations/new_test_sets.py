"""Many classifiers on more than one test set: how accuracy moves to a new one, and how little of it must be run.

Recht, Roelofs, Schmidt and Shankar, "Do ImageNet Classifiers Generalize to ImageNet?" (2019): test sets collected anew,
more or less strictly, and a line through the accuracies of many models. Prabhu, Nath, Dokania, Bibi, Torr and Albanie,
"Lifelong Benchmarks" (2024): Sort & Search, which predicts a new model's outcome on every sample from a few.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Generator, Tensor

from ..data.batches import mixed_seed
from ..nets import ResNet18, SmallNet
from .runs import Schedule, TinyRuns, grey_digits
from .shifts import crop_flip, network, scikit

CORRUPTIONS = ("none", "noise", "blur", "contrast", "occlusion", "rotation")


@dataclass(frozen=True)
class Field:
    """Many models on candidates for test sets and on samples of a lifelong benchmark, all on the CPU."""

    said: Int[Tensor, "m n"]  # the class that every model gives every candidate
    labels: Int[Tensor, " n"]
    frequency: Float[Tensor, " n"]  # share of annotators who agree with a candidate's label
    right: Bool[Tensor, "m s"]  # outcomes on the samples, clean and corrupted ones mixed


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


def field_of(said: Int[Tensor, "m t"], labels: Int[Tensor, " t"], votes: Int[Tensor, "a n"], seed: int) -> Field:
    """A field from what models said about candidates and, behind them, samples; the samples are mixed."""
    n = votes.shape[1]
    order = torch.randperm(len(labels) - n, generator=Generator().manual_seed(seed))
    right = (said == labels)[:, n:][:, order]
    return Field(said[:, :n], labels[:n], (votes == labels[:n]).double().mean(0), right)


def mixture(images: Float[Tensor, "n c h w"], seed: int, severity: float = 0.6) -> Float[Tensor, "n c h w"]:
    """A sixth of the images as they are, the others each with one of the CORRUPTIONS, in this order."""
    g = Generator(images.device).manual_seed(seed)
    parts = zip(CORRUPTIONS, images.chunk(len(CORRUPTIONS)), strict=True)
    return torch.cat([corrupted(part, kind, severity, g) for kind, part in parts])


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


def corrupted(
    images: Float[Tensor, "n c h w"], kind: str, severity: float, generator: Generator
) -> Float[Tensor, "n c h w"]:
    """Images made harder in one way; 0 leaves them as they are, 1 is strong.

    kind  one of CORRUPTIONS: Gaussian noise, a blur by neighbours' means, contrast taken out, a square of the side
          severity/2 painted over, a turn by up to 60° times severity

    Raises ValueError for another kind or a severity outside [0, 1].
    """
    if kind not in CORRUPTIONS:
        raise ValueError(f"kind must be one of {', '.join(CORRUPTIONS)}, got {kind!r}")
    if not 0 <= severity <= 1:
        raise ValueError(f"severity must be in [0, 1], got {severity}")
    n, _, h, w = images.shape
    draw = lambda *shape: torch.rand(*shape, generator=generator, device=images.device)  # noqa: E731
    if kind == "noise":
        return images + 0.4 * severity * torch.randn(images.shape, generator=generator, device=images.device)
    if kind == "blur":
        side = 2 * (h // 16) + 3
        blurred = F.avg_pool2d(F.pad(images, (side // 2,) * 4, "replicate"), side, 1)
        return torch.lerp(images, blurred, severity)
    if kind == "contrast":
        return torch.lerp(images, images.mean((1, 2, 3), keepdim=True), 0.8 * severity)
    if kind == "occlusion":
        side = round(severity * h / 2)
        top, left = ((draw(n, 1) * (size - side + 1)).long() for size in (h, w))
        row, column = torch.arange(h, device=images.device), torch.arange(w, device=images.device)
        hidden = ((row >= top) & (row < top + side))[:, :, None] & ((column >= left) & (column < left + side))[:, None]
        return images.masked_fill(hidden[:, None], 0.5)
    if kind == "rotation":
        angle = (2 * draw(n) - 1) * severity * torch.pi / 3
        cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
        turn = torch.stack([cos, -sin, zero, sin, cos, zero], 1).view(n, 2, 3)
        grid = F.affine_grid(turn, list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    return images


def resampled(
    frequency: Float[Tensor, " n"], size: int, strictness: float, generator: Generator
) -> Int[Tensor, " size"]:
    """A test set drawn from candidates without replacement, with probability proportional to frequency^strictness.

    frequency   share of annotators who found each candidate to be what its label says, in [0, 1]: the paper's
                "selection frequency"
    strictness  0 takes anything that at least one annotator recognised; the larger, the clearer its images

    Raises ValueError where fewer candidates than ``size`` have a frequency above zero.
    """
    possible = int((frequency > 0).sum())
    if not 1 <= size <= possible:
        raise ValueError(f"size must be in 1 … {possible}, the candidates with a frequency above 0, got {size}")
    weights = torch.where(frequency > 0, frequency.double() ** strictness, 0.0)
    return torch.multinomial(weights, size, generator=generator)


def second_tests(
    field: Field, size: int, strictness: dict[str, float], seed: int
) -> tuple[dict[str, Float[Tensor, " m"]], dict[str, Int[Tensor, " size"]]]:
    """Accuracy of every model on test sets of several strictness, and which candidates are in each.

    The first is the old test set, drawn from a random half of the candidates; the others are drawn each from the other
    half. So they share no image with the old one, and what it took has not made theirs harder.

    Raises ValueError where a half has fewer than ``size`` candidates with a frequency above zero.
    """
    g, chosen = Generator().manual_seed(seed), {}
    old, new = torch.randperm(len(field.labels), generator=g).chunk(2)
    for name, kappa in strictness.items():
        half = new if chosen else old
        chosen[name] = half[resampled(field.frequency[half], size, kappa, g)]
    return {k: (field.said[:, i] == field.labels[i]).double().mean(1) for k, i in chosen.items()}, chosen


def probit(accuracy: Float[Tensor, " m"], n: int) -> Float[Tensor, " m"]:
    """Φ⁻¹ of accuracies on n images, which are kept half an image away from 0 and 1."""
    return torch.special.ndtri(accuracy.double().clamp(0.5 / n, 1 - 0.5 / n))


def fitted_line(x: Float[Tensor, " m"], y: Float[Tensor, " m"]) -> tuple[float, float, float]:
    """Least squares y ≈ slope · x + intercept: slope, intercept and R².

    Raises ValueError for fewer than two points, or points with one x.
    """
    x, y = x.double(), y.double()
    if len(x) < 2 or float(x.var()) == 0:
        raise ValueError(f"x must hold at least two different values, got {len(x)} points")
    dx, dy = x - x.mean(), y - y.mean()
    slope = float((dx @ dy) / (dx @ dx))
    left = dy - slope * dx
    return slope, float(y.mean() - slope * x.mean()), 1 - float((left @ left) / (dy @ dy).clamp(min=1e-300))


def voted(weights: Float[Tensor, " m"], votes: Float[Tensor, "m n k"]) -> Int[Tensor, " n"]:
    """The class with the largest weighted vote of m models, whose classes are one-hot in ``votes``."""
    return torch.einsum("m,mnk->nk", weights, votes).argmax(1)


def climbed(
    votes: Float[Tensor, "m n k"], labels: Int[Tensor, " n"], queries: int, step: float, generator: Generator
) -> Float[Tensor, " m"]:
    """Weights of a vote that were hill-climbed on a test set: what an adaptive analyst does who sees only accuracies.

    From equal weights, Gaussian steps of standard deviation ``step``; one is kept if the accuracy does not fall.

    queries  how often the test set is asked, >= 0
    """
    weights = torch.ones(len(votes), dtype=votes.dtype, device=votes.device)
    best = (voted(weights, votes) == labels).sum()
    for _ in range(queries):
        proposal = weights + step * torch.randn(len(votes), generator=generator).to(weights)
        right = (voted(proposal, votes) == labels).sum()
        kept = right >= best
        weights, best = torch.where(kept, proposal, weights), torch.where(kept, right, best)
    return weights


def by_sum(matrix: Bool[Tensor, "m n"]) -> Int[Tensor, " n"]:
    """Samples, those that most models are right on first; equal ones in their order."""
    return matrix.sum(0).argsort(descending=True, stable=True)


def mistakes(ordered: Bool[Tensor, "m n"]) -> Int[Tensor, "m n1"]:
    """Mistakes of "right on the first k, wrong on the rest", for each model and every k = 0 … n, by two running sums.

    ordered  outcomes in the order of the samples
    """
    zero = torch.zeros(len(ordered), 1, dtype=torch.long, device=ordered.device)
    wrong_before = torch.cat([zero, (~ordered).cumsum(1)], 1)
    right_before = torch.cat([zero, ordered.cumsum(1)], 1)
    return wrong_before + right_before[:, -1:] - right_before


def thresholds(ordered: Bool[Tensor, "m n"]) -> Int[Tensor, " m"]:
    """The k with the fewest mistakes for each model, in O(n) (Lifelong Benchmarks, section 3.2, DP-Search).

    Of several such k the middle one is taken: the paper takes any, and the first would call a model worse than it is.
    """
    found = mistakes(ordered)
    least = found == found.amin(1, keepdim=True)
    rank = least.cumsum(1)
    return ((rank == (rank[:, -1:] + 1) // 2) & least).int().argmax(1)


def disagreement(matrix: Bool[Tensor, "m n"], order: Int[Tensor, " n"]) -> int:
    """Entries that the best thresholds get wrong in this order: what sorting is to make small."""
    return int(mistakes(matrix[:, order]).amin(1).sum())


def reordered(matrix: Bool[Tensor, "m n"], k: Int[Tensor, " m"]) -> Int[Tensor, " n"]:
    """The order of the samples with the fewest mistakes for given thresholds, exactly (section 3.1, optimising P).

    A place q says for every model whether it should be right, [q < k]. Giving each place its sample is an assignment
    problem with the mistakes as costs, solved by SciPy. O(n³) at worst: for a few thousand samples. Samples between the
    same thresholds cost the same anywhere: they are put in the order of their sums.
    """
    from scipy.optimize import linear_sum_assignment

    n = matrix.shape[1]
    should = torch.arange(n, device=matrix.device)[None] < k[:, None]  # (models, places)
    a, s = matrix.float(), should.float()
    cost = a.sum(0)[:, None] - 2 * a.T @ s + s.sum(0)[None]  # (samples, places)
    places = torch.as_tensor(linear_sum_assignment(cost.cpu().numpy())[1], device=matrix.device)
    between = (places[:, None] >= k[None]).sum(1)
    return (between * (len(matrix) + 1) + len(matrix) - matrix.sum(0)).argsort(stable=True)


def sorted_samples(matrix: Bool[Tensor, "m n"], rounds: int = 5) -> tuple[Int[Tensor, " n"], list[int]]:
    """Sort: by sum, then by turns the best thresholds and the best order, until nothing changes or ``rounds`` are over.

    Returns the order and the disagreement after each round, which never grows.
    """
    order = by_sum(matrix)
    history = [disagreement(matrix, order)]
    for _ in range(rounds):
        order_now = reordered(matrix, thresholds(matrix[:, order]))
        left = disagreement(matrix, order_now)
        if left >= history[-1]:
            break
        order, history = order_now, [*history, left]
    return order, history


def spaced(n: int, m: int) -> Int[Tensor, " m"]:
    """m places among n at equal distances, each in the middle of its share."""
    if not 1 <= m <= n:
        raise ValueError(f"m must be in 1 … {n}, got {m}")
    return ((torch.arange(m) + 0.5) * n / m).long()


def search(seen: Bool[Tensor, "r m"], places: Int[Tensor, " m"], n: int) -> Int[Tensor, " r"]:
    """Search: thresholds among n ordered samples from outcomes at a few places, for r new models.

    seen    outcomes at ``places``, which rise
    Between the last place that counts as right and the first that counts as wrong the threshold is put halfway.
    """
    if seen.shape[1] != len(places) or not bool((places[1:] > places[:-1]).all()):
        raise ValueError(f"places must rise, one for each of {seen.shape[1]} outcomes, got {len(places)}")
    zero, end = places.new_tensor([-1]), places.new_tensor([n])
    edges = torch.cat([zero, places, end])
    between = (edges[:-1] + edges[1:] + 1) // 2  # (m + 1,): where a threshold with t right places lies
    between[0], between[-1] = 0, n
    return between[thresholds(seen)]


def outcomes(k: Int[Tensor, " r"], order: Int[Tensor, " n"]) -> Bool[Tensor, "r n"]:
    """What thresholds say about all samples, in the samples' own order."""
    rank = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
    return rank[None] < k[:, None]


def rivals(
    known: Bool[Tensor, "m n"], new: Bool[Tensor, "r n"], order: Int[Tensor, " n"], budget: int, seed: int = 0
) -> tuple[dict[str, float], dict[str, float]]:
    """Sort & Search and simpler ways to use ``budget`` outcomes of each new model.

    Returns the share of samples whose outcome is predicted wrong, and the mean error of the accuracy, by method.
    """
    n, sums = new.shape[1], by_sum(known)
    places, full, g = spaced(n, budget), new.double().mean(1), Generator().manual_seed(seed)
    share = new[:, order[places]].double().mean(1)
    draws = torch.stack([new[:, torch.randperm(n, generator=g)[:budget]].double().mean(1) for _ in range(20)])
    k, k_sums = (search(new[:, o[places]], places, n) for o in (order, sums))
    told = {
        "sort and search": outcomes(k, order),
        "search in the order by sum": outcomes(k_sums, sums),
        "same order, cut at the share": outcomes((share * n).round().long(), order),
        "what most models do": (known.double().mean(0) > 0.5).expand_as(new),
    }
    guessed = {"sort and search": k.double() / n, "share, spaced samples": share, "share, random samples": draws}
    mistakes = {name: float((guess != new).double().mean()) for name, guess in told.items()}
    return mistakes, {name: float((guess - full).abs().mean()) for name, guess in guessed.items()}


def inserted(known: Bool[Tensor, "m n"], old: int, budget: int) -> tuple[float, float]:
    """A sample is added: ``budget`` models run it, and a threshold on the models' order says who else is right.

    old  so many samples order the models, the rest are added

    Returns the share of wrong predictions, by the threshold and by the majority of those who ran it.
    """
    best_first = by_sum(known[:, :old].T)
    fresh, places = known[best_first, old:].T, spaced(len(known), budget)
    k = search(fresh[:, places], places, len(known))
    told = torch.arange(len(known)) < k[:, None]
    most = (fresh[:, places].double().mean(1, keepdim=True) > 0.5).expand_as(fresh)
    return tuple(float((guess != fresh).double().mean()) for guess in (told, most))


def predicted(models: dict[str, object], x: Shaped[Tensor, "n d"]) -> Int[Tensor, "m n"]:
    """The class that each classifier gives each image."""
    return torch.stack([torch.as_tensor(m.predict(x.numpy())) for m in models.values()])
