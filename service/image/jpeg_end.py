"""Whether a JPEG file's pixels go on to its end: where they do not, libjpeg paints the rest grey.

A file that was cut and got an end marker, or whose pixels are broken by one, decodes without an
error. The blocks that are missing are left at zero, which is mid-grey; so a picture whose last
block is that grey is looked at again, with bytes added to its first scan. A decoder that had enough
never reads them; one that had not goes on painting.
"""

import re
from io import BytesIO
from typing import Final

from PIL.ImageFile import ImageFile

_START_OF_SCAN: Final = 0xDA
_BLOCK_PX: Final = 8
_GREYS: Final = frozenset({127, 128})  # 127 where the file's channels are inverted
# Neither a stuffed byte nor a restart belongs to what ends a scan.
_END_OF_SCAN: Final = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")
_BLOCKS: Final = bytes(at * 167 % 255 for at in range(255))
# A file in intervals goes on only behind its next restart marker, whichever that is.
_MORE: Final = _BLOCKS + b"".join(bytes((0xFF, 0xD0 + at % 8)) + _BLOCKS for at in range(16))


def ends_early(source: bytes, picture: ImageFile) -> bool:
    """Whether the rows at the picture's end were made up. `picture`: of `source`, decoded.

    Raises:
        OSError, SyntaxError, ValueError: the file is broken.
    """
    if not _ends_in_grey(picture):
        return False
    end = _find_end_of_first_scan(source)
    again = type(picture)(BytesIO(source[:end] + _MORE + source[end:]))
    return again.tobytes() != picture.tobytes()


def _ends_in_grey(picture: ImageFile) -> bool:
    """Whether the last block is mid-grey in every channel."""
    width, height = picture.size
    block = picture.crop((max(0, width - _BLOCK_PX), max(0, height - _BLOCK_PX), width, height))
    levels = {channel.getextrema() for channel in block.split()}
    return levels <= {(grey, grey) for grey in _GREYS}


def _find_end_of_first_scan(source: bytes) -> int:
    at = 2
    while at + 4 <= len(source):
        if source[at] != 0xFF or source[at + 1] == 0xFF:  # fill bytes between segments
            at += 1
            continue
        marker, length = source[at + 1], int.from_bytes(source[at + 2 : at + 4], "big")
        at += 2 + length
        if marker == _START_OF_SCAN:
            found = _END_OF_SCAN.search(source, at)
            return found.start() if found else len(source)
    raise ValueError("no scan")
