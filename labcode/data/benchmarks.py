"""Public benchmarks as uint8 tensors on the device: downloaded and checked by torchvision, kept as one file each.

The first call downloads and converts; every later call reads ``<name>.npz`` from the folder in ``LABCODE_DATA``, or
from the platform's cache folder, and needs neither torchvision nor a network. The file holds ``train_images`` and
``test_images`` (n, height, width, channels) uint8, ``train_labels`` and ``test_labels`` (n,) int64, ``class_names`` and
``source``: any program that writes these arrays can provide a benchmark.
"""

import errno
import gzip
import lzma
import os
import pickle
import shutil
import socket
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


class DataError(RuntimeError):
    """A benchmark could not be downloaded, stored or read; the message says what happened, where, and what to do."""


@dataclass(frozen=True)
class Spec:
    """What a benchmark has to look like."""

    dataset: str  # torchvision's class
    shape: tuple[int, int, int]  # height, width, channels
    classes: int
    megabytes: int  # free disk space that download and conversion take together, about


SPECS = {
    "cifar10": Spec("CIFAR10", (32, 32, 3), 10, 600),
    "cifar100": Spec("CIFAR100", (32, 32, 3), 100, 600),
    "fashion_mnist": Spec("FashionMNIST", (28, 28, 1), 10, 200),
    "stl10": Spec("STL10", (96, 96, 3), 10, 6000),  # the archive holds the 100,000 unlabelled images too
    "svhn": Spec("SVHN", (32, 32, 3), 10, 600),
}
SILENCE = 60.0  # seconds without a byte after which a server counts as dead
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
ARRAYS = ("train_images", "train_labels", "test_images", "test_labels", "source", "class_names")


@dataclass
class Benchmark:
    """A benchmark on the device. ``source`` says where the pixels come from and belongs into every result."""

    train_images: Tensor  # (n, channels, height, width) uint8; one channel for Fashion-MNIST
    train_labels: Tensor  # (n,) int64
    test_images: Tensor
    test_labels: Tensor
    source: str
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.train_labels)


def folder() -> Path:
    """Where the benchmarks are kept: ``LABCODE_DATA``, or "labcode" in the platform's cache folder."""
    if given := os.environ.get("LABCODE_DATA"):
        return Path(given).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("labcode")


def benchmark(name: str, device: torch.device | str = "cpu", root: str | os.PathLike | None = None) -> Benchmark:
    """A benchmark's images and labels, on the device.

    name    "cifar10", "cifar100", "fashion_mnist", "stl10" (its labelled 5,000 and 8,000 images) or "svhn"
    root    folder of the stored file; ``folder()`` if None

    Downloads on the first call, into ``root`` and nowhere else. The stored file appears whole or not at all, so an
    interrupted call leaves nothing behind and two processes may ask at once.

    Raises ValueError for an unknown name; DataError for a damaged file, a failed download or a full disk.
    """
    if name not in SPECS:
        raise ValueError(f"name must be one of {', '.join(sorted(SPECS))}, got {name!r}")
    path = (folder() if root is None else Path(root)) / f"{name}.npz"
    if not path.exists():
        _provide(name, path)
    arrays = _read(name, path)

    def images(split: str) -> Tensor:
        return torch.from_numpy(arrays[f"{split}_images"]).to(device).permute(0, 3, 1, 2).contiguous()

    def labels(split: str) -> Tensor:
        return torch.from_numpy(arrays[f"{split}_labels"]).to(device)

    names = tuple(str(n) for n in arrays["class_names"])
    return Benchmark(images("train"), labels("train"), images("test"), labels("test"), str(arrays["source"]), names)


def _read(name: str, path: Path) -> dict[str, np.ndarray]:
    """The stored arrays, all of them checked."""

    def damaged(reason: str) -> DataError:
        return DataError(f"{path} is not a usable {name} file: {reason}. Delete it and call again to download afresh.")

    try:
        opened = np.load(path, allow_pickle=False)
        if isinstance(opened, np.ndarray):
            raise damaged("it holds one array, not an archive of named arrays")
        with opened as stored:
            if missing := [key for key in ARRAYS if key not in stored.files]:
                raise damaged(f"it lacks {', '.join(missing)}")
            arrays = {key: stored[key] for key in ARRAYS}  # zip's own checksums are verified here
    except (DataError, MemoryError):
        raise
    except PermissionError as error:
        raise DataError(f"{path} may not be read ({error.strerror}): give yourself the right to read it.") from error
    except Exception as error:  # of zipfile, zlib, lzma, NumPy's parser …
        raise damaged(f"it is truncated or damaged ({type(error).__name__}: {error})") from error

    spec = SPECS[name]
    for split in ("train", "test"):
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != spec.shape:
            wanted = "(n, " + ", ".join(map(str, spec.shape)) + ")"
            raise damaged(f"{split}_images is {images.dtype} {images.shape}, not uint8 {wanted}")
        if labels.dtype != np.int64 or labels.shape != (len(images),):
            raise damaged(f"{split}_labels is {labels.dtype} {labels.shape}, not int64 ({len(images)},)")
        if not len(labels):
            raise damaged(f"{split}_images is empty")
        if labels.min() < 0 or labels.max() >= spec.classes:
            raise damaged(f"{split}_labels run from {labels.min()} to {labels.max()}, not 0 … {spec.classes - 1}")
    if arrays["class_names"].dtype.kind != "U" or arrays["class_names"].shape != (spec.classes,):
        raise damaged(f"class_names is not {spec.classes} strings")
    if arrays["source"].dtype.kind != "U" or arrays["source"].shape != () or not str(arrays["source"]).strip():
        raise damaged("source, which says where the images come from, is not a text")
    return arrays


def _provide(name: str, path: Path) -> None:
    """Download, convert, and move into place."""
    spec = SPECS[name]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(path.parent).free / 1e6
        aside = tempfile.TemporaryDirectory(prefix=f".{name}-", dir=path.parent, ignore_cleanup_errors=True)
    except OSError as error:
        raise _no_place(path.parent, error) from error
    with aside as scratch:
        if free < spec.megabytes:
            raise DataError(
                f"the disk of {path.parent} has {free:.0f} MB left, {name} takes about {spec.megabytes} MB to download "
                "and convert: make room, or set LABCODE_DATA to a folder on another disk."
            )
        arrays = _download(name, spec, scratch)
        try:
            written = Path(scratch) / path.name
            np.savez(written, **arrays)
            _read(name, written)  # what cannot be read back is never put in place
            os.replace(written, path)
        except OSError as error:
            raise _no_place(path.parent, error) from error


def _no_place(where: Path, error: OSError) -> DataError:
    if error.errno in NO_ROOM:
        return DataError(f"the disk of {where} is full: make room, or set LABCODE_DATA to a folder on another disk.")
    return DataError(
        f"{where} cannot be written to ({error.strerror or error}): set LABCODE_DATA to a folder that can."
    )


def _download(name: str, spec: Spec, scratch: str) -> dict[str, np.ndarray]:
    """The arrays of a benchmark from torchvision, which verifies the archive's checksum."""
    try:
        import torchvision
    except ImportError as error:
        raise DataError(f"downloading {name} needs torchvision: pip install torchvision.") from error

    by_split = name in ("stl10", "svhn")
    arrays, classes = {}, None
    for split in ("train", "test"):
        choice = {"split": split} if by_split else {"train": split == "train"}
        try:
            with _patience(SILENCE):
                part = getattr(torchvision.datasets, spec.dataset)(scratch, download=True, **choice)
        except MemoryError:
            raise
        except Exception as error:  # of urllib, http.client, tarfile, pickle, torchvision …
            raise _failed(name, Path(scratch).parent, error) from error
        images = np.asarray(part.data)
        if by_split:
            images = images.transpose(0, 2, 3, 1)
        images = images.reshape(len(images), *spec.shape)
        arrays[f"{split}_images"] = np.ascontiguousarray(images)
        arrays[f"{split}_labels"] = np.asarray(part.labels if by_split else part.targets).astype(np.int64)
        classes = getattr(part, "classes", None) or [str(digit) for digit in range(spec.classes)]
    source = f"{name} (torchvision {torchvision.__version__})"
    return arrays | {"source": np.array(source), "class_names": np.array([str(c) for c in classes])}


@contextmanager
def _patience(seconds: float) -> Iterator[None]:
    """Inside, a connection that says nothing for so long is given up: urllib by itself waits for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _failed(name: str, where: Path, error: Exception) -> DataError:
    """What to do about a download that ended in an error: the disk's, the archive's or the network's."""
    told = " ".join(f"{type(error).__name__}: {error}".rstrip(": ").split())
    # urllib's errors about a URL or a proxy are OSErrors too, without a number
    if isinstance(error, OSError) and error.errno in (*NO_ROOM, errno.EACCES, errno.EPERM, errno.EROFS):
        return _no_place(where, error)
    damaged = (EOFError, zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, gzip.BadGzipFile,
               pickle.UnpicklingError, KeyError, IndexError)  # fmt: skip
    # torchvision says RuntimeError for a wrong checksum, RecursionError for redirects without end
    if isinstance(error, damaged) or type(error) is RuntimeError:
        return DataError(
            f"the download of {name} to {where} is incomplete or fails torchvision's checksum ({told}). Nothing was "
            "kept: call again; if it happens again, the server or a proxy changes the file."
        )
    if isinstance(error, (OSError, HTTPException, ValueError, RecursionError)):
        return DataError(
            f"{name} could not be downloaded ({told}): connect to the network and call again (behind a proxy, look at "
            f"https_proxy), or copy a {name}.npz made elsewhere to {where}."
        )
    return DataError(
        f"torchvision could not provide {name} ({told}). Nothing was kept: update torchvision, or copy a {name}.npz "
        f"made elsewhere to {where}."
    )
