"""Transparency: its own way to the larger size, and the colours under it."""

import cv2
import numpy as np
from numpy.typing import NDArray


def upscale_alpha(alpha: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """`[H, W]` to `[H * scale, W * scale]` by cubic interpolation, rounded and clipped.

    The network never sees alpha: it would draw texture into it. A constant stays that constant.
    """
    height, width = alpha.shape
    size = (width * scale, height * scale)
    return np.asarray(cv2.resize(alpha, size, interpolation=cv2.INTER_CUBIC), dtype=np.uint8)


def bleed_colour(rgb: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """`[H, W, 3]` with the colour of each fully transparent pixel taken from its nearest visible
    one.

    What programs leave under alpha 0 (mostly black) would shine through the edge once pixels are
    mixed. The input is returned as it is where nothing, or everything, is transparent.
    """
    hidden = alpha == 0
    if not hidden.any() or hidden.all():
        return rgb
    _, nearest = cv2.distanceTransformWithLabels(
        hidden.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    visible = ~hidden
    colours = np.zeros((int(nearest.max()) + 1, 3), np.uint8)
    colours[nearest[visible]] = rgb[visible]
    bled = rgb.copy()
    bled[hidden] = colours[nearest[hidden]]
    return bled
