"""Transformers on patches: images and clips become tokens, and a masked encoder sees some of them.

Everything works on grids of two or three axes: an image (n, c, h, w) with patches (p, p), a clip (n, c, t, h, w) with
tubelets (q, p, p). Tokens are in raster order, the last axis fastest. A mask is boolean and says what a token *sees*.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor, nn

from ..loss import raised

Tokens = Float[Tensor, "n k d"]
Index = Int[Tensor, "n v"]

# ---------------------------------------------------------------------------------------------------------------------
# Patches
# ---------------------------------------------------------------------------------------------------------------------


def patchify(x: Float[Tensor, "n c *space"], patch: Sequence[int]) -> Float[Tensor, "n k p"]:
    """An image or a clip as a sequence of flattened patches, in raster order.

    x      (n, c, h, w), (n, c, t, h, w) or any number of axes
    patch  side of a patch along each axis; each must divide its axis

    A token holds its patch with the channel fastest: (…, row, column, channel), so p = c · prod(patch).
    Raises ValueError for a patch that does not fit, naming the shape of x where it has another number of sides.
    """
    if x.ndim != 2 + len(patch):
        raise ValueError(f"x must be (n, channels, …) with {len(patch)} sides, got shape {tuple(x.shape)}")
    grid = _grid(x.shape[2:], patch)
    cut = [s for g, p in zip(grid, patch, strict=True) for s in (g, p)]
    x = x.reshape(*x.shape[:2], *cut)  # (n, c, g1, p1, g2, p2, …)
    axes = range(len(grid))
    x = x.permute(0, *(2 + 2 * i for i in axes), *(3 + 2 * i for i in axes), 1)
    return x.reshape(x.shape[0], math.prod(grid), -1)


def unpatchify(
    tokens: Float[Tensor, "n k p"], patch: Sequence[int], grid: Sequence[int]
) -> Float[Tensor, "n c *space"]:
    """The inverse of ``patchify``: the image or clip from all its patches.

    grid  how many patches along each axis; the number of channels follows from the width of a token

    Raises ValueError where patch, grid and tokens do not fit together.
    """
    n, k, width = tokens.shape
    if len(grid) != len(patch) or math.prod(grid) != k:
        raise ValueError(f"grid must hold {k} tokens, one number for each side of {tuple(patch)}, got {tuple(grid)}")
    if width % math.prod(patch):
        raise ValueError(f"patch {tuple(patch)} does not divide a token of {width} values")
    x = tokens.reshape(n, *grid, *patch, -1)
    axes = range(len(grid))
    x = x.permute(0, x.ndim - 1, *(a for i in axes for a in (1 + i, 1 + len(grid) + i)))
    return x.reshape(n, -1, *(g * p for g, p in zip(grid, patch, strict=True)))


def _grid(space: Sequence[int], patch: Sequence[int]) -> tuple[int, ...]:
    if len(patch) != len(space) or any(p < 1 or s % p for s, p in zip(space, patch, strict=True)):
        raise ValueError(f"patch must divide each of the sides {tuple(space)}, got {tuple(patch)}")
    return tuple(s // p for s, p in zip(space, patch, strict=True))


def normalise_patches(tokens: Float[Tensor, "*n p"], eps: float = 1e-6) -> Float[Tensor, "*n p"]:
    """Each patch with mean 0 and variance 1 over its own values: the target of masked and autoregressive prediction.

    MAE (He et al., 2022), section 4.1; the variance is the unbiased one, as in their results. A flat patch becomes 0.
    Computed in float32 and returned in the tokens' own precision.
    Raises ValueError for patches of a single value.
    """
    if tokens.shape[-1] < 2:
        raise ValueError(f"tokens must have at least 2 values a patch, got {tokens.shape[-1]}")
    wide = raised(tokens)
    variance, mean = torch.var_mean(wide, -1, keepdim=True)
    return ((wide - mean) * (variance + eps).rsqrt()).to(tokens.dtype)


def sincos(grid: Sequence[int], width: int, temperature: float = 10_000.0) -> Float[Tensor, "k {width}"]:
    """Fixed positions of the cells of a grid, in raster order: sines and cosines of each coordinate.

    Vaswani et al. (2017), section 3.5, for each axis by itself. An axis has m = width // (2 · axes) frequencies
    temperature^(-i/m), first the m sines, then the m cosines; columns left over are 0.

    Raises ValueError for a width that has no two columns for each axis.
    """
    m = width // (2 * len(grid))
    if not m:
        raise ValueError(f"width must be at least {2 * len(grid)} for {len(grid)} axes, got {width}")
    frequency = temperature ** (-torch.arange(m, dtype=torch.float64) / m)
    places = torch.cartesian_prod(*(torch.arange(g, dtype=torch.float64) for g in grid)).view(-1, len(grid))
    angles = places[:, :, None] * frequency  # (k, axes, m)
    table = torch.cat([angles.sin(), angles.cos()], 2).flatten(1)
    return F.pad(table, (0, width - table.shape[1])).float()


# ---------------------------------------------------------------------------------------------------------------------
# Which tokens are seen
# ---------------------------------------------------------------------------------------------------------------------


def random_split(
    n: int, k: int, keep: int, *, generator: Generator | None = None, device=None
) -> tuple[Int[Tensor, "n keep"], Int[Tensor, "n rest"]]:
    """For each of n images, ``keep`` of its k tokens at random and the others: two lists of indices, each in order.

    generator  draws on its device; without one, torch's own draws on ``device``

    Raises ValueError unless 1 <= keep <= k.
    """
    if not 1 <= keep <= k:
        raise ValueError(f"keep must be between 1 and the {k} tokens, got {keep}")
    device = device if generator is None else generator.device
    order = torch.rand(n, k, generator=generator, device=device).argsort(1)
    return order[:, :keep].sort(1).values, order[:, keep:].sort(1).values


def gather(tokens: Tokens, index: Index | Int[Tensor, " v"]) -> Float[Tensor, "n v d"]:
    """The tokens named by an index list: one list for each image (n, v), or one for all (v,)."""
    if index.ndim == 1:
        return tokens[:, index]
    return tokens.gather(1, index[:, :, None].expand(-1, -1, tokens.shape[2]))


def fill(
    visible: Float[Tensor, "n v d"], index: Index | Int[Tensor, " v"], blank: Float[Tensor, "..."], length: int
) -> Tokens:
    """The whole sequence again: visible tokens at their index, ``blank`` (d,) or (n, length, d) elsewhere.

    The inverse of ``gather``, and the input of a masked autoencoder's decoder.
    """
    whole = blank.to(visible.dtype).expand(visible.shape[0], length, visible.shape[2])
    index = index.expand(visible.shape[0], -1)[:, :, None].expand_as(visible)
    return whole.scatter(1, index, visible)


def prefix_causal(k: int, prefix: Int[Tensor, " n"] | None = None, device=None) -> Bool[Tensor, "..."]:
    """Who sees whom in raster order: a token sees itself, those before it, and all of its image's prefix.

    T5's prefix mask, as AIM (El-Nouby et al., 2024) uses it, section 3.2.

    prefix  length for each image, 0 … k; None is the plain causal mask (k, k)

    Returns (k, k), or (n, k, k) with row i column j for "i sees j".
    """
    place = torch.arange(k, device=device if prefix is None else prefix.device)
    causal = place[:, None] >= place
    return causal if prefix is None else causal | (place < prefix[:, None, None])


# ---------------------------------------------------------------------------------------------------------------------
# The trunk
# ---------------------------------------------------------------------------------------------------------------------


class Attention(nn.Module):
    """Multi-head self-attention, or cross-attention where ``context`` is given (Vaswani et al., 2017).

    bias      of the linear layers; ``qkv_bias`` says it of queries, keys and values where they differ from the output
    qk_norm   LayerNorm on every head's queries and keys, which bounds the logits
    """

    def __init__(
        self, width: int, heads: int, bias: bool = True, qk_norm: bool = False, qkv_bias: bool | None = None
    ):
        super().__init__()
        if width % heads:
            raise ValueError(f"heads must divide the width {width}, got {heads}")
        self.heads = heads
        inner = bias if qkv_bias is None else qkv_bias
        self.q, self.kv = nn.Linear(width, width, bias=inner), nn.Linear(width, 2 * width, bias=inner)
        self.out = nn.Linear(width, width, bias=bias)
        norms = (nn.LayerNorm(width // heads) if qk_norm else nn.Identity() for _ in range(2))
        self.norm_q, self.norm_k = norms

    def forward(
        self, x: Tokens, mask: Bool[Tensor, "..."] | None = None, context: Float[Tensor, "n m d"] | None = None
    ) -> Tokens:
        """mask (k, m) or (n, k, m) says what each token sees, at least one token in every row."""
        q = self._split(self.q(x))
        k, v = (self._split(part) for part in self.kv(x if context is None else context).chunk(2, -1))
        mask = mask[:, None] if mask is not None and mask.ndim == 3 else mask
        y = F.scaled_dot_product_attention(self.norm_q(q), self.norm_k(k), v, attn_mask=mask)
        return self.out(y.transpose(1, 2).flatten(2))

    def _split(self, x: Tokens) -> Float[Tensor, "n heads k e"]:
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)


class Block(nn.Module):
    """A pre-norm transformer block: x + attention(norm(x)), then x + MLP(norm(x)).

    ratio       hidden width of the MLP over the width
    bias        of the linear layers
    layerscale  LayerScale's (Touvron et al., 2021) starting value for both branches, or None for none
    """

    def __init__(
        self, width: int, heads: int, ratio: float = 4.0, bias: bool = True, layerscale: float | None = None,
        qk_norm: bool = False,
    ):  # fmt: skip
        super().__init__()
        hidden = int(width * ratio)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads, bias, qk_norm)
        self.mlp = nn.Sequential(nn.Linear(width, hidden, bias=bias), nn.GELU(), nn.Linear(hidden, width, bias=bias))
        scale = None if layerscale is None else torch.full((width,), layerscale)
        self.scale1, self.scale2 = (None if scale is None else nn.Parameter(scale.clone()) for _ in range(2))

    def forward(self, x: Tokens, mask: Bool[Tensor, "..."] | None = None) -> Tokens:
        y = self.attention(self.norm1(x), mask)
        x = x + (y if self.scale1 is None else y * self.scale1)
        y = self.mlp(self.norm2(x))
        return x + (y if self.scale2 is None else y * self.scale2)


class Transformer(nn.Module):
    """Blocks and a last LayerNorm, on tokens (n, k, width).

    options  of ``Block``

    Linear layers start Xavier-uniform with biases 0, as in MAE.
    """

    def __init__(self, width: int, depth: int, heads: int = 4, **options):
        super().__init__()
        self.width = width
        self.blocks = nn.ModuleList(Block(width, heads, **options) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.apply(_start)

    def forward(self, x: Tokens, mask: Bool[Tensor, "..."] | None = None) -> Tokens:
        return self.norm(self.layers(x, mask)[-1])

    def layers(self, x: Tokens, mask: Bool[Tensor, "..."] | None = None) -> list[Tokens]:
        """The input and what each block makes of it, before the last norm: depth + 1 tensors."""
        outputs = [x]
        for block in self.blocks:
            outputs.append(block(outputs[-1], mask))
        return outputs


def _start(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class ViT(nn.Module):
    """A vision transformer for images or clips that can encode a part of the tokens alone.

    size      sides of the input, (h, w) or (t, h, w)
    patch     sides of a patch or tubelet
    cls       whether a learned token goes first; its place is not counted by ``index``
    options   of ``Block``

    ``features`` is the width, ``grid`` the number of patches along each axis, ``position`` the fixed table (k, width).
    The input is taken as it is: bring it to mean 0 beforehand.
    """

    def __init__(
        self, size: Sequence[int], patch: Sequence[int], channels: int = 3, width: int = 48, depth: int = 3,
        heads: int = 4, cls: bool = False, **options,
    ):  # fmt: skip
        super().__init__()
        self.patch, self.grid, self.features = tuple(patch), _grid(size, patch), width
        self.embed = nn.Linear(channels * math.prod(patch), width)
        self.register_buffer("position", sincos(self.grid, width), persistent=False)
        self.cls = nn.Parameter(0.02 * torch.randn(width)) if cls else None
        self.trunk = Transformer(width, depth, heads, **options)
        _start(self.embed)

    def tokens(self, x: Float[Tensor, "n c *space"], index: Index | Int[Tensor, " v"] | None = None) -> Tokens:
        """Embedded patches with their positions, all of them or those named by ``index``; the class token first."""
        patches, position = patchify(x, self.patch), self.position
        if index is not None:  # what is hidden is never embedded
            patches, position = gather(patches, index), position[index]
        y = self.embed(patches) + position
        return y if self.cls is None else torch.cat([self.cls.expand(y.shape[0], 1, -1), y], 1)

    def forward(
        self, x: Float[Tensor, "n c *space"], index: Index | Int[Tensor, " v"] | None = None,
        mask: Bool[Tensor, "..."] | None = None,
    ) -> Tokens:  # fmt: skip
        """Encoded tokens (n, k, width), with the class token k + 1; ``index`` and ``mask`` say what is seen."""
        return self.trunk(self.tokens(x, index), mask)
