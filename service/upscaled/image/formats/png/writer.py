"""A PNG file from strips that were compressed each on its own.

Each strip is a piece of one deflate stream that ends on a byte boundary, so the pieces joined are
the stream; the checksum of the whole is worked out from those of the pieces.
"""

import struct
import zlib
from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from upscaled.image.formats.png.structure import SIGNATURE, make_chunk

STRIP_PX: Final = 64
_COLOUR_TYPES: Final = {3: 2, 4: 6}
_UP: Final = 2
_ADLER_BASE: Final = 65_521
_NO_WRAPPER: Final = -15
_MEMORY_LEVEL: Final = 8
_ZLIB_HEAD: Final = b"\x78\x01"
_LAST_BLOCK: Final = b"\x03\x00"
_INCHES_PER_M: Final = 1 / 0.0254
_TRAILER: Final = struct.Struct(">IQ")


def compress_strip(pixels: NDArray[np.unsignedinteger], above: int) -> bytes:
    """Rows of `[above + h, W, 3 or 4]`, each as its difference to the row above it.

    above: 1 where the first row is the one above the strip, 0 at the picture's top. The checksum
    and the length of what was compressed stand in the last 12 bytes.
    """
    rows = _as_bytes(pixels)
    filtered = np.empty((len(rows) - above, 1 + rows.shape[1]), np.uint8)
    filtered[:, 0] = _UP
    if not above:
        filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1 - above :, 1:])
    data = filtered.data.cast("B")
    packer = zlib.compressobj(1, zlib.DEFLATED, _NO_WRAPPER, _MEMORY_LEVEL, zlib.Z_RLE)
    packed = packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH)
    return packed + _TRAILER.pack(zlib.adler32(data), len(data))


def join_strips(
    strips: Iterable[bytes],
    height_px: int,
    width_px: int,
    *,
    channels: int,
    depth: int,
    icc: bytes | None,
    exif: bytes | None,
    dpi: tuple[float, float] | None,
) -> bytes:
    """One file from the strips of `compress_strip`.

    channels: 3 or 4, the last one alpha. depth: bits a channel, 8 or 16. exif: a TIFF block.
    """
    header = struct.pack(">IIBBBBB", width_px, height_px, depth, _COLOUR_TYPES[channels], 0, 0, 0)
    parts = [SIGNATURE, make_chunk(b"IHDR", header)]
    if icc:
        parts.append(make_chunk(b"iCCP", b"ICC profile\x00\x00" + zlib.compress(icc)))
    if dpi:
        across, down = (max(1, round(side * _INCHES_PER_M)) for side in dpi)
        parts.append(make_chunk(b"pHYs", struct.pack(">IIB", across, down, 1)))
    if exif:
        parts.append(make_chunk(b"eXIf", exif))
    checksum = 1
    head = _ZLIB_HEAD
    for strip in strips:
        strip_checksum, length = _TRAILER.unpack(strip[-_TRAILER.size :])
        checksum = combine_adler32(checksum, strip_checksum, length)
        parts.append(make_chunk(b"IDAT", head + strip[: -_TRAILER.size]))
        head = b""
    parts.append(make_chunk(b"IDAT", _LAST_BLOCK + struct.pack(">I", checksum)))
    parts.append(make_chunk(b"IEND", b""))
    return b"".join(parts)


def combine_adler32(first: int, second: int, second_length: int) -> int:
    """The checksum of two pieces joined, from theirs and the second's length (RFC 1950, 8.2).

    Its low half is 1 plus the sum of all bytes; its high half is the sum of the low half after
    each byte, so the first piece's low half, less the 1 counted twice, comes in once for each
    byte of the second.
    """
    low, high = first & 0xFFFF, first >> 16
    low_2, high_2 = second & 0xFFFF, second >> 16
    carried = (low - 1) * second_length
    return (high + high_2 + carried) % _ADLER_BASE << 16 | (low + low_2 - 1) % _ADLER_BASE


def _as_bytes(pixels: NDArray[np.unsignedinteger]) -> NDArray[np.uint8]:
    """`[h, W, c]` as the file's bytes `[h, W * c * bytes]`: 16 bits with the high byte first."""
    if pixels.dtype != np.uint8:
        pixels = pixels.astype(">u2")
    return np.ascontiguousarray(pixels).view(np.uint8).reshape(pixels.shape[0], -1)
