"""Find the segments of a JPEG file before its first scan (ITU-T T.81, annex B) without decoding.

`read_leading_segments` stops at the first scan; `upscaled.image.formats.jpeg.reader` goes on from
there. Both take time proportional to the bytes they pass: no byte is looked at by two searches, and
no pattern repeats.
"""

import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from upscaled.errors import UnsupportedImageFormat

SOI: Final = b"\xff\xd8"
EOI: Final = b"\xff\xd9"
RST0: Final = 0xD0
"""The first of eight restart markers, which count intervals: T.81, B.1.1.2."""
BLOCK_PX: Final = 8
# A file of 25 MB whose metadata comes in full segments has 400, one of 45 MB of XMP 700.
MAX_SEGMENTS: Final = 5_000

DHT, _DAC, DQT, DRI, DNL = 0xC4, 0xCC, 0xDB, 0xDD, 0xDC
_EOI, SOS, _COM = 0xD9, 0xDA, 0xFE
APP0, APP1, APP2, APP14, _APP15 = 0xE0, 0xE1, 0xE2, 0xEE, 0xEF
_WITHOUT_SEGMENT: Final = frozenset({0x01, *range(RST0, RST0 + 8)})
TABLES: Final = frozenset({DHT, _DAC, DQT, DRI})
METADATA: Final = frozenset({_COM, *range(APP0, _APP15 + 1)})
_CUT: Final = TABLES | METADATA | {SOS}
_SEQUENTIAL: Final = frozenset({0xC0, 0xC1, 0xC9})
_PROGRESSIVE: Final = frozenset({0xC2, 0xCA})
_ARITHMETIC: Final = frozenset({0xC9, 0xCA})
_JPEG_LS: Final = 0xF7  # ITU-T T.87: another format behind JPEG's first bytes
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {DHT, _DAC, 0xC8} | {_JPEG_LS}
EXIF_HEAD, ICC_HEAD = b"Exif\x00\x00", b"ICC_PROFILE\x00"
XMP_HEAD: Final = b"http://ns.adobe.com/xap/1.0/\x00"
_DNL_HEAD: Final = struct.pack(">BBH", 0xFF, DNL, 4)
_JFIF_HEAD, _ADOBE_HEAD = b"JFIF\x00", b"Adobe"
# libjpeg heeds these segments only where they are so long, and warns of other versions than 1.
_JFIF_BYTES, _JFIF_VERSION = 14, b"\x01\x02"
_ADOBE_BYTES, _ADOBE_TRANSFORM_AT = 12, 11
# By channels: the transforms that Adobe defines, the first of them the one that libjpeg assumes in
# the place of another (Technical Note 5116, section 18).
_ADOBE_TRANSFORMS: Final[Mapping[int, Sequence[int]]] = {1: (0, 1, 2), 3: (1, 0), 4: (2, 0)}
_BITS, _DEEP_BITS = 8, 12
# A marker's second byte: neither 0 (a stuffed 0xFF) nor 0xFF (fill). One 0xFF is enough: those
# before it are fill bytes.
_MARKER: Final = re.compile(rb"\xff[^\x00\xff]")
_QUANTISATION_STEPS: Final = 64


@dataclass(frozen=True, slots=True)
class Component:
    """Channel of a frame, with its sampling factors across and down."""

    number: int
    across: int
    down: int


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """Frame header (T.81, B.2.2)."""

    marker: int
    data: bytes
    height_px: int
    width_px: int
    components: tuple[Component, ...]

    def with_size(self, width_px: int, height_px: int) -> "FrameHeader":
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
    """Marker and the data of its segment."""

    marker: int
    data: bytes


@dataclass(frozen=True, slots=True)
class LeadingSegments:
    """Segments before the first scan's coded bytes.

    tables: those before the first scan, whose header is `scan_header`.
    scans_at: where the coded bytes of the first scan begin.
    segments: how many there were; more count towards `MAX_SEGMENTS`.
    """

    frame: FrameHeader
    jfif: bytes | None
    adobe: bytes | None
    exif: bytes | None
    xmp: bytes
    icc: bytes | None
    tables: tuple[Segment, ...]
    scan_header: bytes
    scans_at: int
    segments: int


class SegmentWalker:
    """Reads a file's segments once, from a given offset.

    at: the offset of the next segment. segments: how many were read, with those before it.
    """

    def __init__(self, source: bytes, at: int, segments: int = 0) -> None:
        self.at = at
        self.segments = segments
        self._source = source

    def iterate(self, *, may_be_cut: bool = False) -> Iterator[Segment]:
        """Iterate over segments from here to an end marker or the end of the file.

        may_be_cut: the file may end within the last of them, which is then left out.
        """
        source = self._source
        while (found := _MARKER.search(source, self.at)) is not None:
            self.segments += 1
            if self.segments > MAX_SEGMENTS:
                raise ValueError(f"more than {MAX_SEGMENTS} segments")
            self.at = found.start()
            marker = source[self.at + 1]
            if marker == _EOI:
                return
            if marker in _WITHOUT_SEGMENT:
                self.at = found.end()
                continue
            end = found.end() + int.from_bytes(source[found.end() : found.end() + 2], "big")
            if end > len(source) and may_be_cut and marker in _CUT:
                return
            if end < found.end() + 2 or end > len(source):
                raise ValueError(f"segment {marker:#x} of a wrong length")
            self.at = end
            yield Segment(marker, source[found.end() + 2 : end])


class _Metadata:
    """Metadata before the first scan, collected segment by segment."""

    def __init__(self) -> None:
        self.jfif: bytes | None = None
        self.adobe: bytes | None = None
        self.xmp = b""
        self.exif: list[bytes] = []
        self.icc: list[bytes] = []

    def add(self, marker: int, data: bytes) -> None:
        """Keep the metadata of a segment; ValueError for a marker that no metadata have."""
        if marker == APP0 and data.startswith(_JFIF_HEAD):
            self.jfif = self.jfif or _clean_jfif(data)
        elif marker == APP14 and data.startswith(_ADOBE_HEAD):
            self.adobe = data if len(data) >= _ADOBE_BYTES else self.adobe
        elif marker == APP1 and data.startswith(EXIF_HEAD):
            self.exif.append(data[len(EXIF_HEAD) :] if self.exif else data)
        elif marker == APP1 and data.startswith(XMP_HEAD):
            self.xmp = self.xmp or data[len(XMP_HEAD) :]
        elif marker == APP2 and data.startswith(ICC_HEAD):
            self.icc.append(data[len(ICC_HEAD) :])
        elif marker not in METADATA:
            raise ValueError(f"marker {marker:#x} before the first scan")


def read_leading_segments(source: bytes) -> LeadingSegments:
    """Read all segments before the first scan; one that is not allowed there is an error.

    Raises:
        ValueError, IndexError, struct.error: they are broken or cut short.
        UnsupportedImageFormat: a JPEG process that is not decoded here (lossless, 12 bits ...).
    """
    walker = SegmentWalker(source, len(SOI))
    frame: FrameHeader | None = None
    tables, metadata = list[Segment](), _Metadata()
    for segment in walker.iterate():
        if segment.marker == SOS:
            break
        if segment.marker in TABLES:
            tables.append(segment)
        elif segment.marker not in _FRAMES:
            metadata.add(segment.marker, segment.data)
        elif frame is None:
            frame = _read_frame(segment.marker, segment.data)
        else:
            raise ValueError("two frames")
    else:
        raise ValueError("no scan")
    if frame is None:
        raise ValueError("a scan without a frame")
    return LeadingSegments(
        frame=frame if frame.height_px else _with_lines_behind(frame, source, walker.at),
        jfif=metadata.jfif,
        adobe=_clean_adobe(metadata.adobe, len(frame.components)),
        exif=b"".join(metadata.exif) or None,
        xmp=metadata.xmp,
        icc=_join_profile(metadata.icc),
        tables=tuple(tables),
        scan_header=segment.data,
        scans_at=walker.at,
        segments=walker.segments,
    )


def iterate_quantisation_tables(data: bytes) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Iterate over the numbered tables of a DQT segment (T.81, B.2.4.1), in zigzag order."""
    at = 0
    while at < len(data):
        is_wide, number = data[at] >> 4, data[at] & 15
        layout = f">{_QUANTISATION_STEPS}{'H' if is_wide else 'B'}"
        yield number, struct.unpack_from(layout, data, at + 1)
        at += 1 + struct.calcsize(layout)


def make_segment(marker: int, data: bytes) -> bytes:
    """Make a whole segment: marker, length, data."""
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def _read_frame(marker: int, data: bytes) -> FrameHeader:
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
    return FrameHeader(marker, data, height_px, width_px, components)


def _with_lines_behind(frame: FrameHeader, source: bytes, at: int) -> FrameHeader:
    """Read the height behind the first scan, for a frame without it (T.81, B.2.5)."""
    found = source.find(_DNL_HEAD, at)
    lines = source[found + len(_DNL_HEAD) :][:2] if found >= 0 else b""
    if len(lines) != 2 or lines == bytes(2):
        raise ValueError("no height")
    return frame.with_size(frame.width_px, int.from_bytes(lines, "big"))


def _clean_jfif(data: bytes) -> bytes | None:
    """Give JFIF's segment a version that decoders accept; None where it is too short to count."""
    if len(data) < _JFIF_BYTES:
        return None
    return _JFIF_HEAD + _JFIF_VERSION + data[len(_JFIF_HEAD + _JFIF_VERSION) :]


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
