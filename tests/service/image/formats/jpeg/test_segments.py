"""Segments and scans of a JPEG are found in one pass, whatever the bytes are."""

import re
import struct
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import numpy as np
import pytest
from PIL.ImageFile import MAXBLOCK

from tests.service.image.jpeg_samples import (
    EOI,
    KINDS,
    make_jpeg,
    photograph,
    read_structure,
    save_jpeg,
)
from upscaled.errors import MalformedImage, UnsupportedImageFormat
from upscaled.image.decode import decode_file
from upscaled.image.formats.jpeg import damage, scans, segments
from upscaled.image.formats.jpeg.segments import DQT, MAX_SEGMENTS, read_leading_segments
from upscaled.image.formats.table import read_header

SMALL = save_jpeg(photograph(16, 16), "grey")
FRAME_AT = SMALL.index(b"\xff\xc0")


def segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def behind_start(*parts: bytes) -> bytes:
    """Put a comment and these parts before the first segment of the small file."""
    return SMALL[:2] + segment(0xFE, b"") + b"".join(parts) + SMALL[2:]


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_joined_anew_has_the_same_pixels_and_no_metadata(kind: str) -> None:
    source = make_jpeg(kind)
    noted = source[:2] + segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0") + source[2:]
    joined = read_structure(noted).join()
    assert joined == read_structure(source).join()
    assert np.array_equal(decode_file(joined).rgb, decode_file(source).rgb)


@pytest.mark.parametrize(
    "between",
    [
        segment(0xE1, b"Exif\0\0"),
        segment(0xE2, b"ICC_PROFILE\0"),
        segment(0xE2, b"ICC_PROFILE\0\1\2half"),
        segment(0xED, b"Photoshop 3.0\x008BIM\x03\xed\0"),
        segment(0xFE, b"\xff\xd8\xff\xda\xff\xd9"),
        segment(0xE0, b"JFXX\0"),
        b"\xff" * 40,
        b"\x00\x11\x22",
        b"\xff\x00",
        b"\xff\x01",
    ],
)
def test_broken_or_foreign_metadata_does_not_change_pixels(between: bytes) -> None:
    assert np.array_equal(decode_file(behind_start(between)).rgb, decode_file(SMALL).rgb)


def test_a_profile_is_joined_by_its_numbers() -> None:
    pieces = [
        segment(0xE2, b"ICC_PROFILE\0" + bytes((at, 3)) + bytes((at,)) * 9) for at in (3, 1, 2)
    ]
    assert read_leading_segments(behind_start(*pieces)).icc == b"\1" * 9 + b"\2" * 9 + b"\3" * 9
    assert read_leading_segments(behind_start(*pieces[:2])).icc is None


def test_a_height_that_follows_the_first_scan_is_read() -> None:
    """T.81, B.2.5: the marker DNL."""
    height = SMALL[FRAME_AT + 5 : FRAME_AT + 7]
    late = SMALL[: FRAME_AT + 5] + bytes(2) + SMALL[FRAME_AT + 7 : -2] + segment(0xDC, height) + EOI
    assert read_header(late) == read_header(SMALL)
    assert np.array_equal(decode_file(late).rgb, decode_file(SMALL).rgb)
    with pytest.raises(MalformedImage):
        read_header(late.replace(b"\xff\xdc", b"\xff\xfe"))


@pytest.mark.parametrize(
    ("marker", "bits"),
    [(0xC1, 12), (0xC2, 12), (0xC3, 8), (0xC5, 8), (0xCB, 8), (0xCF, 8), (0xF7, 8)],
)
def test_a_coding_process_that_is_not_decoded_is_an_unsupported_format(
    marker: int, bits: int
) -> None:
    source = bytearray(SMALL)
    source[FRAME_AT + 1], source[FRAME_AT + 4] = marker, bits
    for read in (read_header, decode_file):
        with pytest.raises(UnsupportedImageFormat):
            read(bytes(source))


@pytest.mark.parametrize(
    ("at", "value"),
    [(4, 9), (4, 0), (7, 0), (9, 0), (9, 2), (9, 5), (11, 0x01), (11, 0x10), (11, 0x51), (3, 10)],
)
def test_a_broken_frame_is_refused(at: int, value: int) -> None:
    source = bytearray(SMALL)
    source[FRAME_AT + at] = value
    if at == 7:
        source[FRAME_AT + 8] = 0
    for read in (read_header, decode_file):
        with pytest.raises(MalformedImage):
            read(bytes(source))


def test_more_segments_than_the_limit_are_refused() -> None:
    comment = segment(0xFE, b"")
    there = len(re.findall(rb"\xff[\xc0-\xfe]", SMALL[: SMALL.index(b"\xff\xda") + 2])) - 1
    most = MAX_SEGMENTS - there - 1
    assert read_header(behind_start(comment * most)).width_px == 16
    with pytest.raises(MalformedImage, match="segments"):
        read_header(behind_start(comment * (most + 1)))


class CountingPattern:
    """Pattern that counts the bytes its searches pass."""

    def __init__(self, pattern: re.Pattern[bytes]) -> None:
        assert not set(b"+*?{") & set(pattern.pattern), "each place is to be looked at once"
        self._pattern = pattern
        self.passed = 0

    def search(self, source: bytes, at: int = 0) -> re.Match[bytes] | None:
        found = self._pattern.search(source, at)
        self.passed += (found.end() if found else len(source)) - at
        return found


def count_steps(source: bytes, monkeypatch: pytest.MonkeyPatch) -> int:
    """Count the bytes searched and the lines of Python run to read and check a file."""
    steps = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal steps
        if "formats/jpeg/" not in frame.f_code.co_filename:
            return None
        steps += event == "line"
        return trace

    patterns = []
    with monkeypatch.context() as patch:
        for module, name in ((segments, "_MARKER"), (scans, "_END_OF_DATA")):
            patterns.append(CountingPattern(getattr(module, name)))
            patch.setattr(module, name, patterns[-1])
        before = sys.gettrace()
        sys.settrace(trace)
        try:
            damage.refuse_missing_pixels(read_structure(source))
        except ValueError:
            pass
        finally:
            sys.settrace(before)
    return steps + sum(pattern.passed for pattern in patterns)


@pytest.mark.parametrize(
    "make",
    [
        lambda count: SMALL[:-2] + b"\xff" * count + b"\0" + EOI,
        lambda count: SMALL[:-2] + b"\xff" * count,
        lambda count: SMALL[:-2] + b"\xff\x00" * count + EOI,
        lambda count: SMALL[:-2] + b"\xff\xd0" * count + EOI,
        lambda count: SMALL[:-2] + b"\xff\xd0" * count + b"\0" + EOI,
        lambda count: SMALL[:-2] + bytes(count) + EOI,
        lambda count: SMALL[:-2] + segment(0xFE, b"") * (count // 20) + EOI,
        lambda count: SMALL[:2] + b"\xff" * count + SMALL[2:],
        lambda count: SMALL[:2] + b"\xff\x00" * count + SMALL[2:],
        lambda count: SMALL[:2] + segment(0xE1, b"Exif\0\0tags") * (count // 20) + SMALL[2:],
        lambda count: SMALL[:2] + segment(0xE2, b"ICC_PROFILE\0\1\1a") * (count // 20) + SMALL[2:],
        lambda count: SMALL + b"\xff\xda" * count,
    ],
)
def test_reading_takes_time_in_proportion_to_the_bytes(
    make: Callable[[int], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    few, many = (count_steps(make(count), monkeypatch) for count in (20_000, 40_000))
    assert few <= many <= 2.1 * few
    assert many <= 3 * len(make(40_000)) + 20_000


def _set_scan(source: bytes, numbers: bytes) -> bytes:
    at = source.index(b"\xff\xda")
    end = at + 2 + int.from_bytes(source[at + 2 : at + 4], "big")
    return source[: end - 3] + numbers + source[end:]


@pytest.mark.parametrize("numbers", [b"\0\0\0", b"\1\x3f\0", b"\0\x3f\x01", b"\0\x40\0"])
@pytest.mark.parametrize("kind", ["baseline", "grey", "cmyk"])
def test_coefficient_numbers_of_a_baseline_scan_are_ignored(kind: str, numbers: bytes) -> None:
    source = make_jpeg(kind)
    assert np.array_equal(decode_file(_set_scan(source, numbers)).rgb, decode_file(source).rgb)


@pytest.mark.parametrize(
    "head",
    [
        b"\xff\xe0\0\x10JFIF\0\2\1\0\0\1\0\1\0\0",
        b"\xff\xe0\0\x10JFIF\0\0\1\0\0\1\0\1\0\0",
        b"\xff\xe0\0\x07JFIF\0",
        b"\xff\xee\0\x07Adobe",
        b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\2",
        b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\x07",
    ],
)
def test_a_header_segment_that_decoders_only_warn_of_is_accepted(head: bytes) -> None:
    source = make_jpeg("baseline")
    end_of_jfif = 4 + int.from_bytes(source[4:6], "big")
    changed = source[:2] + head + source[end_of_jfif:]
    assert np.array_equal(decode_file(changed).rgb, decode_file(source).rgb)


def lengthen(source: bytes) -> bytes:
    """Repeat a quantisation table until 64 KB end midway through the file's scans."""
    structure = read_structure(source)
    joined = structure.join()
    table = next(each.data[:65] for each in structure.scans[0].tables if each.marker == DQT)
    middle = (joined.index(structure.scans[0].coded) + len(joined)) // 2
    body = table * ((MAXBLOCK - 4 - middle) // len(table))
    return source[:2] + struct.pack(">BBH", 0xFF, DQT, len(body) + 2) + body + source[2:]


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_longer_than_pillows_buffer_has_the_same_pixels(kind: str) -> None:
    source = make_jpeg(kind)
    long = lengthen(source)
    structure = read_structure(long)
    joined = structure.join()
    assert joined.index(structure.scans[0].coded) < MAXBLOCK < len(joined)
    assert np.array_equal(decode_file(long).rgb, decode_file(source).rgb)
