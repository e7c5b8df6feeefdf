"""Sort & Search: samples in order of difficulty, so that a few outcomes of a new model predict all others.

Prabhu, Udandarao, Torr, Bethge, Bibi and Albanie, "Lifelong Benchmarks: Efficient Model Evaluation in an Era of Rapid
Progress" (2024).
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from ...loss import raised

CORRUPTIONS = ("none", "noise", "blur", "contrast", "occlusion", "rotation")


def corrupted(
    images: Float[Tensor, "n c h w"], kind: str, severity: float, generator: Generator
) -> Float[Tensor, "n c h w"]:
    """Images made harder in one way; 0 leaves them as they are, 1 is strong.

    kind  one of CORRUPTIONS: Gaussian noise, a blur by neighbours' means, contrast taken out, a square of the side
          severity/2 painted over, a turn by up to 60° times severity

    images  float, about 0 … 1. Computed in float32, returned in their precision

    Raises ValueError for another kind, a severity outside [0, 1], and images that are not float or lie beyond -1 … 2.
    """
    if kind not in CORRUPTIONS:
        raise ValueError(f"kind must be one of {', '.join(CORRUPTIONS)}, got {kind!r}")
    if not 0 <= severity <= 1:
        raise ValueError(f"severity must be in [0, 1], got {severity}")
    if not images.is_floating_point() or images.numel() and not bool(((images >= -1) & (images <= 2)).all()):
        raise ValueError(f"images must be float in [0, 1], or near it, got {images.dtype}: divide bytes by 255")
    half, images = images.dtype, raised(images)
    return _corrupted(images, kind, severity, generator).to(half)


def _corrupted(images: Tensor, kind: str, severity: float, generator: Generator) -> Tensor:
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


def mixture(images: Float[Tensor, "n c h w"], seed: int, severity: float = 0.6) -> Float[Tensor, "n c h w"]:
    """A sixth of the images as they are, the others each with one of the CORRUPTIONS, in this order."""
    g = Generator(images.device).manual_seed(seed)
    parts = zip(CORRUPTIONS, images.chunk(len(CORRUPTIONS)), strict=True)
    return torch.cat([corrupted(part, kind, severity, g) for kind, part in parts])


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


def spaced_as_released(n: int, m: int) -> Int[Tensor, " m"]:
    """m places among n at steps of n // m, as the authors' code takes them: the first half a step in, or, where m does
    not divide n, after all that is left over. Raises ValueError unless 1 <= m <= n.
    """
    if not 1 <= m <= n:
        raise ValueError(f"m must be in 1 … {n}, got {m}")
    step = n // m
    return torch.arange(step // 2 if n == step * m else n - step * m, n, step)


def counted(seen: Bool[Tensor, "r m"], places: Int[Tensor, " m"]) -> Int[Tensor, " r"]:
    """The authors' estimate of how many samples a model is right on: the place that the count of right answers names.

    Sort & Search's released code predicts accuracy so, and single outcomes by ``search``: where c of the m outcomes are
    right, places[c], or the last place where all are.

    seen  outcomes at ``places``, which rise
    """
    return places[seen.sum(1).clamp_max(len(places) - 1)]


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


def nearest(
    known: Bool[Tensor, "m n"], new: Bool[Tensor, "r n"], samples: Int[Tensor, " b"]
) -> Bool[Tensor, "r n"]:  # fmt: skip
    """The paper's rival, CopyNearest&Expand: what the known model did that agrees with a new one on most ``samples``.

    Where several agree on as many, the first is taken. Outcomes that were seen are kept as they are.
    """
    apart = (known[None, :, samples] ^ new[:, None, samples]).sum(2)  # (new models, known models)
    said = known[apart.argmin(1)]
    said[:, samples] = new[:, samples]
    return said


def scattered(n: int, m: int, generator: Generator) -> Int[Tensor, " m"]:
    """m of n places at random, in rising order: instead of ``spaced``."""
    return torch.randperm(n, generator=generator)[:m].sort().values


def rivals(
    known: Bool[Tensor, "m n"], new: Bool[Tensor, "r n"], order: Int[Tensor, " n"], budget: int, seed: int = 0
) -> tuple[dict[str, float], dict[str, float]]:
    """Sort & Search and simpler ways to use ``budget`` outcomes of each new model.

    Accuracies are also estimated by ``counted``, as in the released code.

    Returns the share of samples whose outcome is predicted wrong, and the mean error of the accuracy, by method.
    """
    n, sums = new.shape[1], by_sum(known)
    places, full, g = spaced(n, budget), new.double().mean(1), Generator().manual_seed(seed)
    share = new[:, order[places]].double().mean(1)
    draws = [torch.randperm(n, generator=g)[:budget] for _ in range(20)]
    k, k_sums = (search(new[:, o[places]], places, n) for o in (order, sums))
    anywhere = [scattered(n, budget, g) for _ in range(10)]
    k_any = torch.stack([search(new[:, order[at]], at, n) for at in anywhere])
    copied = torch.stack([nearest(known, new, samples) for samples in draws[:10]])
    told = {
        "sort and search": outcomes(k, order),
        "search in the order by sum": outcomes(k_sums, sums),
        "search, random places": torch.stack([outcomes(one, order) for one in k_any]),
        "same order, cut at the share": outcomes((share * n).round().long(), order),
        "nearest known model": copied,
        "what most models do": (known.double().mean(0) > 0.5).expand_as(new),
    }
    count = counted(new[:, order[spaced_as_released(n, budget)]], spaced_as_released(n, budget))
    guessed = {"sort and search": k.double() / n, "count at spaced places": count.double() / n}
    guessed["search, random places"] = k_any.double() / n
    guessed["share, random samples"] = torch.stack([new[:, samples].double().mean(1) for samples in draws])
    guessed["nearest known model"] = copied.double().mean(2)
    mistakes = {name: float((guess != new).double().mean()) for name, guess in told.items()}
    return mistakes, {name: float((guess - full).abs().mean()) for name, guess in guessed.items()}


def split_error(new: Bool[Tensor, "r n"], order: Int[Tensor, " n"], budget: int) -> tuple[float, float]:
    """The two parts of the search's mistakes a sample, which the paper calls aleatoric and epistemic (section 4.4).

    Aleatoric is what the best threshold gets wrong that all outcomes would find: new models do not follow the order.
    Epistemic is what a threshold from ``budget`` outcomes gets wrong more.
    """
    n, places = new.shape[1], spaced(new.shape[1], budget)
    ordered = new[:, order]
    found = mistakes(ordered).gather(1, search(ordered[:, places], places, n)[:, None])
    least = float(mistakes(ordered).amin(1).double().mean()) / n
    return least, float(found.double().mean()) / n - least


def two_sided(new: Bool[Tensor, "r n"], order: Int[Tensor, " n"], k: Int[Tensor, " r"]) -> tuple[float, float]:
    """Mistakes of thresholds a sample: wrong before them and right after; and what is left of both where they cancel.

    The second is the error of the accuracy k / n: each wrong outcome before the threshold makes up for a right one
    behind it.
    """
    ordered, n = new[:, order], new.shape[1]
    before = torch.arange(n, device=new.device)[None] < k[:, None]
    wrong, right = (~ordered & before).sum(1).double(), (ordered & ~before).sum(1).double()
    return float((wrong + right).mean()) / n, float((wrong - right).abs().mean()) / n


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
