"""The pictures that everything is measured with: the sample photo at any size."""

import io
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

SAMPLE = Path(__file__).resolve().parents[1] / "sample" / "cat.jpg"
JPEG_QUALITY = 92

Pixels = NDArray[np.uint8]


def make_pixels(height_px: int, width_px: int) -> Pixels:
    """Resize the sample to RGB `[height_px, width_px, 3]`."""
    return np.asarray(_resize(height_px, width_px))


def make_jpeg(height_px: int, width_px: int) -> bytes:
    file = io.BytesIO()
    _resize(height_px, width_px).save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()


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
