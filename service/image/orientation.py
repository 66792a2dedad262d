"""EXIF orientation: read from an EXIF block, and applied to pixels.

Only the tag's own value is read, by a reader that cannot fail: whatever else is broken in a
camera's EXIF block is no reason to refuse its picture.
"""

import struct
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Pixels = TypeVar("Pixels", bound=NDArray[np.generic])

UPRIGHT: Final = 1
_ORIENTATION_TAG: Final = 0x0112
_SHORT: Final = 3
_ENTRY_BYTES: Final = 12


def read_orientation(exif: bytes) -> int:
    """The orientation, 1 to 8, in an EXIF block with or without its "Exif" prefix.

    1 (upright) where the block is broken, or holds none or a senseless one. TIFF 6.0, section 2;
    only the first directory counts: the second describes the thumbnail.
    """
    tiff = exif.removeprefix(b"Exif\x00\x00")
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(tiff[:4])
    if order is None or len(tiff) < 8:
        return UPRIGHT
    (directory_at,) = struct.unpack_from(f"{order}I", tiff, 4)
    if directory_at + 2 > len(tiff):
        return UPRIGHT
    (entry_count,) = struct.unpack_from(f"{order}H", tiff, directory_at)
    first_at = directory_at + 2
    for at in range(first_at, first_at + entry_count * _ENTRY_BYTES, _ENTRY_BYTES):
        if at + _ENTRY_BYTES > len(tiff):
            break
        tag, kind, count, value = struct.unpack_from(f"{order}HHIH", tiff, at)
        if tag == _ORIENTATION_TAG:
            return value if kind == _SHORT and count == 1 and 1 <= value <= 8 else UPRIGHT
    return UPRIGHT


def swaps_sides(orientation: int) -> bool:
    """Whether turning upright exchanges width and height."""
    return orientation >= 5


def turn_upright(pixels: "Pixels", orientation: int) -> "Pixels":
    """A view of `[H, W, ...]` pixels, turned and mirrored as orientation 1 to 8 asks.

    EXIF 2.32, table of tag 274: the values name where the stored row 0 and column 0 are seen.
    """
    if swaps_sides(orientation):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]  # type: ignore[assignment]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]  # type: ignore[assignment]
    return pixels
