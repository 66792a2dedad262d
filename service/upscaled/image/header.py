"""Opening a file as far as its header: the one place where a decoder is shown bytes.

The decoder is called by name instead of through `PIL.Image.open`: only the formats of the
allow-list are ever tried, nothing is registered globally, and the size is judged here, before a
decoder in C sees the file.
"""

import struct
import zlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Final

from PIL.Image import DecompressionBombError
from PIL.ImageFile import ImageFile

from upscaled.errors import MalformedImage, ResolutionTooHigh, UnsupportedImageFormat
from upscaled.image.formats.isobmff.items import hide_exif
from upscaled.image.formats.isobmff.transforms import Rectangle
from upscaled.image.formats.jpeg.reader import open_jpeg
from upscaled.image.formats.jpeg.structure import Structure, read_structure
from upscaled.image.formats.png.pixels import PngPicture
from upscaled.image.formats.png.structure import PngParts, read_png_parts
from upscaled.image.formats.sniff import ENABLED, sniff
from upscaled.image.formats.webp.structure import read_picture
from upscaled.image.head import Head, read_head
from upscaled.image.orientation import UPRIGHT, read_orientation, swaps_sides

# No setting goes beyond it: a decoder never allocates more, whoever asks.
MAX_PIXELS: Final = 100_000_000
# How often Pillow may ask for bytes: about 0.1 s of work before the pixels, 2 s among them.
MAX_HEADER_READS: Final = 20_000
MAX_PIXEL_READS: Final = 500_000

# What Pillow's readers, libheif's and our own are known to raise on broken bytes.
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
    StopIteration,
    RuntimeError,
    struct.error,
    zlib.error,
)


@dataclass(frozen=True, slots=True)
class Header:
    """An opened file whose pixels are not decoded yet.

    `picture` is Pillow's view of the file `source` in stored orientation; of a WebP the file holds
    the first picture alone. `orientation` is EXIF's, 1 to 8; `bit_depth` that of a channel or
    palette index. `png`: a PNG's chunks, `jpeg`: a JPEG's parts, else None. `crop_px` is what is
    kept of the picture before it is turned, None for all.
    """

    source: bytes
    picture: ImageFile
    format: str
    orientation: int
    bit_depth: int
    png: PngParts | None = None
    jpeg: Structure | None = None
    crop_px: Rectangle | None = None

    @property
    def upright_size_px(self) -> tuple[int, int]:
        """(width, height) once crop and orientation are applied."""
        width, height = self.picture.size
        if self.crop_px is not None:
            left, top, right, bottom = self.crop_px
            width, height = right - left, bottom - top
        return (height, width) if swaps_sides(self.orientation) else (width, height)

    @property
    def has_alpha(self) -> bool:
        return (
            self.picture.mode in ("RGBA", "LA", "La", "PA") or "transparency" in self.picture.info
        )

    @property
    def icc(self) -> bytes | None:
        """The embedded profile's bytes, sound or not."""
        return self.picture.info.get("icc_profile") or None


def admit(source: bytes, formats: Collection[str]) -> str:
    """The format's name, one of `formats`.

    Raises:
        MalformedImage: no bytes, or no image.
        UnsupportedImageFormat: a known format that is not among them.
    """
    format_name = sniff(source)
    if format_name is None:
        raise MalformedImage(detail="no known image format")
    if format_name not in formats:
        raise UnsupportedImageFormat(detail=format_name)
    return format_name


def open_header(source: bytes, formats: Collection[str] = ENABLED) -> Header:
    """Open an encoded file without decoding its pixels.

    Raises:
        MalformedImage: no bytes, no image, or a broken header.
        UnsupportedImageFormat: a known format that is not among `formats`.
        ResolutionTooHigh: more than `MAX_PIXELS`.
    """
    format_name = admit(source, formats)
    try:
        head = read_head(source, format_name)
        if head is not None:
            refuse_too_large(head)
        header = _open(source, format_name, head)
    except DecompressionBombError as error:
        raise ResolutionTooHigh(detail=str(error)) from error
    except BROKEN_FILE_ERRORS as error:
        raise MalformedImage(detail=f"{format_name} header: {error}") from error
    width, height = header.upright_size_px
    refuse_too_large(Head(width, height, header.has_alpha))
    if head is not None and (head.width_px, head.height_px) != (width, height):
        raise MalformedImage(detail=f"{width} x {height} is not what the head says: {head}")
    if head is not None and head.has_alpha != header.has_alpha:
        raise MalformedImage(detail=f"alpha {header.has_alpha} is not what the head says")
    return header


def refuse_too_large(head: Head) -> None:
    """Raises `ResolutionTooHigh` beyond what any setting allows, before a crop too."""
    if max(head.width_px * head.height_px, head.decoded_pixels) > MAX_PIXELS:
        raise ResolutionTooHigh(detail=f"{head.width_px} x {head.height_px}")


def _open(source: bytes, format_name: str, head: Head | None) -> Header:
    if format_name == "PNG":
        return _open_png(source)
    if format_name == "JPEG":
        return _open_jpeg(source)
    if format_name == "WEBP":
        source = read_picture(source).to_file()
    file = _LimitedFile(source)
    picture = _READERS[format_name](file)
    file.reads_left = MAX_PIXEL_READS
    return Header(
        source=source,
        picture=picture,
        format=format_name,
        orientation=_read_orientation(picture, format_name),
        bit_depth=8,
        crop_px=head.crop_px if head is not None else None,
    )


def _open_png(source: bytes) -> Header:
    png = read_png_parts(source)
    return Header(
        source=source,
        picture=PngPicture(png),
        format="PNG",
        orientation=read_orientation(png.find(b"eXIf")),
        bit_depth=png.header.bit_depth,
        png=png,
    )


def _read_orientation(picture: ImageFile, format_name: str) -> int:
    """What is left to be turned: Pillow and libheif turn TIFF and HEIC themselves."""
    if format_name in ("TIFF", "HEIC"):
        return UPRIGHT
    return read_orientation(picture.info.get("exif") or b"")


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


def _open_jpeg(source: bytes) -> Header:
    """Pillow is given the parts that carry pixels; the metadata is what `read_structure` found."""
    structure = read_structure(source)
    source = structure.join()
    picture = open_jpeg(source)
    picture.info["exif"] = structure.exif
    picture.info["icc_profile"] = structure.icc
    orientation = read_orientation(structure.exif or b"")
    return Header(source, picture, "JPEG", orientation, bit_depth=8, jpeg=structure)


# The further readers are loaded when they are needed, which is never in the front end.
def _open_webp(file: BytesIO) -> ImageFile:
    from PIL.WebPImagePlugin import WebPImageFile

    return WebPImageFile(file)


def _open_avif(file: BytesIO) -> ImageFile:
    from PIL import AvifImagePlugin

    AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # more only hold memory
    try:
        return AvifImagePlugin.AvifImageFile(file)
    except BROKEN_FILE_ERRORS:
        # A broken EXIF block is an error to libavif and Pillow. The turn stands in other boxes.
        return AvifImagePlugin.AvifImageFile(_LimitedFile(hide_exif(file.getvalue())))


def _open_bmp(file: BytesIO) -> ImageFile:
    from PIL.BmpImagePlugin import BmpImageFile

    from upscaled.image.bmp_alpha import drop_empty_alpha

    picture = BmpImageFile(file)
    drop_empty_alpha(picture, file.getbuffer())
    return picture


def _open_heic(file: BytesIO) -> ImageFile:
    from pillow_heif import options
    from pillow_heif.as_plugin import HeifImageFile

    options.DECODE_THREADS = 1
    options.THUMBNAILS = options.DEPTH_IMAGES = options.AUX_IMAGES = False
    picture: ImageFile = HeifImageFile(file)  # type: ignore[no-untyped-call]
    return picture


def _open_tiff(file: BytesIO) -> ImageFile:
    from PIL.TiffImagePlugin import TiffImageFile

    try:
        return TiffImageFile(file)
    except SyntaxError as error:  # a kind of pixels that Pillow does not know
        raise UnsupportedImageFormat(detail=f"TIFF: {error}") from error


_READERS: Final[Mapping[str, Callable[[BytesIO], ImageFile]]] = {
    "AVIF": _open_avif,
    "BMP": _open_bmp,
    "HEIC": _open_heic,
    "TIFF": _open_tiff,
    "WEBP": _open_webp,
}
