"""Online deep clustering of patches, with the clusters tied along the tracks of a video.

Zhan et al., "Online Deep Clustering for Unsupervised Representation Learning" (2020); "Online Deep Clustering with
Video Track Consistency".
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Generator, Tensor, nn

from ...cluster import kmeans
from ...data.videos import Motion, moving_scenes
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
