"""Pillow's decoder of JPEG files, given each file in one piece."""

from io import BytesIO

from PIL.JpegImagePlugin import JpegImageFile


def open_jpeg(source: bytes) -> JpegImageFile:
    """Pillow's view of a JPEG file, its pixels not decoded yet.

    Left to itself Pillow reads 64 KB at a time, and libjpeg has to stop where they end. Its
    arithmetic decoder cannot: it fails with "Suspension not allowed here" on any longer file.

    Raises:
        OSError, SyntaxError, struct.error, ...: as Pillow on a broken header.
    """
    picture = JpegImageFile(BytesIO(source))
    picture.decodermaxblock = len(source)
    return picture
