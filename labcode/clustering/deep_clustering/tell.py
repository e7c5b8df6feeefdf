"""TELL (Peng et al., 2022): k-means written as a layer of a network, so that its weights are the centres."""

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from ...loss import check_matrix, check_positive, float32, unit_rows
from ...train import allowed
from .autoencoder import Autoencoder, adam, batches, pretrain, reconstruction_of
from .common import best_kmeans

Rows = Float[Tensor, "n d"]
Centres = Float[Tensor, "k d"]


@float32
def tell_loss(z: Float[Tensor, "n d"], centres: Float[Tensor, "k d"], tau: float | None = None) -> Float[Tensor, ""]:
    """Mean over samples of Σ_j s_j ‖z - μ_j‖² with z and μ of length 1: the k-means objective as a layer's output.

    TELL, eq. 9. With unit rows ‖z - μ_j‖² = 2 - 2 μ_j·z: a linear layer of weights 2 μ_j, and no bias.

    z, centres  are brought to length 1 here
    tau         temperature of the assignments s = softmax(-‖z - μ‖² / τ), > 0; None is the limit, the nearest centre
                alone, which the released code has

    Assignments carry no gradient. Raises ValueError for centres of another width and a tau that is not positive.
    """
    check_matrix("z", z)
    check_matrix("centres", centres)
    if tau is not None:
        check_positive(tau=tau)
    if centres.shape[1] != z.shape[1]:
        raise ValueError(f"centres must be as wide as z, {z.shape[1]}, got {centres.shape[1]}")
    distance = 2 - 2 * unit_rows(z) @ unit_rows(centres).T
    if tau is None:
        return distance.min(1).values.mean()
    return ((-distance.detach() / tau).softmax(1) * distance).sum(1).mean()


@torch.no_grad()
def assigned(z: Rows, centres: Centres) -> Int[Tensor, " n"]:
    """The nearest centre of every row, both of length 1."""
    return (unit_rows(z) @ unit_rows(centres).T).argmax(1)


def move_centres(centres: Centres, gradient: Centres, step: float) -> Centres:
    """Centres after one step: each row's gradient brought to length ``step``, then every row to length 1 again.

    As the released code does it, where the layer's rows are 2 α times the centres and the step is 0.2 α: 0.1 of a
    centre's length. A centre without samples has no gradient and stays: it is dead until samples come to it.
    """
    return F.normalize(centres - step * F.normalize(gradient, dim=1), dim=1)


def tell(
    x: Rows, centres: Centres, *, generator: Generator, steps: int = 300, batch_size: int = 256, step: float = 0.1,
    final: float = 0.0, tau: float | None = None,
) -> tuple[Centres, Float[Tensor, " steps"]]:  # fmt: skip
    """The layer alone, trained online on mini-batches: centres of length 1, and the loss of each batch.

    step   length of a centre's step at the start; it falls linearly to ``final``

    The convergence theorem wants steps that shrink; with a constant one, centres circle about their place.
    """
    centres, losses, last = F.normalize(centres.detach(), dim=1), [], allowed(steps) - 1
    for i, rows in enumerate(batches(len(x), steps, batch_size, generator)):
        value, gradient = with_gradient(x[rows], centres, tau)
        losses.append(value)
        centres = move_centres(centres, gradient, step + (final - step) * i / max(1, last))
    return centres, torch.stack(losses)


def with_gradient(z: Rows, centres: Centres, tau: float | None = None) -> tuple[Tensor, Centres]:
    """The layer's loss and its gradient in the centres alone."""
    centres = centres.detach().requires_grad_()
    value = tell_loss(z.detach(), centres, tau)
    return value.detach(), torch.autograd.grad(value, centres)[0]


@torch.no_grad()
def spherical_kmeans(x: Rows, centres: Centres, iterations: int = 100) -> tuple[Centres, Int[Tensor, " n"]]:
    """Lloyd's iterations for rows and centres of length 1: each centre the direction of the sum of its rows.

    Dhillon and Modha (2001); what TELL's layer minimises. An empty cluster keeps its centre.
    """
    x, centres = unit_rows(x), unit_rows(centres)
    which = assigned(x, centres)
    for _ in range(iterations):
        total = torch.zeros_like(centres).index_add_(0, which, x)
        length = total.norm(dim=1, keepdim=True)
        centres = torch.where(length > 0, total / length.clamp_min(1e-12), centres)
        before, which = which, assigned(x, centres)
        if torch.equal(before, which):
            break
    return centres, which


@dataclass
class Told:
    """What a training left behind."""

    clusters: Int[Tensor, " n"]
    net: nn.Module
    centres: Centres
    history: list[Int[Tensor, " n"]]  # the clusters after every epoch, or at the end of less than one
    losses: Float[Tensor, " steps"]


def tell_autoencoder(
    net: Autoencoder, x: Rows, centres: Centres, *, generator: Generator, steps: int = 300, weight: float = 0.01,
    reconstruct: float = 1.0, alternate: bool = True, step: float = 0.1, lr: float = 1e-3, batch_size: int = 256,
) -> Told:  # fmt: skip
    """The layer behind an autoencoder with codes of length 1, on copies: reconstruction plus the layer's loss.

    weight       of the clustering loss; 0.01 in the paper. The released code averages over batch *and* clusters, which
                 makes it k times smaller
    reconstruct  of the reconstruction; 0 is the ablation
    alternate    in even epochs the clustering loss moves the centres alone, in odd ones the autoencoder alone, as
                 released; False moves both at once

    Departures: Adam instead of Adadelta, fully connected instead of convolutions with BatchNorm.
    """
    net, centres, history, losses = copy.deepcopy(net), F.normalize(centres.detach(), dim=1), [], []
    optim, epoch = adam(net.parameters(), lr), max(1, len(x) // batch_size)
    for i, rows in enumerate(batches(len(x), steps, batch_size, generator)):
        even, z = i // epoch % 2 == 0, net(x[rows])
        pulled = z.detach() if even and alternate else z
        loss = weight * tell_loss(pulled, centres)
        loss = loss + (reconstruct * reconstruction_of(net, x[rows], z) if reconstruct else 0 * z.sum())
        optim.zero_grad(set_to_none=True)
        loss.backward()
        optim.step()
        losses.append(loss.detach())
        if even or not alternate:
            centres = move_centres(centres, with_gradient(z, centres)[1], step)
        if (i + 1) % epoch == 0:
            with torch.no_grad():
                history.append(assigned(net(x), centres))
    with torch.no_grad():
        clusters = assigned(net(x), centres)
    return Told(clusters, net, centres, history or [clusters], torch.stack(losses))


def tell_clusters(x: Rows, k: int, *, generator: Generator, views=None, steps: int = 200, batch_size: int = 256,
                  hidden: int = 128, code: int = 10) -> Int[Tensor, " n"]:  # fmt: skip
    """TELL from end to end on rows x, its centres started by k-means; (n,) labels."""
    torch.manual_seed(generator.initial_seed() % 2**31)
    x = x / x.square().mean().sqrt().clamp_min(1e-12)
    net = Autoencoder([x.shape[1], hidden, code], code="unit").to(x.device)
    pretrain(net, x, generator=generator, steps=steps // 2)
    with torch.no_grad():
        centres, _ = best_kmeans(net(x), k, generator.initial_seed() % 1000)
    rest = dict(steps=steps - steps // 2, batch_size=batch_size)
    return tell_autoencoder(net, x, centres, generator=generator, **rest).clusters
