"""Tempering: mix a network that invents texture with the faithful one, pixel by pixel.

A network trained to invent what a small picture has lost (Real-ESRGAN) paints rock, hair and grass,
and with the same confidence bends letters, breaks eyes and turns dark edges blue. Where its result
differs much from the faithful network's, the faithful one is right; where they differ little, the
difference is texture. So with x the vivid result, y the faithful one and d = x - y:

    e        root mean square of d over some 3 pixels around, all three channels together
    g        1 / sqrt(1 + (e / limit)^2): 1 where the two agree, limit / e where they do not
    low      d low-passed by some 1.5 pixels: edges and areas, not texture
    result   y + g (d - (1 - low_share) low)

`e` and `low` are computed in whole numbers and dyadic fractions: a pixel's result does not depend
on where its window lies, so tiles have no seams. Where both networks are flat, so is the result.
"""

import math
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from service.engine.engine import Window
from service.image.harm import Harm

TEMPER_PX: Final = 6
"""How far tempering looks, in pixels of the result: 3 by each of two boxes (`low` looks 4)."""

# A Gaussian of sigma 1.54. Differences of 8 bits, summed by these weights along both axes, have 20
# bits: exact in float32. Those of 16 bits are summed in float64.
_LOW_TAPS: Final = (1 / 64, 2 / 64, 7 / 64, 14 / 64, 16 / 64, 14 / 64, 7 / 64, 2 / 64, 1 / 64)
# Twice a box of 7 is a Gaussian of sigma 2.83. OpenCV sums boxes of floats in float64, and these
# are whole numbers: exact too.
_BOX_PX: Final = 7
_SUMMED_VALUES: Final = 3 * _BOX_PX**4
_STRIP_ROWS: Final = 64

AUTO_STRENGTH: Final = 0.5

_NO_HARM_ABOVE_QUALITY: Final = 96
_GREAT_HARM_UP_TO_QUALITY: Final = 60
_NOISY_FROM_LEVELS: Final = 2.5
# Of half a level of 16 bits: a limit below it lets nothing through, and its square underflows.
_LEAST_LIMIT_LEVELS: Final = 0.001


@dataclass(frozen=True, slots=True)
class Tempering:
    """How much of a vivid network's result is let through.

    limit_levels: local difference, in levels of 255, from which on a difference is damped
        (halved at 1.7 times as much); 0: the faithful result alone, infinite: all of `d` but `low`.
    low_share: how much of the low-passed difference is let through, beside the damping; 0 to 1.
    """

    limit_levels: float
    low_share: float

    def __post_init__(self) -> None:
        if not self.limit_levels >= 0:
            raise ValueError(f"limit_levels {self.limit_levels}: must be at least 0")
        if not 0 <= self.low_share <= 1:
            raise ValueError(f"low_share {self.low_share}: must be 0 to 1")

    @classmethod
    def of(cls, strength: float, scale: int, harm: Harm) -> "Tempering":
        """What a strength means for a picture.

        Args:
            strength: 0 leaves the vivid network's result as it is, 1 takes the faithful one's
                alone; `AUTO_STRENGTH`, half way, is what measured best.
            scale: of the result to its source, in all.
            harm: what the source has been through; it counts below scale 4.

        Raises:
            ValueError: the strength is not 0 to 1.
        """
        if not 0 <= strength <= 1:
            raise ValueError(f"strength {strength}: must be 0 to 1")
        if strength == 0:
            return cls(math.inf, 1.0)
        limit_levels, low_share = _find_best(scale, harm)
        looseness = (1 - strength) / strength
        return cls(limit_levels * looseness, 1 - (1 - low_share) * min(1, 2 * strength))


def is_harmed(harm: Harm) -> bool:
    """Whether a tempered vivid result is nearer to the truth than the faithful one at x2."""
    return _is_noisy(harm) or (harm.jpeg_quality or 100) <= _NO_HARM_ABOVE_QUALITY


def _find_best(scale: int, harm: Harm) -> tuple[float, float]:
    """The measured best `limit_levels` and `low_share`."""
    if scale >= 4:
        return 14, 0.8
    is_great = _is_noisy(harm) or (harm.jpeg_quality or 100) <= _GREAT_HARM_UP_TO_QUALITY
    return (8, 0.9) if is_great else (4, 0.9)


def _is_noisy(harm: Harm) -> bool:
    return harm.noise_levels >= _NOISY_FROM_LEVELS


def temper(vivid: Window, faithful: Window, tempering: Tempering) -> Window:
    """The vivid result where the faithful one agrees, the faithful one where it does not.

    Args:
        vivid, faithful: results of both networks for the same window, after colour correction,
            `[h, w, 3]`, uint8 or uint16, of any size.
        tempering: see `Tempering`.

    Returns:
        `[h, w, 3]` of the same type. Pixels nearer than `TEMPER_PX` to an inner border of a tile
        differ from those of the whole picture; at the picture's own borders pixels are repeated.

    Raises:
        ValueError: the two differ in shape or type.
    """
    if vivid.shape != faithful.shape or vivid.dtype != faithful.dtype:
        raise ValueError(
            f"{vivid.shape} {vivid.dtype} cannot be tempered by {faithful.shape} {faithful.dtype}"
        )
    height = faithful.shape[0]
    result = np.empty_like(faithful)
    for top in range(0, height, _STRIP_ROWS):
        bottom = min(height, top + _STRIP_ROWS)
        seen = slice(max(0, top - TEMPER_PX), min(height, bottom + TEMPER_PX))
        strip = _temper_strip(vivid[seen], faithful[seen], tempering)
        result[top:bottom] = strip[top - seen.start : bottom - seen.start]
    return result


def _temper_strip(vivid: Window, faithful: Window, tempering: Tempering) -> Window:
    difference = np.asarray(cv2.subtract(vivid, faithful, dtype=cv2.CV_32F), np.float32)
    if tempering.limit_levels < _LEAST_LIMIT_LEVELS or not difference.any():
        return faithful
    gain = _find_gain(difference, tempering.limit_levels * np.iinfo(vivid.dtype).max / 255)
    low = _low_pass(difference, is_deep=vivid.dtype != np.uint8)
    low *= np.float32(1 - tempering.low_share)
    difference -= low
    damped = cv2.multiply(difference, cv2.merge([gain, gain, gain]), dst=difference)
    depth = cv2.CV_8U if vivid.dtype == np.uint8 else cv2.CV_16U
    return np.asarray(cv2.add(faithful, damped, dtype=depth), vivid.dtype)


def _find_gain(difference: NDArray[np.float32], limit: float) -> NDArray[np.float32]:
    """1 / sqrt(1 + (e / limit)^2) for each pixel of `[h, w, 3]`: `[h, w]`."""
    summed = np.asarray(
        cv2.transform(cv2.multiply(difference, difference), np.ones((1, 3), np.float32)), np.float32
    )
    for _ in range(2):
        summed = np.asarray(
            cv2.boxFilter(
                summed, -1, (_BOX_PX, _BOX_PX), normalize=False, borderType=cv2.BORDER_REPLICATE
            )
        )
    summed *= np.float32(1 / (_SUMMED_VALUES * limit) / limit)
    summed += 1
    np.sqrt(summed, out=summed)
    return np.asarray(np.divide(1, summed, out=summed), np.float32)


def _low_pass(difference: NDArray[np.float32], *, is_deep: bool) -> NDArray[np.float32]:
    depth = cv2.CV_64F if is_deep else cv2.CV_32F
    taps = np.array(_LOW_TAPS)
    low = cv2.sepFilter2D(difference, depth, taps, taps, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(low, np.float32)
