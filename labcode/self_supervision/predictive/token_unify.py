"""TokenUnify: one network is asked for a hidden patch, for the next one, and for everything that follows.

Chen et al., "TokenUnify: Scalable Autoregressive Visual Pre-training with Mixture Token Prediction" (2025). ``rollout``
lets a model go on by itself; the sections that it reads are in ``sections.py``.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...loss import float32
from ...nets.vit import ViT, gather, patchify, prefix_causal, random_split
from .aim import autoregressive_loss
from .mae import masked_mse

Images = Float[Tensor, "n c h w"]
Scalar = Float[Tensor, ""]


@float32
def next_all_loss(
    predicted: Float[Tensor, "n r k p"], patches: Float[Tensor, "n k p"], after: Int[Tensor, "n r"]
) -> Scalar:
    """Squared error of every patch that follows, seen from several places of the sequence.

    TokenUnify (Chen et al., 2025): Σ_i Σ_{j>i} ‖x̂_j(x_≤i) - x_j‖². Here the mean over all pairs and values.

    predicted  [n, r, j] is what place i = after[n, r] says about patch j
    after      places i; patches j > i are targets. The last place has none

    Raises ValueError for shapes that do not fit together.
    """
    if predicted.ndim != 4 or not predicted.is_floating_point() or not predicted.numel():
        raise ValueError(
            f"predicted must be (n, r, k, p) in floating point, got {predicted.dtype} {tuple(predicted.shape)}"
        )
    n, r, k, p = predicted.shape
    if patches.shape != (n, k, p) or not patches.is_floating_point():
        raise ValueError(f"patches must be {(n, k, p)} in floating point, got {patches.dtype} {tuple(patches.shape)}")
    if after.shape != (n, r):
        raise ValueError(f"after must be {(n, r)}, got {tuple(after.shape)}")
    follows = torch.arange(k, device=after.device) > after[:, :, None]
    return masked_mse(predicted.flatten(0, 1), patches.repeat_interleave(r, 0), follows.flatten(0, 1))


class TokenUnify(nn.Module):
    """One transformer, one head, three ways to ask: a hidden patch, the next one, all that follow.

    TokenUnify (Chen et al., 2025). The head answers "what stands at place j, as token i knows it?":
    f(h_i, p_j) = W₃ GELU(W₁ h_i + W₂ p_j). *Random*: i = j is a blank among visible tokens, attention goes everywhere.
    *Next*: j = i + 1 for all i at once. *Next-all*: all j > i, for ``starts`` places i of each image. The last two
    attend causally after a random prefix, as in ``AIM``. With several objectives steps take turns.

    encoder     a ``ViT``
    objectives  of "random", "next", "next-all"
    hide        share of patches hidden in "random"; 0.75 as in MAE

    ``forward(x, index)`` is the loss of the step's objective.
    Departures: a transformer for Mamba and slices for volumes; the released code draws one prefix for each volume
    and lets a U-Net without causal mask fill in the rest.
    """

    def __init__(
        self, encoder: ViT, objectives: Sequence[str] = ("random", "next", "next-all"), hide: float = 0.75,
        starts: int = 4, hidden: int = 64,
    ):  # fmt: skip
        super().__init__()
        if not objectives or set(objectives) - {"random", "next", "next-all"}:
            raise ValueError(f'objectives must be of "random", "next" and "next-all", got {objectives}')
        self.encoder, self.objectives, self.starts = encoder, tuple(objectives), starts
        self.tokens = len(encoder.position)
        self.keep = max(1, round((1 - hide) * self.tokens))
        self.blank = nn.Parameter(0.02 * torch.randn(encoder.features))
        self.know, self.ask = nn.Linear(encoder.features, hidden), nn.Linear(encoder.features, hidden, bias=False)
        self.out = nn.Linear(hidden, encoder.embed.in_features)
        self.turn = 0

    def answer(self, h: Float[Tensor, "... d"], place: Int[Tensor, "..."]) -> Float[Tensor, "... p"]:
        """What token states h say about the patches at ``place``, one for each state or broadcast against them."""
        return self.out(F.gelu(self.know(h) + self.ask(self.encoder.position[place])))

    def forward(self, x: Images, index: Tensor | None = None) -> Scalar:
        objective = self.objectives[self.turn % len(self.objectives)]
        self.turn += 1
        return self.loss(x, objective)

    def loss(self, x: Images, objective: str) -> Scalar:
        patches = patchify(x, self.encoder.patch)
        if objective == "random":
            return self._random(x, patches)
        prefix = torch.randint(1, self.tokens, (len(x),)).to(x.device, non_blocking=True)
        h = self.encoder(x, mask=prefix_causal(self.tokens, prefix))
        if objective == "next":
            place = torch.arange(1, self.tokens + 1, device=x.device).clamp_max(self.tokens - 1)
            return autoregressive_loss(self.answer(h, place), patches, prefix, normalise=False)
        after = (prefix - 1)[:, None] + ((self.tokens - prefix)[:, None] * self._uniform(x)).long()  # S-1 … K-2
        everywhere = torch.arange(self.tokens, device=x.device)
        return next_all_loss(self.answer(gather(h, after)[:, :, None], everywhere), patches, after)

    def _uniform(self, x: Images) -> Float[Tensor, "n r"]:
        return torch.rand(len(x), self.starts, device=x.device)

    def _random(self, x: Images, patches: Float[Tensor, "n k p"]) -> Scalar:
        kept, gone = random_split(len(x), self.tokens, self.keep, device=x.device)
        hidden = torch.zeros(len(x), self.tokens, dtype=torch.bool, device=x.device).scatter_(1, gone, True)
        tokens = torch.where(hidden[:, :, None], self.blank + self.encoder.position, self.encoder.tokens(x))
        h = self.encoder.trunk(tokens)
        return masked_mse(self.answer(h, torch.arange(self.tokens, device=x.device)), patches, hidden)


@torch.no_grad()
def rollout(model: TokenUnify, x: Images, prefix: int, feed_back: bool) -> Float[Tensor, "n k p"]:
    """Patches of images of which only the first ``prefix`` are shown; those are returned as they are.

    feed_back  True: the next patch, appended to the input, and again. False: everything that follows in one answer.
    """
    encoder, patches = model.encoder, patchify(x, model.encoder.patch).clone()
    k = model.tokens
    lengths = torch.full((len(x),), prefix, device=x.device)
    mask = prefix_causal(k, lengths)
    patches[:, prefix:] = 0
    for i in range(prefix, k if feed_back else prefix + 1):
        h = encoder.trunk(encoder.embed(patches) + encoder.position, mask)[:, i - 1]
        if feed_back:
            patches[:, i] = model.answer(h, torch.tensor(i, device=x.device))
        else:
            places = torch.arange(prefix, k, device=x.device)
            patches[:, prefix:] = model.answer(h[:, None], places)
    return patches
