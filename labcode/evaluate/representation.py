"""Measures of a frozen representation, computed on the device where it lies.

Representations are float tensors (n, d), one row per sample; they are flattened if they have more axes. Every function
raises ValueError, naming the argument, for an empty input, rows that do not fit together, or NaN and infinite values.
Labels are any integers; where a function is told the number of ``classes``, they are 0 … classes - 1.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ..loss import check_positive, unit_rows

Rows, NewRows = Float[Tensor, "n *d"], Float[Tensor, "m *d"]
Labels, NewLabels = Int[Tensor, " n"], Int[Tensor, " m"]

# Weights of the squared norm in the mean cross entropy of standardised features
L2 = (1.0, 0.1, 0.01, 0.001, 0.0001)


def _rows(**given: Tensor) -> list[Tensor]:
    """The representations, detached, flattened, in float32 or float64; one host wait for all of them."""
    out, finite = [], []
    for name, z in given.items():
        if not isinstance(z, Tensor) or not z.is_floating_point() or z.ndim < 2:
            got = f"{z.dtype} {tuple(z.shape)}" if isinstance(z, Tensor) else type(z).__name__
            raise ValueError(f"{name} must be a float tensor (n, d), got {got}")
        if not z.numel():
            raise ValueError(f"{name} is empty: shape {tuple(z.shape)}")
        z = z.detach().flatten(1)
        z = z if z.dtype == torch.float64 else z.float()
        if out and (z.shape[1] != out[0].shape[1] or z.device != out[0].device):
            first = next(iter(given))
            raise ValueError(
                f"{name} has rows of {z.shape[1]} values on {z.device}, {first} of {out[0].shape[1]} on {out[0].device}"
            )
        out.append(z.to(out[0].dtype) if out else z)
        finite.append(z.isfinite().all())
    for name, fine in zip(given, torch.stack(finite).tolist(), strict=True):
        if not fine:
            raise ValueError(f"{name} holds NaN or infinite values")
    return out


def _labels(classes: int | None, **given: tuple[Tensor, Tensor]) -> list[Tensor]:
    """Labels as int64 beside the rows they belong to, checked."""
    out = []
    for name, (y, z) in given.items():
        if not isinstance(y, Tensor) or y.is_floating_point() or y.is_complex() or y.shape != (len(z),):
            got = f"{y.dtype} {tuple(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
            raise ValueError(f"{name} must be an integer tensor of the {len(z)} labels of {name[:-1]}z, got {got}")
        out.append(y.detach().to(z.device, torch.int64))
        if classes is not None:
            low, high = torch.stack(out[-1].aminmax()).tolist()
            if low < 0 or high >= classes:
                raise ValueError(f"{name} must hold classes 0 … {classes - 1}, got {low} … {high}")
    return out


def knn_predict(
    train_z: Rows, train_y: Labels, test_z: NewRows, k: int = 20, tau: float = 0.1, top: int = 1, chunk: int = 4096
) -> Int[Tensor, "m *classes"]:
    """The class of each new row by the weighted nearest-neighbour vote, in the labels of ``train_y``.

    Instance Discrimination (Wu et al. 2018), section 3.4: the k nearest by cosine vote with exp(similarity / tau).

    k      neighbours, at most the training rows; the protocol for CIFAR-10 and ImageNet is 200 with tau 0.1
    tau    any temperature from 1e-20 on; towards 0 the nearest decides, towards infinity heads are counted
    top    how many classes, the likeliest first: (m,) for 1, else (m, top). Classes without a vote come last, and they
           and others that are equal in the order of their labels
    chunk  new rows a time: memory is chunk × training rows; on a CPU fewer, where that would leave its cache

    Departure: votes are added up in logarithms, so none underflows. A row of zeros has similarity 0 with everything.
    """
    check_positive(tau=tau)
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1, got {chunk}")
    train_z, test_z = _rows(train_z=train_z, test_z=test_z)
    (labels,) = _labels(None, train_y=(train_y, train_z))
    names, which = labels.unique(return_inverse=True)
    if not 1 <= k <= len(train_z):
        raise ValueError(f"k must be between 1 and the {len(train_z)} training rows, got {k}")
    if not 1 <= top <= len(names):
        raise ValueError(f"top must be between 1 and the {len(names)} classes of train_y, got {top}")
    train_z, test_z = unit_rows(train_z), unit_rows(test_z)
    if train_z.device.type == "cpu":
        chunk = min(chunk, max(1, 2**21 // len(train_z)))
    found = []
    with torch.autocast(train_z.device.type, enabled=False):
        for z in test_z.split(chunk):
            similarity, near = _largest(z @ train_z.T, k)
            votes = _votes(similarity, which[near], len(names), tau)
            best = votes.argmax(1, keepdim=True) if top == 1 else votes.argsort(dim=1, descending=True, stable=True)
            found.append(names[best[:, :top]])
    found = torch.cat(found).to(train_y.dtype)
    return found[:, 0] if top == 1 else found


def _votes(similarity: Float[Tensor, "m k"], which: Int[Tensor, "m k"], classes: int, tau: float) -> Tensor:
    """log Σ exp(similarity / tau) over the neighbours of each class, less a row's largest term; -inf without one.

    The largest of each class goes first, then what the others add to it: no vote underflows at any temperature.
    """
    top = similarity.new_full((len(similarity), classes), -math.inf).scatter_reduce_(1, which, similarity, "amax")
    sums = torch.zeros_like(top).scatter_add_(1, which, ((similarity - top.gather(1, which)) / tau).exp_())
    return (top - top.amax(1, keepdim=True)).div_(tau).add_(sums.log_())


def knn(
    train_z: Rows, train_y: Labels, test_z: NewRows, test_y: NewLabels, k: int = 20, tau: float = 0.1,
    classes: int | None = None, chunk: int = 4096, top: int = 1,
) -> float:  # fmt: skip
    """Accuracy, in [0, 1], of the weighted nearest-neighbour vote: see ``knn_predict``.

    classes  refuse labels outside 0 … classes - 1; None takes any integers
    top      count a row as right if its class is among so many; no training row of a class, no right answer
    """
    train_z, test_z = _rows(train_z=train_z, test_z=test_z)
    train_y, test_y = _labels(classes, train_y=(train_y, train_z), test_y=(test_y, test_z))
    found = knn_predict(train_z, train_y, test_z, k, tau, top, chunk)
    return (found.view(len(test_z), -1) == test_y[:, None]).any(1).double().mean().item()


def _largest(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row and their columns, in any order.

    On a CPU a search in two steps: where columns are in groups, the k largest lie in the k groups with the largest
    maxima, as each other group has k values above all of its own.
    """
    n = scores.shape[1]
    size = math.isqrt(n // k)  # of a group, so that both searches see about √(n k) values
    if size < 2 or scores.device.type != "cpu":
        return scores.topk(k, dim=1, sorted=False)
    groups = n // size
    best = scores[:, : groups * size].unflatten(1, (size, groups)).amax(1).topk(k, dim=1, sorted=False).indices
    columns = (best[:, None] + groups * torch.arange(size)[:, None]).flatten(1)
    columns = torch.cat([columns, torch.arange(groups * size, n).expand(len(scores), -1)], 1)
    found, at = scores.gather(1, columns).topk(k, dim=1, sorted=False)
    return found, columns.gather(1, at)


@dataclass(frozen=True)
class Probe:
    """What a linear probe found. ``weight`` and ``bias`` act on the representation itself, not standardised."""

    accuracy: float  # on the test rows
    l2: float  # the chosen regulariser
    validation_accuracy: float  # with that regulariser, on the part of the training rows held out; NaN without one
    weight: Tensor  # (classes, d)
    bias: Tensor  # (classes,)
    labels: Tensor  # (classes,) the label that each row of the weight stands for

    def predict(self, z: Rows) -> Int[Tensor, " n"]:
        """The likeliest label of each row."""
        (z,) = _rows(z=z)
        return self.labels[torch.addmm(self.bias.to(z), z, self.weight.T.to(z)).argmax(1)]


def linear_probe(
    train_z: Rows, train_y: Labels, test_z: NewRows, test_y: NewLabels, l2: tuple[float, ...] = L2,
    validation: float = 0.2, seed: int = 0, classes: int | None = None, tolerance: float = 1e-4, steps: int = 100,
) -> Probe:  # fmt: skip
    """Offline linear evaluation: multinomial logistic regression on frozen features.

    Minimises mean cross entropy + l2/2 · ‖W‖² (bias free) over features standardised by the training rows, with
    L-BFGS on the device. The regulariser is the best on a held-out, class-balanced part of the training rows (the
    strongest of equals); the test rows are used once, after a last fit on all training rows.

    train_y     any integers; so is test_y, whose labels count among the classes
    l2          candidates, >= 0. scikit-learn's C is 1 / (l2 · n), and for two classes 2 / (l2 · n): it fits one weight
                w, which a softmax shares as ±w/2, with half the penalty
    validation  share of each class held out, in (0, 1); with one candidate, or classes too small to hold anything
                out, nothing is held out and the middle candidate is taken
    seed        of the split
    tolerance   a fit stops once no entry of its gradient is above it; ``steps`` bounds its iterations
    """
    if not l2 or min(l2) < 0:
        raise ValueError(f"l2 must be a tuple of regularisers >= 0, got {l2}")
    if not 0 < validation < 1:
        raise ValueError(f"validation must be a share in (0, 1), got {validation}")
    train_z, test_z = _rows(train_z=train_z, test_z=test_z)
    given = train_y.dtype if isinstance(train_y, Tensor) else None
    train_y, test_y = _labels(classes, train_y=(train_y, train_z), test_y=(test_y, test_z))
    if classes is None:
        names, mapped = torch.cat([train_y, test_y]).unique(return_inverse=True)
        train_y, test_y = mapped.split([len(train_y), len(test_y)])
    else:
        names = torch.arange(classes, device=train_z.device)
    classes, candidates = len(names), sorted(l2, reverse=True)
    held = held_out(train_y, classes, validation, seed)
    best, accuracy, start = candidates[len(candidates) // 2], math.nan, None
    if len(candidates) > 1 and held.any():
        mean, std = _moments(train_z[~held])
        fit_z, held_z = (train_z[~held] - mean) / std, (train_z[held] - mean) / std
        fit_y, held_y = train_y[~held], train_y[held]
        weights, scores = [], []
        for strength in candidates:  # from strong to weak: each fit starts from the one before
            start = _logistic(fit_z, fit_y, classes, strength, start, tolerance, steps)
            weights.append(start)
            scores.append((_logits(held_z, start).argmax(1) == held_y).double().mean())
        scores = torch.stack(scores).tolist()
        accuracy = max(scores)
        best, start = candidates[scores.index(accuracy)], weights[scores.index(accuracy)]
    mean, std = _moments(train_z)
    weight = _logistic((train_z - mean) / std, train_y, classes, best, start, tolerance, steps)
    right = (_logits((test_z - mean) / std, weight).argmax(1) == test_y).double().mean().item()
    slope = weight[:-1].T / std
    return Probe(right, best, accuracy, slope, weight[-1] - slope @ mean, names.to(given))


def few_label_probe(
    train_z: Rows, train_y: Labels, test_z: NewRows, test_y: NewLabels, labels: int, draws: int = 8, l2: float = 0.01
) -> float:
    """Accuracy of a linear probe on ``labels`` training rows, the mean over several random draws of them.

    Few labels ask for features that lie ready, where many would find anything that is not lost. One regulariser for
    all, since there is nothing to hold out. Raises ValueError for labels outside 1 … n and draws below 1.
    """
    _labels(None, train_y=(train_y, train_z))
    if not 1 <= labels <= len(train_y):
        raise ValueError(f"labels must be between 1 and the {len(train_y)} training rows, got {labels}")
    if draws < 1:
        raise ValueError(f"draws must be at least 1, got {draws}")
    orders = (torch.randperm(len(train_y), generator=torch.Generator().manual_seed(draw)) for draw in range(draws))
    rows = [order[:labels].to(train_y.device) for order in orders]
    hits = [linear_probe(train_z[r], train_y[r], test_z, test_y, l2=(l2,)).accuracy for r in rows]
    return sum(hits) / len(hits)


def _moments(z: Rows) -> tuple[Tensor, Tensor]:
    std, mean = torch.std_mean(z, 0, correction=0)
    return mean, torch.where(std > 1e-6 * mean.abs().clamp_min(1e-6), std, 1)  # a constant feature stays 0


def held_out(y: Labels, classes: int | None, share: float, seed: int) -> Tensor:
    """Mask (n,) of the rows to hold out: ``share`` of every class, rounded down, at random by the seed.

    classes  how many there may be; None takes any. Labels are any integers

    Raises ValueError for labels that are not integers, more of them than ``classes``, or a share outside [0, 1].
    """
    if not isinstance(y, Tensor) or y.ndim != 1 or y.is_floating_point() or y.is_complex():
        got = f"{y.dtype} {tuple(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
        raise ValueError(f"y must be an integer tensor (n,), got {got}")
    names, y = y.unique(return_inverse=True)
    if classes is not None and len(names) > classes:
        raise ValueError(f"y must hold at most {classes} classes, got {len(names)}")
    if not 0 <= share <= 1:
        raise ValueError(f"share must be in [0, 1], got {share}")
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed)).to(y.device)
    order = order[y[order].argsort(stable=True)]  # by class, shuffled within
    count = torch.bincount(y, minlength=len(names))
    rank = torch.arange(len(y), device=y.device) - (count.cumsum(0) - count)[y[order]]
    held = torch.zeros(len(y), dtype=torch.bool, device=y.device)
    held[order] = rank < (count * share).floor().long()[y[order]]
    return held


def _logits(z: Rows, weight: Float[Tensor, "_ classes"]) -> Float[Tensor, "n classes"]:
    return torch.addmm(weight[-1], z, weight[:-1])


def _logistic(
    z: Rows, y: Labels, classes: int, l2: float, start: Tensor | None, tolerance: float, steps: int
) -> Float[Tensor, "_ classes"]:
    """Weights, and the bias as last row, of the regularised logistic regression of y on z."""
    weight = z.new_zeros(z.shape[1] + 1, classes) if start is None else start.clone()
    target, n = F.one_hot(y, classes).to(z.dtype), len(z)
    solver = torch.optim.LBFGS([weight], max_iter=steps, history_size=20, tolerance_grad=tolerance,
                               tolerance_change=0, line_search_fn="strong_wolfe")  # fmt: skip

    def loss() -> Tensor:
        """The objective, and its gradient by hand: a third of autograd's time."""
        logits = _logits(z, weight)
        log_p = logits.log_softmax(1)
        error = (log_p.exp() - target).div_(n)
        weight.grad = torch.cat([torch.addmm(weight[:-1], z.T, error, beta=l2), error.sum(0, keepdim=True)])
        return (target * log_p).sum().div(-n) + l2 / 2 * weight[:-1].square().sum()

    solver.step(loss)
    return weight


def ridge_r2(
    train_z: Rows, train_t: Float[Tensor, "n *t"], test_z: NewRows, test_t: Float[Tensor, "m *t"],
    l2: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0), validation: float = 0.2, seed: int = 0,
) -> float:  # fmt: skip
    """R² on the test rows of a ridge regression of continuous factors, averaged over the factors.

    Minimises mean squared error + l2 · ‖W‖² over standardised features; the regulariser is the best on a held-out
    part of the training rows, which then all take part in the last fit.

    train_t, test_t  targets (n,) or (n, t); a factor that is constant in the test rows has no R² and raises

    1 is perfect, 0 is the test mean's own score, below 0 is worse than that.
    """
    if not l2 or min(l2) <= 0:
        raise ValueError(f"l2 must be a tuple of regularisers > 0, got {l2}")
    if not 0 < validation < 1:
        raise ValueError(f"validation must be a share in (0, 1), got {validation}")
    train_z, test_z = _rows(train_z=train_z, test_z=test_z)
    train_t, test_t = (t[:, None] if isinstance(t, Tensor) and t.ndim == 1 else t for t in (train_t, test_t))
    train_t, test_t = _rows(train_t=train_t, test_t=test_t)
    for name, t, z in (("train_t", train_t, train_z), ("test_t", test_t, test_z)):
        if len(t) != len(z):
            raise ValueError(f"{name} must have one row for each of the {len(z)} rows of {name[:-1]}z, got {len(t)}")
    if len(train_z) < 3:
        raise ValueError(f"train_z must have at least 3 rows to hold some out, got {len(train_z)}")
    train_t, test_t = train_t.to(train_z), test_t.to(train_z)
    if (test_t.amax(0) == test_t.amin(0)).any():
        raise ValueError("test_t holds a constant factor: its R² is not defined")
    size = torch.frexp(train_t.abs().amax(0)).exponent  # a power of two: squares stay in range, and no digit changes
    train_t, test_t = torch.ldexp(train_t, -size), torch.ldexp(test_t, -size)
    held = torch.zeros(len(train_z), dtype=torch.bool, device=train_z.device)
    order = torch.randperm(len(held), generator=torch.Generator().manual_seed(seed))
    held[order[: max(1, int(len(held) * validation))].to(held.device)] = True
    fits = _ridge(train_z[~held], train_t[~held], train_z[held], l2)
    errors = ((fits - train_t[held]) ** 2 / train_t.var(0).clamp_min(1e-12)).mean((1, 2))
    best = l2[int(errors.argmin())]
    predicted = _ridge(train_z, train_t, test_z, (best,))[0]
    rest = ((test_t - predicted) ** 2).sum(0) / ((test_t - test_t.mean(0)) ** 2).sum(0)
    return (1 - rest).mean().item()


def _ridge(z: Rows, t: Tensor, new_z: NewRows, l2: tuple[float, ...]) -> Float[Tensor, "l2 m t"]:
    """Predictions for new rows with every regulariser, from one eigendecomposition of the smaller Gram matrix."""
    mean, std = _moments(z)
    z, new_z = ((z - mean) / std).double(), ((new_z - mean) / std).double()
    centre = t.mean(0).double()
    n, d = z.shape
    if d <= n:
        values, vectors = torch.linalg.eigh(z.T @ z / n)
        left, right = new_z @ vectors, vectors.T @ (z.T @ (t - centre)) / n
    else:
        values, vectors = torch.linalg.eigh(z @ z.T / n)
        left, right = new_z @ (z.T @ vectors) / n, vectors.T @ (t - centre)
    shrink = 1 / (values.clamp_min(0) + torch.tensor(l2, device=z.device, dtype=z.dtype)[:, None])
    return (left @ (shrink[..., None] * right) + centre).to(t.dtype)


def alignment(z1: Rows, z2: Rows, alpha: float = 2) -> float:
    """Mean distance^alpha between the two views of a sample, on the unit sphere: smaller is better aligned.

    Wang and Isola 2020, eq. 6. Rows are normalised here.
    """
    z1, z2 = _rows(z1=z1, z2=z2)
    if len(z1) != len(z2):
        raise ValueError(f"z2 must pair row by row with the {len(z1)} rows of z1, got {len(z2)}")
    check_positive(alpha=alpha)
    return (unit_rows(z1) - unit_rows(z2)).norm(dim=1).pow(alpha).mean().item()


def uniformity(z: Rows, t: float = 2, chunk: int = 4096) -> float:
    """log of the mean of exp(-t · distance²) over all pairs of different rows, on the unit sphere.

    Wang and Isola 2020, eq. 7. 0 when all rows are one point; smaller is more uniform. Rows are normalised here.
    Memory O(chunk · n). The sum is taken in logarithms, so any t > 0 will do; above 100 in float64.
    """
    check_positive(t=t)
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1, got {chunk}")
    (z,) = _rows(z=z)
    n = len(z)
    if n < 2:
        raise ValueError("z must have at least 2 rows to make a pair, got 1")
    z = unit_rows(z if t <= 100 else z.double())
    sums = []
    for start in range(0, n, chunk):
        part = torch.mm(z[start : start + chunk], z.T).sub_(1).clamp_(max=0).mul_(2 * t)
        part.diagonal(start).fill_(-math.inf)
        top = part.amax()
        sums.append(top.double() + part.sub_(top).exp_().sum(dtype=torch.float64).log())
    return torch.stack(sums).logsumexp(0).sub(math.log(n * (n - 1))).item()


def effective_rank(z: Rows, eps: float = 1e-7) -> float:
    """exp of the entropy of the singular values' shares: the number of dimensions that a representation uses.

    RankMe (Garrido et al. 2023), eq. 1 and 2, with their eps of 1e-7; the rows are not centred, as in the paper.
    Between 1 and min(n, d).
    """
    (z,) = _rows(z=z)
    if len(z) > 2 * z.shape[1]:  # the singular values of R are those of z
        z = torch.linalg.qr(z, mode="r").R
    values = torch.linalg.svdvals(z)
    share = values / values.sum().clamp_min(torch.finfo(z.dtype).tiny) + eps
    return (-(share * share.log()).sum()).exp().item()
