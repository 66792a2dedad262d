"""Read WebP files; libwebp gets the first picture alone."""

from contextlib import suppress
from typing import Final

from upscaled.image.formats.format import LimitedFile, Stored
from upscaled.image.formats.webp.structure import Picture, read_picture
from upscaled.image.formats.webp.vp8 import read_quantiser
from upscaled.image.metadata import Exif, upright_size
from upscaled.image.types import Header

# VP8's quantiser and the quality of JPEG with the same PSNR, from libwebp's and libjpeg's results
# for 16 photographs shrunk to 64 to 180 px.
_QUANTISERS: Final = (0, 9, 20, 40, 53, 75, 127)
_JPEG_QUALITIES: Final = (98, 94, 87, 69, 46, 25, 5)


def read_header(source: bytes) -> Header:
    """Read size, transparency and orientation from the chunks of the first picture."""
    picture = read_picture(source)
    orientation = Exif(picture.metadata.get(b"EXIF", b"")).orientation
    width_px, height_px = upright_size(*picture.canvas_px, orientation)
    return Header("WEBP", width_px, height_px, picture.has_alpha, parts=picture)


def open_stored(source: bytes, header: Header) -> Stored:
    """Open the first picture, and refuse one whose coded data end in zeros for missing ones."""
    from PIL.WebPImagePlugin import WebPImageFile

    from upscaled.image.formats.webp.damage import has_unread_zeros
    from upscaled.image.icc import choose_camera_profile

    first: Picture = header.parts
    file = LimitedFile(first.to_file())
    picture = WebPImageFile(file)
    file.allow_pixels()
    if has_unread_zeros(first):
        raise ValueError("coded data end in zeros")
    exif = Exif(picture.info.get("exif") or b"")
    icc = picture.info.get("icc_profile") or None
    return Stored(
        picture,
        exif,
        choose_camera_profile(icc, exif),
        dpi=picture.info.get("dpi"),
        orientation=exif.orientation,
        jpeg_quality=find_jpeg_quality(first),
    )


def find_jpeg_quality(picture: Picture) -> int | None:
    """Find the quality of JPEG whose loss is as great; None for a lossless picture."""
    if picture.kind != b"VP8 ":
        return None
    import numpy as np

    with suppress(IndexError):
        quantiser = read_quantiser(picture.bitstream)
        return round(float(np.interp(quantiser, _QUANTISERS, _JPEG_QUALITIES)))
    return None
