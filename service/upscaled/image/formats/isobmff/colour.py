"""Choose the profile of an AVIF or HEIC image, with an embedded one or without.

An ICC profile in the file describes the colours; the codes beside it are then for the decoder
alone (MIAF, ISO/IEC 23000-22, 7.3.6.4; AV1 Image File Format, 2.3). Without one the codes of `colr`
count, and without these those of AV1's own sequence header (AV1 specification, 5.5), to which a
file may leave them. What they leave open is sRGB's.
"""

import struct
from typing import Final

from PIL.ImageFile import ImageFile

from upscaled.image.colour import colours_of, is_sound_profile, make_profile
from upscaled.image.formats.isobmff.boxes import Meta, Still
from upscaled.image.formats.isobmff.items import iter_coded

_UNSPECIFIED: Final = 2
_SRGB_PRIMARIES, _SRGB_TRANSFER = 1, 13
# A sequence header has some 20 bytes, and none of its fields is longer than 8.
_HEADER_BYTES: Final = 256
_BROKEN_ERRORS: Final = (ValueError, IndexError, StopIteration, struct.error)
# AV1 specification, 6.2.2 and 6.4.1.
_SEQUENCE_HEADER: Final = 1
_SELECT: Final = 2
_MOST_PIECES: Final = 8


def choose_profile(source: bytes, still: Still, opened: ImageFile) -> bytes | None:
    """Return the embedded profile if it is sound, else one made from the file's colour codes.

    None for sRGB, PQ and HLG.
    """
    is_grey = opened.mode in ("L", "LA")
    embedded: bytes | None = opened.info.get("icc_profile") or None
    if embedded is not None and is_sound_profile(embedded, is_grey=is_grey):
        return embedded
    codes = still.cicp or _read_bitstream_codes(source, still.meta)
    if codes is None:
        return None
    primaries, transfer = codes
    colours = colours_of(
        _SRGB_PRIMARIES if primaries == _UNSPECIFIED else primaries,
        _SRGB_TRANSFER if transfer == _UNSPECIFIED else transfer,
    )
    return make_profile(colours, is_grey=is_grey) if colours is not None else None


def _read_bitstream_codes(source: bytes, meta: Meta) -> tuple[int, int] | None:
    """Read the codes of the first coded image, if it is AV1."""
    if not any(box.name == b"av1C" for boxes in meta.properties.values() for box in boxes):
        return None
    try:
        first = next(iter_coded(source, meta))
        return read_colour_codes(b"".join(first.extents)[:_HEADER_BYTES])
    except _BROKEN_ERRORS:
        return None


class _Bits:
    """Reads unsigned numbers of a few bits each, the highest bit first."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "big")
        self._left = 8 * len(data)

    def read(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise ValueError("a sequence header that is cut short")
        return self._value >> self._left & ((1 << count) - 1)


def read_colour_codes(obus: bytes) -> tuple[int, int] | None:
    """Read the codes of primaries and transfer (ITU-T H.273) that an AV1 bitstream states, if any.

    obus: the bitstream from its beginning, as much as holds the sequence header.
    """
    at = 0
    for _ in range(_MOST_PIECES):
        if at >= len(obus):
            break
        header = obus[at]
        at += 1 + (header >> 2 & 1)  # a byte of extension
        length = len(obus) - at
        if header & 2:
            length, at = _read_length(obus, at)
        if header >> 3 & 15 == _SEQUENCE_HEADER:
            return _read_sequence_header(_Bits(obus[at : at + length]))
        at += length
    return None


def _read_length(obus: bytes, at: int) -> tuple[int, int]:
    """Read a number in the form leb128(); returns it and where it ends."""
    value = 0
    for place in range(8):
        byte = obus[at + place]
        value |= (byte & 0x7F) << 7 * place
        if not byte & 0x80:
            return value, at + place + 1
    raise ValueError("a length of more than 8 bytes")


def _read_sequence_header(bits: _Bits) -> tuple[int, int] | None:
    profile = bits.read(3)
    bits.read(1)
    is_reduced = bool(bits.read(1))
    if is_reduced:
        bits.read(5)
    else:
        _skip_timing_and_operating_points(bits)
    width_bits, height_bits = bits.read(4) + 1, bits.read(4) + 1
    bits.read(width_bits)
    bits.read(height_bits)
    if not is_reduced and bits.read(1):  # frames have numbers
        bits.read(4 + 3)
    bits.read(3)
    if not is_reduced:
        _skip_tools(bits)
    bits.read(3)
    is_deep = bits.read(1)
    if profile == 2 and is_deep:
        bits.read(1)
    if profile != 1:
        bits.read(1)  # monochrome
    return (bits.read(8), bits.read(8)) if bits.read(1) else None


def _skip_timing_and_operating_points(bits: _Bits) -> None:
    delay_bits = 0
    if bits.read(1):  # timing information
        bits.read(32 + 32)
        if bits.read(1):  # a number in the form uvlc(): zeros, a one, and as many bits again
            zeros = 0
            while not bits.read(1):
                zeros += 1
            bits.read(zeros if zeros < 32 else 0)
        if bits.read(1):  # a model of the decoder
            delay_bits = bits.read(5) + 1
            bits.read(32 + 5 + 5)
    has_display_delay = bits.read(1)
    for _ in range(bits.read(5) + 1):
        bits.read(12)
        if bits.read(5) > 7:
            bits.read(1)
        if delay_bits and bits.read(1):
            bits.read(2 * delay_bits + 1)
        if has_display_delay and bits.read(1):
            bits.read(4)


def _skip_tools(bits: _Bits) -> None:
    bits.read(4)
    has_order = bits.read(1)
    if has_order:
        bits.read(2)
    screen_content = _SELECT if bits.read(1) else bits.read(1)
    if screen_content and not bits.read(1):
        bits.read(1)
    if has_order:
        bits.read(3)
