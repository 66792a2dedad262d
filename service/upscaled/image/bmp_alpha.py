"""A BMP's alpha channel that is empty, and so none.

Programs leave the fourth byte of a pixel at zero under a header that calls it alpha: Windows' own
bitmaps in memory do. Other programs show such a picture opaque, and so it is meant; a picture of
which nothing is visible is of no use to its sender.
"""

from collections.abc import Mapping
from typing import Final

from PIL.BmpImagePlugin import BmpImageFile

# Pillow's orders of bytes with alpha, and the same without regard to it.
_WITHOUT_ALPHA: Final[Mapping[str, str]] = {
    "ABGR": "XBGR",
    "BGAR": "BGXR",
    "BGRA": "BGRX",
    "RGBA": "RGBX",
}
_PIXEL_BYTES: Final = 4


def drop_empty_alpha(picture: BmpImageFile, source: memoryview) -> None:
    """Have a picture of 32 bits decoded as RGB where the alpha of every pixel is 0.

    picture: of `source`, its pixels not decoded yet.
    """
    tile = picture.tile[0]
    if picture.mode != "RGBA" or not isinstance(tile.args, tuple):
        return
    order, row_bytes, *_ = tile.args
    pixels = bytes(source[tile.offset : tile.offset + row_bytes * picture.height])
    if pixels[order.index("A") :: _PIXEL_BYTES].rstrip(b"\0"):
        return
    picture._mode = "RGB"
    picture.tile = [tile._replace(args=(_WITHOUT_ALPHA[order], *tile.args[1:]))]
