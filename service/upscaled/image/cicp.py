"""Colours by code: ITU-T H.273 primaries and transfer curves, and the profiles that say the same.

PNG's cICP, the `colr` boxes of AVIF and HEIC, and AV1's sequence header all use these codes.
"""

from collections.abc import Mapping
from typing import Final

from upscaled.image.icc import (
    BT709_CURVE,
    BT2020,
    DISPLAY_P3,
    SRGB,
    SRGB_CURVE,
    Chromaticities,
    Curve,
    make_grey_profile,
    make_rgb_profile,
)

Colours = tuple[Chromaticities, Curve]

# ITU-T H.273, tables 2 and 3. PQ (16) and HLG (18) cannot be said by a profile that every program
# reads: pictures of these are passed on as they are.
_PRIMARIES: Final[Mapping[int, Chromaticities]] = {
    1: SRGB,
    5: Chromaticities((0.3127, 0.3290), (0.64, 0.33), (0.29, 0.60), (0.15, 0.06)),
    6: Chromaticities((0.3127, 0.3290), (0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),
    7: Chromaticities((0.3127, 0.3290), (0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),
    9: BT2020,
    11: Chromaticities((0.314, 0.351), (0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    12: DISPLAY_P3,
}
_CURVES: Final[Mapping[int, Curve]] = {
    **dict.fromkeys((1, 6, 14, 15), BT709_CURVE),
    4: Curve(2.2),
    5: Curve(2.8),
    8: Curve(1.0),
    13: SRGB_CURVE,
}


def colours_of(primaries: int, transfer: int) -> Colours | None:
    """What two codes mean; None for one that is unspecified, unknown, PQ or HLG."""
    chromaticities, curve = _PRIMARIES.get(primaries), _CURVES.get(transfer)
    return (chromaticities, curve) if chromaticities and curve else None


def make_profile(colours: Colours, *, is_grey: bool) -> bytes | None:
    """The ICC profile of RGB or grey pixels in these colours; None for sRGB.

    Raises:
        ValueError: the numbers describe no colours.
    """
    chromaticities, curve = colours
    if is_grey:
        return None if curve == SRGB_CURVE else make_grey_profile(curve)
    return None if colours == (SRGB, SRGB_CURVE) else make_rgb_profile(chromaticities, curve)
