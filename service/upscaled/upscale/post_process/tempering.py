"""Temper: mix a network that invents texture with the faithful one, pixel by pixel.

A network trained to invent what a small picture has lost (Real-ESRGAN) paints rock, hair and grass,
and with the same confidence bends letters, breaks eyes and turns dark edges blue. Where its result
differs much from the faithful network's, the faithful one is right; where they differ little, the
difference is texture. So with x the vivid result, y the faithful one and d = x - y:

    e        root mean square of d over some 3 pixels around, all three channels together
    g        1 / sqrt(1 + (e / limit)^2): 1 where the two agree, limit / e where they do not
    fine     d without what a low-pass of some 1.7 pixels leaves of it: texture
    middle   that, without what a low-pass of some 6 pixels leaves: edges; the rest is colour
    colour   of the rest, what is not grey, and not where the faithful result is flat
    result   y + g (fine + low_share middle + colour_share colour)

So brightness is the faithful network's, and an area where both are flat is the faithful one,
exactly. Colours are the faithful network's too, but of coarsely compressed pictures: JPEG leaves
stains in them, 16 pixels of the source wide, which a faithful network keeps.
The vivid result is used as its network made it: colour correction would bring back the source's
compression artefacts, which the faithful network has removed.

Set14 at x4, NIQE / dB of Y-PSNR / feature distance (lite1) to the truth, x4plus in float32:

                                      clean                 jpeg                  camera
    upscaled-x4-faithful             6.56 / 27.76 / 0.462   7.37 / 25.41 / 0.724  7.31 / 26.02 / 0.698
    x4plus, colours corrected        4.64 / 25.92 / 0.482   4.87 / 24.66 / 0.637  4.72 / 25.01 / 0.621
    tempered, limit 14, low 0.8      5.33 / 27.27 / 0.446   5.52 / 25.41 / 0.629  5.37 / 25.89 / 0.603
    limit 16, low 0.75 (chosen)      5.20 / 27.19 / 0.447   5.43 / 25.38 / 0.629  5.26 / 25.85 / 0.604
    limit 18, low 1                     - / 26.98 / 0.461      - / 25.29 / 0.626     - / 25.73 / 0.601
    limit 12, low 0.6                   - / 27.43 / 0.436      - / 25.46 / 0.636     - / 25.97 / 0.609
    limit 14, low 0.8, x corrected      - / 27.25 / 0.443      - / 25.41 / 0.635     - / 25.88 / 0.613

At x2, five to seven parts of photographs, by JPEG's quality or noise (dB / feature distance);
"faithful" is upscaled-x2-faithful:

                      JPEG 98         96              94              90              80
    faithful          34.27 / 0.175   33.55 / 0.217   33.53 / 0.223   32.57 / 0.276   31.57 / 0.331
    limit 3, low 0.8  34.15 / 0.160                   33.53 / 0.197
    limit 4, low 0.8  34.02 / 0.162   33.42 / 0.196   33.44 / 0.196   32.64 / 0.237   31.70 / 0.283
    limit 8, low 0.8  33.47 / 0.171   32.96 / 0.202   32.99 / 0.199   32.37 / 0.234   31.54 / 0.277

                      JPEG 65         50              noise 1         2               3
    faithful          30.76 / 0.389   29.91 / 0.430   34.38 / 0.160   34.19 / 0.196   33.77 / 0.244
    limit 3, low 0.8                                  34.22 / 0.153   34.13 / 0.164   33.78 / 0.194
    limit 4, low 0.8  30.91 / 0.330   30.02 / 0.372   34.07 / 0.157   34.01 / 0.164   33.69 / 0.190
    limit 8, low 0.8  30.81 / 0.320   29.88 / 0.363   33.45 / 0.174   33.49 / 0.174   33.21 / 0.195

Limits at x2 are those that cost no more than 0.1 dB against upscaled-x2-faithful.

Set14 with a colour_share of 1: jpeg 5.41 / 25.38 / 0.622, camera 5.28 / 25.85 / 0.598 (chosen up to
quality 75). CIEDE2000 to the truth, against a share of 0: at x4, 0.2 less for jpeg and 0.1 for
camera; at x2, 0.04 more at quality 90, 0.02 at 80, 0.03 less at 65, 0.05 at 50: not chosen, as skin
turns a little yellow with it.

Tried and not chosen: the difference in linear light (the same to 0.001 in feature distance),
brightness alone for e (the same), limits that grow with local contrast (0.003 nearer for clean
pictures, 0.001 further for others), all colour by the faithful network at x4 (0.004 nearer for
clean, further for others: it is what colour_share is for).

Low-passes are computed on squares of 2x2 pixels, in whole numbers and dyadic fractions: a pixel's
result does not depend on where its window lies, so tiles have no seams. It takes 1.3 times as long
as colour correction, which it replaces, 2.1 times with colours, and a thousandth of what Real-ESRGAN
takes on the same processor.
"""  # noqa: E501

import math
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from upscaled.image.harm import Harm
from upscaled_models.backends.base import Window

Floats = NDArray[np.float32]

TEMPER_REACH_PX: Final = 14
"""Reach of tempering, in pixels of the result: 12 by two boxes, 2 by the interpolation."""

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
# Squares are summed of whole levels of 255 or quarters of them, whatever the depth.
_UNITS_PER_LEVEL: Final = 4
_DEEP_LEVEL: Final = 257
# ITU-R BT.601.
_LUMA: Final = (0.299, 0.587, 0.114)
_UNEVEN_LEVELS: Final = 4
# Rounding alone, in float32 and of 2x2 pixels, gives less.
_EVEN_VARIANCE: Final = 0.25
# Below half a step of 16 bits nothing is let through, and the square underflows.
_LEAST_LIMIT_LEVELS: Final = 0.001

AUTO_STRENGTH: Final = 0.5

_HARMED_UP_TO_QUALITY: Final = 96
_HARMED_FROM_NOISE_LEVELS: Final = 2.0
# At x4, where a stain is 64 pixels wide.
_STAINED_UP_TO_QUALITY: Final = 75
# At x2: limits by JPEG's quality, and by noise; between them they change evenly.
_QUALITIES: Final = (60, 80, 90, 96)
_LIMITS_BY_QUALITY: Final = (8, 6, 4, 3)
_NOISES: Final = (2, 3, 10)
_LIMITS_BY_NOISE: Final = (3, 4, 8)


@dataclass(frozen=True, slots=True)
class Tempering:
    """Shares of a vivid network's result that are used.

    limit_levels: local difference, in levels of 255, from which on differences are damped: halved
        at 1.7 times as much. 0: the faithful result alone; infinite: nothing is damped.
    low_share: how much of the difference in edges is let through, beside the damping; 0 to 1.
    colour_share: likewise of that in the colours of areas.
    """

    limit_levels: float
    low_share: float
    colour_share: float = 0.0

    def __post_init__(self) -> None:
        if not self.limit_levels >= 0:
            raise ValueError(f"limit_levels {self.limit_levels}: must be at least 0")
        for name, share in (("low_share", self.low_share), ("colour_share", self.colour_share)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name} {share}: must be 0 to 1")

    @classmethod
    def of(cls, strength: float, scale: int, harm: Harm) -> "Tempering":
        """Return the tempering that a strength, 0 to 1, means for an image of that harm.

        0 keeps the vivid network's texture and edges as they are, 1 the faithful result alone;
        `AUTO_STRENGTH`, half way, is what measured best. A strength outside raises ValueError.
        scale: of the result to its source, in all.
        """
        if not 0 <= strength <= 1:
            raise ValueError(f"strength {strength}: must be 0 to 1")
        best = _find_best(scale, harm)
        limit_levels = best.limit_levels * (1 - strength) / strength if strength else math.inf
        low_share = 1 - (1 - best.low_share) * min(1, 2 * strength)
        return cls(limit_levels, low_share, best.colour_share)


def is_harmed(harm: Harm) -> bool:
    """Return whether a tempered vivid result is nearer to the truth than the faithful one at x2."""
    return (
        harm.noise_levels >= _HARMED_FROM_NOISE_LEVELS
        or _find_quality(harm) <= _HARMED_UP_TO_QUALITY
    )


def _find_best(scale: int, harm: Harm) -> Tempering:
    """Return the tempering that measured best."""
    quality = _find_quality(harm)
    if scale >= 4:
        return Tempering(16, 0.75, 1.0 if quality <= _STAINED_UP_TO_QUALITY else 0.0)
    by_quality = float(np.interp(quality, _QUALITIES, _LIMITS_BY_QUALITY))
    by_noise = float(np.interp(harm.noise_levels, _NOISES, _LIMITS_BY_NOISE))
    return Tempering(max(by_quality, by_noise), 0.8)


def _find_quality(harm: Harm) -> int:
    return 100 if harm.jpeg_quality is None else harm.jpeg_quality


def temper(vivid: Window, faithful: Window, tempering: Tempering) -> Window:
    """Mix two results: the vivid one where the faithful one agrees, else the faithful one.

    Args:
        vivid, faithful: results of both networks for the same window, `[h, w, 3]`, uint8 or uint16;
            h and w are even, and so are the window's coordinates in the whole result. The vivid one
            needs no colour correction.
        tempering: see `Tempering`.

    Returns:
        `[h, w, 3]` of the same type. Pixels nearer than `TEMPER_REACH_PX` to an inner border of a
        tile differ from those of the whole picture; at its own borders pixels are repeated.

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
        seen = slice(max(0, top - TEMPER_REACH_PX), min(height, bottom + TEMPER_REACH_PX))
        strip = _temper_strip(vivid[seen], faithful[seen], tempering)
        result[top:bottom] = strip[top - seen.start : bottom - seen.start]
    return result


def _temper_strip(vivid: Window, faithful: Window, tempering: Tempering) -> Window:
    is_deep = vivid.dtype != np.uint8
    difference = np.asarray(cv2.subtract(vivid, faithful, dtype=cv2.CV_32F), np.float32)
    if tempering.limit_levels < _LEAST_LIMIT_LEVELS or not difference.any():
        return faithful
    gain = _find_gain(difference, tempering.limit_levels, is_deep=is_deep)
    difference -= _find_left_out(difference, faithful, tempering)
    damped = cv2.multiply(difference, cv2.merge([gain, gain, gain]), dst=difference)
    depth = cv2.CV_16U if is_deep else cv2.CV_8U
    return np.asarray(cv2.add(faithful, damped, dtype=depth), vivid.dtype)


def _find_gain(difference: Floats, limit_levels: float, *, is_deep: bool) -> Floats:
    """Return 1 / sqrt(1 + (e / limit)^2) for each pixel of `[h, w, 3]`: `[h, w]`."""
    limit, levels = limit_levels, difference
    if is_deep:
        limit *= _UNITS_PER_LEVEL
        levels = np.rint(difference * np.float32(_UNITS_PER_LEVEL / _DEEP_LEVEL))
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


def _find_left_out(difference: Floats, faithful: Window, tempering: Tempering) -> Floats:
    """Return what of the difference in edges, brightness and colours is held back: `[h, w, 3]`."""
    is_deep = faithful.dtype != np.uint8
    halved = _halve(difference)
    # OpenCV sums boxes of floats in float64; a sum of 17 bits by these taps needs it in 16 bits.
    depth = cv2.CV_64F if is_deep else cv2.CV_32F
    taps = np.array(_NARROW_TAPS)
    narrow = cv2.sepFilter2D(halved, depth, taps, taps, borderType=cv2.BORDER_REPLICATE)
    wide = _average_widely(halved)
    left_out = np.asarray(narrow, np.float32) * np.float32(1 - tempering.low_share)
    left_out += wide * np.float32(tempering.low_share)
    if tempering.colour_share:
        red, green, blue = (wide[..., at] * np.float32(_LUMA[at]) for at in range(3))
        colour = wide - (red + green + blue)[..., None]
        colour *= (_find_unevenness(faithful) * np.float32(tempering.colour_share))[..., None]
        left_out -= colour
    parts = 1 if is_deep else _PARTS_OF_A_LEVEL
    left_out *= np.float32(parts)
    np.rint(left_out, out=left_out)
    left_out *= np.float32(1 / parts)
    return _enlarge(left_out)


def _find_unevenness(faithful: Window) -> Floats:
    """Return 0 where it is flat, towards 1 beyond a variation of `_UNEVEN_LEVELS`: `[h/2, w/2]`."""
    units = _UNITS_PER_LEVEL
    per_value = units if faithful.dtype == np.uint8 else units / _DEEP_LEVEL
    levels = np.rint(_halve(faithful.astype(np.float32)) * np.float32(per_value))
    variance = _average_widely(np.square(levels)) - np.square(_average_widely(levels))
    seen = (variance[..., 0] + variance[..., 1] + variance[..., 2]) * np.float32(1 / 3 / units**2)
    seen = np.maximum(seen - np.float32(_EVEN_VARIANCE), 0)
    return np.asarray(seen / (seen + np.float32(_UNEVEN_LEVELS**2)), np.float32)


def _average_widely(values: Floats) -> Floats:
    summed = _sum_boxes(values, _WIDE_BOX, _WIDE_BOXES)
    summed *= np.float32(1 / _WIDE_BOX ** (2 * _WIDE_BOXES))
    return summed


def _sum_boxes(values: Floats, side: int, times: int) -> Floats:
    """Sum over a box, and these sums again; in float64, rounded after each."""
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
