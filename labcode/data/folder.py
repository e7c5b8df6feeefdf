"""A folder of images as one tensor: which files are meant, what their classes are called, and what was left out.

People's folders hold more than images in a subfolder a class: what editors, archives and file managers leave behind,
links, splits, odd metadata. What is meant is read, what is not is counted by its reason, and nothing is dropped without
a word.
"""

import os
import re
import stat
import struct
import sys
import unicodedata
import warnings
from collections import Counter
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

ENDINGS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm",
           ".pbm", ".pnm")  # fmt: skip
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "PPM")  # others, such as EPS, would start other programs
FEWEST = 16  # images
# What systems and programs put among a user's files. What begins with a dot is hidden as well.
HIDDEN = {"__macosx", "__pycache__", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "lost+found",
          "system volume information"}  # fmt: skip
_END = r"[ _-]?(?:set|data|split|images|imgs)?[ _-]?\d*"
SPLIT = re.compile(r"(?P<of>.+[ _-])?(?:(?P<train>train|training)|val|valid|validation|test|testing|dev|eval|"
                   rf"evaluation|hold[ _-]?out|held[ _-]?out|unlabell?ed|pred|prediction){_END}", re.I)  # fmt: skip


@dataclass(frozen=True)
class Folder:
    """What was read from a folder."""

    images: UInt8[Tensor, "n 3 s s"]
    files: tuple[Path, ...]
    labels: Int[Tensor, " n"] | None  # by the subfolder's name; None where some images lie outside of one
    classes: tuple[str, ...]
    skipped: tuple[Path, ...]  # files with an image's ending, and folders, that could not be read
    left_out: dict[str, int] = field(default_factory=dict)  # how many files and folders, by reason

    def report(self) -> str:
        """What was left out and why, in one line; empty if nothing was."""
        unread = {"unreadable": len(self.skipped)} if self.skipped else {}
        return ", ".join(f"{n} {reason}" for reason, n in (self.left_out | unread).items())


def read_folder(
    folder: str | Path, size: int = 32, skip_unreadable: bool = False, progress: bool | None = None
) -> Folder:
    """All images under a folder, as one uint8 tensor (n, 3, size, size) in memory.

    An image's shorter side is resized to ``size`` (bicubic, antialiased) and its centre cut out. Grey images get three
    equal channels, transparent ones a black ground, animated ones are seen at their start, and a photograph is turned
    as its camera held it. Of metadata nothing else counts: where it is damaged the picture is read without it.

    Linked folders are followed, each folder is read once, and what is hidden or of another kind is left out and
    counted. Where every image lies in a subfolder these are the classes: by the first name below folders that hold
    everything and below splits (train, val, test …).

    size             side in pixels, >= 8
    skip_unreadable  leave out what cannot be read instead of raising

    Raises FileNotFoundError for a folder that is not there, ValueError for a folder without images, for fewer than
    16 of them, for an image or folder that cannot be read (naming it), and for a size below 8 or beyond the memory.
    """
    from tqdm import tqdm

    root = Path(folder)
    if root.is_file():
        raise ValueError(f"images: {root} is a file, not a folder: unpack it first, or name the folder it lies in")
    if not root.is_dir():
        raise FileNotFoundError(f"images: there is no folder {root}")
    if size < 8:
        raise ValueError(f"size must be at least 8 pixels, got {size}")
    files, left_out, unread = _walk(root)
    if unread and not skip_unreadable:
        path, error = unread[0]
        raise ValueError(_unreadable(path, error.strerror))
    told = f" (left out: {', '.join(f'{n} {reason}' for reason, n in left_out.items())})" if left_out else ""
    if not files:
        raise ValueError(f"images: {root} holds no file that ends in {', '.join(ENDINGS)}, nor do its subfolders{told}")
    needed, there = 6 * size**2 * len(files), _memory()  # bytes: each image alone, then all in one tensor
    if needed > there:
        took = f"{len(files)} images of {size}×{size} pixels take {needed / 1e9:.0f} GB of memory to read"
        raise ValueError(f"size must be smaller, got {size}: {took}, this machine has {there / 1e9:.0f}")
    show = sys.stderr.isatty() if progress is None else progress
    read, kept, skipped = [], [], [path for path, _ in unread]
    for file in tqdm(files, desc="reading", unit="image", disable=not show, delay=1, leave=False):
        try:
            read.append(read_image(file, size))
            kept.append(file)
        except Exception as error:  # a decoder fails in many ways
            if not skip_unreadable:
                raise ValueError(_unreadable(file, str(error) or type(error).__name__)) from error
            skipped.append(file)
    if len(read) < FEWEST:
        raise ValueError(f"images: at least {FEWEST} are needed, {root} holds {len(read)} that can be read{told}")
    names = class_names([file.relative_to(root).parts[:-1] for file in kept])
    classes = sorted(set(names or ()))
    labels = torch.tensor([classes.index(name) for name in names]) if len(classes) > 1 else None
    return Folder(torch.stack(read), tuple(kept), labels, tuple(classes) if labels is not None else (), tuple(skipped),
                  left_out)  # fmt: skip


def _memory() -> float:
    """Bytes of this machine's memory, where the system tells: what is asked beyond it fills it until a process dies."""
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, OSError, ValueError):
        return float("inf")


def _unreadable(path: Path, reason: str) -> str:
    reason = " ".join(reason.split())
    return f"images: {path} cannot be read ({reason}): remove it, or pass --skip-unreadable to go on without"


def _walk(root: Path) -> tuple[list[Path], dict[str, int], list[tuple[Path, OSError]]]:
    """Files with an image's ending in order; what else there is, by reason; folders that could not be opened.

    What lies in the folder comes before what it links to, and no folder is read twice, nor one that holds the root: a
    class that is linked has its name, and a link in a circle ends.
    """
    found, left_out, endings, unread = [], Counter(), Counter(), []
    home = Path(os.path.realpath(root))
    read_once = {str(home), *map(str, home.parents)}
    folders, links = [root], []
    while folders or links:
        here = folders.pop() if folders else links.pop(0)
        real = os.path.realpath(here)
        if here is not root and real in read_once:
            left_out["linked twice or in a circle"] += 1
            continue
        read_once.add(real)
        try:
            with os.scandir(here) as listed:
                entries = sorted(listed, key=lambda entry: entry.name)
        except OSError as error:
            unread.append((here, error))
            continue
        if not entries:
            left_out["empty"] += 1
        for entry in entries:
            path = here / entry.name
            if entry.name.startswith(".") or entry.name.lower() in HIDDEN:
                left_out["hidden"] += 1
                continue
            try:
                mode = entry.stat().st_mode
            except OSError:
                left_out["linked to nothing"] += 1
                continue
            if stat.S_ISDIR(mode):
                (links if entry.is_symlink() else folders).append(path)
            elif not stat.S_ISREG(mode):
                left_out["neither file nor folder"] += 1
            elif path.suffix.lower() not in ENDINGS:
                endings[path.suffix.lower() or "no ending"] += 1
            else:
                found.append(path)
    if endings:
        most = ", ".join(f"{n} {ending}" for ending, n in endings.most_common(3))
        more = f", {len(endings) - 3} others" if len(endings) > 3 else ""
        left_out[f"of another kind ({most}{more})"] = endings.total()
    return sorted(found), dict(left_out), unread


def class_names(folders: list[tuple[str, ...]]) -> list[str] | None:
    """Each image's class from the names of the folders it lies in, or None where some lie in none.

    The first name counts, below folders that hold all images and below splits: a training folder with one for
    validation or testing beside it, of one name but for that (seg_train, seg_test). A class called "train" among cars
    and buses is a class.
    """
    while all(len(names) > 1 for names in folders) and len({names[0] for names in folders}) == 1:
        folders = [names[1:] for names in folders]
    named = [match for match in map(SPLIT.fullmatch, {names[0] for names in folders if names}) if match]
    training, held_out = ({match["of"] for match in named if bool(match["train"]) == kind} for kind in (True, False))
    if splits := {match[0] for match in named if match["of"] in training & held_out}:
        return class_names([names[1:] if names and names[0] in splits else names for names in folders])
    if not all(folders):
        return None
    return [unicodedata.normalize("NFC", names[0]) for names in folders]  # one archiver's é is another's e and accent


def read_image(file: str | Path, size: int) -> UInt8[Tensor, "3 s s"]:
    """One image: upright, in RGB on a black ground, its shorter side resized to ``size``, its centre cut out.

    Raises whatever the decoder raises, ValueError for more than 8 bits a channel.
    """
    from PIL import Image, ImageOps

    data = Path(file).read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about metadata, and about sizes that are still decoded
        try:
            picture, turn = _decode(data)
        except Exception:
            bare, exif = without_metadata(data)
            if bare is None:
                raise
            try:
                picture, _ = _decode(bare)
            except Exception:
                bare = None
            if bare is None:  # the picture itself is damaged: say what was wrong with it as it came
                raise
            turn = orientation(exif)
        if picture.mode[0] in "IF":  # 16 or 32 bits a pixel, which a conversion would clip without a word
            raise ValueError(f"mode {picture.mode}, more than 8 bits a channel: convert it first")
        if turn in range(2, 9):
            way = ("FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_270", "TRANSVERSE",
                   "ROTATE_90")[turn - 2]  # fmt: skip
            picture = picture.transpose(Image.Transpose[way])
        if any(band in "Aa" for band in picture.getbands()) or "transparency" in picture.info:
            seen = picture.convert("RGBA")
            picture = Image.alpha_composite(Image.new("RGBA", seen.size, (0, 0, 0, 255)), seen)
        picture = ImageOps.fit(picture.convert("RGB"), (size, size), Image.Resampling.BICUBIC)
    return torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).view(size, size, 3).permute(2, 0, 1)


def _decode(data: bytes):
    """The first picture in the data, decoded, and how it must be turned."""
    from PIL import Image

    picture = Image.open(BytesIO(data), formats=FORMATS)
    picture.load()
    if picture.format == "TIFF":
        return picture, 1  # is turned already
    exif = picture.info.get("exif")
    if exif is None:
        raw = str(picture.info.get("Raw profile type exif", "")).split("\n")[3:]
        try:
            exif = bytes.fromhex("".join(raw))
        except ValueError:
            exif = b""
    xmp = picture.info.get("XML:com.adobe.xmp") or picture.info.get("xmp") or ""
    return picture, orientation(exif, xmp)


def orientation(exif: bytes, xmp: str | bytes = "") -> int:
    """How a camera was held, 1 … 8, from an EXIF block's first directory or else from XMP; 1 where neither says so.

    Nothing else of the block is looked at, so nothing else can be wrong with it.
    """
    while exif.startswith(b"Exif\0\0"):
        exif = exif[6:]
    for _, kind, _, value, order in _directory(exif, 0x0112):
        if kind in (1, 3, 4):
            return struct.unpack(order + {1: "B", 3: "H", 4: "L"}[kind], value[: {1: 1, 3: 2, 4: 4}[kind]])[0]
    text = xmp if isinstance(xmp, str) else xmp.decode("latin-1")
    told = re.search(r"tiff:Orientation(?:\s*=\s*[\"']|>)\s*([1-8])", text)
    return int(told[1]) if told else 1


def _directory(data: bytes, only: int | None = None):
    """Entries (tag, kind, count, value or its place, byte order) of a TIFF's first directory, as far as it goes."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None or len(data) < 8:
        return
    (start,) = struct.unpack_from(order + "L", data, 4)
    if start + 2 > len(data):
        return
    (count,) = struct.unpack_from(order + "H", data, start)
    for i in range(count):
        entry = data[start + 2 + 12 * i :][:12]
        if len(entry) < 12:
            return
        tag, kind, n = struct.unpack(order + "HHL", entry[:8])
        if only is None or tag == only:
            yield tag, kind, n, entry[8:], order


def without_metadata(data: bytes) -> tuple[bytes | None, bytes]:
    """A JPEG, PNG or TIFF with what draws the picture alone, and its EXIF block; (None, b"") for other data."""
    if data.startswith(b"\xff\xd8"):
        return _bare_jpeg(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _bare_png(data)
    if data[:4] in (b"II*\0", b"MM\0*"):
        return _bare_tiff(data), data
    return None, b""


def _bare_jpeg(data: bytes) -> tuple[bytes, bytes]:
    """Without application segments and comments, but for JFIF and Adobe's, which say how colours are stored."""
    kept, exif, at = [data[:2]], b"", 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        if data[at + 1] == 0xFF:  # fill
            at += 1
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        segment, marker = data[at:end], data[at + 1]
        if marker == 0xE1 and segment[4:10] == b"Exif\0\0":
            exif = exif or segment[4:]
        colour = (marker == 0xE0 and segment[4:9] == b"JFIF\0" and len(segment) >= 18) or (
            marker == 0xEE and segment[4:9] == b"Adobe" and len(segment) >= 16
        )  # shorter ones say nothing
        if colour or not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            kept.append(segment)
        at = end
    return b"".join([*kept, data[at:]]), exif


def _bare_png(data: bytes) -> tuple[bytes, bytes]:
    """Critical chunks and transparency."""
    kept, exif, at = [data[:8]], b"", 8
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        kind = data[at + 4 : at + 8]
        if kind == b"eXIf":
            exif = data[at + 8 : end - 4]
        if kind[:1].isupper() or kind == b"tRNS":
            kept.append(data[at:end])
        at = end
    return b"".join(kept), exif


def _bare_tiff(data: bytes) -> bytes | None:
    """With a new first directory: size, samples, compression, colours, strips and tiles. Places stay what they are."""
    drawn = {256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324, 325, 332, 338,
             339, 347, 530, 532}  # fmt: skip
    found = {tag: (kind, n, value, order) for tag, kind, n, value, order in _directory(data) if tag in drawn}
    if not found:
        return None
    order = next(iter(found.values()))[3]
    entries = [struct.pack(order + "HHL", tag, *found[tag][:2]) + found[tag][2] for tag in sorted(found)]
    padded = data + b"\0" * (len(data) % 2)
    table = struct.pack(order + "H", len(entries)) + b"".join(entries) + bytes(4)
    return padded[:4] + struct.pack(order + "L", len(padded)) + padded[8:] + table
