"""Read WebP files; libwebp gets the first image alone."""

from contextlib import suppress
from typing import Final

from upscaled.image.formats.limited_file import open_limited
from upscaled.image.formats.table import Stored
from upscaled.image.formats.webp.structure import FirstImage, find_xmp, read_first_image
from upscaled.image.formats.webp.vp8 import read_quantiser
from upscaled.image.metadata import Exif, upright_size
from upscaled.image.types import Header

# VP8's quantiser and the quality of JPEG with the same PSNR, from libwebp's and libjpeg's results
# for 16 photographs shrunk to 64 to 180 px.
_QUANTISERS: Final = (0, 9, 20, 40, 53, 75, 127)
_JPEG_QUALITIES: Final = (98, 94, 87, 69, 46, 25, 5)


def read_header(source: bytes) -> Header:
    """Read size, transparency and orientation from the chunks of the first image."""
    first = read_first_image(source)
    orientation = Exif(first.metadata.get(b"EXIF", b"")).orientation
    width_px, height_px = upright_size(*first.canvas_px, orientation)
    return Header("WEBP", width_px, height_px, first.has_alpha, parts=first)


def open_stored(source: bytes, header: Header) -> Stored:
    """Open the first image, and refuse one whose coded data end in zeros for missing ones."""
    from PIL.WebPImagePlugin import WebPImageFile

    from upscaled.image.formats.webp.damage import is_damaged

    first: FirstImage = header.parts
    opened = open_limited(first.to_file(), WebPImageFile)
    if is_damaged(first):
        raise ValueError("coded data end in zeros")
    exif = Exif(opened.info.get("exif") or b"")
    return Stored(
        opened,
        exif,
        opened.info.get("icc_profile") or exif.camera_profile,
        dpi=opened.info.get("dpi"),
        orientation=exif.orientation,
        jpeg_quality=find_jpeg_quality(first),
        xmp=find_xmp(source),
    )


def find_jpeg_quality(first: FirstImage) -> int | None:
    """Find the quality of JPEG whose loss is as great; None for a lossless image."""
    if first.kind != b"VP8 ":
        return None
    import numpy as np

    with suppress(IndexError):
        quantiser = read_quantiser(first.bitstream)
        return round(float(np.interp(quantiser, _QUANTISERS, _JPEG_QUALITIES)))
    return None
