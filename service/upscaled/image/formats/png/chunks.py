"""The chunks of a PNG file (PNG third edition, section 5): found by their lengths alone."""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
# A file of 25 MB has so many when each holds 250 bytes; programs write 8 KB and more.
MAX_CHUNKS: Final = 100_000


@dataclass(frozen=True, slots=True)
class Chunk:
    """Where a chunk's data lies in its file; past the end where the file is cut short."""

    name: bytes
    start: int
    length: int

    def is_sound(self, source: bytes) -> bool:
        """Whether the chunk is whole and its checksum right: CRC-32 of name and data (5.3)."""
        view = memoryview(source)
        end = self.start + self.length
        return view[end : end + 4] == struct.pack(">I", zlib.crc32(view[self.start - 4 : end]))

    def data(self, source: bytes) -> bytes:
        """The chunk's data, cut short where the file is."""
        return source[self.start : self.start + self.length]


def iterate_chunks(source: bytes) -> Iterator[Chunk]:
    """Every chunk in order, to IEND, the end of the file or what cannot be a chunk.

    No data is touched. A chunk's name is four ASCII letters: where something else stands, the
    length before it means nothing either, and the walk ends.

    Raises:
        ValueError: more than `MAX_CHUNKS`.
    """
    at, count = len(SIGNATURE), 0
    while at + 8 <= len(source):
        name = source[at + 4 : at + 8]
        if not name.isalpha():  # of bytes, so ASCII letters only
            return
        count += 1
        if count > MAX_CHUNKS:
            raise ValueError(f"more than {MAX_CHUNKS} chunks")
        chunk = Chunk(name, at + 8, int.from_bytes(source[at : at + 4], "big"))
        yield chunk
        if name == b"IEND":
            return
        at = chunk.start + chunk.length + 4


def make_chunk(name: bytes, data: bytes) -> bytes:
    """A whole chunk: length, name, data, checksum."""
    checksum = zlib.crc32(data, zlib.crc32(name))
    return b"".join((struct.pack(">I", len(data)), name, data, struct.pack(">I", checksum)))
