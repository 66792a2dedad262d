"""Define and list the image formats, recognise a file's format by its bytes, and read its header.

A header is read once in the front end, and once in the decoder. A new format is a row here and the
module that reads it.
"""

import struct
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Final, Protocol, cast

from upscaled.errors import MalformedImage, ResolutionTooHigh, UnsupportedImageFormat
from upscaled.image.types import UPRIGHT, Header, Image, Rectangle

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

    from upscaled.image.metadata import Exif


BROKEN_FILE_ERRORS: Final = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    OverflowError,
    IndexError,
    KeyError,
    TypeError,
    AssertionError,
    StopIteration,
    RuntimeError,
    struct.error,
    zlib.error,
)
"""Errors that Pillow's readers, libheif's and our own are known to raise on broken bytes."""


@dataclass(frozen=True, slots=True)
class Stored:
    """File that its decoder has opened; its pixels are neither decoded nor turned yet.

    opened: Pillow's view of the file.
    exif: the file's EXIF block, empty without one.
    icc: the profile of the pixels, sound or not; None for sRGB, and where the file does not say.
    dpi: what stands in the format's own field of the resolution, None without one.
    orientation: how decoded pixels are still to be turned, as EXIF numbers it (1 to 8).
    crop_px: what is kept of decoded pixels before they are turned; None for all.
    jpeg_quality: see `upscaled.image.types.Image`.
    transparent_level: the level of grey, of 0 to 255, that is transparent; None for none.
    xmp: the file's XMP packet, sound or not; b"" without one.
    """

    opened: "ImageFile"
    exif: "Exif"
    icc: bytes | None
    dpi: object = None
    orientation: int = UPRIGHT
    crop_px: Rectangle | None = None
    jpeg_quality: int | None = None
    transparent_level: int | None = None
    xmp: bytes = b""


class Reader(Protocol):
    """Functions of a format's module.

    Both raise `BROKEN_FILE_ERRORS` over a broken file, also where a decoder would make up pixels
    that are damaged or missing without an error.
    """

    def read_header(self, source: bytes) -> Header:
        """Read a file's header without any code in C, as is safe in the front end."""

    def open_stored(self, source: bytes, header: Header) -> Stored:
        """Open a file, of which `read_header` made the header, in a decoder process."""


class Writer(Protocol):
    """An image that is written strip by strip, while its pixels still come in from the top."""

    @property
    def strip_px(self) -> int:
        """Rows of a strip; the last one may have fewer."""

    def compress(self, top: int, bottom: int) -> bytes:
        """Compress the rows of one strip; several threads may, each another strip."""

    def join(self, strips: Iterable[bytes]) -> Iterator[bytes | memoryview]:
        """Yield the file piece by piece, at least one for each strip before the next is taken."""


@dataclass(frozen=True, slots=True)
class Format:
    """Image format that can be decoded, and encoded where it has a media type.

    name: Pillow's name of it, which settings, logs and reports use too.
    module: the name of the module that reads it, imported when it is needed.
    signatures: a file begins with one of these.
    brands: those of an ISO base media file in this format, instead of a signature.
    is_optional: decoded only where the setting `extra_formats` names it.
    reports_damage_on_stderr: its decoder reports damaged pixels there and nowhere else.
    media_type: of a file that is written in this format; "" where none is.
    writer: the module and the class that write it, imported when it is needed.
    is_deep: what is written holds 16 bits a channel too.
    suffixes: of its files' names, the usual one first; by default the name in small letters.
    label: the name as texts for people write it; by default as it is.
    usual_quality: that of its encoder, where no setting says it; 0 for a format without any.
    max_side_px: the longest side that a file of it may have; 0 for one as long as any result.
    encode_s_per_px: seconds of a core for a pixel of a result, where its encoder begins when all
        pixels are there; 0 where it begins with the first ones.
    encode_bytes_per_px: the memory of such an encoder.
    """

    name: str
    module: str
    signatures: tuple[bytes, ...] = ()
    brands: tuple[bytes, ...] = ()
    is_optional: bool = False
    reports_damage_on_stderr: bool = False
    media_type: str = ""
    writer: str = ""
    is_deep: bool = False
    suffixes: tuple[str, ...] = ()
    label: str = ""
    usual_quality: int = 0
    max_side_px: int = 0
    encode_s_per_px: float = 0.0
    encode_bytes_per_px: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "suffixes", self.suffixes or (self.name.lower(),))
        object.__setattr__(self, "label", self.label or self.name)

    @property
    def suffix(self) -> str:
        return self.suffixes[0]

    @property
    def reader(self) -> Reader:
        return cast(Reader, import_module(f"upscaled.image.formats.{self.module}"))

    def open_writer(self, image: Image, quality: int) -> Writer:
        """Return the writer of an image, which may hold unfinished pixels yet.

        Raises:
            ValueError: the image has 16 bits a channel, and the format does not.
        """
        if image.is_deep and not self.is_deep:
            raise ValueError(f"{self.name} does not hold 16 bits a channel")
        module, name = self.writer.rsplit(".", 1)
        writer = getattr(import_module(f"upscaled.image.formats.{module}"), name)
        return cast(Writer, writer(image, quality))


JPEG: Final = Format(
    "JPEG",
    "jpeg.reader",
    signatures=(b"\xff\xd8\xff",),
    media_type="image/jpeg",
    writer="jpeg.writer.JpegWriter",
    suffixes=("jpg", "jpeg", "jpe", "jfif"),
)
PNG: Final = Format(
    "PNG",
    "png.reader",
    signatures=(b"\x89PNG\r\n\x1a\n",),
    media_type="image/png",
    writer="png.writer.PngWriter",
    is_deep=True,
)
# A photo of 1280 x 960 takes 48 % of the bytes of a JPEG of quality 95 as WebP or as AVIF; it is
# 42 dB (WebP) and 45 dB (AVIF) from what was encoded. Memory as measured: AVIF 45 bytes, WebP 13,
# with a cut-out's alpha 18 and with noise in it 37.
WEBP: Final = Format(
    "WEBP",  # its signature is in two pieces: see `sniff`
    "webp.reader",
    media_type="image/webp",
    writer="whole_file.WebpWriter",
    label="WebP",
    usual_quality=90,
    max_side_px=16_383,  # RFC 9649, 2.6
    encode_s_per_px=8.5e-8,
    encode_bytes_per_px=38,
)
AVIF: Final = Format(
    "AVIF",
    "isobmff.avif",
    brands=(b"avif", b"avis"),
    is_optional=True,
    media_type="image/avif",
    writer="whole_file.AvifWriter",
    usual_quality=85,
    encode_s_per_px=1.4e-7,
    encode_bytes_per_px=46,
)
_TABLE: Final = (
    JPEG,
    PNG,
    WEBP,
    AVIF,
    Format("BMP", "bmp", signatures=(b"BM",), is_optional=True),
    Format(
        "HEIC",
        "isobmff.heic",
        brands=(b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"),
        is_optional=True,
        suffixes=("heic", "heif"),
    ),
    Format(
        "TIFF",
        "tiff",
        # DNG, CR2, NEF and ARW begin so too; the reader refuses them. The last two are BigTIFF's.
        signatures=(b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+"),
        is_optional=True,
        reports_damage_on_stderr=True,
        suffixes=("tif", "tiff"),
    ),
)

FORMATS: Final[Mapping[str, Format]] = {each.name: each for each in _TABLE}
"""Every format that can be decoded, by its name."""
ENCODED: Final = tuple(each for each in _TABLE if each.media_type)
"""Formats that a result may have."""
ALWAYS_DECODED: Final = frozenset(each.name for each in _TABLE if not each.is_optional)
OPTIONAL: Final = frozenset(each.name for each in _TABLE if each.is_optional)
"""Decoded where the setting `extra_formats` names them."""

# Brands of ISO base media files that hold a still image (ISO/IEC 23008-12, AV1 image format).
_BRANDS: Final = {
    **{brand: each.name for each in _TABLE for brand in each.brands},
    b"crx ": "RAW",  # Canon CR3
}
# They say that there are images, and not how these are coded: HEIC in practice.
_GENERAL_BRANDS: Final = frozenset({b"mif1", b"msf1", b"miaf"})

MAX_PIXELS: Final = 100_000_000
"""Pixels that a decoder may allocate for one file; no setting goes beyond it."""


def sniff(source: bytes) -> str | None:
    """Recognise a format ("JPEG", "PNG", "GIF" ...); None where the bytes are no image.

    Looks at the first 4 KB and the last 18 bytes at most.
    """
    if source[:4] == b"RIFF" and source[8:12] == b"WEBP":
        return WEBP.name
    for each in _TABLE:
        if source.startswith(each.signatures):
            return each.name
    if name := _sniff_iso_media(source):
        return name
    from upscaled.image.formats.refused import sniff_refused

    return sniff_refused(source)


def _sniff_iso_media(source: bytes) -> str | None:
    if source[4:8] != b"ftyp":
        return None
    box_bytes = min(int.from_bytes(source[:4], "big"), 256)
    brands = [source[8:12], *(source[at : at + 4] for at in range(16, box_bytes, 4))]
    for brand in brands:
        if brand in _BRANDS:
            return _BRANDS[brand]
    return None if _GENERAL_BRANDS.isdisjoint(brands) else "HEIC"


def read_header(source: bytes, formats: Collection[str] = ALWAYS_DECODED) -> Header:
    """Read the format, upright size and transparency of an image file; no pixel is decoded.

    It loads no decoder: the front end calls it beside keys and credits.

    Args:
        source: the file's bytes. Its name and media type are never trusted.
        formats: names of the formats that are decoded here.

    Raises:
        MalformedImage: no bytes, no image, or a broken header.
        UnsupportedImageFormat: a known format that is not among `formats` (GIF, PDF ...).
        ResolutionTooHigh: more than `MAX_PIXELS`, before a crop too.
    """
    name = sniff(source)
    if name is None:
        raise MalformedImage(detail="no known image format")
    if name not in formats:
        raise UnsupportedImageFormat(f"Unsupported image format: {name}")
    try:
        header = FORMATS[name].reader.read_header(source)
    except BROKEN_FILE_ERRORS as error:
        raise MalformedImage(detail=f"{name} header: {error}") from error
    if header.width_px < 1 or header.height_px < 1:
        raise MalformedImage(detail=f"{name} header: a side of no pixels")
    if max(header.width_px * header.height_px, header.decoded_pixels) > MAX_PIXELS:
        raise ResolutionTooHigh(detail=f"{header.width_px} x {header.height_px}")
    return header
