"""Read JPEG files; Pillow gets the parts that carry pixels, and nothing else."""

import struct
from contextlib import suppress
from io import BytesIO
from typing import TYPE_CHECKING

from upscaled.image.formats.format import Stored
from upscaled.image.formats.jpeg.scans import MAX_SCANS, read_scans
from upscaled.image.formats.jpeg.segments import SOS, LeadingSegments, read_leading_segments
from upscaled.image.metadata import Exif, upright_size
from upscaled.image.types import Header

if TYPE_CHECKING:
    from PIL.JpegImagePlugin import JpegImageFile


def read_header(source: bytes) -> Header:
    """Read size and orientation from the segments before the first scan.

    The rest is walked only where it may hold more scans than are allowed.
    """
    leading = read_leading_segments(source)
    if source.count(bytes((0xFF, SOS))) > MAX_SCANS:
        read_scans(source, leading)
    orientation = Exif(leading.exif or b"").orientation
    width_px, height_px = upright_size(leading.frame.width_px, leading.frame.height_px, orientation)
    return Header("JPEG", width_px, height_px, has_alpha=False, parts=leading)


def open_stored(source: bytes, header: Header) -> Stored:
    """Read the scans, refuse missing pixels, and open the parts that carry pixels."""
    from upscaled.image.formats.jpeg.damage import refuse_missing_pixels
    from upscaled.image.formats.jpeg.quality import read_quality
    from upscaled.image.icc import choose_camera_profile

    leading: LeadingSegments = header.parts
    structure = read_scans(source, leading)
    refuse_missing_pixels(structure)
    exif = Exif(leading.exif or b"")
    quality = None
    with suppress(ValueError, IndexError, struct.error):
        quality = read_quality(leading)
    opened = open_jpeg(structure.join())
    return Stored(
        opened,
        exif,
        choose_camera_profile(leading.icc, exif),
        dpi=opened.info.get("dpi"),
        orientation=exif.orientation,
        jpeg_quality=quality,
        xmp=leading.xmp,
    )


def open_jpeg(source: bytes) -> "JpegImageFile":
    """Open a JPEG file in Pillow, which gets it in one piece.

    Left to itself Pillow reads 64 KB at a time, and libjpeg has to stop where they end. Its
    arithmetic decoder cannot: it fails with "Suspension not allowed here" on any longer file.
    """
    from PIL.JpegImagePlugin import JpegImageFile

    opened = JpegImageFile(BytesIO(source))
    opened.decodermaxblock = len(source)
    return opened
