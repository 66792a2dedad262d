"""Decode an image file to upright RGB pixels, by C code: only in a decoder process."""

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import JpegImagePlugin  # noqa: F401 - see below

from upscaled.errors import MalformedImage, ResolutionTooHigh, UnsupportedImageFormat
from upscaled.image import colour

# Readers import these when they need them. Here they are loaded before the first file comes.
from upscaled.image.formats.isobmff import colour as _isobmff_colour  # noqa: F401
from upscaled.image.formats.jpeg import damage as _jpeg_damage  # noqa: F401
from upscaled.image.formats.jpeg import reader as _jpeg_reader  # noqa: F401
from upscaled.image.formats.png import colour as _png_colour  # noqa: F401
from upscaled.image.formats.png.pixels import read_deep
from upscaled.image.formats.table import (
    ALWAYS_DECODED,
    BROKEN_FILE_ERRORS,
    FORMATS,
    Stored,
    read_header,
)
from upscaled.image.formats.webp import damage as _webp_damage  # noqa: F401
from upscaled.image.kept_exif import keep_exif
from upscaled.image.kept_xmp import keep_xmp
from upscaled.image.metadata import Dpi, read_credit, read_dpi, upright_size
from upscaled.image.pixels import Pixels, alpha_from_key, round_to_8bit, turn_upright
from upscaled.image.types import UPRIGHT, Header, Image, KeptMetadata, MetadataPlan

# TIFF 6.0, sections 8, 20 and 23.
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO, _WHITE_POINT = 258, 262, 0, 318


def decode_file(
    source: bytes, formats: Collection[str] = ALWAYS_DECODED, plan: MetadataPlan | None = None
) -> Image:
    """Read a file's header and decode its pixels; see `read_header` and `decode`."""
    return decode(source, read_header(source, formats), plan)


def decode(source: bytes, header: Header, plan: MetadataPlan | None = None) -> Image:
    """Decode the first image of a file, upright; of an APNG its still image.

    A PNG of 16 bits a channel keeps them; whatever else has more than 8 is rounded to 8. Alpha is
    given wherever the format can say transparent, also when every pixel is opaque. An RGB profile
    is kept with its pixels; CMYK and grey pixels are converted to sRGB. `plan`: what of the file's
    metadata is kept for the result; None for nothing.

    Raises:
        MalformedImage: broken, truncated, or not what its header says; never decoded in part.
        UnsupportedImageFormat: a kind of pixels that is not decoded here.
        ResolutionTooHigh: the decoder found the image larger than its limit.
    """
    try:
        stored = FORMATS[header.format].reader.open_stored(source, header)
        _refuse_contradiction(header, stored)
        if header.is_deep:  # of all formats' deep pixels only PNG's are kept
            image = read_deep(stored.opened, header.parts, stored.icc)
        else:
            image = _read_plain(header, stored)
    except PillowImage.DecompressionBombError as error:
        raise ResolutionTooHigh(detail=str(error)) from error
    except BROKEN_FILE_ERRORS as error:
        raise MalformedImage(detail=f"{header.format} pixels: {error}") from error
    rgb = _upright(image.rgb, stored)
    if (rgb.shape[1], rgb.shape[0]) != (header.width_px, header.height_px):
        raise MalformedImage(detail=f"{header.format} pixels of another size: {rgb.shape}")
    dpi = read_dpi(stored.exif, stored.dpi, stored.orientation)
    return Image(
        rgb=rgb,
        alpha=None if image.alpha is None else _upright(image.alpha, stored),
        icc=image.icc,
        dpi=dpi,
        credit=read_credit(stored.exif),
        jpeg_quality=stored.jpeg_quality,
        kept=_keep_metadata(header, stored, plan, dpi, image.icc) if plan else None,
    )


def _keep_metadata(
    header: Header, stored: Stored, plan: MetadataPlan, dpi: Dpi | None, icc: bytes | None
) -> KeptMetadata:
    gain = max(plan.width_px, plan.height_px) / max(header.width_px, header.height_px)
    result_dpi = (dpi[0] * gain, dpi[1] * gain) if dpi else None
    return KeptMetadata(
        keep_exif(stored.exif, plan, dpi=result_dpi, is_srgb=icc is None),
        keep_xmp(stored.xmp, plan, gain),
    )


def _refuse_contradiction(header: Header, stored: Stored) -> None:
    """Raise ValueError where the decoder found another size or alpha than the header says."""
    opened = stored.opened
    width, height = opened.size
    if stored.crop_px is not None:
        left, top, right, bottom = stored.crop_px
        width, height = right - left, bottom - top
    if upright_size(width, height, stored.orientation) != (header.width_px, header.height_px):
        raise ValueError(f"{width} x {height} is not what the header says: {header}")
    has_alpha = opened.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in opened.info
    if has_alpha != header.has_alpha:
        raise ValueError(f"alpha {has_alpha} is not what the header says")


def _read_plain(header: Header, stored: Stored) -> Image:
    """Decode pixels of up to 8 bits a channel; they are not turned yet."""
    opened, icc = stored.opened, stored.icc
    opened.load()
    if opened.mode == "CMYK":
        return Image(rgb=colour.cmyk_to_rgb(opened, icc))
    if opened.mode in ("F", "I"):
        raise UnsupportedImageFormat(detail=f"{header.format} of mode {opened.mode}")
    if opened.mode == "LAB":
        return Image(rgb=colour.lab_to_rgb(opened, _find_white(opened)))
    if opened.mode.startswith("I;16"):
        return Image(rgb=colour.grey_to_rgb(_round_deep_grey(opened), icc))
    if opened.mode in ("LA", "La"):  # the second one is grey that was multiplied by its alpha
        pixels = np.asarray(opened.convert("LA"))
        return Image(rgb=colour.grey_to_rgb(pixels[..., 0], icc), alpha=pixels[..., 1])
    if opened.mode in ("1", "L"):
        grey = np.asarray(opened.convert("L"))
        key = stored.transparent_level
        alpha = None if key is None else alpha_from_key(grey == key)
        return Image(rgb=colour.grey_to_rgb(grey, icc), alpha=alpha)
    shown = _as_mode(opened, "RGBA" if header.has_alpha else "RGB")
    return Image(
        rgb=_pack(shown, "RGB").reshape(shown.height, shown.width, 3),
        alpha=_pack(shown, "A").reshape(shown.height, shown.width) if header.has_alpha else None,
        icc=colour.keep_rgb_profile(icc) if icc else None,
    )


def _as_mode(opened: PillowImage.Image, mode: str) -> PillowImage.Image:
    """Return the image in a mode, without the copy that Pillow makes of one that has it."""
    return opened if opened.mode == mode else opened.convert(mode)


def _pack(shown: PillowImage.Image, channels: str) -> NDArray[np.uint8]:
    """Return these channels alone, a pixel's side by side: a fifth of the time of converting."""
    return np.frombuffer(shown.tobytes("raw", channels), np.uint8)


def _find_white(opened: PillowImage.Image) -> colour.Point | None:
    """Return the reference white of a TIFF in x, y; None where it names none that can be."""
    numbers = getattr(opened, "tag_v2", {}).get(_WHITE_POINT)
    if not isinstance(numbers, tuple) or len(numbers) != 2:
        return None
    x, y = map(float, numbers)
    return (x, y) if x > 0 and y > 0 and x + y <= 1 else None


def _round_deep_grey(opened: PillowImage.Image) -> NDArray[np.uint8]:
    """Round a grey TIFF; Pillow neither stretches 12 bits nor inverts where white is zero."""
    deep: NDArray[np.uint16] = np.asarray(opened).astype(np.uint16)
    tags = getattr(opened, "tag_v2", {})
    if tags.get(_BITS_PER_SAMPLE, (16,)) == (12,):
        deep = np.asarray(deep << 4 | deep >> 8, np.uint16)
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        deep = ~deep
    return round_to_8bit(deep)


def _upright(pixels: Pixels, stored: Stored) -> Pixels:
    if stored.crop_px is not None:
        left, top, right, bottom = stored.crop_px
        pixels = pixels[top:bottom, left:right]
    if stored.orientation != UPRIGHT:
        pixels = turn_upright(pixels, stored.orientation)
    return np.ascontiguousarray(pixels)
