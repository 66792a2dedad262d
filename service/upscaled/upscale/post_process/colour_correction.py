"""Correct colours: restore the source's low frequencies in a network's result.

Trained on degraded pictures, networks shift colours: realesr-general-x4v3 turns flat grey 128 into
131, 132, 132. The correction adds what the source has and the result, averaged down, has not; low-passed,
because unfiltered it would put compression artefacts back. Then no pixel may leave the range of
its source neighbourhood by more than that range: an area of one colour is that colour, exactly.

Set14 at x4, dB of Y-PSNR / acutance against the truth, by the low-pass's width in source pixels:

                                raw             4               2               1 (chosen)      none
    general-x4v3    clean   25.20 / 0.573   25.39 / 0.572   25.53 / 0.572   25.80 / 0.569   26.59 / 0.557
                    jpeg    23.67 / 0.539   23.88 / 0.539   24.02 / 0.539   24.31 / 0.537   24.86 / 0.545
                    camera  24.29 / 0.521   24.49 / 0.520   24.64 / 0.521   24.93 / 0.516   25.47 / 0.515
    animevideov3    clean   26.12 / 0.482   26.27 / 0.482   26.32 / 0.482   26.45 / 0.480   26.97 / 0.485
                    jpeg    24.36 / 0.483   24.45 / 0.482   24.54 / 0.482   24.75 / 0.478   25.19 / 0.483
                    camera  25.08 / 0.444   25.18 / 0.443   25.25 / 0.443   25.39 / 0.440   25.68 / 0.444

Width 1 is the most that costs no more than 1 % of the acutance. Unfiltered gains more, and shows the
source's JPEG blocks again (ssim of the jpeg track 0.646 against 0.648).

What the pictures show of it: on clean ones colours that were off (the monarch's yellow) are right and no
edge has a halo; on the jpeg track the source's own stains of chroma come back faintly. Mean distance in
CIE a, b to the truth, five pictures of Set14, general-x4v3: clean 4.61 raw, 3.83 corrected; jpeg 5.96
raw, 6.19 corrected. Chroma low-passed by width 4 alone would be 4.43 and 5.90: a worse bargain.
"""  # noqa: E501

from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from upscaled_models.backends.base import Window

CORRECTION_REACH_PX: Final = 3
"""Reach of the correction in source pixels: 2 by either filter, 1 by the interpolation after it."""

FLAT_PX: Final = 2
"""Reach around a source pixel within which all must be of its colour, for it to be flat."""

# Binomial: sigma 1. Its weights are dyadic, so float32 sums are exact and do not depend on where
# a window lies: tiles have no seams. (In 16 bits a channel so long as the drift is under 4,096 of
# 65,535; beyond, the last of 16 bits may differ.)
_TAPS: Final = (0.0625, 0.25, 0.375, 0.25, 0.0625)
_STEPS_PER_LEVEL: Final = 64
_NEIGHBOURHOOD_PX: Final = 5


def correct_colours(source: Window, result: Window) -> Window:
    """Return a result with its source's low frequencies: `[h * gain, w * gain, 3]` of its type.

    source: what the network saw, `[h, w, 3]`, uint8 or uint16.
    """
    height, width = source.shape[:2]
    drift = source.astype(np.float32) - _average_down(result, height, width)
    taps = np.array(_TAPS, np.float32)
    low = cv2.sepFilter2D(drift, cv2.CV_32F, taps, taps, borderType=cv2.BORDER_REPLICATE)
    low = np.rint(low * _STEPS_PER_LEVEL) / np.float32(_STEPS_PER_LEVEL)
    depth = cv2.CV_8U if result.dtype == np.uint8 else cv2.CV_16U
    corrected = cv2.add(result, _enlarge(low, result), dtype=depth)
    return _limit_overshoot(np.asarray(corrected, result.dtype), source)


def _average_down(result: Window, height: int, width: int) -> NDArray[np.float32]:
    """Return the mean of each square of result pixels, not rounded to levels."""
    values = result.astype(np.float32)
    return np.asarray(cv2.resize(values, (width, height), interpolation=cv2.INTER_AREA), np.float32)


def _limit_overshoot(corrected: Window, source: Window) -> Window:
    """Limit pixels to no further beyond the darkest and lightest neighbour than these are apart."""
    kernel = np.ones((_NEIGHBOURHOOD_PX, _NEIGHBOURHOOD_PX), np.uint8)
    lowest, highest = cv2.erode(source, kernel), cv2.dilate(source, kernel)
    apart = cv2.subtract(highest, lowest)
    least = _enlarge(cv2.subtract(lowest, apart), corrected)
    most = _enlarge(cv2.add(highest, apart), corrected)
    return np.asarray(cv2.min(cv2.max(corrected, least), most), corrected.dtype)


def _enlarge(pixels: NDArray[Any], result: Window) -> NDArray[Any]:
    height, width = result.shape[:2]
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR))


def keep_flat(source: Window, result: Window, faithful: Window) -> Window:
    """Return the result, and the faithful one where the source is flat.

    source: `[h, w, 3]`, uint8 or uint16. result, faithful: of the same type,
    `[h * gain, w * gain, 3]`.
    """
    side_px = 2 * FLAT_PX + 1
    kernel = np.ones((side_px, side_px), np.uint8)
    is_flat = equal_pixels(cv2.erode(source, kernel), cv2.dilate(source, kernel))
    if not is_flat.any():
        return result
    gain = result.shape[0] // source.shape[0]
    mask = is_flat.repeat(gain, axis=0).repeat(gain, axis=1)
    return np.where(mask[..., None], faithful, result)


def equal_pixels(one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.bool_]:
    """Return where two arrays `[h, w, 3]`, both uint8 or uint16, have equal pixels, `[h, w]`.

    numpy takes twenty times as long to combine the results of three channels.
    """
    black = (0, 0, 0)
    return np.asarray(cv2.inRange(cv2.absdiff(one, other), black, black)).astype(np.bool_)
