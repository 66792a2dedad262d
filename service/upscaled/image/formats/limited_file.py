"""Open a file by one of Pillow's classes, with a limit on how many pieces of it are read.

Pillow reads a header piece by piece in Python: 25 MB in pieces of 4 bytes would take 20 s. Only a
decoder process opens files by Pillow.
"""

from io import BytesIO
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

_Opened = TypeVar("_Opened", bound="ImageFile")

_MAX_HEADER_READS: Final = 20_000
"""Reads before the pixels: about 0.1 s of work."""
_MAX_PIXEL_READS: Final = 500_000
"""Reads among the pixels: about 2 s of work."""


class _LimitedFile(BytesIO):
    """File that limits how often bytes are read from it."""

    reads_left = _MAX_HEADER_READS

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads_left -= 1
        if self.reads_left < 0:
            raise OSError("too many pieces")
        return super().read(size)


def open_limited(source: bytes, plugin: "type[_Opened]") -> "_Opened":
    """Open a file by a class of Pillow's, which reads its header now and its pixels later.

    Raises:
        OSError: too many pieces were read, here or when the pixels are decoded.
    """
    file = _LimitedFile(source)
    opened = plugin(file)
    file.reads_left = _MAX_PIXEL_READS
    return opened
