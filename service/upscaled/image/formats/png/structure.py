"""Find the chunks of a PNG file, and read those that are used.

Chunks are found by their lengths alone (PNG third edition, section 5). Pillow refuses a file for
any ancillary chunk that is broken or swells, and reads many that this service has no use for. So it
gets nothing but the chunks that carry pixels, and what else is used is read here, as libpng
does it: an ancillary chunk with a wrong checksum or a length that its kind cannot have is passed
over. No pixel is decoded, no chunk decompressed.
"""

import struct
import zlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

from upscaled.errors import UnsupportedImageFormat

try:
    isal_zlib: Any = import_module("isal.isal_zlib")
except ImportError:  # an environment older than the lock, or a platform without a wheel of it
    isal_zlib = None

crc32 = zlib.crc32 if isal_zlib is None else isal_zlib.crc32

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
# A file of 25 MB has so many when each holds 250 bytes; programs write 8 KB and more.
MAX_CHUNKS: Final = 100_000
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
"""Colour types (PNG third edition, table 9)."""
# By colour type the channels, and the bits that one of them can have.
_CHANNELS_AND_DEPTHS: Final[Mapping[int, tuple[int, Collection[int]]]] = {
    GREY: (1, (1, 2, 4, 8, 16)),
    RGB: (3, (8, 16)),
    PALETTE: (1, (1, 2, 4, 8)),
    GREY_ALPHA: (2, (8, 16)),
    RGBA: (4, (8, 16)),
}
_HEADER: Final = struct.Struct(">IIBBBBB")
_ENTRY_BYTES: Final = 3
_MAX_ENTRIES: Final = 256
_KEY_LEVELS: Final[Mapping[int, int]] = {GREY: 1, RGB: 3}
# Lengths of the ancillary chunks that are used (11.3); None: any but 0.
_LENGTHS: Final[Mapping[bytes, int | None]] = {
    b"cHRM": 32,
    b"cICP": 4,
    b"eXIf": None,
    b"gAMA": 4,
    b"iCCP": None,
    b"iTXt": None,
    b"pHYs": 9,
    b"sRGB": 1,
}
# These describe the pixels that follow them (5.6); eXIf and pHYs are heeded anywhere.
_BEFORE_PIXELS: Final = frozenset({b"cHRM", b"cICP", b"gAMA", b"iCCP", b"sRGB"})
# International text (11.3.3.4): a keyword, whether it is compressed and how, two empty texts.
_XMP_KEYWORD: Final = b"XML:com.adobe.xmp\x00"
XMP_HEAD: Final = _XMP_KEYWORD + bytes(4)
"""Stands before an XMP packet that is not compressed, as XMP (part 3, 1.1.5) asks for."""
_PER_METRE: Final = 1
_METRES_PER_INCH: Final = 0.0254


@dataclass(frozen=True, slots=True)
class Chunk:
    """Position of a chunk's data in its file; past the end where the file is cut short."""

    name: bytes
    start: int
    length: int

    def is_sound(self, source: bytes) -> bool:
        """Return whether the chunk is whole and the CRC-32 of its name and data right (5.3)."""
        view = memoryview(source)
        end = self.start + self.length
        return view[end : end + 4] == struct.pack(">I", crc32(view[self.start - 4 : end]))

    def data(self, source: bytes) -> bytes:
        """Return the chunk's data, cut short where the file is."""
        return source[self.start : self.start + self.length]


def iterate_chunks(source: bytes) -> Iterator[Chunk]:
    """Iterate over the chunks, to IEND, the end of the file or what cannot be a chunk.

    No data is touched. A chunk's name is four ASCII letters: where something else is found, the
    length before it means nothing either, and iteration ends.
    """
    at, count = len(SIGNATURE), 0
    while at + 8 <= len(source):
        name = source[at + 4 : at + 8]
        if not name.isalpha():  # of bytes, so ASCII letters only
            return
        count += 1
        if count > MAX_CHUNKS:
            raise ValueError(f"more than {MAX_CHUNKS} chunks")
        chunk = Chunk(name, at + 8, int.from_bytes(source[at : at + 4], "big"))
        yield chunk
        if name == b"IEND":
            return
        at = chunk.start + chunk.length + 4


def make_chunk(name: bytes, data: bytes) -> bytes:
    """Make a whole chunk: length, name, data, checksum."""
    checksum = crc32(data, crc32(name))
    return b"".join((struct.pack(">I", len(data)), name, data, struct.pack(">I", checksum)))


@dataclass(frozen=True, slots=True)
class PngHeader:
    """Sound IHDR chunk. bit_depth: bits of a channel or palette index."""

    width_px: int
    height_px: int
    bit_depth: int
    colour_type: int
    is_interlaced: bool

    @property
    def is_grey(self) -> bool:
        return self.colour_type in (GREY, GREY_ALPHA)

    @property
    def pixel_bits(self) -> int:
        return self.bit_depth * _CHANNELS_AND_DEPTHS[self.colour_type][0]

    def to_chunk(self) -> bytes:
        """Make the whole chunk."""
        fields = (self.width_px, self.height_px, self.bit_depth, self.colour_type)
        return make_chunk(b"IHDR", _HEADER.pack(*fields, 0, 0, self.is_interlaced))


@dataclass(frozen=True, slots=True)
class PngParts:
    """Header of a PNG file, and the chunks of it that are used.

    palette: RGB triples, as many as indices can have, b"" unless pixels are indices. transparency:
    the data of a sound tRNS, b"" where there is none. idat: the chunks of compressed pixels, in
    order, not checked yet. ancillary: those whose name, length and place are right, not checked.
    """

    source: bytes
    header: PngHeader
    palette: bytes
    transparency: bytes
    idat: tuple[Chunk, ...]
    ancillary: tuple[Chunk, ...]

    @property
    def has_alpha(self) -> bool:
        return self.header.colour_type in (GREY_ALPHA, RGBA) or bool(self.transparency)

    @property
    def dpi(self) -> tuple[float, float] | None:
        """Pixels an inch (across, down) by pHYs; None where it gives only the pixel's shape."""
        across, down, unit = struct.unpack(">IIB", self.find(b"pHYs") or bytes(9))
        if unit != _PER_METRE:
            return None
        return across * _METRES_PER_INCH, down * _METRES_PER_INCH

    @property
    def xmp(self) -> bytes:
        """Return the first XMP packet that is not compressed; b"" without one."""
        for chunk in self.ancillary:
            is_xmp = chunk.name == b"iTXt" and self.source.startswith(_XMP_KEYWORD, chunk.start)
            if is_xmp and chunk.is_sound(self.source):
                is_compressed, *texts = chunk.data(self.source)[len(_XMP_KEYWORD) :].split(
                    b"\x00", 4
                )
                return texts[-1] if not is_compressed and len(texts) == 4 else b""
        return b""

    def find(self, name: bytes) -> bytes:
        """Return the data of the first sound ancillary chunk of that name; b"" without one."""
        for chunk in self.ancillary:
            if chunk.name == name and chunk.is_sound(self.source):
                return chunk.data(self.source)
        return b""

    def without_pixels(self) -> bytes:
        """Make a file of IHDR, PLTE, tRNS, an empty IDAT and IEND."""
        parts = [SIGNATURE, self.header.to_chunk()]
        if self.palette:
            parts.append(make_chunk(b"PLTE", self.palette))
        if self.transparency:
            parts.append(make_chunk(b"tRNS", self.transparency))
        return b"".join((*parts, make_chunk(b"IDAT", b""), make_chunk(b"IEND", b"")))


def read_png_parts(source: bytes) -> PngParts:
    """Read a PNG file's chunks. IDAT's checksums are left to `pixels.PngFile`."""
    chunks = iterate_chunks(source)
    header = _read_header(source, next(chunks, None))
    palette = transparency = b""
    idat: list[Chunk] = []
    ancillary: list[Chunk] = []
    for chunk in chunks:
        if chunk.name == b"IDAT":
            idat.append(chunk)
        elif chunk.name == b"PLTE" and header.colour_type == PALETTE and not palette and not idat:
            palette = _read_palette(source, chunk)
        elif chunk.name == b"tRNS" and not transparency and not idat:
            transparency = _read_transparency(source, chunk, header, palette)
        elif _may_be_used(chunk, is_before_pixels=not idat):
            ancillary.append(chunk)
    if not idat:
        raise ValueError("no pixels")
    if header.colour_type == PALETTE and not palette:
        raise ValueError("no palette before the pixels")
    palette = palette[: _ENTRY_BYTES << header.bit_depth]
    return PngParts(source, header, palette, transparency, tuple(idat), tuple(ancillary))


def _read_header(source: bytes, chunk: Chunk | None) -> PngHeader:
    if chunk is not None and chunk.name == b"CgBI":
        raise UnsupportedImageFormat(detail="PNG as Apple's tools rewrite it for iOS")
    if chunk is None or chunk.name != b"IHDR" or chunk.length != _HEADER.size:
        raise ValueError("no IHDR at the start")
    if not chunk.is_sound(source):
        raise ValueError("IHDR: wrong checksum")
    width, height, bit_depth, colour_type, *methods = _HEADER.unpack(chunk.data(source))
    _, depths = _CHANNELS_AND_DEPTHS.get(colour_type, (0, ()))
    if bit_depth not in depths:
        raise ValueError(f"{bit_depth} bits of colour type {colour_type}")
    if methods not in ([0, 0, 0], [0, 0, 1]):
        raise ValueError(f"compression, filter and interlace methods {methods}")
    return PngHeader(width, height, bit_depth, colour_type, bool(methods[-1]))


def _read_palette(source: bytes, chunk: Chunk) -> bytes:
    """Read PLTE of a palette image (11.2.2): a critical chunk, so a broken one is an error."""
    entries, rest = divmod(chunk.length, _ENTRY_BYTES)
    if rest or not 1 <= entries <= _MAX_ENTRIES:
        raise ValueError(f"a palette of {chunk.length} bytes")
    if not chunk.is_sound(source):
        raise ValueError("PLTE: wrong checksum")
    return chunk.data(source)


def _read_transparency(source: bytes, chunk: Chunk, header: PngHeader, palette: bytes) -> bytes:
    """Read tRNS (11.3.1.1), b"" for a broken one. Of levels only the bits of the depth count."""
    levels = _KEY_LEVELS.get(header.colour_type, 0)
    if header.colour_type == PALETTE:
        is_possible = 1 <= chunk.length <= len(palette) // _ENTRY_BYTES
    else:
        is_possible = levels > 0 and chunk.length == 2 * levels
    if not is_possible or not chunk.is_sound(source):
        return b""
    data = chunk.data(source)
    if header.colour_type == PALETTE:
        return data
    highest = (1 << header.bit_depth) - 1
    stated = struct.unpack(f">{levels}H", data)
    return struct.pack(f">{levels}H", *(level & highest for level in stated))


def _may_be_used(chunk: Chunk, *, is_before_pixels: bool) -> bool:
    if chunk.name not in _LENGTHS or (chunk.name in _BEFORE_PIXELS and not is_before_pixels):
        return False
    length = _LENGTHS[chunk.name]
    return chunk.length > 0 if length is None else chunk.length == length
