"""Dense alignment and uniformity: contrast at every position of a feature map.

Dense features are (n, p, d): n images, p positions of a square map in reading order, d channels. A *match* (n, p) says
which position of view 2 belongs to each position of view 1; *valid* says where there is one.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor, nn

from ...augment import crop, noise
from ...data import Difficulty, scenes, shuffled
from ...evaluate import alignment, uniformity
from ...loss import check_index, check_positive, float32, unit_rows
from ...nets import estimate_statistics, evaluating, mlp
from ._common import Scalar, learn, ridge_accuracy, watched

Dense = Float[Tensor, "n p d"]
Match = Int[Tensor, "n p"]
Valid = Bool[Tensor, "n p"]
Boxes = Float[Tensor, "n 4"]


def object_scenes(n: int, split: str, many: bool, seed: int = 0, size: int = 24) -> tuple[Tensor, Tensor, Tensor]:
    """Images of MNIST digits, a label for each 4×4 pixels, and one for the image.

    The digits are those of the course's scenes, in ink of either polarity on grounds of any brightness, with noise:
    (n, 1, size, size) floats about 0; labels of positions (n, (size / 4)²) in reading order.

    many  True: four digits side by side; a position's label is its digit (0 … 9), the image's that of the upper left.
          False: one digit somewhere; a position's label is the digit where its ink covers a tenth of it, else 10
    size  side in pixels, a multiple of 8
    """
    g, side, half = torch.Generator().manual_seed(seed), size // 4, size // 2
    if many:
        drawn = scenes(4 * n, seed=seed, split=split, difficulty=Difficulty(size=half))
        polarity = 2.0 * torch.randint(2, (n, 2, 2, 1, 1), generator=g) - 1
        ink = (drawn.factors["mask"].view(n, 2, 2, half, half) * polarity).transpose(2, 3).reshape(n, size, size)
        labels = drawn.labels.view(n, 2, 2)
        dense = labels.repeat_interleave(side // 2, 1).repeat_interleave(side // 2, 2)
        whole = labels[:, 0, 0]
    else:
        drawn = scenes(n, seed=seed, split=split, difficulty=Difficulty(size=size, occupancy=0.65, shift=0.18))
        ink = drawn.factors["mask"] * (2.0 * torch.randint(2, (n, 1, 1), generator=g) - 1)
        covered = F.adaptive_avg_pool2d(drawn.factors["mask"][:, None], side)[:, 0] > 0.1
        dense, whole = torch.where(covered, drawn.labels[:, None, None], 10), drawn.labels
    ground = torch.rand(n, 1, 1, generator=g) - 0.5
    images = ink + ground + 0.1 * torch.randn(ink.shape, generator=g)
    return images[:, None], dense.flatten(1), whole


def dense_views(
    x: Float[Tensor, "n 1 s s"], generator: Generator, smallest: float = 0.7
) -> tuple[Float[Tensor, "two_n 1 s s"], Float[Tensor, "two_n 4"]]:
    """Two random square crops of each image, with contrast, polarity and brightness drawn anew, and their boxes.

    smallest  side of the smallest crop, as a share of the image's side. Boxes are (top, left, height, width)
    """
    x = x.repeat(2, 1, 1, 1)
    size = x.shape[2]
    draw = torch.rand(len(x), 6, generator=generator, device=x.device)
    height = size * (smallest + (1 - smallest) * draw[:, 0])
    boxes = torch.stack([(size - height) * draw[:, 1], (size - height) * draw[:, 2], height, height], 1)
    gain = (0.6 + 0.8 * draw[:, 3]) * torch.where(draw[:, 4] < 0.5, -1.0, 1.0)
    seen = gain[:, None, None, None] * crop(x, boxes, size) + (draw[:, 5] - 0.5)[:, None, None, None]
    return noise(seen, 0.05, generator=generator), boxes


class DenseNet(nn.Module):
    """A 4×4 convolution of stride 2, a 2×2 one of stride 2, a 3×3 one: (n, p, features) for p = (size / 4)² positions.

    BatchNorm and GELU follow each. A position sees a window of 14×14 pixels about its 4×4; the first two layers are
    written as products of patches, which a CPU prefers.
    """

    def __init__(self, width: int = 32):
        super().__init__()
        deep = self.features = 2 * width
        self.conv1, self.norm1 = nn.Linear(16, width, bias=False), nn.BatchNorm1d(width)
        self.conv2, self.norm2 = nn.Linear(4 * width, deep, bias=False), nn.BatchNorm1d(deep)
        self.conv3, self.norm3 = nn.Conv2d(deep, deep, 3, padding=1, bias=False), nn.BatchNorm2d(deep)

    def forward(self, x: Float[Tensor, "n 1 s s"]) -> Dense:
        n, _, h, w = x.shape
        seen = F.pad(x, (1, 1, 1, 1)).unfold(2, 4, 2).unfold(3, 4, 2)
        y = F.gelu(self.norm1(self.conv1(seen.reshape(-1, 16))))
        y = y.view(n, h // 4, 2, w // 4, 2, -1).transpose(2, 3).reshape(n * (h // 4) * (w // 4), -1)
        y = F.gelu(self.norm2(self.conv2(y))).view(n, h // 4, w // 4, -1)
        return F.gelu(self.norm3(self.conv3(y.permute(0, 3, 1, 2)))).flatten(2).mT


def positions(boxes: Boxes, side: int) -> Float[Tensor, "n p 2"]:
    """Centres (row, column) of the positions of a view's map, in pixels of the image that the view was cut from."""
    at = (torch.arange(side, device=boxes.device) + 0.5) / side
    rows, columns = (boxes[:, i, None] + boxes[:, i + 2, None] * at for i in (0, 1))
    return torch.stack([rows[:, :, None].expand(-1, -1, side), columns[:, None].expand(-1, side, -1)], 3).flatten(1, 2)


def match_coordinates(boxes1: Boxes, boxes2: Boxes, side: int, within: float = 0.7) -> tuple[Match, Valid]:
    """The position of view 2 that shows the same place: nearest centre, valid within ``within`` bins of view 1."""
    apart = torch.cdist(positions(boxes1, side), positions(boxes2, side))
    nearest = apart.min(2)
    return nearest.indices, nearest.values < within * boxes1[:, 2:3] / side


def match_features(h1: Dense, h2: Dense) -> tuple[Match, Valid]:
    """The position of view 2 whose feature is most alike, by cosine: DenseCL's matching."""
    match = (unit_rows(h1) @ unit_rows(h2).mT).argmax(2)
    return match, torch.ones_like(match, dtype=torch.bool)


def match_random(h1: Dense, generator: Generator | None = None) -> tuple[Match, Valid]:
    """Any position of the other view of the same image: positives without correspondence."""
    n, p, _ = h1.shape
    match = torch.randint(p, (n, p), device=h1.device, generator=generator)
    return match, torch.ones_like(match, dtype=torch.bool)


def at_match(z: Dense, match: Int[Tensor, "n k"]) -> Float[Tensor, "n k d"]:
    """z[i, match[i, k]] for all i and k."""
    return z.gather(1, match[..., None].expand(-1, -1, z.shape[2]))


@float32
def dense_nce(
    z1: Dense, z2: Dense, match: Match, valid: Valid, drawn: Int[Tensor, "n k"], tau: float = 0.2
) -> Scalar:
    """InfoNCE at every position: its match in view 2 against positions of the other images.

    -log exp(z_p·z'_{m(p)}/τ) / (exp(z_p·z'_{m(p)}/τ) + Σ_{j≠i} Σ_k exp(z_p·z'_{jk}/τ)), over valid positions.

    z1, z2  projections, not normalised
    match   see ``match_coordinates``; positions in 0 … p - 1
    drawn   which positions of each image serve as negatives for the others
    tau     temperature > 0; 0.2 as in DenseCL (Wang et al., 2021)

    Departure from DenseCL: negatives are positions of the batch's other images, not pooled features from a queue.
    At least 0; 0 without a valid position, and for one image, which has no negatives. Raises ValueError for unlike
    shapes, positions outside 0 … p - 1 and tau <= 0.
    """
    for name, z in (("z1", z1), ("z2", z2)):
        if z.ndim != 3 or not z.is_floating_point() or not z.numel():
            raise ValueError(f"{name} must be dense features (n, p, d), got {z.dtype} {tuple(z.shape)}")
    if z1.shape != z2.shape or z1.device != z2.device:
        raise ValueError(f"z2 must be like z1, {tuple(z1.shape)}, got {tuple(z2.shape)}")
    n = len(z1)
    for name, m in (("match", match), ("valid", valid)):
        if m.shape != z1.shape[:2]:
            raise ValueError(f"{name} must have one entry per position, {tuple(z1.shape[:2])}, got {tuple(m.shape)}")
    if drawn.ndim != 2 or len(drawn) != n or not drawn.numel():
        raise ValueError(f"drawn must be ({n}, k) with k >= 1, got shape {tuple(drawn.shape)}")
    check_index("match", match, z1.shape[1])
    check_index("drawn", drawn, z1.shape[1])
    check_positive(tau=tau)
    z1, z2 = unit_rows(z1), unit_rows(z2)
    positive = (z1 * at_match(z2, match)).sum(2, keepdim=True)
    others = z1 @ at_match(z2, drawn).flatten(0, 1).T  # (n, p, n k)
    own = torch.eye(n, dtype=torch.bool, device=z1.device).repeat_interleave(drawn.shape[1], 1)[:, None]
    logits = torch.cat([positive / tau, (others / tau).masked_fill(own, -math.inf)], 2)  # a learnt τ meets no infinity
    each = logits.logsumexp(2) - logits[..., 0]
    return (each * valid).sum() / valid.sum().clamp_min(1)


class DenseContrast(nn.Module):
    """Encoder, position-wise projector, and dense InfoNCE at the positions of view 1; the views are drawn alike.

    matching   "coordinates", "features" or "random"; or "image": the mean over positions is all that is compared, as
               contrast of whole images does
    negatives  positions drawn from every other image
    """

    MATCHINGS = ("coordinates", "features", "random", "image")

    def __init__(self, matching: str, tau: float = 0.2, dim: int = 64, width: int = 32, negatives: int = 4):
        super().__init__()
        if matching not in self.MATCHINGS:
            raise ValueError(f"matching must be one of {', '.join(self.MATCHINGS)}, got {matching!r}")
        check_positive(tau=tau)
        self.encoder, self.matching, self.tau, self.negatives = DenseNet(width), matching, tau, negatives
        self.head = mlp([self.encoder.features, self.encoder.features, dim], last_norm=True)

    def project(self, x: Float[Tensor, "n 1 s s"]) -> tuple[Dense, Dense]:
        """Backbone features and their projections."""
        h = self.encoder(x)
        return h, self.head(h.flatten(0, 1)).view(*h.shape[:2], -1)

    def forward(self, seen: Float[Tensor, "two_n 1 s s"], boxes: Float[Tensor, "two_n 4"]) -> Scalar:
        h = self.encoder(seen)
        if self.matching == "image":
            h = h.mean(1, keepdim=True)
        z = self.head(h.flatten(0, 1)).view(*h.shape[:2], -1)
        (h1, h2), (z1, z2) = h.detach().chunk(2), z.chunk(2)
        n, p = h1.shape[:2]
        drawn = torch.randint(p, (n, min(p, self.negatives)), device=h1.device)
        return dense_nce(z1, z2, *self._match(h1, h2, *boxes.chunk(2)), drawn, self.tau)

    def _match(self, ha: Dense, hb: Dense, ba: Boxes, bb: Boxes) -> tuple[Match, Valid]:
        """Which position of map b is the positive of each position of map a, as ``matching`` says."""
        if self.matching == "coordinates":
            return match_coordinates(ba, bb, math.isqrt(ha.shape[1]))
        return match_random(ha) if self.matching == "random" else match_features(ha, hb)


def dense_alignment(z1: Dense, z2: Dense, match: Match, valid: Valid) -> float:
    """Mean squared distance of the normalised features of matched positions, over valid ones: smaller is better.

    Always taken with coordinate matches here, so that runs of different matching can be compared.
    """
    return alignment(z1[valid], at_match(z2, match)[valid])


def dense_uniformity(z: Dense, rows: int = 2000, seed: int = 0) -> float:
    """Uniformity of dense features over positions and images, on a random sample of ``rows`` of them."""
    flat = z.flatten(0, 1)
    kept = torch.randperm(len(flat), generator=torch.Generator().manual_seed(seed))[:rows]
    return uniformity(flat[kept.to(flat.device)])


@torch.no_grad()
def dense_report(
    model: Callable[[Tensor], tuple[Dense, Dense]], train: tuple[Tensor, ...], test: tuple[Tensor, ...], seed: int = 0
) -> dict[str, float]:
    """Of a model x → (features, projections): what linear readers find, and how its projections lie.

    "dense" and "image" accuracy, "alignment", "uniformity", and "correspondence": how often the position of a second
    view that is most alike is the one that shows the same place.

    train, test  images, labels of positions, labels of images, as ``object_scenes`` gives them. Positions are read one
                 by one; an image by the means of its four quarters
    """
    (h, _), (h_test, z_test) = (model(images) for images, *_ in (train, test))
    seen, boxes = dense_views(test[0], torch.Generator(test[0].device).manual_seed(seed))
    z1, z2 = model(seen)[1].chunk(2)
    match, valid = match_coordinates(*boxes.chunk(2), math.isqrt(h.shape[1]))
    return {
        "dense": ridge_accuracy(h.flatten(0, 1), train[1].flatten(), h_test.flatten(0, 1), test[1].flatten()),
        "image": ridge_accuracy(quarters(h), train[2], quarters(h_test), test[2]),
        "alignment": dense_alignment(z1, z2, match, valid),
        "uniformity": dense_uniformity(z_test),
        "correspondence": float((match_features(z1, z2)[0] == match)[valid].float().mean()),
    }


def quarters(h: Dense) -> Float[Tensor, "n four_d"]:
    """The mean feature of each quarter of the map, side by side."""
    side = math.isqrt(h.shape[1])
    return F.adaptive_avg_pool2d(h.mT.unflatten(2, (side, side)), 2).flatten(1)


def dense_training(
    matching: str | None, train: tuple[Tensor, ...], test: tuple[Tensor, ...], seed: int, steps: int = 120,
    tau: float = 0.2, batch_size: int = 16, lr: float = 1e-2, looks: tuple[float, ...] = (1 / 3, 2 / 3),
) -> list[dict[str, float]]:  # fmt: skip
    """``dense_report`` at shares ``looks`` of a ``DenseContrast`` training and at its end.

    matching None reports on the untrained encoder, whose BatchNorm has seen the data.
    """
    torch.manual_seed(seed)
    g, model, found = torch.Generator().manual_seed(seed), DenseContrast(matching or "coordinates", tau), []
    batches = shuffled(len(train[0]), batch_size, seed)

    def loss(index: Tensor) -> Scalar:
        return model(*dense_views(train[0][index], g))

    def look() -> None:
        with evaluating(model):
            found.append(dense_report(model.project, train, test))

    if matching is None:
        estimate_statistics(model.encoder, [dense_views(train[0][batches(i)], g)[0] for i in range(20)])
        model.eval()
    else:
        learn([model], loss, watched(batches, look, looks, steps), steps, lr)
    look()
    return found


def grid_pixels(x: Tensor, side: int = 6) -> tuple[Dense, Dense]:
    """The pixels of each position as its features, and as its projection: the arm without a network."""
    n, c, h, w = x.shape
    parts = x.view(n, c, side, h // side, side, w // side).permute(0, 2, 4, 1, 3, 5).reshape(n, side * side, -1)
    return parts, parts
