"""Read JPEG files: header, scans (ITU-T T.81, annex B) and quality, without decoding.

Pillow gets the parts that carry pixels, joined anew by `Structure.join`: broken or foreign
metadata, and whatever follows the image, never reach a decoder.

The quality that a file was compressed by is libjpeg's number of 1 to 100, which scales the example
table of ITU-T T.81, annex K. Each number gives a table of another sum, so a table's sum gives the
number back. Other encoders (Photoshop, cameras, mozjpeg) have tables of their own: theirs is the
number whose table has the nearest sum, that is the same mean step.
"""

import re
import struct
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from io import BytesIO
from typing import TYPE_CHECKING, Final

from upscaled.image.formats.jpeg import segments
from upscaled.image.formats.jpeg.segments import (
    FrameHeader,
    LeadingSegments,
    Segment,
    SegmentWalker,
    iterate_quantisation_tables,
    make_segment,
    read_leading_segments,
)
from upscaled.image.formats.table import Stored
from upscaled.image.metadata import Exif, upright_size
from upscaled.image.types import Header

if TYPE_CHECKING:
    from PIL.JpegImagePlugin import JpegImageFile

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
# Each scan of a progressive JPEG is a pass over all its pixels, and may take 10 bytes. Programs
# write about 10 scans; libjpeg-turbo's own fuzzers stop at 500.
MAX_SCANS: Final = 500

# T.81, B.2.3: first and last coefficient and approximation of a scan that is not progressive.
_WHOLE_SCAN: Final = bytes((0, 63, 0))
# Neither a stuffed 0xFF nor fill; among coded data a restart marker belongs to the data.
_END_OF_DATA: Final = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


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
    """Read the scans, refuse missing pixels, and open the parts that carry pixels."""
    from upscaled.image.formats.jpeg.damage import refuse_missing_pixels

    leading: LeadingSegments = header.parts
    structure = read_scans(source, leading)
    refuse_missing_pixels(structure)
    exif = Exif(leading.exif or b"")
    quality = None
    with suppress(ValueError, IndexError, struct.error):
        quality = read_quality(leading)
    opened = open_jpeg(structure.join())
    return Stored(
        opened,
        exif,
        exif.camera_profile if leading.icc is None else leading.icc,
        dpi=opened.info.get("dpi"),
        orientation=exif.orientation,
        jpeg_quality=quality,
        xmp=leading.xmp,
    )


def open_jpeg(source: bytes) -> "JpegImageFile":
    """Open a JPEG file in Pillow, which gets it in one piece.

    Left to itself Pillow reads 64 KB at a time, and libjpeg has to stop where they end. Its
    arithmetic decoder cannot: it fails with "Suspension not allowed here" on any longer file.
    """
    from PIL.JpegImagePlugin import JpegImageFile

    opened = JpegImageFile(BytesIO(source))
    opened.decodermaxblock = len(source)
    return opened


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


@dataclass(frozen=True, slots=True)
class Scan:
    """Header of a scan, the tables that come before it, and its entropy-coded bytes.

    `first` and `last` are the coefficients it holds in zigzag order; `low` bits of these are still
    missing behind it (successive approximation: T.81, B.2.3).
    """

    tables: tuple[Segment, ...]
    header: bytes
    components: tuple[int, ...]
    first: int
    last: int
    low: int
    coded: bytes


@dataclass(frozen=True, slots=True)
class Structure:
    """Parts of a JPEG file that its pixels are decoded from.

    has_end: an end marker follows the last scan.
    """

    frame: FrameHeader
    jfif: bytes | None
    adobe: bytes | None
    scans: tuple[Scan, ...]
    has_end: bool

    def count_units(self, scan: Scan) -> int:
        """Count a scan's coded units: blocks where it has one channel, else MCUs (T.81, A.2)."""
        frame = self.frame
        across = max(component.across for component in frame.components)
        down = max(component.down for component in frame.components)
        width, height = 8 * across, 8 * down
        if len(scan.components) == 1:
            (one,) = (each for each in frame.components if each.number == scan.components[0])
            columns = -(-frame.width_px * one.across // width)
            rows = -(-frame.height_px * one.down // height)
            return columns * rows
        return -(-frame.width_px // width) * -(-frame.height_px // height)

    @property
    def last(self) -> bytes:
        """Return the last scan's entropy-coded bytes."""
        return self.scans[-1].coded

    def with_last(self, coded: bytes) -> "Structure":
        """Replace the entropy-coded bytes of the last scan."""
        return replace(self, scans=(*self.scans[:-1], replace(self.scans[-1], coded=coded)))

    def with_more(self, more: bytes) -> "Structure":
        """Append `more` to the entropy-coded bytes of each scan."""
        return replace(
            self, scans=tuple(replace(scan, coded=scan.coded + more) for scan in self.scans)
        )

    def join(self) -> bytes:
        """Join the parts that pixels are decoded from to a file with an end marker."""
        parts = [segments.SOI]
        parts += [make_segment(segments.APP0, self.jfif)] if self.jfif else []
        parts += [make_segment(segments.APP14, self.adobe)] if self.adobe else []
        for number, scan in enumerate(self.scans):
            parts += [make_segment(table.marker, table.data) for table in scan.tables]
            parts += [make_segment(self.frame.marker, self.frame.data)] if number == 0 else []
            parts += [make_segment(segments.SOS, scan.header), scan.coded]
        return b"".join((*parts, segments.EOI))


def read_scans(source: bytes, leading: LeadingSegments) -> Structure:
    """Read the scans, to the end marker or whatever else ends the file.

    A file that ends within the tables or metadata behind a scan is read as if it ended before them.
    """
    walker = SegmentWalker(source, leading.scans_at, leading.segments)
    tables = leading.tables
    header: bytes | None = leading.scan_header
    scans: list[Scan] = []
    while header is not None:
        if len(scans) == MAX_SCANS:
            raise ValueError(f"more than {MAX_SCANS} scans")
        found = _END_OF_DATA.search(source, walker.at)
        end = found.start() if found else len(source)
        coded = source[walker.at : end].rstrip(b"\xff")  # fill bytes, or half a marker
        scans.append(_read_scan(leading.frame, tables, header, coded))
        walker.at = end
        tables, header = _read_to_next_scan(walker)
    has_end = source[walker.at : walker.at + 2] == segments.EOI
    return Structure(leading.frame, leading.jfif, leading.adobe, tuple(scans), has_end)


def _read_to_next_scan(walker: SegmentWalker) -> tuple[tuple[Segment, ...], bytes | None]:
    """Return the tables before the next scan, and its header; None where there is none."""
    tables = list[Segment]()
    for segment in walker.iterate(may_be_cut=True):
        if segment.marker == segments.SOS:
            return tuple(tables), segment.data
        if segment.marker in segments.TABLES:
            tables.append(segment)
        elif segment.marker not in segments.METADATA and segment.marker != segments.DNL:
            raise ValueError(f"marker {segment.marker:#x} behind a scan")
    return (), None


def _read_scan(
    frame: FrameHeader, tables: tuple[Segment, ...], header: bytes, coded: bytes
) -> Scan:
    count = header[0]
    if not frame.is_progressive:
        # Some programs write other numbers. Decoders warn, and read the whole of each block.
        header = header[: 1 + 2 * count] + _WHOLE_SCAN
    first, last, approximation = header[1 + 2 * count : 4 + 2 * count]
    return Scan(
        tables=tables,
        header=header,
        components=tuple(header[1 : 1 + 2 * count : 2]),
        first=first,
        last=last,
        low=approximation & 15,
        coded=coded,
    )
