"""Opening a file as far as its header: the one place where Pillow is shown bytes.

The decoder is called by name instead of through `PIL.Image.open`: only the formats of the
allow-list are ever tried, nothing is registered globally, and the size is judged here.
"""

import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Final

from PIL import JpegImagePlugin, PngImagePlugin, WebPImagePlugin
from PIL.Image import DecompressionBombError
from PIL.ImageFile import ImageFile

from service.errors import MalformedImage, ResolutionTooHigh, UnsupportedImageFormat
from service.image.orientation import read_orientation, swaps_sides
from service.image.png_chunks import find_exif, read_bit_depth, without_animation
from service.image.sniff import ENABLED, sniff
from service.image.webp import read_canvas_px

# No setting goes beyond it: a decoder never allocates more, whoever asks.
MAX_PIXELS: Final = 100_000_000
# How often Pillow may ask for bytes: about 0.1 s of work before the pixels, 2 s among them.
MAX_HEADER_READS: Final = 20_000
MAX_PIXEL_READS: Final = 500_000
# Each scan of a progressive JPEG is a pass over all its pixels, and may take 10 bytes. Programs
# write about 10 scans; libjpeg-turbo's own fuzzers stop at 500.
MAX_SCANS: Final = 500
_START_OF_SCAN: Final = b"\xff\xda"

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

    `source` is the file without any animation, `picture` Pillow's view of it in stored
    orientation. `orientation` is EXIF's, 1 to 8; `bit_depth` that of a channel or palette index.
    """

    source: bytes
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
    if format_name == "WEBP":
        _refuse_too_large(read_canvas_px(source) or (0, 0))
    try:
        header = _open(source, format_name)
    except DecompressionBombError as error:
        raise ResolutionTooHigh(detail=str(error)) from error
    except BROKEN_FILE_ERRORS as error:
        raise MalformedImage(detail=f"{format_name} header: {error}") from error
    _refuse_too_large(header.picture.size)
    return header


def _refuse_too_large(size_px: tuple[int, int]) -> None:
    width, height = size_px
    if width * height > MAX_PIXELS:
        raise ResolutionTooHigh(detail=f"{width} x {height}")


def _open(source: bytes, format_name: str) -> Header:
    if format_name == "PNG":
        source = without_animation(source)
    if format_name == "JPEG" and source.count(_START_OF_SCAN) > MAX_SCANS:
        raise ValueError(f"more than {MAX_SCANS} scans")
    file = _LimitedFile(source)
    picture = _READERS[format_name](file)
    file.reads_left = MAX_PIXEL_READS
    exif = find_exif(source) if format_name == "PNG" else picture.info.get("exif", b"")
    return Header(
        source=source,
        picture=picture,
        format=format_name,
        orientation=read_orientation(exif),
        bit_depth=read_bit_depth(source) if format_name == "PNG" else 8,
    )


class _LimitedFile(BytesIO):
    """A file that may be asked for bytes only so often.

    Pillow walks a header piece by piece in Python: of 25 MB in pieces of 4 bytes it would make
    20 s of work.
    """

    reads_left = MAX_HEADER_READS

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads_left -= 1
        if self.reads_left < 0:
            raise OSError("too many pieces")
        return super().read(size)


class _JpegFile(JpegImagePlugin.JpegImageFile):
    """A JPEG whose EXIF block is left alone: Pillow would look for a resolution in it, and warn."""

    def _read_dpi_from_exif(self) -> None:
        pass


_READERS: Final[Mapping[str, Callable[[BytesIO], ImageFile]]] = {
    "JPEG": _JpegFile,
    "PNG": PngImagePlugin.PngImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
}
