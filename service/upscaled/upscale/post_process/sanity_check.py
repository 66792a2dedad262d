"""Check whether a network's result for a window is plausible.

It is compared block by block with its source: a device that failed leaves black, garbage or
another image's pixels, whose mean colour is another one. Networks shift means too, the more the
harsher the picture: official ones by up to 13 levels where it is flat, by 20 in photographs, by 86
in a checkerboard of pure red and blue. So a block may differ by a fixed share, twice that where the
picture is so small that it is all border, and by a share of its source's contrast.
"""

from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from upscaled_models.backends.base import Window

BLOCK_PX: Final = 32
"""Side of the compared blocks, in source pixels."""

_FIXED_SHARE: Final = 24 / 255
_SHARE_OF_CONTRAST: Final = 0.75
_LEAST_SHARE_FOR_BLACK: Final = 16 / 255


def is_plausible(source: Window, result: Window) -> bool:
    """Return whether a result has its source's colours, and its size times a whole number.

    Args:
        source: what the network saw, `[h, w, 3]`, uint8 or uint16.
        result: what it made of it, of the same type.
    """
    if not _fits(source, result):
        return False
    height, width = source.shape[:2]
    peak = float(np.iinfo(source.dtype).max)
    blocks = (max(1, width // BLOCK_PX), max(1, height // BLOCK_PX))
    before = source.astype(np.float32)
    mean = _average(before, blocks)
    contrast = np.sqrt(np.maximum(_average(np.square(before), blocks) - np.square(mean), 0))
    mean_after = _average(_average(result, (width, height)).astype(np.float32), blocks)
    fixed = _FIXED_SHARE * peak * (2 if min(height, width) < BLOCK_PX else 1)
    allowed = fixed + _SHARE_OF_CONTRAST * contrast.max(axis=2, keepdims=True)
    is_black = (mean_after.max(axis=2) == 0) & (mean.max(axis=2) > _LEAST_SHARE_FOR_BLACK * peak)
    is_near = np.abs(mean_after - mean) <= allowed
    return bool(np.all(is_near) and not np.any(is_black))


def _fits(source: Window, result: Window) -> bool:
    if result.dtype != source.dtype or result.ndim != 3 or result.shape[2] != source.shape[2]:
        return False
    height, width = source.shape[:2]
    gain = max(1, result.shape[0] // height)
    return bool(result.shape[:2] == (height * gain, width * gain))


def _average(pixels: NDArray[Any], size: tuple[int, int]) -> NDArray[np.float32]:
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.float32)
