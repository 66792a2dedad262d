"""Colour: profiles kept with RGB pixels, CMYK and grey turned into sRGB.

Profiles are read by LittleCMS through Pillow. One that cannot be used is as good as none.
"""

from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import ImageCms

# What Adobe's programs do by default, and so what whoever made a CMYK file saw of it.
_INTENT = ImageCms.Intent.RELATIVE_COLORIMETRIC
_FLAGS = ImageCms.Flags.BLACKPOINTCOMPENSATION


def keep_rgb_profile(icc: bytes | None) -> bytes | None:
    """The profile as it came, if it is a sound one for RGB pixels; else None."""
    return icc if icc and _to_srgb(icc, "RGB") is not None else None


def cmyk_to_rgb(picture: PillowImage.Image, icc: bytes | None) -> NDArray[np.uint8]:
    """A picture of mode CMYK (255 full ink) as sRGB `[H, W, 3]`.

    Through its profile, else by the plain formula `(1 - ink) * (1 - black)`.
    """
    transform = _to_srgb(icc, "CMYK") if icc else None
    if transform is None:
        return np.asarray(picture.convert("RGB"))
    converted = ImageCms.applyTransform(picture, transform)
    return np.asarray(converted)


def lab_to_rgb(picture: PillowImage.Image) -> NDArray[np.uint8]:
    """A picture of mode LAB (CIE, white D50) as sRGB `[H, W, 3]`."""
    transform = ImageCms.buildTransform(
        ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB", _INTENT
    )
    return np.asarray(ImageCms.applyTransform(picture, transform))


def grey_to_rgb(grey: NDArray[np.uint8], icc: bytes | None) -> NDArray[np.uint8]:
    """Grey `[H, W]` as sRGB `[H, W, 3]`, through its profile if it has a sound one.

    Stays neutral: all three channels are equal, whatever the profile's white.
    """
    transform = _to_srgb(icc, "L") if icc else None
    if transform is not None:
        ramp = PillowImage.fromarray(np.arange(256, dtype=np.uint8)[None, :])
        levels = np.asarray(ImageCms.applyTransform(ramp, transform))[0, :, 1]
        grey = levels[grey]
    return np.repeat(grey[..., None], 3, axis=-1)


def _to_srgb(icc: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The way from a profile to sRGB, or None where the profile is broken or not for `mode`."""
    try:
        profile = ImageCms.ImageCmsProfile(BytesIO(icc))
        return ImageCms.buildTransform(
            profile, ImageCms.createProfile("sRGB"), mode, "RGB", _INTENT, _FLAGS
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
