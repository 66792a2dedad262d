"""Stored results, behind one interface for a folder of this machine and for a bucket."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from upscaled.image.formats.table import ENCODED
from upscaled.state.clocks import StampClock

MEDIA_TYPES: Final = {each.suffix: each.media_type for each in ENCODED}
EXTENSIONS: Final = {media_type: extension for extension, media_type in MEDIA_TYPES.items()}
EXTENSION_PATTERN: Final = "|".join(MEDIA_TYPES)
TRIAL_BYTES: Final = 64 * 1024
"""Size of the result that a health check stores: more than a block of any usual file system."""
CHUNK_BYTES: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class StoredResult:
    """A result that may be served now."""

    media_type: str
    size_bytes: int


class ReservedName(NamedTuple):
    """A name reserved for a result, and the seconds in which a replica may store it.

    The lifetime begins after twice that time, since an image may be sent to a second replica.
    """

    file_name: str
    within_s: float


@dataclass(frozen=True, slots=True)
class OpenedResult:
    """A stored result and its bytes, which can be read once."""

    stored: StoredResult
    chunks: AsyncIterator[bytes]


@dataclass(frozen=True, slots=True)
class SweptResults:
    """The outcome of one sweep over stored results.

    removed: expired ones, and partial files whose writer died. kept: those still valid, None where
    counting them would mean to list them all. failed: files that could not be examined or removed.
    """

    removed: int = 0
    kept: int | None = 0
    kept_bytes: int | None = 0
    failed: int = 0


class Results(Protocol):
    """Results under unguessable names, each valid for `ttl_s` from its creation.

    Validity ends by the check in `find` and `open`, to the moment; a sweep only frees the space.
    Where the place does not work, all but `delete` raise InternalError, and `sweep` OSError too.
    """

    location: str
    """Name the place of results for an operator."""
    ttl_s: float
    clock: StampClock

    @property
    def folder(self) -> Path | None:
        """The folder whose disk results fill; None for a bucket."""

    def reserve(self, media_type: str) -> ReservedName | None:
        """Return a new name under which a replica may store a result itself; None in a folder."""

    async def store(self, data: bytes, media_type: str) -> str:
        """Store a result of a type in `EXTENSIONS`, whole or not at all, and return its file name.

        A cancelled call may have stored it, under a name that nothing refers to.
        """

    async def find(self, file_name: str) -> StoredResult | None:
        """Return a stored result that has not expired, or None for any other name."""

    def open(self, file_name: str) -> AbstractAsyncContextManager[OpenedResult | None]:
        """Find a result as `find` does, and hold it open; chunks may raise InternalError too."""

    async def delete(self, file_name: str) -> None:
        """Remove a result that is not delivered; one that cannot be is left to the sweep."""

    def sweep(self) -> SweptResults:
        """Remove expired results; this blocks."""

    def try_out(self) -> None:
        """Store, read and remove a small result, blocking; InternalError says what fails."""
