"""What an image is, from its header alone: light enough for the front end."""

from service.image.header import open_header
from service.image.types import ImageInfo


def probe(source: bytes) -> ImageInfo:
    """Format, upright size and transparency of an encoded image; no pixel is decoded.

    Raises:
        MalformedImage: no bytes, no image, or a broken header.
        UnsupportedImageFormat: a known format that is not enabled (GIF, TIFF, PDF ...).
        ResolutionTooHigh: beyond what any setting allows (`header.MAX_PIXELS`).
    """
    header = open_header(source)
    width_px, height_px = header.upright_size_px
    return ImageInfo(header.format, width_px, height_px, header.has_alpha)
