"""SwAV (Caron et al., 2020): each view predicts the other's balanced code; small crops and a queue join in."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from ...loss import check_positive, float32, unit_rows
from ...nets import mlp, seeded
from ..measures import size_entropy
from ..transport import balanced_transport
from .heads import draw_views, train_head


def codes(scores: Float[Tensor, "*crops n k"], eps: float = 0.05, rounds: int = 3) -> Float[Tensor, "*crops n k"]:
    """Soft codes of n samples that use k prototypes alike, rows of sum 1: SwAV, eqs. 3 to 5, three rounds of scaling.

    SeLa's transport stopped after ``rounds``, of each crop by itself; no gradient. For one crop
    ``labcode.transport.sinkhorn_codes`` computes the same.
    """
    found = balanced_transport(-scores.detach(), eps, tolerance=None, rounds=rounds)
    return (scores.shape[-2] * found.plan).to(scores.dtype)


def softmax_codes(scores: Float[Tensor, "*crops n k"], eps: float = 0.05) -> Float[Tensor, "*crops n k"]:
    """What is left without the balance: every sample for itself."""
    return (scores.detach() / eps).softmax(-1)


@float32
def swapped_prediction(
    scores: Float[Tensor, "v n k"], targets: Float[Tensor, "2 n k"], tau: float = 0.1
) -> Float[Tensor, ""]:
    """Every crop predicts the codes of the other full crops: the mean of -Σ_k q_i log softmax(s_v / τ) over i ≠ v.

    SwAV, eqs. 1 and 2, and section 3.3 for more than two crops.

    scores   cosines to the prototypes, crop by crop; the first two are the full crops
    targets  codes of the two full crops, without gradient
    tau      temperature > 0; 0.1 in the paper

    Raises ValueError for fewer than two crops, codes of another shape and tau <= 0.
    """
    check_positive(tau=tau)
    if scores.ndim != 3 or len(scores) < 2 or not scores.numel():
        raise ValueError(f"scores must be (v, n, k) with at least two crops, got {tuple(scores.shape)}")
    for name, given in (("scores", scores), ("targets", targets)):
        if not given.is_floating_point():
            raise ValueError(f"{name} must be floating point, got {given.dtype}")
    if targets.shape != scores[:2].shape:
        raise ValueError(f"targets must be (2, n, k) like scores, got {tuple(targets.shape)}")
    log_p = (scores / tau).log_softmax(2)
    crossed = -torch.einsum("ink,vnk->iv", targets, log_p) / scores.shape[1]
    own = torch.eye(2, len(scores), dtype=crossed.dtype, device=crossed.device)
    return (crossed * (1 - own)).sum() / (2 * (len(scores) - 1))


class SwAV(nn.Module):
    """Encoder, projector, prototypes and queue.

    prototypes  their number: well above the classes, below the batch and queue together; 3000 for ImageNet
    eps, tau    entropy of the codes and temperature of the prediction
    queue       embeddings of earlier batches that help to balance the codes and never enter the loss; one queue for
                each full crop; 0 is none
    wait        steps before the queue is used; 15 epochs in the paper
    freeze      steps during which the prototypes stay as drawn: one epoch in the paper
    assign      scores -> codes: ``codes``, or what it is compared with

    Departure: the learning rate and optimiser are the caller's, the paper's is LARS.
    """

    def __init__(self, encoder: nn.Module, prototypes: int = 64, dim: int = 32, eps: float = 0.05, tau: float = 0.1,
                 queue: int = 0, wait: int = 0, freeze: int = 0, assign: Callable | None = None):  # fmt: skip
        super().__init__()
        self.encoder, self.head = encoder, mlp([encoder.features, 128, dim])
        self.prototypes = nn.Parameter(F.normalize(torch.randn(prototypes, dim), dim=1))
        self.eps, self.tau, self.wait, self.freeze, self.assign = eps, tau, wait, freeze, assign or codes
        self.register_buffer("queue", F.normalize(torch.randn(2, queue, dim), dim=2))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(
        self, crops: Float[Tensor, "two_n c h w"], index=None, small: Float[Tensor, "m_n c s s"] | None = None
    ) -> Float[Tensor, ""]:
        """The loss of two full crops of n images, stacked, and of any number of small ones, stacked too."""
        n = len(crops) // 2
        features = self.encoder(crops) if small is None else torch.cat([self.encoder(crops), self.encoder(small)])
        z = unit_rows(self.head(features)).unflatten(0, (-1, n))  # (crops, n, dim)
        moving = float(self.seen >= self.freeze)  # frozen: the gradient is scaled by 0
        c = unit_rows(moving * self.prototypes + (1 - moving) * self.prototypes.detach())
        targets = self._targets(z[:2].detach(), c.detach())
        self.seen += 1
        return swapped_prediction(z @ c.T, targets, self.tau)

    @torch.no_grad()
    def _targets(self, z: Float[Tensor, "2 n d"], c: Float[Tensor, "k d"]) -> Float[Tensor, "2 n k"]:
        """Codes of the full crops, each crop's balanced together with its queue; then the queues move on."""
        more = self.queue if self.seen >= self.wait else self.queue[:, :0]
        found = self.assign(torch.cat([z, more], 1) @ c.T, self.eps)[:, : z.shape[1]]
        if self.queue.shape[1]:
            self.queue.copy_(torch.cat([z, self.queue], 1)[:, : self.queue.shape[1]])
        return found


@torch.no_grad()
def prototype_use(model: SwAV, images: Float[Tensor, "n c h w"]) -> float:
    """Entropy of how many images each prototype is nearest to, over log k: 1 for even use, 0 for one prototype."""
    z = torch.cat([unit_rows(model.head(model.encoder(part))) for part in images.split(2000)])
    return size_entropy((z @ unit_rows(model.prototypes).T).argmax(1), len(model.prototypes))


class _Rows(nn.Identity):
    """Frozen features in an encoder's place."""

    def __init__(self, features: int):
        super().__init__()
        self.features = features


def swav_clusters(
    x: Float[Tensor, "n d"], k: int, *, generator: Generator, views: Float[Tensor, "v n d"] | None = None,
    steps: int = 200, batch_size: int = 256, lr: float = 3e-3, **options,
) -> Int[Tensor, " n"]:  # fmt: skip
    """SwAV with a projector and k prototypes on frozen features: the nearest prototype of every row.

    options  of ``SwAV``: temperatures, queue, frozen steps, ``assign``

    Departure: the encoder stays fixed, and there are as many prototypes as clusters are wanted; the paper has more.
    """
    seed = int(torch.randint(2**31, (), generator=generator, device=generator.device))
    model = seeded(seed, SwAV, _Rows(x.shape[1]), prototypes=k, **options).to(x.device)

    def loss(index, step):
        return model(draw_views(x, views, index, 2, generator=generator).flatten(0, 1))

    train_head(model, loss, len(x), steps=steps, batch_size=batch_size, generator=generator, lr=lr)
    with torch.no_grad():
        return (unit_rows(model.head(x)) @ unit_rows(model.prototypes).T).argmax(1)
