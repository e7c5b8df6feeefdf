"""DEPICT (Dizaji et al., 2017): a softmax over an autoencoder's code, targets in closed form, all layers at once."""

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from ...loss import check_matrix, float32
from .autoencoder import Autoencoder, descend, pretrain, reconstruction_of
from .common import best_kmeans

Rows = Float[Tensor, "n d"]
Soft = Float[Tensor, "n k"]


@float32
def balanced_targets(p: Float[Tensor, "n k"], form: str = "paper") -> Float[Tensor, "n k"]:
    """The targets q that DEPICT's objective has in closed form for given predictions p, rows of sum 1; no gradient.

    p     predictions of *all* samples, rows of sum 1
    form  "paper": q_ik ∝ p_ik / (Σ_i' p_i'k)^½, eq. 8, the optimum of KL(Q ‖ P) + KL(f ‖ uniform);
          "code":  q_ik ∝ p_ik² / Σ_i' p_i'k, which the authors' release computes, and DEC;
          "none":  q = p, no prior on the sizes

    Raises ValueError for another form.
    """
    check_matrix("p", p)
    p = p.detach().clamp(0, 1e12)
    size = p.sum(0).clamp_min(1e-12)
    if form == "paper":
        weight = p / size.sqrt()
    elif form == "code":
        weight = p.square() / size
    elif form == "none":
        weight = p
    else:
        raise ValueError(f"form must be paper, code or none, got {form!r}")
    return weight / weight.sum(1, keepdim=True).clamp_min(1e-30)


@dataclass
class Depicted:
    """What a training left behind."""

    clusters: Int[Tensor, " n"]
    net: nn.Module
    start: Int[Tensor, " n"]  # the initial assignment
    history: list[Int[Tensor, " n"]]  # the clusters whenever the targets were refreshed


def depict(
    net: Autoencoder, x: Rows, start: Int[Tensor, " n"], k: int, *, generator: Generator, steps: int = 300,
    warm: int = 60, form: str = "code", weight: float = 1.0, inner: float = 0.1, dropout: float = 0.1, lr: float = 1e-3,
    batch_size: int = 100,
) -> Depicted:  # fmt: skip
    """Joint training on a copy of a pretrained net: cross entropy to the targets plus reconstruction of every layer.

    start    the initial assignment, of k-means or agglomeration; the softmax begins at the unit centroids
    warm     steps on these labels as they are, before targets are computed
    form     of the targets, see ``balanced_targets``; "hard" keeps the initial labels for good
    weight   of all reconstruction terms; 0 is the ablation
    inner    of the hidden layers' terms within: 0.1 in the release; 0 reconstructs the input alone
    dropout  of input and hidden layers in the pass that is trained; targets come from the clean pass. 0 makes both one

    Targets are those of the whole set, refreshed once an epoch. Departures: fully connected instead of two strided
    convolutions; Adam at 1e-3 for some hundred steps instead of 1e-4 until the targets stand still.
    """
    net = copy.deepcopy(net)
    with torch.no_grad():
        z = net(x)
    centroids = torch.stack([z[start == j].mean(0) if bool((start == j).any()) else z.mean(0) for j in range(k)])
    head = nn.Linear(z.shape[1], k, device=x.device)
    with torch.no_grad():
        head.weight.copy_(F.normalize(centroids, dim=1))
        head.bias.zero_()
    history, held, epoch = [], {"q": F.one_hot(start, k).float()}, max(1, len(x) // batch_size)

    def refresh() -> None:
        with torch.no_grad():
            p = head(net(x)).softmax(1)  # the clean pass
        history.append(p.argmax(1))
        if form != "hard":
            held["q"] = balanced_targets(p, form)

    def loss(b, step):
        if step >= warm and (step - warm) % epoch == 0:
            refresh()
        code = net.layers(x[b], dropout)[-1]
        value = F.cross_entropy(head(code), held["q"][b])
        return value + weight * reconstruction_of(net, x[b], code, inner) if weight else value

    descend([*net.parameters(), *head.parameters()], loss, len(x), generator=generator, steps=warm + steps,
            batch_size=batch_size, lr=lr)  # fmt: skip
    refresh()
    return Depicted(history[-1], nn.ModuleDict({"net": net, "head": head}), start, history)


def depict_clusters(x: Rows, k: int, *, generator: Generator, views=None, steps: int = 200, batch_size: int = 256,
                    hidden: int = 128) -> Int[Tensor, " n"]:  # fmt: skip
    """DEPICT from end to end on rows x: half of the steps for the autoencoder, half for clusters; (n,) labels."""
    torch.manual_seed(generator.initial_seed() % 2**31)
    x = x / x.square().mean().sqrt().clamp_min(1e-12)
    net = Autoencoder([x.shape[1], hidden, k], code="tanh", slope=0.01).to(x.device)
    pretrain(net, x, generator=generator, steps=steps // 2, dropout=0.1, inner=0.1)
    with torch.no_grad():
        _, start = best_kmeans(net(x), k, generator.initial_seed() % 1000)
    rest = steps - steps // 2
    options = dict(steps=rest - rest // 5, warm=rest // 5, batch_size=batch_size)
    return depict(net, x, start, k, generator=generator, **options).clusters
