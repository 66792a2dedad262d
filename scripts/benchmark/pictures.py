"""The pictures that everything is measured with: the sample photo at any size."""

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

SAMPLE = Path(__file__).resolve().parents[1] / "sample" / "cat.jpg"
JPEG_QUALITY = 92
CONTENT_SHARE = 0.4
"""The share of a product photo or a cut-out that is its object."""
_ELLIPSE_RATIO = 1.3

Pixels = NDArray[np.uint8]


def make_pixels(height_px: int, width_px: int) -> Pixels:
    """Resize the sample to RGB `[height_px, width_px, 3]`."""
    return np.asarray(_resize(height_px, width_px))


def make_jpeg(side_px: int) -> bytes:
    """Make a square of the whole sample."""
    return _encode(_resize(side_px, side_px))


def make_opaque_png(side_px: int) -> bytes:
    """Make a square of the whole sample, with an alpha channel that hides nothing."""
    return _encode(_resize(side_px, side_px).convert("RGBA"))


def make_product(side_px: int, *, has_alpha: bool) -> bytes:
    """Make a square with the sample in an ellipse over `CONTENT_SHARE` of it, all else empty.

    Args:
        has_alpha: as a PNG, and transparent around; else as a JPEG, and white.
    """
    photo = _resize(side_px, side_px)
    half = side_px * (CONTENT_SHARE / np.pi / _ELLIPSE_RATIO) ** 0.5
    mask = Image.new("L", photo.size)
    ends = [(side_px / 2 + at * half, side_px / 2 + at * half * _ELLIPSE_RATIO) for at in (-1, 1)]
    ImageDraw.Draw(mask).ellipse(ends, fill=255)
    if has_alpha:
        photo.putalpha(mask)
        return _encode(photo)
    return _encode(Image.composite(photo, Image.new("RGB", photo.size, "white"), mask))


def _encode(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    if picture.mode == "RGB":
        picture.save(file, "JPEG", quality=JPEG_QUALITY)
    else:
        picture.save(file, "PNG", compress_level=1)
    return file.getvalue()


def _resize(height_px: int, width_px: int) -> Image.Image:
    with Image.open(SAMPLE) as sample:
        size = (width_px, height_px)
        return sample.convert("RGB").resize(size, Image.Resampling.BICUBIC)
