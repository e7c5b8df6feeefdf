"""OBoW (Gidaris et al., 2021), bags of visual words made online: a slow teacher says which words an image holds, a
student guesses them from a part.

``soft_codes`` and ``bag_of_words`` make the target, ``OBoW`` holds teacher, student, vocabulary and the network that
turns words into classifiers.
"""

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Generator, Tensor, nn

from ... import augment, nets
from ...cluster import kmeans
from ...loss import check_matrix, float32, raised, unit_rows
from ...nets import mlp
from .turning import Images

Scalar = Float[Tensor, ""]


def crop_views(
    x: Shaped[Tensor, "n c h w"], generator: Generator, views: Callable[..., Tensor], crops: int = 3,
    scale: tuple[float, float] = (0.3, 0.8),
) -> Float[Tensor, "(1+{crops})*n c h w"]:  # fmt: skip
    """For the teacher a view of the whole image, for the student ``crops`` parts of it; stacked, row i + n·v.

    views  makes the views, each by its own draw: ``(x, generator, views=1 + crops)``
    scale  share of the area that a crop keeps; (1, 1) gives the student whole images too
    """
    made, n = views(x, generator, views=1 + crops), len(x)
    if scale == (1, 1):
        return made
    return torch.cat([made[:n], augment.random_resized_crop(made[n:], x.shape[2], scale, generator=generator)])


@float32
def soft_codes(
    features: Float[Tensor, "n d"], words: Float[Tensor, "k d"], sharpness: float | Float[Tensor, ""] = 1.0
) -> tuple[Float[Tensor, "n k"], Float[Tensor, " n"]]:
    """How much each feature is each word, and its squared distance to the nearest: softmax_k(-sharpness · distance²).

    OBoW, eq. 4. sharpness, 1/δ, infinite gives the nearest word alone.

    Distances are taken from the words' mean, so that they keep their digits far from the origin.
    Raises ValueError for words of another width and sharpness <= 0.
    """
    check_matrix("features", features)
    check_matrix("words", words)
    if features.shape[1] != words.shape[1]:
        raise ValueError(f"words must have the width of features, {features.shape[1]}, got {words.shape[1]}")
    middle = words.detach().mean(0)
    features, words = features - middle, words - middle
    distance = features.square().sum(1, keepdim=True) - 2 * features @ words.T + words.square().sum(1)
    distance = distance.clamp_min(0)
    nearest, at = distance.min(1)
    if isinstance(sharpness, float) and sharpness == float("inf"):
        return F.one_hot(at, len(words)).to(distance.dtype), nearest
    if not isinstance(sharpness, Tensor) and not sharpness > 0:
        raise ValueError(f"sharpness must be positive, got {sharpness}")
    return (-sharpness * (distance - nearest[:, None])).softmax(1), nearest


def bag_of_words(codes: Float[Tensor, "n l k"]) -> Float[Tensor, "n k"]:
    """The largest code of each word over the l places of an image, normalised to sum 1 (OBoW, section 3.1)."""
    return F.normalize(raised(codes).amax(1), p=1, dim=1)


@float32
def bow_loss(scores: Float[Tensor, "two_n k"], target: Float[Tensor, "n k"]) -> Scalar:
    """Cross entropy -Σ_k target_k log softmax(scores)_k, averaged over rows; every crop of an image has its target.

    OBoW, eq. 3; the authors' code has the KL divergence, which differs by the target's entropy and so not in gradient.

    scores  rows i + n·v belong to crop v of image i
    target  distributions over the words; no gradient goes to them

    Raises ValueError unless the rows of target divide those of scores.
    """
    check_matrix("scores", scores)
    check_matrix("target", target)
    crops = len(scores) // len(target)
    if crops * len(target) != len(scores) or target.shape[1] != scores.shape[1]:
        raise ValueError(f"target {tuple(target.shape)} must divide the rows of scores {tuple(scores.shape)}")
    return -(target.detach().repeat(crops, 1) * scores.log_softmax(1)).sum(1).mean()


def perplexity(bags: Float[Tensor, "n k"]) -> tuple[float, float]:
    """How many words are in use, e to the entropy: in a mean image, and in the batch as a whole."""
    check_matrix("bags", bags)
    bags, entropy = raised(bags), lambda p: torch.special.entr(p).sum(-1)
    return float(entropy(bags).exp().mean()), float(entropy(bags.mean(0)).exp())


class OBoW(nn.Module):
    """Teacher, student, vocabulary, and the generator of word classifiers.

    views      as ``crop_views`` makes them: n whole images for the teacher, then the student's crops
    level      block of the encoder whose map holds the words, 1 … 4
    words      length of the vocabulary, a queue of recent teacher features
    inv_delta  sharpness of the codes in units of the mean distance to the nearest word; None for hard assignment
    kappa      κ, length of the word classifiers; 8 and 5 in the paper, whose features are longer
    momentum   m of the teacher at the start; 1 keeps the teacher as it was initialised
    steps      over which the momentum rises to 1 in a cosine; None leaves it constant
    queue      False keeps the random words of the start
    renew      words that a step renews; None is one an image, as in the paper, whose K is 32 times its batch

    Departures: one level, maps too small to cut off their border, averaged over 2×2 where they are no larger; the queue
    is shifted, not overwritten, so that its length need not be a multiple of the batch.
    """

    def __init__(self, encoder: nn.Module, level: int = 2, words: int = 256, inv_delta: float | None = 15.0,
                 kappa: float = 2.0, momentum: float = 0.99, steps: int | None = None, queue: bool = True,
                 renew: int | None = None):  # fmt: skip
        super().__init__()
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum must be in [0, 1], got {momentum}")
        c, d = encoder.widths[level - 1], encoder.features
        self.encoder, self.level, self.inv_delta, self.kappa = encoder, level, inv_delta, kappa
        self.momentum, self.steps, self.queue, self.renew = momentum, steps, queue, renew
        self.teacher = copy.deepcopy(encoder).requires_grad_(False)
        self.generate = mlp([c, 2 * d, d])
        self.register_buffer("words", torch.randn(words, c).clamp_min(0))
        self.register_buffer("distance", torch.tensor(0.5))  # running mean of the distance to the nearest word
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def classifiers(self) -> Float[Tensor, "k d"]:
        """κ · G(words), of length κ each."""
        return self.kappa * unit_rows(self.generate(unit_rows(self.words)))

    @torch.no_grad()
    def follow(self) -> None:
        """The teacher takes its step towards the student; parameters only, its BatchNorm sees batches of its own."""
        share = 1 - self.momentum
        if self.steps:
            share = share * 0.5 * (1 + torch.cos(torch.pi * (self.seen / self.steps).clamp_max(1)))
            self.seen += 1
        theirs, ours = list(self.teacher.parameters()), [p.detach() for p in self.encoder.parameters()]
        for old, new in zip(theirs, ours, strict=True):
            old.lerp_(new, torch.as_tensor(share, dtype=old.dtype, device=old.device))

    @torch.no_grad()
    def target(self, whole: Images) -> Float[Tensor, "n k"]:
        """The bags of the whole images by the vocabulary as it stands; then, in training, the queue moves on."""
        maps = self.teacher.maps(whole)[self.level - 1].float()
        places = maps.flatten(2).transpose(1, 2)
        sharpness = float("inf") if self.inv_delta is None else self.inv_delta / self.distance.clamp_min(1e-20)
        codes, nearest = soft_codes(places.flatten(0, 1), self.words, sharpness)
        if self.training:
            self.distance.lerp_(nearest.mean(), 0.01)
            if self.queue:
                means = F.avg_pool2d(maps, min(3, maps.shape[-1]), 1).flatten(2)
                at = torch.randint(means.shape[2], (len(means), 1, 1), device=maps.device)
                fresh = means.gather(2, at.expand(-1, means.shape[1], 1))[: self.renew, :, 0]
                self.words = torch.cat([self.words, fresh])[-len(self.words) :]
        return bag_of_words(codes.unflatten(0, places.shape[:2]))

    def forward(self, views: Float[Tensor, "m c h w"], index: Int[Tensor, " n"]) -> Scalar:
        whole, crops = views[: len(index)], views[len(index) :]
        scores = self.encoder(crops) @ self.classifiers().T  # before the queue moves: codes and classifiers share words
        if self.training:
            self.follow()
        return bow_loss(scores, self.target(whole))


@torch.no_grad()
def vocabulary(
    teacher: nn.Module, images: Shaped[Tensor, "n 3 h w"], level: int, words: int, seed: int = 0, rows: int = 8000
) -> Float[Tensor, "k d"]:
    """Visual words made beforehand, as BoWNet has them: centroids (words, channels) of a teacher's features.

    level  block of the teacher whose map holds the features
    rows   features drawn for k-means, from all images and places
    """
    with nets.evaluating(teacher):
        maps = torch.cat([teacher.maps(part)[level - 1].float() for part in augment.to_float(images).split(1000)])
    found = maps.flatten(2).transpose(1, 2).flatten(0, 1)
    drawn = torch.randperm(len(found), generator=torch.Generator().manual_seed(seed))[:rows]
    return kmeans(found[drawn.to(found.device)], words, seed, iterations=20)[0]


class BoWNet(nn.Module):
    """OBoW's predecessor (Gidaris et al., 2020): nothing moves but the student.

    The teacher is trained before, by rotation in the paper, and stays; ``vocabulary`` makes its words; a place has its
    nearest word and nothing of the others; the bag counts; the word classifiers are learnt, of one learnt length.

    teacher  an encoder with ``maps``, copied and frozen
    words    centroids (k, channels) of its features after block ``level``
    kappa    length of the word classifiers at the start

    Views as for ``OBoW``. Departure: one kind of crop, no CutMix, one round (the paper also has a second, whose teacher
    is the first one's student).
    """

    def __init__(self, encoder: nn.Module, teacher: nn.Module, words: Float[Tensor, "k d"], level: int = 3,
                 kappa: float = 5.0):  # fmt: skip
        super().__init__()
        self.encoder, self.level = encoder, level
        self.teacher = copy.deepcopy(teacher).requires_grad_(False).eval()
        self.weights = nn.Linear(encoder.features, len(words), bias=False)
        self.kappa = nn.Parameter(torch.tensor(kappa))
        self.register_buffer("words", words.clone())

    def train(self, mode: bool = True) -> "BoWNet":
        super().train(mode)
        self.teacher.eval()  # its BatchNorm too stays as it was
        return self

    @torch.no_grad()
    def target(self, whole: Images) -> Float[Tensor, "n k"]:
        """The share of an image's places that has each word."""
        places = self.teacher.maps(whole)[self.level - 1].float().flatten(2).transpose(1, 2)
        codes, _ = soft_codes(places.flatten(0, 1), self.words, float("inf"))
        return codes.unflatten(0, places.shape[:2]).mean(1)

    def forward(self, views: Float[Tensor, "m c h w"], index: Int[Tensor, " n"]) -> Scalar:
        whole, crops = views[: len(index)], views[len(index) :]
        scores = self.kappa * self.encoder(crops) @ unit_rows(self.weights.weight).T
        return bow_loss(scores, self.target(whole))
