"""The profile of an AVIF or HEIC picture, with an embedded one or without.

An ICC profile in the file describes the colours; the codes beside it are then for the decoder
alone (MIAF, ISO/IEC 23000-22, 7.3.6.4; AV1 Image File Format, 2.3). Without one the codes of `colr`
count, and without these those of AV1's own header. What they leave open is sRGB's.
"""

import struct
from typing import Final

from upscaled.image.cicp import colours_of, make_profile
from upscaled.image.formats.isobmff.av1 import read_colour_codes
from upscaled.image.formats.isobmff.boxes import read_meta, read_still
from upscaled.image.formats.isobmff.items import iter_coded

_UNSPECIFIED: Final = 2
_SRGB_PRIMARIES, _SRGB_TRANSFER = 1, 13
# A sequence header has some 20 bytes, and none of its fields is longer than 8.
_HEADER_BYTES: Final = 256
_BROKEN_ERRORS: Final = (ValueError, IndexError, StopIteration, struct.error)


def find_profile(source: bytes, *, is_grey: bool) -> bytes | None:
    """The ICC profile that says what the file's codes say; None for sRGB, PQ and HLG.

    Raises:
        ValueError, struct.error, IndexError, StopIteration: the boxes are broken.
    """
    codes = read_still(source).cicp or _read_bitstream_codes(source)
    if codes is None:
        return None
    primaries, transfer = codes
    colours = colours_of(
        _SRGB_PRIMARIES if primaries == _UNSPECIFIED else primaries,
        _SRGB_TRANSFER if transfer == _UNSPECIFIED else transfer,
    )
    return make_profile(colours, is_grey=is_grey) if colours is not None else None


def _read_bitstream_codes(source: bytes) -> tuple[int, int] | None:
    """What the first coded picture, of AV1, says of itself."""
    if not any(
        box.name == b"av1C" for boxes in read_meta(source).properties.values() for box in boxes
    ):
        return None
    try:
        first = next(iter_coded(source))
        return read_colour_codes(b"".join(first.extents)[:_HEADER_BYTES])
    except _BROKEN_ERRORS:
        return None
