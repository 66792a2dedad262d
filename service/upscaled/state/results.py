"""The output store: result files on disk from the moment they are whole until they expire."""

import logging
import os
import re
import stat
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from upscaled.errors import InternalError
from upscaled.image.formats.table import JPEG, PNG
from upscaled.logs import event
from upscaled.state.clocks import StampClock
from upscaled.state.lockfile import adopt_orphan, create_locked

_MEDIA_TYPES = {each.suffix: each.media_type for each in (JPEG, PNG)}
_EXTENSIONS = {media_type: extension for extension, media_type in _MEDIA_TYPES.items()}
_UUID4 = "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
_FILE_NAME = re.compile(rf"({_UUID4})\.(jpg|png)")
_PART = ".part"
_TRIAL_FOLDER = "trial"
_TRIAL_BYTES = 64 * 1024
"""Size of the file that a health check writes: more than one block of any usual file system."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StoredResult:
    """A result that may be served now; `expires_in_s` is above 0."""

    path: Path
    media_type: str
    size_bytes: int
    expires_in_s: float


@dataclass(frozen=True, slots=True)
class SweptResults:
    """The result files of one sweep.

    removed: expired ones, and partial files whose writer died. kept: those still valid. failed:
    files that could not be examined or removed.
    """

    removed: int = 0
    kept: int = 0
    kept_bytes: int = 0
    failed: int = 0


class Results:
    """Files `<folder>/<first two digits>/<uuid4>.jpg` or `.png`, valid `ttl_s` from creation.

    A file's modification time is its creation by `clock`. Validity ends by the check in `find`, to
    the moment; the sweep only frees the disk.
    """

    def __init__(self, folder: Path, ttl_s: float, clock: StampClock) -> None:
        self.folder = folder
        self.ttl_s = ttl_s
        self.clock = clock

    def store(self, data: bytes, media_type: str) -> str:
        """Write a result, whole or not at all, and return its unguessable file name.

        Args:
            media_type: `image/jpeg` or `image/png`.

        Raises:
            InternalError: the disk refused it; nothing is left behind.
        """
        file_name = f"{uuid.uuid4()}.{_EXTENSIONS[media_type]}"
        self._store_at(self._path(file_name), data)
        return file_name

    def try_out(self) -> None:
        """Store a small result as any other, read it back and remove it, to test the disk.

        Raises:
            InternalError: a result stored now would fail too; the text says at what.
        """
        path = self.folder / _TRIAL_FOLDER / f"{uuid.uuid4()}.jpg"
        data = os.urandom(_TRIAL_BYTES)
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
        """Write a file, whole or not at all; its folder is made, but never the data folder."""
        part = path.with_name(path.name + _PART)
        try:
            self.folder.mkdir(mode=0o700, exist_ok=True)
            path.parent.mkdir(mode=0o700, exist_ok=True)
            descriptor = create_locked(part)
            try:
                self._write(descriptor, data)
                part.rename(path)
            except BaseException:
                part.unlink(missing_ok=True)
                raise
            finally:
                os.close(descriptor)
            _sync_folder(path.parent)
        except OSError as error:
            with suppress(OSError):
                path.unlink()
            # Not the error's whole text: it names the file, which is all it takes to fetch it.
            raise InternalError(detail=f"cannot store a result: {error.strerror}") from error

    def find(self, file_name: str) -> StoredResult | None:
        """Return a stored result that has not expired, or None for any other name.

        Raises:
            InternalError: the disk does not answer.
        """
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
        expires_in_s = self._expires_in_s(status)
        if expires_in_s <= 0 or not stat.S_ISREG(status.st_mode):
            return None
        return StoredResult(path, _MEDIA_TYPES[match[2]], status.st_size, expires_in_s)

    def delete(self, file_name: str) -> None:
        """Remove a result that is not delivered; an unknown name is no error.

        One that cannot be removed is left to the sweep, because no client has its name.
        """
        if _FILE_NAME.fullmatch(file_name):
            try:
                self._path(file_name).unlink(missing_ok=True)
            except OSError as error:
                fields = event("result_not_deleted")
                _log.warning("a result could not be deleted: %s", error.strerror, extra=fields)

    def sweep(self) -> SweptResults:
        """Remove every expired result and every part file whose writer died.

        A file that cannot be examined or removed does not stop the others.
        """
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
        return SweptResults(removed, kept, kept_bytes, failed)

    def is_expired(self, stored_at_s: float) -> bool:
        """Return whether a result stored at that time of the wall clock has expired."""
        return self.clock.age_s(stored_at_s) >= self.ttl_s

    def _sweep_one(self, path: Path) -> tuple[bool, int | None]:
        """Return whether this call removed the file, and its size if it is a valid result."""
        if path.name.endswith(_PART):
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

    def _write(self, descriptor: int, data: bytes) -> None:
        remaining = memoryview(data)
        while remaining:
            remaining = remaining[os.write(descriptor, remaining) :]
        created_at_ns = int(self.clock.now_s() * 1e9)
        os.utime(descriptor, ns=(created_at_ns, created_at_ns))
        os.fsync(descriptor)

    def _expires_in_s(self, status: os.stat_result) -> float:
        return self.ttl_s - self.clock.age_s(status.st_mtime_ns / 1e9)

    def _path(self, file_name: str) -> Path:
        return self.folder / file_name[:2] / file_name


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut, because the result is about to be charged for."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
