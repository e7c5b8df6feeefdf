"""DeepCluster (Caron et al., 2018): cluster the features, learn to predict the clusters, and begin again."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from ...cluster import kmeans
from ...loss import check_index, check_matrix, unit_rows
from ...nets import mlp
from ...train import allowed
from ..measures import sizes

Rows = Float[Tensor, "n d"]
Labels = Int[Tensor, " n"]


@torch.no_grad()
def whitened(features: Rows, dim: int = 32) -> Float[Tensor, "n dim"]:
    """The first principal components, each brought to variance 1, then rows of length 1: what k-means sees.

    DeepCluster, section 3.3 (256 dimensions there). At most as many components as rows and columns have rank; a
    direction without variance stays out.
    """
    check_matrix("features", features, rows=2)
    centred = features.double() - features.double().mean(0)
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
    kept = values > 1e-10 * values[-1].clamp_min(1e-30)
    values, vectors = values[kept][-dim:], vectors[:, kept][:, -dim:]
    return unit_rows((centred @ vectors / values.sqrt()).float())


def reassign(features: Rows, k: int, seed: int = 0, dim: int = 32, iterations: int = 20) -> Labels:
    """The pseudo-labels of one round: k-means on whitened features, from new seeds.

    Empty clusters are refilled inside k-means with the samples furthest from their centroid; the paper gives them a
    perturbed centroid of a large cluster, the released code leaves them.
    """
    return kmeans(whitened(features, dim), k, seed, iterations)[1]


def uniform_rows(labels: Labels, count: int, k: int, *, generator: Generator) -> Int[Tensor, " count"]:
    """Rows drawn so that all clusters that hold any are as likely, with replacement.

    DeepCluster, section 3.3: without it a network may predict the largest cluster for all. The same as weighting the
    loss by the inverse of the cluster's size.
    """
    check_index("labels", labels, k)
    weight = 1.0 / sizes(labels, k).clamp_min(1).float()[labels]
    return torch.multinomial(weight, count, replacement=True, generator=generator)


def fresh_head(width: int, classes: int, *, generator: Generator, device=None) -> nn.Linear:
    """A new linear classifier, weights from N(0, 0.01) and no bias: names of clusters change with every round."""
    head = nn.Linear(width, classes, device=device)
    with torch.no_grad():
        head.weight.normal_(0, 0.01, generator=generator)
        head.bias.zero_()
    return head


@dataclass
class Bootstrapped:
    """What a training left behind."""

    encoder: nn.Module
    history: list[Labels] = field(default_factory=list)  # the pseudo-labels of every round
    losses: list[float] = field(default_factory=list)  # the mean of every round

    @property
    def clusters(self) -> Labels:
        return self.history[-1]


def deepcluster(
    encoder: nn.Module, images: Tensor, k: int, *, see: Callable, embed: Callable, width: int, generator: Generator,
    rounds: int = 6, steps: int = 20, batch_size: int = 64, lr: float = 3e-3, uniform: bool = True, reset: bool = True,
    renew: bool = True, dim: int = 32,
) -> Bootstrapped:  # fmt: skip
    """Rounds of clustering all features and of training on the clusters, in place.

    see      ``see(images, generator)``: one augmented view of each image, what the network trains on
    embed    ``embed(encoder)``: features of all images without augmentation, in evaluation mode, what is clustered
    width    of the features
    uniform  images drawn uniformly over clusters; False draws them as they are: the ablation
    reset    a new head and a new optimiser for it in every round; False keeps the old head, whose classes have been
             renamed: the ablation
    renew    False keeps the first round's labels: one-shot pseudo-labels of an untrained network

    AdamW instead of SGD at 0.05; rounds of some steps instead of epochs.
    """
    found = Bootstrapped(encoder)
    optim = torch.optim.AdamW(encoder.parameters(), lr=lr, weight_decay=1e-4, fused=True)
    head = None
    for turn in range(rounds):
        if renew or not turn:
            labels = reassign(embed(encoder), k, seed=turn + 1000 * (generator.initial_seed() % 1000), dim=dim)
        found.history.append(labels)
        if reset or head is None:
            head = fresh_head(width, k, generator=generator, device=labels.device)
            classify = torch.optim.AdamW(head.parameters(), lr=lr, weight_decay=0.0, fused=True)
        encoder.train()
        losses = []
        for _ in range(allowed(steps)):
            if uniform:
                rows = uniform_rows(labels, batch_size, k, generator=generator)
            else:
                rows = torch.randint(len(labels), (batch_size,), generator=generator, device=labels.device)
            loss = F.cross_entropy(head(encoder(see(images[rows], generator))), labels[rows])
            for o in (optim, classify):
                o.zero_grad(set_to_none=True)
            loss.backward()
            for o in (optim, classify):
                o.step()
            losses.append(loss.detach())
        found.losses.append(float(torch.stack(losses).mean()))
    found.history.append(reassign(embed(encoder), k, seed=rounds + 1000 * (generator.initial_seed() % 1000), dim=dim))
    encoder.eval()
    return found


def deepcluster_clusters(x: Rows, k: int, *, generator: Generator, views=None, steps: int = 200, batch_size: int = 256,
                         hidden: int = 128, code: int = 64) -> Labels:  # fmt: skip
    """DeepCluster with a perceptron on rows x and k clusters, trained on random views of the rows; (n,) labels."""
    torch.manual_seed(generator.initial_seed() % 2**31)
    net = mlp([x.shape[1], hidden, code]).to(x.device)
    every = torch.arange(len(x), device=x.device)

    def see(rows, generator):
        if views is None:
            return x[rows]
        return views[torch.randint(len(views), (len(rows),), generator=generator, device=x.device), rows]

    def embed(net):
        net.eval()
        with torch.no_grad():
            return net(x)

    return deepcluster(net, every, k, see=see, embed=embed, width=code, generator=generator, rounds=5, steps=steps // 5,
                       batch_size=batch_size).clusters  # fmt: skip
