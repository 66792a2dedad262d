"""Find the profile of a PNG, embedded or described (PNG third edition, 4.3 and 11.3.2).

The first sound one of cICP, iCCP, sRGB, and gAMA with cHRM counts, as in browsers. What is stated
in numbers gets the profile that says the same, so that the pixels stay what they are and are shown
as before. No profile that all programs read describes HDR (PQ and HLG in cICP), so it is ignored.
"""

import struct
import zlib
from typing import Final

import numpy as np

from upscaled.image import colour
from upscaled.image.colour import MAX_PROFILE_BYTES, is_sound_profile
from upscaled.image.formats.png.structure import PngParts

_RGB_FULL_RANGE: Final = (0, 1)
_UNIT: Final = 100_000
_SRGB_GAMMA: Final = 2.2
# What programs write for sRGB: gAMA 45455 and its neighbours, cHRM rounded to two digits.
_GAMMA_TOLERANCE: Final = 0.05
_POINT_TOLERANCE: Final = 0.005
_STEEPEST: Final = 10.0
_DEFLATE: Final = b"\x00"


def find_profile(png: PngParts) -> bytes | None:
    """Find the profile of a file's pixels; None for sRGB, and where the file does not say."""
    cicp = png.find(b"cICP")
    is_usable = len(cicp) == 4 and tuple(cicp[2:]) == _RGB_FULL_RANGE
    colours = colour.colours_of(cicp[0], cicp[1]) if is_usable else None
    if colours is None:
        embedded = _read_profile(png)
        if embedded or png.find(b"sRGB"):
            return embedded
        colours = _read_gamma_and_primaries(png)
    try:
        return colour.make_profile(colours, is_grey=png.header.is_grey)
    except ValueError:  # numbers that describe no colours
        return None


def _read_profile(png: PngParts) -> bytes | None:
    """Return the profile in iCCP (11.3.2.3) if it is a sound one for the pixels."""
    _, _, rest = png.find(b"iCCP").partition(b"\x00")
    if rest[:1] != _DEFLATE:
        return None
    try:
        profile = zlib.decompressobj().decompress(rest[1:], MAX_PROFILE_BYTES + 1)
    except zlib.error:
        return None
    return profile if is_sound_profile(profile, is_grey=png.header.is_grey) else None


def _read_gamma_and_primaries(png: PngParts) -> colour.Colours:
    """Read gAMA and cHRM; where they are missing or near sRGB's, sRGB's values count."""
    primaries, curve = colour.SRGB, colour.SRGB_CURVE
    (gamma,) = struct.unpack(">I", png.find(b"gAMA") or bytes(4))
    exponent = _UNIT / gamma if gamma else _SRGB_GAMMA
    is_sane = 1 / _STEEPEST <= exponent <= _STEEPEST
    if is_sane and abs(exponent / _SRGB_GAMMA - 1) > _GAMMA_TOLERANCE:
        curve = colour.Curve(exponent)
    chrm = png.find(b"cHRM")
    if chrm:
        points = np.reshape(struct.unpack(">8I", chrm), (4, 2)) / _UNIT
        if (np.abs(points - colour.SRGB) > _POINT_TOLERANCE).any():
            primaries = colour.Chromaticities(*((float(x), float(y)) for x, y in points))
    return primaries, curve
