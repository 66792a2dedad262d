"""Data of AVIF and HEIC images are found, and damage at their ends is recognised."""

import struct
from dataclasses import replace

import numpy as np
import pytest

from tests.service.image.iso_samples import (
    BRANDS,
    Item,
    build,
    encode,
    encode_heic,
    grid,
    items_of,
    mdat_at,
)
from tests.service.image.samples import picture
from upscaled.errors import MalformedImage
from upscaled.image.decode import decode_file
from upscaled.image.formats.isobmff.boxes import read_meta
from upscaled.image.formats.isobmff.items import is_damaged as is_damaged_by
from upscaled.image.formats.isobmff.items import iter_coded

pytest.importorskip("pillow_heif", reason="HEIC needs pillow-heif")


def is_damaged(source: bytes) -> bool:
    return is_damaged_by(source, read_meta(source))


def with_zeros(item: Item, count: int) -> Item:
    return Item(item.kind, item.data[:-count] + bytes(count), item.properties, item.refers_to)


@pytest.mark.parametrize("idat", [False, True])
@pytest.mark.parametrize("kind", sorted(BRANDS))
def test_colour_and_alpha_are_found_wherever_they_lie(kind: str, idat: bool) -> None:
    items = items_of(encode(kind, picture(64, 96, 4)))
    source = build(items, brand=BRANDS[kind], idat=idat)
    found = [b"".join(coded.extents) for coded in iter_coded(source, read_meta(source))]
    assert found == [item.data for item in items]


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("kind", sorted(BRANDS))
def test_a_run_of_zeros_at_the_end_of_colour_or_alpha_is_damage(kind: str, which: int) -> None:
    items = items_of(encode(kind, picture(64, 96, 4)))
    whole = build(items, brand=BRANDS[kind])
    assert not is_damaged(whole)
    limit = max(4, min(16, len(items[which].data) // 8))
    for count, counts in ((limit - 1, False), (limit, True), (limit + 30, True)):
        broken = [with_zeros(item, count) if at == which else item for at, item in enumerate(items)]
        source = build(broken, brand=BRANDS[kind])
        assert is_damaged(source) is counts, count
        if counts:
            with pytest.raises(MalformedImage):
                decode_file(source, BRANDS)


def test_pieces_of_an_image_are_read_in_their_order() -> None:
    """The last piece may be shorter than the run that counts."""
    (item,) = items_of(encode("AVIF", picture(64, 96)))
    for tail, counts in ((bytes(15), False), (bytes(40), True)):
        data = item.data + b"\x01" + tail
        source = split(build([Item(item.kind, data, item.properties)]), len(data) - 7)
        (coded,) = iter_coded(source, read_meta(source))
        first, second = coded.extents
        assert bytes(first) + bytes(second) == data
        assert len(second) == 7
        assert is_damaged(source) is counts


def split(source: bytes, at: int) -> bytes:
    """Part the only item of a file into two pieces."""
    place = source.index(b"iloc") + 4 + 4 + 4 + 2 + 2 + 2
    _, start, length = struct.unpack_from(">HII", source, place)
    more = struct.pack(">HIIII", 2, start + 8, at, start + 8 + at, length - at)
    longer = bytearray(source[:place] + more + source[place + 10 :])
    for name in (b"iloc", b"meta"):
        box_at = longer.index(name) - 4
        box_bytes = int.from_bytes(longer[box_at : box_at + 4], "big") + 8
        longer[box_at : box_at + 4] = box_bytes.to_bytes(4, "big")
    return bytes(longer)


@pytest.mark.parametrize("kind", sorted(BRANDS))
def test_images_of_one_colour_are_not_mistaken_for_damaged(kind: str) -> None:
    for height, width in ((64, 64), (65, 127), (300, 500)):
        for level in (0, 128, 255):
            pixels = np.full((height, width, 4), level, np.uint8)
            source = encode(kind, pixels)
            assert decode_file(source, BRANDS).rgb.shape == (height, width, 3)


@pytest.mark.parametrize("kind", sorted(BRANDS))
def test_data_beyond_the_end_of_the_file_are_refused(kind: str) -> None:
    source = encode(kind, picture(64, 96))
    assert mdat_at(source) < len(source) - 50
    with pytest.raises(ValueError, match="bytes at"):
        is_damaged(source[:-1])
    with pytest.raises(MalformedImage):
        decode_file(source[:-1], BRANDS)


def test_a_list_of_items_that_is_cut_short_is_refused() -> None:
    source = build(items_of(encode("AVIF", picture(64, 96))))
    at = source.index(b"iloc") - 4
    longer = bytearray(source)
    longer[at + 4 + 4 + 4 + 2 : at + 4 + 4 + 4 + 4] = b"\xff\xff"  # so many items
    with pytest.raises(ValueError, match="short"):
        is_damaged(bytes(longer))


def test_a_tile_that_libheif_would_leave_out_is_damage() -> None:
    items = items_of(encode_heic(picture(128, 192), tile_size=64))
    whole = build(items, brand=b"heic")
    assert len(items) == 7
    assert decode_file(whole, BRANDS).rgb.shape == (128, 192, 3)
    tile = items[3]
    (length,) = struct.unpack_from(">I", tile.data)
    other_tiles = (
        tile.data[:-5],
        tile.data[:2],
        tile.data + b"\x00\x00\x00\x09\x01",
        tile.data + bytes(3),
        struct.pack(">I", length + 1) + tile.data[4:],
        bytes(4) + tile.data,
    )
    for data in other_tiles:
        source = build([*items[:3], replace(tile, data=data), *items[4:]], brand=b"heic")
        assert is_damaged(source), data[-8:]
        with pytest.raises(MalformedImage):
            decode_file(source, BRANDS)


def test_a_tile_without_data_is_malformed() -> None:
    for item in (encode("AVIF", picture(64, 96)), encode("HEIC", picture(64, 96))):
        (tile,) = items_of(item)
        source = build([grid(1, 2, 192, 64, 2, 3), tile], brand=item[8:12])
        with pytest.raises(MalformedImage):
            decode_file(source, BRANDS)


def test_an_item_larger_than_its_file_is_refused() -> None:
    """Pieces may overlap: 20,000 times the whole file would be joined."""
    source = bytearray(split(build(items_of(encode("AVIF", picture(64, 96)))), 10))
    at = source.index(b"iloc") + 4 + 4 + 4 + 2 + 2 + 2 + 2
    source[at : at + 16] = struct.pack(">IIII", 0, len(source), 0, len(source))
    with pytest.raises(ValueError, match="larger than the file"):
        is_damaged(bytes(source))
