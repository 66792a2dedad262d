"""Read sources whole, and write results whole or not at all."""

import errno
import hashlib
import os
import stat
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, Final

from upscaled.errors import FileSizeTooLarge, InvalidParameter, NotFound, UnsupportedImageFormat
from upscaled.image.formats.table import OPTIONAL, sniff

MAX_SOURCE_BYTES: Final = 2**30
"""A file of 100 megapixels, the most that is decoded, takes less in any format."""
_HEAD_BYTES: Final = 4096
_TAIL_BYTES: Final = 18


class BatchAborted(Exception):
    """No further file can be worked on; the text says why. `exit_status`: of the command."""

    exit_status: ClassVar[int] = 1


class CannotWrite(Exception):
    """A result could not be written; the text names its file and the reason."""


class OutputFull(BatchAborted):
    """No further result can be written: the disk is full or read-only. The text says which."""


class NotAnImage(Exception):
    """A file is no picture in any known format."""


NO_MORE_WRITES: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
"""Errors after which every further write fails too, not only this file's."""


def refuse_unreadable(error: OSError) -> NotFound | InvalidParameter:
    """Return a file's own error in the contract's words: it is gone, or cannot be read."""
    reason = error.strerror or type(error).__name__
    kind = NotFound if isinstance(error, FileNotFoundError) else InvalidParameter
    return kind(reason[:1].lower() + reason[1:])


def refuse_format(name: str) -> UnsupportedImageFormat:
    """Return the error for a format that is not enabled, with the setting that enables it."""
    if name not in OPTIONAL:
        return UnsupportedImageFormat(f"{name} is not supported")
    setting = f"UPSCALED_EXTRA_FORMATS={name.lower()}"
    return UnsupportedImageFormat(f"{name} is not enabled ({setting} enables it)")


def read_source(path: Path, formats: Collection[str], *, is_any: bool) -> bytes:
    """Read a regular file; only the ends of one that is no image are read.

    is_any: read it also where it is no picture.

    Raises:
        NotAnImage: it is no picture.
        UnsupportedImageFormat: a picture whose format is not among `formats`.
        FileSizeTooLarge: over `MAX_SOURCE_BYTES`.
        InvalidParameter: it is no regular file.
        OSError: it cannot be read.
    """
    with open(path, "rb", opener=_open_at_once) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise InvalidParameter("is no regular file")
        head = file.read(_HEAD_BYTES)
        file.seek(max(0, status.st_size - _TAIL_BYTES))
        format_name = sniff(head + file.read(_TAIL_BYTES))
        file.seek(0)
        if format_name is not None and format_name not in formats:
            raise refuse_format(format_name)
        if format_name is None and not is_any:
            raise NotAnImage(path)
        if status.st_size > MAX_SOURCE_BYTES:
            raise FileSizeTooLarge
        return file.read(MAX_SOURCE_BYTES)


def _open_at_once(path: str, flags: int) -> int:
    """Open without waiting for a writer, where the file is a pipe."""
    return os.open(path, flags | os.O_NONBLOCK)


def part_of(target: Path) -> Path:
    """Return the path of a result before it has its name: hidden, beside it, never too long."""
    digest = hashlib.sha256(os.fsencode(target.name)).hexdigest()
    return target.with_name(f".upscaled-{digest[:20]}.part")


def write_part(target: Path, part: Path, data: bytes) -> int:
    """Write a result beside its path, on the disk when this returns.

    Returns:
        its modification time, in ns.

    Raises:
        CannotWrite: this file cannot be written.
        OutputFull: nor can any other.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            return os.fstat(file.fileno()).st_mtime_ns
    except OSError as error:
        drop_part(part)
        raise _describe_failed_write(target, error) from error


def rename_part(target: Path, part: Path) -> None:
    """Give a whole result its name. A reader sees what was there before, or this.

    Raises:
        CannotWrite: this file cannot be written.
        OutputFull: nor can any other.
    """
    try:
        os.replace(part, target)
    except OSError as error:
        raise _describe_failed_write(target, error) from error
    with suppress(OSError):  # some file systems cannot; the journal notices what is lost there
        descriptor = os.open(target.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _describe_failed_write(target: Path, error: OSError) -> CannotWrite | OutputFull:
    if error.errno in NO_MORE_WRITES:
        return OutputFull(f"{target.parent}: {error.strerror}")
    return CannotWrite(f"{target}: cannot be written: {error.strerror}")


def drop_part(part: Path) -> None:
    """Delete an unfinished file, if it is there and can be."""
    with suppress(OSError):
        part.unlink(missing_ok=True)
