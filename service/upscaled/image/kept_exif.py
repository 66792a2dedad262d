"""Rewrite the EXIF block of a source for its result, where the request keeps metadata.

Only tags of the Exif standard that describe the shot or the work are copied, byte for byte: a tag
that is not listed here may refer to a place in the source's file, as maker notes do, or count its
pixels. Thumbnails have a directory of their own, which is not read. No error is raised for a
damaged block: an incomplete value is left out, as is a block that stays too large for a JPEG
segment.

Pillow's `Exif` is not used: it writes text as ASCII, with a question mark for each other letter.
"""

import struct
from collections.abc import Collection, Mapping
from fractions import Fraction
from itertools import chain
from operator import itemgetter
from typing import Final

from upscaled.image.metadata import (
    ARTIST,
    COLOUR_SPACE,
    COPYRIGHT,
    EXIF_DIRECTORY,
    INCH,
    RESOLUTION_UNIT,
    X_RESOLUTION,
    Y_RESOLUTION,
    Dpi,
    Exif,
    RawValue,
)
from upscaled.image.types import MetadataPlan

MAX_EXIF_BYTES: Final = 65_527
"""Limits the block: a JPEG segment holds so much behind its length and the "Exif" prefix."""

_WIDTH, _HEIGHT = 0x0100, 0x0101
_PIXEL_WIDTH, _PIXEL_HEIGHT = 0xA002, 0xA003
_GPS_DIRECTORY: Final = 0x8825

# Tags of the first directory (Exif 3.0, 4.6.4) that describe the work, and those of Windows: title,
# rating and keywords. The orientation is not among them, for the pixels are turned; without it an
# image is upright.
_FIRST: Final = frozenset(
    {
        *(0x010D, 0x010E, 0x010F, 0x0110, 0x011D, 0x0131, 0x0132, ARTIST, 0x013C, COPYRIGHT),
        *(0x4746, 0x4749, *range(0x9C9B, 0x9CA0)),
        *(_WIDTH, _HEIGHT),
    }
)
# Tags of the Exif directory (4.6.5). Left out are maker notes (0x927C), how the source was
# compressed (0x9101, 0x9102), where its pixels lie (0x9214, 0xA20E to 0xA210, 0xA214), and the
# directory of interoperability (0xA005), which states that the file is a camera's own.
_EXIF: Final = frozenset(
    {
        *(0x829A, 0x829D, 0x8822, 0x8824, 0x8827, 0x8828, *range(0x8830, 0x8836)),
        *(0x9000, 0x9003, 0x9004, *range(0x9010, 0x9013), *range(0x9201, 0x920B)),
        *(0x9286, *range(0x9290, 0x9293), *range(0x9400, 0x9406)),
        *(0xA000, COLOUR_SPACE, _PIXEL_WIDTH, _PIXEL_HEIGHT, 0xA004, 0xA20B, 0xA20C),
        *(0xA215, 0xA217, *range(0xA300, 0xA303), *range(0xA401, 0xA40D), 0xA420),
        *(*range(0xA430, 0xA43D), *range(0xA460, 0xA463), 0xA500),
    }
)
# Exif 3.0, 4.6.6.
_GPS: Final = range(0x20)

_SHORT, _LONG, _RATIO = 3, 4, 5
_SRGB: Final = 1
_FINEST_DPI: Final = 1000
_ENTRY: Final = "HHI"
_INLINE_BYTES: Final = 4
_HEAD_BYTES: Final = 8

_Directory = dict[int, RawValue]


def keep_exif(exif: Exif, plan: MetadataPlan, *, dpi: Dpi | None, is_srgb: bool) -> bytes:
    """Return the block for the result, without its "Exif" prefix; b"" where nothing is kept.

    dpi: the result's pixels an inch, where known. is_srgb: the result has no colour profile,
    whatever the source said.
    """
    pack = _Packer(exif.byte_order)
    first = _read_values(exif, _FIRST)
    details_in = exif.directory(EXIF_DIRECTORY)
    details = _read_values(details_in, _EXIF)
    place = _read_values(exif.directory(_GPS_DIRECTORY), _GPS) if plan.has_gps else {}
    if not (first or details or place):
        return b""
    for directory, tag, side_px in (
        (first, _WIDTH, plan.width_px),
        (first, _HEIGHT, plan.height_px),
        (details, _PIXEL_WIDTH, plan.width_px),
        (details, _PIXEL_HEIGHT, plan.height_px),
    ):
        if tag in directory:
            directory[tag] = pack.whole(side_px)
    if is_srgb and COLOUR_SPACE in details:
        details[COLOUR_SPACE] = pack.short(_SRGB)
    if dpi is not None:
        first |= {X_RESOLUTION: pack.ratio(dpi[0]), Y_RESOLUTION: pack.ratio(dpi[1])}
        first[RESOLUTION_UNIT] = pack.short(INCH)
    block = _write(pack, first, {EXIF_DIRECTORY: details, _GPS_DIRECTORY: place})
    return block if len(block) <= MAX_EXIF_BYTES else b""


class _Packer:
    """Packs numbers in the byte order of a block."""

    def __init__(self, order: str) -> None:
        self.order = order

    def pack(self, layout: str, *numbers: int) -> bytes:
        return struct.pack(self.order + layout, *numbers)

    def short(self, number: int) -> RawValue:
        return RawValue(_SHORT, 1, self.pack("H", number))

    def whole(self, number: int) -> RawValue:
        return RawValue(_LONG, 1, self.pack("I", number))

    def ratio(self, number: float) -> RawValue:
        fraction = Fraction(number).limit_denominator(_FINEST_DPI)
        return RawValue(_RATIO, 1, self.pack("II", fraction.numerator, fraction.denominator))


def _read_values(exif: Exif, tags: Collection[int]) -> _Directory:
    """Return those values of a directory that are complete."""
    values = {tag: exif.raw(tag, MAX_EXIF_BYTES) for tag in tags}
    return {tag: value for tag, value in values.items() if value is not None}


def _write(pack: _Packer, first: _Directory, others: Mapping[int, _Directory]) -> bytes:
    """Write a block: its first directory, which refers to those of the others that have tags."""
    others = {tag: directory for tag, directory in others.items() if directory}
    first = first | {tag: pack.whole(0) for tag in others}  # as large as they will be
    at = _HEAD_BYTES + len(_write_directory(pack, first, _HEAD_BYTES))
    written = []
    for tag, directory in others.items():
        first[tag] = pack.whole(at)
        written.append(_write_directory(pack, directory, at))
        at += len(written[-1])
    head = (b"II" if pack.order == "<" else b"MM") + pack.pack("HI", 42, _HEAD_BYTES)
    return b"".join((head, _write_directory(pack, first, _HEAD_BYTES), *written))


def _write_directory(pack: _Packer, directory: _Directory, at: int) -> bytes:
    """Write one directory that begins at `at`, the values behind its entries; none follows it."""
    entry_bytes = struct.calcsize("<" + _ENTRY) + _INLINE_BYTES
    values_at = at + 2 + len(directory) * entry_bytes + 4
    entries, values = list[bytes](), list[bytes]()
    for tag, value in sorted(directory.items(), key=itemgetter(0)):
        data = value.data
        inline = data.ljust(_INLINE_BYTES, b"\x00")
        if len(data) > _INLINE_BYTES:
            inline = pack.pack("I", values_at)
            values.append(data + bytes(len(data) % 2))  # values begin at even places
            values_at += len(values[-1])
        entries.append(pack.pack(_ENTRY, tag, value.kind, value.count) + inline)
    return b"".join(chain((pack.pack("H", len(directory)),), entries, (bytes(4),), values))
