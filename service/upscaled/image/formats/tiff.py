"""What the first directory of a TIFF file tells (TIFF 6.0, section 2), and of a BigTIFF.

Pillow's own reader copies every tag and lists every strip before it says how large the picture is,
which a hostile file makes 6 million of.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

# Tag -> what it is when it is not there.
_WIDTH, _HEIGHT, _PHOTOMETRIC, _SAMPLES, _ORIENTATION, _EXTRA = 256, 257, 262, 277, 274, 338
_WANTED: Final = frozenset({_WIDTH, _HEIGHT, _PHOTOMETRIC, _SAMPLES, _ORIENTATION, _EXTRA})
_SHORT_BYTES: Final = {1: 1, 3: 2, 4: 4, 16: 8}
_MAX_ENTRIES: Final = 65_535
# Pillow makes several objects of every number of a list. 6,000 rows in strips of their own, three
# times over, are 18,000 numbers; text and profiles are bytes and stay what they are.
_MAX_NUMBERS: Final = 100_000
_KINDS_OF_BYTES: Final = frozenset({1, 2, 6, 7})
_COLOURS: Final[Mapping[int, int]] = {0: 1, 1: 1, 2: 3, 3: 1}
_MEANT_AS_ALPHA: Final = frozenset({1, 2, 999})


@dataclass(frozen=True, slots=True)
class Directory:
    """Stored size, and what else the first directory tells of its picture."""

    width_px: int
    height_px: int
    orientation: int
    has_alpha: bool


def read_directory(source: bytes) -> Directory:
    """The first directory's facts.

    Raises:
        ValueError, struct.error: it is broken, or tells no size.
    """
    found = _read_tags(source)
    if _WIDTH not in found or _HEIGHT not in found:
        raise ValueError("no size")
    orientation = found.get(_ORIENTATION, 1)
    return Directory(
        width_px=found[_WIDTH],
        height_px=found[_HEIGHT],
        orientation=orientation if 1 <= orientation <= 8 else 1,
        has_alpha=_has_alpha(found),
    )


def _has_alpha(found: Mapping[int, int]) -> bool:
    """Whether there is a channel more than colour needs, and it is said to be alpha.

    With RGB it also counts as alpha where nothing is said of it: many programs forget to.
    """
    colours = _COLOURS.get(found.get(_PHOTOMETRIC, 0))
    if colours is None or found.get(_SAMPLES, 1) <= colours:
        return False
    return found[_EXTRA] in _MEANT_AS_ALPHA if _EXTRA in found else colours == 3


def _read_tags(source: bytes) -> dict[int, int]:
    """The first value of each wanted tag; where a tag comes twice, the first counts."""
    order = "<" if source[:2] == b"II" else ">"
    (version,) = struct.unpack_from(f"{order}H", source, 2)
    is_big = version == 43
    offset, count, entry, value_at = ("Q", "Q", 20, 12) if is_big else ("I", "H", 12, 8)
    (at,) = struct.unpack_from(f"{order}{offset}", source, 8 if is_big else 4)
    (entries,) = struct.unpack_from(f"{order}{count}", source, at)
    at += struct.calcsize(count)
    found: dict[int, int] = {}
    for here in range(at, at + min(entries, _MAX_ENTRIES) * entry, entry):
        tag, kind = struct.unpack_from(f"{order}HH", source, here)
        (values,) = struct.unpack_from(f"{order}{offset}", source, here + 4)
        if values > _MAX_NUMBERS and kind not in _KINDS_OF_BYTES:
            raise ValueError(f"tag {tag} of {values} numbers")
        if tag not in _WANTED or tag in found or kind not in _SHORT_BYTES:
            continue
        length = _SHORT_BYTES[kind]
        place = here + value_at
        if values * length > struct.calcsize(offset):
            (place,) = struct.unpack_from(f"{order}{offset}", source, place)
        value = source[place : place + length]
        if values and len(value) == length:
            found[tag] = int.from_bytes(value, "little" if order == "<" else "big")
    return found
