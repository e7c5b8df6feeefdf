"""CA-MAE: a masked autoencoder for any number of microscope channels, and the classifier that it is held against.

Kraus et al., "Masked Autoencoders for Microscopy are Scalable Learners of Cellular Biology" (2024). The cells and what
is found in their embeddings are in ``microscope.py``.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...loss import raised
from ...nets.vit import Attention, Transformer, ViT, fill, gather, patchify, random_split, sincos, unpatchify
from .mae import flags, fourier_loss, masked_mse

Images = Float[Tensor, "n c h w"]
Scalar = Float[Tensor, ""]


def self_standardise(x: Images, eps: float = 1e-5) -> Images:
    """Every channel of every image with mean 0 and variance 1: instance normalisation without parameters.

    Kraus et al. (2024): what a lamp or a dye does to a whole channel is gone before the network sees it. Computed in
    float32, returned in the images' precision; a flat channel becomes 0. Raises ValueError for what is no batch of
    float images.
    """
    if x.ndim != 4 or not x.is_floating_point():
        raise ValueError(f"x must be float images (n, c, h, w), got {x.dtype} {tuple(x.shape)}")
    with torch.autocast(x.device.type, enabled=False):
        return F.instance_norm(raised(x), eps=eps).to(x.dtype)


class ChannelViT(nn.Module):
    """A transformer for images of any number of channels, in any order.

    Kraus et al. (2024), CA-MAE: every channel is cut into patches by itself, one projection embeds them all, and a
    patch has the same position in every channel. There is no channel embedding, so the encoder cannot tell channels
    apart but by what they show.

    options  of ``Block``, e.g. ``layerscale``, ``qk_norm``
    """

    def __init__(
        self, size: Sequence[int], patch: Sequence[int], width: int = 48, depth: int = 3, heads: int = 4, **options
    ):
        super().__init__()
        self.single = ViT(size, patch, channels=1, width=width, depth=depth, heads=heads, **options)
        self.features, self.patch, self.grid = width, self.single.patch, self.single.grid

    def patches(self, x: Images) -> Float[Tensor, "n ck p"]:
        """Patches of all channels, channel by channel: token c·k + i is place i of channel c."""
        n, c = x.shape[:2]
        return patchify(x.reshape(n * c, 1, *x.shape[2:]), self.patch).reshape(n, c * len(self.single.position), -1)

    def forward(self, x: Images, index: Int[Tensor, "n v"] | None = None) -> Float[Tensor, "n m d"]:
        """Encoded tokens: all c·k, or those named by ``index`` (n, v)."""
        patches, position = self.patches(x), self.single.position.repeat(x.shape[1], 1)
        if index is not None:
            patches, position = gather(patches, index), position[index]
        return self.single.trunk(self.single.embed(patches) + position)


class ChannelMAE(nn.Module):
    """CA-MAE: one encoder for all channels, one small decoder for each.

    Kraus et al. (2024), and the authors' code: a quarter of *all* channels' patches is seen, drawn freely, so a place
    may be seen in one channel and hidden in another. In the decoder, the queries of a channel (visible tokens, a blank
    elsewhere, plus position and channel token) attend to the tokens of all channels, an MLP follows, then the
    channel's own transformer, which has no LayerNorm at its end. The cross-attention has no residual, and no biases but
    that of its output.

    channels  how many are decoded; the encoder takes any number
    fourier   weight of ``fourier_loss``; 0.01 in the paper

    Images come in self-standardised. Departures from the authors' code: no class token goes through encoder and
    decoder; tokens of blanks and channels start at random, not at 0.
    """

    def __init__(
        self, encoder: ChannelViT, channels: int, keep: float = 0.25, width: int = 32, depth: int = 1, heads: int = 4,
        fourier: float = 0.01,
    ):  # fmt: skip
        super().__init__()
        self.encoder, self.channels, self.fourier = encoder, channels, fourier
        self.place = len(encoder.single.position)
        self.tokens = channels * self.place
        self.keep = max(1, round(keep * self.tokens))
        self.into = nn.Linear(encoder.features, width)
        self.blank = nn.Parameter(0.02 * torch.randn(width))
        self.channel = nn.Parameter(0.02 * torch.randn(channels, 1, width))
        self.register_buffer("position", sincos(encoder.grid, width), persistent=False)
        self.query_norm, self.context_norm, self.mlp_norm = (nn.LayerNorm(width) for _ in range(3))
        self.cross = Attention(width, heads, qkv_bias=False)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.decoders = nn.ModuleList(Transformer(width, depth, heads) for _ in range(channels))
        self.out = nn.Linear(width, encoder.single.embed.in_features)

    def decode(self, seen: Float[Tensor, "n v d"], kept: Int[Tensor, "n v"]) -> Float[Tensor, "n ck p"]:
        y = fill(self.into(seen), kept, self.blank, self.tokens) + (self.channel + self.position).flatten(0, 1)
        y = self.cross(self.query_norm(y), context=self.context_norm(y))  # each query for itself: all channels at once
        y = y + self.mlp(self.mlp_norm(y))
        parts = zip(y.split(self.place, 1), self.decoders, strict=True)
        return self.out(torch.cat([decoder.layers(part)[-1] for part, decoder in parts], 1))  # before a last norm

    def forward(self, x: Images, index: Tensor | None = None) -> Scalar:
        if x.shape[1] != self.channels:
            raise ValueError(f"x must have the {self.channels} channels that are decoded, got {x.shape[1]}")
        kept, hidden = random_split(len(x), self.tokens, self.keep, device=x.device)
        predicted = self.decode(self.encoder(x, kept), kept)
        loss = masked_mse(predicted, self.encoder.patches(x), flags(hidden, self.tokens))
        if self.fourier:
            loss = loss + self.fourier * fourier_loss(self.paint(predicted).float(), x)
        return loss

    def paint(self, patches: Float[Tensor, "n ck p"]) -> Images:
        """Images (n, c, h, w) from the patches of all channels."""
        single = patches.reshape(-1, self.place, patches.shape[2])
        return unpatchify(single, self.encoder.patch, self.encoder.grid).reshape(
            len(patches), self.channels, *self._size
        )

    @property
    def _size(self) -> tuple[int, ...]:
        return tuple(g * p for g, p in zip(self.encoder.grid, self.encoder.patch, strict=True))


class PerturbationClassifier(nn.Module):
    """The weakly supervised baseline of a screen: which of its perturbations has this cell had?

    Caicedo et al. (2018): labels that come for free with every well. Afterwards the head is taken off.

    labels  the perturbation of every training image (n,), any integers

    ``forward(x, index)`` is the cross entropy of images ``index``.
    """

    def __init__(self, encoder: ViT, labels: Int[Tensor, " n"]):
        super().__init__()
        names, labels = labels.unique(return_inverse=True)
        self.encoder, self.head = encoder, nn.Linear(encoder.features, len(names))
        self.register_buffer("labels", labels, persistent=False)

    def forward(self, x: Images, index: Int[Tensor, " m"]) -> Scalar:
        return F.cross_entropy(self.head(self.encoder(x).mean(1)), self.labels[index])
