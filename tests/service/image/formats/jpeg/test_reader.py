import struct
from contextlib import suppress
from threading import Thread

import cv2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.service.image.jpeg_samples import KINDS, make_jpeg, photograph, save_jpeg
from upscaled.errors import MalformedImage, UnsupportedImageFormat
from upscaled.image.decode import decode_file
from upscaled.image.formats.jpeg import damage, reader
from upscaled.image.formats.jpeg.reader import find_quality
from upscaled.image.formats.jpeg.reader import read_quality as quality_of
from upscaled.image.formats.jpeg.scans import Structure
from upscaled.image.formats.jpeg.segments import read_leading_segments

PRESETS_FALLING = ["maximum", "high", "medium", "low"]
"""Photoshop's tables, as Pillow has them."""


def read_quality(source: bytes) -> int:
    return quality_of(read_leading_segments(source))


@pytest.mark.parametrize("kind", ["baseline", "progressive", "grey", "cmyk", "4:4:4"])
def test_each_quality_of_libjpeg_is_read_back(kind: str) -> None:
    for quality in (1, 2, 10, 24, 25, 49, 50, 51, 75, 90, 95, 96, 97, 98, 99, 100):
        assert read_quality(save_jpeg(photograph(16, 24), kind, quality=quality)) == quality


def test_qualities_written_by_opencv_are_read_back() -> None:
    for quality in range(1, 101):
        done, coded = cv2.imencode(".jpg", photograph(16, 24), [cv2.IMWRITE_JPEG_QUALITY, quality])
        assert done
        assert read_quality(coded.tobytes()) == quality


def test_tables_of_another_encoder_have_the_quality_of_their_mean_step() -> None:
    read = [read_quality(save_jpeg(photograph(16, 24), quality=name)) for name in PRESETS_FALLING]
    assert read == sorted(read, reverse=True)
    assert len(set(read)) == len(read)
    assert all(80 <= quality <= 97 for quality in read)


def test_a_flat_table_has_the_quality_of_its_step() -> None:
    """libjpeg's steps are 57.6 on average at quality 50, and in proportion above."""
    for step, quality in ((1, 100), (6, 95), (12, 90), (29, 75), (58, 50)):
        flat = [[step] * 64] * 2
        assert abs(read_quality(save_jpeg(photograph(16, 24), qtables=flat)) - quality) <= 1


def test_tables_of_16_bits_are_read() -> None:
    """Such come with 12-bit pictures only, but a file may have them all the same."""
    coded = save_jpeg(photograph(16, 24), "grey", quality=75)
    at = coded.index(b"\xff\xdb")
    table = coded[at + 5 : at + 69]
    wide = struct.pack(">BBHB64H", 0xFF, 0xDB, 131, 0x10, *table)
    assert read_quality(coded[:at] + wide + coded[at + 69 :]) == 75


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_has_a_quality(kind: str) -> None:
    assert 1 <= read_quality(make_jpeg(kind)) <= 100


def test_a_file_without_the_table_its_frame_names_is_refused() -> None:
    coded = bytearray(save_jpeg(photograph(16, 24), "grey"))
    coded[coded.index(b"\xff\xdb") + 4] = 3
    with pytest.raises(ValueError, match="no quantisation table 0"):
        read_quality(bytes(coded))


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_damaged_table_raises_documented_errors_only(data: st.DataObject) -> None:
    coded = bytearray(
        save_jpeg(photograph(16, 24), data.draw(st.sampled_from(["baseline", "grey"])))
    )
    for _ in range(data.draw(st.integers(1, 4))):
        coded[data.draw(st.integers(2, 250))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(2, len(coded)))
    with suppress(ValueError, IndexError, struct.error, UnsupportedImageFormat):
        assert 1 <= read_quality(bytes(coded[:cut])) <= 100


@settings(max_examples=20)
@given(st.lists(st.integers(0, 65_535), min_size=64, max_size=64))
def test_any_table_has_a_quality(table: list[int]) -> None:
    quality = find_quality(tuple(table))
    assert 1 <= quality <= 100
    assert find_quality(tuple(step + 10 for step in table)) <= quality


def test_damage_is_reported_where_the_decoder_fails_as_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def find(_structure: Structure) -> None:
        raise ValueError("damage")

    def fail(_source: bytes) -> None:
        raise OSError("decoder")

    monkeypatch.setattr(damage, "refuse_missing_pixels", find)
    monkeypatch.setattr(reader, "open_jpeg", fail)
    source = save_jpeg(photograph(16, 24))

    with pytest.raises(ValueError, match=r"^damage$"):
        reader.open_stored(source, reader.read_header(source))


def test_a_file_is_read_and_checked_where_no_thread_can_be_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_thread: Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(Thread, "start", refuse)
    source = save_jpeg(photograph())
    assert decode_file(source).width_px == photograph().shape[1]
    with pytest.raises(MalformedImage):
        decode_file(source[: len(source) // 2])
