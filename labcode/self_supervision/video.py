"""Predicting what is missing, in videos: hidden parts of a clip, other clips of a video, an object's next appearance.

V-JEPA (``panned_textures``, ``multiblock``, ``jepa_loss``, ``VJEPA``); several clips of one video as positives in four
frameworks (``rho_clips``, ``Rho``); scene against motion (``spatial_disturbance``, ``dsm_loss``, ``DSM``). What follows
objects through a video, clusters tied along tracks and tracking without labels, is in ``tracks`` and comes along by
name.

Clips are (n, t, c, h, w), uint8 or floats in [0, 1], as ``labcode.data.moving_scenes`` makes them. A *method* has a
``forward(views, index)`` that returns the loss, and ``labcode.stage.Stage.pretrain`` trains it.
"""

import copy
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Generator, Tensor, nn

from ..augment import affine_matrix, warp
from ..data.batches import mixed_seed
from ..data.synthetic import textures
from ..data.videos import Motion, Videos, cross_matrix, moving_scenes
from ..loss import check_matrix, check_positive, float32
from ..nets import mlp
from ..nets.vit import Transformer, ViT, gather, normalise_patches, patchify, sincos
from ..transport import sinkhorn_codes
from .contrastive import moco_loss
from .tracks import (  # noqa: F401
    ODC,
    UCSL,
    ambiguity_contrast,
    associate,
    crops,
    cross_contrast,
    direct_contrast,
    identity_switches,
    idf1,
    indirect_contrast,
    iou,
    match,
    mistracked,
    round_trip,
    shown_objects,
    three_frames,
    track_vote,
    tracked_patches,
    tracking_score,
    two_means,
    wander,
)

Clips = Float[Tensor, "n t c h w"]
Rows = Float[Tensor, "n d"]
Scalar = Float[Tensor, ""]

# ---------------------------------------------------------------------------------------------------------------------
# Clips, and two encoders for them
# ---------------------------------------------------------------------------------------------------------------------


def to_float(x: Shaped[Tensor, "n t c h w"]) -> Clips:
    """uint8 clips to float32 in [0, 1]; float clips as they are. Raises ValueError for any other input."""
    if x.ndim != 5:
        raise ValueError(f"x must be a batch of clips (n, t, c, h, w), got shape {tuple(x.shape)}")
    if x.dtype == torch.uint8:
        return x.float().div_(255)
    if not x.is_floating_point():
        raise ValueError(f"x must be uint8 in 0 … 255 or float in [0, 1], got {x.dtype}")
    return x


def cut(frames: Shaped[Tensor, "n t c h w"], start: Int[Tensor, " m"], length: int) -> Shaped[Tensor, "m l c h w"]:
    """``length`` frames of each video from its own ``start``. With m = j·n starts, row i is of video i mod n.

    Raises ValueError for a length that no video has. A start out of range is an index error on the device.
    """
    n, t = frames.shape[:2]
    if not 1 <= length <= t:
        raise ValueError(f"length must be between 1 and the {t} frames, got {length}")
    if len(start) % max(n, 1):
        raise ValueError(f"start must name clips of all {n} videos, got {len(start)} starts")
    which = torch.arange(len(start), device=frames.device) % n
    return frames[which[:, None], start[:, None] + torch.arange(length, device=frames.device)]


class ClipNet(nn.Module):
    """A small 3-D convolutional encoder: (n, t, c, h, w) in [0, 1] to (n, features).

    The clip's mean colour is taken off. Two convolutions of 2×4×4 with stride 2, each with BatchNorm and GELU, the
    maximum over places and frames, a linear layer.

    width     channels of the first convolution; the second has twice as many
    features  width of the output, ``net.features``

    Clips need a number of frames and sides that 4 divides.
    """

    def __init__(self, width: int = 32, features: int = 128, channels: int = 3):
        super().__init__()
        self.features = features
        shape = dict(kernel_size=(2, 4, 4), stride=2, padding=(0, 1, 1), bias=False)
        self.conv1, self.norm1 = nn.Conv3d(channels, width, **shape), nn.BatchNorm3d(width)
        self.conv2, self.norm2 = nn.Conv3d(width, 2 * width, **shape), nn.BatchNorm3d(2 * width)
        self.linear, self.norm3 = nn.Linear(2 * width, features, bias=False), nn.BatchNorm1d(features)

    def forward(self, x: Clips) -> Rows:
        n, t, c, h, w = x.shape
        if t % 4 or h % 4 or w % 4:
            raise ValueError(f"x must have frames and sides that 4 divides, got shape {tuple(x.shape)}")
        y = F.gelu(self.norm1(self.conv1((x - x.mean((1, 3, 4), keepdim=True)).transpose(1, 2))))
        y = F.gelu(self.norm2(self.conv2(y))).amax((2, 3, 4))
        return F.gelu(self.norm3(self.linear(y)))


class ClipViT(ViT):
    """A vision transformer on tubelets of clips (n, t, c, h, w) in [0, 1]; see ``labcode.nets.vit.ViT``."""

    @staticmethod
    def centred(x: Clips) -> Float[Tensor, "n c t h w"]:
        return (x.transpose(1, 2) - 0.5) * 4

    def tokens(self, x: Clips, index: Int[Tensor, "..."] | None = None) -> Float[Tensor, "n k d"]:
        return super().tokens(self.centred(x), index)


# ---------------------------------------------------------------------------------------------------------------------
# V-JEPA: features of what is hidden
# ---------------------------------------------------------------------------------------------------------------------

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

    visible  indices of the visible cells of each of n frames
    """
    place = torch.cartesian_prod(*2 * [torch.arange(float(side), device=visible.device)])
    near = torch.stack([torch.cdist(place, place[v]).amin(1) for v in visible])
    return float(near.sum() / (near > 0).sum())


@float32
def jepa_loss(predicted: Float[Tensor, "n m d"], target: Float[Tensor, "n m d"]) -> Scalar:
    """Mean absolute difference between predicted and target features of the hidden tokens.

    V-JEPA, eq. 1, with its details: the target goes through a LayerNorm over its features that has no parameters, and
    gets no gradient.

    predicted, target  features of the same m hidden tokens; the target is not yet normalised

    Raises ValueError for other shapes and for features of width 1, whose norm is 0.
    """
    if predicted.ndim != 3 or not predicted.numel() or not predicted.is_floating_point() or predicted.shape[2] < 2:
        raise ValueError(f"predicted must hold float features (n, m, d), d >= 2, got shape {tuple(predicted.shape)}")
    if target.shape != predicted.shape or not target.is_floating_point():
        raise ValueError(f"target must be like predicted, {tuple(predicted.shape)}, got {tuple(target.shape)}")
    return (predicted - F.layer_norm(target.detach(), target.shape[2:])).abs().mean()


class VJEPA(nn.Module):
    """An encoder of what is visible, a narrow predictor of the rest, and a slow encoder that says what the rest is.

    encoder    a ``ClipViT``; ``target``, its moving average, is the one to evaluate
    steps      length of the training, over which the momentum rises linearly from ``momentum`` to 1
    momentum   of the target encoder; .998 for the paper's 90,000 steps
    masks      for each, (blocks, scale) of ``multiblock`` or the number of visible cells of ``random_tubes``
    predict    "features"; or "pixels": each hidden tubelet's normalised pixels by the same predictor, with the mean
               squared error, as VideoMAE (Tong et al., 2022) does
    width, depth, heads  of the predictor

    ``trace`` keeps the standard deviation of the normalised targets over the batch, averaged over features, of every
    tenth step: 0 is a collapse.
    """

    def __init__(
        self, encoder: ClipViT, steps: int, momentum: float = 0.998, masks: Sequence = (SHORT, LONG),
        predict: str = "features", width: int = 32, depth: int = 2, heads: int = 4,
    ):  # fmt: skip
        super().__init__()
        if predict not in ("features", "pixels"):
            raise ValueError(f"predict must be 'features' or 'pixels', got {predict!r}")
        if not 0 <= momentum <= 1 or steps < 1:
            raise ValueError(f"momentum must be in [0, 1] and steps at least 1, got {momentum} and {steps}")
        self.encoder, self.predict, self.masks = encoder, predict, tuple(masks)
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
            with torch.no_grad():
                if self.training:
                    self.follow()
                whole = self.target(views)
                if self.training and self.seen % 10 == 0:
                    self.trace.append(F.layer_norm(whole, whole.shape[2:]).std(0).mean())
        else:
            whole = normalise_patches(patchify(ClipViT.centred(views), self.encoder.patch))
        total = views.new_zeros(())
        for i, mask in enumerate(self.masks):
            draw = multiblock if isinstance(mask, tuple) else random_tubes
            settings = mask if isinstance(mask, tuple) else (mask,)
            masks = draw(len(views), self.encoder.grid, *settings, generator=generator)  # on the host, as their sizes
            visible, hidden = (part.to(views.device, non_blocking=True) for part in masks)  # depend on what is drawn
            predicted, wanted = self.fill_in(views, visible, hidden, i), gather(whole, hidden)
            total = total + (F.mse_loss if self.predict == "pixels" else jepa_loss)(predicted, wanted)
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
            wanted = gather(self.target(views), hidden)
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
        """The encoder whose features are used: the moving average, or the only one where pixels are predicted."""
        return self.encoder if self.predict == "pixels" else self.target


# ---------------------------------------------------------------------------------------------------------------------
# ρ clips of one video, in four frameworks
# ---------------------------------------------------------------------------------------------------------------------


def rho_clips(
    frames: Shaped[Tensor, "n t c h w"], rho: int, length: int, span: int | None = None, *, generator: Generator
) -> Shaped[Tensor, "m l c h w"]:
    """ρ clips a video at random times; rows j·n + i are clip j of video i. ρ = 1 gives two copies of one clip.

    A Large-Scale Study on Unsupervised Spatiotemporal Representation Learning (Feichtenhofer et al., 2021), section 3.

    length  frames of a clip
    span    largest distance in frames between two starts; None is the whole video

    Raises ValueError for rho < 1, a negative span, and a length that the videos do not have.
    """
    n, t = frames.shape[:2]
    if rho < 1 or (span is not None and span < 0):
        raise ValueError(f"rho must be at least 1 and span at least 0, got {rho} and {span}")
    if not 1 <= length <= t:
        raise ValueError(f"length must be between 1 and the {t} frames, got {length}")
    last = t - length
    span = last if span is None else min(span, last)
    draw = torch.rand(1 + rho, n, generator=generator, device=frames.device)
    window = (draw[0] * (last - span + 1)).floor()  # where the video's clips may begin at the earliest
    start = (window + (draw[1:] * (span + 1)).floor()).long()
    return cut(frames, (start if rho > 1 else start.repeat(2, 1)).flatten(), length)


def recoloured(x: Shaped[Tensor, "n t c h w"], generator: Generator, shift: float = 0.1, turn: bool = True) -> Clips:
    """The scenes' views for clips, one draw a clip and the same in all its frames: colours, shift and scale, noise.

    shift  of the frame's side, ± uniform; the scale is 1 ± 0.1
    turn   turn the hue by a random angle about the grey axis, scale the contrast by 0.7 … 1.3, shift all by ±0.2

    The noise has a standard deviation of 0.02 and is each pixel's own.
    """
    x = to_float(x)
    n, t, c, h, w = x.shape
    u = 2 * torch.rand(n, 6, generator=generator, device=x.device) - 1
    matrix = affine_matrix(u[:, 0] * 0, shift * u[:, :2] * w, 1 + 0.1 * u[:, 2], u[:, 0] * 0, (h, w))
    x = warp(x.reshape(n, t * c, h, w), matrix, padding="reflection").view(n, t, c, h, w)
    if turn:
        grey, cross = x.new_full((3, 3), 1 / 3), cross_matrix(x.new_full((1, 3), 3**-0.5))[0]
        cos, sin = (f(math.pi * u[:, 3])[:, None, None] for f in (torch.cos, torch.sin))
        turned = cos * torch.eye(3, device=x.device) + sin * cross + (1 - cos) * grey
        rotation = (1 + 0.3 * u[:, 4, None, None]) * turned
        x = 0.5 + 0.2 * u[:, 5, None, None, None, None] + torch.einsum("ndc,ntchw->ntdhw", rotation, x - 0.5)
    return x + 0.02 * torch.randn(x.shape, generator=generator, device=x.device)


@float32
def rho_nt_xent(z: Float[Tensor, "two_n d"], rho: int = 2, tau: float = 0.1) -> Scalar:
    """NT-Xent with ρ clips of each video: every clip against each of its ρ - 1 positives, then the mean.

    Feichtenhofer et al., section 3.1, SimCLR. A term's denominator holds its own positive and the clips of other
    videos, never the clip itself nor its other positives. For ρ = 2 this is NT-Xent.

    z    unnormalised projections (ρ·n, d); rows j·n + i are clips of video i, n >= 2 videos
    tau  temperature > 0, 0.1 in the paper

    Raises ValueError for a number of rows that ρ does not divide, ρ < 2, or tau <= 0.
    """
    n = _videos("z", z, rho)
    check_positive(tau=tau)
    z = F.normalize(z, dim=1)
    scores = z @ z.T / tau
    video = torch.arange(len(z), device=z.device) % n
    others = scores.masked_fill(video[:, None] == video, -torch.inf).logsumexp(1)  # of other videos
    own = scores.view(rho, n, rho, n).diagonal(dim1=1, dim2=3)  # of the same video, the clip itself among them
    own = own.transpose(1, 2).reshape(len(z), rho)
    itself = torch.eye(rho, dtype=torch.bool, device=z.device).repeat_interleave(n, 0)
    terms = F.softplus(others[:, None] - own)
    return terms.masked_fill(itself, 0).sum() / (len(z) * (rho - 1))


@float32
def rho_moco(
    q: Float[Tensor, "two_n d"], k: Float[Tensor, "two_n d"], queue: Float[Tensor, "K d"], rho: int = 2,
    tau: float = 0.1,
) -> Scalar:  # fmt: skip
    """InfoNCE of every clip's query against the key of each other clip of its video, and a queue: ``moco_loss`` means.

    Feichtenhofer et al., section 3.1, MoCo. No gradient reaches k or the queue; no clip is its own key.
    """
    n = _videos("q", q, rho)
    check_matrix("k", k, like=q)
    terms = [moco_loss(q, k.roll(j * n, 0), queue, tau) for j in range(1, rho)]
    return torch.stack(terms).mean()


@float32
def rho_byol(p: Float[Tensor, "two_n d"], k: Float[Tensor, "two_n d"], rho: int = 2) -> Scalar:
    """Squared distance 2 - 2 cos between every clip's prediction and the target of each other clip of its video.

    Feichtenhofer et al., section 3.1, BYOL. No gradient reaches k.
    """
    n = _videos("p", p, rho)
    check_matrix("k", k, like=p)
    p, k = F.normalize(p, dim=1), F.normalize(k.detach(), dim=1)
    agree = torch.stack([(p * k.roll(j * n, 0)).sum(1).mean() for j in range(1, rho)])
    return 2 - 2 * agree.mean()


@float32
def rho_swav(
    scores: Float[Tensor, "two_n K"], rho: int = 2, tau: float = 0.1, eps: float = 0.05, iterations: int = 3
) -> Scalar:
    """Codes of the first two clips of each video, predicted by its other clips.

    Feichtenhofer et al., section 3.1, SwAV: the cross entropy -Σ code · log softmax(scores / τ), meaned over pairs of a
    code and another clip.

    scores  cosines of every clip with every prototype, (ρ·n, K)
    """
    n = _videos("scores", scores, rho)
    check_positive(tau=tau, eps=eps)
    log_p = (scores / tau).log_softmax(1).view(rho, n, -1)
    terms = []
    for code in range(2):
        q = sinkhorn_codes(scores[code * n : (code + 1) * n], eps, iterations)
        cross = -(q * log_p).sum(2).mean(1)  # (rho,)
        terms.append((cross.sum() - cross[code]) / (rho - 1))
    return torch.stack(terms).mean()


def _videos(name: str, z: Tensor, rho: int) -> int:
    """How many videos the rows are of, after a look at both."""
    if rho < 2:
        raise ValueError(f"rho must be at least 2, got {rho}")
    check_matrix(name, z, rows=2 * rho)
    if len(z) % rho:
        raise ValueError(f"{name} must have {rho} rows a video, got {len(z)} rows")
    return len(z) // rho


class Rho(nn.Module):
    """One encoder, one head, and the loss of ρ clips in the given framework.

    framework  "simclr", "moco", "byol" or "swav"
    rho        clips a video; 1 is two augmentations of one clip
    dim        width of the projection
    momentum   of the target network at the start, MoCo and BYOL; it rises to 1 by a cosine over ``steps``
    queue      keys remembered by MoCo, all ρ clips of a video enqueued
    prototypes of SwAV

    Departures: BYOL's and SwAV's heads have the same two layers as the others'; targets see the same augmented clips.
    """

    def __init__(
        self, encoder: nn.Module, framework: str, rho: int = 2, dim: int = 64, tau: float = 0.1, momentum: float = 0.97,
        steps: int = 100, queue: int = 512, prototypes: int = 16,
    ):  # fmt: skip
        super().__init__()
        if framework not in ("simclr", "moco", "byol", "swav"):
            raise ValueError(f"framework must be 'simclr', 'moco', 'byol' or 'swav', got {framework!r}")
        d = encoder.features
        self.encoder, self.head, self.framework, self.rho = encoder, mlp([d, d, dim]), framework, max(2, rho)
        self.tau, self.momentum, self.steps, self.seen = tau, momentum, steps, 0
        if framework in ("moco", "byol"):
            self.target = copy.deepcopy(nn.Sequential(self.encoder, self.head)).requires_grad_(False)
        if framework == "moco":
            self.register_buffer("queue", F.normalize(torch.randn(queue, dim), dim=1))
        if framework == "byol":
            self.predictor = mlp([dim, d, dim])
        if framework == "swav":
            self.prototypes = nn.Linear(dim, prototypes, bias=False)

    def forward(self, views: Clips, index: Int[Tensor, " videos"]) -> Scalar:
        z = self.head(self.encoder(views))
        if self.framework == "simclr":
            return rho_nt_xent(z, self.rho, self.tau)
        if self.framework == "swav":
            prototypes = F.normalize(self.prototypes.weight, dim=1)
            return rho_swav(F.normalize(z, dim=1) @ prototypes.T, self.rho, self.tau)
        with torch.no_grad():
            if self.training:
                self.follow()
            k = F.normalize(self.target(views), dim=1)
        if self.framework == "byol":
            return rho_byol(self.predictor(z), k, self.rho)
        loss = rho_moco(z, k, self.queue, self.rho, self.tau)
        if self.training:
            self.queue = torch.cat([k, self.queue])[: len(self.queue)]
        return loss

    @torch.no_grad()
    def follow(self) -> None:
        """θ' ← m θ' + (1 - m) θ, m rising to 1 by a cosine."""
        rest = (1 - self.momentum) * (1 + math.cos(math.pi * min(1.0, self.seen / self.steps))) / 2
        ours = [*self.encoder.parameters(), *self.head.parameters()]
        torch._foreach_lerp_(list(self.target.parameters()), ours, rest)
        self.seen += 1


# ---------------------------------------------------------------------------------------------------------------------
# Scene against motion
# ---------------------------------------------------------------------------------------------------------------------


def spatial_disturbance(
    x: Clips, strength: float = 0.15, bumps: int = 3, width: float = 0.3, *, generator: Generator
) -> Clips:
    """The scene broken, the motion kept: a few local bumps pull the picture out of place, alike in all frames.

    Enhancing Unsupervised Video Representation Learning by Decoupling the Scene and the Motion (Wang et al., 2021),
    spatial local disturbance. Each bump moves the pixels around its centre by a smooth hump of up to ``strength``.

    strength  furthest shift, in sides of the frame; the authors' 10 to 20 of 224 pixels are about 0.07
    width     radius of a bump, in sides of the frame

    Raises ValueError for no bump, or a width that is not positive.
    """
    if bumps < 1:
        raise ValueError(f"bumps must be at least 1, got {bumps}")
    check_positive(width=width)
    n, t, c, h, w = x.shape
    draw = torch.rand(4, n, bumps, 1, 1, generator=generator, device=x.device)
    y, z = ((torch.arange(s, device=x.device) + 0.5) / s * 2 - 1 for s in (h, w))
    y, z = y[:, None], z[None, :]  # rows and columns in -1 … 1
    away = ((y - (1.6 * draw[0] - 0.8)) ** 2 + (z - (1.6 * draw[1] - 0.8)) ** 2) / (2 * width) ** 2
    hump = (1 - away).clamp_min(0) ** 2  # (n, bumps, h, w)
    move = torch.stack([(hump * 2 * strength * (2 * d - 1)).sum(1) for d in (draw[3], draw[2])], -1)
    grid = torch.stack([z.expand(h, w), y.expand(h, w)], -1) + move
    out = F.grid_sample(x.reshape(n, t * c, h, w), grid, padding_mode="reflection", align_corners=False)
    return out.view(n, t, c, h, w)


def temporal_disturbance(x: Clips, *, generator: Generator) -> Clips:
    """The motion broken, the scene kept: the same frames, played backwards or in random order.

    The paper's temporal local disturbance warps frames along the scaled optical flow; its released loader takes another
    segment, or a shuffled one. Frames played backwards are the path rescaled by -1, with no flow to estimate.

    Raises ValueError for a single frame, which has no motion to break.
    """
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

    Raises ValueError for shapes that do not fit, or tau <= 0.
    """
    check_matrix("q", q, rows=1)
    check_matrix("k", k, like=q)
    check_matrix("queue", queue, rows=1)
    if queue.shape[1] != q.shape[1]:
        raise ValueError(f"queue must have keys of {q.shape[1]} values like q, got {queue.shape[1]}")
    check_positive(tau=tau)
    q, k, queue = F.normalize(q, dim=1), F.normalize(k.detach(), dim=1), F.normalize(queue.detach(), dim=1)
    logits = [(q * k).sum(1, keepdim=True), q @ queue.T]
    if own is not None:
        check_matrix("own", own, like=q)
        logits.append((q * F.normalize(own, dim=1)).sum(1, keepdim=True))
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
        self.register_buffer("queue", F.normalize(torch.randn(queue, dim), dim=1))

    def forward(self, views: Clips, index: Int[Tensor, " videos"]) -> Scalar:
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
            k = F.normalize(self.slow(second), dim=1)
        loss = dsm_loss(q, k, self.queue, own, self.tau)
        if self.training:
            self.queue = torch.cat([k, self.queue])[: len(self.queue)]
        return loss
