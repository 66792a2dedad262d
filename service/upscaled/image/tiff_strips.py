"""Whether the strips and tiles of a TIFF file are there to their ends.

libtiff refuses most that end early by itself. Of a fax it leaves the missing rows white, of a JPEG
grey; both say in their own words where they end. Of Deflate it takes the first bytes that fill the
rows, whatever follows: damaged ones too, for it never comes to the checksum (RFC 1950, 2.2).
"""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

_HEIGHT, _COMPRESSION, _FILL_ORDER, _ROWS_PER_STRIP, _TILE_HEIGHT = 257, 259, 266, 278, 323
_OFFSETS_AND_COUNTS: Final = ((273, 279), (324, 325))
_GROUP_3, _GROUP_4, _JPEG = 3, 4, 7
_DEFLATE: Final = frozenset({8, 32946})
_LOW_BIT_FIRST: Final = 2
_TURNED: Final = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))

# ITU-T T.4, 4.1.2: the end of a line, which no other codes contain, however many zeros precede it.
_END_OF_LINE: Final = "000000000001"
# ITU-T T.6, 2.4.1.1: the end of a page is two of them, and there are no others: libtiff takes any
# for the end. Writers pad what follows to whole words.
_LINE_ENDS_OF_PAGE: Final = 2
_END_OF_PAGE: Final = _LINE_ENDS_OF_PAGE * _END_OF_LINE
_PAGE_END_BYTES: Final = 16
_PIECE_BYTES: Final = 1024 * 1024
_END_OF_IMAGE: Final = b"\xff\xd9"


def ends_early(source: bytes, tags: Mapping[int, Any]) -> bool:
    """Whether a strip or tile of fax, JPEG or Deflate lacks its end, or Deflate is damaged.

    tags: the directory, by tag.
    """
    compression = tags.get(_COMPRESSION)
    if compression not in {_GROUP_3, _GROUP_4, _JPEG, *_DEFLATE}:
        return False
    return not all(
        _is_whole(piece, compression, rows, is_turned=tags.get(_FILL_ORDER) == _LOW_BIT_FIRST)
        for piece, rows in _iterate_pieces(source, tags)
    )


def _iterate_pieces(source: bytes, tags: Mapping[int, Any]) -> Iterator[tuple[bytes, int]]:
    """The bytes of each strip or tile, as far as the file has them, and its rows."""
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
    """Whether Deflate comes to its end and its checksum is right; nothing is kept of it."""
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
