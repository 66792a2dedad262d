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


def make_picture(side_px: int, *, has_alpha: bool = False, is_product: bool = False) -> bytes:
    """Make a square file of the sample.

    Args:
        has_alpha: as a PNG, with an alpha channel that hides nothing of a whole sample; else as a
            JPEG.
        is_product: the sample in an ellipse over `CONTENT_SHARE` of the square, all around it
            transparent or white.
    """
    photo, file = _resize(side_px, side_px), io.BytesIO()
    mask = Image.new("L", photo.size, 0 if is_product else 255)
    if is_product:
        half, middle = side_px * (CONTENT_SHARE / np.pi / _ELLIPSE_RATIO) ** 0.5, side_px / 2
        box = [(middle + at * half, middle + at * half * _ELLIPSE_RATIO) for at in (-1, 1)]
        ImageDraw.Draw(mask).ellipse(box, fill=255)
    if has_alpha:
        photo.putalpha(mask)
        photo.save(file, "PNG", compress_level=1)
    else:
        page = Image.composite(photo, Image.new("RGB", photo.size, "white"), mask)
        page.save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()


def _resize(height_px: int, width_px: int) -> Image.Image:
    with Image.open(SAMPLE) as sample:
        size = (width_px, height_px)
        return sample.convert("RGB").resize(size, Image.Resampling.BICUBIC)
