"""The nouns of this package: what a header tells, the pixels themselves, what goes with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the front end reads headers only, and loads no numpy for it
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What the header alone tells, before any pixel is decoded.

    `format` is Pillow's name ("JPEG", "PNG", "WEBP"); `width_px` and `height_px` are upright, the
    EXIF orientation applied. `has_alpha` holds for RGBA, LA, palette or tRNS transparency, also
    when every pixel is opaque. `is_deep`: decoding gives 16 bits a channel. `decoded_pixels`: how
    many a decoder holds, 0 where that is width x height because the file crops nothing away.
    """

    format: str
    width_px: int
    height_px: int
    has_alpha: bool
    is_deep: bool = False
    decoded_pixels: int = 0


@dataclass(frozen=True, slots=True)
class Credit:
    """Who made a picture and whose it is, as its file says; "" where it does not."""

    artist: str = ""
    copyright: str = ""


@dataclass(frozen=True, slots=True)
class Image:
    """Upright pixels, with 8 or 16 bits a channel.

    rgb: uint8 or uint16 `[H, W, 3]` in RGB order. alpha: `[H, W]` of the same type, its highest
    value opaque, or None.
    icc: profile bytes that describe `rgb`, or None for sRGB.
    dpi: pixels an inch (across, down), or None where the source does not say.
    """

    rgb: NDArray[np.uint8 | np.uint16]
    alpha: NDArray[np.uint8 | np.uint16] | None = None
    icc: bytes | None = None
    dpi: tuple[float, float] | None = None
    credit: Credit | None = None

    @property
    def height_px(self) -> int:
        return int(self.rgb.shape[0])

    @property
    def width_px(self) -> int:
        return int(self.rgb.shape[1])
