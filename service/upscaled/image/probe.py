"""What an image is, from its header alone: light enough for the front end."""

from collections.abc import Collection

from upscaled.errors import MalformedImage
from upscaled.image.formats.sniff import ENABLED
from upscaled.image.head import read_head
from upscaled.image.header import BROKEN_FILE_ERRORS, admit, open_header, refuse_too_large
from upscaled.image.types import ImageInfo


def probe(source: bytes, formats: Collection[str] = ENABLED) -> ImageInfo:
    """Format, upright size and transparency of an encoded image; no pixel is decoded.

    Raises:
        MalformedImage: no bytes, no image, or a broken header.
        UnsupportedImageFormat: a known format that is not among `formats` (GIF, PDF ...).
        ResolutionTooHigh: beyond what any setting allows (`header.MAX_PIXELS`).
    """
    format_name = admit(source, formats)
    try:
        head = read_head(source, format_name)
    except BROKEN_FILE_ERRORS as error:
        raise MalformedImage(detail=f"{format_name} head: {error}") from error
    if head is not None:
        refuse_too_large(head)
        return ImageInfo(
            format_name,
            head.width_px,
            head.height_px,
            head.has_alpha,
            head.is_deep,
            head.decoded_pixels,
        )
    header = open_header(source, formats)
    width_px, height_px = header.upright_size_px
    return ImageInfo(format_name, width_px, height_px, header.has_alpha)
