"""Strips of TIFF files that end early or are damaged, which libtiff would paint over silently."""

import struct
from io import BytesIO

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as PillowImage

from tests.service.image.samples import picture, save
from upscaled.decoder.pool import Decoder
from upscaled.errors import MalformedImage
from upscaled.image.decode import decode_file

OFFSETS, COUNTS = 273, 279
WIDTH, HEIGHT = 70, 64
FAX = ("group3", "group4", "tiff_ccitt")


def drawing() -> NDArray[np.bool_]:
    """Draw slanted bars, each row another."""
    rows, columns = np.indices((HEIGHT, WIDTH))
    return np.asarray((rows * 3 + columns * 2) // 17 % 3 == 0)


def save_tiff(compression: str, **tags: object) -> bytes:
    pixels = np.tile(picture(64, 64), (4, 4, 1)) if compression == "jpeg" else drawing()
    return save(pixels, "TIFF", compression=compression, **tags)


def shorten_strips(source: bytes, part: float) -> bytes:
    """Change a directory to state fewer bytes in each strip; no byte is missing."""
    data = bytearray(source)
    (at,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, at)
    for entry in range(at + 2, at + 2 + 12 * entries, 12):
        tag, kind, count = struct.unpack_from("<HHI", data, entry)
        if tag == COUNTS:
            code = {3: "H", 4: "I"}[kind]
            place = entry + 8
            if count * struct.calcsize(code) > 4:
                (place,) = struct.unpack_from("<I", data, place)
            lengths = struct.unpack_from(f"<{count}{code}", data, place)
            struct.pack_into(f"<{count}{code}", data, place, *(int(part * x) for x in lengths))
    return bytes(data)


@pytest.mark.parametrize("part", [0.1, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("compression", [*FAX, "jpeg"])
def test_a_strip_that_ends_early_is_refused(compression: str, part: float) -> None:
    source = save_tiff(compression)
    decode_file(source, {"TIFF"})
    with pytest.raises(MalformedImage):
        decode_file(shorten_strips(source, part), {"TIFF"})


@pytest.mark.parametrize("options", [0, 1, 4, 5])
def test_fax_of_every_kind_is_read_whole(options: int) -> None:
    """292 is T4Options: in two dimensions, and with lines that begin at whole bytes."""
    source = save_tiff("group3", tiffinfo={292: options})
    shown = decode_file(source, {"TIFF"}).rgb[..., 0] > 0
    assert np.array_equal(shown, drawing())
    with pytest.raises(MalformedImage):
        decode_file(shorten_strips(source, 0.8), {"TIFF"})


@pytest.mark.parametrize("compression", FAX)
def test_fax_with_its_low_bits_first_is_read_whole(compression: str) -> None:
    source = save_tiff(compression, tiffinfo={266: 2})
    assert np.array_equal(decode_file(source, {"TIFF"}).rgb[..., 0] > 0, drawing())


def test_zeros_within_fax_are_damage() -> None:
    """libtiff takes them for the end and leaves the rest white."""
    source = bytearray(save_tiff("group4"))
    source[60:62] = bytes(2)
    with pytest.raises(MalformedImage):
        decode_file(bytes(source), {"TIFF"})


def test_fax_that_turns_to_garbage_on_the_way_is_refused() -> None:
    """libtiff goes on with white lines and prints that it does."""
    source = save_tiff("group4")
    broken = bytearray(source)
    broken[60:62] = b"\x02\x02"
    assert not np.array_equal(decode_file(bytes(broken), {"TIFF"}).rgb[..., 0] > 0, drawing())
    with Decoder({"TIFF"}, processes=1) as decoder:
        with pytest.raises(MalformedImage) as refusal:
            decoder.decode(bytes(broken))
        assert "Fax4Decode" in refusal.value.detail
        assert np.array_equal(decoder.decode(source).rgb[..., 0] > 0, drawing())
        assert decoder.deaths == 0


def strips_of(source: bytes) -> list[tuple[int, int]]:
    """List where each strip begins and ends."""
    with PillowImage.open(BytesIO(source)) as file:
        tags = getattr(file, "tag_v2", {})
        return [(at, at + count) for at, count in zip(tags[OFFSETS], tags[COUNTS], strict=True)]


@pytest.mark.parametrize("number", [0, -1])
def test_a_strip_of_deflate_whose_tail_is_damaged_is_refused(number: int) -> None:
    """libtiff takes what fills the rows, and does not look at the checksum."""
    chance = np.random.default_rng(3)
    pixels = chance.integers(0, 256, (160, 300, 3), dtype=np.uint8)
    source = save(pixels, "TIFF", compression="tiff_adobe_deflate")
    assert np.array_equal(decode_file(source, {"TIFF"}).rgb, pixels)
    start, end = strips_of(source)[number]
    for part in range(1, 21):
        at = start + (end - start) * part // 21
        for tail in (bytes(end - at), chance.bytes(end - at)):
            with pytest.raises(MalformedImage):
                decode_file(source[:at] + tail + source[end:], {"TIFF"})


def test_deflate_of_every_size_is_accepted() -> None:
    for height, width in ((1, 1), (64, 64), (1500, 1500)):
        pixels = np.full((height, width, 3), 200, np.uint8)
        source = save(pixels, "TIFF", compression="tiff_adobe_deflate")
        assert np.array_equal(decode_file(source, {"TIFF"}).rgb, pixels)
