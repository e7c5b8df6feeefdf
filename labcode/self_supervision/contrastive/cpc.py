"""CPC: sum up what was heard, and recognise what comes next among other things (van den Oord et al., 2018).

The loss and what it says about mutual information, and the method on a sequence. ``synthetic_speech`` has the signals,
``cpc_v2`` images.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...loss import float32
from .synthetic_speech import FRAME


@float32
def info_nce(predicted: Float[Tensor, "*pools n d"], target: Float[Tensor, "*pools n d"]) -> Float[Tensor, ""]:
    """Cross entropy of finding each prediction's own target among the n targets of its pool.

    CPC (van den Oord et al., 2018), eq. 4, with the score f_k = exp(z_{t+k}ᵀ W_k c_t) of eq. 3: ``predicted`` holds
    W_k c_t and ``target`` z_{t+k}, row by row. No temperature and no normalisation; the gradient reaches both sides.

    predicted, target  one pool (n, d), or several (…, n, d) that do not see each other

    At least 0, and 0 in pools of one row, which has only itself to be found. Raises ValueError for shapes that differ
    or hold nothing, and on the CPU for NaN or infinity.
    """
    for name, rows in (("predicted", predicted), ("target", target)):
        if rows.ndim < 2 or not rows.is_floating_point() or not rows.numel():
            wanted = "floating-point rows, one pool (n, d) or several (…, n, d)"
            raise ValueError(f"{name} must be {wanted}, got {rows.dtype} of shape {tuple(rows.shape)}")
    if predicted.shape != target.shape:
        raise ValueError(f"target must be like predicted, {tuple(predicted.shape)}, got {tuple(target.shape)}")
    scores = predicted @ target.mT
    return (scores.logsumexp(-1) - scores.diagonal(dim1=-2, dim2=-1)).mean()


def mi_bound(predicted: Float[Tensor, "*pools n d"], target: Float[Tensor, "*pools n d"]) -> Float[Tensor, ""]:
    """log n - InfoNCE, in nats: the estimate of a lower bound of I(x_{t+k}; c_t). CPC, section 2.3.

    It cannot exceed log n, whatever the true information is: the score of the positive is part of the sum.
    """
    return math.log(predicted.shape[-2]) - info_nce(predicted, target)


def gaussian_mi(rho: float, dims: int) -> float:
    """I(x; y) in nats of ``dims`` pairs of unit Gaussians with correlation rho: -dims/2 · log(1 - rho²).

    Raises ValueError for rho outside (-1, 1).
    """
    if not -1 < rho < 1:
        raise ValueError(f"rho must be in (-1, 1), got {rho}")
    return -dims / 2 * math.log1p(-rho * rho)


def gaussian_bound(rho: float, candidates: int, dims: int = 4, pairs: int = 4096, seed: int = 0) -> float:
    """The bound log N - L that CPC's bilinear score reaches on correlated Gaussians, in nats.

    c = (x, 1) and z = (y, y²), so that zᵀ W c can express the true density ratio. W is fitted on half of the pairs
    (a convex problem) and the bound is taken on the other half: on the pairs it was fitted to it can exceed the truth.

    candidates  N, the positive and N - 1 negatives; divides ``pairs``

    Raises ValueError for rho outside (-1, 1) and for candidates that do not divide ``pairs`` or are below 2.
    """
    gaussian_mi(rho, dims)
    if candidates < 2 or pairs % candidates:
        raise ValueError(f"candidates must be at least 2 and divide the {pairs} pairs, got {candidates}")
    g = torch.Generator().manual_seed(seed)
    x, e = torch.randn(2, 2 * pairs, dims, generator=g)
    y = rho * x + math.sqrt(1 - rho * rho) * e
    c = torch.cat([x, torch.ones(len(x), 1)], 1).view(2, -1, candidates, dims + 1)
    z = torch.cat([y, y * y], 1).view(2, -1, candidates, 2 * dims)
    w = torch.zeros(dims + 1, 2 * dims, requires_grad=True)
    solver = torch.optim.LBFGS([w], max_iter=60, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        value = info_nce(c[0] @ w, z[0])
        value.backward()
        return value

    solver.step(loss)
    return float(mi_bound(c[1] @ w.detach(), z[1]))


class SpeechEncoder(nn.Module):
    """g_enc and g_ar: strided convolutions to one z_t a frame, and a GRU to the context c_t."""

    def __init__(self, dim: int = 64):
        super().__init__()
        self.features = dim
        self.enc = nn.Sequential(nn.Conv1d(1, 2 * dim, FRAME, stride=FRAME), nn.ReLU(), nn.Conv1d(2 * dim, dim, 1))
        self.ar = nn.GRU(dim, dim, batch_first=True)

    def forward(self, signal: Float[Tensor, "n samples"]) -> Float[Tensor, "n frames d"]:
        """The contexts c_t, t = 0 … frames - 1; c_t has seen the frames up to t."""
        return self.ar(self.latents(signal))[0]

    def latents(self, signal: Float[Tensor, "n samples"]) -> Float[Tensor, "n frames d"]:
        return self.enc(signal[:, None] / 2).mT


class SpeechCPC(nn.Module):
    """CPC on a sequence: from c_t, one linear map W_k for each of the next K frames. CPC, eq. 3 and 4.

    horizon  K: the loss is averaged over k = 1 … K
    pool     sequences, neighbours in the batch, that give each other negatives
    reach    frames kept free at the end, so that all horizons up to it train on the same contexts
    every    every which frame is a context, after the first eight

    Negatives of a frame: the frames k later than the other contexts of its own and its pool's sequences. The paper
    draws them at random; its windows are far longer than ours, and its frames are 10 ms.
    """

    def __init__(self, encoder: SpeechEncoder, horizon: int = 8, pool: int = 4, reach: int = 8, every: int = 3):
        super().__init__()
        if not 1 <= horizon <= reach:
            raise ValueError(f"horizon must be between 1 and reach = {reach}, got {horizon}")
        d = encoder.features
        self.encoder, self.pool, self.reach, self.every = encoder, pool, reach, every
        self.W = nn.Parameter(torch.randn(horizon, d, d) / d)

    def forward(self, signal: Float[Tensor, "n samples"], index: Int[Tensor, " n"]) -> Float[Tensor, ""]:
        return info_nce(*self.pairs(signal))

    def pairs(self, signal: Float[Tensor, "n samples"]) -> tuple[Float[Tensor, "K pools m d"], ...]:
        """Predictions W_k c_t and the true z_{t+k}, for each k the rows of a pool together."""
        if len(signal) % self.pool:
            raise ValueError(f"signal must have a multiple of {self.pool} rows, got {len(signal)}")
        z = self.encoder.latents(signal)
        c = self.encoder.ar(z)[0]
        t = torch.arange(8, z.shape[1] - self.reach, self.every, device=z.device)
        k = torch.arange(1, len(self.W) + 1, device=z.device)
        predicted = torch.einsum("ntd,kde->knte", c[:, t], self.W)
        target = z[:, t + k[:, None]].transpose(0, 1)
        pooled = (len(self.W), len(signal) // self.pool, -1, z.shape[2])
        return predicted.reshape(pooled), target.reshape(pooled)

    @torch.no_grad()
    def found(self, signal: Float[Tensor, "n samples"]) -> list[float]:
        """How often the true frame scores highest in its pool, for each of the K distances."""
        predicted, target = self.pairs(signal)
        best = (predicted @ target.mT).argmax(-1)
        return (best == torch.arange(best.shape[-1], device=best.device)).float().mean((1, 2)).tolist()
