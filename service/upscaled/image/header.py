"""Read the header of an image file: once in the front end, and once in the decoder."""

from collections.abc import Collection
from typing import Final

from upscaled.errors import MalformedImage, ResolutionTooHigh, UnsupportedImageFormat
from upscaled.image.formats.format import BROKEN_FILE_ERRORS
from upscaled.image.formats.table import ALWAYS_DECODED, FORMATS, sniff
from upscaled.image.types import Header

MAX_PIXELS: Final = 100_000_000
"""Pixels that a decoder may allocate for one file; no setting goes beyond it."""


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
        raise UnsupportedImageFormat(detail=name)
    try:
        header = FORMATS[name].reader.read_header(source)
    except BROKEN_FILE_ERRORS as error:
        raise MalformedImage(detail=f"{name} header: {error}") from error
    if header.width_px < 1 or header.height_px < 1:
        raise MalformedImage(detail=f"{name} header: a side of no pixels")
    if max(header.width_px * header.height_px, header.decoded_pixels) > MAX_PIXELS:
        raise ResolutionTooHigh(detail=f"{header.width_px} x {header.height_px}")
    return header
