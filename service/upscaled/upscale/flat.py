"""Areas of one colour in a picture stay that colour, whatever a vivid network makes of them.

The faithful networks keep flat colours exactly; those that invent texture do not quite, least at a
picture's borders. So where the source is flat, the faithful network's result is taken as it is.
"""

from typing import Final

import cv2
import numpy as np

from upscaled_models.backends.base import Window

FLAT_PX: Final = 2
"""How far around a source pixel all must be of its colour."""


def keep_flat(source: Window, result: Window, faithful: Window) -> Window:
    """The result, and the faithful one where the source is flat.

    Args:
        source: `[h, w, 3]`, uint8 or uint16.
        result, faithful: of the same type, `[h * gain, w * gain, 3]`.
    """
    side_px = 2 * FLAT_PX + 1
    kernel = np.ones((side_px, side_px), np.uint8)
    is_flat = (cv2.erode(source, kernel) == cv2.dilate(source, kernel)).all(axis=2)
    if not is_flat.any():
        return result
    gain = result.shape[0] // source.shape[0]
    mask = is_flat.repeat(gain, axis=0).repeat(gain, axis=1)
    return np.where(mask[..., None], faithful, result)
