"""The size of a WebP picture, from the first 30 bytes of its file.

Pillow makes room for the whole canvas, twice, before it tells the size: 2 GB for the largest one.
"""

import struct
from typing import Final

_VP8_START_CODE: Final = b"\x9d\x01\x2a"
_SIDE_BITS: Final = 14


def read_canvas_px(source: bytes) -> tuple[int, int] | None:
    """Width and height; None where the first chunk is none of the three kinds.

    Lossy: RFC 6386, 9.1. Lossless: RFC 9649, 3.4. Extended: RFC 9649, 2.7.1.
    """
    head = source[12:30].ljust(18, b"\0")
    kind, body = head[:4], head[8:]
    if kind == b"VP8X":
        width, height = (int.from_bytes(body[at : at + 3], "little") + 1 for at in (4, 7))
        return width, height
    mask = (1 << _SIDE_BITS) - 1
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", body, 1)
        return (bits & mask) + 1, (bits >> _SIDE_BITS & mask) + 1
    if kind == b"VP8 " and body[3:6] == _VP8_START_CODE:
        width, height = struct.unpack_from("<HH", body, 6)
        return width & mask, height & mask
    return None
