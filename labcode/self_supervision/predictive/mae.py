"""Masked autoencoders, the start of several methods of this chapter: the loss over what is hidden, and the network.

He et al., "Masked Autoencoders Are Scalable Vision Learners" (2022), with the Fourier term of Kraus et al. (2024).
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ...loss import float32
from ...nets.vit import Transformer, ViT, fill, normalise_patches, patchify, random_split, sincos, unpatchify

Images = Float[Tensor, "n c h w"]
Scalar = Float[Tensor, ""]


@float32
def masked_mse(
    predicted: Float[Tensor, "n k p"], target: Float[Tensor, "n k p"], hidden: Bool[Tensor, "n k"]
) -> Scalar:
    """Mean squared error over the hidden patches alone, every patch of the batch alike.

    MAE (He et al., 2022), section 3; with ``hidden`` the patches after a prefix it is the loss of AIM (El-Nouby et
    al., 2024), eq. 2. Nothing hidden gives 0.

    Raises ValueError for shapes that do not fit together.
    """
    _tokens("predicted", predicted)
    _tokens("target", target, like=predicted)
    if hidden.shape != predicted.shape[:2] or hidden.dtype != torch.bool:
        raise ValueError(
            f"hidden must be boolean {tuple(predicted.shape[:2])}, got {hidden.dtype} {tuple(hidden.shape)}"
        )
    error = (predicted - target).square().mean(2)
    return (error * hidden).sum() / hidden.sum().clamp_min(1)


@float32
def fourier_loss(predicted: Float[Tensor, "n c h w"], target: Float[Tensor, "n c h w"]) -> Scalar:
    """Mean absolute difference of the moduli of two images' Fourier transforms, channel by channel.

    Kraus et al. (2024): squared errors alone are content with a blur; the moduli are not, and they do not care
    where a structure lies. The transform is not normalised, as in the authors' code: take a weight of about 0.01.

    Raises ValueError for images of different shapes.
    """
    for name, x in (("predicted", predicted), ("target", target)):
        if x.ndim != 4 or not x.is_floating_point() or not x.numel():
            raise ValueError(f"{name} must be images (n, c, h, w) in floating point, got {x.dtype} {tuple(x.shape)}")
    if predicted.shape != target.shape:
        raise ValueError(
            f"target must have the shape of predicted, {tuple(predicted.shape)}, got {tuple(target.shape)}"
        )
    return (_modulus(predicted) - _modulus(target)).abs().mean()


def _modulus(x: Images) -> Images:
    """|FFT|, with a gradient of 0 instead of NaN where it is 0."""
    z = torch.view_as_real(torch.fft.fft2(x))
    return z.square().sum(-1).clamp_min(1e-20).sqrt()


def _tokens(name: str, x: Tensor, like: Tensor | None = None) -> None:
    if x.ndim != 3 or not x.is_floating_point() or not x.numel():
        raise ValueError(f"{name} must be patches (n, k, p) in floating point, got {x.dtype} {tuple(x.shape)}")
    if like is not None and x.shape != like.shape:
        raise ValueError(f"{name} must have the shape {tuple(like.shape)}, got {tuple(x.shape)}")


class MAE(nn.Module):
    """A masked autoencoder (He et al., 2022): the encoder sees a quarter of the patches, a decoder paints the rest.

    encoder    a ``ViT``; what is hidden never enters it
    keep       share of patches that it sees; 0.25 in the paper
    width, depth   of the decoder, which is thrown away
    normalise  predict each patch with mean 0 and variance 1
    fourier    weight of ``fourier_loss`` on the painted image, 0 for none

    ``forward(x, index)`` is the loss of images (n, c, h, w) brought to mean 0; ``index`` is not used.
    """

    def __init__(
        self, encoder: ViT, keep: float = 0.25, width: int = 32, depth: int = 1, heads: int = 4,
        normalise: bool = True, fourier: float = 0.0,
    ):  # fmt: skip
        super().__init__()
        self.encoder, self.normalise, self.fourier = encoder, normalise, fourier
        self.tokens = len(encoder.position)
        self.keep = max(1, round(keep * self.tokens))
        self.into = nn.Linear(encoder.features, width)
        self.blank = nn.Parameter(0.02 * torch.randn(width))
        self.register_buffer("position", sincos(encoder.grid, width), persistent=False)
        self.decoder = Transformer(width, depth, heads)
        self.out = nn.Linear(width, encoder.embed.in_features)

    def decode(self, seen: Float[Tensor, "n s d"], kept: Int[Tensor, "n v"]) -> Float[Tensor, "n k p"]:
        """All patches, from the encoded visible ones; a class token takes part and is dropped."""
        y = self.into(seen)
        extra = y[:, : -kept.shape[1]]
        y = fill(y[:, extra.shape[1] :], kept, self.blank, self.tokens) + self.position
        return self.out(self.decoder(torch.cat([extra, y], 1))[:, extra.shape[1] :])

    def forward(self, x: Images, index: Tensor | None = None) -> Scalar:
        kept, hidden = random_split(len(x), self.tokens, self.keep, device=x.device)
        predicted = self.decode(self.encoder(x, kept), kept)
        target = patchify(x, self.encoder.patch)
        target = normalise_patches(target) if self.normalise else target
        loss = masked_mse(predicted, target, flags(hidden, self.tokens))
        if self.fourier:
            painted, original = (unpatchify(t, self.encoder.patch, self.encoder.grid) for t in (predicted, target))
            loss = loss + self.fourier * fourier_loss(painted.float(), original.float())
        return loss


def flags(index: Int[Tensor, "n v"], k: int) -> Bool[Tensor, "n {k}"]:
    return torch.zeros(len(index), k, dtype=torch.bool, device=index.device).scatter_(1, index, True)
