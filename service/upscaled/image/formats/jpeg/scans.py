"""Read the scans of a JPEG file (ITU-T T.81, annex B), and join what carries pixels to a new file.

Pillow gets that file alone: broken or foreign metadata, and whatever follows the image, never reach
a decoder.
"""

import re
from dataclasses import dataclass, replace
from io import BytesIO
from typing import TYPE_CHECKING, Final

from upscaled.image.formats.jpeg import segments
from upscaled.image.formats.jpeg.segments import (
    FrameHeader,
    LeadingSegments,
    Segment,
    SegmentWalker,
    make_segment,
)

if TYPE_CHECKING:
    from PIL.JpegImagePlugin import JpegImageFile

# Each scan of a progressive JPEG is a pass over all its pixels, and may take 10 bytes. Programs
# write about 10 scans; libjpeg-turbo's own fuzzers stop at 500.
MAX_SCANS: Final = 500

# T.81, B.2.3: first and last coefficient and approximation of a scan that is not progressive.
_WHOLE_SCAN: Final = bytes((0, 63, 0))
# Neither a stuffed 0xFF nor fill; among coded data a restart marker belongs to the data.
_END_OF_DATA: Final = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


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
        width, height = segments.BLOCK_PX * across, segments.BLOCK_PX * down
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


def open_jpeg(source: bytes) -> "JpegImageFile":
    """Open a JPEG file in Pillow, which gets it in one piece.

    Left to itself Pillow reads 64 KB at a time, and libjpeg has to stop where they end. Its
    arithmetic decoder cannot: it fails with "Suspension not allowed here" on any longer file.
    """
    from PIL.JpegImagePlugin import JpegImageFile

    opened = JpegImageFile(BytesIO(source))
    opened.decodermaxblock = len(source)
    return opened
