"""Convert arrays and Pillow images to `Image` and back, with layout, depth and profile."""

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import ImageOps

from upscaled.errors import InvalidParameter
from upscaled.image.colour import cmyk_to_rgb
from upscaled.image.pixels import Pixels
from upscaled.image.types import Image

_DEEP_MODES: Final = frozenset({"I;16", "I;16L", "I;16B"})
_KEPT_MODES: Final = frozenset({"L", "LA", "RGB", "RGBA"}) | _DEEP_MODES
_UNBOUNDED_MODES: Final = frozenset({"I", "F"})
_GREY_MODES: Final = frozenset({"L", "LA", "La"})
_OTHER_COLOURS: Final = frozenset({"1", "I", "F", "YCbCr", "LAB", "HSV"})
"""Modes that are converted to others, which the picture's profile does not describe."""


@dataclass(frozen=True, slots=True)
class ArrayShape:
    """Layout of an image's array: grey or colour, with or without alpha and a third axis."""

    is_flat: bool
    is_grey: bool
    has_alpha: bool

    def restore(self, image: Image) -> Pixels:
        """Return the pixels of an image as an array of this layout."""
        colour = image.rgb[..., :1] if self.is_grey else image.rgb
        if image.alpha is not None:
            colour = np.concatenate((colour, image.alpha[..., None]), axis=2)
        return np.ascontiguousarray(colour[..., 0] if self.is_flat else colour)


def read_array(pixels: NDArray[Any]) -> tuple[Image, ArrayShape]:
    """Make an image of `[h, w]` or `[h, w, c]`, uint8 or uint16, or raise InvalidParameter.

    c is 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha.
    """
    channels = pixels.shape[2] if pixels.ndim == 3 else int(pixels.ndim == 2)
    if pixels.dtype not in (np.uint8, np.uint16) or not 1 <= channels <= 4 or not pixels.size:
        raise InvalidParameter(
            f"an array of shape {pixels.shape} and type {pixels.dtype} is no picture: it must be "
            "[h, w] or [h, w, 1 to 4] of uint8 or uint16"
        )
    shape = ArrayShape(is_flat=pixels.ndim == 2, is_grey=channels < 3, has_alpha=channels in (2, 4))
    planes = pixels[..., None] if shape.is_flat else pixels
    colour = planes[..., : 1 if shape.is_grey else 3]
    rgb = np.repeat(colour, 3, axis=2) if shape.is_grey else np.ascontiguousarray(colour)
    alpha = np.ascontiguousarray(planes[..., -1]) if shape.has_alpha else None
    return Image(rgb=rgb, alpha=alpha), shape


def read_pillow(picture: PillowImage.Image) -> tuple[Image, ArrayShape]:
    """Make an image of a Pillow image, turned upright by its EXIF orientation.

    L, LA, RGB, RGBA and I;16 stay what they are; other modes become RGB, and where a colour is
    transparent they become LA or RGBA. The ICC profile of an RGB picture and the resolution go with
    it; CMYK becomes sRGB by its own. One without pixels, or with numbers that are none of 0 to 255
    (modes I and F), is InvalidParameter.
    """
    picture = ImageOps.exif_transpose(picture)
    profile, dpi = picture.info.get("icc_profile"), picture.info.get("dpi")
    if picture.mode in _UNBOUNDED_MODES and not _is_8_bit(picture):
        raise InvalidParameter(
            f"a picture of mode {picture.mode} whose numbers are not all whole ones of 0 to 255: "
            "convert it to L or I;16 first"
        )
    if picture.mode == "CMYK":
        picture, profile = PillowImage.fromarray(cmyk_to_rgb(picture, profile)), None
    profile = None if picture.mode in _OTHER_COLOURS else profile
    picture = _as_kept_mode(picture)
    pixels = np.asarray(picture)
    image, shape = read_array(pixels.astype(np.uint16) if picture.mode in _DEEP_MODES else pixels)
    dpi = (float(dpi[0]), float(dpi[1])) if dpi else None
    return replace(image, icc=profile, dpi=dpi), shape


def _as_kept_mode(picture: PillowImage.Image) -> PillowImage.Image:
    """Convert a picture to one of `_KEPT_MODES`; a colour that is transparent becomes alpha."""
    has_alpha = picture.has_transparency_data
    if picture.mode in _DEEP_MODES or (picture.mode in _KEPT_MODES and not has_alpha):
        return picture
    if picture.mode in _GREY_MODES:
        return picture.convert("LA")
    return picture.convert("RGBA" if has_alpha else "RGB")


def _is_8_bit(picture: PillowImage.Image) -> bool:
    """Return whether each number is a whole one of 0 to 255; Pillow would cut others off."""
    pixels = np.asarray(picture)
    return bool(np.array_equal(pixels, np.clip(np.floor(pixels), 0, 255)))


def write_pillow(image: Image, shape: ArrayShape) -> PillowImage.Image:
    """Make a Pillow image of an upscaled one, with its profile and resolution in `info`."""
    picture = PillowImage.fromarray(shape.restore(image))
    if image.icc is not None:
        picture.info["icc_profile"] = image.icc
    if image.dpi is not None:
        picture.info["dpi"] = image.dpi
    return picture
