"""An encoded file to upright RGB pixels."""

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from upscaled.errors import MalformedImage, UnsupportedImageFormat
from upscaled.image import tiff_strips
from upscaled.image.colour import (
    cmyk_to_rgb,
    grey_to_rgb,
    is_sound_profile,
    keep_rgb_profile,
    lab_to_rgb,
)
from upscaled.image.colour_key import alpha_from_key
from upscaled.image.credit import read_credit
from upscaled.image.exif import Exif
from upscaled.image.formats.bmp import leaves_pixels_out
from upscaled.image.formats.isobmff import colour as iso_colour
from upscaled.image.formats.isobmff import items as iso_items
from upscaled.image.formats.jpeg import damage as jpeg_damage
from upscaled.image.formats.png.colour import find_profile
from upscaled.image.formats.png.depth import read_deep
from upscaled.image.formats.sniff import ENABLED
from upscaled.image.formats.webp import damage as webp_damage
from upscaled.image.header import BROKEN_FILE_ERRORS, Header, open_header
from upscaled.image.icc import ADOBE_RGB, ADOBE_RGB_CURVE, make_rgb_profile
from upscaled.image.orientation import swaps_sides, turn_upright
from upscaled.image.pixels import Pixels, round_to_8bit
from upscaled.image.resolution import read_dpi, turned
from upscaled.image.types import Image

# TIFF 6.0, section 8.
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0
_ISO_MEDIA = frozenset({"AVIF", "HEIC"})
# A WebP file keeps the EXIF block of the JPEG it was made of.
_FROM_CAMERAS = frozenset({"JPEG", "WEBP"})


def decode(source: bytes, formats: Collection[str] = ENABLED) -> Image:
    """The first picture of a file, upright; of an APNG its still picture.

    A PNG of 16 bits a channel keeps them; whatever else has more than 8 is rounded to 8. Alpha is
    given wherever the format can say transparent, also when every pixel is opaque. An RGB profile
    is kept with its pixels; CMYK and grey pixels are converted to sRGB.

    Raises:
        MalformedImage: broken or truncated; a half-decoded picture is never returned.
        UnsupportedImageFormat, ResolutionTooHigh: as `upscaled.image.probe.probe`.
    """
    header = open_header(source, formats)
    try:
        if _has_silent_damage(header):
            raise MalformedImage(detail=f"{header.format} pixels: damaged")
        icc = _find_profile(header)
        if header.png is not None and header.bit_depth == 16:
            image = read_deep(header.picture, header.png, icc)
        else:
            image = _read_plain(header, icc)
    except BROKEN_FILE_ERRORS as error:
        raise MalformedImage(detail=f"{header.format} pixels: {error}") from error
    rgb = _upright(image.rgb, header)
    if (rgb.shape[1], rgb.shape[0]) != header.upright_size_px:
        raise MalformedImage(detail=f"{header.format} pixels of another size: {rgb.shape}")
    exif = _read_exif(header)
    dpi = read_dpi(exif, _format_dpi(header))
    return Image(
        rgb=rgb,
        alpha=None if image.alpha is None else _upright(image.alpha, header),
        icc=image.icc,
        dpi=turned(dpi, swaps_sides=swaps_sides(header.orientation)),
        credit=read_credit(exif),
    )


def _find_profile(header: Header) -> bytes | None:
    """The profile of the stored pixels; None for sRGB, and where the file does not say."""
    if header.png is not None:
        return find_profile(header.png)
    icc = header.icc
    if header.format in _ISO_MEDIA:
        is_grey = header.picture.mode in ("L", "LA")
        if icc is None or not is_sound_profile(icc, is_grey=is_grey):
            return iso_colour.find_profile(header.source, is_grey=is_grey)
    if icc is None and header.format in _FROM_CAMERAS and _read_exif(header).is_adobe_rgb:
        return make_rgb_profile(ADOBE_RGB, ADOBE_RGB_CURVE)
    return icc


def _has_silent_damage(header: Header) -> bool:
    """Whether pixels are damaged or missing that the decoder would make up without a word."""
    if header.jpeg is not None:
        jpeg_damage.refuse_missing_pixels(header.jpeg)
    if header.format == "BMP":
        return leaves_pixels_out(header.source)
    if header.format == "WEBP":
        return webp_damage.has_unread_zeros(header.source)
    if header.format in _ISO_MEDIA:
        return iso_items.is_damaged(header.source)
    if header.format == "TIFF":
        return tiff_strips.ends_early(header.source, getattr(header.picture, "tag_v2", {}))
    return False


def _format_dpi(header: Header) -> object:
    """The resolution in the format's own field, None where it has none."""
    if header.png is not None:
        return header.png.dpi
    # Pillow makes up a resolution for a TIFF without one.
    return None if header.format == "TIFF" else header.picture.info.get("dpi")


def _read_exif(header: Header) -> Exif:
    if header.png is not None:
        return Exif(header.png.find(b"eXIf"))
    if header.format == "TIFF":  # an EXIF block is a small TIFF file
        return Exif(header.source)
    return Exif(header.picture.info.get("exif") or b"")


def _read_plain(header: Header, icc: bytes | None) -> Image:
    """Pixels of up to 8 bits a channel, not turned yet."""
    picture = header.picture
    picture.load()
    if picture.mode == "CMYK":
        return Image(rgb=cmyk_to_rgb(picture, icc))
    if picture.mode in ("F", "I"):
        raise UnsupportedImageFormat(detail=f"{header.format} of mode {picture.mode}")
    if picture.mode == "LAB":
        return Image(rgb=lab_to_rgb(picture))
    if picture.mode.startswith("I;16"):
        return Image(rgb=grey_to_rgb(_round_deep_grey(picture), icc))
    if picture.mode in ("LA", "La"):  # the second one is grey that was multiplied by its alpha
        pixels = np.asarray(picture.convert("LA"))
        return Image(rgb=grey_to_rgb(pixels[..., 0], icc), alpha=pixels[..., 1])
    if picture.mode in ("1", "L"):
        grey = np.asarray(picture.convert("L"))
        return Image(rgb=grey_to_rgb(grey, icc), alpha=_grey_key_alpha(header, grey))
    pixels = np.asarray(picture.convert("RGBA" if header.has_alpha else "RGB"))
    return Image(
        rgb=pixels[..., :3],
        alpha=pixels[..., 3] if header.has_alpha else None,
        icc=keep_rgb_profile(icc),
    )


def _round_deep_grey(picture: PillowImage.Image) -> NDArray[np.uint8]:
    """Grey TIFF of 16 bits; Pillow neither stretches one of 12 bits nor turns white at 0 round."""
    deep: NDArray[np.uint16] = np.asarray(picture).astype(np.uint16)
    tags = getattr(picture, "tag_v2", {})
    if tags.get(_BITS_PER_SAMPLE, (16,)) == (12,):
        deep = np.asarray(deep << 4 | deep >> 8, np.uint16)
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        deep = ~deep
    return round_to_8bit(deep)


def _grey_key_alpha(header: Header, grey: NDArray[np.uint8]) -> Pixels | None:
    """Alpha of a grey PNG with a transparent level, which counts in the file's own bit depth.

    Pillow compares it with levels already stretched to 0..255, which is wrong below 8 bits.
    """
    if header.png is None or not header.png.transparency:
        return None
    key = int.from_bytes(header.png.transparency, "big")
    highest = (1 << header.bit_depth) - 1
    return alpha_from_key(grey == key * 255 // highest)


def _upright(pixels: Pixels, header: Header) -> Pixels:
    if header.crop_px is not None:
        left, top, right, bottom = header.crop_px
        pixels = pixels[top:bottom, left:right]
    return np.ascontiguousarray(turn_upright(pixels, header.orientation))
