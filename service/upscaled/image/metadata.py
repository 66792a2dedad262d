"""Read metadata of an image file: orientation, resolution, and credit.

EXIF is read by a reader that cannot fail: whatever else is broken in a camera's EXIF block is no
reason to refuse its image. Of it only the credit and the resolution are written, unless the request
keeps metadata (`upscaled.image.kept_exif`).
"""

import math
import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from upscaled.image.types import UPRIGHT, Credit, Image, swaps_sides

ORIENTATION: Final = 0x0112
X_RESOLUTION: Final = 0x011A
Y_RESOLUTION: Final = 0x011B
RESOLUTION_UNIT: Final = 0x0128
ARTIST: Final = 0x013B
COPYRIGHT: Final = 0x8298

_PREFIX: Final = b"Exif\x00\x00"
_MAX_ENTRIES: Final = 65_535
_TEXT, _RATIO = 2, 5
# TIFF 6.0, section 2: BYTE, SHORT, LONG and their signed kinds; IFD, and what BigTIFF adds: LONG8
# and IFD8. Programs use any for a number.
_WHOLE: Final[Mapping[int, str]] = {
    **dict(zip((1, 3, 4, 13, 16, 18), "BHIIQQ", strict=True)),
    **dict(zip((6, 8, 9), "bhi", strict=True)),
}
_MOST_TEXT_BYTES: Final = 4096
# Bytes of one value by kind: TIFF 6.0, section 2, and UTF-8 of Exif 3.0, 4.6.2.
_KIND_BYTES: Final[Mapping[int, int]] = {
    **dict.fromkeys((1, 2, 6, 7, 129), 1),
    **dict.fromkeys((3, 8), 2),
    **dict.fromkeys((4, 9, 11), 4),
    **dict.fromkeys((5, 10, 12), 8),
}
# By a file's first bytes its byte order, and whether it is a BigTIFF file, of longer offsets.
_HEADS: Final[Mapping[bytes, tuple[str, bool]]] = {
    b"II*\x00": ("<", False),
    b"MM\x00*": (">", False),
    b"II+\x00": ("<", True),
    b"MM\x00+": (">", True),
}

# Exif 2.32, 4.6.3 and 4.6.7: the directories beside the first one, and the tags of a colour space.
EXIF_DIRECTORY: Final = 0x8769
_INTEROPERABILITY_DIRECTORY: Final = 0xA005
COLOUR_SPACE: Final = 0xA001
_INTEROPERABILITY_INDEX: Final = 0x0001
_UNCALIBRATED: Final = 0xFFFF
_DCF_OPTION_FILE: Final = "R03"

INCH, _CENTIMETRE = 2, 3
"""Values of `RESOLUTION_UNIT` (TIFF 6.0, section 8)."""
_UNITS_PER_INCH: Final = {INCH: 1.0, _CENTIMETRE: 2.54}
_MAX_DPI: Final = 1_000_000.0

Dpi = tuple[float, float]


@dataclass(frozen=True, slots=True)
class RawValue:
    """Value of a tag as its file holds it: kind (TIFF 6.0, 2), count, and bytes."""

    kind: int
    count: int
    data: bytes


class Exif:
    """One directory of an EXIF block (TIFF 6.0, 2), or of a TIFF or BigTIFF file.

    A broken one has the tags found in it.
    """

    def __init__(self, block: bytes, directory_at: int | None = None) -> None:
        """Read the first directory of a block, or another one.

        Args:
            block: with or without its "Exif" prefix.
            directory_at: where another directory than the first begins.
        """
        self._tiff = block.removeprefix(_PREFIX)
        self._order, self._is_big = _HEADS.get(self._tiff[:4], ("", False))
        self._offset_code = self._order + ("Q" if self._is_big else "I")
        # By tag: kind, count, and where the value or the value's offset stands.
        self._entries: dict[int, tuple[int, int, int]] = {}
        if not self._order:
            return
        with suppress(struct.error):  # what is there of a directory that is cut short counts
            first_at = 8 if self._is_big else 4
            at = self._offset(first_at) if directory_at is None else directory_at
            for tag, *entry in iterate_directory(self._tiff, self._order, at, is_big=self._is_big):
                self._entries.setdefault(tag, (entry[0], entry[1], entry[2]))

    @property
    def byte_order(self) -> str:
        """Return the order of numbers as `struct` says it; "" of a block that is none."""
        return self._order

    @property
    def camera_profile(self) -> bytes | None:
        """Return the profile of what a camera's EXIF block states: Adobe RGB's, or None."""
        if not self.is_adobe_rgb:
            return None
        from upscaled.image.colour import ADOBE_RGB, ADOBE_RGB_CURVE, make_rgb_profile

        return make_rgb_profile(ADOBE_RGB, ADOBE_RGB_CURVE)

    @property
    def is_adobe_rgb(self) -> bool:
        """Return whether a camera states DCF 2.0's optional colour space, by its index "R03"."""
        details = self.directory(EXIF_DIRECTORY)
        index = details.directory(_INTEROPERABILITY_DIRECTORY).text(_INTEROPERABILITY_INDEX)
        return details.whole(COLOUR_SPACE) == _UNCALIBRATED and index == _DCF_OPTION_FILE

    @property
    def orientation(self) -> int:
        """Return how the stored image is to be turned, 1 to 8; `UPRIGHT` without a sane value."""
        value = self.whole(ORIENTATION)
        return value if value is not None and 1 <= value <= 8 else UPRIGHT

    def ratio(self, tag: int) -> float | None:
        """Read a tag's single fraction."""
        kind, count, at = self._entries.get(tag, (0, 0, 0))
        pair = self._value(at, 8) if (kind, count) == (_RATIO, 1) else b""
        if len(pair) != 8:
            return None
        above, below = struct.unpack(f"{self._order}II", pair)
        return above / below if below else None

    def whole(self, tag: int) -> int | None:
        """Read a tag's single whole number, signed or not."""
        kind, count, at = self._entries.get(tag, (0, 0, 0))
        if kind not in _WHOLE or count != 1:
            return None
        code = f"{self._order}{_WHOLE[kind]}"
        data = self._value(at, struct.calcsize(code))
        return int(struct.unpack(code, data)[0]) if len(data) == struct.calcsize(code) else None

    def text(self, tag: int) -> str:
        """Read a tag's text, to its first NUL; "" where there is none. UTF-8, else Latin-1."""
        kind, count, at = self._entries.get(tag, (0, 0, 0))
        if kind != _TEXT:
            return ""
        count = min(count, _MOST_TEXT_BYTES)
        raw = self._value(at, count).partition(b"\x00")[0].strip()
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            return raw.decode("latin-1")

    def raw(self, tag: int, most_bytes: int) -> RawValue | None:
        """Read a tag's value; None where it is larger, not all there, or of an unknown kind."""
        kind, count, at = self._entries.get(tag, (0, 0, 0))
        length = count * _KIND_BYTES.get(kind, 0)
        if not 0 < length <= most_bytes:
            return None
        data = self._value(at, length)
        return RawValue(kind, count, data) if len(data) == length else None

    def directory(self, tag: int) -> "Exif":
        """Read the directory that a tag refers to; empty where there is none."""
        at = self.whole(tag)
        return Exif(b"" if at is None or at < 0 else self._tiff, at)

    def _value(self, at: int, length: int) -> bytes:
        """Return a value, from its entry where that has room, else from where it refers to."""
        start = at if length <= struct.calcsize(self._offset_code) else self._offset(at)
        return self._tiff[start : start + length]

    def _offset(self, at: int) -> int:
        (start,) = struct.unpack_from(self._offset_code, self._tiff, at)
        return int(start)


def iterate_directory(
    tiff: bytes, order: str, at: int, *, is_big: bool = False
) -> Iterator[tuple[int, int, int, int]]:
    """Iterate over the entries of a directory; raises struct.error where it is cut short.

    Yields tag, kind, count, and where the value or its offset stands. `order` is "<" or ">";
    `is_big` is for BigTIFF.
    """
    head, entry, value_bytes = ("Q", "HHQ", 8) if is_big else ("H", "HHI", 4)
    if at > len(tiff):  # further than `struct` can count
        raise struct.error("a directory behind the end")
    (entries,) = struct.unpack_from(order + head, tiff, at)
    at += struct.calcsize(head)
    for _ in range(min(entries, _MAX_ENTRIES)):
        tag, kind, count = struct.unpack_from(order + entry, tiff, at)
        at += struct.calcsize(order + entry)
        if at + value_bytes > len(tiff):
            raise struct.error("a directory is cut short")
        yield tag, kind, count, at
        at += value_bytes


def upright_size(width_px: int, height_px: int, orientation: int) -> tuple[int, int]:
    """Return (width, height) of a stored image once it is turned upright."""
    return (height_px, width_px) if swaps_sides(orientation) else (width_px, height_px)


def read_dpi(exif: Exif, format_dpi: object, orientation: int) -> Dpi | None:
    """Read the pixels an inch, across and down, of the upright image.

    The format's own field, as Pillow found it, goes before EXIF's where it makes sense; both
    describe the stored image, which `orientation` turns.
    """
    dpi = _sensible(format_dpi) or _sensible(_exif_dpi(exif))
    return (dpi[1], dpi[0]) if dpi and swaps_sides(orientation) else dpi


def _exif_dpi(exif: Exif) -> object:
    per_inch = _UNITS_PER_INCH.get(exif.whole(RESOLUTION_UNIT) or INCH)
    across, down = exif.ratio(X_RESOLUTION), exif.ratio(Y_RESOLUTION)
    if not per_inch or not across or not down:
        return None
    return across * per_inch, down * per_inch


def _sensible(dpi: object) -> Dpi | None:
    if not isinstance(dpi, tuple) or len(dpi) != 2:
        return None
    try:
        across, down = (float(side) for side in dpi)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    is_sensible = all(math.isfinite(side) and 1 <= side <= _MAX_DPI for side in (across, down))
    return (across, down) if is_sensible else None


def read_credit(exif: Exif) -> Credit | None:
    """Read the author and the copyright of an image; None where its file has neither."""
    credit = Credit(artist=exif.text(ARTIST), copyright=exif.text(COPYRIGHT))
    return credit if credit.artist or credit.copyright else None


def write_exif(credit: Credit | None, dpi: Dpi | None = None) -> bytes:
    """Write an EXIF block, without its "Exif" prefix, that holds these alone; b"" for neither.

    dpi: of a format that has no other place for it.
    """
    from PIL.Image import Exif as ExifWriter

    exif = ExifWriter()
    if dpi is not None:
        exif.update({X_RESOLUTION: dpi[0], Y_RESOLUTION: dpi[1], RESOLUTION_UNIT: INCH})
    for tag, text in (
        (ARTIST, credit.artist if credit else ""),
        (COPYRIGHT, credit.copyright if credit else ""),
    ):
        if text:
            exif[tag] = text.encode()
    return exif.tobytes().removeprefix(_PREFIX) if exif else b""


def exif_of_result(image: Image, dpi: Dpi | None = None) -> bytes:
    """Return the EXIF block of a result's file: the one that is kept, else of credit and `dpi`."""
    kept = image.kept.exif if image.kept else b""
    return kept or write_exif(image.credit, dpi)
