"""SeLa (Asano et al., 2020): labels by a balanced transport between images and clusters, then ordinary training."""

import warnings

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from ...augment import to_float
from ...cluster import kmeans
from ...loss import check_matrix, check_positive, unit_rows
from ...nets import evaluating
from ...train import allowed
from ..transport import Transport, balanced_transport
from .heads import draw_views, new_head, train_head


def self_labels(
    logits: Float[Tensor, "n k"], lam: float = 25.0, tolerance: float = 0.01, rounds: int = 100
) -> tuple[Int[Tensor, " n"], Transport]:
    """The balanced labels of all images, and the plan they come from. SeLa, eqs. 6 to 9.

    min over Q with rows 1/n and columns 1/k of ⟨Q, -log p⟩ - H(Q)/λ; an image's label is its row's largest entry.

    logits     of the whole training set, not of a batch
    lam        λ > 0: 25 on ImageNet, 10 in the released CIFAR script. Large is close to the linear programme
    tolerance  on a column's relative error; the released code stops at a summed change of 0.1 or 0.01. Where ``rounds``
               are not enough for it, ``change`` of the returned plan says how far it is

    Only the plan is balanced: rounding to the largest entry leaves clusters that are nearly of one size.
    Departure: the released code scales p^λ in float64, where entries can underflow to 0; here logarithms are scaled.
    """
    check_matrix("logits", logits)
    check_positive(lam=lam)
    cost = -logits.detach().double().log_softmax(1)
    with warnings.catch_warnings():  # a label need not be exact to teach
        warnings.simplefilter("ignore", RuntimeWarning)
        found = balanced_transport(cost, 1 / lam, tolerance=tolerance, rounds=rounds)
    return found.plan.argmax(1), found


def balanced_permutation(n: int, k: int, generator: torch.Generator) -> Int[Tensor, " n"]:
    """The labels that training starts from: as many images of each, in random order."""
    return torch.randperm(n, generator=generator, device=generator.device) % k


class SeLa(nn.Module):
    """Encoder, several linear heads and the self-labels of the n training images for each head.

    n          how many training images
    clusters   of each head
    heads      how many; 10 in the paper. The loss is their mean, and each has labels of its own
    relabel    logits -> labels: ``self_labels``, or what it is compared with

    Calling it gives the cross entropy on fixed labels; ``update`` makes one head's labels anew.
    """

    def __init__(self, encoder: nn.Module, n: int, clusters: int = 32, heads: int = 2, relabel=None, seed: int = 0):
        super().__init__()
        check_positive(n=n, clusters=clusters, heads=heads)
        g = torch.Generator().manual_seed(seed)
        self.encoder, self.shape = encoder, (heads, clusters)
        self.head = nn.Linear(encoder.features, heads * clusters)
        self.relabel = relabel or (lambda logits: self_labels(logits)[0])
        self.register_buffer("labels", torch.stack([balanced_permutation(n, clusters, g) for _ in range(heads)]))

    def forward(self, images: Float[Tensor, "v_n *image"], index: Int[Tensor, " n"]) -> Float[Tensor, ""]:
        """Mean over heads of the cross entropy on the images' labels; views of the n images are stacked."""
        logits = self.head(self.encoder(images)).unflatten(1, self.shape)  # (v n, heads, clusters)
        target = self.labels[:, index].T.repeat(len(images) // len(index), 1)
        return F.cross_entropy(logits.flatten(0, 1), target.flatten())

    @torch.no_grad()
    def update(self, features: Float[Tensor, "n d"], head: int) -> None:
        """New labels of one head, from features of the whole training set: eval-mode here, of training views there."""
        self.labels[head] = self.relabel(self.head(features).unflatten(1, self.shape)[:, head])


class Relabel:
    """What happens between the steps of ``learn``: every ``every`` steps all heads' labels are made anew.

    way  "transport" is SeLa; "argmax" takes each image's likeliest cluster; "k-means" clusters the features and draws
         the heads anew, as DeepCluster does; "never" keeps the random labels
    """

    def __init__(self, images: Float[Tensor, "n *image"], every: int, way: str = "transport", lam: float = 10.0):
        if way not in ("transport", "argmax", "k-means", "never"):
            raise ValueError(f"way must be transport, argmax, k-means or never, got {way!r}")
        self.images, self.every, self.way, self.lam = images, every, way, lam

    @torch.no_grad()
    def __call__(self, model: SeLa, step: int) -> None:
        if step % self.every or self.way == "never":
            return
        with evaluating(model.encoder):
            features = torch.cat([model.encoder(to_float(part)) for part in self.images.split(2000)])
        if self.way == "transport":
            model.relabel = lambda z: self_labels(z, self.lam)[0]
        elif self.way == "argmax":
            model.relabel = lambda z: z.argmax(1)
        else:
            found = [kmeans(unit_rows(features), model.shape[1], seed=step + h)[1] for h in range(model.shape[0])]
            model.labels.copy_(torch.stack(found))
            return model.head.reset_parameters()
        for head in range(model.shape[0]):
            model.update(features, head)


def sela_clusters(
    x: Float[Tensor, "n d"], k: int, *, generator: Generator, views: Float[Tensor, "v n d"] | None = None,
    steps: int = 200, batch_size: int = 256, updates: int = 20, relabel=None, lam: float = 10.0,
) -> Int[Tensor, " n"]:  # fmt: skip
    """SeLa with a head on frozen features: the cluster of every row, the head's likeliest.

    updates  relabellings, spread evenly over the steps; 0 keeps the random labels
    relabel  logits -> labels; None is ``self_labels`` with ``lam``

    Departure: the encoder stays fixed, and one head has as many clusters as are wanted.
    """
    head, relabel = new_head(x.shape[1], k, generator=generator), relabel or (lambda z: self_labels(z, lam)[0])
    labels = balanced_permutation(len(x), k, generator)
    every = max(1, allowed(steps, True) // max(1, updates))

    def loss(index, step):
        nonlocal labels
        if step % every == 0 and updates:
            head.eval()
            with torch.no_grad():
                labels = relabel(head(x))
            head.train()
        seen = draw_views(x, views, index, 2, generator=generator)
        return F.cross_entropy(head(seen.flatten(0, 1)), labels[index].repeat(2))

    train_head(head, loss, len(x), steps=steps, batch_size=batch_size, generator=generator)
    with torch.no_grad():
        return head(x).argmax(1)
