"""Read HEIC files; libheif decodes them, through pillow-heif."""

from upscaled.image.formats.isobmff.boxes import Still, read_still
from upscaled.image.formats.isobmff.items import TYPICAL_QUALITY, is_damaged
from upscaled.image.formats.limited_file import open_limited
from upscaled.image.formats.table import Stored
from upscaled.image.metadata import Exif
from upscaled.image.types import Header


def read_header(source: bytes) -> Header:
    """Read size and transparency from the boxes, with the transforms in the order of the file."""
    still = read_still(source)
    return still.to_header("HEIC", still.transforms, has_alpha=still.has_alpha)


def open_stored(source: bytes, header: Header) -> Stored:
    """Open a HEIC file, and refuse one whose coded data are cut short or end in zeros.

    libheif crops and turns by itself.
    """
    from pillow_heif import options
    from pillow_heif.as_plugin import HeifImageFile

    from upscaled.image.formats.isobmff.colour import choose_profile

    still: Still = header.parts
    options.DECODE_THREADS = 1
    options.THUMBNAILS = options.DEPTH_IMAGES = options.AUX_IMAGES = False
    opened = open_limited(source, HeifImageFile)
    if is_damaged(source, still.meta):
        raise ValueError("coded data end early")
    return Stored(
        opened,
        Exif(opened.info.get("exif") or b""),
        choose_profile(source, still, opened),
        dpi=opened.info.get("dpi"),
        jpeg_quality=TYPICAL_QUALITY,
        xmp=opened.info.get("xmp") or b"",
    )
