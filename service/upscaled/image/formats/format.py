"""Interface of an image format: its row of the table and the functions of its reader."""

import struct
import zlib
from dataclasses import dataclass
from importlib import import_module
from io import BytesIO
from typing import TYPE_CHECKING, Final, Protocol, TypeVar, cast

from upscaled.image.types import UPRIGHT, Header, Rectangle

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

    from upscaled.image.metadata import Exif

_Opened = TypeVar("_Opened", bound="ImageFile")

# Reads that Pillow may make: about 0.1 s of work before the pixels, 2 s among them.
_MAX_HEADER_READS: Final = 20_000
_MAX_PIXEL_READS: Final = 500_000

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


@dataclass(frozen=True, slots=True)
class Format:
    """Image format that can be decoded, and encoded where it has a media type.

    name: Pillow's name of it, which settings, logs and reports use too.
    module: the name of the module that reads it, imported when it is needed.
    signatures: a file begins with one of these.
    brands: those of an ISO base media file in this format, instead of a signature.
    is_optional: decoded only where the setting `extra_formats` names it.
    reports_damage_on_stderr: its decoder reports damaged pixels there and nowhere else.
    media_type, suffix: of a file that is written in this format; "" where none is.
    """

    name: str
    module: str
    signatures: tuple[bytes, ...] = ()
    brands: tuple[bytes, ...] = ()
    is_optional: bool = False
    reports_damage_on_stderr: bool = False
    media_type: str = ""
    suffix: str = ""

    @property
    def reader(self) -> Reader:
        return cast(Reader, import_module(f"upscaled.image.formats.{self.module}"))


class _LimitedFile(BytesIO):
    """File that limits how often bytes are read from it."""

    reads_left = _MAX_HEADER_READS

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads_left -= 1
        if self.reads_left < 0:
            raise OSError("too many pieces")
        return super().read(size)


def open_limited(source: bytes, plugin: "type[_Opened]") -> "_Opened":
    """Open a file by a class of Pillow's, which may read only so many pieces of it.

    Pillow walks a header piece by piece in Python: of 25 MB in pieces of 4 bytes it would make
    20 s of work.
    """
    file = _LimitedFile(source)
    opened = plugin(file)
    file.reads_left = _MAX_PIXEL_READS
    return opened
