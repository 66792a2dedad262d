"""What the head of a WebP file tells (RFC 9649), read without its decoder.

libwebp would make room for the whole canvas, twice, before it told the size: 2 GB for the largest.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_VP8_START_CODE: Final = b"\x9d\x01\x2a"
_VP8L_SIGNATURE: Final = 0x2F
_SIDE_MASK: Final = (1 << 14) - 1
_ALPHA_FLAG, _EXIF_FLAG = 0x10, 0x08
_FIRST_CHUNK: Final = 12
# A still picture has six chunks, an animation one for each frame and some.
_MAX_CHUNKS: Final = 20_000


@dataclass(frozen=True, slots=True)
class Canvas:
    """Stored size, transparency, and the EXIF block, b"" without one."""

    width_px: int
    height_px: int
    has_alpha: bool
    exif: bytes


def read_canvas(source: bytes) -> Canvas:
    """The facts of a whole file.

    Raises:
        ValueError, struct.error: cut short, or no WebP that RFC 9649 knows.
    """
    (riff_bytes,) = struct.unpack_from("<I", source, 4)
    if riff_bytes + 8 > len(source):
        raise ValueError("cut short")
    kind, body = source[12:16], source[20:30]
    if kind == b"VP8X":
        return _read_extended(source[: riff_bytes + 8], body)
    if kind == b"VP8L":
        return Canvas(*_read_lossless(body), exif=b"")
    if kind == b"VP8 ":
        return Canvas(*_read_lossy(body), has_alpha=False, exif=b"")
    raise ValueError(f"first chunk {kind!r}")


def _read_extended(source: bytes, body: bytes) -> Canvas:
    """RFC 9649, 2.7.1: flags, and three bytes for each side less one."""
    flags = body[0]
    width, height = (int.from_bytes(body[at : at + 3], "little") + 1 for at in (4, 7))
    exif = b""
    if flags & _EXIF_FLAG:
        exif = next((data for name, data in _iter_chunks(source) if name == b"EXIF"), b"")
    return Canvas(width, height, has_alpha=bool(flags & _ALPHA_FLAG), exif=exif)


def _read_lossless(body: bytes) -> tuple[int, int, bool]:
    """RFC 9649, 3.4: a signature, twice 14 bits of a side less one, and whether there is alpha."""
    signature, bits = struct.unpack_from("<BI", body)
    if signature != _VP8L_SIGNATURE:
        raise ValueError("no lossless picture")
    return (bits & _SIDE_MASK) + 1, (bits >> 14 & _SIDE_MASK) + 1, bool(bits >> 28 & 1)


def _read_lossy(body: bytes) -> tuple[int, int]:
    """RFC 6386, 9.1: behind the start code, 14 bits for each side."""
    if body[3:6] != _VP8_START_CODE:
        raise ValueError("no key frame")
    width, height = struct.unpack_from("<HH", body, 6)
    return width & _SIDE_MASK, height & _SIDE_MASK


def _iter_chunks(source: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = _FIRST_CHUNK
    for _ in range(_MAX_CHUNKS):
        if at + 8 > len(source):
            return
        name, length = struct.unpack_from("<4sI", source, at)
        yield name, source[at + 8 : at + 8 + length]
        at += 8 + length + length % 2
    raise ValueError(f"more than {_MAX_CHUNKS} chunks")
