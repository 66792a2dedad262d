"""Keep and make profiles of RGB pixels, and convert CMYK, Lab and grey pixels to sRGB.

Profiles are read by LittleCMS through Pillow. One that cannot be used is as good as none. For
colours that a file describes by numbers or by codes a profile is made: version 4.3 (ICC.1:2010),
with one curve, and for RGB three primaries and a white, brought to the profile's own white D50 by
Bradford's method. It has 500 bytes, the same for the same numbers.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import ImageCms

from upscaled.image.pixels import Pixels, round_to_8bit

# The default of Adobe's programs, in which most CMYK files were made.
_INTENT: Final = ImageCms.Intent.RELATIVE_COLORIMETRIC
_FLAGS: Final = ImageCms.Flags.BLACKPOINTCOMPENSATION
# What a JPEG can hold: 255 pieces of 65,519 bytes (ICC.1:2022, B.4).
MAX_PROFILE_BYTES: Final = 255 * 65_519
_LAB_ROWS: Final = 64
_BROKEN_PROFILE_ERRORS: Final = (ImageCms.PyCMSError, OSError, ValueError, TypeError)


def keep_rgb_profile(icc: bytes | None) -> bytes | None:
    """Return the profile if it is a sound one for RGB pixels that a result can hold, else None."""
    return icc if icc and is_sound_profile(icc, is_grey=False) else None


def is_sound_profile(icc: bytes, *, is_grey: bool) -> bool:
    """Return whether a profile is one for grey, or for RGB, of at most `MAX_PROFILE_BYTES`."""
    if not 0 < len(icc) <= MAX_PROFILE_BYTES:
        return False
    return (_grey_levels(icc) if is_grey else _to_srgb(icc, "RGB")) is not None


def cmyk_to_rgb(pixels: PillowImage.Image, icc: bytes | None) -> NDArray[np.uint8]:
    """Convert an image of mode CMYK (255 full ink) to sRGB `[H, W, 3]`.

    Through its profile, else by the plain formula `(1 - ink) * (1 - black)`.
    """
    transform = _to_srgb(icc, "CMYK") if icc else None
    if transform is None:
        return np.asarray(pixels.convert("RGB"))
    return np.asarray(ImageCms.applyTransform(pixels, transform))


def lab_to_rgb(pixels: PillowImage.Image, white: "Point | None" = None) -> NDArray[np.uint8]:
    """Convert an image of mode LAB (CIE 1976) to sRGB `[H, W, 3]`, what sRGB lacks to the nearest.

    white: the reference white in x, y, both above 0; None for D50.
    """
    white_xyz = _to_xyz(white) if white else _D50
    to_light = np.linalg.inv(_colorants(SRGB)) @ _adapt(white_xyz, _to_xyz(SRGB.white))
    to_light = np.asarray(to_light * white_xyz, np.float32)
    lab = np.asarray(pixels)
    rgb = np.empty_like(lab)
    for top in range(0, len(lab), _LAB_ROWS):
        strip = lab[top : top + _LAB_ROWS]
        middle = (strip[..., 0] * np.float32(100 / 255) + 16) / 116
        a, b = (strip[..., channel].view(np.int8).astype(np.float32) for channel in (1, 2))
        roots = np.stack([middle + a / 500, middle, middle - b / 200], axis=-1)
        relative = np.where(roots > 6 / 29, roots**3, (roots - 4 / 29) * (108 / 841))
        light = np.clip(relative @ to_light.T, 0, 1)
        levels = np.where(light > 0.0031308, 1.055 * light ** (1 / 2.4) - 0.055, 12.92 * light)
        rgb[top : top + _LAB_ROWS] = np.rint(levels * 255)
    return rgb


def grey_to_rgb(grey: Pixels, icc: bytes | None) -> Pixels:
    """Convert grey `[H, W]` to sRGB `[H, W, 3]` of its own type, by its profile if that is sound.

    Stays neutral: all three channels are equal, whatever the profile's white.
    """
    levels = _grey_levels(icc) if icc else None
    if levels is not None:
        grey = levels[grey] if grey.dtype == np.uint16 else round_to_8bit(levels[::257])[grey]
    return np.repeat(grey[..., None], 3, axis=-1)


def _grey_levels(icc: bytes) -> NDArray[np.uint16] | None:
    """Convert each of 65,536 levels of grey by a profile; None where it is not one for grey.

    Not optimised: LittleCMS would put 4,096 steps in the place of the curve, and be wrong by
    350 of 65,535 in the dark.
    """
    ramp = PillowImage.fromarray(np.arange(65_536, dtype=np.uint16).reshape(256, 256))
    srgb = ImageCms.ImageCmsProfile(BytesIO(make_grey_profile(SRGB_CURVE)))
    flags = _FLAGS | ImageCms.Flags.NOOPTIMIZE
    try:
        profile = ImageCms.ImageCmsProfile(BytesIO(icc))
        transform = ImageCms.buildTransform(profile, srgb, "I;16", "I;16", _INTENT, flags)
        levels = np.asarray(ImageCms.applyTransform(ramp, transform), np.uint16)
    except _BROKEN_PROFILE_ERRORS:
        return None
    return levels.ravel()


def _to_srgb(icc: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Build the transform to sRGB; None where the profile is broken or not one for `mode`."""
    srgb = ImageCms.createProfile("sRGB")
    try:
        profile = ImageCms.ImageCmsProfile(BytesIO(icc))
        return ImageCms.buildTransform(profile, srgb, mode, "RGB", _INTENT, _FLAGS)
    except _BROKEN_PROFILE_ERRORS:
        return None


Matrix = NDArray[np.float64]
Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Curve:
    """Curve from a channel's value in 0..1 to light: `(scale * v + offset) ** gamma`.

    Below `linear_to` it is `v * slope`.
    """

    gamma: float
    scale: float = 1.0
    offset: float = 0.0
    slope: float = 0.0
    linear_to: float = 0.0


class Chromaticities(NamedTuple):
    """White and primaries in the CIE's x, y."""

    white: Point
    red: Point
    green: Point
    blue: Point


SRGB_CURVE: Final = Curve(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
BT709_CURVE: Final = Curve(1 / 0.45, 1 / 1.099, 0.099 / 1.099, 1 / 4.5, 0.081)

_D65: Final = (0.3127, 0.3290)
SRGB: Final = Chromaticities(_D65, (0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
DISPLAY_P3: Final = Chromaticities(_D65, (0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
# Adobe RGB (1998) Color Image Encoding, version 2005-05, 4.3.1 and 4.3.4.
ADOBE_RGB: Final = Chromaticities(_D65, (0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
ADOBE_RGB_CURVE: Final = Curve(563 / 256)
BT2020: Final = Chromaticities(_D65, (0.708, 0.292), (0.170, 0.797), (0.131, 0.046))

Colours = tuple[Chromaticities, Curve]

# ITU-T H.273, tables 2 and 3; PNG's cICP, the `colr` boxes of AVIF and HEIC, and AV1's sequence
# header use these codes. No profile that every program reads describes PQ (16) and HLG (18): pixels
# of such images are kept as they are.
_PRIMARIES: Final[Mapping[int, Chromaticities]] = {
    1: SRGB,
    5: Chromaticities(_D65, (0.64, 0.33), (0.29, 0.60), (0.15, 0.06)),
    **dict.fromkeys((6, 7), Chromaticities(_D65, (0.630, 0.340), (0.310, 0.595), (0.155, 0.070))),
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

_D50: Final = np.array([0.9642, 1.0, 0.8249])
_BRADFORD: Final = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)
_NAME: Final = "as the picture's file describes"
_VERSION: Final = 0x04300000
_MADE: Final = (2026, 1, 1, 0, 0, 0)
_HIGHEST: Final = 32_767.0


def colours_of(primaries: int, transfer: int) -> Colours | None:
    """Look two codes up; None where one is unspecified, unknown, PQ or HLG."""
    chromaticities, curve = _PRIMARIES.get(primaries), _CURVES.get(transfer)
    return (chromaticities, curve) if chromaticities and curve else None


def make_profile(colours: Colours, *, is_grey: bool) -> bytes | None:
    """Make the profile of RGB or grey pixels in these colours; None for sRGB.

    Numbers that describe no colours are a ValueError.
    """
    chromaticities, curve = colours
    if is_grey:
        return None if curve == SRGB_CURVE else make_grey_profile(curve)
    return None if colours == (SRGB, SRGB_CURVE) else make_rgb_profile(chromaticities, curve)


def make_grey_profile(curve: Curve) -> bytes:
    """Make the profile of grey pixels with that curve; ValueError for what no profile can hold."""
    return _join(b"GRAY", {b"wtpt": _fixed(b"XYZ ", _D50), b"kTRC": _curve(curve)})


def make_rgb_profile(chromaticities: Chromaticities, curve: Curve) -> bytes:
    """Make the profile of RGB pixels with these primaries and that curve in each channel.

    Raises:
        ValueError: the primaries span no colours, or a number that no profile can hold.
    """
    to_d50 = _adapt(_to_xyz(chromaticities.white), _D50)
    red, green, blue = (to_d50 @ _colorants(chromaticities)).T
    return _join(
        b"RGB ",
        {
            b"wtpt": _fixed(b"XYZ ", _D50),
            b"chad": _fixed(b"sf32", to_d50.ravel()),
            b"rXYZ": _fixed(b"XYZ ", red),
            b"gXYZ": _fixed(b"XYZ ", green),
            b"bXYZ": _fixed(b"XYZ ", blue),
            **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), _curve(curve)),
        },
    )


def _adapt(white: Matrix, to_white: Matrix) -> Matrix:
    """Return the matrix that brings XYZ colours from one white to another, by Bradford's method."""
    gains = (_BRADFORD @ to_white) / (_BRADFORD @ white)
    return np.asarray(np.linalg.inv(_BRADFORD) @ np.diag(gains) @ _BRADFORD)


def _to_xyz(point: Point) -> Matrix:
    x, y = point
    if y <= 0:
        raise ValueError(f"no colour lies at {point}")
    return np.array([x / y, 1.0, (1 - x - y) / y])


def _colorants(chromaticities: Chromaticities) -> Matrix:
    """Compute the primaries' XYZ as columns, in strengths that together make the white."""
    white, *primary_points = map(_to_xyz, chromaticities)
    primaries = np.stack(primary_points, axis=1)
    if abs(np.linalg.det(primaries)) < 1e-6:
        raise ValueError("the primaries lie on a line")
    strengths = np.linalg.solve(primaries, white)
    if (strengths <= 0).any():
        raise ValueError("the white lies outside of the primaries")
    return np.asarray(primaries * strengths)


def _curve(curve: Curve) -> bytes:
    """Make a parametric curve: type 0 is a power alone, type 3 one with a straight beginning."""
    if curve.linear_to == 0:
        return _fixed(b"para", [curve.gamma], struct.pack(">HH", 0, 0))
    numbers = [curve.gamma, curve.scale, curve.offset, curve.slope, curve.linear_to]
    return _fixed(b"para", numbers, struct.pack(">HH", 3, 0))


def _fixed(kind: bytes, numbers: list[float] | Matrix, head: bytes = b"") -> bytes:
    """Make an element of 16.16 fixed-point numbers."""
    if not all(abs(number) < _HIGHEST for number in numbers):
        raise ValueError(f"{list(numbers)} in a profile")
    whole = [round(float(number) * 65_536) for number in numbers]
    return kind + bytes(4) + head + struct.pack(f">{len(whole)}i", *whole)


def _text(text: str) -> bytes:
    encoded = text.encode("utf-16-be")
    return b"mluc" + struct.pack(">IIIIII", 0, 1, 12, 0x656E5553, len(encoded), 28) + encoded


def _join(space: bytes, elements: Mapping[bytes, bytes]) -> bytes:
    """Join header, table of tags and elements; equal elements are stored once."""
    elements = {b"desc": _text(_NAME), b"cprt": _text("CC0-1.0"), **elements}
    table, data = struct.pack(">I", len(elements)), b""
    data_at = 128 + 4 + 12 * len(elements)
    places: dict[bytes, int] = {}
    for name, element in elements.items():
        if element not in places:
            places[element] = data_at + len(data)
            data += element + bytes(-len(element) % 4)
        table += struct.pack(">4sII", name, places[element], len(element))
    head = struct.pack(">I4sI4s4s4s6H", data_at + len(data), bytes(4), _VERSION, b"mntr", space,
                       b"XYZ ", *_MADE)  # fmt: skip
    head += b"acsp" + bytes(28) + _fixed(b"XYZ ", _D50)[8:] + bytes(48)
    return head + table + data
