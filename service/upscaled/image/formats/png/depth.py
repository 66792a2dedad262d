"""PNG files of 16 bits a channel, read without losing the low byte.

Pillow has no mode for 16-bit colour: it hands out the high bytes only. So the pixels are
unpacked twice, once as what they are and once by a layout that picks up the low bytes.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL.ImageFile import ImageFile

from upscaled.image.colour import grey_to_rgb, keep_rgb_profile
from upscaled.image.colour_key import alpha_from_key
from upscaled.image.formats.png.pixels import PngPicture
from upscaled.image.formats.png.structure import GREY, GREY_ALPHA, RGB, RGBA, PngParts
from upscaled.image.types import Image

Deep = NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class _Layout:
    """Another layout of the same pixel size. Its output holds these channels' bytes."""

    rawmode: str
    mode: str


# PNG stores the high byte first. Unpacked as if the low byte came first, the layouts of Pillow
# yield the low bytes; grey with alpha has no such twin, but its four bytes pass as RGBA.
_LOW_BYTES: Final = {
    RGB: _Layout("RGB;16L", "RGB"),
    RGBA: _Layout("RGBA;16L", "RGBA"),
}
_GREY_ALPHA_BYTES: Final = _Layout("RGBA", "RGBA")


def read_deep(picture: ImageFile, png: PngParts, icc: bytes | None) -> Image:
    """The image in 16 bits, not turned yet.

    picture: of `png`, which has 16 bits a channel. icc: the profile that its pixels have.
    """
    kind = png.header.colour_type
    picture.load()
    key = picture.info.get("transparency")
    if kind == GREY:
        deep: Deep = np.asarray(picture).astype(np.uint16)
        return Image(
            rgb=grey_to_rgb(deep, icc),
            alpha=None if key is None else alpha_from_key(deep == key, np.uint16),
        )
    if kind == GREY_ALPHA:
        pixels = _unpack_as(png, _GREY_ALPHA_BYTES)
        deep = pixels.view(">u2").astype(np.uint16)
        return Image(rgb=grey_to_rgb(deep[..., 0], icc), alpha=deep[..., 1])
    deep = _join(np.asarray(picture), _unpack_as(png, _LOW_BYTES[kind]))
    alpha = deep[..., 3] if kind == RGBA else None
    if key is not None:
        is_key = (deep == np.asarray(key, np.uint16)).all(axis=-1)
        return Image(
            rgb=deep,
            alpha=alpha_from_key(is_key, np.uint16),
            icc=keep_rgb_profile(icc),
        )
    return Image(rgb=deep[..., :3], alpha=alpha, icc=keep_rgb_profile(icc))


def _unpack_as(png: PngParts, layout: _Layout) -> NDArray[np.uint8]:
    picture = PngPicture(png)
    picture._mode = layout.mode
    picture.tile = [tile._replace(args=layout.rawmode) for tile in picture.tile]
    picture.load()
    return np.asarray(picture)


def _join(high: NDArray[np.uint8], low: NDArray[np.uint8]) -> Deep:
    deep: Deep = high.astype(np.uint16)
    deep <<= 8
    deep |= low
    return deep
