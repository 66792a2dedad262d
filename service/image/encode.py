"""Pixels to an encoded file: JPEG, or PNG where there is transparency."""

from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from service.image.types import Image

JPEG_MEDIA_TYPE = "image/jpeg"
PNG_MEDIA_TYPE = "image/png"


def encode(image: Image, *, jpeg_quality: int) -> tuple[bytes, str]:
    """(file, media type) of an image; its ICC profile is embedded byte for byte.

    Opaque images become JPEG of `jpeg_quality` (1 to 100) without chroma subsampling, images with
    an alpha plane PNG. Nothing else is written: no EXIF, XMP, comment or thumbnail.
    """
    if image.alpha is None:
        return _encode_jpeg(image, jpeg_quality), JPEG_MEDIA_TYPE
    return _encode_png(image.rgb, image.alpha, image.icc), PNG_MEDIA_TYPE


def _encode_jpeg(image: Image, quality: int) -> bytes:
    file = BytesIO()
    PillowImage.fromarray(image.rgb).save(
        file, format="JPEG", quality=quality, subsampling="4:4:4", icc_profile=image.icc
    )
    return file.getvalue()


def _encode_png(rgb: NDArray[np.uint8], alpha: NDArray[np.uint8], icc: bytes | None) -> bytes:
    file = BytesIO()
    pixels = np.dstack((rgb, alpha))
    PillowImage.fromarray(pixels).save(file, format="PNG", compress_level=1, icc_profile=icc)
    return file.getvalue()
