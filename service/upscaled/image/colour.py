"""Keep profiles with RGB pixels, and convert CMYK, Lab and grey pixels to sRGB.

Profiles are read by LittleCMS through Pillow. One that cannot be used is as good as none.
"""

from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import ImageCms

from upscaled.image.icc import SRGB_CURVE, make_grey_profile
from upscaled.image.pixels import Pixels, is_deep, round_to_8bit

# The default of Adobe's programs, and so what the maker of a CMYK file saw of it.
_INTENT = ImageCms.Intent.RELATIVE_COLORIMETRIC
_FLAGS = ImageCms.Flags.BLACKPOINTCOMPENSATION
# What a JPEG can hold: 255 pieces of 65,519 bytes (ICC.1:2022, B.4).
MAX_PROFILE_BYTES = 255 * 65_519
_BROKEN_PROFILE_ERRORS = (ImageCms.PyCMSError, OSError, ValueError, TypeError)


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


def lab_to_rgb(pixels: PillowImage.Image) -> NDArray[np.uint8]:
    """Convert an image of mode LAB (CIE, white D50) to sRGB `[H, W, 3]`."""
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    flags = ImageCms.Flags.HIGHRESPRECALC
    transform = ImageCms.buildTransform(lab, srgb, "LAB", "RGB", _INTENT, flags)
    return np.asarray(ImageCms.applyTransform(pixels, transform))


def grey_to_rgb(grey: Pixels, icc: bytes | None) -> Pixels:
    """Convert grey `[H, W]` to sRGB `[H, W, 3]` of its own type, by its profile if that is sound.

    Stays neutral: all three channels are equal, whatever the profile's white.
    """
    levels = _grey_levels(icc) if icc else None
    if levels is not None:
        grey = levels[grey] if is_deep(grey) else round_to_8bit(levels[::257])[grey]
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
