"""The pictures that everything is measured with: the sample photo at any size."""

import io
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

SAMPLE = Path(__file__).resolve().parents[1] / "sample" / "cat.jpg"
JPEG_QUALITY = 92
CONTENT_SHARE = 0.4
"""The share of a product photo or a cut-out that is its object."""
_ELLIPSE_RATIO = 1.3

Pixels = NDArray[np.uint8]


def make_pixels(height_px: int, width_px: int) -> Pixels:
    """Resize the sample to RGB `[height_px, width_px, 3]`."""
    return np.asarray(_resize(height_px, width_px))


def make_jpeg(height_px: int, width_px: int) -> bytes:
    file = io.BytesIO()
    _resize(height_px, width_px).save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()


def make_product(side_px: int, *, has_alpha: bool) -> bytes:
    """Make a square with the sample in an ellipse over `CONTENT_SHARE` of it, all else empty.

    Args:
        has_alpha: as a PNG, and transparent around; else as a JPEG, and white.
    """
    photo, file = _resize(side_px, side_px), io.BytesIO()
    mask = Image.fromarray(_draw_ellipse(side_px))
    if has_alpha:
        photo.putalpha(mask)
        photo.save(file, "PNG", compress_level=1)
    else:
        page = Image.new("RGB", photo.size, "white")
        page.paste(photo, mask=mask)
        page.save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()


def make_opaque_png(side_px: int) -> bytes:
    """Make the whole sample, with an alpha channel that hides nothing."""
    file = io.BytesIO()
    _resize(side_px, side_px).convert("RGBA").save(file, "PNG", compress_level=1)
    return file.getvalue()


def _draw_ellipse(side_px: int) -> Pixels:
    width_px = round(2 * side_px * (CONTENT_SHARE / np.pi / _ELLIPSE_RATIO) ** 0.5)
    axes = (width_px // 2, round(width_px * _ELLIPSE_RATIO) // 2)
    mask = np.zeros((side_px, side_px), np.uint8)
    cv2.ellipse(mask, (side_px // 2, side_px // 2), axes, 0, 0, 360, 255, -1)
    return mask


def _resize(height_px: int, width_px: int) -> Image.Image:
    with Image.open(SAMPLE) as sample:
        size = (width_px, height_px)
        return sample.convert("RGB").resize(size, Image.Resampling.BICUBIC)


def difference(one: Pixels, other: Pixels) -> NDArray[np.int16]:
    """Return the absolute difference of each value, in levels of 255."""
    levels: NDArray[np.int16] = np.abs(one.astype(np.int16) - other)
    return levels


def psnr_db(one: Pixels, other: Pixels) -> float | None:
    """Return the peak signal to noise ratio; None where the two are equal."""
    return None if np.array_equal(one, other) else cv2.PSNR(one, other)
