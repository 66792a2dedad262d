"""Read JPEG files: header and quality, and decode them beside the search for missing pixels.

The quality that a file was compressed by is libjpeg's number of 1 to 100, which scales the example
table of ITU-T T.81, annex K. Each number gives a table of another sum, so a table's sum gives the
number back. Other encoders (Photoshop, cameras, mozjpeg) have tables of their own: theirs is the
number whose table has the nearest sum, that is the same mean step.
"""

import struct
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache, partial
from typing import Final

from upscaled.image.formats.jpeg import segments
from upscaled.image.formats.jpeg.scans import MAX_SCANS, open_jpeg, read_scans
from upscaled.image.formats.jpeg.segments import (
    LeadingSegments,
    iterate_quantisation_tables,
    read_leading_segments,
)
from upscaled.image.formats.table import Stored
from upscaled.image.metadata import Exif, upright_size
from upscaled.image.types import Header

# T.81, table K.1: the example for luminance, in rows.
_LUMINANCE: Final = (
    *(16, 11, 10, 16, 24, 40, 51, 61),
    *(12, 12, 14, 19, 26, 58, 60, 55),
    *(14, 13, 16, 24, 40, 57, 69, 56),
    *(14, 17, 22, 29, 51, 87, 80, 62),
    *(18, 22, 37, 56, 68, 109, 103, 77),
    *(24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101),
    *(72, 92, 95, 98, 112, 100, 103, 99),
)


def read_header(source: bytes) -> Header:
    """Read size and orientation from the segments before the first scan.

    The rest is read only where it may hold more scans than are allowed.
    """
    leading = read_leading_segments(source)
    if source.count(bytes((0xFF, segments.SOS))) > MAX_SCANS:
        read_scans(source, leading)
    orientation = Exif(leading.exif or b"").orientation
    width_px, height_px = upright_size(leading.frame.width_px, leading.frame.height_px, orientation)
    return Header("JPEG", width_px, height_px, has_alpha=False, parts=leading)


def open_stored(source: bytes, header: Header) -> Stored:
    """Read the scans, decode the parts that carry pixels, and refuse missing ones.

    Both call libjpeg, which leaves the interpreter to the other: on two cores a file takes two
    thirds of the time. What the check finds is reported before any error of the decoder.
    """
    # Imported here: the front end, which reads headers, loads neither numpy nor libjpeg.
    from upscaled.image.formats.jpeg.damage import refuse_missing_pixels

    leading: LeadingSegments = header.parts
    structure = read_scans(source, leading)
    with ThreadPoolExecutor(1, thread_name_prefix="damage") as beside:
        try:
            check = beside.submit(refuse_missing_pixels, structure).result
        except RuntimeError:  # the system gives no further thread, which is no fault of the file
            check = partial(refuse_missing_pixels, structure)
        try:
            opened = open_jpeg(structure.join())
            opened.load()
        finally:
            check()
    exif = Exif(leading.exif or b"")
    quality = None
    with suppress(ValueError, IndexError, struct.error):
        quality = read_quality(leading)
    return Stored(
        opened,
        exif,
        exif.camera_profile if leading.icc is None else leading.icc,
        dpi=opened.info.get("dpi"),
        orientation=exif.orientation,
        jpeg_quality=quality,
        xmp=leading.xmp,
    )


def read_quality(leading: LeadingSegments) -> int:
    """Find libjpeg's quality, 1 to 100, for the table of the file's first channel."""
    # T.81, B.2.2: the table's number follows a channel's sampling factors.
    wanted = leading.frame.data[8]
    tables = dict[int, tuple[int, ...]]()
    for segment in leading.tables:
        if segment.marker == segments.DQT:
            tables.update(iterate_quantisation_tables(segment.data))
    if wanted not in tables:
        raise ValueError(f"no quantisation table {wanted}")
    return find_quality(tables[wanted])


def find_quality(table: tuple[int, ...]) -> int:
    """Find the quality, 1 to 100, whose table's sum is nearest to that of 64 quantisation steps."""
    distances = [abs(each - sum(table)) for each in _list_sums()]
    return distances.index(min(distances)) + 1


@cache
def _list_sums() -> tuple[int, ...]:
    """Sum libjpeg's luminance table for each quality of 1 to 100; the sums fall."""
    sums = list[int]()
    for quality in range(1, 101):
        percent = 5000 // quality if quality < 50 else 200 - 2 * quality
        steps = ((step * percent + 50) // 100 for step in _LUMINANCE)
        sums.append(sum(min(255, max(1, step)) for step in steps))
    return tuple(sums)
