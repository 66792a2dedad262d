"""The tags of an EXIF block that this service knows: read without fail, and a few written.

Only the tags' own values are read, by a reader that cannot fail: whatever else is broken in a
camera's EXIF block is no reason to refuse its picture.
"""

import struct
from collections.abc import Mapping
from typing import Final

ORIENTATION: Final = 0x0112
X_RESOLUTION: Final = 0x011A
Y_RESOLUTION: Final = 0x011B
RESOLUTION_UNIT: Final = 0x0128
ARTIST: Final = 0x013B
COPYRIGHT: Final = 0x8298

_PREFIX: Final = b"Exif\x00\x00"
_ENTRY_BYTES: Final = 12
_TEXT, _SHORT, _RATIO = 2, 3, 5
_MOST_TEXT_BYTES: Final = 4096


class Exif:
    """The first directory of an EXIF block, with or without its "Exif" prefix (TIFF 6.0, 2).

    Broken blocks have the tags that can be found in them. The second directory describes the
    thumbnail and is not looked at.
    """

    def __init__(self, block: bytes) -> None:
        self._tiff = block.removeprefix(_PREFIX)
        self._order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(self._tiff[:4], "")
        self._entries = self._find_entries() if self._order and len(self._tiff) >= 8 else {}

    def short(self, tag: int) -> int | None:
        """A tag's single 16-bit number."""
        kind, count, at = self._entries.get(tag, (0, 0, 0))
        if (kind, count) != (_SHORT, 1):
            return None
        (value,) = struct.unpack_from(f"{self._order}H", self._tiff, at)
        return int(value)

    def ratio(self, tag: int) -> float | None:
        """A tag's single fraction."""
        kind, count, at = self._entries.get(tag, (0, 0, 0))
        pair = self._referenced(at, 8) if (kind, count) == (_RATIO, 1) else b""
        if len(pair) != 8:
            return None
        above, below = struct.unpack(f"{self._order}II", pair)
        return above / below if below else None

    def text(self, tag: int) -> str:
        """A tag's text, to its first NUL; "" where there is none. UTF-8, else Latin-1."""
        kind, count, at = self._entries.get(tag, (0, 0, 0))
        if kind != _TEXT:
            return ""
        count = min(count, _MOST_TEXT_BYTES)
        raw = self._tiff[at : at + count] if count <= 4 else self._referenced(at, count)
        raw = raw.partition(b"\x00")[0].strip()
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            return raw.decode("latin-1")

    def _find_entries(self) -> Mapping[int, tuple[int, int, int]]:
        """tag -> (kind, count, where its value or the value's place stands)."""
        tiff, order = self._tiff, self._order
        (directory_at,) = struct.unpack_from(f"{order}I", tiff, 4)
        if directory_at + 2 > len(tiff):
            return {}
        (entry_count,) = struct.unpack_from(f"{order}H", tiff, directory_at)
        entries: dict[int, tuple[int, int, int]] = {}
        first_at = directory_at + 2
        for at in range(first_at, first_at + entry_count * _ENTRY_BYTES, _ENTRY_BYTES):
            if at + _ENTRY_BYTES > len(tiff):
                break
            tag, kind, count = struct.unpack_from(f"{order}HHI", tiff, at)
            entries.setdefault(tag, (kind, count, at + 8))
        return entries

    def _referenced(self, at: int, length: int) -> bytes:
        (start,) = struct.unpack_from(f"{self._order}I", self._tiff, at)
        return self._tiff[start : start + length]


def write_texts(texts: Mapping[int, str]) -> bytes:
    """A TIFF block with these tags' texts in one directory; empty ones are left out."""
    values = {tag: text.encode() + b"\x00" for tag, text in sorted(texts.items()) if text}
    values_at = 8 + 2 + len(values) * _ENTRY_BYTES + 4
    entries, data = b"", b""
    for tag, value in values.items():
        is_inside = len(value) <= 4
        place = value.ljust(4, b"\x00") if is_inside else struct.pack(">I", values_at + len(data))
        entries += struct.pack(">HHI", tag, _TEXT, len(value)) + place
        data += b"" if is_inside else value + b"\x00" * (len(value) % 2)
    return struct.pack(">2sHIH", b"MM", 42, 8, len(values)) + entries + bytes(4) + data
