"""Whether other coded bytes of a JPEG file give another picture, where libjpeg warns of nothing.

Decoding senseless codes soon puts the means of blocks so far out of range that all is white or
black and nothing else shows. So each file is decoded twice: as it is, and without means and with a
middling quantisation. Both times the picture is as large as its blocks, the part that is cut off
included.
"""

from dataclasses import replace
from io import BytesIO
from itertools import starmap
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL.JpegImagePlugin import JpegImageFile

from service.image.jpeg_structure import DQT, Segment, Structure

_BLOCK_PX: Final = 8
_LONGEST_PX: Final = 65_528
_MIDDLING: Final = 16
# Adobe's segment with transform 0: the channels are shown as they are stored.
_PLAIN_CHANNELS: Final = b"Adobe" + bytes((0, 100, 0, 0, 0, 0, 0))


def decode_exposed(structure: Structure) -> NDArray[np.uint8]:
    """`[2, rows, columns, ...]` of whole blocks, for comparison alone. Runs libjpeg.

    Raises:
        OSError, SyntaxError: libjpeg cannot decode it.
    """
    structure = _as_stored(structure)
    both = [structure, _without_means(structure)]
    return np.stack([np.asarray(JpegImageFile(BytesIO(each.join()))) for each in both])


def changes(structure: Structure, pixels: NDArray[np.uint8]) -> bool:
    """Whether a file's exposed pixels are others than these."""
    return not np.array_equal(decode_exposed(structure), pixels)


def _as_stored(structure: Structure) -> Structure:
    """Channels as they are, sides rounded up to what the scans hold.

    These are MCUs, or blocks where a channel has a scan of its own.
    """
    frame = structure.frame
    is_interleaved = all(len(scan.components) > 1 for scan in structure.scans)
    across = max(each.across for each in frame.components) if is_interleaved else 1
    down = max(each.down for each in frame.components) if is_interleaved else 1
    width, height = starmap(_round_up, ((frame.width_px, across), (frame.height_px, down)))
    frame = frame.with_size(width, height)
    return replace(structure, frame=frame, jfif=None, adobe=_PLAIN_CHANNELS)


def _round_up(side_px: int, blocks: int) -> int:
    if side_px > _LONGEST_PX:
        return side_px
    step = _BLOCK_PX * blocks
    return min(_LONGEST_PX, -(-side_px // step) * step)


def _without_means(structure: Structure) -> Structure:
    scans = [replace(scan, tables=tuple(map(_flatten, scan.tables))) for scan in structure.scans]
    return replace(structure, scans=tuple(scans))


def _flatten(table: Segment) -> Segment:
    """Quantisation tables (T.81, B.2.4.1) of 0 for the mean and the same step for all else."""
    if table.marker != DQT:
        return table
    parts, at = [], 0
    while at < len(table.data):
        number = table.data[at] & 15
        parts.append(bytes((number, 0, *[_MIDDLING] * 63)))
        at += 1 + (128 if table.data[at] >> 4 else 64)
    return Segment(DQT, b"".join(parts))
