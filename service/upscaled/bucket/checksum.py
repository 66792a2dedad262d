"""Checksums of objects: kept as metadata where they are stored, and checked where they are read.

A server may keep less than it confirmed, and a disk may return other bytes than it was given.
Objects of version 0.2.0 and earlier have no such metadata: nothing is known of them.
"""

import hashlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Final, Self

from upscaled.errors import InternalError

_SIZE: Final = "upscaled-size-bytes"
_SHA256: Final = "upscaled-sha256"


class DamagedObject(InternalError):
    """An object's bytes are not those that were stored; they never will be."""


@dataclass(frozen=True, slots=True)
class StoredContent:
    """What was stored as an object; None: not known.

    sha256: in hexadecimal digits.
    """

    size_bytes: int | None = None
    sha256: str | None = None

    @classmethod
    def read(cls, attributes: Mapping[str, str]) -> Self:
        """Read it from an object's metadata."""
        size = attributes.get(_SIZE, "")
        return cls(int(size) if size.isdecimal() else None, attributes.get(_SHA256))

    def has_size(self, size_bytes: int) -> bool:
        """Return whether an object of that size can be whole."""
        return self.size_bytes is None or self.size_bytes == size_bytes

    def is_whole(self, data: bytes) -> bool:
        """Return whether an object's bytes are those that were stored."""
        return self.has_size(len(data)) and self.sha256 in (None, hashlib.sha256(data).hexdigest())

    async def checked(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Yield an object's chunks, the last one only if all were what was stored.

        A client that is sent them gets its length first, and so sees that some lack.

        Raises:
            DamagedObject: they were not; before the last chunk.
        """
        content, held = hashlib.sha256(), None
        async for chunk in chunks:
            if held is not None:
                yield held
            content.update(chunk)
            held = chunk
        if self.sha256 not in (None, content.hexdigest()):
            raise DamagedObject(detail="a stored object is damaged: it has another checksum")
        if held is not None:
            yield held


def describe_content(data: bytes) -> dict[str, str]:
    """Return the metadata that `StoredContent.read` reads."""
    return {_SIZE: str(len(data)), _SHA256: hashlib.sha256(data).hexdigest()}
