"""Results that would be longer than the largest side allowed."""

from dataclasses import replace

import cv2
import numpy as np

from upscaled.image.pixels import Pixels
from upscaled.image.types import Image


def scale_to_run(longest_px: int, scale: int, max_side_px: int) -> int:
    """The scale to compute at: `scale`, or 2 where that is already as large as is allowed."""
    return 2 if scale > 2 and longest_px * 2 >= max_side_px else scale


def fit(image: Image, max_side_px: int) -> Image:
    """The image averaged down so that its longer side is `max_side_px`, its shape kept."""
    longest_px = max(image.width_px, image.height_px)
    size = (
        max(1, round(image.width_px * max_side_px / longest_px)),
        max(1, round(image.height_px * max_side_px / longest_px)),
    )
    return replace(
        image,
        rgb=_average_down(image.rgb, size),
        alpha=None if image.alpha is None else _average_down(image.alpha, size),
    )


def _average_down(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), pixels.dtype)
