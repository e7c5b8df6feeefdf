"""Honest evaluation, what one number hides: two sources, leaks before cross-validation, unequal subgroups.

CINIC-10 joins images of two origins and keeps the origin as a label; here handwritten digits and degraded print stand
for CIFAR-10 and ImageNet. Moscovich and Rosset measure how preprocessing without labels, done before cross-validation,
biases its estimate; all their simulations are here as batches of repetitions. MacroStd says how unequal a classifier's
accuracies are within a class, and FlowAug evens them by shifting the global latents of a normalising flow.
"""

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor, nn

from ..data.batches import mixed_seed, shuffled
from ..data.benchmarks import Benchmark
from ..data.synthetic import Scenes, _installed, digits, scenes
from ..nets import seeded
from ..train import fit

Images = Float[Tensor, "n c h w"]
Labels = Int[Tensor, " n"]
Source = tuple[Tensor, Tensor]  # images (n, c, h, w) and labels (n,)
Batch = Float[Tensor, "r n p"]  # r repetitions of n samples with p features
Transform = Callable[[Batch], Batch]
Preprocess = Callable[[Batch], Transform]
Predict = Callable[[Batch], Float[Tensor, "r n"]]
Learn = Callable[[Batch, Float[Tensor, "r n"]], Predict]

FONTS = (
    "DejaVuSans", "DejaVuSerif", "DejaVuSansMono",
    "STIXGeneral", "cmr10", "cmss10",
    "cmtt10", "DejaVuSans-Bold", "DejaVuSerif-Bold",
    "DejaVuSansMono-Bold", "STIXGeneralBol", "DejaVuSans-Oblique",
    "cmb10", "cmti10", "DejaVuSerif-Italic",
    "DejaVuSerif-BoldItalic", "DejaVuSansMono-Oblique", "STIXGeneralItalic",
    "DejaVuSansMono-BoldOblique", "DejaVuSans-BoldOblique", "STIXGeneralBolIta",
)  # fmt: skip
PARTS = ("train", "validation", "test")  # of CINIC-10, equal in size


@lru_cache(1)
def glyphs(side: int = 32) -> Float[Tensor, "fonts 10 {side} {side}"]:
    """The digits 0 … 9 in each of ``FONTS``, ink 1 on ground 0, every glyph as large as fits with a margin of 1/16."""
    from PIL import Image, ImageDraw, ImageFont

    made = torch.zeros(len(FONTS), 10, side, side)
    for i, name in enumerate(FONTS):
        font = ImageFont.truetype(str(_installed("matplotlib", "mpl-data", "fonts", "ttf", f"{name}.ttf")), 4 * side)
        for digit in range(10):
            left, top, right, bottom = font.getbbox(str(digit))
            picture = Image.new("L", (right - left, bottom - top))
            ImageDraw.Draw(picture).text((-left, -top), str(digit), 255, font)
            scale = 0.875 * side / max(picture.size)
            picture = picture.resize([max(1, round(scale * s)) for s in picture.size], Image.Resampling.BOX)
            x, y = ((side - s) // 2 for s in picture.size)
            pixels = torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255)
            made[i, digit, y : y + pixels.shape[0], x : x + pixels.shape[1]] = pixels
    return made


def printed_digits(n: int, seed: int = 0, part: str = "train") -> tuple[Float[Tensor, "n 1 8 8"], Labels]:
    """Printed digits, turned, scaled and shifted, brought down to 8×8 and degraded: the stand-in for ImageNet's images.

    Each part has seven fonts of its own. Ink is 0.5 … 1, noise has a standard deviation of 0.07.

    Raises ValueError for n < 1 or an unknown part.
    """
    if part not in PARTS:
        raise ValueError(f"part must be one of {', '.join(PARTS)}, got {part!r}")
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    g = Generator().manual_seed(mixed_seed(seed, 7, PARTS.index(part)))
    labels = torch.arange(n) % 10
    font = 3 * torch.randint(len(FONTS) // 3, (n,), generator=g) + PARTS.index(part)
    turn, grow = 0.2 * (2 * torch.rand(2, n, generator=g) - 1)
    cos, sin, shift = turn.cos() / (1 + grow), turn.sin() / (1 + grow), 0.2 * (2 * torch.rand(n, 2, generator=g) - 1)
    rows = torch.stack([torch.stack([cos, -sin, shift[:, 0]], 1), torch.stack([sin, cos, shift[:, 1]], 1)], 1)
    pictures = glyphs()[font, labels][:, None]
    x = F.grid_sample(pictures, F.affine_grid(rows, list(pictures.shape), align_corners=False), align_corners=False)
    ink = 0.5 + 0.5 * torch.rand(n, 1, 1, 1, generator=g)
    x = ink * F.avg_pool2d(x, 4) + 0.07 * torch.randn(n, 1, 8, 8, generator=g)
    return x.clamp(0, 1), labels


def two_sources(part: str, seed: int = 0) -> dict[str, Source]:
    """A third of scikit-learn's handwritten digits, and as many printed ones: name -> (images, labels).

    Parts are disjoint: other handwritten digits, other fonts. The seed deals the handwritten digits to the parts.
    """
    images, labels = digits()
    third = len(labels) // len(PARTS)
    order = torch.randperm(len(labels), generator=Generator().manual_seed(mixed_seed(seed, 8)))
    printed = printed_digits(third, seed, part)
    mine = order[PARTS.index(part) * third :][:third]
    return {"handwritten": (images[mine][:, None], labels[mine]), "printed": printed}


def matched_sources(first: Benchmark, second: Benchmark, part: str, seed: int = 0) -> dict[str, Source]:
    """Two benchmarks as two sources at full scale: the classes they share, equally many images, in three equal parts.

    Labels are those of ``first``. The second's images are brought down to the first's size by averaging, as CINIC-10
    does with ImageNet's. Training and test images of both are pooled before the seed deals them to the parts.
    """
    same = {"car": "automobile"}  # STL-10's word
    names = [same.get(name, name) for name in second.class_names]
    found = []
    for data, theirs in ((first, first.class_names), (second, names)):
        x, y = torch.cat([data.train_images, data.test_images]), torch.cat([data.train_labels, data.test_labels])
        shared = [n in names and n in first.class_names for n in theirs]
        known = [first.class_names.index(n) if s else -1 for n, s in zip(theirs, shared, strict=True)]
        y = torch.tensor(known, device=y.device)[y]
        g = Generator().manual_seed(mixed_seed(seed, 13))
        kept = torch.nonzero(y >= 0)[:, 0]
        found.append((x, y, kept[torch.randperm(len(kept), generator=g).to(kept.device)]))
    third = min(len(kept) for *_, kept in found) // len(PARTS)
    factor = second.train_images.shape[-1] // first.train_images.shape[-1]
    made = {}
    for (x, y, kept), name, by in zip(found, ("first", "second"), (1, factor), strict=True):
        mine = kept[PARTS.index(part) * third :][:third]
        made[name] = (F.avg_pool2d(x[mine].float() / 255, by), y[mine])
    return made


def pooled(sources: dict[str, Source], share: float = 1.0) -> tuple[Images, Labels]:
    """All sources as one set, of each the first ``share``."""
    kept = [(x[: round(share * len(x))], y[: round(share * len(y))]) for x, y in sources.values()]
    return torch.cat([x for x, _ in kept]), torch.cat([y for _, y in kept])


def pixel_statistics(images: Images) -> dict[str, list[float]]:
    """Mean and standard deviation of every channel's pixels, as the report prints them for each part and source."""
    flat = images.transpose(0, 1).flatten(1).double()
    return {"mean": flat.mean(1).tolist(), "std": flat.std(1).tolist()}


def standardised(images: Images) -> Images:
    """Every image with mean 0 and standard deviation 1 in every channel: brightness and contrast taken away."""
    mean, std = images.mean((2, 3), keepdim=True), images.std((2, 3), keepdim=True)
    return (images - mean) / (std + 1e-3)


def source_matrix(
    learn: Callable[[Images, Labels], Callable[[Images], Labels]], train: dict[str, Source], test: dict[str, Source]
) -> dict[tuple[str, str], float]:
    """Accuracy for every pair (trained on, tested on)."""
    found = {}
    for source, (x, y) in train.items():
        predict = learn(x, y)
        found |= {(source, to): float((predict(u) == v).double().mean()) for to, (u, v) in test.items()}
    return found


def rank_agreement(a: list[float], b: list[float]) -> float:
    """Spearman's ρ of two lists of scores; 0 where one of them is constant and so ranks nothing."""
    from scipy.stats import spearmanr

    return float(spearmanr(a, b).statistic) if min(len(set(a)), len(set(b))) > 1 else 0.0


def scikit(make: Callable[[], object]) -> Callable[[Images, Labels], Callable[[Images], Labels]]:
    """A scikit-learn classifier as a function ``learn(images, labels) -> predict``."""

    def learn(x: Images, y: Labels) -> Callable[[Images], Labels]:
        model = make().fit(x.flatten(1).numpy(), y.numpy())
        return lambda new: torch.from_numpy(model.predict(new.flatten(1).numpy()))

    return learn


# Cross-validation after preprocessing


def student(shape: tuple[int, ...], df: int, *, generator: Generator) -> Tensor:
    """Student's t with an even number of degrees of freedom; 0 stands for infinitely many, the Gaussian.

    z √(df / χ²), where χ² of an even df is a sum of exponentials. Raises ValueError for a negative or odd df.
    """
    if df < 0 or df % 2:
        raise ValueError(f"df must be even and at least 0, got {df}")
    z = torch.randn(shape, generator=generator)
    if not df:
        return z
    chi2 = sum(-2 * torch.rand(shape, generator=generator).clamp_(min=1e-30).log_() for _ in range(df // 2))
    return z * (df / chi2).sqrt_()


def wide_regression(
    r: int, n: int, p: int = 100, df: int = 4, strong: int = 5, factor: float = 5.0, *, generator: Generator
) -> tuple[Batch, Float[Tensor, "r n"]]:
    """Section 4's data: p independent features, the first ``strong`` ones ``factor`` times as large; y = xᵀβ + noise.

    β is standard normal, drawn anew for every repetition; the noise has the variance of xᵀβ for a Gaussian x.
    """
    x = student((r, n, p), df, generator=generator)
    x[..., :strong] *= factor
    beta = torch.randn(r, p, 1, generator=generator)
    sigma = math.sqrt(strong * factor**2 + p - strong)
    return x, (x @ beta)[..., 0] + sigma * torch.randn(r, n, generator=generator)


def categories(
    r: int, n: int, c: int = 20, sigma: float = 0.25, *, generator: Generator
) -> tuple[Batch, Float[Tensor, "r n"]]:
    """Data of the example on rare categories: one of c, as one-hot rows; y = μ_category + σ noise, μ ~ N(0, 1)."""
    mu, which = torch.randn(r, c, generator=generator), torch.randint(c, (r, n), generator=generator)
    y = mu.gather(1, which) + sigma * torch.randn(r, n, generator=generator)
    return F.one_hot(which, c).float(), y


def narrow_regression(
    r: int, n: int, p: int = 5, sigma: float = 0.0, *, generator: Generator
) -> tuple[Batch, Float[Tensor, "r n"]]:
    """Data of the example on rescaling: x ~ N(0, I/p), y = xᵀv + σ noise with v ~ N(0, I)."""
    x = torch.randn(r, n, p, generator=generator) / math.sqrt(p)
    v = torch.randn(r, p, 1, generator=generator)
    return x, (x @ v)[..., 0] + sigma * torch.randn(r, n, generator=generator)


def drawn_from(x: Float[Tensor, "m p"], y: Float[Tensor, " m"]) -> Callable[..., tuple[Batch, Float[Tensor, "r n"]]]:
    """A finite data set as a population: ``draw(r, n, generator=…)`` takes n rows without replacement."""

    def draw(r: int, n: int, *, generator: Generator):
        index = torch.rand(r, len(x), generator=generator).topk(n, 1).indices
        return x[index], y[index]

    return draw


@lru_cache(1)
def tumours() -> tuple[Float[Tensor, "569 30"], Float[Tensor, " 569"]]:
    """scikit-learn's breast cancer table: 30 measures and the diagnosis, all columns standardised over the table."""
    table = np.loadtxt(_installed("sklearn", "datasets", "data", "breast_cancer.csv"), delimiter=",", skiprows=1)
    table = torch.from_numpy((table - table.mean(0)) / table.std(0)).float()
    return table[:, :-1], table[:, -1]


def unchanged(x: Batch) -> Transform:
    """No preprocessing."""
    return lambda z: z


def variance_filter(k: int) -> Preprocess:
    """Keep the k features of largest sample variance."""

    def learn(x: Batch) -> Transform:
        index = x.var(1).topk(k, 1).indices
        return lambda z: z.gather(2, index[:, None].expand(-1, z.shape[1], -1))

    return learn


def rare_to_zero(m: int) -> Preprocess:
    """Of one-hot categories, those seen fewer than m times become one rare category, whose prediction is fixed to 0."""

    def learn(x: Batch) -> Transform:
        kept = (x.sum(1, keepdim=True) >= m).to(x.dtype)
        return lambda z: z * kept

    return learn


def unit_scale(x: Batch) -> Transform:
    """Divide each feature by the root of its mean square; means are known to be 0."""
    scale = x.square().mean(1, keepdim=True).sqrt()
    return lambda z: z / scale


def leading_components(k: int) -> Preprocess:
    """Project on the k leading principal components, and append a column of ones."""

    def learn(x: Batch) -> Transform:
        mean = x.mean(1, keepdim=True)
        centred = (x - mean).double()
        axes = torch.linalg.eigh(centred.mT @ centred).eigenvectors[..., -k:].to(x.dtype)
        return lambda z: torch.cat([(z - mean) @ axes, torch.ones_like(z[..., :1])], 2)

    return learn


def least_squares(x: Batch, y: Float[Tensor, "r n"]) -> Predict:
    """Ordinary least squares without an intercept; directions that x does not have get weight 0, nearly."""
    x, y = x.double(), y.double()
    moments = x.mT @ x
    ridge = 1e-9 * torch.eye(x.shape[2], dtype=x.dtype)
    weight = torch.linalg.solve(moments + ridge, x.mT @ y[..., None])
    return lambda z: (z.double() @ weight)[..., 0].to(z.dtype)


def lasso(alpha: float, sweeps: int = 20) -> Learn:
    """argmin ‖y - Xw‖² / 2n + α ‖w‖₁ by cyclic coordinate descent, no intercept; for a few features."""

    def learn(x: Batch, y: Float[Tensor, "r n"]) -> Predict:
        n = x.shape[1]
        gram, target = x.mT @ x / n, (x.mT @ y[..., None])[..., 0] / n
        weight = torch.zeros_like(target)
        for _ in range(sweeps):
            for j in range(x.shape[2]):
                left = target[:, j] - (gram[:, j] * weight).sum(1) + gram[:, j, j] * weight[:, j]
                weight[:, j] = F.softshrink(left, alpha) / gram[:, j, j]
        return lambda z: (z @ weight[..., None])[..., 0]

    return learn


def cross_validated(
    x: Batch, y: Float[Tensor, "r n"], new_x: Float[Tensor, "r m p"], new_y: Float[Tensor, "r m"],
    preprocess: Preprocess, learn: Learn, inside: bool, folds: int = 2, used: int | None = None,
) -> tuple[Float[Tensor, " r"], Float[Tensor, " r"]]:  # fmt: skip
    """Cross-validation's mean squared error of every repetition, and the true one on samples that took no part.

    Paper, section 2: e_val on the held-out fold and e_gen on new samples, both of the predictor learned on the other
    folds behind the same transformation. Their mean difference is the bias.

    preprocess  ``preprocess(x) -> transform``, sees no y
    inside      learn the transformation from the other folds alone; if False from all samples, before the folds are cut
    folds       divides n; ``used`` of them are evaluated, all if None: over repetitions each has the same mean

    Raises ValueError for folds that do not divide the samples or are fewer than 2.
    """
    n = x.shape[1]
    if folds < 2 or n % folds:
        raise ValueError(f"folds must be at least 2 and divide the {n} samples, got {folds}")
    shared = None if inside else preprocess(x)
    seen, true = [], []
    for fold in range(folds if used is None else used):
        out = torch.zeros(n, dtype=torch.bool, device=x.device)
        out[fold * (n // folds) : (fold + 1) * (n // folds)] = True
        transform = preprocess(x[:, ~out]) if inside else shared
        predict = learn(transform(x[:, ~out]), y[:, ~out])
        seen.append((predict(transform(x[:, out])) - y[:, out]).square().mean(1))
        true.append((predict(transform(new_x)) - new_y).square().mean(1))
    return torch.stack(seen).mean(0), torch.stack(true).mean(0)


def cv_bias(
    draw: Callable[..., tuple[Batch, Float[Tensor, "r n"]]], preprocess: Preprocess, learn: Learn, n: int, inside: bool,
    repetitions: int, seed: int, folds: int = 2, chunk: int = 500,
) -> tuple[float, float, float]:  # fmt: skip
    """Means over repetitions: cross-validation's error, the true error, and the standard error of their difference.

    n     samples outside the held-out fold; all are n folds / (folds - 1), and n new samples measure the true error
    seed  equal seeds draw equal samples, whatever the preprocessing and its place

    One fold of every repetition is evaluated.
    """
    total, g, seen, true = n * folds // (folds - 1), Generator().manual_seed(mixed_seed(seed, n)), [], []
    for start in range(0, repetitions, chunk):
        x, y = draw(min(chunk, repetitions - start), total + n, generator=g)
        cut = (x[:, :total], y[:, :total], x[:, total:], y[:, total:])
        errors = cross_validated(*cut, preprocess, learn, inside, folds, used=1)
        seen.append(errors[0])
        true.append(errors[1])
    seen, true = torch.cat(seen).double(), torch.cat(true).double()
    return float(seen.mean()), float(true.mean()), float((seen - true).std() / len(seen) ** 0.5)


def cv_choice(
    x: Batch, y: Float[Tensor, "r n"], new_x: Float[Tensor, "r m p"], new_y: Float[Tensor, "r m"],
    family: list[Preprocess], learn: Learn, inside: bool, folds: int = 2,
) -> Float[Tensor, " r"]:  # fmt: skip
    """True error, with all samples used, of the preprocessing that cross-validation prefers among ``family``."""
    seen = torch.stack([cross_validated(x, y, x, y, one, learn, inside, folds)[0] for one in family])
    true = []
    for preprocess in family:
        transform = preprocess(x)
        true.append((learn(transform(x), y)(transform(new_x)) - new_y).square().mean(1))
    return torch.stack(true).gather(0, seen.argmin(0, keepdim=True))[0]


# Subgroups


def subgroup_accuracy(
    correct: Bool[Tensor, " n"], labels: Labels, groups: Labels, classes: int, subgroups: int
) -> tuple[Float[Tensor, "c g"], Float[Tensor, "c g"]]:
    """Accuracy of every class in every subgroup, 0 where there is no image, and the number of images."""
    cell = labels * subgroups + groups
    counts = torch.bincount(cell, minlength=classes * subgroups).double()
    hits = torch.bincount(cell, correct.double(), minlength=classes * subgroups)
    shape = (classes, subgroups)
    return (hits / counts.clamp(min=1)).view(shape), counts.view(shape)


def macro_std(accuracy: Float[Tensor, "c g"], counts: Float[Tensor, "c g"]) -> float:
    """MacroStd: the standard deviation of a class's subgroup accuracies, weighted by images; the mean over classes.

        σ_c² = Σ_g w_cg (a_cg - ā_c)²,   ā_c = Σ_g w_cg a_cg,   w_cg = n_cg / Σ_g n_cg,   MacroStd = (1/C) Σ_c σ_c

    0 for equal accuracies, at most 0.5. A subgroup without images has no weight. Few images in a subgroup make its
    accuracy uneven by chance: compare with ``chance_macro_std``.

    Raises ValueError for a class without images.
    """
    total = counts.sum(1, keepdim=True)
    if not (total > 0).all():
        raise ValueError(f"every class needs images, got none for {torch.nonzero(total[:, 0] <= 0)[:, 0].tolist()}")
    weight = counts / total
    mean = (weight * accuracy).sum(1, keepdim=True)
    return float((weight * (accuracy - mean).square()).sum(1).sqrt().mean())


def chance_macro_std(
    correct: Bool[Tensor, " n"], labels: Labels, groups: Labels, classes: int, subgroups: int, seed: int = 0,
    draws: int = 20,
) -> float:  # fmt: skip
    """MacroStd when subgroups are dealt anew at random within each class: what unevenness by chance alone gives."""
    g, found = Generator().manual_seed(seed), []
    correct, labels, groups = correct.cpu(), labels.cpu(), groups.cpu()
    grouped = labels.argsort(stable=True)
    for _ in range(draws):
        mixed = torch.randperm(len(labels), generator=g)
        dealt = torch.empty_like(groups)
        dealt[mixed[labels[mixed].argsort(stable=True)]] = groups[grouped]
        found.append(macro_std(*subgroup_accuracy(correct, labels, dealt, classes, subgroups)))
    return sum(found) / draws


PALETTE = ((0.15, 0.15, 0.15), (0.75, 0.25, 0.2), (0.25, 0.7, 0.25), (0.2, 0.3, 0.8), (0.85, 0.85, 0.85))


def coloured_scenes(n: int, seed: int, split: str, rho: float) -> Scenes:
    """Scenes whose background colour goes with the class: class c has colour c mod 5 of ``PALETTE`` with probability
    rho, else any of the five. The factor "group" is the colour; every channel varies by ±0.05 about it.

    Raises ValueError for rho outside [0, 1].
    """
    if not 0 <= rho <= 1:
        raise ValueError(f"rho must be in [0, 1], got {rho}")
    g = Generator().manual_seed(mixed_seed(seed, 9, round(1000 * rho)))
    labels = torch.randint(10, (n,), generator=g)
    other = torch.randint(len(PALETTE), (n,), generator=g)
    group = torch.where(torch.rand(n, generator=g) < rho, labels % len(PALETTE), other)
    colour = torch.tensor(PALETTE)[group] + 0.1 * (torch.rand(n, 3, generator=g) - 0.5)
    made = scenes(n, mixed_seed(seed, 10, round(1000 * rho)), split, label=labels, background=colour)
    made.factors["group"] = group
    return made


def border_colours(images: Float[Tensor, "n 3 h w"], width: int = 2) -> Labels:
    """Subgroups of photographs without annotation: which colour of ``PALETTE`` is nearest to the mean of the border.

    Stands for the paper's human annotation of background colours. images in [0, 1]
    """
    inner = torch.zeros(images.shape[-2:], dtype=torch.bool, device=images.device)
    inner[width:-width, width:-width] = True
    mean = images[:, :, ~inner].mean(2)
    return torch.cdist(mean, torch.tensor(PALETTE, device=images.device)).argmin(1)


class Coupling(nn.Module):
    """Affine coupling: the chosen half becomes x exp(s) + t, with s and t functions of the other half and a context.

    RealNVP (Dinh et al.). ln |det| = Σ s, exactly. s = 2 tanh(·/2), so that no step is steeper than e²; it begins as
    the identity.

    moved  which of the features are changed; the others pass
    """

    def __init__(self, moved: Bool[Tensor, " d"], context: int, hidden: int):
        super().__init__()
        self.register_buffer("moved", torch.nonzero(moved)[:, 0])
        self.register_buffer("kept", torch.nonzero(~moved)[:, 0])
        n = len(self.moved)
        self.net = nn.Sequential(nn.Linear(len(self.kept) + context, hidden), nn.GELU(), nn.Linear(hidden, 2 * n))
        nn.init.zeros_(self.net[2].weight)
        nn.init.zeros_(self.net[2].bias)

    def terms(self, x: Float[Tensor, "n d"], context: Float[Tensor, "n k"]) -> tuple[Tensor, Tensor]:
        s, t = self.net(torch.cat([x[:, self.kept], context], 1)).chunk(2, 1)
        return 2 * torch.tanh(s / 2), t

    def forward(self, x: Float[Tensor, "n d"], context: Float[Tensor, "n k"]) -> tuple[Tensor, Float[Tensor, " n"]]:
        s, t = self.terms(x, context)
        return x.index_copy(1, self.moved, x[:, self.moved] * s.exp() + t), s.sum(1)

    def inverse(self, y: Float[Tensor, "n d"], context: Float[Tensor, "n k"]) -> Float[Tensor, "n d"]:
        s, t = self.terms(y, context)
        return y.index_copy(1, self.moved, (y[:, self.moved] - t) * (-s).exp())


def cosine_basis(size: int) -> Float[Tensor, "{size} {size}"]:
    """The orthonormal discrete cosine transform, one basis vector a row, slowest first."""
    k, i = torch.arange(size)[:, None].double(), torch.arange(size)[None].double()
    basis = math.sqrt(2 / size) * torch.cos(math.pi * (i + 0.5) * k / size)
    basis[0] /= math.sqrt(2)
    return basis.float()


class GlobalLocalFlow(nn.Module):
    """A normalising flow with two kinds of latents: global ones and, given those, local ones.

    p(x) = p(g) p(l | g): g are the coarse × coarse slowest cosine coefficients of every channel, l all others, and
    affine couplings turn each into a Gaussian, those of l with g as context. Moving the global latents leaves the local
    ones as they are. The paper uses a pre-trained flow with a variational encoder for its global part (Ma et al.,
    decoupling global and local representations); here the whole likelihood is exact.

    size, channels  of the images
    coarse          1 makes the mean colour global
    layers          couplings of each part
    """

    def __init__(
        self, size: int, channels: int = 3, coarse: int = 1, layers: int = 4, hidden: int = 64, seed: int = 0
    ):
        super().__init__()
        if not 1 <= coarse < size:
            raise ValueError(f"coarse must be in 1 … {size - 1}, got {coarse}")
        self.shape, d = (channels, size, size), channels * size * size
        self.register_buffer("basis", cosine_basis(size))
        slow = torch.zeros(self.shape, dtype=torch.bool)
        slow[:, :coarse, :coarse] = True
        self.register_buffer("order", slow.flatten().logical_not().to(torch.int8).argsort(stable=True))
        self.k = int(slow.sum())
        self.register_buffer("mean", torch.zeros(d))
        self.register_buffer("scale", torch.ones(d))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.coarse = self._couplings(self.k, 0, layers, hidden)
            self.fine = self._couplings(d - self.k, self.k, layers, hidden)

    @staticmethod
    def _couplings(d: int, context: int, layers: int, hidden: int) -> nn.ModuleList:
        """Couplings of which every second moves a random half of the features, and the one after it the other half."""
        halves = [torch.randperm(d) < d // 2 for _ in range((layers + 1) // 2)]
        moved = [m for half in halves for m in (half, ~half)]
        return nn.ModuleList([Coupling(m, context, hidden) for m in moved[:layers]])

    def coefficients(self, x: Images) -> Float[Tensor, "n d"]:
        """Cosine coefficients, the global ones first: an orthonormal change of basis."""
        return (self.basis @ x @ self.basis.T).flatten(1)[:, self.order]

    def standardise(self, x: Images) -> "GlobalLocalFlow":
        """Set the first, diagonal layer: every coefficient gets mean 0 and standard deviation 1 over these images."""
        y = self.coefficients(x)
        self.mean.copy_(y.mean(0))
        self.scale.copy_(y.std(0) + 1e-3)
        return self

    def forward(self, x: Images) -> tuple[Float[Tensor, "n k"], Float[Tensor, "n m"], Float[Tensor, " n"]]:
        """Global latents, local latents and ln |det ∂z/∂x|."""
        g, fine = ((self.coefficients(x) - self.mean) / self.scale).split([self.k, len(self.mean) - self.k], 1)
        z, total = g, -self.scale.log().sum()
        for layer in self.coarse:
            z, logdet = layer(z, z[:, :0])
            total = total + logdet
        for layer in self.fine:
            fine, logdet = layer(fine, g)
            total = total + logdet
        return z, fine, total

    def inverse(self, z: Float[Tensor, "n k"], fine: Float[Tensor, "n m"]) -> Images:
        for layer in reversed(self.coarse):
            z = layer.inverse(z, z[:, :0])
        for layer in reversed(self.fine):
            fine = layer.inverse(fine, z)
        y = torch.empty_like(torch.cat([z, fine], 1))
        y[:, self.order] = torch.cat([z, fine], 1) * self.scale + self.mean
        return self.basis.T @ y.view(-1, *self.shape) @ self.basis

    def nll(self, x: Images) -> Float[Tensor, ""]:
        """Mean negative log-likelihood in nats a pixel and channel."""
        z, fine, logdet = self(x)
        latents = torch.cat([z, fine], 1)
        density = -0.5 * (latents.square() + math.log(2 * math.pi)).sum(1) + logdet
        return -density.mean() / latents.shape[1]


def fit_flow(
    flow: GlobalLocalFlow, images: Images, steps: int, lr: float = 2e-3, batch: int = 128, seed: int = 0
) -> GlobalLocalFlow:
    """Maximum likelihood on images in [0, 1], with a grey level's worth of noise added (dequantisation)."""
    flow.standardise(images)
    g = Generator(images.device).manual_seed(seed)

    def step(index: Tensor) -> dict[str, Tensor]:
        x = images[index]
        return {"loss": flow.nll(x + torch.rand(x.shape, generator=g, device=x.device) / 256)}

    order = shuffled(len(images), min(batch, len(images)), seed, images.device)
    fit(flow, step, order, steps=steps, lr=lr, clip=1.0, generators=[g], progress=False)
    return flow.eval().requires_grad_(False)


def flow_aug(flow: GlobalLocalFlow, sigma: float, part: str = "global") -> Callable[..., Images]:
    """FlowAug: encode, shift the global latents by N(0, σ²), decode; the local latents stay.

    part  "global", the paper's; "local" shifts the others; "pixels" leaves the flow out and shifts the coefficients by
          σ of their standard deviations

    Raises ValueError for an unknown part.
    """
    if part not in ("global", "local", "pixels"):
        raise ValueError(f"part must be 'global', 'local' or 'pixels', got {part!r}")

    @torch.no_grad()
    def augment(x: Images, *, generator: Generator) -> Images:
        if part == "pixels":
            shift = sigma * torch.randn(len(x), flow.k, generator=generator, device=x.device) * flow.scale[: flow.k]
            y = torch.zeros(len(x), len(flow.mean), device=x.device)
            y[:, flow.order[: flow.k]] = shift
            return (x + flow.basis.T @ y.view(-1, *flow.shape) @ flow.basis).clamp(0, 1)
        z, fine, _ = flow(x)
        moved = z if part == "global" else fine
        moved += sigma * torch.randn(moved.shape, generator=generator, device=x.device)
        return flow.inverse(z, fine).clamp(0, 1)

    return augment


def crop_flip(padding: int, flip: float) -> Callable[..., Images]:
    """The usual augmentation of small images: a crop after zero padding, and a mirror with probability ``flip``."""

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


class Classifier(nn.Module):
    """An encoder with a linear head."""

    def __init__(self, encoder: nn.Module, classes: int):
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(encoder.features, classes)

    def forward(self, x: Images) -> Float[Tensor, "n k"]:
        return self.head(self.encoder(x))

    @torch.no_grad()
    def predicted(self, x: Images, chunk: int = 2000) -> Labels:
        self.eval()
        return torch.cat([self(part).argmax(1) for part in x.split(chunk)])


def mixup_loss(
    model: Callable[[Images], Float[Tensor, "n k"]], x: Images, y: Labels, share: float, other: Labels
) -> Float[Tensor, ""]:
    """mixup (Zhang et al.): cross entropy of ``share`` x + (1 - share) x[other], with labels mixed in the same way."""
    scores = model(share * x + (1 - share) * x[other])
    return share * F.cross_entropy(scores, y) + (1 - share) * F.cross_entropy(scores, y[other])


def fit_classifier(
    model: Classifier, images: Images, labels: Labels, steps: int, seed: int,
    augment: Callable[..., Images] | None = None, mixup: float = 0.0, batch: int = 128, lr: float = 2e-3,
    optimizer: str = "adamw", weight_decay: float = 1e-4, precision: str = "no",
) -> Classifier:  # fmt: skip
    """Train with cross entropy; images in [0, 1].

    augment  ``augment(x, generator=…)``, applied to every batch
    mixup    α of the Beta(α, α) from which every batch draws the share of ``mixup_loss``; 0: none
    """
    g = Generator(images.device).manual_seed(mixed_seed(seed, 11))
    beta = np.random.default_rng(mixed_seed(seed, 12))

    def step(index: Tensor) -> dict[str, Tensor]:
        x, y = images[index], labels[index]
        x = x if augment is None else augment(x, generator=g)
        if not mixup:
            return {"loss": F.cross_entropy(model(x), y)}
        share, other = float(beta.beta(mixup, mixup)), torch.randperm(len(x), generator=g, device=x.device)
        return {"loss": mixup_loss(model, x, y, share, other)}

    order = shuffled(len(images), min(batch, len(images)), seed, images.device)
    options = dict(lr=lr, optimizer=optimizer, weight_decay=weight_decay, precision=precision, generators=[g])
    fit(model, step, order, steps=steps, progress=False, **options)
    return model.eval()


def network(
    make: Callable[[], nn.Module], classes: int, steps: int, seed: int, **options
) -> Callable[[Images, Labels], Callable[[Images], Labels]]:
    """A network as a function ``learn(images, labels) -> predict``: encoder from ``make()``, and ``fit_classifier``."""

    def learn(x: Images, y: Labels) -> Callable[[Images], Labels]:
        model = seeded(seed, lambda: Classifier(make(), classes)).to(x.device)
        return fit_classifier(model, x, y, steps, seed, **options).predicted

    return learn
