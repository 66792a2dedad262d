"""Results as files of one folder, from the moment they are whole until they expire."""

import asyncio
import errno
import hashlib
import io
import logging
import os
import re
import stat
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from upscaled.bucket.checksum import DamagedObject, StoredContent, describe_content
from upscaled.errors import InternalError
from upscaled.logs import event
from upscaled.state import results
from upscaled.state.clocks import StampClock
from upscaled.state.holder import adopt_orphan, create_locked

_UUID4: Final = "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
_FILE_NAME: Final = re.compile(rf"({_UUID4})\.({results.EXTENSION_PATTERN})")
PART: Final = ".part"
_TRIAL_FOLDER: Final = "trial"
CHECKED_FIRST_BYTES: Final = 8 * 2**20
"""Largest result that is checked before its first byte is sent, which takes some 6 ms. A larger one
would hold one of the front end's threads, on a slow disk for half a second."""
_ATTRIBUTES: Final = "user."
"""What the names of attributes begin with that any process may set on its files."""
_WITHOUT_ATTRIBUTES: Final = frozenset({errno.ENOTSUP, errno.ENOSYS, errno.EPERM})
"""How file systems and sandboxes say that they have no such attributes."""

_log = logging.getLogger(__name__)


class FolderResults:
    """Files `<folder>/<first two digits>/<uuid4>.jpg`, `.png` ...; see the protocol `Results`.

    A file's modification time is its creation by `clock`. Its length and SHA-256 are kept beside
    it as extended attributes; of one without them, as on a file system that has none, and of
    version 0.2.0 and earlier, nothing is known.
    """

    def __init__(self, folder: Path, ttl_s: float, clock: StampClock) -> None:
        self.location = str(folder)
        self.folder = folder
        self.ttl_s = ttl_s
        self.clock = clock

    def reserve(self, media_type: str) -> None:
        """Return None: no other process puts results into the folder."""
        return None

    async def store(self, data: bytes, media_type: str) -> str:
        """Write a result as a file, whole or not at all, and return the file's name."""
        file_name = f"{uuid.uuid4()}.{results.EXTENSIONS[media_type]}"
        await asyncio.to_thread(self._store_at, self._path(file_name), data)
        return file_name

    async def find(self, file_name: str) -> results.StoredResult | None:
        return await asyncio.to_thread(self._find, file_name)

    @asynccontextmanager
    async def open(self, file_name: str) -> AsyncIterator[results.OpenedResult | None]:
        """Find a result, and hold its file open for the block.

        All of it is checked before, or of a large one while it is read. One that is damaged is
        deleted, so that a retry makes it again.
        """
        stored = await self.find(file_name)
        file = await asyncio.to_thread(self._open, file_name, stored) if stored else None
        if stored is None or file is None:
            yield None
            return
        with file:
            is_checked = stored.size_bytes <= CHECKED_FIRST_BYTES
            chunks = _read(file) if is_checked else self._read_checked(file_name, file)
            yield results.OpenedResult(stored, chunks)

    def _open(self, file_name: str, stored: results.StoredResult) -> io.BufferedReader | None:
        """Open a file; None for one that was deleted meanwhile, or is seen to be damaged."""
        try:
            file = self._path(file_name).open("rb")
            if stored.size_bytes > CHECKED_FIRST_BYTES or _is_whole(file):
                return file
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InternalError(detail=f"cannot read a result: {error.strerror}") from error
        file.close()
        self._delete_damaged(file_name)
        return None

    async def _read_checked(self, file_name: str, file: io.BufferedReader) -> AsyncIterator[bytes]:
        try:
            async for chunk in read_content(file.fileno()).checked(_read(file)):
                yield chunk
        except DamagedObject:
            await asyncio.to_thread(self._delete_damaged, file_name)
            raise

    def _delete_damaged(self, file_name: str) -> None:
        _warn_of_damage()
        self._delete(file_name)

    async def delete(self, file_name: str) -> None:
        await asyncio.to_thread(self._delete, file_name)

    def sweep(self) -> results.SweptResults:
        """Remove every expired result and every part file whose writer died, as far as possible."""
        removed = kept = kept_bytes = failed = 0
        for path in list(self._files()):
            try:
                is_removed, size_bytes = self._sweep_one(path)
            except OSError:
                failed += 1
                continue
            removed += is_removed
            kept += size_bytes is not None
            kept_bytes += size_bytes or 0
        return results.SweptResults(removed, kept, kept_bytes, failed)

    def try_out(self) -> None:
        """Store a small result as any other, read it back and remove it, to test the disk."""
        path = self.folder / _TRIAL_FOLDER / f"{uuid.uuid4()}.jpg"
        data = os.urandom(results.TRIAL_BYTES)
        self._store_at(path, data)
        try:
            if path.read_bytes() != data:
                raise InternalError(detail="a result that was stored reads differently")
        except OSError as error:
            raise InternalError(detail=f"cannot read a result: {error.strerror}") from error
        finally:
            self._remove_trial(path)

    def _remove_trial(self, path: Path) -> None:
        try:
            path.unlink()
        except OSError as error:
            raise InternalError(detail=f"cannot delete a result: {error.strerror}") from error

    def _store_at(self, path: Path, data: bytes) -> None:
        created_at_ns = int(self.clock.now_s() * 1e9)
        store_file(path, data, "a result", top=self.folder, created_at_ns=created_at_ns)

    def _find(self, file_name: str) -> results.StoredResult | None:
        match = _FILE_NAME.fullmatch(file_name)
        if match is None:
            return None
        path = self._path(file_name)
        try:
            status = path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise InternalError(detail=f"cannot look for a result: {error.strerror}") from error
        if self._expires_in_s(status) <= 0 or not stat.S_ISREG(status.st_mode):
            return None
        if not read_content(path).has_size(status.st_size):
            _warn_of_damage()
            return None
        return results.StoredResult(results.MEDIA_TYPES[match[2]], status.st_size)

    def _delete(self, file_name: str) -> None:
        if _FILE_NAME.fullmatch(file_name):
            try:
                self._path(file_name).unlink(missing_ok=True)
            except OSError as error:
                fields = event("result_not_deleted")
                _log.warning("a result could not be deleted: %s", error.strerror, extra=fields)

    def _sweep_one(self, path: Path) -> tuple[bool, int | None]:
        """Return whether this call removed the file, and its size if it is a valid result."""
        if path.name.endswith(PART):
            with adopt_orphan(path) as is_orphan:
                return is_orphan, None
        if _FILE_NAME.fullmatch(path.name) is None:
            return False, None
        try:
            status = path.lstat()
            if self._expires_in_s(status) > 0:
                return False, status.st_size
            path.unlink()
        except FileNotFoundError:  # deleted, or swept by another process, since it was listed
            return False, None
        return True, None

    def _files(self) -> Iterator[Path]:
        for folder in self.folder.iterdir():
            if folder.is_dir():
                with suppress(OSError):  # removed by hand, or not to be read: the others are swept
                    yield from list(folder.iterdir())

    def _expires_in_s(self, status: os.stat_result) -> float:
        return self.ttl_s - self.clock.age_s(status.st_mtime_ns / 1e9)

    def _path(self, file_name: str) -> Path:
        return self.folder / file_name[:2] / file_name


def _is_whole(file: io.BufferedReader) -> bool:
    """Return whether a file has the checksum that it was stored with."""
    sha256 = read_content(file.fileno()).sha256
    if sha256 is None:
        return True
    is_whole = hashlib.file_digest(file, "sha256").hexdigest() == sha256
    file.seek(0)
    return is_whole


def _warn_of_damage() -> None:
    _log.error("a result in the folder is not what was stored", extra=event("result_damaged"))


async def _read(file: io.BufferedReader) -> AsyncIterator[bytes]:
    while chunk := await asyncio.to_thread(file.read, results.CHUNK_BYTES):
        yield chunk


def store_file(
    path: Path, data: bytes, what: str, *, top: Path, created_at_ns: int | None = None
) -> None:
    """Write a file that survives a power cut, whole or not at all, for its owner alone.

    Args:
        what: is stored, for the error.
        top: the folder that holds the file's; both are made, but never the data folder.
        created_at_ns: its modification time, since 1970; None: the disk's.

    Raises:
        InternalError: it cannot be stored, and nothing is left of it.
    """
    part = path.with_name(path.name + PART)
    try:
        top.mkdir(mode=0o700, exist_ok=True)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        descriptor = create_locked(part)
        try:
            with open(descriptor, "wb", closefd=False) as file:
                file.write(data)
            _note_content(descriptor, data)
            if created_at_ns is not None:
                os.utime(descriptor, ns=(created_at_ns, created_at_ns))
            os.fsync(descriptor)
            part.rename(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        sync(path.parent)
    except OSError as error:
        with suppress(OSError):
            path.unlink()
        # Not the error's whole text: it names the file, which is all it takes to fetch a result.
        raise InternalError(detail=f"cannot store {what}: {error.strerror}") from error


def _note_content(descriptor: int, data: bytes) -> None:
    """Keep length and checksum as a file's attributes, where its file system has such."""
    if sys.platform != "linux":
        return
    try:
        for name, value in describe_content(data).items():
            os.setxattr(descriptor, _ATTRIBUTES + name, value.encode())
    except OSError as error:
        if error.errno not in _WITHOUT_ATTRIBUTES:
            raise


def read_content(file: Path | int) -> StoredContent:
    """Return what is known of the file that was stored at a path, or is open."""
    known = {}
    with suppress(OSError):  # there are none, or the file was deleted meanwhile
        for name in os.listxattr(file) if sys.platform == "linux" else ():
            known[name.removeprefix(_ATTRIBUTES)] = os.getxattr(file, name).decode(errors="replace")
    return StoredContent.read(known)


def sync(path: Path) -> None:
    """Make a file, or a rename in a folder, survive a power cut from now on."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
