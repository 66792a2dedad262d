"""Pictures without colour stay without: networks put some into them.

Whatever the file's kind, a picture is neutral if it is so in every pixel. A grey window of a
coloured picture is left alone: its neighbours would show a seam.
"""

import cv2
import numpy as np

from upscaled.image.pixels import Pixels

_ROWS_AT_ONCE = 64


def is_neutral(rgb: Pixels) -> bool:
    """Whether red, green and blue are equal everywhere in `[H, W, 3]`. Ends at the first colour."""
    for top in range(0, rgb.shape[0], _ROWS_AT_ONCE):
        rows = rgb[top : top + _ROWS_AT_ONCE]
        if (rows[..., :2] != rows[..., 1:]).any():
            return False
    return True


def neutralise(rgb: Pixels) -> Pixels:
    """Each pixel's luma in all three channels: `[h, w, 3]` of its type; a grey is its own."""
    luma = cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.cvtColor(luma, cv2.COLOR_GRAY2RGB), rgb.dtype)
