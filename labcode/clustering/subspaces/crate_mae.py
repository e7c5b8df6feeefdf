"""CRATE-MAE (Pai et al., 2024): a masked autoencoder whose layers are steps of compression and of sparsification."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ...data import shuffled
from ...loss import check_positive
from ...nets import Transformer, patchify, random_split, sincos
from ...train import fit
from .coding_rate import log_determinant

Tokens = Float[Tensor, "n k d"]


class MSSA(nn.Module):
    """Multi-head subspace self-attention: each head's projection U is query, key and value at once.

    CRATE (Yu et al., 2023), eq. 11: softmax(Zᵀ U Uᵀ Z / √d_h) Zᵀ U for each head, then a linear output layer. It moves
    tokens along the gradient of the coding rate of their projections: towards the subspaces that the U span.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        if width % heads:
            raise ValueError(f"heads must divide the width {width}, got {heads}")
        self.heads, self.u, self.out = heads, nn.Linear(width, width, bias=False), nn.Linear(width, width)

    def subspaces(self, z: Tokens) -> Float[Tensor, "n h k e"]:
        """The tokens in each head's subspace."""
        return self.u(z).unflatten(2, (self.heads, -1)).transpose(1, 2)

    def attention(self, z: Tokens) -> Float[Tensor, "n h k k"]:
        """Who attends to whom in each head; rows sum to 1."""
        w = self.subspaces(z)
        return (w @ w.mT / w.shape[-1] ** 0.5).softmax(-1)

    def forward(self, z: Tokens) -> Tokens:
        w = self.subspaces(z)
        w = F.scaled_dot_product_attention(w, w, w)
        return self.out(w.transpose(1, 2).flatten(2))


def ista(z: Tokens, dictionary: Float[Tensor, "d d"], step: float = 0.1, lam: float = 0.5) -> Tokens:
    """One proximal step of non-negative sparse coding: relu(z + s (Dᵀz - DᵀD z) - s λ), begun at the tokens themselves.

    CRATE, eq. 17: a step of min ½‖z₀ - D z‖² + λ‖z‖₁, z >= 0, at z = z₀. s is 0.1 in the paper, λ 0.5 in its code.
    """
    check_positive(step=step)
    left = z - z @ dictionary.T
    return F.relu(z + step * (left @ dictionary) - step * lam)


class EncoderLayer(nn.Module):
    """z' = z + MSSA(LN z), then ISTA(LN z'): compress, then sparsify. No skip around the second half."""

    def __init__(self, width: int, heads: int, step: float = 0.1, lam: float = 0.5):
        super().__init__()
        self.norm1, self.norm2, self.mssa = nn.LayerNorm(width), nn.LayerNorm(width), MSSA(width, heads)
        self.dictionary = nn.Parameter(nn.init.kaiming_uniform_(torch.empty(width, width)))
        self.step, self.lam = step, lam

    def forward(self, z: Tokens) -> Tokens:
        return ista(self.norm2(self.compress(z)), self.dictionary, self.step, self.lam)

    def compress(self, z: Tokens) -> Tokens:
        """The first half alone."""
        return z + self.mssa(self.norm1(z))


class DecoderLayer(nn.Module):
    """y = A · LN(x), then x' = y - MSSA(LN y): the encoder's halves in reverse order and with the other sign.

    Structured diffusion read backwards. Its weights are its own; there is no sparsification to undo but a linear map.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm1, self.norm2, self.mssa = nn.LayerNorm(width), nn.LayerNorm(width), MSSA(width, heads)
        self.linear = nn.Linear(width, width, bias=False)

    def forward(self, x: Tokens) -> Tokens:
        y = self.linear(self.norm1(x))
        return y - self.mssa(self.norm2(y))


class Crate(nn.Module):
    """A stack of CRATE layers and a last LayerNorm; the interface of ``nets.Transformer``."""

    def __init__(self, layer, width: int, depth: int, heads: int):
        super().__init__()
        self.blocks = nn.ModuleList(layer(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, z: Tokens) -> Tokens:
        return self.norm(self.layers(z)[-1])

    def layers(self, z: Tokens) -> list[Tokens]:
        """The input and what each layer makes of it: depth + 1 tensors."""
        outputs = [z]
        for block in self.blocks:
            outputs.append(block(outputs[-1]))
        return outputs


class MaskedAutoencoder(nn.Module):
    """A masked autoencoder that is CRATE or a vision transformer by ``kind``; all else is the same.

    As in the authors' code mask tokens enter *before* the encoder, which sees all places: four times MAE's cost.

    Departures: the last layer starts at 0, and pixels are greyscale.

    kind   "crate" or "vit"
    image  side in pixels, ``patch`` of a patch; greyscale
    mask   share of hidden tokens, 0.75 in the paper
    """

    def __init__(
        self, kind: str = "crate", image: int = 16, patch: int = 4, width: int = 48, depth: int = 2, heads: int = 4,
        mask: float = 0.75,
    ):  # fmt: skip
        super().__init__()
        if kind not in ("crate", "vit"):
            raise ValueError(f"kind must be 'crate' or 'vit', got {kind!r}")
        if not 0 < mask < 1:
            raise ValueError(f"mask must be a share in (0, 1), got {mask}")
        self.patch, self.grid, self.hidden = (patch, patch), (image // patch,) * 2, mask
        self.embed, self.blank = nn.Linear(patch**2, width), nn.Parameter(0.02 * torch.randn(width))
        self.cls = nn.Parameter(0.02 * torch.randn(width))
        # a period of some patches: with a longer one the places of a small grid look alike
        self.register_buffer("place", sincos(self.grid, width, temperature=10.0), persistent=False)
        crate = kind == "crate"
        self.encoder = Crate(EncoderLayer, width, depth, heads) if crate else Transformer(width, depth, heads)
        self.decoder = Crate(DecoderLayer, width, depth, heads) if crate else Transformer(width, depth, heads)
        self.predict = nn.Linear(width, patch**2)
        nn.init.zeros_(self.predict.weight)  # begins at the mean patch, not at noise
        nn.init.zeros_(self.predict.bias)

    def tokens(self, x: Float[Tensor, "n 1 h w"], hidden: Bool[Tensor, "n k"] | None = None) -> Tokens:
        """Embedded patches with their places, the class token first; hidden ones are the mask token."""
        z = self.embed(patchify(x, self.patch))
        z = z if hidden is None else torch.where(hidden[..., None], self.blank.to(z.dtype), z)
        return torch.cat([self.cls.expand(len(z), 1, -1), z + self.place], 1)

    def draw(self, n: int, generator: torch.Generator | None = None) -> Bool[Tensor, "n k"]:
        """Which tokens are hidden: the same number in each image."""
        k, device = len(self.place), self.place.device
        seen, _ = random_split(n, k, max(1, int(k * (1 - self.hidden))), generator=generator, device=device)
        return torch.ones(n, k, dtype=torch.bool, device=device).scatter(1, seen, False)

    def rebuild(self, x: Float[Tensor, "n 1 h w"], hidden: Bool[Tensor, "n k"]) -> Float[Tensor, "n k p"]:
        """Predicted pixels of every patch."""
        return self.predict(self.decoder(self.encoder(self.tokens(x, hidden)))[:, 1:])

    def forward(self, x: Float[Tensor, "n 1 h w"], hidden: Bool[Tensor, "n k"]) -> Float[Tensor, ""]:
        """Mean squared error of the hidden patches' pixels."""
        error = (self.rebuild(x, hidden) - patchify(x, self.patch)).square().mean(2)
        return (error * hidden).sum() / hidden.sum()

    @torch.no_grad()
    def features(self, x: Float[Tensor, "n 1 h w"]) -> Float[Tensor, "n d"]:
        """Mean of the encoded patches of unmasked images: what a linear probe reads."""
        return self.encoder(self.tokens(x))[:, 1:].mean(1)


def learn_autoencoder(
    x: Float[Tensor, "n 1 h w"], kind: str, seed: int, *, steps: int, batch_size: int, lr: float = 4e-3,
    precision: str = "no", **shape,
) -> MaskedAutoencoder:  # fmt: skip
    """A masked autoencoder of greyscale images in evaluation mode, trained with new masks at every step.

    steps  0 leaves it untrained
    shape  of ``MaskedAutoencoder``
    """
    torch.manual_seed(1000 + seed)
    model = MaskedAutoencoder(kind, **shape).to(x.device)
    generator = torch.Generator(x.device).manual_seed(seed)
    batches = shuffled(len(x), batch_size, seed, x.device)
    step = lambda i: {"loss": model(x[i], model.draw(len(i), generator))}  # noqa: E731
    if steps:
        fit(model, step, batches, steps=steps, lr=lr, precision=precision, generators=[generator])
    return model.eval()


@torch.no_grad()
def layer_statistics(
    model: MaskedAutoencoder, x: Float[Tensor, "n 1 h w"], eps2: float = 0.01
) -> dict[str, list[float]]:
    """What each encoder layer of a CRATE does: coding rate after its compression, share of non-zeros after its ISTA.

    "rate"     Rc: ½ log det(I + e / (k ε²) V Vᵀ) of a head's tokens, of length 1, summed over heads, mean of images
    "nonzero"  share of entries above 0

    eps2  0.01, the released code's ``eps``
    """
    z, found = model.tokens(x), {"rate": [], "nonzero": []}
    for block in model.encoder.blocks:
        compressed = block.compress(z)
        v = F.normalize(block.mssa.subspaces(block.norm1(compressed)), dim=-1)
        k, e = v.shape[-2:]
        rate = log_determinant(torch.eye(k, device=z.device) + e / (k * eps2) * v @ v.mT) / 2
        found["rate"].append(float(rate.sum(1).mean()))
        z = block(z)
        found["nonzero"].append(float((z > 0).float().mean()))
    return found
