"""V-JEPA: features of the hidden parts of a clip, predicted from the visible ones.

Bardes et al., "Revisiting Feature Prediction for Learning Visual Representations from Video" (2024), with the pixel
prediction of VideoMAE (Tong et al., 2022) beside it. ``panned_textures`` makes the clips.
"""

import copy
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor, nn

from ...data.batches import mixed_seed
from ...data.synthetic import textures
from ...data.videos import Videos
from ...loss import check_index, float32
from ...nets.vit import (
    Transformer,
    gather,
    normalise_patches,
    patchify,
    sincos,
)
from .clips import Clips, ClipViT

Scalar = Float[Tensor, ""]
STRIPS = {"train": (0.0, 0.75), "test": (0.75, 1.0), "fit": (0.0, 0.5), "validation": (0.5, 0.75)}  # of each photo


def panned_textures(
    n: int, seed: int, split: str, size: int = 12, frames: int = 4, speed: float = 1.0,
    zoom: tuple[float, float] = (0.75, 1.5), grain: float = 0.4, photo: int = 192,
) -> Videos:  # fmt: skip
    """A camera that pans over a photographed ground: bricks, grass or gravel, in one of four directions.

    What a clip shows and where it goes is the same everywhere in it; the single blade of grass can be told from
    nothing but its own pixels. Splits look at different strips of the photographs, ``STRIPS``.

    size    side of a frame in pixels
    speed   pixels a frame
    zoom    pixels of the photograph a pixel of the frame, uniform
    grain   standard deviation of the film's noise, each pixel's own, where that of the picture is 1
    photo   side in pixels at which the photographs are taken

    Returns grey clips (n, t, 1, size, size) of equal mean and contrast, with the texture as label, and as factors
    direction (n, 1), 0 to the right and a quarter turn down each, zoom (n,) and centre (n, 2), the middle of the path
    as (x, y) in pixels of the strip. Raises ValueError for an unknown split and for a window that leaves its strip.
    """
    if split not in STRIPS:
        raise ValueError(f"split must be one of {', '.join(STRIPS)}, got {split!r}")
    g = Generator().manual_seed(mixed_seed(seed, list(STRIPS).index(split), 0x9A7))
    left, right = (round(share * photo) for share in STRIPS[split])
    ground = textures(photo)[:3, :, left:right]
    texture, direction = torch.randint(3, (n,), generator=g), torch.randint(4, (n,), generator=g)
    scale = zoom[0] + (zoom[1] - zoom[0]) * torch.rand(n, generator=g)
    side = torch.tensor([ground.shape[2], ground.shape[1]])
    half = scale[:, None] * (size + speed * frames) / 2
    if (2 * half > side).any():
        raise ValueError(f"zoom must keep {size + speed * frames:g} pixels of the frame within {min(side)}, got {zoom}")
    centre = half + torch.rand(n, 2, generator=g) * (side - 2 * half)
    angle, time = direction * (math.pi / 2), torch.arange(frames) - (frames - 1) / 2
    move = speed * time[:, None] * torch.stack([angle.cos(), angle.sin()], 1)[:, None]  # (n, t, 2)
    at = torch.arange(size) - (size - 1) / 2
    square, clips = torch.stack(torch.meshgrid(at, at, indexing="xy"), -1), []
    for part in torch.arange(n).split(2048):  # what is drawn needs many times its memory
        where = scale[part, None, None, None, None] * (square + move[part][:, :, None, None])
        grid = 2 * (centre[part][:, None, None, None] + where) / side - 1  # (m, t, size, size, 2)
        seen = torch.empty(len(part), frames, size, size)
        for which in range(3):  # one pass a photograph keeps three of them, not m, in memory
            mine = texture[part] == which
            source = ground[which].expand(int(mine.sum()), 1, -1, -1)
            drawn = F.grid_sample(source, grid[mine].flatten(1, 2), padding_mode="border", align_corners=False)
            seen[mine] = drawn.view(-1, frames, size, size)
        spread, mean = torch.std_mean(seen, (1, 2, 3), keepdim=True)
        seen = (seen - mean) / spread.clamp_min(1e-3) + grain * torch.randn(seen.shape, generator=g)
        clips.append((seen * 0.2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8))
    clips = torch.cat(clips)[:, :, None]
    return Videos(clips, texture, dict(direction=direction[:, None], zoom=scale, centre=centre))


SHORT = (8, 0.15)  # blocks and share of a frame: the paper's short-range mask
LONG = (2, 0.7)  # and its long-range mask


def multiblock(
    n: int, grid: tuple[int, int, int], blocks: int, scale: float, aspect: tuple[float, float] = (0.75, 1.5),
    tries: int = 16, *, generator: Generator,
) -> tuple[Int[Tensor, "n v"], Int[Tensor, "n m"]]:  # fmt: skip
    """Which tokens of a clip are seen and which are to be predicted: a union of blocks that span all frames.

    V-JEPA (Bardes et al., 2024), section 3.2: ``blocks`` rectangles of ``scale`` of the frame and a random aspect
    ratio, the same in every frame, so nothing can be copied from the frame before. One block size for the batch, one
    place a block and clip. ``SHORT`` and ``LONG`` are the paper's two kinds.

    grid   tokens along time, height and width
    tries  a clip whose blocks leave nothing to see is drawn again, at most so often; then one cell is uncovered

    Returns indices (n, v) of visible and (n, m) of hidden tokens, in raster order. All clips get as many as the batch's
    poorest has. Departure: what is cut off to that end are whole cells of the frame, at random; the authors cut lists
    in raster order, which on a grid as small as ours would cut off the last frames.
    Raises ValueError for no block, and for a scale that is not in (0, 1).
    """
    t, h, w = grid
    if blocks < 1 or not 0 < scale < 1:
        raise ValueError(f"blocks must be at least 1 and scale in (0, 1), got {blocks} and {scale}")
    device = generator.device
    ratio = torch.empty((), device=device).uniform_(*(math.log(a) for a in aspect), generator=generator).exp()
    high = (scale * h * w * ratio).sqrt().round().clamp(1, h)
    wide = (scale * h * w / ratio).sqrt().round().clamp(1, w)
    place = torch.rand(2, n, tries, blocks, 1, generator=generator, device=device)
    top, left = (place[0] * (h - high + 1)).floor(), (place[1] * (w - wide + 1)).floor()
    row, column = torch.arange(h, device=device), torch.arange(w, device=device)
    rows = (row >= top) & (row < top + high)  # (n, tries, blocks, h)
    columns = (column >= left) & (column < left + wide)
    hidden = (rows[..., None] & columns[..., None, :]).any(2).flatten(2)  # (n, tries, h·w)
    seen = (~hidden).any(2)
    first = seen.int().argmax(1)
    hidden = hidden[torch.arange(n, device=device), first]
    luck = torch.rand(n, h * w, generator=generator, device=device)
    hidden = hidden & ~(hidden.all(1, keepdim=True) & (luck == luck.amax(1, keepdim=True)))
    return _tubes(hidden, luck, t)


def random_tubes(
    n: int, grid: tuple[int, int, int], visible: int, *, generator: Generator
) -> tuple[Int[Tensor, "n v"], Int[Tensor, "n m"]]:
    """VideoMAE's mask: ``visible`` cells of the frame at random, the same in all frames; as ``multiblock`` returns it.

    Raises ValueError unless at least one cell is visible and one is hidden.
    """
    t, h, w = grid
    if not 1 <= visible < h * w:
        raise ValueError(f"visible must be between 1 and {h * w - 1} cells, got {visible}")
    luck = torch.rand(n, h * w, generator=generator, device=generator.device)
    return _tubes(luck.argsort(1).argsort(1) >= visible, luck, t)


def _tubes(hidden: Bool[Tensor, "n cells"], luck: Float[Tensor, "n cells"], t: int) -> tuple[Tensor, Tensor]:
    """Indices of the visible and the hidden tokens over t frames; every clip has as many as the poorest."""
    cells, out = hidden.shape[1], []
    for chosen in (~hidden, hidden):
        few = chosen.sum(1).min()
        kept = (luck + chosen).argsort(1, descending=True)[:, :few].sort(1).values  # chosen cells first
        frames = torch.arange(t, device=hidden.device)[:, None] * cells
        out.append((kept[:, None] + frames).flatten(1))
    return out[0], out[1]


def hidden_distance(visible: Int[Tensor, "n v"], side: int) -> float:
    """How far a hidden cell of a side × side grid is from the nearest visible one: the mean, in cells.

    visible  indices of the visible cells of each of n frames, at least one; where nothing is hidden the mean is 0

    Raises ValueError for indices that are none of the grid, and for none at all.
    """
    check_index("visible", visible, side * side)
    if visible.ndim != 2 or not visible.numel():
        raise ValueError(f"visible must be (n, v) with v >= 1, got {tuple(visible.shape)}")
    place = torch.cartesian_prod(*2 * [torch.arange(float(side), device=visible.device)])
    near = torch.stack([torch.cdist(place, place[v]).amin(1) for v in visible])
    return float(near.sum() / (near > 0).sum().clamp_min(1))


@float32
def jepa_loss(predicted: Float[Tensor, "n m d"], target: Float[Tensor, "n m d"], stop: bool = True) -> Scalar:
    """Mean absolute difference between predicted and target features of the hidden tokens.

    V-JEPA, eq. 1, with its details: the target goes through a LayerNorm over its features that has no parameters, and
    gets no gradient.

    predicted, target  features of the same m hidden tokens; the target is not yet normalised
    stop               False lets the gradient through to the target: the way to a collapse

    Raises ValueError for other shapes and for features of width 1, whose norm is 0.
    """
    if predicted.ndim != 3 or not predicted.numel() or not predicted.is_floating_point() or predicted.shape[2] < 2:
        raise ValueError(f"predicted must hold float features (n, m, d), d >= 2, got shape {tuple(predicted.shape)}")
    if target.shape != predicted.shape or not target.is_floating_point():
        raise ValueError(f"target must be like predicted, {tuple(predicted.shape)}, got {tuple(target.shape)}")
    target = target.detach() if stop else target
    return (predicted - F.layer_norm(target, target.shape[2:])).abs().mean()


class VJEPA(nn.Module):
    """An encoder of what is visible, a narrow predictor of the rest, and a slow encoder that says what the rest is.

    encoder    a ``ClipViT``; ``target``, its moving average, is the one to evaluate
    steps      length of the training, over which the momentum rises linearly from ``momentum`` to 1
    momentum   of the target encoder; .998 for the paper's 90,000 steps
    masks      for each, (blocks, scale) of ``multiblock`` or the number of visible cells of ``random_tubes``
    predict    "features"; or "pixels": each hidden tubelet's normalised pixels by the same predictor, with the mean
               squared error, as VideoMAE (Tong et al., 2022) does
    stop       False takes the targets from the encoder itself, with their gradient: no stop-gradient, no slow copy
    width, depth, heads  of the predictor

    ``trace`` keeps the standard deviation of the normalised targets over the batch, averaged over features, of every
    tenth step: 0 is a collapse.
    """

    def __init__(
        self, encoder: ClipViT, steps: int, momentum: float = 0.998, masks: Sequence = (SHORT, LONG),
        predict: str = "features", stop: bool = True, width: int = 32, depth: int = 2, heads: int = 4,
    ):  # fmt: skip
        super().__init__()
        if predict not in ("features", "pixels"):
            raise ValueError(f"predict must be 'features' or 'pixels', got {predict!r}")
        if not 0 <= momentum <= 1 or steps < 1:
            raise ValueError(f"momentum must be in [0, 1] and steps at least 1, got {momentum} and {steps}")
        self.encoder, self.predict, self.masks, self.stop = encoder, predict, tuple(masks), stop
        self.steps, self.momentum, self.seen, self.trace = steps, momentum, 0, []
        self.target = copy.deepcopy(encoder).requires_grad_(False)
        d, pixels = encoder.features, encoder.embed.in_features
        self.enter, self.leave = nn.Linear(d, width), nn.Linear(width, pixels if predict == "pixels" else d)
        self.predictor = Transformer(width, depth, heads)
        self.blank = nn.Parameter(torch.zeros(len(self.masks), width))  # one mask token for each kind of mask
        self.register_buffer("position", sincos(encoder.grid, width), persistent=False)

    def forward(self, views: Clips, index: Int[Tensor, " videos"]) -> Scalar:
        generator = Generator().manual_seed(int(torch.randint(2**31, ())))  # from torch's own, which ``fit`` saves
        if self.predict == "features":
            if self.training and self.stop:
                self.follow()
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self.stop):
                whole = (self.target if self.stop else self.encoder)(views)
            if self.training and self.seen % 10 == 0:
                self.trace.append(F.layer_norm(whole.detach(), whole.shape[2:]).std(0).mean())
        else:
            whole = normalise_patches(patchify(ClipViT.centred(views), self.encoder.patch))
        total = views.new_zeros(())
        for i, mask in enumerate(self.masks):
            draw = multiblock if isinstance(mask, tuple) else random_tubes
            settings = mask if isinstance(mask, tuple) else (mask,)
            masks = draw(len(views), self.encoder.grid, *settings, generator=generator)  # on the host, as their sizes
            visible, hidden = (part.to(views.device, non_blocking=True) for part in masks)  # depend on what is drawn
            pair = self.fill_in(views, visible, hidden, i), gather(whole, hidden)  # what is said, and what is wanted
            total = total + (F.mse_loss(*pair) if self.predict == "pixels" else jepa_loss(*pair, self.stop))
        self.seen += self.training
        return total / len(self.masks)

    def fill_in(self, views: Clips, visible: Int[Tensor, "n v"], hidden: Int[Tensor, "n m"], kind: int = 0) -> Tensor:
        """What the predictor says about the hidden tokens (n, m, …): it sees the visible ones and all positions."""
        known = self.enter(self.encoder(views, visible))
        asked = self.blank[kind].expand(len(views), hidden.shape[1], -1)
        at = torch.cat([visible, hidden], 1)
        out = self.predictor(torch.cat([known, asked], 1) + self.position[at])
        return self.leave(out[:, visible.shape[1] :])

    @torch.no_grad()
    def told(self, views: Clips, generator: Generator) -> tuple[float, float]:
        """The loss on clips when the predictor sees the clip's own visible tokens, and when it sees another clip's.

        Their difference is what the context tells about the hidden features; both are means over the kinds of mask.
        """
        losses = []
        for i, mask in enumerate(self.masks):
            draw, settings = (multiblock, mask) if isinstance(mask, tuple) else (random_tubes, (mask,))
            visible, hidden = draw(len(views), self.encoder.grid, *settings, generator=generator)
            wanted = gather(self.evaluated(views), hidden)
            both = (self.fill_in(x, visible, hidden, i) for x in (views, views.roll(1, 0)))
            losses.append([float(jepa_loss(predicted, wanted)) for predicted in both])
        own, other = torch.tensor(losses).mean(0).tolist()
        return own, other

    @torch.no_grad()
    def follow(self) -> None:
        """The target takes its step towards the encoder: θ' ← m θ' + (1 - m) θ."""
        m = self.momentum + (1 - self.momentum) * min(1.0, self.seen / self.steps)
        torch._foreach_lerp_(list(self.target.parameters()), list(self.encoder.parameters()), 1 - m)

    @property
    def evaluated(self) -> ClipViT:
        """The encoder whose features are used: the moving average, or the only one where there is none."""
        return self.target if self.predict == "features" and self.stop else self.encoder
