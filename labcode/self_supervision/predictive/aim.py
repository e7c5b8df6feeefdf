"""AIM: an autoregressive image model predicts the next patch from those before it.

El-Nouby et al., "Scalable Pre-training of Large Autoregressive Image Models" (2024). ``grey_digits`` draws what the
quick scale predicts.
"""

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...data import Difficulty, scenes
from ...loss import float32
from ...nets.vit import ViT, normalise_patches, patchify, prefix_causal
from .mae import masked_mse

Images = Float[Tensor, "n c h w"]
Scalar = Float[Tensor, ""]


@float32
def autoregressive_loss(
    predicted: Float[Tensor, "n k p"],
    patches: Float[Tensor, "n k p"],
    prefix: Int[Tensor, " n"],
    normalise: bool = True,
) -> Scalar:
    """Squared error of the next patch, over the patches after each image's prefix.

    AIM (El-Nouby et al., 2024), eq. 2: mean over patches k > S of ‖x̂_k(x_<k) - x_k‖² / p, with x_k normalised.

    predicted  row i is the prediction of patch i + 1; the last row predicts nothing
    patches    in raster order, not normalised
    prefix     S, 1 … k - 1: patches that every token sees, and that are no targets
    normalise  targets with mean 0 and variance 1 each; False for raw pixels

    Raises ValueError for shapes that do not fit together and a single patch.
    """
    if predicted.ndim != 3 or predicted.shape[1] < 2 or not predicted.is_floating_point() or not predicted.numel():
        got = f"{predicted.dtype} {tuple(predicted.shape)}"
        raise ValueError(f"predicted must be patches (n, k >= 2, p) in floating point, got {got}")
    if patches.shape != predicted.shape or not patches.is_floating_point():
        raise ValueError(f"patches must be {tuple(predicted.shape)}, got {patches.dtype} {tuple(patches.shape)}")
    if prefix.shape != predicted.shape[:1]:
        raise ValueError(f"prefix must be one length an image ({len(predicted)},), got {tuple(prefix.shape)}")
    target = normalise_patches(patches) if normalise and patches.shape[2] > 1 else patches
    place = torch.arange(1, patches.shape[1], device=patches.device)
    return masked_mse(predicted[:, :-1], target[:, 1:], place >= prefix[:, None])


class PatchHead(nn.Module):
    """The MLP that turns each token into pixels by itself: residual pre-norm blocks, and positions added once more.

    AIM, section 3.2: it takes the pixel-fitting on itself, so that the trunk need not, and is thrown away.

    depth  number of blocks; 0 is a linear layer, the ablation
    """

    def __init__(self, width: int, out: int, depth: int = 2, hidden: int | None = None):
        super().__init__()
        hidden = hidden or 4 * width
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
            for _ in range(depth)
        )
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, out))

    def forward(self, x: Float[Tensor, "n k d"]) -> Float[Tensor, "n k p"]:
        for block in self.blocks:
            x = x + block(x)
        return self.out(x)


class AIM(nn.Module):
    """An autoregressive image model: a transformer that sees the patches so far predicts the next one.

    AIM (El-Nouby et al., 2024), section 3. A prefix of random length S ~ U{1, …, K - 1} attends to itself in both
    directions and is no target, so that the trunk meets bidirectional attention, with which it is used later.

    encoder    a ``ViT``, in the paper without biases
    depth      of the head
    causal     no prefix: every token sees its past alone (the ablation)
    normalise  targets normalised patch by patch; False for raw pixels

    ``forward(x, index)`` is the loss of images brought to mean 0.
    """

    def __init__(self, encoder: ViT, depth: int = 2, causal: bool = False, normalise: bool = True):
        super().__init__()
        self.encoder, self.causal, self.normalise = encoder, causal, normalise
        self.head = PatchHead(encoder.features, encoder.embed.in_features, depth)

    def predict(self, x: Images, prefix: Int[Tensor, " n"]) -> Float[Tensor, "n k p"]:
        """Row i predicts patch i + 1 from patches 0 … i and the prefix."""
        mask = prefix_causal(len(self.encoder.position), None if self.causal else prefix, device=x.device)
        return self.head(self.encoder(x, mask=mask) + self.encoder.position)

    def loss(self, x: Images, prefix: Int[Tensor, " n"]) -> Scalar:
        """With given prefixes: the same ones for every model make losses comparable."""
        return autoregressive_loss(self.predict(x, prefix), patchify(x, self.encoder.patch), prefix, self.normalise)

    def forward(self, x: Images, index: Tensor | None = None) -> Scalar:
        k = len(self.encoder.position)
        prefix = torch.ones(len(x), dtype=torch.long) if self.causal else torch.randint(1, k, (len(x),))
        return self.loss(x, prefix.to(x.device, non_blocking=True))

    @torch.no_grad()
    def validation_loss(self, x: Images) -> float:
        """The loss with fixed prefixes, 1 … K - 1 in turn over the images: one protocol for all models."""
        k = len(self.encoder.position)
        return float(self.loss(x, 1 + torch.arange(len(x), device=x.device) % (k - 1)))


@torch.no_grad()
def block_average(encoder: ViT, x: Images, last: int = 2) -> Float[Tensor, "n k d"]:
    """Frozen tokens for a probe: the mean of the last blocks' outputs, attention in both directions.

    AIM, section 3.3, averages the last six of 24 and more blocks: the last one alone serves the pixels.
    """
    return torch.stack(encoder.trunk.layers(encoder.tokens(x))[-last:]).mean(0)


def grey_digits(n: int, split: str, seed: int = 1, **difficulty) -> tuple[Images, Int[Tensor, " n"]]:
    """Scenes in one channel: digits that are brighter than their background, and their classes.

    difficulty  fields of ``lab.data.Difficulty``; no texture unless said otherwise

    The background is near 0 and the ink near 2.
    """
    made = scenes(
        n,
        seed=seed,
        split=split,
        difficulty=replace(Difficulty(), **(dict(texture=0.0) | difficulty)),
        ink=torch.full((3,), 1 / 3**0.5),
        background=torch.full((3,), 0.2),
    )
    return 4 * (made.images.float() / 255 - 0.2).mean(1, keepdim=True), made.labels
