"""Online deep clustering of patches, with the clusters tied along the tracks of a video.

Zhan et al., "Online Deep Clustering for Unsupervised Representation Learning" (2020); Alfani, Becattini, Seidenari and
Del Bimbo, "Online Deep Clustering with Video Track Consistency" (2022).
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Generator, Tensor, nn

from ...augment import to_float
from ...cluster import kmeans
from ...data.videos import Motion, moving_scenes
from ...loss import check_index, unit_rows
from ...nets import mlp
from .tracking import crops

Rows = Float[Tensor, "n d"]
Scalar = Float[Tensor, ""]


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


def track_vote(
    labels: Int[Tensor, " n"], tracks: Int[Tensor, " n"], clusters: int, count: int | None = None
) -> Int[Tensor, " n"]:
    """Each patch gets the cluster that most patches of its track have; of equals the smallest number.

    Online Deep Clustering with Video Track Consistency (Alfani et al., 2022), in our reading: the vote counts all
    patches of a track in the memory, not only those in the batch.

    labels  0 … clusters - 1
    tracks  which track each patch belongs to, any integers; a patch alone in its track keeps its label, so with
            ``tracks = arange(n)`` nothing happens: plain ODC
    count   how many tracks there are, which are then numbered 0 … count - 1; None looks, for which the host waits on a
            GPU

    Raises ValueError for tracks that are not one a label, and for labels (and tracks, with ``count``) out of range.
    """
    if labels.shape != tracks.shape:
        raise ValueError(f"tracks must name one track for each of the {len(labels)} labels, got {tuple(tracks.shape)}")
    check_index("labels", labels, clusters)
    if not len(labels):
        return labels
    if count is None:
        names, tracks = tracks.unique(return_inverse=True)
        count = len(names)
    check_index("tracks", tracks, count)
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
    """Online deep clustering with a memory, its labels tied along tracks (Zhan et al., 2020; Alfani et al., 2022).

    encoder    of patches
    tracks     (n,) the track of each training patch, any integers; ``arange(n)`` for plain ODC
    clusters   number of pseudo-classes
    momentum   of a patch's feature in the memory, 0.5: f ← normalise(m f + (1 - m) f_new)
    every      steps between two new computations of the centroids, 10
    smallest   a cluster with fewer patches is dissolved, each patch into the nearest cluster that is large enough, and
               its slot given to half of the largest one
    learnt     False draws a label for every track once and keeps it: the control that clusters nothing

    The step's loss is the cross entropy of the head on the patches' labels, weighted by 1 / √(cluster size). As in the
    authors' code, centroids are plain means of features of unit length, so a scattered cluster's is shorter and wins
    fewer patches.
    Departures: small clusters are dealt with when centroids are renewed, not at every step, as how many there are and
    whom they hold makes the host wait on a GPU (all other steps wait for nothing); the head's optimiser keeps its
    momentum; half of a cluster is found from the two ends of its main axis, not by k-means from random starts.
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
        names, tracks = tracks.unique(return_inverse=True)
        self.seen, self.learnt, self.count = 0, learnt, len(names)
        self.register_buffer("tracks", tracks)
        self.register_buffer("memory", torch.zeros(len(tracks), dim))
        self.register_buffer("labels", torch.zeros_like(tracks))
        self.register_buffer("centroids", torch.zeros(clusters, dim))

    @torch.no_grad()
    def start(self, patches: Shaped[Tensor, "n c h w"], seed: int = 0) -> "ODC":
        """Fill the memory with the untrained network's features and cluster it once by k-means, then the tracks vote.

        patches  uint8, or float in [0, 1]

        Returns itself, in training mode. Features are taken in evaluation mode: no statistics move.
        """
        if len(patches) != len(self.tracks):
            raise ValueError(f"patches must be those of the {len(self.tracks)} tracks, got {len(patches)}")
        if not self.learnt:
            drawn = torch.randint(self.clusters, (self.count,), generator=torch.Generator().manual_seed(seed))
            self.labels = drawn.to(self.tracks)[self.tracks]
            return self.train()
        self.eval()
        features = [self.neck(self.encoder(to_float(part))).float() for part in patches.split(2048)]
        self.memory = unit_rows(torch.cat(features))
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
        new = unit_rows(self.momentum * self.memory[index] + (1 - self.momentum) * unit_rows(z))
        self.memory = self.memory.index_copy(0, index, new)
        labels = self.labels.index_copy(0, index, self._nearest(new, self.centroids))
        self.labels = track_vote(labels, self.tracks, self.clusters, self.count)

    @torch.no_grad()
    def renew(self) -> None:
        """Centroids anew; small clusters are dissolved and refilled; then the tracks vote."""
        self.centroids = self._means(self.labels)
        small = self._sizes(self.labels) < self.smallest
        if bool(small.any()) and not bool(small.all()):
            self._dissolve(small)
        self.labels = track_vote(self.labels, self.tracks, self.clusters, self.count)

    def _sizes(self, labels: Int[Tensor, " n"]) -> Int[Tensor, " K"]:
        """How many patches each cluster holds. ``bincount`` would wait to learn how many clusters there are."""
        return labels.new_zeros(self.clusters).index_add_(0, labels, torch.ones_like(labels))

    def _means(self, labels: Int[Tensor, " n"]) -> Float[Tensor, "K d"]:
        total = torch.zeros_like(self.centroids).index_add_(0, labels, self.memory)
        empty = self._sizes(labels) == 0
        return torch.where(empty[:, None], self.centroids, total / self._sizes(labels).clamp_min(1)[:, None])

    @staticmethod
    def _nearest(z: Rows, centroids: Float[Tensor, "K d"]) -> Int[Tensor, " n"]:
        with torch.autocast(z.device.type, enabled=False):
            return (z @ centroids.T).argmax(1)

    def _dissolve(self, small: Bool[Tensor, " K"]) -> None:
        """Patches of small clusters go each to the nearest large one; a slot takes half of the largest, by 2-means."""
        nearest = self._nearest(self.memory, self.centroids[~small])
        self.labels = torch.where(small[self.labels], (~small).nonzero()[nearest, 0], self.labels)
        for slot in small.nonzero()[:, 0].tolist():
            largest = self._sizes(self.labels).argmax()
            members = (self.labels == largest).nonzero()[:, 0]
            half = members[two_means(self.memory[members])]
            self.labels = self.labels.index_copy(0, half, torch.full_like(half, slot))
            pair = torch.stack([largest, largest.new_tensor(slot)])
            self.centroids = self.centroids.index_copy(0, pair, self._means(self.labels)[pair])


def two_means(x: Rows, iterations: int = 10) -> Bool[Tensor, " n"]:
    """Which of the rows belong to the second of two clusters: Lloyd's iterations from the two ends of the main axis.

    Rows that cannot be parted, as they are all alike, are cut in the middle of the list.
    """
    centred = x - x.mean(0)
    along = centred @ torch.linalg.svd(centred, full_matrices=False).Vh[0]
    second = along > along.median()
    for _ in range(iterations):
        total = second.sum().clamp(1, max(1, len(x) - 1))
        b = (x * second[:, None]).sum(0) / total
        a = (x * ~second[:, None]).sum(0) / (len(x) - total).clamp_min(1)
        second = (x - b).square().sum(1) < (x - a).square().sum(1)
    middle = 2 * torch.arange(len(x), device=x.device) >= len(x)
    return torch.where(second.any() & ~second.all(), second, middle)
