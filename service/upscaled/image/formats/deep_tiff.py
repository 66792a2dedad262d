"""Decode TIFF files of 16 bits a channel in full; Pillow gives the high bytes of colours alone.

Pillow has no mode for 16-bit colour. So its pixels are unpacked twice: once by their own layout,
which gives the high bytes, and once by one that gives the low bytes. For separate planes Pillow has
no such layout; each is decoded as a grey file of its own, of which Pillow keeps all 16 bits.
"""

import struct
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL.TiffImagePlugin import TiffImageFile

from upscaled.image.formats.limited_file import open_limited
from upscaled.image.pixels import round_to_8bit

if TYPE_CHECKING:
    from PIL._imaging import PixelAccess

Deep = NDArray[np.uint16]

_CHANNELS: Final[Mapping[str, int]] = {"RGB": 3, "RGBA": 4, "CMYK": 4}
_BITS, _PHOTOMETRIC, _SAMPLES, _PLANAR_CONFIGURATION, _EXTRA = 258, 262, 277, 284, 338
_SEPARATE_PLANES, _PREMULTIPLIED = 2, 1
_DEEP_BITS: Final = 16
# Sides, compression, order of bits, orientation, rows of a strip, predictor, sides of a tile.
_COPIED_TAGS: Final = (256, 257, 259, 266, 274, 278, 317, 322, 323)
_GREY_TAGS: Final = {_BITS: _DEEP_BITS, _PHOTOMETRIC: 1, _SAMPLES: 1}
# Tags that list the offset of each strip or tile, and its size in bytes.
_OFFSETS_AND_SIZES: Final = (273, 279, 324, 325)
_VERSION, _LONG, _ENTRY_BYTES = 42, 4, 12
# libtiff gives samples in this machine's order.
_OTHER_BYTE: Final = ";16B" if sys.byteorder == "little" else ";16L"
_ROWS: Final = 64


class RoundedTiffFile(TiffImageFile):
    """Pillow's view of a TIFF file, whose colours of 16 bits a channel are rounded to 8."""

    def load(self) -> "PixelAccess | None":
        """Decode the pixels, and turn them as Pillow does; colour keeps all bits until then."""
        bits = self.tag_v2.get(_BITS, ())
        if not self.tile or self.mode not in _CHANNELS or bits[:1] != (_DEEP_BITS,):
            return super().load()
        is_premultiplied = self.mode == "RGBA" and self.tag_v2.get(_EXTRA) == (_PREMULTIPLIED,)
        source = self.fp.getvalue()  # type: ignore[union-attr]
        if self.tag_v2.get(_PLANAR_CONFIGURATION) == _SEPARATE_PLANES:
            deep = _read_planes(source, self.tag_v2, _CHANNELS[self.mode])
            loaded = super().load()
        else:
            low = _unpack(open_limited(source, TiffImageFile), _OTHER_BYTE)
            self.tile = [self.tile[0]._replace(args=_layout(self, ";16N"))]
            loaded = super().load()
            deep = np.asarray(self).astype(np.uint16)
            deep <<= 8
            deep |= low
        self.frombytes(_round(deep, is_premultiplied=is_premultiplied).tobytes())
        return loaded


def _layout(opened: TiffImageFile, other: str) -> tuple[Any, ...]:
    """Return the decoder's arguments for another layout of bytes, with alpha left multiplied in."""
    args = opened.tile[0].args
    if not isinstance(args, tuple):
        raise TypeError(f"arguments of another decoder: {args!r}")
    return (f"{args[0].partition(';')[0].upper()}{other}", *args[1:])


def _unpack(opened: TiffImageFile, other: str) -> NDArray[np.uint8]:
    opened.tile = [opened.tile[0]._replace(args=_layout(opened, other))]
    opened.load()
    return np.asarray(opened)


def _read_planes(source: bytes, tags: Mapping[int, Any], channels: int) -> Deep:
    planes = []
    for plane in range(channels):
        grey = open_limited(_write_plane(source, tags, plane), TiffImageFile)
        grey.load()
        planes.append(np.asarray(grey).astype(np.uint16))
    return np.dstack(planes)


def _write_plane(source: bytes, tags: Mapping[int, Any], plane: int) -> bytes:
    """Write a grey file of one plane: the source, with a directory of that plane behind it."""
    single = {tag: int(tags[tag]) for tag in _COPIED_TAGS if tag in tags} | _GREY_TAGS
    entries: dict[int, tuple[int, ...]] = {tag: (number,) for tag, number in single.items()}
    for tag in _OFFSETS_AND_SIZES:
        if tag in tags:
            pieces = len(tags[tag]) // tags[_SAMPLES]
            entries[tag] = tuple(tags[tag][plane * pieces : (plane + 1) * pieces])
    order = "<" if source[:2] == b"II" else ">"
    more_at, more = len(source) + 2 + len(entries) * _ENTRY_BYTES + 4, b""
    directory = struct.pack(f"{order}H", len(entries))
    for tag, numbers in sorted(entries.items()):
        value = struct.pack(f"{order}{len(numbers)}I", *numbers)
        if len(numbers) > 1:
            value, more = struct.pack(f"{order}I", more_at + len(more)), more + value
        directory += struct.pack(f"{order}HHI", tag, _LONG, len(numbers)) + value
    head = source[:2] + struct.pack(f"{order}HI", _VERSION, len(source))
    return b"".join((head, source[len(head) :], directory, bytes(4), more))


def _round(deep: Deep, *, is_premultiplied: bool) -> NDArray[np.uint8]:
    """Round to 8 bits, in strips of rows; colour that was multiplied by its alpha is divided."""
    levels = np.empty(deep.shape, np.uint8)
    for top in range(0, len(deep), _ROWS):
        strip = deep[top : top + _ROWS]
        if is_premultiplied:
            alpha = np.maximum(strip[..., 3:], 1).astype(np.uint32)
            colours = (strip[..., :3] * np.uint32(65_535) + alpha // 2) // alpha
            strip = np.dstack([np.minimum(colours, 65_535).astype(np.uint16), strip[..., 3]])
        levels[top : top + _ROWS] = round_to_8bit(strip)
    return levels
