"""The stored source images of accepted jobs, from the acceptance to the job's end."""

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Container
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

from upscaled.errors import InternalError
from upscaled.logs import event
from upscaled.state.folder_results import PART, read_content, store_file

_NAME: Final = re.compile(r"[0-9a-f]{32}")
UNCLAIMED_S: Final = 3600.0
"""A source is written before its job: so old a one without a job was left by a dead process."""


_log: Final = logging.getLogger(__name__)


class JobSources(Protocol):
    """Sources under unguessable names."""

    async def store(self, data: bytes) -> str:
        """Store a source, whole or not at all, and return its name, or raise InternalError."""

    async def read(self, name: str) -> bytes | None:
        """Return a source's bytes; None where it is not there, InternalError without an answer."""

    async def delete(self, name: str) -> None:
        """Remove a source; one that cannot be removed is left to the sweep."""

    def sweep(self, in_use: Container[str]) -> int:
        """Remove the sources that no job needs, and return how many; this blocks.

        Args:
            in_use: read before the sources are listed, so those younger than `UNCLAIMED_S` stay.
        """


class FolderSources:
    """Files `<folder>/<name>` for their owner; all front ends of a database share the folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def store(self, data: bytes) -> str:
        """Write a file that survives a power cut; nothing is left behind of one that fails."""
        return await asyncio.to_thread(self._store, data)

    async def read(self, name: str) -> bytes | None:
        return await asyncio.to_thread(self._read, name)

    async def delete(self, name: str) -> None:
        await asyncio.to_thread(self._delete, name)

    def sweep(self, in_use: Container[str]) -> int:
        """Remove files, and parts of files whose writer died."""
        removed = 0
        with suppress(FileNotFoundError):
            for path in list(self._folder.iterdir()):
                name = path.name.removesuffix(PART)
                if _NAME.fullmatch(name) is None or name in in_use:
                    continue
                with suppress(FileNotFoundError):
                    if time.time() - path.stat().st_mtime > UNCLAIMED_S:
                        path.unlink()
                        removed += 1
        return removed

    def _store(self, data: bytes) -> str:
        path = self._folder / uuid.uuid4().hex
        store_file(path, data, "a job's source", top=self._folder)
        return path.name

    def _read(self, name: str) -> bytes | None:
        path = self._folder / name
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InternalError(detail=f"cannot read a job's source: {error.strerror}") from error
        if read_content(path).is_whole(data):
            return data
        warn_of_damage("folder")
        return None

    def _delete(self, name: str) -> None:
        with suppress(OSError):
            (self._folder / name).unlink()


def warn_of_damage(place: str) -> None:
    """Log that a job's source in a place is not what was stored; the job will fail."""
    fields = event("job_source_damaged")
    _log.error("a job's source in the %s is not what was stored", place, extra=fields)
