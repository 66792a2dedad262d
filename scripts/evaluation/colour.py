"""Measure perceived colour difference by CIEDE2000."""

import cv2
import numpy as np
from numpy.typing import NDArray

Lab = NDArray[np.float64]


def mean_ciede2000(pixels: NDArray[np.uint8], truth: NDArray[np.uint8]) -> float:
    """Return the mean CIEDE2000 of two `[h, w, 3]` uint8 sRGB pictures; 1 is barely visible."""
    return float(np.mean(ciede2000(_lab(pixels), _lab(truth))))


def ciede2000(first: Lab, second: Lab) -> NDArray[np.float64]:
    """Return the CIEDE2000 of `[..., 3]` CIELAB colours, all weights 1.

    Source: Sharma, Wu, Dalal, "The CIEDE2000 color-difference formula", Color Research and
    Application 30(1), 2005; equation numbers below are the paper's.
    """
    raw_chroma = (np.hypot(*_axes(first)) + np.hypot(*_axes(second))) / 2
    stretch = 0.5 * (1 - _saturation(np.asarray(raw_chroma)))  # (4)
    chroma_1, hue_1 = _polar(first, stretch)
    chroma_2, hue_2 = _polar(second, stretch)
    lightness = second[..., 0] - first[..., 0]  # (8)
    chroma = chroma_2 - chroma_1  # (9)
    turn = _wrapped(hue_2 - hue_1)  # (10)
    grey = chroma_1 * chroma_2 == 0
    turn = np.where(grey, 0.0, turn)
    hue = 2 * np.sqrt(chroma_1 * chroma_2) * np.sin(np.radians(turn) / 2)  # (11)
    mean_hue = np.where(grey, hue_1 + hue_2, hue_1 + turn / 2) % 360  # (14)
    mean_chroma = (chroma_1 + chroma_2) / 2
    from_middle = ((first[..., 0] + second[..., 0]) / 2 - 50) ** 2
    weight_l = 1 + 0.015 * from_middle / np.sqrt(20 + from_middle)  # (18)
    weight_c = 1 + 0.045 * mean_chroma  # (19)
    weight_h = 1 + 0.015 * mean_chroma * _hue_term(mean_hue)  # (20)
    blue = 30 * np.exp(-(((mean_hue - 275) / 25) ** 2))  # (16)
    rotation = -2 * _saturation(mean_chroma) * np.sin(np.radians(2 * blue))  # (17), (21)
    part_l, part_c, part_h = lightness / weight_l, chroma / weight_c, hue / weight_h
    total = part_l**2 + part_c**2 + part_h**2 + rotation * part_c * part_h  # (22)
    return np.asarray(np.sqrt(np.maximum(total, 0.0)))


def _saturation(chroma: Lab) -> Lab:
    return np.asarray(np.sqrt(chroma**7 / (chroma**7 + 25.0**7)))


def _polar(colour: Lab, stretch: Lab) -> tuple[Lab, Lab]:
    """Return chroma and hue in degrees, 0 to 360, with the a axis stretched: equations (5) to
    (7)."""
    a, b = _axes(colour)
    a = (1 + stretch) * a
    return np.hypot(a, b), np.degrees(np.arctan2(b, a)) % 360


def _axes(colour: Lab) -> tuple[Lab, Lab]:
    return colour[..., 1], colour[..., 2]


def _wrapped(turn: Lab) -> Lab:
    """Return the same angle within -180 to 180 degrees."""
    return np.where(turn > 180, turn - 360, np.where(turn < -180, turn + 360, turn))


def _hue_term(mean_hue: Lab) -> Lab:
    """Return T of equation (15)."""
    terms = ((-0.17, 1, -30.0), (0.24, 2, 0.0), (0.32, 3, 6.0), (-0.20, 4, -63.0))
    waves = [size * np.cos(np.radians(times * mean_hue + shift)) for size, times, shift in terms]
    return np.asarray(1 + sum(waves))


def _lab(pixels: NDArray[np.uint8]) -> Lab:
    """Convert sRGB to CIELAB under D65."""
    return np.asarray(cv2.cvtColor(pixels.astype(np.float32) / 255, cv2.COLOR_RGB2Lab), np.float64)
