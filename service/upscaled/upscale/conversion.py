"""Convert arrays and Pillow images to `Image` and back, and check the options of their results."""

from dataclasses import dataclass, replace
from typing import Any, Final, TypedDict

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import ImageOps

from upscaled.errors import InvalidParameter
from upscaled.image.colour import cmyk_to_rgb
from upscaled.image.output import MAX_QUALITY, OutputChoice
from upscaled.image.pixels import Pixels
from upscaled.image.types import Image
from upscaled.upscale.result import MAX_RESULT_SIDE_PX

_DEEP_MODES: Final = frozenset({"I;16", "I;16L", "I;16B"})
_KEPT_MODES: Final = frozenset({"L", "LA", "RGB", "RGBA"}) | _DEEP_MODES
_UNBOUNDED_MODES: Final = frozenset({"I", "F"})
_GREY_MODES: Final = frozenset({"L", "LA", "La"})
_OTHER_COLOURS: Final = frozenset({"1", "I", "F", "YCbCr", "LAB", "HSV"})
"""Modes that are converted to others, which the picture's profile does not describe."""
_RANGES: Final = {
    "quality": MAX_QUALITY,
    "max_side_px": MAX_RESULT_SIDE_PX,
    "width_px": MAX_RESULT_SIDE_PX,
    "height_px": MAX_RESULT_SIDE_PX,
}
"""The largest value of each option that is a number; the smallest is 1."""

_OF_FILES: Final = ("format", "quality", "metadata")


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
    """Make an image of a Pillow image, turned upright as its EXIF orientation asks.

    L, LA, RGB, RGBA and I;16 stay what they are; other modes become RGB, and where a colour is
    transparent they become LA or RGBA. The ICC profile of an RGB picture and the resolution go with
    it; CMYK becomes sRGB by its own. One without pixels, or with numbers that are none of 0 to 255
    (modes I and F), is InvalidParameter.
    """
    picture = ImageOps.exif_transpose(picture)
    profile, dpi = picture.info.get("icc_profile"), picture.info.get("dpi")
    if picture.mode in _UNBOUNDED_MODES and not _is_8_bit(picture):
        raise InvalidParameter(
            f"a picture of mode {picture.mode} whose numbers are not all of 0 to 255: convert it "
            "to L or I;16 first"
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


class OutputOptions(TypedDict, total=False):
    """Options of a result; without any it is as the service gives it.

    format: jpeg, png, webp, avif or lossless, of a result that is a file. quality: of a JPEG, WebP
    or AVIF, 1 to 100. max_side_px: a longer result is scaled down to it. width_px, height_px: the
    result is scaled down to these, as large as both allow; 1 to 20,000. metadata: keep or keep-all,
    of what the source's file says about it.
    """

    format: str
    quality: int
    max_side_px: int
    width_px: int
    height_px: int
    metadata: str


def read_options(options: OutputOptions, *, is_file: bool) -> OutputChoice:
    """Return the choice that options make, or raise InvalidParameter.

    is_file: the result is encoded: an array or a picture in memory has no format.
    """
    for name, most in _RANGES.items():
        value = options.get(name)
        if value is not None and not (isinstance(value, int) and 1 <= value <= most):
            raise InvalidParameter(f"{name} must be a whole number from 1 to {most}")
    if not is_file and not options.keys().isdisjoint(_OF_FILES):
        raise InvalidParameter(f"{', '.join(_OF_FILES)} are those of a file, not of pixels")
    try:
        choice = OutputChoice(**options)
    except ValueError as error:
        raise InvalidParameter(str(error)) from None
    if choice.quality is not None and not choice.has_quality:
        raise InvalidParameter(f"quality: {choice.format} has no quality")
    return choice
