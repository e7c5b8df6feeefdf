"""Files that appear whole or not at all, and places that are tried before hours of work."""

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


class _Told:
    """A file to write to that remembers why it could not: ``torch.save`` hides the reason in a RuntimeError."""

    def __init__(self, file: BinaryIO):
        self.file, self.error = file, None

    def write(self, data) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise

    def __getattr__(self, name: str):
        return getattr(self.file, name)


def write_aside(path: str | Path, writer: Callable[[BinaryIO], object] | bytes | str) -> None:
    """Write a file beside its place and move it there: whoever reads finds the old file or the new one, never a half.

    path    its folder must exist; the name may be as long as the file system lets it. A link is followed and stays one
    writer  ``writer(file)`` writes to a binary file, such as ``lambda file: torch.save(state, file)``; or the contents
            themselves, text in UTF-8

    Raises OSError with the file's name and the system's reason (no space, too large, too long, no right), whatever the
    writer made of it, and what else the writer raises. Nothing stays behind, and an older file stays as it was.
    """
    place = Path(os.path.realpath(path))  # on its own disk
    aside = place.with_name(f".{os.getpid()}-{secrets.token_hex(4)}.tmp")  # short, whatever the file's own name
    told = None
    try:
        with open(aside, "xb") as file:
            told = _Told(file)
            if callable(writer):
                writer(told)
            else:
                told.write(writer.encode() if isinstance(writer, str) else writer)
            file.flush()
        os.replace(aside, place)
    except Exception as error:
        reason = error if isinstance(error, OSError) else told and told.error
        if reason is None:
            raise
        raise OSError(reason.errno, reason.strerror or str(reason), str(path)) from error
    finally:
        aside.unlink(missing_ok=True)


def writable(file: str | Path, name: str) -> Path:
    """The path of a file that can be written, or written anew: its folder is made, and its own name tried.

    name  of the argument that the path came from, for the error: ValueError where no file can be
    """
    path = Path(file)
    try:
        if path.is_dir() or str(file).endswith(("/", os.sep)):
            raise ValueError(f"{name} must be a file, got a folder, {str(file)!r}: add a file's name to it")
        if path.exists() and not path.is_file():
            raise ValueError(f"{name} must be a file, got {str(file)!r}, which is something else, such as a device")
        path.parent.mkdir(parents=True, exist_ok=True)
        place = Path(os.path.realpath(path))
        write_aside(aside := place.with_name(f".{os.getpid()}-{secrets.token_hex(4)}.tried"), b"")
        aside.unlink()
        _try_name(place)
    except OSError as error:
        told = f"got {str(file)!r}, where that fails ({error.strerror})"
        raise ValueError(f"{name} must be a file in a folder that can be made and written, {told}") from error
    return path


def _try_name(path: Path) -> None:
    """Make an empty file and take it away, unless there is one, or another program has put its own there since."""
    try:
        with open(path, "xb") as file:
            made = os.fstat(file.fileno())
    except FileExistsError:
        return
    now = path.stat()
    if (now.st_ino, now.st_size) == (made.st_ino, 0):
        path.unlink()
