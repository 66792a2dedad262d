"""Find the markers, segments and scans of a JPEG file (ITU-T T.81, annex B) without decoding.

`read_leading_segments` stops at the first scan, `read_scans` goes on from there. Both take time
proportional to the bytes they pass: no byte is looked at by two searches, and no pattern repeats.
What a decoder needs of the file is joined anew by `Structure.join`, so that broken or foreign
metadata, and whatever follows the picture, never reach a decoder.
"""

import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from upscaled.errors import UnsupportedImageFormat

SOI: Final = b"\xff\xd8"
EOI: Final = b"\xff\xd9"
# A file of 25 MB whose metadata comes in full segments has 400, one of 45 MB of XMP 700.
MAX_SEGMENTS: Final = 5_000
# Each scan of a progressive JPEG is a pass over all its pixels, and may take 10 bytes. Programs
# write about 10 scans; libjpeg-turbo's own fuzzers stop at 500.
MAX_SCANS: Final = 500

DHT, _DAC, DQT, DRI, _DNL = 0xC4, 0xCC, 0xDB, 0xDD, 0xDC
_SOI, _EOI, SOS, _COM = 0xD8, 0xD9, 0xDA, 0xFE
APP0, APP1, APP2, _APP14, _APP15 = 0xE0, 0xE1, 0xE2, 0xEE, 0xEF
_WITHOUT_SEGMENT: Final = frozenset({0x01, *range(0xD0, 0xD8)})
_TABLES: Final = frozenset({DHT, _DAC, DQT, DRI})
_CUT: Final = _TABLES | {SOS, _COM, *range(APP0, _APP15 + 1)}
_SEQUENTIAL: Final = frozenset({0xC0, 0xC1, 0xC9})
_PROGRESSIVE: Final = frozenset({0xC2, 0xCA})
_ARITHMETIC: Final = frozenset({0xC9, 0xCA})
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {DHT, _DAC, 0xC8}
EXIF_HEAD, ICC_HEAD = b"Exif\x00\x00", b"ICC_PROFILE\x00"
_DNL_HEAD: Final = struct.pack(">BBH", 0xFF, _DNL, 4)
_JFIF_HEAD, _ADOBE_HEAD = b"JFIF\x00", b"Adobe"
# libjpeg heeds these segments only where they are so long, and warns of other versions than 1.
_JFIF_BYTES, _JFIF_VERSION_AT, _JFIF_VERSION = 14, 5, b"\x01\x02"
_ADOBE_BYTES, _ADOBE_TRANSFORM_AT = 12, 11
# By channels: the transforms that Adobe defines, the first of them the one that libjpeg assumes in
# the place of another (Technical Note 5116, section 18).
_ADOBE_TRANSFORMS: Final[Mapping[int, Sequence[int]]] = {1: (0, 1, 2), 3: (1, 0), 4: (2, 0)}
# T.81, B.2.3: first and last coefficient and approximation of a scan that is not progressive.
_WHOLE_SCAN: Final = bytes((0, 63, 0))
_BITS, _DEEP_BITS = 8, 12
# A marker's second byte: neither 0 (a stuffed 0xFF) nor 0xFF (fill). Among coded data a restart
# marker belongs to the data. One 0xFF is enough: those before it are fill bytes.
_MARKER: Final = re.compile(rb"\xff[^\x00\xff]")
_END_OF_DATA: Final = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


@dataclass(frozen=True, slots=True)
class Component:
    """One channel of a frame, with its sampling factors across and down."""

    number: int
    across: int
    down: int


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame header (T.81, B.2.2)."""

    marker: int
    data: bytes
    height_px: int
    width_px: int
    components: tuple[Component, ...]

    def with_size(self, width_px: int, height_px: int) -> "Frame":
        """Return the same frame of another size."""
        sides = struct.pack(">HH", height_px, width_px)
        data = self.data[:1] + sides + self.data[5:]
        return replace(self, data=data, width_px=width_px, height_px=height_px)

    @property
    def is_progressive(self) -> bool:
        return self.marker in _PROGRESSIVE

    @property
    def is_arithmetic(self) -> bool:
        return self.marker in _ARITHMETIC


@dataclass(frozen=True, slots=True)
class Segment:
    """A marker and the data of its segment."""

    marker: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Scan:
    """A scan's header, the tables that come before it, and its entropy-coded bytes.

    `first` and `last` are the coefficients it holds in zigzag order, `high` and `low` the bits of
    successive approximation (T.81, B.2.3): `low` bits are still missing behind it.
    """

    tables: tuple[Segment, ...]
    header: bytes
    components: tuple[int, ...]
    first: int
    last: int
    high: int
    low: int
    coded: bytes


@dataclass(frozen=True, slots=True)
class LeadingSegments:
    """All that comes before the first scan's coded bytes.

    tables: those before the first scan, whose header is `scan_header`.
    scans_at: where the coded bytes of the first scan begin.
    segments: how many there were; more count towards `MAX_SEGMENTS`.
    """

    frame: Frame
    jfif: bytes | None
    adobe: bytes | None
    exif: bytes | None
    icc: bytes | None
    tables: tuple[Segment, ...]
    scan_header: bytes
    scans_at: int
    segments: int


@dataclass(frozen=True, slots=True)
class Structure:
    """The parts of a JPEG file that its pixels are decoded from.

    has_end: an end marker follows the last scan.
    """

    frame: Frame
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
        """The last scan's entropy-coded bytes."""
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
        parts = [SOI]
        parts += [make_segment(APP0, self.jfif)] if self.jfif else []
        parts += [make_segment(_APP14, self.adobe)] if self.adobe else []
        for number, scan in enumerate(self.scans):
            parts += [make_segment(table.marker, table.data) for table in scan.tables]
            parts += [make_segment(self.frame.marker, self.frame.data)] if number == 0 else []
            parts += [make_segment(SOS, scan.header), scan.coded]
        return b"".join((*parts, EOI))


def read_leading_segments(source: bytes) -> LeadingSegments:
    """Read all that comes before the first scan.

    The rest is walked only where it may hold more scans than are allowed.

    Raises:
        ValueError, IndexError, struct.error: they are broken or cut short, or there are more than
            `MAX_SCANS` scans.
        UnsupportedImageFormat: a JPEG process that is not decoded here (lossless, 12 bits ...).
    """
    leading = _LeadingReader(source).read()
    if source.count(bytes((0xFF, SOS))) > MAX_SCANS:
        read_scans(source, leading)
    return leading


def read_scans(source: bytes, leading: LeadingSegments) -> Structure:
    """Read the scans, to the end marker or whatever else ends the file.

    A file that ends within the tables or metadata behind a scan is read as if it ended before them.

    Raises:
        ValueError, IndexError: they are broken, or there are more than `MAX_SCANS`.
    """
    return _ScanReader(source, leading).read()


class _Walker:
    """Walks a file's segments once, from a given place."""

    def __init__(self, source: bytes, at: int, segments: int) -> None:
        self._source = source
        self._at = at
        self._segments = segments

    def _iterate(self, *, may_be_cut: bool = False) -> Iterator[Segment]:
        """Iterate over segments from here to an end marker or the end of the file.

        may_be_cut: the file may end within the last of them, which is then left out.
        """
        source = self._source
        while (found := _MARKER.search(source, self._at)) is not None:
            self._segments += 1
            if self._segments > MAX_SEGMENTS:
                raise ValueError(f"more than {MAX_SEGMENTS} segments")
            self._at = found.start()
            marker = source[self._at + 1]
            if marker == _EOI:
                return
            if marker in _WITHOUT_SEGMENT:
                self._at = found.end()
                continue
            end = found.end() + int.from_bytes(source[found.end() : found.end() + 2], "big")
            if end > len(source) and may_be_cut and marker in _CUT:
                return
            if end < found.end() + 2 or end > len(source):
                raise ValueError(f"segment {marker:#x} of a wrong length")
            self._at = end
            yield Segment(marker, source[found.end() + 2 : end])


class _LeadingReader(_Walker):
    """Reads what comes before the first scan."""

    def __init__(self, source: bytes) -> None:
        super().__init__(source, len(SOI), segments=0)
        self._tables: list[Segment] = []
        self._frame: Frame | None = None
        self._jfif: bytes | None = None
        self._adobe: bytes | None = None
        self._exif: list[bytes] = []
        self._icc: list[bytes] = []

    def read(self) -> LeadingSegments:
        scan_header = self._read_to_first_scan()
        if self._frame is None:
            raise ValueError("a scan without a frame")
        frame = self._frame if self._frame.height_px else self._read_height(self._frame)
        return LeadingSegments(
            frame=frame,
            jfif=self._jfif,
            adobe=_clean_adobe(self._adobe, len(frame.components)),
            exif=b"".join(self._exif) or None,
            icc=_join_profile(self._icc),
            tables=tuple(self._tables),
            scan_header=scan_header,
            scans_at=self._at,
            segments=self._segments,
        )

    def _read_to_first_scan(self) -> bytes:
        """Read to the first scan's header; segments that cannot stand before it are an error."""
        for segment in self._iterate():
            if segment.marker == SOS:
                return segment.data
            self._take(segment)
        raise ValueError("no scan")

    def _take(self, segment: Segment) -> None:
        marker, data = segment.marker, segment.data
        if marker in _TABLES:
            self._tables.append(segment)
        elif marker in _FRAMES:
            if self._frame is not None:
                raise ValueError("two frames")
            self._frame = _read_frame(marker, data)
        elif marker == APP0 and data.startswith(_JFIF_HEAD):
            self._jfif = self._jfif or _clean_jfif(data)
        elif marker == _APP14 and data.startswith(_ADOBE_HEAD):
            self._adobe = data if len(data) >= _ADOBE_BYTES else self._adobe
        elif marker == APP1 and data.startswith(EXIF_HEAD):
            self._exif.append(data if not self._exif else data[len(EXIF_HEAD) :])
        elif marker == APP2 and data.startswith(ICC_HEAD):
            self._icc.append(data[len(ICC_HEAD) :])
        elif not (APP0 <= marker <= _APP15 or marker == _COM):
            raise ValueError(f"marker {marker:#x} before the first scan")

    def _read_height(self, frame: Frame) -> Frame:
        """Read the number of lines behind the first scan, for a frame without it (T.81, B.2.5)."""
        found = self._source.find(_DNL_HEAD, self._at)
        lines = self._source[found + len(_DNL_HEAD) :][:2] if found >= 0 else b""
        if len(lines) != 2 or lines == bytes(2):
            raise ValueError("no height")
        return frame.with_size(frame.width_px, int.from_bytes(lines, "big"))


class _ScanReader(_Walker):
    """Reads the scans that follow the leading segments."""

    def __init__(self, source: bytes, leading: LeadingSegments) -> None:
        super().__init__(source, leading.scans_at, leading.segments)
        self._leading = leading
        self._tables = list(leading.tables)
        self._scans: list[Scan] = []

    def read(self) -> Structure:
        leading = self._leading
        header: bytes | None = leading.scan_header
        has_end = False
        while header is not None:
            self._read_scan(header)
            header, has_end = self._read_to_next_scan()
        return Structure(
            leading.frame, leading.jfif, leading.adobe, tuple(self._scans), has_end=has_end
        )

    def _read_to_next_scan(self) -> tuple[bytes | None, bool]:
        """Return the scan's header or None, and whether an end marker was met."""
        self._tables = []
        for segment in self._iterate(may_be_cut=True):
            if segment.marker == SOS:
                return segment.data, False
            if segment.marker in _TABLES:
                self._tables.append(segment)
            elif not (APP0 <= segment.marker <= _APP15 or segment.marker in (_COM, _DNL)):
                raise ValueError(f"marker {segment.marker:#x} behind a scan")
        return None, self._source[self._at : self._at + 2] == EOI

    def _read_scan(self, header: bytes) -> None:
        if len(self._scans) == MAX_SCANS:
            raise ValueError(f"more than {MAX_SCANS} scans")
        found = _END_OF_DATA.search(self._source, self._at)
        end = found.start() if found else len(self._source)
        coded = self._source[self._at : end].rstrip(b"\xff")  # fill bytes, or half a marker
        count = header[0]
        if not self._leading.frame.is_progressive:
            # Some programs write other numbers. Decoders warn, and read the whole of each block.
            header = header[: 1 + 2 * count] + _WHOLE_SCAN
        first, last, bits = header[1 + 2 * count : 4 + 2 * count]
        self._scans.append(
            Scan(
                tables=tuple(self._tables),
                header=header,
                components=tuple(header[1 : 1 + 2 * count : 2]),
                first=first,
                last=last,
                high=bits >> 4,
                low=bits & 15,
                coded=coded,
            )
        )
        self._at = end


def _read_frame(marker: int, data: bytes) -> Frame:
    precision, height_px, width_px, count = struct.unpack_from(">BHHB", data)
    if len(data) != 6 + 3 * count or width_px == 0:
        raise ValueError("a broken frame")
    if marker not in _SEQUENTIAL | _PROGRESSIVE or precision == _DEEP_BITS:
        raise UnsupportedImageFormat(detail=f"JPEG process {marker:#x} of {precision} bits")
    if precision != _BITS or count not in (1, 3, 4):
        raise ValueError(f"{count} channels of {precision} bits")
    components = tuple(
        Component(data[at], data[at + 1] >> 4, data[at + 1] & 15)
        for at in range(6, 6 + 3 * count, 3)
    )
    if any(not (1 <= each.across <= 4 and 1 <= each.down <= 4) for each in components):
        raise ValueError("a sampling factor that T.81, B.2.2 does not allow")
    return Frame(marker, data, height_px, width_px, components)


def _clean_jfif(data: bytes) -> bytes | None:
    """Give JFIF's segment a version that decoders know; None where it is too short to count."""
    if len(data) < _JFIF_BYTES:
        return None
    version_end = _JFIF_VERSION_AT + len(_JFIF_VERSION)
    return data[:_JFIF_VERSION_AT] + _JFIF_VERSION + data[version_end:]


def _clean_adobe(data: bytes | None, channels: int) -> bytes | None:
    """Give Adobe's segment a transform that Adobe defines."""
    if data is None or data[_ADOBE_TRANSFORM_AT] in _ADOBE_TRANSFORMS[channels]:
        return data
    transform = bytes(_ADOBE_TRANSFORMS[channels][:1])
    return data[:_ADOBE_TRANSFORM_AT] + transform + data[_ADOBE_TRANSFORM_AT + 1 :]


def _join_profile(pieces: Sequence[bytes]) -> bytes | None:
    """Join the numbered pieces of an ICC profile (ICC.1:2022, B.4); None where one is missing."""
    by_number: dict[int, bytes] = {}
    for piece in pieces:
        if len(piece) > 2:
            by_number.setdefault(piece[0], piece)
    count = max((piece[1] for piece in by_number.values()), default=0)
    if not count or sorted(by_number) != list(range(1, count + 1)):
        return None
    return b"".join(by_number[number][2:] for number in sorted(by_number))


def make_segment(marker: int, data: bytes) -> bytes:
    """Make a whole segment: marker, length, data."""
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data
