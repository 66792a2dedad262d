"""Read TIFF files (TIFF 6.0) and BigTIFF, and find strips and tiles that end early.

Pillow's own reader copies every tag and lists every strip before it says how large the image is,
which a hostile file makes 6 million of. So the first directory is read here.
"""

import re
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from upscaled.errors import UnsupportedImageFormat
from upscaled.image.formats.limited_file import open_limited
from upscaled.image.formats.table import Stored
from upscaled.image.kept_xmp import MAX_XMP_BYTES
from upscaled.image.metadata import Exif, iterate_directory, read_dpi, upright_size
from upscaled.image.types import UPRIGHT, Header

if TYPE_CHECKING:
    from PIL.TiffImagePlugin import TiffImageFile

_WIDTH, _HEIGHT, _PHOTOMETRIC, _SAMPLES, _ORIENTATION, _EXTRA = 256, 257, 262, 277, 274, 338
_KIND_OF_IMAGE, _DIRECTORIES_BELOW, _DNG_VERSION = 254, 330, 50_706
_WANTED: Final = frozenset(
    {_WIDTH, _HEIGHT, _PHOTOMETRIC, _SAMPLES, _ORIENTATION, _EXTRA}
    | {_KIND_OF_IMAGE, _DIRECTORIES_BELOW, _DNG_VERSION}
)
_REDUCED: Final = 1
_CR2_MARK: Final = b"CR\x02"
_XMP: Final = 700
_BIG_VERSION: Final = 43
_SHORT_BYTES: Final = {1: 1, 3: 2, 4: 4, 13: 4, 16: 8, 18: 8}
# Pillow makes several objects of every number of a list. 6,000 rows in strips of their own, three
# times over, are 18,000 numbers; text and profiles are bytes and stay what they are.
_MAX_NUMBERS: Final = 100_000
_KINDS_OF_BYTES: Final = frozenset({1, 2, 6, 7})
_COLOURS: Final[Mapping[int, int]] = {0: 1, 1: 1, 2: 3, 3: 1}
_MEANT_AS_ALPHA: Final = frozenset({1, 2, 999})

_PLANAR_CONFIGURATION, _COLOUR_MAP, _SAMPLE_FORMAT = 284, 320, 339
_SEPARATE_PLANES, _SIGNED = 2, 2
# Pillow puts the second plane of these where no alpha is, and leaves out Lab's signs.
_NOT_READ_APART: Final = frozenset({"LA", "La", "PA", "LAB"})
_RGB_AND_ALPHA: Final = 4

# What libtiff prints about tags on which no pixel depends, and which it then ignores.
_OF_METADATA: Final = re.compile(
    r'(_TIFFVSetField|TIFFFetchNormalTag): .*"(Orientation|ResolutionUnit|[XY]Resolution|'
    r"[XY]Position|Page(Number|Name)|Software|DateTime|Artist|HostComputer|Copyright|Make|Model|"
    r'ImageDescription|DocumentName|HalftoneHints|Threshholding|(Min|Max)SampleValue)"'
)

_COMPRESSION, _FILL_ORDER, _ROWS_PER_STRIP, _TILE_HEIGHT = 259, 266, 278, 323
_OFFSETS_AND_COUNTS: Final = ((273, 279), (324, 325))
_GROUP_3, _GROUP_4, _JPEG, _WEBP = 3, 4, 7, 50_001
_DEFLATE: Final = frozenset({8, 32946})
_LOW_BIT_FIRST: Final = 2
_TURNED: Final = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))

# ITU-T T.4, 4.1.2: the end of a line, which no other codes contain, however many zeros precede it.
_END_OF_LINE: Final = "000000000001"
# ITU-T T.6, 2.4.1.1: the end of a page is two of them, and there are no others: libtiff reads any
# of them as the end. Writers pad what follows to whole words.
_LINE_ENDS_OF_PAGE: Final = 2
_END_OF_PAGE: Final = _LINE_ENDS_OF_PAGE * _END_OF_LINE
_PAGE_END_BYTES: Final = 16
_PIECE_BYTES: Final = 1024 * 1024
_END_OF_IMAGE: Final = b"\xff\xd9"


def read_header(source: bytes) -> Header:
    """Read upright size and transparency from the first directory; libtiff turns the pixels."""
    tags = _read_tags(source)
    if _is_raw(source, tags):
        raise UnsupportedImageFormat("Unsupported image format: RAW")
    if _WIDTH not in tags or _HEIGHT not in tags:
        raise ValueError("no size")
    orientation = tags.get(_ORIENTATION, UPRIGHT)
    is_known = 1 <= orientation <= 8
    size = upright_size(tags[_WIDTH], tags[_HEIGHT], orientation if is_known else UPRIGHT)
    return Header("TIFF", *size, has_alpha=_has_alpha(tags))


def open_stored(source: bytes, header: Header) -> Stored:
    """Open a TIFF file and refuse one whose strips or tiles end early."""
    from PIL import TiffImagePlugin

    from upscaled.image.formats.deep_tiff import RoundedTiffFile

    # Pillow's own reader of uncompressed pixels reads separate planes as if of 8 bits a sample
    # and black at 0, and YCbCr as if each pixel had colours of its own, whatever the file says.
    TiffImagePlugin.READ_LIBTIFF = True
    _complete_kinds(TiffImagePlugin.OPEN_INFO)
    try:
        opened = open_limited(source, RoundedTiffFile)
    except SyntaxError as error:  # a kind of pixels that Pillow does not decode
        raise UnsupportedImageFormat(detail=f"TIFF: {error}") from error
    _refuse_misread(opened)
    _widen_colour_map(opened)
    if ends_early(source, opened.tag_v2):
        raise ValueError("strips or tiles end early")
    icc = opened.info.get("icc_profile") or None
    # An EXIF block is a small TIFF file. Pillow makes up a resolution where there is none.
    exif = Exif(source)
    xmp = exif.raw(_XMP, MAX_XMP_BYTES)
    dpi = read_dpi(exif, None, exif.orientation)  # of the image as it is turned by then
    return Stored(opened, exif, icc, dpi=dpi, xmp=xmp.data if xmp else b"")


def _complete_kinds(kinds: dict[tuple[Any, ...], tuple[str, str]]) -> None:
    """Add to Pillow's table the kinds of pixels of which it lacks one order of bits or bytes.

    libtiff turns both. A key is order of bytes, photometric, format, order of bits, bits, extra.
    """
    kinds[b"MM", 0, (1,), 1, (16,), ()] = ("I;16B", "I;16B")
    for order, photometric in ((b"II", 0), (b"MM", 0), (b"MM", 1)):
        kinds[order, photometric, (1,), 1, (12,), ()] = ("I;16", "I;12")
    for key, kind in list(kinds.items()):
        kinds.setdefault((*key[:3], _LOW_BIT_FIRST, *key[4:]), kind)


def _is_raw(source: bytes, tags: Mapping[int, int]) -> bool:
    """Return whether it is a camera's raw file: its first directory has only a small preview.

    DNG, and Canon's CR2, say so themselves. In NEF, ARW and others a reduced image comes first,
    with the photo in a directory below it.
    """
    is_preview = bool(tags.get(_KIND_OF_IMAGE, 0) & _REDUCED) and _DIRECTORIES_BELOW in tags
    return is_preview or _DNG_VERSION in tags or source[8:11] == _CR2_MARK


def _refuse_misread(opened: "TiffImageFile") -> None:
    """Raise UnsupportedImageFormat for what Pillow gets wrong, or its libtiff was built without."""
    tags = opened.tag_v2
    if tags.get(_COMPRESSION) == _WEBP:
        raise UnsupportedImageFormat(detail="TIFF compressed as WebP")
    if opened.mode == "L" and _SIGNED in _numbers(tags.get(_SAMPLE_FORMAT)):
        raise UnsupportedImageFormat(detail="TIFF of signed numbers")
    if tags.get(_PLANAR_CONFIGURATION) != _SEPARATE_PLANES:
        return
    has_more = opened.mode == "RGBA" and tags.get(_SAMPLES, 0) > _RGB_AND_ALPHA
    if has_more or opened.mode in _NOT_READ_APART:
        raise UnsupportedImageFormat(detail=f"TIFF of mode {opened.mode} in planes")


def _widen_colour_map(opened: "TiffImageFile") -> None:
    """Read a colour map whose numbers are all below 256 as one of 8 bits, as libtiff's tools do.

    TIFF 6.0 requires 16 bits, but some programs write 8; read as 16 the picture would be black.
    """
    from PIL import ImagePalette

    levels = _numbers(opened.tag_v2.get(_COLOUR_MAP))
    if opened.palette is not None and max(levels, default=0) <= 0xFF:
        opened.palette = ImagePalette.raw("RGB;L", bytes(levels))


def printed_damage(text: str) -> str:
    """Return what libtiff printed of a file's pixels: the lines that are not about metadata."""
    lines = (line for line in text.splitlines() if line and not _OF_METADATA.match(line))
    return "\n".join(lines)


def _has_alpha(tags: Mapping[int, int]) -> bool:
    """Return whether there is one channel more than colour needs, and a tag says that it is alpha.

    With RGB it also counts as alpha without that tag, which many programs omit.
    """
    colours = _COLOURS.get(tags.get(_PHOTOMETRIC, 0))
    if colours is None or tags.get(_SAMPLES, 1) <= colours:
        return False
    return tags[_EXTRA] in _MEANT_AS_ALPHA if _EXTRA in tags else colours == 3


def _read_tags(source: bytes) -> dict[int, int]:
    """Read the first value of each wanted tag; of a repeated tag the first counts."""
    order = "<" if source[:2] == b"II" else ">"
    (version,) = struct.unpack_from(f"{order}H", source, 2)
    is_big = version == _BIG_VERSION
    offset = "Q" if is_big else "I"
    (directory_at,) = struct.unpack_from(order + offset, source, 8 if is_big else 4)
    tags: dict[int, int] = {}
    for tag, kind, count, at in iterate_directory(source, order, directory_at, is_big=is_big):
        if count > _MAX_NUMBERS and kind not in _KINDS_OF_BYTES:
            raise ValueError(f"tag {tag} of {count} numbers")
        if tag not in _WANTED or tag in tags or kind not in _SHORT_BYTES:
            continue
        length = _SHORT_BYTES[kind]
        value_at = at
        if count * length > struct.calcsize(offset):
            (value_at,) = struct.unpack_from(order + offset, source, at)
        value = source[value_at : value_at + length]
        if count and len(value) == length:
            tags[tag] = int.from_bytes(value, "little" if order == "<" else "big")
    return tags


def ends_early(source: bytes, tags: Mapping[int, Any]) -> bool:
    """Return whether a strip or tile of fax, JPEG or Deflate lacks its end, or Deflate is damaged.

    libtiff refuses most that end early by itself. Of a fax it leaves the missing rows white, of a
    JPEG grey; in both, a marker says where they end. Of Deflate it uses the first bytes that
    fill the rows, whatever follows: damaged ones too, for it never comes to the checksum (RFC 1950,
    2.2).
    """
    compression = tags.get(_COMPRESSION)
    if compression not in {_GROUP_3, _GROUP_4, _JPEG, *_DEFLATE}:
        return False
    return not all(
        _is_whole(piece, compression, rows, is_turned=tags.get(_FILL_ORDER) == _LOW_BIT_FIRST)
        for piece, rows in _iterate_pieces(source, tags)
    )


def _iterate_pieces(source: bytes, tags: Mapping[int, Any]) -> Iterator[tuple[bytes, int]]:
    """Iterate over the bytes of each strip or tile, as far as the file has them, and its rows."""
    height = int(tags.get(_HEIGHT, 0))
    for offsets_tag, counts_tag in _OFFSETS_AND_COUNTS:
        offsets, counts = _numbers(tags.get(offsets_tag)), _numbers(tags.get(counts_tag))
        is_tiled = offsets_tag != _OFFSETS_AND_COUNTS[0][0]
        high = int(tags.get(_TILE_HEIGHT if is_tiled else _ROWS_PER_STRIP, height))
        for number, (offset, count) in enumerate(zip(offsets, counts, strict=False)):
            rows = high if is_tiled else max(0, min(high, height - number * high))
            yield source[offset : offset + count], rows


def _numbers(value: int | tuple[int, ...] | None) -> Sequence[int]:
    if value is None:
        return ()
    return value if isinstance(value, tuple) else (value,)


def _is_whole(piece: bytes, compression: int, rows: int, *, is_turned: bool) -> bool:
    if compression == _JPEG:
        return piece.rstrip(b"\x00").endswith(_END_OF_IMAGE)
    if is_turned:
        piece = piece.translate(_TURNED)
    if compression in _DEFLATE:
        return _is_inflated(piece)
    if compression == _GROUP_4:
        is_ended = _END_OF_PAGE in _bits(piece.rstrip(b"\x00")[-_PAGE_END_BYTES:])
        return is_ended and _count_line_ends(piece) == _LINE_ENDS_OF_PAGE
    return _count_line_ends(piece) >= rows


def _is_inflated(piece: bytes) -> bool:
    """Return whether Deflate data are complete with the right checksum; none of them is kept."""
    stream = zlib.decompressobj()
    rest, output = piece, b""
    try:
        while not stream.eof and (rest or output):
            output = stream.decompress(rest, _PIECE_BYTES)
            rest = stream.unconsumed_tail
    except zlib.error:
        return False
    return stream.eof


def _count_line_ends(piece: bytes) -> int:
    found, before = 0, ""
    for at in range(0, len(piece), _PIECE_BYTES):
        bits = before + _bits(piece[at : at + _PIECE_BYTES])
        found += bits.count(_END_OF_LINE)
        before = bits[1 - len(_END_OF_LINE) :]
    return found


def _bits(piece: bytes) -> str:
    return f"{int.from_bytes(piece, 'big'):0{8 * len(piece)}b}" if piece else ""
