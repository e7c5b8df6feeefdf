"""Folders as people have them: what is read, what is left out and said, and that metadata never costs a picture."""

import io
import os
import random
import struct
import unicodedata
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from labcode.data import folder as F
from labcode.data.folder import class_names, read_folder, read_image


def fill(root, *folders, n=8, ending="png"):
    """n pictures of one colour each in every folder; returns the root."""
    for k, name in enumerate(folders):
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(n):
            Image.new("RGB", (9, 9), (40 * k, 20 * i, 90)).save(root / name / f"{i}.{ending}")
    return root


def encoded(picture, kind, **options):
    made = io.BytesIO()
    picture.save(made, kind, **options)
    return made.getvalue()


def seen(tmp_path, data, size=8):
    (tmp_path / "one").write_bytes(data)
    return read_image(tmp_path / "one", size)


# What is meant by a folder


def test_folders_are_classes_and_files_are_in_order(tmp_path):
    fill(tmp_path, "b/deeper", "a", n=9)
    (tmp_path / "notes.txt").write_text("no image")
    found = read_folder(tmp_path, size=16)
    assert found.images.shape == (18, 3, 16, 16) and found.images.dtype == torch.uint8
    assert found.classes == ("a", "b") and found.labels.tolist() == [0] * 9 + [1] * 9 and not found.skipped
    assert [f.parent.name for f in found.files] == ["a"] * 9 + ["deeper"] * 9


def test_what_a_folder_must_hold(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        read_folder(tmp_path / "nowhere")
    (tmp_path / "photos.heic").touch()
    with pytest.raises(ValueError, match=r"holds no file that ends in .*\(left out: 1 of another kind \(1 .heic\)\)"):
        read_folder(tmp_path)
    with pytest.raises(ValueError, match="photos.heic is a file, not a folder: unpack it first"):
        read_folder(tmp_path / "photos.heic")
    fill(tmp_path, ".", n=3)
    with pytest.raises(ValueError, match="at least 16 are needed, .* holds 3"):
        read_folder(tmp_path)
    with pytest.raises(ValueError, match="size must be at least 8 pixels, got 4"):
        read_folder(tmp_path, size=4)
    with pytest.raises(ValueError, match=r"size must be smaller, got 10000000: 3 .* take 1800000 GB .* has \d"):
        read_folder(tmp_path, size=10**7)  # before the first one is read


def test_what_editors_archives_and_systems_leave_is_no_class(tmp_path):
    fill(tmp_path, "cat", "dog", ".ipynb_checkpoints", "__MACOSX/cat", "cat/@eaDir", "dog/.thumbnails/large")
    for name in (".DS_Store", "cat/._0.png", "cat/Thumbs.db", "dog/desktop.ini"):
        (tmp_path / name).write_bytes(b"\0\5\x16\7")
    found = read_folder(tmp_path)
    assert found.classes == ("cat", "dog") and len(found.images) == 16 and found.report() == "8 hidden"


def test_a_hidden_folder_is_read_where_it_is_the_one_asked_for(tmp_path):
    assert read_folder(fill(tmp_path / ".cache", "a", "b")).classes == ("a", "b")


def test_links_are_followed_once_and_never_in_a_circle(tmp_path):
    fill(tmp_path / "store", "cat", "dog")
    root = fill(tmp_path / "photos", "eel")
    for name in ("cat", "dog"):
        os.symlink(tmp_path / "store" / name, root / name)
    os.symlink(tmp_path / "store" / "cat", root / "zat")  # once more
    os.symlink(root, root / "eel" / "home")
    os.symlink("/", root / "eel" / "everything")
    os.symlink("b", root / "a"), os.symlink("a", root / "b")
    os.symlink(root / "gone.png", root / "eel" / "gone.png")
    os.symlink(root / "eel" / "0.png", root / "eel" / "again.png")  # a link to a file is a file
    found = read_folder(root)
    assert found.classes == ("cat", "dog", "eel") and torch.bincount(found.labels).tolist() == [8, 8, 9]
    assert found.left_out == {"linked to nothing": 3, "linked twice or in a circle": 3}


def test_folders_that_all_link_to_all_are_read_once(tmp_path):
    """Following every way would take 20! ways."""
    names = [f"class {i:02}" for i in range(20)]
    fill(tmp_path, *names, n=1)
    for a in names:
        for b in names:
            os.symlink(tmp_path / b, tmp_path / a / f"to {b}")
    found = read_folder(tmp_path)
    assert len(found.images) == 20 and found.classes == tuple(names)


@pytest.mark.parametrize("folders,classes", [
    ("train/cat train/dog val/cat val/dog", "cat dog cat dog"),
    ("Training/cat TESTING/dog validation/eel valid/cat", "cat dog eel cat"),
    ("train2017/cat val2017/dog", "cat dog"),
    ("training_set/cat test_set/dog", "cat dog"),
    ("data/train/cat data/test/dog", "cat dog"),
    ("data/v1/cat data/v1/dog", "cat dog"),
    ("train/images/cat train/images/dog val/images/cat", "cat dog cat"),
    ("cat/train cat/test dog/train", "cat cat dog"),
    ("train/cat/close train/dog test/cat", "cat dog cat"),
    ("train/a/test/x train/b test/a", "a b a"),
    ("train car bus", "train car bus"),  # a class
    ("train/red car/blue", "train car"),
    ("test1 test2", "test1 test2"),
    ("train test", None),  # a split without classes
    ("train/cat train/dog test", None),
    ("train/cat val/dog extra", "cat dog extra"),
    ("train/cat holdout/dog", "cat dog"),
    ("train/cat test/dog unlabeled", None),  # STL-10
    ("train/cat unlabelled/x", "cat x"),
    ("seg_train/seg_train/cat seg_test/seg_test/dog", "cat dog"),  # Intel's scenes
    ("birds-train/owl birds-test/owl", "owl owl"),
    ("steam_train/a crash_test/b", "steam_train crash_test"),
    ("train/a val/a old_test/b", "a a old_test"),
    ("cat  dog", None),  # some lie outside
    (" ", None),
    ("cat cat", "cat cat"),
])  # fmt: skip
def test_splits_and_folders_around_everything_are_no_classes(folders, classes):
    found = class_names([Path(name).parts for name in folders.split(" ")])
    assert found == (None if classes is None else classes.split())


def test_splits_are_read_whole(tmp_path):
    found = read_folder(fill(tmp_path, "train/cat", "train/dog", "val/cat", "val/dog"))
    assert found.classes == ("cat", "dog") and found.labels.tolist() == ([0] * 8 + [1] * 8) * 2


def test_names_of_every_kind(tmp_path):
    accents = [unicodedata.normalize(form, "café au lait") for form in ("NFC", "NFD")]
    fill(tmp_path, f"train/{accents[0]}", f"test/{accents[1]}", "train/日本 猫", "train/🐈", n=5)
    raw = os.fsencode(tmp_path / "train") + b"/\xff\xfe"
    try:
        os.mkdir(raw)
        Image.new("RGB", (9, 9)).save(os.fsdecode(raw + b"/\xff.PNG"), "PNG")
    except OSError:  # a file system that wants Unicode
        fill(tmp_path, "train/x", n=1)
    found = read_folder(tmp_path)
    assert len(found.images) == 21 and len(found.classes) == 4 and accents[0] in found.classes
    assert torch.bincount(found.labels)[found.classes.index(accents[0])] == 10  # one class, whoever packed it


def test_endings_in_capitals_deep_folders_and_folders_named_as_images(tmp_path):
    fill(tmp_path, "/".join("d" * 60), ending="JPG")
    fill(tmp_path, "x.png", ending="Png")
    (tmp_path / "empty class").mkdir()
    for name in ("a.txt", "b.txt", "c.HEIC", "README", "labels.csv"):
        (tmp_path / name).touch()
    found = read_folder(tmp_path)
    assert len(found.images) == 16 and found.classes == ("d", "x.png")
    assert found.report() == "1 empty, 5 of another kind (2 .txt, 1 no ending, 1 .heic, 1 others)"


def test_what_is_no_file_is_not_opened(tmp_path):
    os.mkfifo(fill(tmp_path, "a", "b") / "a" / "pipe.png")  # a program that opens it waits for ever
    assert read_folder(tmp_path).left_out == {"neither file nor folder": 1}


def test_a_folder_that_may_not_be_opened_is_named_or_left_out(tmp_path, monkeypatch):
    fill(tmp_path, "a", "b", "closed")
    scan = os.scandir

    def refuse(path):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(F.os, "scandir", refuse)
    with pytest.raises(ValueError, match=r"closed cannot be read \(Permission denied\): remove it, or pass --skip"):
        read_folder(tmp_path)
    found = read_folder(tmp_path, skip_unreadable=True)
    assert found.classes == ("a", "b") and found.report() == "1 unreadable"


# What is in a file


def test_pixels_are_those_of_the_file(tmp_path):
    """A wide picture: the middle third is kept, resized; grey becomes three equal channels."""
    stripe = np.zeros((12, 36, 3), np.uint8)
    stripe[:, 12:24] = 200
    assert (seen(tmp_path, encoded(Image.fromarray(stripe), "PNG"), 12) == 200).all()
    assert (seen(tmp_path, encoded(Image.fromarray(stripe[:, :, 0]).convert("LA"), "PNG"), 12) == 200).all()


ORANGE, HALF = (240, 120, 10), (120, 60, 5)


def palette(transparent=False):
    picture = Image.new("P", (9, 9), 1)
    picture.putpalette([0, 0, 0, *ORANGE])
    return encoded(picture, "PNG", **({"transparency": 1} if transparent else {}))


def frames(kind, **options):
    first, second = (Image.new("RGB", (9, 9), colour) for colour in (ORANGE, (0, 0, 200)))
    return encoded(first, kind, save_all=True, append_images=[second, second], **options)


@pytest.mark.parametrize("data,colour,apart", [
    (encoded(Image.new("RGB", (9, 9), ORANGE), "BMP"), ORANGE, 0),
    (encoded(Image.new("RGB", (9, 9), ORANGE), "PPM"), ORANGE, 0),
    (encoded(Image.new("1", (9, 9), 1), "PNG"), (255, 255, 255), 0),
    (encoded(Image.new("1", (9, 9), 0), "TIFF", compression="group4"), (0, 0, 0), 0),
    (encoded(Image.new("RGBA", (9, 9), (*ORANGE, 128)), "PNG"), HALF, 1),
    (encoded(Image.new("RGBA", (9, 9), (*ORANGE, 128)), "TIFF", compression="tiff_lzw"), HALF, 1),
    (encoded(Image.new("RGBA", (9, 9), (*ORANGE, 0)), "WEBP", lossless=True), (0, 0, 0), 0),
    (encoded(Image.new("LA", (9, 9), (200, 128)), "PNG"), (100, 100, 100), 1),
    (palette(), ORANGE, 0),
    (palette(transparent=True), (0, 0, 0), 0),
    (encoded(Image.new("RGB", (9, 9), ORANGE), "PNG", transparency=ORANGE), (0, 0, 0), 0),
    (encoded(Image.new("CMYK", (9, 9), (15, 135, 245, 0)), "JPEG", quality=100), ORANGE, 3),
    (encoded(Image.new("CMYK", (9, 9), (15, 135, 245, 0)), "TIFF"), ORANGE, 0),
    (encoded(Image.new("YCbCr", (9, 9), (200, 128, 128)), "JPEG", quality=100), (200, 200, 200), 2),
    (encoded(Image.new("RGB", (1, 1), ORANGE), "PNG"), ORANGE, 0),
    (encoded(Image.new("RGB", (1, 5000), ORANGE), "PNG"), ORANGE, 0),
    (encoded(Image.new("RGB", (5000, 2), ORANGE), "PNG"), ORANGE, 0),
    (frames("GIF"), ORANGE, 0),
    (frames("PNG"), ORANGE, 0),
    (frames("WEBP", lossless=True), ORANGE, 0),
    (frames("TIFF"), ORANGE, 0),
    (frames("MPO", quality=100), ORANGE, 3),
], ids=lambda value: "" if isinstance(value, bytes) else str(value))  # fmt: skip
def test_every_kind_of_picture_is_what_one_sees_on_black(tmp_path, data, colour, apart):
    wanted = torch.tensor(colour).view(3, 1, 1)
    assert (seen(tmp_path, data).int() - wanted).abs().max() <= apart


def header(width, height):
    body = b"IHDR" + struct.pack(">LLBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">L", 13) + body + struct.pack(">L", zlib.crc32(body))


def chunk(kind, data, wrong=0):
    return struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data) ^ wrong)


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8))


@pytest.mark.parametrize("data,told", [
    (b"", "cannot identify"),
    (b"no image at all", "cannot identify"),
    (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", "cannot identify"),  # starts no interpreter
    (header(60_000, 60_000) + chunk(b"IDAT", b""), "decompression bomb"),
    (encoded(Image.fromarray(np.full((9, 9), 40_000, np.uint16)), "PNG"), "more than 8 bits a channel"),
    (encoded(Image.fromarray(np.ones((9, 9), np.float32)), "TIFF"), "more than 8 bits a channel"),
    *[(encoded(NOISE, kind)[:-300], "") for kind in ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "PPM")],
    (header(9, 9), ""),
])  # fmt: skip
def test_an_unreadable_image_is_named_or_left_out(tmp_path, data, told):
    """Taking off metadata heals none of them."""
    (fill(tmp_path, "a", "b", n=9) / "b" / "7.png").write_bytes(data)
    with pytest.raises(ValueError, match=f"7.png cannot be read .*{told}.*: remove it, or pass --skip-unreadable"):
        read_folder(tmp_path)
    found = read_folder(tmp_path, skip_unreadable=True)
    assert [f.name for f in found.skipped] == ["7.png"] and found.report() == "1 unreadable"


def test_large_images_and_odd_metadata_warn_of_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # NOISE has 1200, which Pillow decodes with a warning
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        seen(tmp_path, encoded(NOISE, "PNG"))


# Metadata


def upright(turn, size=16, picture=NOISE):
    """The picture as one holds it, by array operations alone."""
    x = np.asarray(picture)
    ways = [x, x[:, ::-1], x[::-1, ::-1], x[::-1], x.swapaxes(0, 1), np.rot90(x, -1),
            x[::-1, ::-1].swapaxes(0, 1), np.rot90(x)]  # fmt: skip
    turned = Image.fromarray(np.ascontiguousarray(ways[turn - 1]))
    cut = ImageOps.fit(turned, (size, size), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(cut)).permute(2, 0, 1)


def with_block(kind, exif, xmp=None):
    """NOISE without loss, or as JPEG, with an EXIF block as it is."""
    if kind == "JPEG":
        plain, segment = encoded(NOISE, "JPEG"), b""
        for mark, body in ((b"", exif), (b"http://ns.adobe.com/xap/1.0/\0", xmp)):
            segment += b"\xff\xe1" + struct.pack(">H", len(mark + body) + 2) + mark + body if body else b""
        return plain[:20] + segment + plain[20:]
    if kind == "PNG":
        plain = encoded(NOISE, "PNG")
        told = chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp) if xmp else b""
        return plain[:33] + (chunk(b"eXIf", exif[6:]) if exif else b"") + told + plain[33:]
    return encoded(NOISE, kind, lossless=True, exif=exif or b"", xmp=xmp or b"")


PLAIN = {kind: Image.open(io.BytesIO(encoded(NOISE, "JPEG" if kind == "JPEG" else "PNG"))) for kind in
         ("JPEG", "PNG", "WEBP")}  # fmt: skip


def block(entries, order="<", rest=b"", count=None):
    """An EXIF block of (tag, type, count, four bytes)."""
    body = b"".join(struct.pack(order + "HHL", *e[:3]) + e[3] for e in entries)
    start = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "L", 8)
    return b"Exif\0\0" + start + struct.pack(order + "H", len(entries) if count is None else count) + body + rest


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_photograph_is_turned_as_the_camera_was_held(tmp_path, turn):
    xmp = f'<rdf:Description tiff:Orientation="{turn}"/>'.encode()
    for kind in PLAIN:
        for order in "<>":
            exif = block([(0x112, 3, 1, struct.pack(order + "HH", turn, 0))], order)
            assert torch.equal(seen(tmp_path, with_block(kind, exif), 16), upright(turn, picture=PLAIN[kind]))
        assert torch.equal(seen(tmp_path, with_block(kind, b"", xmp), 16), upright(turn, picture=PLAIN[kind]))
    tiff = encoded(NOISE, "TIFF", tiffinfo={0x112: turn})
    assert torch.equal(seen(tmp_path, tiff, 16), upright(turn))


def odd_block(draw):
    """A random block, and the turn that its first directory gives as far as it goes."""
    order, n = draw.choice("<>"), draw.randint(0, 8)
    known = [0x11A, 0x11B, 0x128, 0x8769, 0x8825, 0xA005, 0x927C, 0x9286, 0x132, 0x201, 0x202, 0x100, 0x111]
    entries = [
        (draw.choice([*known, draw.randrange(0x113, 65536)]), draw.choice([*range(17), 99]),
         draw.choice([0, 1, 2, 1000, 2**31, 2**32 - 1]),
         struct.pack(order + "L", draw.choice([0, 1, 8, 26, 38, 2**32 - 1, draw.randrange(2**32)])))
        for _ in range(n)
    ]  # fmt: skip
    turn, place = draw.choice([None, *range(10), 65535]), draw.randint(0, n)
    if turn is not None:
        entries.insert(place, (0x112, 3, 1, struct.pack(order + "HH", turn, 0)))
    count = max(0, len(entries) + draw.choice([0, 0, 1, -1]))
    rest = bytes(draw.randrange(256) for _ in range(draw.choice([0, 4, 200])))
    return block(entries, order, rest, count), turn if turn in range(1, 9) and place < count else 1


def test_no_exif_block_costs_a_picture_or_its_turn(tmp_path):
    draw = random.Random(0)
    for _ in range(40):
        exif, turn = odd_block(draw)
        for kind in PLAIN:
            found = seen(tmp_path, with_block(kind, exif), 16)
            assert torch.equal(found, upright(turn, picture=PLAIN[kind])), (kind, exif)


def test_no_tiff_tag_costs_a_picture_or_its_turn(tmp_path):
    """Entries about dates, resolutions, cameras and places are put among those that draw the picture."""
    draw = random.Random(1)
    for kind in ("raw", "tiff_lzw", "jpeg"):
        quality = {"quality": 95} if kind == "jpeg" else {}
        plain = encoded(NOISE, "TIFF", compression=kind, tiffinfo={0x112: 6}, **quality)
        (start,) = struct.unpack_from("<L", plain, 4)
        (n,) = struct.unpack_from("<H", plain, start)
        entries = [plain[start + 2 + 12 * i :][:12] for i in range(n)]
        wanted = seen(tmp_path, plain, 16)
        assert kind == "jpeg" or torch.equal(wanted, upright(6))
        for _ in range(25):
            odd = [
                struct.pack("<HHLL", draw.choice([0x11A, 0x11B, 0x128, 0x132, 0x8769, 0x8825, 0x927C, 0x83BB, 0x8649,
                                                  34675, 700, draw.randrange(40000, 65000)]),
                            draw.choice([*range(17), 99]), draw.choice([0, 1, 1000, 2**31]), draw.randrange(2**32))
                for _ in range(3)
            ]  # fmt: skip
            tags = {e[:2] for e in odd}
            mixed = sorted([*odd, *(e for e in entries if e[:2] not in tags)], key=lambda e: struct.unpack("<H", e[:2]))
            data = plain + bytes(len(plain) % 2)
            table = struct.pack("<H", len(mixed)) + b"".join(mixed) + bytes(4)
            data = data[:4] + struct.pack("<L", len(data)) + data[8:] + table
            assert torch.equal(seen(tmp_path, data, 16), wanted), odd


BOMB = zlib.compress(bytes(80_000_000))


@pytest.mark.parametrize("extra", [
    chunk(b"iCCP", b"odd\0\0no profile"),
    chunk(b"iCCP", b"odd\0\7"),
    chunk(b"iCCP", b"odd\0\0" + BOMB),
    chunk(b"zTXt", b"odd\0\0" + BOMB),  # 80 MB of text
    chunk(b"iTXt", b"odd\0\1\0\0\0" + BOMB),
    chunk(b"zTXt", b"odd\0\5text"),
    chunk(b"tEXt", b"prompt\0" + b"x" * 2_000_000) * 40,
    chunk(b"tEXt", b"Comment\0text", wrong=1),  # a checksum
    chunk(b"pHYs", b"\0\0"),
    chunk(b"pHYs", bytes(9)),
    chunk(b"gAMA", b""),
    chunk(b"cHRM", b"\0"),
    chunk(b"sRGB", b""),
    chunk(b"eXIf", b"\xff" * 7),
    chunk(b"tEXt", b"Raw profile type exif\0\nexif\n  9\nzz\n"),
], ids=range(15))  # fmt: skip
def test_no_chunk_of_a_png_costs_its_picture(tmp_path, extra):
    plain = encoded(NOISE, "PNG")
    assert torch.equal(seen(tmp_path, plain[:33] + extra + plain[33:], 16), upright(1))
    turned = chunk(b"eXIf", block([(0x112, 3, 1, b"\6\0\0\0")])[6:])  # the turn is found all the same
    if extra[4:8] != b"eXIf" and len(extra) < 10**6:
        assert torch.equal(seen(tmp_path, plain[:33] + turned + extra + plain[33:], 16), upright(6))


def segment(marker, body):
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body


@pytest.mark.parametrize("extra", [
    segment(0xE2, b"ICC_PROFILE\0\1\1no profile"),
    segment(0xE2, b"ICC_PROFILE\0"),
    segment(0xE2, b"ICC_PROFILE\0\7\2" + b"x" * 60_000) * 3,
    segment(0xE2, b"MPF\0II*\0\x08\0\0\0\1\0\2\xb0\7\0\xff\xff\0\0\0\0\0\0"),
    segment(0xE2, b"MPF\0"),
    segment(0xED, b"Photoshop 3.0\x008BIM\x03\xed\0\0\0\0\0\2\0\0"),
    segment(0xED, b"Photoshop 3.0\x008BIM\x03"),
    segment(0xED, b"Photoshop 3.0\0" + b"8BIM\x03\xed\0\0\xff\xff\xff\xff"),
    segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<\xff\xfe"),
    segment(0xE1, b"Exif\0\0"),
    segment(0xE1, b""),
    segment(0xE0, b""),
    segment(0xE0, b"JFIF\0\1\2\3\0\0\0\0\0\0"),
    segment(0xE0, b"JFIF\0"),
    segment(0xEE, b"Adobe"),
    segment(0xEE, b"Adobe\0d\0"),
    segment(0xFE, b"\xff" * 60_000),
    b"\xff" * 9 + segment(0xFE, b"filled"),
], ids=range(18))  # fmt: skip
def test_no_segment_of_a_jpeg_costs_its_picture(tmp_path, extra):
    plain = encoded(NOISE, "JPEG")
    assert torch.equal(seen(tmp_path, plain[:20] + extra + plain[20:], 16), upright(1, picture=PLAIN["JPEG"]))
