"""EXIF orientation: read from an EXIF block, and applied to pixels."""

from typing import TYPE_CHECKING, Final, TypeVar

from upscaled.image.exif import ORIENTATION, Exif

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Pixels = TypeVar("Pixels", bound=NDArray[np.generic])

UPRIGHT: Final = 1


def read_orientation(exif: bytes) -> int:
    """The orientation, 1 to 8, in an EXIF block with or without its "Exif" prefix.

    1 (upright) where the block is broken, or holds none or a senseless one.
    """
    value = Exif(exif).whole(ORIENTATION)
    return value if value is not None and 1 <= value <= 8 else UPRIGHT


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
