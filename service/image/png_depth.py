"""PNG files of 16 bits a channel, read without losing the low byte.

Pillow has no mode for 16-bit colour: it hands out the high bytes only. So the pixels are
unpacked twice, once as what they are and once by a layout that picks up the low bytes.
"""

from dataclasses import dataclass
from io import BytesIO
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import PngImagePlugin

from service.image.colour import grey_to_rgb, keep_rgb_profile
from service.image.colour_key import alpha_from_key
from service.image.header import Header
from service.image.types import Image

Deep = NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class _Layout:
    """Another layout of the same pixel size. Its output holds these channels' bytes."""

    rawmode: str
    mode: str


# PNG stores the high byte first. Unpacked as if the low byte came first, the layouts of Pillow
# yield the low bytes; grey with alpha has no such twin, but its four bytes pass as RGBA.
_LOW_BYTES: Final = {
    "RGB;16B": _Layout("RGB;16L", "RGB"),
    "RGBA;16B": _Layout("RGBA;16L", "RGBA"),
}
_GREY: Final = "I;16B"
_GREY_ALPHA: Final = "LA;16B"
_GREY_ALPHA_BYTES: Final = _Layout("RGBA", "RGBA")


def is_deep_png(header: Header) -> bool:
    """Whether the file is a PNG of 16 bits a channel."""
    return header.bit_depth == 16 and _rawmode(header) in (_GREY, _GREY_ALPHA, *_LOW_BYTES)


def read_deep(header: Header, icc: bytes | None) -> Image:
    """The image in 16 bits, not turned yet. icc: the profile that its pixels have."""
    rawmode = _rawmode(header)
    header.picture.load()
    key = header.picture.info.get("transparency")
    if rawmode == _GREY:
        deep: Deep = np.asarray(header.picture).astype(np.uint16)
        return Image(
            rgb=grey_to_rgb(deep, icc),
            alpha=None if key is None else alpha_from_key(deep == key, np.uint16),
        )
    if rawmode == _GREY_ALPHA:
        pixels = _unpack_as(header.source, _GREY_ALPHA_BYTES)
        deep = pixels.view(">u2").astype(np.uint16)
        return Image(rgb=grey_to_rgb(deep[..., 0], icc), alpha=deep[..., 1])
    deep = _join(np.asarray(header.picture), _unpack_as(header.source, _LOW_BYTES[rawmode]))
    alpha = deep[..., 3] if rawmode == "RGBA;16B" else None
    if key is not None:
        is_key = (deep == np.asarray(key, np.uint16)).all(axis=-1)
        return Image(
            rgb=deep,
            alpha=alpha_from_key(is_key, np.uint16),
            icc=keep_rgb_profile(icc),
        )
    return Image(rgb=deep[..., :3], alpha=alpha, icc=keep_rgb_profile(icc))


def _rawmode(header: Header) -> str:
    args = header.picture.tile[0].args if header.picture.tile else ""
    return args if isinstance(args, str) else ""


def _unpack_as(source: bytes, layout: _Layout) -> NDArray[np.uint8]:
    picture = PngImagePlugin.PngImageFile(BytesIO(source))
    picture._mode = layout.mode
    picture.tile = [tile._replace(args=layout.rawmode) for tile in picture.tile]
    picture.load()
    return np.asarray(picture)


def _join(high: NDArray[np.uint8], low: NDArray[np.uint8]) -> Deep:
    deep: Deep = high.astype(np.uint16)
    deep <<= 8
    deep |= low
    return deep
