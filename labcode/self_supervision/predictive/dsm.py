"""DSM: a clip with a broken scene as the positive, one with broken motion as the negative.

Wang et al., "Enhancing Unsupervised Video Representation Learning by Decoupling the Scene and the Motion" (2021).
"""

import copy

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from ...data.batches import mixed_seed
from ...data.videos import Motion, Videos, moving_scenes
from ...loss import check_matrix, check_positive, float32, raised, unit_rows
from ...nets import mlp
from .clips import Clips

Scalar = Float[Tensor, ""]


def spatial_disturbance(
    x: Clips, strength: float = 0.15, bumps: int = 3, width: float = 0.3, *, generator: Generator
) -> Clips:
    """The scene broken, the motion kept: a few local bumps pull the picture out of place, alike in all frames.

    Enhancing Unsupervised Video Representation Learning by Decoupling the Scene and the Motion (Wang et al., 2021),
    spatial local disturbance. Each bump moves the pixels around its centre by a smooth hump of up to ``strength``.

    strength  furthest shift, in sides of the frame; the authors' 10 to 20 of 224 pixels are about 0.07
    width     radius of a bump, in sides of the frame

    Computed in float32, whatever the clips' precision, which they keep. Raises ValueError for what is no batch of float
    clips, for no bump, or a width that is not positive.
    """
    if bumps < 1:
        raise ValueError(f"bumps must be at least 1, got {bumps}")
    check_positive(width=width)
    if x.ndim != 5 or not x.is_floating_point():
        raise ValueError(f"x must be float clips (n, t, c, h, w), got {x.dtype} {tuple(x.shape)}")
    kind, x = x.dtype, raised(x)
    n, t, c, h, w = x.shape
    draw = torch.rand(4, n, bumps, 1, 1, generator=generator, device=x.device)
    y, z = ((torch.arange(s, device=x.device) + 0.5) / s * 2 - 1 for s in (h, w))
    y, z = y[:, None], z[None, :]  # rows and columns in -1 … 1
    away = ((y - (1.6 * draw[0] - 0.8)) ** 2 + (z - (1.6 * draw[1] - 0.8)) ** 2) / (2 * width) ** 2
    hump = (1 - away).clamp_min(0) ** 2  # (n, bumps, h, w)
    move = torch.stack([(hump * 2 * strength * (2 * d - 1)).sum(1) for d in (draw[3], draw[2])], -1)
    grid = torch.stack([z.expand(h, w), y.expand(h, w)], -1) + move
    with torch.autocast(x.device.type, enabled=False):
        out = F.grid_sample(x.reshape(n, t * c, h, w), grid.to(x.dtype), padding_mode="reflection", align_corners=False)
    return out.view(n, t, c, h, w).to(kind)


def temporal_disturbance(x: Clips, *, generator: Generator) -> Clips:
    """The motion broken, the scene kept: the same frames, played backwards or in random order.

    The paper's temporal local disturbance warps frames along the scaled optical flow; its released loader takes another
    segment, or a shuffled one. Frames played backwards are the path rescaled by -1, with no flow to estimate.

    Raises ValueError for what is no batch of clips, and for a single frame, which has no motion to break.
    """
    if x.ndim != 5:
        raise ValueError(f"x must be clips (n, t, c, h, w), got shape {tuple(x.shape)}")
    n, t = x.shape[:2]
    if t < 2:
        raise ValueError(f"x must have at least 2 frames, got {t}")
    back = torch.arange(t - 1, -1, -1, device=x.device).expand(n, -1)
    draw = torch.rand(n, t + 1, generator=generator, device=x.device)
    order = torch.where(draw[:, :1] < 0.5, back, draw[:, 1:].argsort(1))
    return x[torch.arange(n, device=x.device)[:, None], order]


def tied_scenes(n: int, seed: int, split: str, motion: Motion, tied: float) -> Videos:
    """Videos over one of four textures, whose direction is the texture's in a share ``tied`` of them, else random."""
    g = Generator().manual_seed(mixed_seed(seed, 0x5CE))
    texture, free = torch.randint(4, (n,), generator=g), torch.randint(4, (n,), generator=g)
    direction = torch.where(torch.rand(n, generator=g) < tied, texture, free)
    return moving_scenes(n, seed, split, motion, texture=texture, direction=direction[:, None])


def recall_at(
    z: Float[Tensor, "n d"], y: Int[Tensor, " n"], new: Float[Tensor, "m d"], new_y: Int[Tensor, " m"], k: int
) -> float:
    """Share of new rows that have one of their own class among their k nearest: the paper's retrieval of videos.

    Nearest by cosine, after the mean of z is taken off both. Raises ValueError unless 1 <= k <= n.
    """
    z, new = raised(z), raised(new)
    check_matrix("z", z, rows=1)
    if not 1 <= k <= len(z):
        raise ValueError(f"k must be between 1 and the {len(z)} rows, got {k}")
    near = (unit_rows(new - z.mean(0)) @ unit_rows(z - z.mean(0)).T).topk(k, 1).indices
    return float((y[near] == new_y[:, None]).any(1).float().mean())


@float32
def dsm_loss(
    q: Float[Tensor, "n d"], k: Float[Tensor, "n d"], queue: Float[Tensor, "K d"],
    own: Float[Tensor, "n d"] | None = None, tau: float = 0.07,
) -> Scalar:  # fmt: skip
    """InfoNCE with a queue and one more negative for each query: the motion-broken clip of its own video.

    DSM (Wang et al., 2021): -log e^{q·k/τ} / (e^{q·k/τ} + Σ_queue e^{q·m/τ} + e^{q·n/τ}). Gradient reaches q and own.

    q      projections of the scene-broken clips
    k      of the clips themselves, by the slow encoder
    own    of the motion-broken clips; None leaves it out, which is MoCo

    Rows of zeros are unlike everything alike and get no gradient (``loss.unit_rows``).
    Raises ValueError for shapes that do not fit, or tau <= 0.
    """
    check_matrix("q", q, rows=1)
    check_matrix("k", k, like=q)
    check_matrix("queue", queue, rows=1)
    if queue.shape[1] != q.shape[1]:
        raise ValueError(f"queue must have keys of {q.shape[1]} values like q, got {queue.shape[1]}")
    check_positive(tau=tau)
    q, k, queue = unit_rows(q), unit_rows(k.detach()), unit_rows(queue.detach())
    logits = [(q * k).sum(1, keepdim=True), q @ queue.T]
    if own is not None:
        check_matrix("own", own, like=q)
        logits.append((q * unit_rows(own)).sum(1, keepdim=True))
    scores = torch.cat(logits, 1) / tau
    return (scores.logsumexp(1) - scores[:, 0]).mean()


class DSM(nn.Module):
    """Momentum contrast of clips, with a scene-broken query, a motion-broken own negative, both, or neither.

    disturb   break the scene of the query
    negative  add the motion-broken clip as a negative
    momentum  of the key encoder

    ``views`` are two weak augmentations of the same frames, stacked; what is broken is broken here.
    """

    def __init__(
        self, encoder: nn.Module, disturb: bool = True, negative: bool = True, dim: int = 64, tau: float = 0.1,
        queue: int = 512, momentum: float = 0.97, strength: float = 0.15,
    ):  # fmt: skip
        super().__init__()
        d = encoder.features
        self.encoder, self.head = encoder, mlp([d, d, dim])
        self.disturb, self.negative, self.tau, self.momentum, self.strength = disturb, negative, tau, momentum, strength
        self.slow = copy.deepcopy(nn.Sequential(self.encoder, self.head)).requires_grad_(False)
        self.register_buffer("queue", unit_rows(torch.randn(queue, dim)))

    def forward(self, views: Clips, index: Int[Tensor, " videos"]) -> Scalar:
        if views.ndim != 5 or len(views) % 2:
            raise ValueError(f"views must be two views of each clip (2n, t, c, h, w), got shape {tuple(views.shape)}")
        generator = torch.Generator(views.device).manual_seed(int(torch.randint(2**31, ())))
        first, second = views.chunk(2)
        shown = spatial_disturbance(first, self.strength, generator=generator) if self.disturb else first
        if self.negative:
            shown = torch.cat([shown, temporal_disturbance(first, generator=generator)])
        z = self.head(self.encoder(shown))
        q, own = z.chunk(2) if self.negative else (z, None)
        with torch.no_grad():
            if self.training:
                ours = [*self.encoder.parameters(), *self.head.parameters()]
                torch._foreach_lerp_(list(self.slow.parameters()), ours, 1 - self.momentum)
            k = unit_rows(self.slow(second))
        loss = dsm_loss(q, k, self.queue, own, self.tau)
        if self.training:
            self.queue = torch.cat([k, self.queue])[: len(self.queue)]
        return loss
