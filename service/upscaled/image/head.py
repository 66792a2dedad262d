"""What the heads of some formats tell without their decoders, which are written in C.

The front end reads headers of untrusted files. BMP's is read by Pillow in Python; these are read
here, so that no decoder in C runs beside keys and credits.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from upscaled.image.formats.isobmff.boxes import Still, read_still
from upscaled.image.formats.isobmff.transforms import TRANSFORMS, Rectangle, transformed_size
from upscaled.image.formats.jpeg.structure import read_header
from upscaled.image.formats.png.structure import read_png_parts
from upscaled.image.formats.tiff import read_directory
from upscaled.image.formats.webp.structure import read_canvas
from upscaled.image.orientation import read_orientation, swaps_sides


@dataclass(frozen=True, slots=True)
class Head:
    """Upright size and transparency, as the decoder will have them or refuse the file.

    is_deep: a channel has 16 bits, and decoding keeps them. crop_px: what of the stored picture is
    kept, where the decoder leaves the crop to us. decoded_pixels: how many the decoder holds, 0
    where nothing is cropped away.
    """

    width_px: int
    height_px: int
    has_alpha: bool
    is_deep: bool = False
    crop_px: Rectangle | None = None
    decoded_pixels: int = 0


def read_head(source: bytes, format_name: str) -> Head | None:
    """The facts of a file of that format; None where Pillow's reader is to tell them.

    Raises:
        ValueError, struct.error, IndexError, StopIteration: it is broken.
    """
    reader = _READERS.get(format_name)
    if reader is None:
        return None
    head = reader(source)
    if head.width_px < 1 or head.height_px < 1:
        raise ValueError("a side of no pixels")
    return head


def _read_png(source: bytes) -> Head:
    png = read_png_parts(source)
    width, height = png.header.width_px, png.header.height_px
    if swaps_sides(read_orientation(png.find(b"eXIf"))):
        width, height = height, width
    return Head(width, height, png.has_alpha, is_deep=png.header.bit_depth == 16)


def _read_webp(source: bytes) -> Head:
    canvas = read_canvas(source)
    is_turned = swaps_sides(read_orientation(canvas.exif))
    return _turn(canvas.width_px, canvas.height_px, canvas.has_alpha, is_turned=is_turned)


def _read_jpeg(source: bytes) -> Head:
    header = read_header(source)
    is_turned = swaps_sides(read_orientation(header.exif or b""))
    return _turn(
        header.frame.width_px, header.frame.height_px, has_alpha=False, is_turned=is_turned
    )


def _read_tiff(source: bytes) -> Head:
    directory = read_directory(source)
    is_turned = swaps_sides(directory.orientation)
    return _turn(directory.width_px, directory.height_px, directory.has_alpha, is_turned=is_turned)


def _read_avif(source: bytes) -> Head:
    """libavif leaves the crop to its caller, and Pillow leaves it be; it comes before a turn."""
    still = read_still(source)
    transforms = sorted(still.transforms, key=lambda each: TRANSFORMS.index(each.name))
    crop = next((each.crop for each in transforms if each.crop is not None), None)
    width, height = transformed_size(still.width_px, still.height_px, transforms)
    return Head(
        width,
        height,
        has_alpha=still.has_alpha or still.tiles_have_alpha,
        crop_px=crop.rectangle(still.width_px, still.height_px) if crop else None,
        decoded_pixels=_count_decoded(still),
    )


def _read_heic(source: bytes) -> Head:
    """libheif crops and turns by itself, in the order of the file."""
    still = read_still(source)
    return Head(
        *transformed_size(still.width_px, still.height_px, still.transforms),
        has_alpha=still.has_alpha,
        decoded_pixels=_count_decoded(still),
    )


def _count_decoded(still: Still) -> int:
    is_cropped = any(each.crop is not None for each in still.transforms)
    return still.width_px * still.height_px if is_cropped else 0


def _turn(width_px: int, height_px: int, has_alpha: bool, *, is_turned: bool) -> Head:
    if is_turned:
        width_px, height_px = height_px, width_px
    return Head(width_px, height_px, has_alpha)


_READERS: Final[Mapping[str, Callable[[bytes], Head]]] = {
    "AVIF": _read_avif,
    "HEIC": _read_heic,
    "JPEG": _read_jpeg,
    "PNG": _read_png,
    "TIFF": _read_tiff,
    "WEBP": _read_webp,
}
