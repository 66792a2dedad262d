"""Read BMP files, whose header Pillow reads in Python, and find pixels that they leave out."""

import re
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from upscaled.errors import UnsupportedImageFormat
from upscaled.image.formats.limited_file import open_limited
from upscaled.image.formats.table import Stored
from upscaled.image.metadata import Exif
from upscaled.image.types import Header

if TYPE_CHECKING:
    from PIL.BmpImagePlugin import BmpImageFile

_PIXELS_AT, _WIDTH_AT, _COMPRESSION_AT = 10, 18, 30
_NEW_HEADER_BYTES: Final = 40
# BITMAPV5HEADER, which alone can embed a profile: PROFILE_EMBEDDED ("MBED", lower byte first), and
# where the profile lies, counted from the header.
_HEADER_AT, _FIFTH_HEADER_BYTES = 14, 124
_COLOUR_SPACE_AT, _PROFILE_AT = 70, 126
_PROFILE_EMBEDDED: Final = b"DEBM"
_RLE8, _RLE4 = 1, 2
_END_OF_ROW, _END_OF_BITMAP, _JUMP = 0, 1, 2
# Pixels in the four bytes to which rows are padded without compression. ImageMagick codes these.
_ROW_STEP_PX: Final = {_RLE8: 4, _RLE4: 8}
# Pillow's orders of bytes with alpha, and the same without regard to it.
_WITHOUT_ALPHA: Final[Mapping[str, str]] = {
    "ABGR": "XBGR",
    "BGAR": "BGXR",
    "BGRA": "BGRX",
    "RGBA": "RGBX",
}
_PIXEL_BYTES: Final = 4
# A pixel of 16 bits whose highest may be alpha; Pillow's decoder has both orders, its reader
# the first alone. Headers have the mask of alpha from the third version on.
_WITHOUT_ALPHA_BIT, _WITH_ALPHA_BIT = "BGR;15", "BGRA;15"
_THIRD_HEADER_BYTES, _ALPHA_MASK_AT, _ALPHA_BIT = 56, 66, 0x8000
_MASKS: Final = 3
_BYTES_WITHOUT_ALPHA_BIT: Final = bytes(range(0x80))
# Pillow's errors for kinds that other programs read: a header of OS/2, a JPEG or a PNG (of 0 bits)
# in the file, 2 and 64 bits, masks with alpha (6), CMYK (11 to 13). Other numbers are damage.
_NOT_DECODED: Final = re.compile(
    r"Unsupported BMP (bitfields layout|header type \(16\)|pixel depth \((0|2|64)\)"
    r"|compression \(([456]|1[123])\))"
)


def read_header(source: bytes) -> Header:
    """Read size and transparency by Pillow's reader, which for BMP is written in Python."""
    from PIL.BmpImagePlugin import BmpImageFile

    try:
        opened = open_limited(source, BmpImageFile)
    except OSError as error:
        if _NOT_DECODED.fullmatch(str(error)):
            raise UnsupportedImageFormat(detail=str(error)) from error
        raise
    _use_alpha_bit(opened, source)
    _drop_empty_alpha(opened, source)
    has_alpha = opened.mode == "RGBA" or "transparency" in opened.info
    return Header("BMP", *opened.size, has_alpha=has_alpha, parts=opened)


def open_stored(source: bytes, header: Header) -> Stored:
    """Refuse a file whose runs do not fill the image; its header opened it."""
    if has_missing_pixels(source):
        raise ValueError("runs leave pixels out")
    opened: BmpImageFile = header.parts
    return Stored(opened, Exif(b""), _read_profile(source), dpi=opened.info.get("dpi"))


def _read_profile(source: bytes) -> bytes | None:
    """Read the embedded ICC profile, which Pillow does not read; None where there is none."""
    (header_bytes,) = struct.unpack_from("<I", source, _HEADER_AT)
    colour_space = source[_COLOUR_SPACE_AT:][: len(_PROFILE_EMBEDDED)]
    if header_bytes < _FIFTH_HEADER_BYTES or colour_space != _PROFILE_EMBEDDED:
        return None
    offset, size = struct.unpack_from("<II", source, _PROFILE_AT)
    return source[_HEADER_AT + offset :][:size] or None


def _use_alpha_bit(opened: "BmpImageFile", source: bytes) -> None:
    """Decode an image of 16 bits as RGBA where its masks say so and a pixel is not transparent.

    An alpha of 0 everywhere is none; see `_drop_empty_alpha`.
    """
    tile = opened.tile[0]
    if not isinstance(tile.args, tuple) or tile.args[0] != _WITHOUT_ALPHA_BIT:
        return
    (header_bytes,) = struct.unpack_from("<I", source, _HEADER_AT)
    (compression,) = struct.unpack_from("<I", source, _COMPRESSION_AT)
    if header_bytes < _THIRD_HEADER_BYTES or compression != _MASKS:
        return
    (alpha_mask,) = struct.unpack_from("<I", source, _ALPHA_MASK_AT)
    _, row_bytes, *_ = tile.args
    pixels = source[tile.offset : tile.offset + row_bytes * opened.height]
    upper_bytes = bytearray(pixels[1::2])
    if opened.width % 2:  # a row is filled up to four bytes, by what may be anything
        del upper_bytes[opened.width :: row_bytes // 2]
    if alpha_mask == _ALPHA_BIT and upper_bytes.translate(None, _BYTES_WITHOUT_ALPHA_BIT):
        opened._mode = "RGBA"
        opened.tile = [tile._replace(args=(_WITH_ALPHA_BIT, *tile.args[1:]))]


def _drop_empty_alpha(opened: "BmpImageFile", source: bytes) -> None:
    """Decode an image of 32 bits as RGB where the alpha of every pixel is 0.

    Programs leave the fourth byte of a pixel at zero under a header that calls it alpha: Windows'
    own bitmaps in memory do. Other programs show such an image opaque, and so it is meant.
    """
    tile = opened.tile[0]
    if opened.mode != "RGBA" or not isinstance(tile.args, tuple):
        return
    order, row_bytes, *_ = tile.args
    if order not in _WITHOUT_ALPHA:
        return
    pixels = source[tile.offset : tile.offset + row_bytes * opened.height]
    if pixels[order.index("A") :: _PIXEL_BYTES].rstrip(b"\0"):
        return
    opened._mode = "RGB"
    opened.tile = [tile._replace(args=(_WITHOUT_ALPHA[order], *tile.args[1:]))]


def has_missing_pixels(source: bytes) -> bool:
    """Return whether a run-length coded file does not give every pixel exactly once.

    It may leave pixels out, by a jump or by ending a row early, and damage looks just the same:
    Pillow paints what is missing black. Other files never do.
    """
    (header_bytes,) = struct.unpack_from("<I", source, _HEADER_AT)
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
    """Count whole rows, up to the end of the bitmap or the first run that makes no sense.

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
