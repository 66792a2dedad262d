"""Read sources whole, and write results whole or not at all."""

import errno
import fcntl
import hashlib
import os
import stat
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from upscaled import errors
from upscaled.image.formats.table import OPTIONAL, sniff
from upscaled.process.named_file import open_at_once

MAX_SOURCE_BYTES: Final = 2**30
"""A file of 100 megapixels, the most that is decoded, takes less in any format."""
HEAD_BYTES: Final = 4096
TAIL_BYTES: Final = 18
_OLD_S: Final = 60.0
"""Age after which a file is at rest; clocks of two machines may differ less."""


class BatchAborted(Exception):
    """No further file can be worked on; the text says why. `exit_status`: of the command."""

    exit_status: ClassVar[int] = 1


class CannotWrite(Exception):
    """A result could not be written; the text names its file and the reason."""


class OutputFull(BatchAborted):
    """No further result can be written: the disk is full or read-only. The text says which."""


class NotAnImage(Exception):
    """A source is no picture in any known format, or itself a result."""


NO_MORE_WRITES: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
"""Errors after which every further write fails too, not only this file's."""


def refuse_unreadable(error: OSError) -> errors.ServiceError:
    """Return a file's own error in the contract's words: it is gone, or cannot be read."""
    reason = error.strerror or type(error).__name__
    kinds = {errno.ENOENT: errors.NotFound, errno.EIO: errors.InternalError}
    kind = kinds.get(error.errno or 0, errors.InvalidParameter)
    return kind(reason[:1].lower() + reason[1:])


def refuse_format(name: str) -> errors.UnsupportedImageFormat:
    """Return the error for a format that is not enabled, with the setting that enables it."""
    if name not in OPTIONAL:
        return errors.UnsupportedImageFormat(f"{name} is not supported")
    setting = f"UPSCALED_EXTRA_FORMATS={name.lower()}"
    return errors.UnsupportedImageFormat(f"{name} is not enabled ({setting} enables it)")


def read_source(path: Path, formats: Collection[str], *, is_any: bool) -> bytes:
    """Read a regular file; only the ends of one that is no image are read, unless `is_any`.

    Raises:
        NotAnImage: it is no picture.
        UnsupportedImageFormat: a picture whose format is not among `formats`.
        FileSizeTooLarge: over `MAX_SOURCE_BYTES`.
        InvalidParameter: it is no regular file.
    """
    with open(path, "rb", opener=open_at_once) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise errors.InvalidParameter("is no regular file")
        head = file.read(HEAD_BYTES)
        file.seek(max(0, status.st_size - TAIL_BYTES))
        check_ends(head + file.read(TAIL_BYTES), status.st_size, formats, is_any=is_any)
        file.seek(0)
        return file.read(MAX_SOURCE_BYTES)


def check_ends(ends: bytes, size_bytes: int, formats: Collection[str], *, is_any: bool) -> None:
    """Refuse a source by its first and last bytes and its size, see `read_source`."""
    format_name = sniff(ends)
    if format_name is not None and format_name not in formats:
        raise refuse_format(format_name)
    if format_name is None and not is_any:
        raise NotAnImage
    if size_bytes > MAX_SOURCE_BYTES:
        raise errors.FileSizeTooLarge


@dataclass(frozen=True, slots=True)
class LocalFile:
    """File of this machine as a source, see `upscaled.batch.discovery.SourceFile`."""

    path: Path

    def __str__(self) -> str:
        return os.path.abspath(self.path)

    @property
    def name(self) -> str:
        return self.path.name

    def read(self, formats: Collection[str], *, is_any: bool) -> bytes:
        """Read it, see `read_source`."""
        return read_source(self.path, formats, is_any=is_any)

    def state(self) -> int | None:
        """Return a number for it as it is now; None if it is gone, or no regular file."""
        try:
            status = self.path.stat()
        except OSError:
            return None
        if not stat.S_ISREG(status.st_mode):
            return None
        times = (status.st_mtime_ns, status.st_ctime_ns)
        return hash((str(self.path), status.st_dev, status.st_ino, status.st_size, *times))

    def is_whole(self, *, is_still: bool) -> bool:
        """Return whether it has not changed for a while, and no process is writing it."""
        return (is_still or _is_old(self.path)) and not is_being_written(self.path)


def is_being_written(path: Path) -> bool:
    """Return whether some process has the file open for writing; False where that is unknown.

    Linux grants a lease for reading only while no process writes. A writer that comes before it is
    given up waits, and this process is sent SIGIO, which must be ignored.
    """
    if not hasattr(fcntl, "F_SETLEASE"):
        return False
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False  # reading the file then says why
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:  # others: not our file, or a file system without leases
        return error.errno == errno.EAGAIN
    finally:
        os.close(descriptor)
    return False


def _is_old(path: Path) -> bool:
    try:
        status = path.stat()
    except OSError:
        return False
    return time.time() - max(status.st_mtime, status.st_ctime) > _OLD_S


def part_of(target: Path) -> Path:
    """Return the path of a result before it has its name: hidden, beside it, never too long."""
    digest = hashlib.sha256(os.fsencode(target.name)).hexdigest()
    return target.with_name(f".upscaled-{digest[:20]}.part")


def write_part(target: Path, part: Path, data: bytes) -> int:
    """Write a result beside its path, on the disk when this returns its modification time in ns.

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
        raise describe_failed_write(target, error) from error


def rename_part(target: Path, part: Path) -> None:
    """Give a whole result its name: a reader sees what was there before, or this.

    It raises what `write_part` does.
    """
    try:
        os.replace(part, target)
    except OSError as error:
        raise describe_failed_write(target, error) from error
    with suppress(OSError):  # some file systems cannot; the journal notices what is lost there
        descriptor = os.open(target.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def describe_failed_write(target: Path | str, error: OSError) -> CannotWrite | OutputFull:
    if error.errno in NO_MORE_WRITES:
        return OutputFull(f"{os.path.dirname(target)}: {error.strerror}")
    return CannotWrite(f"{target}: cannot be written: {error.strerror}")


def drop_part(part: Path) -> None:
    """Delete an unfinished file, if it is there and can be."""
    with suppress(OSError):
        part.unlink(missing_ok=True)
