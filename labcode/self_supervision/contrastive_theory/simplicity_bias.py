"""Simplicity bias (Xue et al., 2023): what the minimum of a contrastive loss leaves open, and what descent finds."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ...data import shuffled
from ...evaluate import knn
from ...loss import check_matrix, float32
from ...nets import evaluating
from ._common import Labels, Rows, Scalar, class_means, learn, perceptron, ridge_accuracy, watched


class Features:
    """x = y φ₁ v₁ + y' φ₂ v₂ + u φ₃ v_j + noise: a class, a subclass, an irrelevant feature, all orthonormal.

    Which Features are Learnt by Contrastive Learning? (Xue et al., 2023). y and y' are ±1, j is one of
    ``irrelevant`` directions and u = ±1; noise has norm about ``noise`` and lies in all d dimensions, d > n.
    """

    def __init__(self, d: int = 200, strengths: tuple[float, float, float] = (1.0, 0.6, 0.0), irrelevant: int = 1,
                 noise: float = 1.0):  # fmt: skip
        if d < 2 + irrelevant:
            raise ValueError(f"d must be at least {2 + irrelevant}, got {d}")
        self.d, self.strengths, self.irrelevant, self.noise = d, strengths, irrelevant, noise

    def draw(self, n: int, seed: int) -> tuple[Float[Tensor, "n d"], Labels, Labels]:
        """Inputs, classes (0, 1) and subclasses (0, 1), all four combinations equally often."""
        g = torch.Generator().manual_seed(seed)
        y, sub = torch.arange(n) % 2, torch.arange(n) // 2 % 2
        j = torch.randint(self.irrelevant, (n,), generator=g)
        u = 2.0 * torch.randint(2, (n,), generator=g) - 1
        x = self.noise / math.sqrt(self.d) * torch.randn(n, self.d, generator=g)
        x[:, 0] += self.strengths[0] * (2 * y - 1)
        x[:, 1] += self.strengths[1] * (2 * sub - 1)
        x[torch.arange(n), 2 + j] += self.strengths[2] * u
        return x, y, sub


@float32
def spectral_loss(
    z1: Float[Tensor, "n d"], z2: Float[Tensor, "n d"], positive: Bool[Tensor, "n n"] | None = None
) -> Scalar:
    """-2 E[z·z⁺] + E[(z·z⁻)²]: the spectral contrastive loss (HaoChen et al., 2021), negatives from the marginal.

    z1, z2    features of two views, not normalised
    positive  which pairs (i, j) are positives; None pairs the views of one input (unsupervised). With
              labels[:, None] == labels it is supervised

    Departure: negatives are all n² pairs of the batch, the positive's own among them, as drawn independently.
    Raises ValueError for unlike views and a ``positive`` without a pair.
    """
    check_matrix("z1", z1, rows=1)
    check_matrix("z2", z2, like=z1)
    inner = z1 @ z2.T
    if positive is None:
        return -2 * inner.diagonal().mean() + inner.square().mean()
    if positive.shape != inner.shape:
        raise ValueError(f"positive must be ({len(z1)}, {len(z1)}), got shape {tuple(positive.shape)}")
    if positive.device.type == "cpu" and not bool(positive.any()):
        raise ValueError("positive must hold at least one pair")
    return -2 * (inner * positive).sum() / positive.sum() + inner.square().mean()


def moments(x: Rows, labels: Labels | None, blur: Float[Tensor, "d d"] | float = 0.0) -> tuple[Tensor, Tensor]:
    """E[x xᵀ] and E[x x⁺ᵀ], all that a linear map's spectral loss depends on; both (d, d), exact over augmentations.

    labels  positives share a label (supervised); None: they are two noisy copies of one input
    blur    variance of the Gaussian noise that an augmentation adds, a number or one per direction on a diagonal
    """
    n, d = x.shape
    blur = blur * torch.eye(d) if isinstance(blur, float) else blur
    second = x.T @ x / n + blur
    if labels is None:
        return second, x.T @ x / n
    classes, labels = labels.unique(return_inverse=True)
    means = class_means(x, labels, len(classes))
    share = torch.bincount(labels)[:, None] / n
    return second, means.T @ (share * means)


def spectral_linear(w: Float[Tensor, "k d"], second: Float[Tensor, "d d"], cross: Float[Tensor, "d d"]) -> Scalar:
    """The spectral loss of z = W x: -2 tr(W E[x x⁺ᵀ] Wᵀ) + ‖W E[x xᵀ] Wᵀ‖²."""
    return -2 * (w @ cross * w).sum() + (w @ second @ w.T).square().sum()


def descend(
    second: Float[Tensor, "d d"], cross: Float[Tensor, "d d"], width: int, steps: int, lr: float = 0.1,
    seed: int = 0, start: float = 1e-4, watch: Callable[[Tensor], None] | None = None, every: int = 10,
) -> Float[Tensor, "width d"]:  # fmt: skip
    """Gradient descent on ``spectral_linear`` from small random weights: full batch, gradient by hand.

    watch  called with W every ``every`` steps
    """
    w = start * torch.randn(width, len(second), generator=torch.Generator().manual_seed(seed))
    for i in range(steps):
        if watch is not None and i % every == 0:
            watch(w)
        across = w @ second
        w = w - 4 * lr * ((across @ w.T) @ across - w @ cross)
    return w


def two_minimisers(x: Rows, labels: Labels, v: Float[Tensor, " d"]) -> tuple[Tensor, Tensor]:
    """Two linear maps with the same, smallest supervised loss: the one of least norm, and one that also sees v.

    The first is the row w₀ = Xᵀ(XXᵀ)⁻¹ y. The second adds the row r/‖r‖², r what of v lies outside the span of the
    training inputs: it is zero on every one of them. d > n. Returns (1, d) and (2, d).
    """
    sign = (2.0 * labels - 1).to(x)
    inverse = torch.linalg.inv(x @ x.T)
    w0 = x.T @ (inverse @ sign)
    r = v - x.T @ (inverse @ (x @ v))
    return w0[None], torch.stack([w0, r / r.square().sum()])


def minimum_report(seed: int) -> list[dict[str, float]]:
    """Of the two minimisers: supervised "loss", "norm", and how well the "subclass" is read on new data."""
    world = Features(400, (1.0, 0.6, 0.0))
    (x, y, _), (new, _, sub) = world.draw(100, 2 * seed), world.draw(2000, 2 * seed + 1)
    x, new, found = x.double(), new.double(), []
    for w in two_minimisers(x, y, torch.eye(400, dtype=torch.float64)[1]):
        z, v = x @ w.T, new @ w.T
        read = ridge_accuracy(v[:1000], sub[:1000], v[1000:], sub[1000:])
        loss = float(spectral_loss(z, z, y[:, None] == y))
        found.append({"loss": loss, "norm": float(w.norm()), "subclass": read})
    return found


def subclass_response(losses: str, seed: int, steps: int = 800, every: int = 20) -> list[float]:
    """‖W v₂‖/‖W v₁‖ along gradient descent on the "supervised", "unsupervised" or "joint" (half and half) loss."""
    x, y, _ = Features(200, (1.0, 0.6, 0.0)).draw(100, seed)
    (second, supervised), (_, unsupervised) = moments(x, y), moments(x, None)
    cross = {"supervised": supervised, "unsupervised": unsupervised, "joint": (supervised + unsupervised) / 2}[losses]
    trace: list[float] = []
    descend(second, cross, 8, steps, 0.05, seed, every=every,
            watch=lambda w: trace.append(float(w[:, 1].norm() / w[:, 0].norm())))  # fmt: skip
    return trace


def narrow_subclass(width: int, seed: int, irrelevant: int = 8, steps: int = 800, strength: float = 1.5) -> float:
    """Accuracy of reading the subclass from an unsupervised linear map of a given width, strong features about.

    irrelevant  directions of the strong features that the augmentation keeps; an input shows one of them
    strength    of an irrelevant feature; class and subclass have 0.7 and 0.5
    """
    world = Features(300, (0.7, 0.5, strength), irrelevant)
    (x, _, _), (new, _, sub) = world.draw(100, 2 * seed), world.draw(2000, 2 * seed + 1)
    v = new @ descend(*moments(x, None), width, steps, 0.02, seed).T
    return ridge_accuracy(v[:1000], sub[:1000], v[1000:], sub[1000:], 1e-6)


class DigitsWithDistractor:
    """A digit's pixels and, beside them, one of ``kinds`` fixed random patterns: an easy feature next to a hard one.

    ``views`` draws two noisy copies; the pattern is kept in both with probability ``kept``, else each draws its own.
    """

    def __init__(self, pixels: Float[Tensor, "n p"], kinds: int = 16, strength: float = 1.0, seed: int = 0):
        g = torch.Generator().manual_seed(seed)
        self.pixels, self.book = pixels, strength * torch.randn(kinds, 16, generator=g)

    def views(self, index: Labels, generator: torch.Generator, kept: float) -> Float[Tensor, "two_n q"]:
        n, kinds = len(index), len(self.book)
        drawn = torch.randint(kinds, (2, n), generator=generator)
        drawn[1] = torch.where(torch.rand(n, generator=generator) < kept, drawn[0], drawn[1])
        pixels = self.pixels[index].repeat(2, 1)
        pixels = pixels + 0.15 * torch.randn(pixels.shape, generator=generator)
        return torch.cat([pixels, self.book[drawn.flatten()]], 1)

    def plain(self, generator: torch.Generator) -> tuple[Float[Tensor, "n q"], Labels]:
        """Every digit once, beside a pattern drawn for it, and which pattern that is."""
        drawn = torch.randint(len(self.book), (len(self.pixels),), generator=generator)
        return torch.cat([self.pixels, self.book[drawn]], 1), drawn


class Encoded(nn.Module):
    """A perceptron encoder whose last layer has ``width`` outputs: the width that suppression depends on."""

    def __init__(self, inputs: int, width: int, hidden: int = 128):
        super().__init__()
        self.net = perceptron(inputs, hidden, hidden, width)

    def forward(self, x: Rows) -> Float[Tensor, "n width"]:
        return self.net(x)


def read_beside(
    encode: Callable[[Tensor], Tensor], train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], seed: int = 0
) -> dict[str, float]:
    """Test accuracy of naming the "digit" and the "pattern" beside it by the 20 nearest neighbours.

    Neighbours see what is large in an embedding, as whatever comes after it would; a linear probe blows up the faintest
    trace of a digit until it can be read.
    """
    g = torch.Generator().manual_seed(seed)
    (a, seen), (b, new) = (DigitsWithDistractor(pixels).plain(g) for pixels, _ in (train, test))
    with torch.no_grad():
        a, b = encode(a), encode(b)
    return {"digit": knn(a, train[1], b, test[1]), "pattern": knn(a, seen, b, new)}


def train_beside(
    train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], seed: int, width: int = 16, kept: float = 1.0,
    supervised: float = 0.0, steps: int = 200, looks: tuple[float, ...] = (), lr: float = 2e-3,
) -> list[dict[str, float]]:  # fmt: skip
    """Train an encoder on the spectral loss of digits beside patterns; ``read_beside`` at ``looks`` and at the end.

    train, test  pixels of digits, and which digit each is
    kept         how often both views show one pattern
    supervised   weight of the loss whose positives are the batch's other images of the same digit, each with a pattern
                 of its own; the loss on views has the rest
    looks        shares of the training
    """
    torch.manual_seed(seed)
    data, g = DigitsWithDistractor(train[0]), torch.Generator().manual_seed(seed)
    net, found = Encoded(train[0].shape[1] + 16, width), []

    def loss(index: Tensor) -> Scalar:
        a, b = net(data.views(index, g, kept)).chunk(2)
        y = train[1][index]
        same = (y[:, None] == y) & ~torch.eye(len(y), dtype=torch.bool)
        return (1 - supervised) * spectral_loss(a, b) + supervised * spectral_loss(a, b, same)

    def look() -> None:
        with evaluating(net):
            found.append(read_beside(net, train, test, seed))

    learn([net], loss, watched(shuffled(len(train[1]), 128, seed), look, looks, steps), steps, lr)
    look()
    return found
