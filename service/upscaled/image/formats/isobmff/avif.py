"""Read AVIF files; libavif decodes them, through Pillow."""

from typing import TYPE_CHECKING

from upscaled.image.formats.isobmff.boxes import Still, read_still
from upscaled.image.formats.isobmff.items import TYPICAL_QUALITY, hide_exif, is_damaged, read_exif
from upscaled.image.formats.isobmff.transforms import TRANSFORMS
from upscaled.image.formats.limited_file import open_limited
from upscaled.image.formats.table import BROKEN_FILE_ERRORS, Stored
from upscaled.image.metadata import Exif
from upscaled.image.types import Header

if TYPE_CHECKING:
    from PIL.AvifImagePlugin import AvifImageFile


def read_header(source: bytes) -> Header:
    """Read size and transparency from the boxes, with the transforms in the order of MIAF."""
    still = read_still(source)
    in_order = sorted(still.transforms, key=lambda each: TRANSFORMS.index(each.name))
    has_alpha = still.has_alpha or still.tiles_have_alpha
    return still.to_header("AVIF", in_order, has_alpha=has_alpha)


def open_stored(source: bytes, header: Header) -> Stored:
    """Open an AVIF file, and refuse one whose coded data are cut short or end in zeros.

    Pillow reports the turn as an EXIF orientation, in a block that it writes anew, with question
    marks for letters that are not ASCII. libavif leaves the crop to its caller.
    """
    from upscaled.image.formats.isobmff.colour import choose_profile

    still: Still = header.parts
    opened = _open(source)
    if is_damaged(source, still.meta):
        raise ValueError("coded data end early")
    exif = Exif(read_exif(source, still.meta))
    crop = next((each for each in still.transforms if each.crop), None)
    return Stored(
        opened,
        exif,
        choose_profile(source, still, opened),
        dpi=opened.info.get("dpi"),
        orientation=Exif(opened.info.get("exif") or b"").orientation,
        crop_px=crop.crop_rectangle(still.width_px, still.height_px) if crop else None,
        jpeg_quality=TYPICAL_QUALITY,
        xmp=opened.info.get("xmp") or b"",
    )


def _open(source: bytes) -> "AvifImageFile":
    from PIL import AvifImagePlugin

    AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # more only hold memory
    try:
        return open_limited(source, AvifImagePlugin.AvifImageFile)
    except BROKEN_FILE_ERRORS:
        # A broken EXIF block is an error to libavif and Pillow. The turn stands in other boxes.
        return open_limited(hide_exif(source), AvifImagePlugin.AvifImageFile)
