"""EXIF that a result keeps: every kind of value, and nothing that refers to the source's file."""

import random
import struct
from io import BytesIO

import pytest
from PIL import Image as PillowImage

from tests.service.image.camera_files import (
    ARTIST,
    GPS_WORDS,
    MAKER_NOTE,
    THUMBNAIL,
    block,
    camera_file,
    exif,
)
from tests.service.image.iso_samples import Item, build, encode_avif, irot, items_of
from tests.service.image.samples import picture, save, srgb_profile
from upscaled.image.decode import decode_file
from upscaled.image.kept_exif import MAX_EXIF_BYTES, keep_exif
from upscaled.image.metadata import Exif
from upscaled.image.types import KeptMetadata, MetadataPlan

ALL = frozenset({"JPEG", "PNG", "WEBP", "AVIF", "TIFF", "HEIC"})
WITHOUT_GPS, WITH_GPS = MetadataPlan(False, 128, 96), MetadataPlan(True, 128, 96)
ASCII, SHORT, LONG, UNDEFINED = 2, 3, 4, 7
NOTE = 0x9286


def keep(source: bytes, plan: MetadataPlan = WITHOUT_GPS) -> bytes:
    return keep_exif(Exif(source), plan, dpi=None, is_srgb=True)


def kept_of(source: bytes, plan: MetadataPlan = WITHOUT_GPS) -> KeptMetadata:
    kept = decode_file(source, ALL, plan).kept
    assert kept is not None
    return kept


def read_by_pillow(kept: bytes) -> PillowImage.Exif:
    """Read a block as Pillow does, from a file that holds it."""
    with PillowImage.open(BytesIO(save(picture(), "PNG", exif=kept))) as opened:
        return opened.getexif()


@pytest.mark.parametrize("order", ["<", ">"])
def test_what_describes_the_shot_is_kept_byte_for_byte_in_either_order(order: str) -> None:
    kept = keep(exif(6, order))
    first, details = Exif(kept), Exif(kept).directory(0x8769)
    source, source_details = Exif(exif(6, order)), Exif(exif(6, order)).directory(0x8769)
    assert first.byte_order == order
    for tag in (0x010F, 0x013B, 0x4746, 0x9C9B):
        assert first.raw(tag, 100) == source.raw(tag, 100) is not None
    for tag in (0x829A, 0x9003, NOTE, 0xA434):
        assert details.raw(tag, 100) == source_details.raw(tag, 100) is not None
    assert first.text(0x013B) == ARTIST


@pytest.mark.parametrize("order", ["<", ">"])
def test_what_refers_to_the_file_or_its_pixels_is_not_kept(order: str) -> None:
    kept = keep(exif(6, order), WITH_GPS)
    assert THUMBNAIL not in kept
    assert MAKER_NOTE not in kept
    tags = read_by_pillow(kept)
    assert not {0x0112, 0x014A, 0xC4A5, 0x0201, 0x0202} & set(tags)
    assert not {0x927C, 0x9214, 0xA005} & set(tags.get_ifd(0x8769))
    assert tags.get_ifd(1) == {}


def test_pixel_sizes_are_those_of_the_result() -> None:
    details = read_by_pillow(keep(exif(6))).get_ifd(0x8769)
    assert (details[0xA002], details[0xA003]) == (128, 96)
    sides = {tag: (SHORT, 1, struct.pack("<H", 9)) for tag in (0x0100, 0x0101)}
    first = Exif(keep(block("<", sides, {}, {})))
    assert (first.whole(0x0100), first.whole(0x0101)) == (128, 96)


def test_gps_is_kept_only_where_the_plan_has_it() -> None:
    assert GPS_WORDS[1].encode() + b"\x00" not in keep(exif())
    assert read_by_pillow(keep(exif())).get_ifd(0x8825) == {}
    place = read_by_pillow(keep(exif(), WITH_GPS)).get_ifd(0x8825)
    assert place == {1: "N", 2: (51.0, 28.0, 30.0), 29: GPS_WORDS[1]}


def test_the_resolution_is_that_of_the_result_or_none() -> None:
    kept = Exif(keep_exif(Exif(exif()), WITHOUT_GPS, dpi=(144.0, 287.97), is_srgb=True))
    assert (kept.ratio(0x011A), kept.ratio(0x011B)) == (144.0, 287.97)
    assert kept.whole(0x0128) == 2
    assert Exif(keep(exif())).ratio(0x011A) is None


@pytest.mark.parametrize(("dpi", "fits"), [(4_000_000.0, 4_000_000.0), (1 / 3, 0.333)])
def test_any_sane_resolution_can_be_written(dpi: float, fits: float) -> None:
    kept = keep_exif(Exif(exif()), WITHOUT_GPS, dpi=(dpi, dpi), is_srgb=True)
    assert Exif(kept).ratio(0x011A) == pytest.approx(fits, rel=0.01)


def test_a_result_without_a_profile_is_marked_as_srgb() -> None:
    def space(**profile: object) -> int | None:
        kept = kept_of(save(picture(), "JPEG", exif=b"Exif\0\0" + exif(), **profile))
        return Exif(kept.exif).directory(0x8769).whole(0xA001)

    assert space() == 1
    assert space(icc_profile=srgb_profile()) == 0xFFFF


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "HEIF", "TIFF", "BigTIFF"])
def test_files_of_each_format_keep_the_same(kind: str, orientation: int) -> None:
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    source = camera_file(kind, orientation)
    for plan in (WITHOUT_GPS, WITH_GPS):
        kept = Exif(kept_of(source, plan).exif)
        assert kept.text(0x010F) == "Maker"
        assert kept.directory(0x8769).text(0xA434) == "Lens 35mm"
        assert kept.directory(0x8769).whole(0xA002) == 128
        assert bool(kept.directory(0x8825).text(29)) == plan.has_gps
        assert kept.raw(0x0112, 100) is None


def avif_of(exif_item: bytes) -> bytes:
    """Make a turned AVIF file with these data as its EXIF item."""
    (image,) = items_of(encode_avif(picture(48, 64)))
    turned = image.with_properties(irot(1))
    return build([turned, Item(b"Exif", exif_item, (), {b"cdsc": [1]})])


def test_a_turned_avif_keeps_letters_that_are_not_ascii() -> None:
    for start in (bytes(4), struct.pack(">I", 6) + b"Exif\0\0"):
        source = avif_of(start + exif(6))
        image = decode_file(source, ALL, WITHOUT_GPS)
        assert (image.width_px, image.height_px) == (48, 64)
        assert image.kept is not None
        assert Exif(image.kept.exif).text(0x013B) == ARTIST


@pytest.mark.parametrize(
    "item", [bytes(3), b"\xff\xff\xff\xff" + exif(), struct.pack(">I", 5000) + exif()]
)
def test_a_broken_exif_item_of_an_avif_gives_none(item: bytes) -> None:
    assert kept_of(avif_of(item)) == KeptMetadata()


def test_nothing_is_kept_unless_requested() -> None:
    assert decode_file(camera_file("JPEG")).kept is None


def with_note(length: int) -> bytes:
    return block("<", {}, {NOTE: (UNDEFINED, length, b"n" * length)}, {})


def test_a_block_is_kept_up_to_what_a_jpeg_segment_holds_and_no_further() -> None:
    overhead = len(keep(with_note(1000))) - 1000
    largest = MAX_EXIF_BYTES - overhead - 1
    kept = keep(with_note(largest))
    assert MAX_EXIF_BYTES - 1 <= len(kept) <= MAX_EXIF_BYTES
    assert keep(with_note(largest + 2)) == b""
    data = save(picture(), "JPEG", exif=b"Exif\0\0" + kept)
    assert Exif(kept_of(data).exif).directory(0x8769).raw(NOTE, 10**6) is not None


def test_a_value_that_is_larger_than_any_block_is_left_out_alone() -> None:
    values = {NOTE: (UNDEFINED, 70_000, b"n" * 70_000), 0xA434: (ASCII, 5, b"Lens\x00")}
    details = Exif(keep(block("<", {}, values, {}))).directory(0x8769)
    assert details.raw(NOTE, 10**6) is None
    assert details.text(0xA434) == "Lens"


def test_directories_in_a_circle_end_and_give_nothing() -> None:
    to_itself = struct.pack("<HHHII", 1, 0x8769, LONG, 1, 8) + bytes(4)
    assert keep(b"II*\0\x08\0\0\0" + to_itself, WITH_GPS) == b""
    first = {0x010F: (ASCII, 6, b"Maker\x00"), 0x8825: (LONG, 1, struct.pack("<I", 8))}
    kept = keep(block("<", first, {}, {}), WITH_GPS)
    assert read_by_pillow(kept).get_ifd(0x8825) == {}


@pytest.mark.parametrize(
    "value",
    [
        (ASCII, 2**32 - 1, b"far"),
        (LONG, 2**31, b"far!"),
        (99, 4, b"kind"),
        (ASCII, 0, b""),
        (ASCII, 500, struct.pack("<I", 2**32 - 1)),
    ],
)
def test_an_impossible_value_is_dropped_and_the_others_kept(value: tuple[int, int, bytes]) -> None:
    kept = Exif(keep(block("<", {0x010F: (ASCII, 6, b"Maker\x00"), 0x0131: value}, {}, {})))
    assert kept.text(0x010F) == "Maker"
    assert kept.raw(0x0131, 10**6) is None


@pytest.mark.parametrize("source", [b"", b"Exif\0\0", b"II*\0", b"no block at all", b"\xff" * 5000])
def test_bytes_that_are_no_exif_block_are_dropped(source: bytes) -> None:
    assert keep(source, WITH_GPS) == b""


def test_a_broken_block_never_raises_and_never_grows() -> None:
    chance = random.Random(7)
    for order in "<>":
        whole = exif(6, order)
        for length in range(0, len(whole), 2):
            keep(whole[:length], WITH_GPS)
        for _ in range(1000):
            broken = bytearray(whole)
            for _ in range(4):
                broken[chance.randrange(len(broken))] = chance.randrange(256)
            kept = keep(bytes(broken), WITH_GPS)
            assert len(kept) <= MAX_EXIF_BYTES
            assert keep(kept, WITH_GPS) == kept


def test_pictures_whose_metadata_are_broken_are_decoded_all_the_same() -> None:
    source = save(picture(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff", xmp=b"<no xml")
    assert kept_of(source) == KeptMetadata()
