"""JigClu (Chen et al., 2021): patches of four images in one montage; which belong together, and where was each?"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Generator, Tensor, nn

from ... import augment
from ...loss import check_matrix, check_positive, float32, unit_rows
from ...nets import mlp
from .turning import Images, check_square

Copies = Float[Tensor, "m c h w"]
Scalar = Float[Tensor, ""]


def quadrants(x: Images, cross: float = 0.3) -> Float[Tensor, "4*n c s s"]:
    """Four overlapping windows of every image, of (½ + cross) of its side: top left, top right, bottom left and right.

    JigClu (Chen et al., 2021), section 3.1. Row i + n·p is window p of image i.
    """
    if not 0 <= cross <= 0.5:
        raise ValueError(f"cross must be in [0, 0.5], got {cross}")
    check_square(x)
    side = x.shape[-1]
    s = round((0.5 + cross) * side)
    ends = slice(0, s), slice(side - s, side)
    return torch.cat([x[..., rows, columns] for rows in ends for columns in ends])


def patch_views(
    x: Shaped[Tensor, "n 3 h w"], generator: Generator, size: int = 16, cross: float = 0.3,
    scale: tuple[float, float] = (0.5, 1.0), views: Callable[..., Tensor] = augment.scene_views,
) -> Float[Tensor, "4*n 3 {size} {size}"]:  # fmt: skip
    """The four windows of every image, each with a crop and colours of its own.

    size   of a patch; a montage has twice that
    scale  share of the window's area that a crop keeps
    views  changes the patches, each by its own draw: ``(patches, generator, views=1)``
    """
    windows = quadrants(augment.to_float(x), cross)
    return views(augment.random_resized_crop(windows, size, scale, generator=generator), generator, views=1)


def montage(patches: Float[Tensor, "four_n c s s"]) -> Float[Tensor, "four_n//4 c 2*s 2*s"]:
    """Every four patches in a row become the cells of one image, row by row. Undone by ``cells``."""
    check_square(patches, "patches")
    m, c, s, _ = patches.shape
    if m % 4 or not m:
        raise ValueError(f"patches must come in fours, got shape {tuple(patches.shape)}")
    return patches.view(-1, 2, 2, c, s, s).permute(0, 3, 1, 4, 2, 5).reshape(-1, c, 2 * s, 2 * s)


def cells(maps: Float[Tensor, "n c h w"]) -> Float[Tensor, "4*n c"]:
    """The mean feature of each quarter of a map, in the order of the patches that ``montage`` laid there."""
    return F.adaptive_avg_pool2d(maps, 2).flatten(2).transpose(1, 2).flatten(0, 1)


@float32
def cluster_loss(z: Float[Tensor, "n d"], source: Int[Tensor, " n"], tau: float = 0.3) -> Scalar:
    """Every row towards the others of its source, away from the rest: supervised contrast without supervision.

    JigClu, eq. 1: the mean over rows i of -1/|P(i)| Σ_{j ∈ P(i)} log(exp(z_i·z_j/τ) / Σ_{k ≠ i} exp(z_i·z_k/τ)), P(i)
    being the other rows of i's source. Rows that have none count for nothing.

    z       embeddings, normalised here
    source  which image a row comes from: any whole numbers
    tau     τ > 0; 0.3 is the authors'

    Raises ValueError for fewer than two rows, a source of another length, tau out of range. A row of zeros keeps a
    bounded gradient, see ``loss.unit_rows``.
    Departure: no factor τ/0.07, which the authors' code has. Beside the location loss it weighs this one 4.29 : 1; an
    optimiser that forgives the scale of the whole, as AdamW does, feels the proportion. ``JigClu(clu=0.3 / 0.07)`` has
    theirs.
    """
    check_matrix("z", z, rows=2)
    check_positive(tau=tau)
    if source.shape != (len(z),):
        raise ValueError(f"source must have one entry a row of z, {len(z)}, got shape {tuple(source.shape)}")
    z = unit_rows(z)
    scores = z @ z.T / tau
    self_pair = torch.eye(len(z), dtype=torch.bool, device=z.device)
    log_p = scores - scores.masked_fill(self_pair, -torch.inf).logsumexp(1, keepdim=True)
    same = (source[:, None] == source) & ~self_pair
    count = same.sum(1)
    each = -log_p.masked_fill(~same, 0).sum(1) / count.clamp_min(1)
    return each.sum() / (count > 0).sum().clamp_min(1)


class JigClu(nn.Module):
    """Montages of patches from four images: which patches belong together, and where was each?

    views     patches as ``patch_views`` makes them: row i + n·p is quadrant p of image i
    dim, tau  width and temperature of the clustering branch
    clu, loc  weights of the clustering and the location branch; 1 and 1 in the paper, 0.3/0.07 = 4.29 and 1 in the
              authors' code
    mix       True shuffles all 4n patches by one permutation, as in the paper; False the four of each image among
              themselves, the jigsaw puzzle of old
    """

    def __init__(self, encoder: nn.Module, dim: int = 128, tau: float = 0.3, clu: float = 1.0, loc: float = 1.0,
                 mix: bool = True):  # fmt: skip
        super().__init__()
        self.encoder, self.tau, self.clu, self.loc, self.mix = encoder, tau, clu, loc, mix
        self.head = mlp([encoder.features, encoder.features, dim], norm=False)
        self.place = nn.Linear(encoder.features, 4)

    def parts(self, patches: Images, order: Int[Tensor, " four_n"]) -> Float[Tensor, "four_n d"]:
        """Features of the patches in the order in which they lie in the montages."""
        return cells(self.encoder.maps(montage(patches[order]))[-1])

    def forward(self, views: Copies, index: Int[Tensor, " n"]) -> Scalar:
        n = len(index)
        if self.mix:
            order = torch.randperm(4 * n, device=views.device)
        else:
            own = torch.rand(n, 4, device=views.device).argsort(1) * n
            order = (own + torch.arange(n, device=views.device)[:, None]).flatten()
        h = self.parts(views, order)
        loss = 0.0
        if self.clu:
            loss = loss + self.clu * cluster_loss(self.head(h), order % n, self.tau)
        if self.loc:
            loss = loss + self.loc * F.cross_entropy(self.place(h), order // n)
        return loss
