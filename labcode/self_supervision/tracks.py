"""Objects followed through a video: clusters tied along tracks, and tracking without labels.

``track_vote`` and ``ODC`` cluster patches so that all of a track fall into one cluster; ``direct_contrast``,
``indirect_contrast``, ``cross_contrast`` and ``ambiguity_contrast`` train the embedding of a tracker (``UCSL``);
``associate``, ``identity_switches`` and ``idf1`` track and keep the score.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Generator, Tensor, nn

from ..augment import crop
from ..cluster import kmeans
from ..data.videos import Motion, moving_scenes
from ..loss import check_positive, float32
from ..nets import mlp

Rows = Float[Tensor, "n d"]
Scalar = Float[Tensor, ""]

# ---------------------------------------------------------------------------------------------------------------------
# Objects cut out of videos
# ---------------------------------------------------------------------------------------------------------------------


def crops(frames: Shaped[Tensor, "n t c h w"], boxes: Float[Tensor, "n t k 4"], size: int) -> Shaped[Tensor, "..."]:
    """Every box (left, top, right, bottom) of every frame, resized to size × size: (n, t, k, c, size, size) uint8.

    Boxes must have an area; what lies over the border is cut off.
    """
    n, t, k = boxes.shape[:3]
    h, w = frames.shape[3:]
    bound = torch.tensor([w, h, w, h], device=boxes.device)
    boxes = torch.minimum(boxes.clamp_min(0), bound)
    left, top, right, bottom = boxes.flatten(0, 2).unbind(1)
    at = torch.stack([top, left, bottom - top, right - left], 1).view(n, t * k, 4)
    out = []
    for part, where in zip(frames.split(128), at.split(128), strict=True):  # whole frames, repeated k times, are large
        whole = (part.float() / 255)[:, :, None].expand(-1, -1, k, -1, -1, -1).flatten(0, 2)
        out.append(crop(whole, where.flatten(0, 1), size).mul(255).round().to(torch.uint8))
    return torch.cat(out).view(n, t, k, *frames.shape[2:3], size, size)


def wander(
    n: int, frames: int, objects: int, size: int, step: float = 1.0, turn: float = 1.0, *, generator: Generator
) -> Float[Tensor, "n t k 2"]:
    """Paths that forget where they were going, for the ``path`` of ``moving_scenes``: only appearance persists.

    step  pixels a frame
    turn  standard deviation of the change of heading from frame to frame, in radians; 0 is a straight line
    """
    start = size * torch.rand(n, 1, objects, 2, generator=generator)
    heading = 2 * math.pi * torch.rand(n, 1, objects, generator=generator)
    heading = heading + (turn * torch.randn(n, frames - 1, objects, generator=generator)).cumsum(1)
    moves = step * torch.stack([heading.cos(), heading.sin()], 3).cumsum(1)
    return torch.cat([start, start + moves], 1)


def three_frames(x: Shaped[Tensor, "n t k c s s"], generator: Generator) -> Float[Tensor, "n 3 k c s s"]:
    """Three frames in a row of each film's objects, from a random place on, as floats in [0, 1]: views for ``UCSL``."""
    start = torch.randint(x.shape[1] - 2, (len(x),), generator=generator, device=x.device)
    frames = start[:, None] + torch.arange(3, device=x.device)
    return x[torch.arange(len(x), device=x.device)[:, None], frames].float() / 255


def tracked_patches(
    n: int, seed: int, split: str, motion: Motion, size: int = 8
) -> tuple[Shaped[Tensor, "m 3 s s"], Int[Tensor, " m"], Int[Tensor, " m"]]:
    """The patches of all objects in all frames of n videos, their classes, and their tracks.

    Patches are grey and of equal mean and contrast, so that clusters cannot be colours; uint8 in three equal channels.
    """
    made = moving_scenes(n, seed, split, motion)
    grey = crops(made.frames, made.factors["boxes"], size).float().mean(3, keepdim=True)
    grey = (grey - grey.mean((4, 5), keepdim=True)) / grey.std((4, 5), keepdim=True).clamp_min(1)
    patches = (45 * grey + 110).clamp(0, 255).byte().expand(-1, -1, -1, 3, -1, -1).flatten(0, 2)
    t, k = grey.shape[1:3]
    classes = made.factors["label"][:, None].expand(n, t, k).flatten()
    return patches, classes, torch.arange(n * k).view(n, 1, k).expand(n, t, k).flatten()


def shown_objects(
    n: int, seed: int, split: str, motion: Motion, step: float, size: int = 8, seen: float = 0.4
) -> tuple[Shaped[Tensor, "n t k 3 s s"], Bool[Tensor, "n t k"], Float[Tensor, "n t k 4"]]:
    """What a perfect detector hands to a tracker: crops, which objects are found, and boxes, of n videos.

    Objects wander ``step`` pixels a frame; the first two have one colour. One is found where at least ``seen`` of it
    is visible; the crop of one that is not found is all zero.
    """
    path = wander(n, motion.frames, motion.objects, motion.size, step, 0.6, generator=Generator().manual_seed(seed))
    ink = moving_scenes(n, seed, split, motion).factors["ink"].clone()
    ink[:, 1] = ink[:, 0]
    made = moving_scenes(n, seed, split, motion, path=path, ink=ink)
    found = made.factors["visible"] > seen
    cut_out = crops(made.frames, made.factors["boxes"], size).clamp_min(1)
    return cut_out * found[..., None, None, None], found, made.factors["boxes"]


# ---------------------------------------------------------------------------------------------------------------------
# Clusters tied along tracks
# ---------------------------------------------------------------------------------------------------------------------


def track_vote(
    labels: Int[Tensor, " n"], tracks: Int[Tensor, " n"], clusters: int, count: int | None = None
) -> Int[Tensor, " n"]:
    """Each patch gets the cluster that most patches of its track have; of equals the smallest number.

    Online Deep Clustering with Video Track Consistency (Sanguineti et al., 2022), in our reading: the vote counts all
    patches of a track in the memory, not only those in the batch.

    tracks  which track each patch belongs to, 0 … ; a patch alone in its track keeps its label, so with
            ``tracks = arange(n)`` nothing happens: plain ODC
    count   how many tracks there are; None reads it from ``tracks``, for which the host waits on a GPU
    """
    if labels.shape != tracks.shape:
        raise ValueError(f"tracks must name one track for each of the {len(labels)} labels, got {tuple(tracks.shape)}")
    if not len(labels):
        return labels
    count = int(tracks.max()) + 1 if count is None else count
    votes = torch.zeros(count, clusters, device=labels.device)
    votes.index_put_((tracks, labels), votes.new_ones(()), accumulate=True)
    return votes.argmax(1)[tracks]


def mistracked(tracks: Int[Tensor, "n k"], share: float, *, generator: Generator) -> Int[Tensor, "n k"]:
    """Tracks with identity errors: ``share`` of all patches, chosen at random, change names among themselves.

    A patch may by chance get its own name back, so the share of wrong names is a little smaller.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share must be in [0, 1], got {share}")
    flat = tracks.flatten().clone()
    some = torch.randperm(len(flat), generator=generator)[: round(share * len(flat))].to(flat.device)
    flat[some] = flat[some.roll(1)]
    return flat.view_as(tracks)


class ODC(nn.Module):
    """Online deep clustering with a memory, its labels tied along tracks (Zhan et al., 2020; Sanguineti et al., 2022).

    encoder    of patches
    tracks     (n,) the track of each training patch; ``arange(n)`` for plain ODC
    clusters   number of pseudo-classes
    momentum   of a patch's feature in the memory, 0.5: f ← normalise(m f + (1 - m) f_new)
    every      steps between two new computations of the centroids, 10
    smallest   a cluster with fewer patches is dissolved and its slot given to half of the largest one
    learnt     False draws a label for every track once and keeps it: the control that clusters nothing

    The step's loss is the cross entropy of the head on the patches' labels, weighted by 1 / √(cluster size).
    Departure: small clusters are dealt with when centroids are renewed, not at every step, as how many there are and
    whom they hold makes the host wait on a GPU. All other steps wait for nothing.
    """

    def __init__(
        self, encoder: nn.Module, tracks: Int[Tensor, " n"], clusters: int = 20, dim: int = 64, momentum: float = 0.5,
        every: int = 10, smallest: int = 5, learnt: bool = True,
    ):  # fmt: skip
        super().__init__()
        if not 2 <= clusters <= len(tracks):
            raise ValueError(f"clusters must be between 2 and the {len(tracks)} patches, got {clusters}")
        self.encoder, self.neck, self.head = encoder, mlp([encoder.features, dim]), nn.Linear(dim, clusters)
        self.clusters, self.momentum, self.every, self.smallest = clusters, momentum, every, smallest
        self.seen, self.learnt, self.count = 0, learnt, 1 + int(tracks.max())
        self.register_buffer("tracks", tracks.clone())
        self.register_buffer("memory", torch.zeros(len(tracks), dim))
        self.register_buffer("labels", torch.zeros_like(tracks))
        self.register_buffer("centroids", torch.zeros(clusters, dim))

    @torch.no_grad()
    def start(self, patches: Shaped[Tensor, "n c h w"], seed: int = 0) -> "ODC":
        """Fill the memory with the untrained network's features and cluster it once by k-means, then the tracks vote.

        Returns itself.
        """
        if not self.learnt:
            drawn = torch.randint(self.clusters, (self.count,), generator=torch.Generator().manual_seed(seed))
            self.labels = drawn.to(self.tracks)[self.tracks]
            return self.train()
        self.eval()
        features = [self.neck(self.encoder(part.float() / 255)) for part in patches.split(2048)]
        self.memory = F.normalize(torch.cat(features), dim=1)
        _, labels = kmeans(self.memory, self.clusters, seed, iterations=20)
        self.labels = track_vote(labels, self.tracks, self.clusters, self.count)
        self.centroids = self._means(self.labels)
        return self.train()

    def forward(self, views: Float[Tensor, "n c h w"], index: Int[Tensor, " n"]) -> Scalar:
        moving = self.training and self.learnt
        if moving and self.seen and self.seen % self.every == 0:
            self.renew()
        z = self.neck(self.encoder(views))
        size = self._sizes(self.labels)
        loss = F.cross_entropy(self.head(F.relu(z)), self.labels[index], weight=size.clamp_min(1).to(z.dtype).rsqrt())
        if moving:
            self.remember(z.detach().float(), index)
            self.seen += 1
        return loss

    @torch.no_grad()
    def remember(self, z: Rows, index: Int[Tensor, " n"]) -> None:
        """New features of a batch go into the memory; its labels follow, and with them their tracks'."""
        old = self.memory[index]
        new = F.normalize(self.momentum * old + (1 - self.momentum) * F.normalize(z, dim=1), dim=1)
        self.memory = self.memory.index_copy(0, index, new)
        labels = self.labels.index_copy(0, index, (new @ self.centroids.T).argmax(1))
        self.labels = track_vote(labels, self.tracks, self.clusters, self.count)

    @torch.no_grad()
    def renew(self) -> None:
        self.centroids = self._means(self.labels)
        for small in (self._sizes(self.labels) < self.smallest).nonzero()[:, 0].tolist():
            self._dissolve(small)
        self.labels = track_vote(self.labels, self.tracks, self.clusters, self.count)

    def _sizes(self, labels: Int[Tensor, " n"]) -> Int[Tensor, " K"]:
        """How many patches each cluster holds. ``bincount`` would wait to learn how many clusters there are."""
        return labels.new_zeros(self.clusters).index_add_(0, labels, torch.ones_like(labels))

    def _means(self, labels: Int[Tensor, " n"]) -> Float[Tensor, "K d"]:
        total = torch.zeros_like(self.centroids).index_add_(0, labels, self.memory)
        empty = self._sizes(labels) == 0
        return torch.where(empty[:, None], self.centroids, F.normalize(total, dim=1))

    def _dissolve(self, small: int) -> None:
        """The small cluster's patches go to the nearest other; its slot takes half of the largest, by 2-means."""
        away = self.centroids @ self.centroids[small]
        away[small] = -torch.inf
        self.labels = torch.where(self.labels == small, away.argmax(), self.labels)
        largest = self._sizes(self.labels).argmax()
        members = (self.labels == largest).nonzero()[:, 0]
        halves = two_means(self.memory[members])
        self.labels = self.labels.index_copy(0, members[halves], torch.full_like(members[halves], small))
        self.centroids = self._means(self.labels)


def two_means(x: Rows, iterations: int = 10) -> Bool[Tensor, " n"]:
    """Which of the rows belong to the second of two clusters: Lloyd's iterations from the two ends of the main axis."""
    centred = x - x.mean(0)
    along = centred @ torch.linalg.svd(centred, full_matrices=False).Vh[0]
    second = along > along.median()
    for _ in range(iterations):
        total = second.sum().clamp(1, max(1, len(x) - 1))
        b = (x * second[:, None]).sum(0) / total
        a = (x * ~second[:, None]).sum(0) / (len(x) - total).clamp_min(1)
        second = (x - b).square().sum(1) < (x - a).square().sum(1)
    return second


# ---------------------------------------------------------------------------------------------------------------------
# Tracking without labels
# ---------------------------------------------------------------------------------------------------------------------

Objects = Float[Tensor, "b k d"]
Present = Bool[Tensor, "b k"]


@float32
def match(
    x: Float[Tensor, "b k d"], y: Float[Tensor, "b m d"], here: Bool[Tensor, "b m"] | None = None, tau: float = 0.1
) -> Float[Tensor, "b k m"]:
    """Where each object of one frame goes in another: the row softmax of cosine similarities over the objects there.

    x, y  embeddings of the objects of two frames of b videos, not normalised
    here  which places of y hold an object; None is all. A frame with none gives rows of 0
    tau   temperature > 0

    Raises ValueError for embeddings that do not fit together, or tau <= 0.
    """
    for name, z in (("x", x), ("y", y)):
        if z.ndim != 3 or not z.is_floating_point() or not z.shape[2]:
            raise ValueError(f"{name} must hold float embeddings (videos, objects, d), got shape {tuple(z.shape)}")
    if x.shape[0] != y.shape[0] or x.shape[2] != y.shape[2]:
        raise ValueError(f"y must be of the videos and width of x, {tuple(x.shape)}, got {tuple(y.shape)}")
    check_positive(tau=tau)
    scores = F.normalize(x, dim=2) @ F.normalize(y, dim=2).mT / tau
    if here is None:
        return scores.softmax(2)
    if here.shape != y.shape[:2]:
        raise ValueError(f"here must say which of {tuple(y.shape[:2])} places are taken, got {tuple(here.shape)}")
    scores = scores.masked_fill(~here[:, None], -1e4)
    return scores.softmax(2) * here[:, None]


def direct_contrast(x: Objects, here: Present, tau: float = 0.1) -> Scalar:
    """Self-contrast within a frame: every object matches itself and no other. -log softmax(S_tt / τ)_ii.

    UCSL (Meng et al., 2023), self-contrast, direct. It pushes the objects of a frame apart; any encoder that gives
    them distinct embeddings satisfies it.
    """
    own = match(x, x, here, tau).diagonal(dim1=1, dim2=2)
    return _mean(-own.clamp_min(1e-8).log(), here)


def indirect_contrast(x: Objects, y: Objects, here: Present, there: Present, tau: float = 0.1) -> Scalar:
    """Self-contrast between frames: an object that goes to the next frame and back arrives at itself.

    UCSL, self-contrast, indirect, in our reading: -log (P_xy P_yx)_ii. The frames share at most min(N_x, N_y) objects,
    so only so many rows count, those with the surest round trip: an object that has gone cannot come back.
    """
    back, kept = round_trip(x, y, here, there, tau)
    return _mean(-back.clamp_min(1e-8).log(), kept)


def round_trip(
    x: Objects, y: Objects, here: Present, there: Present, tau: float = 0.1
) -> tuple[Float[Tensor, "b k"], Bool[Tensor, "b k"]]:
    """Probability that each object comes back to itself over the other frame, and which rows count."""
    back = (match(x, y, there, tau) * match(y, x, here, tau).mT).sum(2)
    shared = torch.minimum(here.sum(1), there.sum(1))[:, None]
    rank = back.detach().masked_fill(~here, -1).argsort(1, descending=True).argsort(1)
    return back, here & (rank < shared)


def cross_contrast(
    x: Objects, y: Objects, z: Objects, here: Present, there: Present, later: Present, tau: float = 0.1
) -> Scalar:
    """Cross-contrast: the match over two frames agrees with the two matches one after the other.

    UCSL, cross-contrast, in our reading: -log Σ_j (P_xz)_ij (P_xy P_yz)_ij, the probability that both ways end at the
    same object. Rows count that can be in all three frames, those on which both ways agree best.
    """
    straight = match(x, z, later, tau)
    over = match(x, y, there, tau) @ match(y, z, later, tau)
    agree = (straight * over).sum(2)
    shared = torch.minimum(torch.minimum(here.sum(1), there.sum(1)), later.sum(1))[:, None]
    rank = agree.detach().masked_fill(~here, -1).argsort(1, descending=True).argsort(1)
    return _mean(-agree.clamp_min(1e-8).log(), here & (rank < shared))


def ambiguity_contrast(
    x: Objects, z: Objects, here: Present, later: Present, tau: float = 0.1, sure: float = 0.7
) -> Scalar:
    """Ambiguity contrast: objects without a sure match are matched among themselves, with low entropy.

    UCSL, ambiguity contrast, in our reading: objects whose round trip is less certain than ``sure`` are left over in
    both frames; among them the entropy of the match, over the logarithm of their number, is made small. Entropy alone
    can lock in a wrong match, so start it late.
    """
    check_positive(sure=sure)
    doubt = here & (round_trip(x, z, here, later, tau)[0].detach() < sure)
    open_ = later & (round_trip(z, x, later, here, tau)[0].detach() < sure)
    p = match(x, z, open_, tau)
    entropy = -(p * p.clamp_min(1e-8).log()).sum(2) / open_.sum(1).clamp_min(2).log()[:, None]
    return _mean(entropy, doubt & (open_.sum(1) > 1)[:, None])


def _mean(values: Float[Tensor, "b k"], kept: Bool[Tensor, "b k"]) -> Scalar:
    """The mean over what is kept, 0 where nothing is."""
    return (values * kept).sum() / kept.sum().clamp_min(1)


class UCSL(nn.Module):
    """An embedding of object crops, trained on three frames at a time with the given terms.

    terms       some of "direct", "indirect", "cross", "ambiguity"; or ("supervised",): the cross entropy of the match
                with the true identities, which are the objects' places
    late        share of the training after which the ambiguity term begins

    ``views`` are crops (b, 3, k, c, h, w) of three frames; a place that holds no object is all zero. The terms never
    use that place i of two frames is the same object: they do not change when a frame's places are shuffled.
    """

    def __init__(
        self, encoder: nn.Module, terms: Sequence[str], steps: int, dim: int = 32, tau: float = 0.1, late: float = 0.5
    ):
        super().__init__()
        known = {"direct", "indirect", "cross", "ambiguity", "supervised"}
        if not terms or set(terms) - known:
            raise ValueError(f"terms must be some of {sorted(known)}, got {terms}")
        self.encoder, self.head, self.terms = encoder, mlp([encoder.features, dim]), tuple(terms)
        self.steps, self.tau, self.late, self.seen = steps, tau, late, 0

    def embed(self, crops: Float[Tensor, "b k c h w"]) -> Objects:
        return self.head(self.encoder(crops.flatten(0, 1))).view(*crops.shape[:2], -1)

    def forward(self, views: Float[Tensor, "b t k c h w"], index: Int[Tensor, " b"]) -> Scalar:
        b, t, k = views.shape[:3]
        taken = views.flatten(3).amax(3) > 0
        z = self.embed(views.flatten(0, 1)).view(b, t, k, -1)
        (x, y, w), (here, there, later) = z.unbind(1), taken.unbind(1)
        tau, total = self.tau, z.new_zeros(())
        if "supervised" in self.terms:
            pairs = ((x, y, here, there), (y, w, there, later), (x, w, here, later))
            own = [(match(p, q, there_, tau).diagonal(dim1=1, dim2=2), here_ & there_) for p, q, here_, there_ in pairs]
            return torch.stack([_mean(-p.clamp_min(1e-8).log(), kept) for p, kept in own]).mean()
        if "direct" in self.terms:
            total = total + direct_contrast(z.flatten(0, 1), taken.flatten(0, 1), tau)
        if "indirect" in self.terms:
            total = total + (indirect_contrast(x, y, here, there, tau) + indirect_contrast(y, w, there, later, tau)) / 2
        if "cross" in self.terms:
            total = total + cross_contrast(x, y, w, here, there, later, tau)
        if "ambiguity" in self.terms and self.seen >= self.late * self.steps:
            total = total + ambiguity_contrast(x, w, here, later, tau)
        self.seen += self.training
        return total


def associate(
    present: Bool[Tensor, "t k"], embeddings: Float[Tensor, "t k d"] | None = None,
    boxes: Float[Tensor, "t k 4"] | None = None, keep: float = 0.5, seed: int = 0,
) -> Int[Tensor, "t k"]:  # fmt: skip
    """Track names for the detections of one video, -1 where there is none; frame by frame, by the Hungarian method.

    With embeddings a detection's score with a track is the cosine with the track's running embedding,
    u ← normalise(keep · u + (1 - keep) · z); tracks wait for ever, so an object may come back. With boxes alone it is
    the overlap (IoU) with the track's last box, and without any overlap there is no match. A detection that no track
    takes begins a new one. Detections are shuffled in every frame by the seed, so their order tells nothing.

    Raises ValueError unless exactly one of embeddings and boxes is given.
    """
    from scipy.optimize import linear_sum_assignment

    if (embeddings is None) == (boxes is None):
        raise ValueError("embeddings or boxes must be given, and not both")
    names = torch.full(present.shape, -1)
    g = torch.Generator().manual_seed(seed)
    seen = F.normalize(embeddings.double(), dim=2) if boxes is None else boxes.double()
    tracks = seen.new_zeros(0, seen.shape[2])
    for frame in range(len(present)):
        found = present[frame].nonzero()[:, 0]
        found = found[torch.randperm(len(found), generator=g)]
        now = seen[frame, found]
        score = tracks @ now.T if boxes is None else iou(tracks, now)
        rows, columns = (torch.from_numpy(i) for i in linear_sum_assignment(score.numpy(), maximize=True))
        if boxes is not None:
            rows, columns = (i[score[rows, columns] > 0] for i in (rows, columns))
        moved = F.normalize(keep * tracks[rows] + (1 - keep) * now[columns], dim=1)
        tracks[rows] = moved if boxes is None else now[columns]
        new = torch.ones(len(found), dtype=torch.bool)
        new[columns] = False
        names[frame, found[columns]] = rows
        names[frame, found[new]] = len(tracks) + torch.arange(int(new.sum()))
        tracks = torch.cat([tracks, now[new]])
    return names


def iou(a: Float[Tensor, "n 4"], b: Float[Tensor, "m 4"]) -> Float[Tensor, "n m"]:
    """Intersection over union of boxes (left, top, right, bottom)."""
    low, high = torch.maximum(a[:, None, :2], b[:, :2]), torch.minimum(a[:, None, 2:], b[:, 2:])
    both = (high - low).clamp_min(0).prod(2)
    area = [(x[:, 2:] - x[:, :2]).prod(1) for x in (a, b)]
    return both / (area[0][:, None] + area[1] - both).clamp_min(1e-9)


def identity_switches(names: Int[Tensor, "t k"], present: Bool[Tensor, "t k"]) -> tuple[int, int]:
    """How often an object is found under another name than when it was last seen: in all, and right after a gap."""
    switches = after_gap = 0
    last = torch.full((present.shape[1],), -1)
    for t in range(len(present)):
        changed = present[t] & (last >= 0) & (names[t] != last)
        switches += int(changed.sum())
        after_gap += int((changed & ~present[t - 1]).sum()) if t else 0
        last = torch.where(present[t], names[t], last)
    return switches, after_gap


def idf1(names: Int[Tensor, "t k"], present: Bool[Tensor, "t k"]) -> float:
    """The share of detections under the right name, with names given to objects one to one as well as possible.

    IDF1 (Ristani et al., 2016) where every detection is a true object: 2 IDTP / (2 IDTP + IDFP + IDFN) = IDTP / number
    of detections. In (0, 1]. Raises ValueError for a video without a detection.
    """
    from scipy.optimize import linear_sum_assignment

    if not present.any():
        raise ValueError("present must hold at least one detection")
    objects = torch.arange(present.shape[1]).expand(present.shape)[present]
    counts = torch.zeros(present.shape[1], int(names.max()) + 1)
    counts.index_put_((objects, names[present]), torch.ones(()), accumulate=True)
    rows, columns = linear_sum_assignment(counts.numpy(), maximize=True)
    return float(counts[rows, columns].sum() / present.sum())


def tracking_score(
    found: Bool[Tensor, "n t k"], embeddings: Float[Tensor, "n t k d"] | None = None,
    boxes: Float[Tensor, "n t k 4"] | None = None,
) -> tuple[float, float, float]:  # fmt: skip
    """IDF1, identity switches, and those right after a gap, of ``associate`` on n videos: means over the videos."""
    rows = []
    for i in range(len(found)):
        one = [None if given is None else given[i].cpu() for given in (embeddings, boxes)]
        names = associate(found[i].cpu(), *one, seed=i)
        rows.append((idf1(names, found[i].cpu()), *identity_switches(names, found[i].cpu())))
    return tuple(torch.tensor(rows, dtype=torch.float64).mean(0).tolist())
