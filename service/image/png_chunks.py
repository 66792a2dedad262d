"""The chunks of a PNG file (PNG third edition, section 5): found by their lengths alone."""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
# A file of 25 MB has so many when each holds 250 bytes; programs write 8 KB and more.
MAX_CHUNKS: Final = 100_000
_ANIMATION: Final = frozenset({b"acTL", b"fcTL", b"fdAT"})
_BIT_DEPTH_AT: Final = 24


@dataclass(frozen=True, slots=True)
class Chunk:
    """Where a chunk's data lies in its file; past the end where the file is cut short."""

    name: bytes
    start: int
    length: int


def iterate_chunks(source: bytes) -> Iterator[Chunk]:
    """Every chunk in order, to IEND or the end of the file; no data is touched.

    Raises:
        ValueError: more than `MAX_CHUNKS`.
    """
    at, count = len(SIGNATURE), 0
    while at + 8 <= len(source):
        count += 1
        if count > MAX_CHUNKS:
            raise ValueError(f"more than {MAX_CHUNKS} chunks")
        chunk = Chunk(source[at + 4 : at + 8], at + 8, int.from_bytes(source[at : at + 4], "big"))
        yield chunk
        if chunk.name == b"IEND":
            return
        at = chunk.start + chunk.length + 4


def find_exif(source: bytes) -> bytes:
    """The EXIF block, or b"". It may stand behind the pixels, which is why nothing is read."""
    for chunk in iterate_chunks(source):
        if chunk.name == b"eXIf":
            return source[chunk.start : chunk.start + chunk.length]
    return b""


def read_bit_depth(source: bytes) -> int:
    """Bits a channel: 1, 2, 4, 8 or 16 in a sound file."""
    return source[_BIT_DEPTH_AT] if len(source) > _BIT_DEPTH_AT else 8


def has_broken_pixels(source: bytes) -> bool:
    """Whether the checksum of any chunk of pixels or palette is wrong; Pillow skips IDAT's."""
    view = memoryview(source)
    for chunk in iterate_chunks(source):
        if chunk.name in (b"IDAT", b"PLTE"):
            end = chunk.start + chunk.length
            if view[end : end + 4] != struct.pack(">I", zlib.crc32(view[chunk.start - 4 : end])):
                return True
    return False


def without_animation(source: bytes) -> bytes:
    """The file without its animation chunks, if any: what is left is an APNG's still picture."""
    animation = [chunk for chunk in iterate_chunks(source) if chunk.name in _ANIMATION]
    kept_from = 0
    parts = []
    for chunk in animation:
        parts.append(source[kept_from : chunk.start - 8])
        kept_from = chunk.start + chunk.length + 4
    return b"".join((*parts, source[kept_from:])) if animation else source


def make_chunk(name: bytes, data: bytes) -> bytes:
    """A whole chunk: length, name, data, checksum."""
    checksum = zlib.crc32(data, zlib.crc32(name))
    return b"".join((struct.pack(">I", len(data)), name, data, struct.pack(">I", checksum)))
