"""Faces with every factor known, drawn by formula.

There is no large set of faces that one may ship, so the chapter draws its own: identity, expression, pose and landmarks
are known exactly, and "uncurated" is a knob.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from ...data import mixed_seed, textures
from ...data.synthetic import _crop

IDENTITIES = 1000


@dataclass(frozen=True)
class FaceDifficulty:
    """How the faces are shown. The default is the aligned, curated case; ``clutter()`` a photograph in the wild."""

    size: int = 16  # pixels a side
    shift: float = 0.02  # of the centre, uniform in ±shift of the side
    zoom: tuple[float, float] = (0.95, 1.05)  # uniform
    texture: float = 0.15  # contrast of the photo behind the face
    blobs: int = 0  # other things in the picture: ellipses of any colour
    light: tuple[float, float] = (0.7, 1.2)  # gain of every colour channel, uniform and drawn apart

    @classmethod
    def everyday(cls, size: int = 16) -> "FaceDifficulty":
        """Between the two: how faces are met where a task is to be solved."""
        return cls(size, shift=0.04, zoom=(0.9, 1.1), texture=0.3, blobs=1, light=(0.5, 1.4))

    @classmethod
    def clutter(cls, size: int = 16) -> "FaceDifficulty":
        return cls(size, shift=0.08, zoom=(0.8, 1.1), texture=0.5, blobs=2, light=(0.3, 1.6))


@dataclass
class Faces:
    """Images and what made them; index it like an array."""

    images: Tensor  # (n, 3, size, size) uint8
    identity: Tensor  # (n,) int64
    smile: Tensor  # (n,) in [-1, 1], a frown to a laugh
    yaw: Tensor  # (n,) in [-1, 1], turned left to right
    landmarks: Tensor  # (n, 10) x, y of two eyes, the nose (not drawn) and two mouth corners, in sides from the centre
    source: str = "drawn faces"

    def __len__(self) -> int:
        return len(self.identity)

    def __getitem__(self, index) -> "Faces":
        parts = (self.images, self.identity, self.smile, self.yaw, self.landmarks)
        return Faces(*(part[index] for part in parts), self.source)


def _people() -> dict[str, Tensor]:
    """What makes every identity: measures in image sides, and colours."""
    g = torch.Generator().manual_seed(1923)
    between = lambda low, high, *shape: low + (high - low) * torch.rand(IDENTITIES, *shape, generator=g)  # noqa: E731
    return dict(
        width=between(0.26, 0.38), height=between(0.36, 0.46), gap=between(0.09, 0.17), eye=between(0.03, 0.06),
        level=between(0.05, 0.13), mouth=between(0.09, 0.18), low=between(0.14, 0.24), brow=between(0.0, 0.08),
        hair=between(-0.05, 0.3), skin=between(0.3, 0.95, 1) * torch.tensor([1.0, 0.85, 0.7]) + between(-0.08, 0.08, 3),
        hair_colour=between(0.0, 0.8, 1) * torch.tensor([1.0, 0.8, 0.6]),
    )  # fmt: skip


def faces(
    n: int, seed: int = 0, identities: tuple[int, int] = (0, 400), difficulty: FaceDifficulty = FaceDifficulty(),
    identity: Tensor | None = None, smile: Tensor | None = None, yaw: Tensor | None = None, place: Tensor | None = None,
) -> Faces:  # fmt: skip
    """Draw n faces.

    n           number of images, >= 1
    seed        same seed, same faces
    identities  range that identities come from, within 0 … 1000: disjoint ranges are different people
    difficulty  alignment, background and clutter
    identity, smile, yaw  (n,) to fix instead of drawing
    place       (n,) whole numbers below n: faces of one place share position, zoom, light and what is around them, as
                the frames of a film do; only the pixels' noise is each one's own. None: each face has its own

    Raises ValueError for n < 1 and a range outside 0 … 1000.
    """
    low, high = identities
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    if not 0 <= low < high <= IDENTITIES:
        raise ValueError(f"identities must be a range within 0 … {IDENTITIES}, got {identities}")
    d, g = difficulty, torch.Generator().manual_seed(mixed_seed(seed, low, high))
    uniform = lambda a, b, *shape: a + (b - a) * torch.rand(n, *shape, generator=g)  # noqa: E731
    for name, given in (("identity", identity), ("smile", smile), ("yaw", yaw)):
        if given is not None and given.shape != (n,):
            raise ValueError(f"{name} must have one value for each of the {n} faces, got shape {tuple(given.shape)}")
    if identity is not None and not (0 <= int(identity.min()) and int(identity.max()) < IDENTITIES):
        raise ValueError(f"identity must be in 0 … {IDENTITIES - 1}, got {int(identity.min())} … {int(identity.max())}")
    if place is not None and (place.shape != (n,) or not 0 <= int(place.min()) <= int(place.max()) < n):
        raise ValueError(f"place must have {n} numbers in 0 … {n - 1}, got shape {tuple(place.shape)}")
    where = torch.arange(n) if place is None else place
    around = lambda a, b, *shape: uniform(a, b, *shape)[where]  # noqa: E731
    drawn = torch.randint(low, high, (n,), generator=g)
    identity = drawn if identity is None else identity
    smile_drawn, yaw_drawn = uniform(-1, 1), uniform(-1, 1)
    smile, yaw = (smile_drawn if smile is None else smile), (yaw_drawn if yaw is None else yaw)
    centre, zoom, light = around(-d.shift, d.shift, 2), around(*d.zoom), around(*d.light, 3)
    person = {name: value[identity] for name, value in _people().items()}

    at = (torch.arange(d.size) + 0.5) / d.size - 0.5
    y, x = torch.meshgrid(at, at, indexing="ij")
    x = (x - centre[:, :1, None]) / zoom[:, None, None]  # (n, size, size), from the face's centre
    y = (y - centre[:, 1:, None]) / zoom[:, None, None]
    soft = 1.0 / d.size  # width of an edge

    def disc(cx, cy, rx, ry):
        """Coverage of an ellipse, 0 … 1, with soft edges."""
        cx, cy, rx, ry = (v[:, None, None] for v in (cx, cy, rx, ry))
        radius = ((x - cx) / rx).square() + ((y - cy) / ry).square()
        return ((1 - radius.sqrt()) * torch.minimum(rx, ry) / soft + 0.5).clamp(0, 1)

    def paint(picture, coverage, colour):
        return torch.lerp(picture, colour[:, :, None, None].expand_as(picture), coverage[:, None])

    zero, turn = torch.zeros(n), 0.1 * yaw
    which, corner = torch.randint(9, (n,), generator=g)[where], torch.rand(n, 2, generator=g)[where]
    photo = _crop(textures(), which, corner, around(0.1, 0.4), d.size)
    picture = around(0, 1, 3)[:, :, None, None] + d.texture * 0.25 * photo[:, None]
    for _ in range(d.blobs):
        blob = disc(around(-0.5, 0.5), around(-0.5, 0.5), around(0.05, 0.2), around(0.05, 0.2))
        picture = paint(picture, blob, around(0, 1, 3))
    width = person["width"] * (1 - 0.15 * yaw.abs())
    picture = paint(picture, disc(zero, -0.06 + zero, width * 1.1, person["height"] * 1.08), person["hair_colour"])
    face = disc(zero, zero + 0.5 * person["hair"] * 0.2, width, person["height"])
    picture = paint(picture, face, person["skin"])
    eye_y, mouth_y = -person["level"], person["low"]
    side = person["gap"] * (1 - 0.2 * yaw.abs())
    for sign in (-1, 1):
        dark = torch.stack([0.1 + zero] * 3, 1)
        picture = paint(picture, disc(turn + sign * side, eye_y, person["eye"], person["eye"]), dark)
        brow = disc(turn + sign * side, eye_y - 0.05 - person["brow"], person["eye"] * 1.5, zero + 0.02)
        picture = paint(picture, brow, dark)
    across = (x - turn[:, None, None]) / person["mouth"][:, None, None]  # -1 … 1 along the mouth
    line = mouth_y[:, None, None] - 0.15 * smile[:, None, None] * (across.square() - 0.5)
    thick = 0.03 + 0.05 * smile.clamp_min(0)[:, None, None]
    mouth = ((1 - ((y - line) / thick).abs()) * thick / soft + 0.5).clamp(0, 1)
    mouth = mouth * ((1 - across.abs()) * person["mouth"][:, None, None] / soft + 0.5).clamp(0, 1)
    picture = paint(picture, mouth, torch.stack([0.6 + zero, 0.15 + zero, 0.15 + zero], 1))
    picture = (picture * light[:, :, None, None] + 0.02 * torch.randn(picture.shape, generator=g)).clamp(0, 1)

    corner = mouth_y - 0.075 * smile
    points = [(turn - side, eye_y), (turn + side, eye_y), (1.3 * turn, 0.04 + zero),
              (turn - person["mouth"], corner), (turn + person["mouth"], corner)]  # fmt: skip
    landmarks = torch.stack([torch.stack(p, 1) for p in points], 1) * zoom[:, None, None] + centre[:, None]
    return Faces((picture * 255).round().to(torch.uint8), identity, smile, yaw, landmarks.flatten(1))


def face_video(
    videos: int, frames: int, seed: int = 0, slow: float = 0.97, **options
) -> tuple[Faces, Int[Tensor, " n"]]:
    """Frames of people whose expression and pose change slowly, and which video each frame is from; video by video.

    All frames of a video have one place: its background, light and framing stay as they are.

    slow  correlation of expression and pose from one frame to the next, in [0, 1): high means redundant frames
    """
    if not 0 <= slow < 1:
        raise ValueError(f"slow must be in [0, 1), got {slow}")
    g = torch.Generator().manual_seed(mixed_seed(seed, videos, frames))
    low, high = options.get("identities", (0, 400))
    who = torch.randint(low, high, (videos,), generator=g).repeat_interleave(frames)
    state = torch.randn(2, videos, generator=g)
    moves = []
    for _ in range(frames):
        moves.append(torch.special.erf(state / 2**0.5))  # uniform in -1 … 1
        state = slow * state + (1 - slow**2) ** 0.5 * torch.randn(2, videos, generator=g)
    smile, yaw = torch.stack(moves, 2).flatten(1)
    video = torch.arange(videos).repeat_interleave(frames)
    return faces(videos * frames, seed, identity=who, smile=smile, yaw=yaw, place=video, **options), video
