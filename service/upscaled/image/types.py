"""Types of this package: a file's header, an image's pixels, and what goes with them.

The front end reads headers alone, so nothing here loads numpy.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


UPRIGHT: Final = 1
"""The EXIF orientation of an image that is stored as it is shown."""

Rectangle = tuple[int, int, int, int]
"""(left, top, right, bottom) in pixels, the last two excluded."""


@dataclass(frozen=True, slots=True)
class Header:
    """Header of an image file, read once in a process and handed on.

    format: the name of a row of `upscaled.image.formats.table`.
    width_px, height_px: the upright size, after the crop and the rotation of the file.
    has_alpha: holds for RGBA, LA, palette or tRNS transparency, also when every pixel is opaque.
    is_deep: decoding gives 16 bits a channel.
    decoded_pixels: how many a decoder holds; 0 where that is width x height because the file crops
        nothing away.
    parts: what the format's reader parsed, for its own use when the file is decoded.
    """

    format: str
    width_px: int
    height_px: int
    has_alpha: bool
    is_deep: bool = False
    decoded_pixels: int = 0
    parts: Any = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Credit:
    """Author and owner of an image, as its file says; "" where it does not."""

    artist: str = ""
    copyright: str = ""


@dataclass(frozen=True, slots=True)
class MetadataPlan:
    """Plan of the metadata that a result keeps of its source.

    has_gps: also the place of the shot.
    width_px, height_px: the size of the result, which its metadata are to state.
    """

    has_gps: bool
    width_px: int
    height_px: int


@dataclass(frozen=True, slots=True)
class KeptMetadata:
    """Metadata of a source as its result has them; b"" for none.

    exif: a block without its "Exif" prefix. xmp: a packet.
    """

    exif: bytes = b""
    xmp: bytes = b""


@dataclass(frozen=True, slots=True)
class Image:
    """Upright pixels, with 8 or 16 bits a channel.

    rgb: uint8 or uint16 `[H, W, 3]` in RGB order.
    alpha: `[H, W]` of the same type, its highest value opaque, or None.
    icc: profile bytes that describe `rgb`, or None for sRGB.
    dpi: pixels an inch (across, down), or None where the source does not say.
    credit: the source's, or None without one.
    jpeg_quality: 1 to 100, the quality of JPEG whose loss is as great as that of the source; None
        for a file that was compressed without loss.
    kept: what goes into the result's file in place of the credit; None where nothing is kept.
    """

    rgb: NDArray[np.uint8 | np.uint16]
    alpha: NDArray[np.uint8 | np.uint16] | None = None
    icc: bytes | None = None
    dpi: tuple[float, float] | None = None
    credit: Credit | None = None
    jpeg_quality: int | None = None
    kept: KeptMetadata | None = None

    @property
    def has_alpha(self) -> bool:
        return self.alpha is not None

    @property
    def is_deep(self) -> bool:
        """Return whether a channel has 16 bits."""
        return self.rgb.dtype.itemsize == 2

    @property
    def height_px(self) -> int:
        return int(self.rgb.shape[0])

    @property
    def width_px(self) -> int:
        return int(self.rgb.shape[1])


def swaps_sides(orientation: int) -> bool:
    """Return whether turning an image of this orientation upright exchanges width and height."""
    return orientation >= 5
