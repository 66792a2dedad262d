"""Small pictures to send."""

import functools
import io
import os

from PIL import Image


@functools.cache
def picture(
    width_px: int = 80, height_px: int = 64, *, mode: str = "RGB", format_name: str = "PNG"
) -> bytes:
    """An encoded picture of one colour."""
    file = io.BytesIO()
    Image.new(mode, (width_px, height_px)).save(file, format_name)
    return file.getvalue()


def picture_of_bytes(size_bytes: int) -> bytes:
    """A good JPEG of exactly this many bytes: what follows its end marker is ignored."""
    small = picture(format_name="JPEG")
    return small + os.urandom(size_bytes - len(small))


def size_of(data: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(data)) as opened:
        return opened.size
