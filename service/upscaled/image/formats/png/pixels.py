"""Decode the pixels of a PNG file by Pillow: all of them, and all of their 16 bits.

Left to itself Pillow passes over IDAT's checksums, leaves rows black where the compressed stream
ends early, and never reads the stream's own checksum. So the stream is inflated here and counted,
and the decoder is given the same bytes as stored blocks (RFC 1951, 3.2.4): it undoes filters and
interlacing, and nothing is inflated twice.
"""

import struct
import zlib
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from io import BytesIO
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray
from PIL.ImageFile import ImageFile
from PIL.PngImagePlugin import PngImageFile

from upscaled.image.colour import grey_to_rgb, keep_rgb_profile
from upscaled.image.formats.png import structure
from upscaled.image.pixels import Pixels, alpha_from_key
from upscaled.image.types import Image

if TYPE_CHECKING:
    from PIL._imaging import PixelAccess

Deep = NDArray[np.uint16]

# (first column, first row, step across, step down) of each pass of Adam7 (PNG third edition, 8.1).
_ADAM7: Final = (
    *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)),
    *((0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)),
)
_ONE_PASS: Final = ((0, 0, 1, 1),)
_ZLIB_HEAD: Final = b"\x78\x01"
_LARGEST_WINDOW: Final = 7  # of 32 KiB (RFC 1950, 2.2: CINFO)
_INPUT_BYTES: Final = 64 * 1024
_MAX_BLOCK_BYTES: Final = 65_535
_BLOCKS_AT_ONCE: Final = 8
_LARGE_BYTES: Final = 2 * _BLOCKS_AT_ONCE * _MAX_BLOCK_BYTES
# Some programs write rows too many. What is more goes on where a stream turned to garbage.
MAX_SURPLUS_BYTES: Final = 4 * 1024 * 1024


class PngFile(PngImageFile):
    """Pillow's view of a PNG file of which it sees the header, palette and pixels only.

    Loading it gives every pixel or fails: where the checksum of an IDAT or of the stream (Adler-32:
    RFC 1950, 2.2) is wrong, or the stream ends early. Accepted are, as by libpng: empty IDATs,
    bytes behind the stream, and up to `MAX_SURPLUS_BYTES` behind the last row.
    """

    def __init__(self, png: structure.PngParts) -> None:
        self._stored = _iterate_stored(png)
        self._is_large = count_pixel_bytes(png.header) > _LARGE_BYTES
        super().__init__(BytesIO(png.without_pixels()))

    def load(self) -> "PixelAccess | None":
        """Load all pixels; of a large image a thread inflates them, while filters are undone."""
        if not self.tile or not self._is_large:
            return super().load()
        with ThreadPoolExecutor(1, thread_name_prefix="inflate") as beside:
            self._stored = _iterate_ahead(self._stored, beside)
            return super().load()

    def load_read(self, read_bytes: int) -> bytes:
        """Return the next stored blocks of the stream."""
        return next(self._stored, b"")

    def load_end(self) -> None:
        """Read on to the stream's end, where its checksum is."""
        for _ in self._stored:
            pass
        super().load_end()


def _iterate_ahead(items: Iterator[bytes], beside: Executor) -> Iterator[bytes]:
    """Yield items, of which none is empty, each made by a thread while the one before is used."""
    try:
        coming = beside.submit(next, items, b"")
    except RuntimeError:  # the system gives no further thread, which is no fault of the file
        yield from items
        return
    while item := coming.result():
        coming = beside.submit(next, items, b"")
        yield item


def _iterate_stored(png: structure.PngParts) -> Iterator[bytes]:
    """Yield the stream in stored blocks, some at once, up to the last row; then read to its end.

    Raises:
        ValueError: the stream is broken, ends before the last row, or far behind it.
    """
    left_bytes = count_pixel_bytes(png.header)
    waiting = [_ZLIB_HEAD]
    for inflated in _iterate_inflated(png):
        piece = inflated[: max(0, left_bytes)]
        left_bytes -= len(inflated)
        if piece:
            waiting += (struct.pack("<BHH", 0, len(piece), len(piece) ^ 0xFFFF), piece)
        if waiting and (left_bytes <= 0 or len(waiting) >= 2 * _BLOCKS_AT_ONCE):
            yield b"".join(waiting)
            waiting.clear()
        if left_bytes < -MAX_SURPLUS_BYTES:
            raise ValueError("pixels without end behind the last row")
    if left_bytes > 0:
        raise ValueError(f"{left_bytes} bytes of pixels are missing")


def count_pixel_bytes(header: structure.PngHeader) -> int:
    """Count the bytes before compression: rows with a filter's number before each (9.2)."""
    total = 0
    for left, top, across, down in _ADAM7 if header.is_interlaced else _ONE_PASS:
        columns = -(-(header.width_px - left) // across)
        rows = -(-(header.height_px - top) // down)
        if columns > 0 and rows > 0:
            total += rows * (1 + -(-columns * header.pixel_bits // 8))
    return total


def _iterate_inflated(png: structure.PngParts) -> Iterator[bytes]:
    """Inflate the stream in pieces of at most `_MAX_BLOCK_BYTES`, none of them empty.

    Without the checksum at its end a stream that was cut could not be distinguished from one whose
    bytes happen to be codes; so the checksum must be there.

    ISA-L inflates 1500x1500 px in 8 ms of a processor, zlib in 20. It refuses the headers that zlib
    refuses, except those with a window size that RFC 1950 forbids, which are refused here. It also
    accepts incomplete Huffman codes, which zlib refuses; the checksum covers their result.

    Raises:
        ValueError: the stream is broken, or has no end.
    """
    library = zlib if structure.isal_zlib is None else structure.isal_zlib
    inflater = library.decompressobj()
    is_begun = False
    for waiting in _iterate_compressed(png):
        if not is_begun and waiting[0] >> 4 > _LARGEST_WINDOW:
            raise ValueError("the stream of pixels: invalid window size")
        is_begun = True
        is_more = True
        while is_more and not inflater.eof:
            try:
                piece = inflater.decompress(waiting, _MAX_BLOCK_BYTES)
            except library.error as error:
                raise ValueError(f"the stream of pixels: {error}") from error
            waiting = inflater.unconsumed_tail
            # A full piece may have left some behind, also when no input is waiting.
            is_more = bool(waiting) or len(piece) == _MAX_BLOCK_BYTES
            if piece:
                yield piece
    if not inflater.eof:
        raise ValueError("the stream of pixels has no end")


def _iterate_compressed(png: structure.PngParts) -> Iterator[bytes | memoryview]:
    """Iterate over the data of all IDATs, in pieces of which none is empty.

    Each chunk is checked before any of it is yielded.
    """
    view = memoryview(png.source)
    for chunk in png.idat:
        if not chunk.is_sound(png.source):
            raise ValueError("IDAT: wrong checksum")
        end = chunk.start + chunk.length
        for start in range(chunk.start, end, _INPUT_BYTES):
            yield view[start : min(start + _INPUT_BYTES, end)]


# Another rawmode and mode of the same pixel size. PNG stores the high byte first: unpacked as if
# the low byte came first, Pillow's layouts yield the low bytes; grey with alpha has no such twin,
# but its four bytes pass as RGBA.
_LOW_BYTES: Final = {structure.RGB: ("RGB;16L", "RGB"), structure.RGBA: ("RGBA;16L", "RGBA")}
_GREY_ALPHA_BYTES: Final = ("RGBA", "RGBA")


def read_deep(opened: ImageFile, png: structure.PngParts, icc: bytes | None) -> Image:
    """Decode a PNG of 16 bits a channel without losing the low byte; not turned yet.

    Pillow has no mode for 16-bit colour: it hands out the high bytes only. So the pixels are
    unpacked twice, once as what they are and once by a layout that picks up the low bytes.
    """
    kind = png.header.colour_type
    opened.load()
    key = opened.info.get("transparency")
    if kind == structure.GREY:
        deep: Deep = np.asarray(opened).astype(np.uint16)
        return Image(
            rgb=grey_to_rgb(deep, icc),
            alpha=None if key is None else alpha_from_key(deep == key, np.uint16),
        )
    if kind == structure.GREY_ALPHA:
        pixels = _unpack_as(png, _GREY_ALPHA_BYTES)
        deep = pixels.view(">u2").astype(np.uint16)
        return Image(rgb=grey_to_rgb(deep[..., 0], icc), alpha=deep[..., 1])
    deep = np.asarray(opened).astype(np.uint16)
    deep <<= 8
    deep |= _unpack_as(png, _LOW_BYTES[kind])
    alpha: Pixels | None = deep[..., 3] if kind == structure.RGBA else None
    if key is not None:
        alpha = alpha_from_key((deep == np.asarray(key, np.uint16)).all(axis=-1), np.uint16)
    return Image(rgb=deep[..., :3], alpha=alpha, icc=keep_rgb_profile(icc))


def _unpack_as(png: structure.PngParts, layout: tuple[str, str]) -> NDArray[np.uint8]:
    opened = PngFile(png)
    rawmode, opened._mode = layout
    opened.tile = [tile._replace(args=rawmode) for tile in opened.tile]
    opened.load()
    return np.asarray(opened)
