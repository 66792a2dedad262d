"""Opening a file as far as its header: the one place where Pillow is shown bytes.

The decoder is called by name instead of through `PIL.Image.open`: only the formats of the
allow-list are ever tried, nothing is registered globally, and the size is judged here.
"""

import struct
import zlib
from dataclasses import dataclass
from io import BytesIO
from typing import Final

from PIL import JpegImagePlugin, PngImagePlugin, WebPImagePlugin
from PIL.Image import DecompressionBombError
from PIL.ImageFile import ImageFile

from service.errors import MalformedImage, ResolutionTooHigh, UnsupportedImageFormat
from service.image.orientation import read_orientation, swaps_sides
from service.image.png_chunks import find_exif, read_bit_depth
from service.image.sniff import ENABLED, sniff

# No setting goes beyond it: a decoder never allocates more, whoever asks.
MAX_PIXELS: Final = 100_000_000

# What Pillow's readers are known to raise on broken bytes.
BROKEN_FILE_ERRORS: Final = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    OverflowError,
    IndexError,
    KeyError,
    TypeError,
    AttributeError,
    AssertionError,
    struct.error,
    zlib.error,
)


@dataclass(frozen=True, slots=True)
class Header:
    """An opened file whose pixels are not decoded yet.

    `picture` is Pillow's, in stored orientation; `orientation` is EXIF's, 1 to 8; `bit_depth` is
    that of a channel, or of a palette's index.
    """

    picture: ImageFile
    format: str
    orientation: int
    bit_depth: int

    @property
    def upright_size_px(self) -> tuple[int, int]:
        """(width, height) once the orientation is applied."""
        width, height = self.picture.size
        return (height, width) if swaps_sides(self.orientation) else (width, height)

    @property
    def has_alpha(self) -> bool:
        return self.picture.mode in ("RGBA", "LA", "PA") or "transparency" in self.picture.info

    @property
    def icc(self) -> bytes | None:
        """The embedded profile's bytes, sound or not."""
        return self.picture.info.get("icc_profile") or None


def open_header(source: bytes) -> Header:
    """Open an encoded JPEG, PNG or WebP without decoding its pixels.

    Raises:
        MalformedImage: no bytes, no image, or a broken header.
        UnsupportedImageFormat: a known format that is not enabled.
        ResolutionTooHigh: more than `MAX_PIXELS`.
    """
    format_name = sniff(source)
    if format_name is None:
        raise MalformedImage(detail="no known image format")
    if format_name not in ENABLED:
        raise UnsupportedImageFormat(detail=format_name)
    try:
        picture = _open_picture(source, format_name)
    except DecompressionBombError as error:
        raise ResolutionTooHigh(detail=str(error)) from error
    except BROKEN_FILE_ERRORS as error:
        raise MalformedImage(detail=f"{format_name} header: {error}") from error
    if picture.width * picture.height > MAX_PIXELS:
        raise ResolutionTooHigh(detail=f"{picture.width}x{picture.height}")
    is_png = format_name == "PNG"
    exif = find_exif(source) if is_png else picture.info.get("exif", b"")
    return Header(
        picture,
        format_name,
        orientation=read_orientation(exif),
        bit_depth=read_bit_depth(source) if is_png else 8,
    )


class _JpegFile(JpegImagePlugin.JpegImageFile):
    """A JPEG whose EXIF block is left alone: Pillow would look for a resolution in it, and warn."""

    def _read_dpi_from_exif(self) -> None:
        pass


def _open_picture(source: bytes, format_name: str) -> ImageFile:
    file = BytesIO(source)
    if format_name == "JPEG":
        return _JpegFile(file)
    if format_name == "PNG":
        return PngImagePlugin.PngImageFile(file)
    return WebPImagePlugin.WebPImageFile(file)
