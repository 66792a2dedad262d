"""Whether the runs of a compressed BMP file fill its picture.

A run-length coded BMP may leave pixels out, by a jump or by ending a row early, and damage looks
just the same: Pillow paints what is missing black.
"""

import struct
from typing import Final

_PIXELS_AT, _WIDTH_AT, _COMPRESSION_AT = 10, 18, 30
_NEW_HEADER_BYTES: Final = 40
_RLE8, _RLE4 = 1, 2
_END_OF_ROW, _END_OF_BITMAP, _JUMP = 0, 1, 2
# Pixels in the four bytes to which rows are padded without compression. ImageMagick codes these.
_ROW_STEP_PX: Final = {_RLE8: 4, _RLE4: 8}


def leaves_pixels_out(source: bytes) -> bool:
    """Whether a run-length coded file does not give every pixel exactly once; others never do.

    Raises:
        struct.error: the header is cut short.
    """
    (header_bytes,) = struct.unpack_from("<I", source, 14)
    if header_bytes < _NEW_HEADER_BYTES:
        return False
    (compression,) = struct.unpack_from("<I", source, _COMPRESSION_AT)
    if compression not in (_RLE8, _RLE4):
        return False
    width, height = struct.unpack_from("<ii", source, _WIDTH_AT)
    (at,) = struct.unpack_from("<I", source, _PIXELS_AT)
    step = _ROW_STEP_PX[compression]
    longest = -(-width // step) * step
    rows = _count_rows(source, at, width, longest, is_half_bytes=compression == _RLE4)
    return rows != abs(int(height))


def _count_rows(source: bytes, at: int, width: int, longest: int, *, is_half_bytes: bool) -> int:
    """Rows that are whole, up to the end of the bitmap or the first run that makes no sense.

    A row has `width` pixels, and up to `longest` with its padding.
    """
    rows, x = 0, 0
    while at + 1 < len(source):
        count, value = source[at], source[at + 1]
        at += 2
        if count:
            x += count
        elif value > _JUMP:
            x += value
            data_bytes = (value + 1) // 2 if is_half_bytes else value
            at += data_bytes + data_bytes % 2
            if at > len(source):
                return -1
        elif value == _END_OF_ROW and x >= width:
            rows, x = rows + 1, 0
        elif value == _END_OF_BITMAP:
            return rows + (x >= width)
        else:
            return -1
        if x > longest:
            return -1
    return rows + (x >= width)
