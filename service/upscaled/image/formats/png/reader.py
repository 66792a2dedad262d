"""Read PNG files; Pillow gets the chunks that carry pixels, and nothing else."""

from upscaled.image.formats.png.structure import PngParts, read_png_parts
from upscaled.image.formats.table import Stored
from upscaled.image.metadata import Exif, upright_size
from upscaled.image.types import Header


def read_header(source: bytes) -> Header:
    """Read size, depth, transparency and orientation from the chunks."""
    png = read_png_parts(source)
    orientation = Exif(png.find(b"eXIf")).orientation
    size = upright_size(png.header.width_px, png.header.height_px, orientation)
    return Header("PNG", *size, png.has_alpha, is_deep=png.header.bit_depth == 16, parts=png)


def open_stored(source: bytes, header: Header) -> Stored:
    """Open a PNG file; damage is found while its pixels are loaded."""
    from upscaled.image.formats.png.colour import find_profile
    from upscaled.image.formats.png.pixels import PngFile

    png: PngParts = header.parts
    exif = Exif(png.find(b"eXIf"))
    return Stored(
        opened=PngFile(png),
        exif=exif,
        icc=find_profile(png),
        dpi=png.dpi,
        orientation=exif.orientation,
        transparent_level=_find_transparent_level(png),
        xmp=png.xmp,
    )


def _find_transparent_level(png: PngParts) -> int | None:
    """Find the transparent level of a grey PNG, which counts in the file's own bit depth.

    Pillow compares it with levels already stretched to 0..255, which is wrong below 8 bits.
    """
    if not png.header.is_grey or not png.transparency:
        return None
    key = int.from_bytes(png.transparency, "big")
    return key * 255 // ((1 << png.header.bit_depth) - 1)
