"""Compare what two versions of a JPEG file decode to, where libjpeg warns of nothing.

Decoding senseless codes soon puts the means of blocks so far out of range that all is white or
black and nothing else shows. So each file is decoded twice: as it is, and without means and with a
middling quantisation. Both times the image is as large as its blocks, the part that is cut off
included, and bits that are no code of a Huffman table are made to be one, because libjpeg reads
such bits as the end of a block.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import starmap
from typing import Final

import numpy as np
from numpy.typing import NDArray

from upscaled.image.formats.jpeg import segments
from upscaled.image.formats.jpeg.scans import Structure, open_jpeg
from upscaled.image.formats.jpeg.segments import Segment

_LONGEST_PX: Final = 65_528
_MIDDLING: Final = 16
_LENGTHS: Final = 16
"""A Huffman code has 1 to 16 bits (T.81, B.2.4.2)."""
_MAX_CODES: Final = 256
# A large change of the mean; one coefficient of 1 (T.81, F.1.2).
_DC_SYMBOL, _AC_SYMBOL = 8, 0x01
# Adobe's segment with transform 0: the channels are shown as they are stored.
_PLAIN_CHANNELS: Final = b"Adobe" + bytes((0, 100, 0, 0, 0, 0, 0))


def decode_exposed(structure: Structure) -> NDArray[np.uint8]:
    """Decode to `[2, rows, columns, ...]` of whole blocks, for comparison alone. Runs libjpeg."""
    return np.stack(list(_iterate_exposed(structure)))


def changes(structure: Structure, pixels: NDArray[np.uint8]) -> bool:
    """Return whether a file's exposed pixels are others than these; raises as `decode_exposed`."""
    both = zip(_iterate_exposed(structure), pixels, strict=True)
    return any(not np.array_equal(decoded, before) for decoded, before in both)


def _iterate_exposed(structure: Structure) -> Iterator[NDArray[np.uint8]]:
    """Iterate over both images; the second is decoded only when it is needed."""
    structure = _as_stored(structure)
    yield np.asarray(open_jpeg(structure.join()))
    scans = [replace(scan, tables=tuple(map(_flatten, scan.tables))) for scan in structure.scans]
    yield np.asarray(open_jpeg(replace(structure, scans=tuple(scans)).join()))


def _as_stored(structure: Structure) -> Structure:
    """Leave channels as they are stored, and round sides up to what the scans hold.

    These are MCUs, or blocks where a channel has a scan of its own.
    """
    frame = structure.frame
    is_interleaved = all(len(scan.components) > 1 for scan in structure.scans)
    across = max(each.across for each in frame.components) if is_interleaved else 1
    down = max(each.down for each in frame.components) if is_interleaved else 1
    width, height = starmap(_round_up, ((frame.width_px, across), (frame.height_px, down)))
    frame = frame.with_size(width, height)
    if not frame.is_arithmetic:
        scans = [
            replace(scan, tables=tuple(map(_fill_up, scan.tables))) for scan in structure.scans
        ]
        structure = replace(structure, scans=tuple(scans))
    return replace(structure, frame=frame, jfif=None, adobe=_PLAIN_CHANNELS)


def _round_up(side_px: int, blocks: int) -> int:
    if side_px > _LONGEST_PX:
        return side_px
    step = segments.BLOCK_PX * blocks
    return min(_LONGEST_PX, -(-side_px // step) * step)


def _flatten(table: Segment) -> Segment:
    """Make quantisation tables of 0 for the mean and one step for all else."""
    if table.marker != segments.DQT:
        return table
    parts = [
        bytes((number, 0, *[_MIDDLING] * 63))
        for number, _ in segments.iterate_quantisation_tables(table.data)
    ]
    return Segment(segments.DQT, b"".join(parts))


def _fill_up(table: Segment) -> Segment:
    """Give Huffman tables (T.81, B.2.4.2) codes for all bits without one but sixteen ones."""
    if table.marker != segments.DHT:
        return table
    parts, at = [], 0
    while at + 1 + _LENGTHS <= len(table.data):
        counts = table.data[at + 1 : at + 1 + _LENGTHS]
        end = at + 1 + _LENGTHS + sum(counts)
        is_ac = bool(table.data[at] >> 4)
        symbols = table.data[at + 1 + _LENGTHS : end]
        filled = _fill_codes(counts, symbols, _AC_SYMBOL if is_ac else _DC_SYMBOL)
        parts += [table.data[at : at + 1], filled]
        at = end
    return Segment(segments.DHT, b"".join(parts))


def _fill_codes(counts: bytes, symbols: bytes, symbol: int) -> bytes:
    """Count the codes of each length and list their symbols, with `symbol` for all free codes.

    T.81, C.2: codes count up, and those of one length follow those of the length before. So a code
    that is free is one of the last of its length.
    """
    new_counts, new_symbols = bytearray(), bytearray()
    free, at = 1, 0
    longest = max((length for length in range(_LENGTHS) if counts[length]), default=-1)
    for length, count in enumerate(counts):
        free = 2 * free - count
        more = 0
        if length >= longest and free > 1:
            more = max(0, min(free - 1, _MAX_CODES - len(symbols) - len(new_symbols) + at))
        free -= more
        new_counts.append(count + more)
        new_symbols += symbols[at : at + count] + bytes((symbol,)) * more
        at += count
    return bytes(new_counts) + bytes(new_symbols)
