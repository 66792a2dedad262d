"""An encoded file to upright RGB pixels."""

import numpy as np

from service.errors import MalformedImage
from service.image.header import BROKEN_FILE_ERRORS, open_header
from service.image.orientation import turn_upright
from service.image.types import Image


def decode(source: bytes) -> Image:
    """The first picture of a file, upright.

    Raises:
        MalformedImage: broken or truncated; a half-decoded picture is never returned.
        UnsupportedImageFormat, ResolutionTooHigh: as `service.image.probe.probe`.
    """
    header = open_header(source)
    try:
        header.picture.load()
    except BROKEN_FILE_ERRORS as error:
        raise MalformedImage(detail=f"{header.format} pixels: {error}") from error
    mode = "RGBA" if header.has_alpha else "RGB"
    pixels = np.asarray(header.picture.convert(mode))
    pixels = np.ascontiguousarray(turn_upright(pixels, header.orientation))
    if not header.has_alpha:
        return Image(rgb=pixels, icc=header.picture.info.get("icc_profile"))
    return Image(
        rgb=np.ascontiguousarray(pixels[..., :3]),
        alpha=np.ascontiguousarray(pixels[..., 3]),
        icc=header.picture.info.get("icc_profile"),
    )
