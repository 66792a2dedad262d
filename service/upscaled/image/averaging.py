"""Average pixels down to a smaller size, each source pixel weighing by its area."""

from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from upscaled.image.pixels import Pixels

_LINEAR_STEPS: Final = 65_535
_TOE_LEVEL, _TOE_LIGHT, _TOE_SLOPE = 0.04045, 0.0031308, 12.92
_OFFSET, _GAMMA = 0.055, 2.4


def average_down(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Average stored levels, `[H, W]` or `[H, W, 3]`, to a size (width, height)."""
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), pixels.dtype)


def average_light(rgb: Pixels, size: tuple[int, int]) -> Pixels:
    """Average `[H, W, 3]` in linear light, by sRGB's curve, to a size (width, height).

    Fine patterns keep their brightness: black and white in turn become level 188, not 128. Each
    channel on its own, so that little memory is held.
    """
    highest = np.iinfo(rgb.dtype).max
    light = _to_light(np.linspace(0, 1, highest + 1)) * _LINEAR_STEPS
    to_light = light.astype(np.float32) if rgb.itemsize > 1 else np.rint(light).astype(np.uint16)
    result = np.empty((size[1], size[0], 3), rgb.dtype)
    for channel in range(3):
        linear = cv2.resize(to_light[rgb[..., channel]], size, interpolation=cv2.INTER_AREA)
        levels = _to_level(np.asarray(linear, np.float32) / _LINEAR_STEPS) * highest
        result[..., channel] = np.rint(levels)
    return result


def _to_light(level: NDArray[Any]) -> NDArray[Any]:
    """Convert levels of 0 to 1 to light (IEC 61966-2-1)."""
    curve = ((level + _OFFSET) / (1 + _OFFSET)) ** _GAMMA
    return np.where(level <= _TOE_LEVEL, level / _TOE_SLOPE, curve)


def _to_level(light: NDArray[Any]) -> NDArray[Any]:
    """Convert light of 0 to 1 to levels."""
    curve = (1 + _OFFSET) * light ** (1 / _GAMMA) - _OFFSET
    return np.where(light <= _TOE_LIGHT, light * _TOE_SLOPE, curve)
