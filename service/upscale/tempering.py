"""Tempering: mix a network that invents texture with the faithful one, pixel by pixel.

A network trained to invent what a small picture has lost (Real-ESRGAN) paints rock, hair and grass,
and with the same confidence bends letters, breaks eyes and turns dark edges blue. Where its result
differs much from the faithful network's, the faithful one is right; where they differ little, the
difference is texture. So with x the vivid result, y the faithful one and d = x - y:

    e        root mean square of d over some 3 pixels around, all three channels together
    g        1 / sqrt(1 + (e / limit)^2): 1 where the two agree, limit / e where they do not
    fine     d without what a low-pass of some 1.7 pixels leaves of it: texture
    middle   that, without what a low-pass of some 6 pixels leaves: edges; the rest is colour
    result   y + g (fine + low_share middle)

So colours are the faithful network's, and an area where both are flat is the faithful one, exactly.
The vivid result is taken as its network made it: colour correction would bring back the source's
compression artefacts, which the faithful network has removed.

TABLES

Low-passes are computed on squares of 2x2 pixels, in whole numbers and dyadic fractions: a pixel's
result does not depend on where its window lies, so tiles have no seams. It takes 1.6 times as long
as colour correction, and a thousandth of what Real-ESRGAN takes on the same processor.
"""

import math
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from service.engine.engine import Window
from service.image.harm import Harm

Floats = NDArray[np.float32]

TEMPER_PX: Final = 14
"""How far tempering looks, in pixels of the result: 12 by two boxes, 2 by the interpolation."""

_SIDE_PX: Final = 2
_STRIP_ROWS_PX: Final = 128

# In squares of 2x2 pixels. Three boxes of 3, the square itself and the interpolation after it are
# a Gaussian of sigma 3 pixels; two boxes of 7 one of 5.8, and (1, 2, 1) / 4 one of 1.7.
_ENERGY_BOX, _ENERGY_BOXES = 3, 3
_WIDE_BOX, _WIDE_BOXES = 7, 2
_NARROW_TAPS: Final = (0.25, 0.5, 0.25)
# What is interpolated is rounded to these parts before, so that float32 holds every sum exactly.
_GAIN_PARTS: Final = 4096
_PARTS_OF_A_LEVEL: Final = 64
# Energy is summed in levels of 255, or quarters of them in 16 bits.
_DEEP_UNITS_PER_LEVEL: Final = 4
_DEEP_LEVEL: Final = 257
# Below half a step of 16 bits nothing is let through, and the square underflows.
_LEAST_LIMIT_LEVELS: Final = 0.001

AUTO_STRENGTH: Final = 0.5

_NO_HARM_ABOVE_QUALITY: Final = 96
_GREAT_HARM_UP_TO_QUALITY: Final = 60
_NOISY_FROM_LEVELS: Final = 2.5


@dataclass(frozen=True, slots=True)
class Tempering:
    """How much of a vivid network's result is let through.

    limit_levels: local difference, in levels of 255, from which on differences are damped: halved
        at 1.7 times as much. 0: the faithful result alone; infinite: nothing is damped.
    low_share: how much of the difference in edges is let through, beside the damping; 0 to 1.
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
            strength: 0 takes the vivid network's result with the faithful one's colours, 1 the
                faithful one's alone; `AUTO_STRENGTH`, half way, is what measured best.
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
    """Take the vivid result where the faithful one agrees, the faithful one where it does not.

    Args:
        vivid, faithful: results of both networks for the same window, `[h, w, 3]`, uint8 or uint16;
            h and w are even, and so are the window's coordinates in the whole result. The vivid one
            needs no colour correction.
        tempering: see `Tempering`.

    Returns:
        `[h, w, 3]` of the same type. Pixels nearer than `TEMPER_PX` to an inner border of a tile
        differ from those of the whole picture; at the picture's own borders pixels are repeated.

    Raises:
        ValueError: the two differ in shape or type, or a side is odd.
    """
    if vivid.shape != faithful.shape or vivid.dtype != faithful.dtype:
        raise ValueError(
            f"{vivid.shape} {vivid.dtype} cannot be tempered by {faithful.shape} {faithful.dtype}"
        )
    height, width = faithful.shape[:2]
    if height % _SIDE_PX or width % _SIDE_PX:
        raise ValueError(f"{width}x{height} px cannot be tempered: a side is odd")
    result = np.empty_like(faithful)
    for top in range(0, height, _STRIP_ROWS_PX):
        bottom = min(height, top + _STRIP_ROWS_PX)
        seen = slice(max(0, top - TEMPER_PX), min(height, bottom + TEMPER_PX))
        strip = _temper_strip(vivid[seen], faithful[seen], tempering)
        result[top:bottom] = strip[top - seen.start : bottom - seen.start]
    return result


def _temper_strip(vivid: Window, faithful: Window, tempering: Tempering) -> Window:
    is_deep = vivid.dtype != np.uint8
    difference = np.asarray(cv2.subtract(vivid, faithful, dtype=cv2.CV_32F), np.float32)
    if tempering.limit_levels < _LEAST_LIMIT_LEVELS or not difference.any():
        return faithful
    gain = _find_gain(difference, tempering.limit_levels, is_deep=is_deep)
    difference -= _find_left_out(difference, tempering.low_share, is_deep=is_deep)
    damped = cv2.multiply(difference, cv2.merge([gain, gain, gain]), dst=difference)
    depth = cv2.CV_16U if is_deep else cv2.CV_8U
    return np.asarray(cv2.add(faithful, damped, dtype=depth), vivid.dtype)


def _find_gain(difference: Floats, limit_levels: float, *, is_deep: bool) -> Floats:
    """1 / sqrt(1 + (e / limit)^2) for each pixel of `[h, w, 3]`: `[h, w]`."""
    limit, levels = limit_levels, difference
    if is_deep:
        limit *= _DEEP_UNITS_PER_LEVEL
        levels = np.rint(difference * np.float32(_DEEP_UNITS_PER_LEVEL / _DEEP_LEVEL))
    channels = difference.shape[2]
    energy = cv2.transform(cv2.multiply(levels, levels), np.ones((1, channels), np.float32))
    summed = _sum_boxes(_halve(np.asarray(energy, np.float32)), _ENERGY_BOX, _ENERGY_BOXES)
    values = channels * _ENERGY_BOX ** (2 * _ENERGY_BOXES)
    summed *= np.float32(1 / (values * limit) / limit)
    summed += 1
    np.sqrt(summed, out=summed)
    np.divide(_GAIN_PARTS, summed, out=summed)
    np.rint(summed, out=summed)
    summed *= np.float32(1 / _GAIN_PARTS)
    return _enlarge(summed)


def _find_left_out(difference: Floats, low_share: float, *, is_deep: bool) -> Floats:
    """What of the difference is colour or edge, and not let through: `[h, w, 3]`."""
    halved = _halve(difference)
    # OpenCV sums boxes of floats in float64; a sum of 17 bits by these taps needs it in 16 bits.
    depth = cv2.CV_64F if is_deep else cv2.CV_32F
    taps = np.array(_NARROW_TAPS)
    narrow = cv2.sepFilter2D(halved, depth, taps, taps, borderType=cv2.BORDER_REPLICATE)
    wide = _sum_boxes(halved, _WIDE_BOX, _WIDE_BOXES)
    parts = 1 if is_deep else _PARTS_OF_A_LEVEL
    left_out = np.asarray(narrow, np.float32) * np.float32((1 - low_share) * parts)
    wide *= np.float32(low_share * parts / _WIDE_BOX ** (2 * _WIDE_BOXES))
    left_out += wide
    np.rint(left_out, out=left_out)
    left_out *= np.float32(1 / parts)
    return _enlarge(left_out)


def _sum_boxes(values: Floats, side: int, times: int) -> Floats:
    """Sums over a box, and of these sums again; in float64, rounded after each."""
    for _ in range(times):
        values = np.asarray(
            cv2.boxFilter(
                values, -1, (side, side), normalize=False, borderType=cv2.BORDER_REPLICATE
            ),
            np.float32,
        )
    return values


def _halve(values: Floats) -> Floats:
    size = (values.shape[1] // _SIDE_PX, values.shape[0] // _SIDE_PX)
    return np.asarray(cv2.resize(values, size, interpolation=cv2.INTER_AREA), np.float32)


def _enlarge(values: Floats) -> Floats:
    size = (values.shape[1] * _SIDE_PX, values.shape[0] * _SIDE_PX)
    return np.asarray(cv2.resize(values, size, interpolation=cv2.INTER_LINEAR), np.float32)
