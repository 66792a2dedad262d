"""Resolution and credit of a file are read, and the rest of its metadata is left."""

import io
import random
import struct
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image as PillowImage
from PIL import ImageCms
from PIL.PngImagePlugin import PngInfo

from tests.service.image.samples import GREY, chunk, deep_samples, encode, picture, png, save
from upscaled.image.colour import ADOBE_RGB, ADOBE_RGB_CURVE, SRGB, SRGB_CURVE, make_rgb_profile
from upscaled.image.decode import decode_file
from upscaled.image.formats.table import read_header
from upscaled.image.metadata import Exif, write_exif
from upscaled.image.types import Credit

ARTIST, COPYRIGHT = 0x013B, 0x8298
BYTE, ASCII, SHORT, LONG, SBYTE, SSHORT, SLONG = 1, 2, 3, 4, 6, 8, 9
KINDS = {BYTE: "B", SHORT: "H", LONG: "I", SBYTE: "b", SSHORT: "h", SLONG: "i"}
ORIENTATION, EXIF_DIRECTORY, INTEROPERABILITY, COLOUR_SPACE = 0x0112, 0x8769, 0xA005, 0xA001
ADOBE = make_rgb_profile(ADOBE_RGB, ADOBE_RGB_CURVE)
SECRETS = ("Hauptstrasse 12", "51 deg 28 min", "serial 5550123", "jane@example.com")


def tagged_exif(chance: random.Random, orientation: int = 1) -> bytes:
    """Make an EXIF block as cameras write it: GPS, a serial number, a maker's note, a comment."""
    exif = PillowImage.Exif()
    exif[0x0112] = orientation
    exif[0x010E] = SECRETS[0]
    exif[ARTIST], exif[COPYRIGHT] = "Ann Example", "(c) Ann Example"
    exif[0x011A], exif[0x011B], exif[0x0128] = 300.0, 300.0, 2
    details = exif.get_ifd(0x8769)
    details[0xA431], details[0x9286] = SECRETS[2], SECRETS[3].encode()
    details[0x927C] = SECRETS[1].encode() * chance.randint(1, 40)
    place = exif.get_ifd(0x8825)
    place[1], place[2] = "N", (51.0, 28.0, float(chance.randint(0, 59)))
    place[29] = "2026:11:22"
    return exif.tobytes()


def tagged_file(number: int) -> bytes:
    """Make one of fifty files with all metadata that cameras and programs leave in them."""
    chance = random.Random(number)
    kind = ("JPEG", "PNG", "WEBP")[number % 3]
    channels = 4 if number % 2 and kind != "JPEG" else 3
    xmp = f"<x:xmpmeta><gps>{SECRETS[1]}</gps><dc>{SECRETS[3]}</dc></x:xmpmeta>".encode()
    options: dict[str, object] = {"exif": tagged_exif(chance, number % 8 + 1), "xmp": xmp}
    if kind == "JPEG":
        options["comment"] = SECRETS[number % 4]
        options["progressive"] = chance.random() < 0.5
    if kind == "PNG":
        texts = PngInfo()
        texts.add_text("Comment", SECRETS[0], zip=chance.random() < 0.5)
        texts.add_itxt("XML:com.adobe.xmp", xmp.decode())
        options["pnginfo"] = texts
    source = save(picture(64, 80, channels), kind, **options)
    if kind == "JPEG":  # Photoshop's block, with a caption and a thumbnail
        block = b"Photoshop 3.0\x008BIM\x04\x04\x00\x00" + SECRETS[0].encode()
        source = source[:2] + b"\xff\xed" + struct.pack(">H", len(block) + 2) + block + source[2:]
    return source


@pytest.mark.parametrize("is_kept", [False, True])
def test_only_resolution_and_credit_of_fifty_tagged_files_reach_the_result(is_kept: bool) -> None:
    for number in range(50):
        source = tagged_file(number)
        assert any(secret.encode() in source for secret in SECRETS), number
        image = decode_file(source)
        assert image.dpi == pytest.approx((300, 300)), number
        assert image.credit == Credit("Ann Example", "(c) Ann Example"), number
        data = encode(image if is_kept else replace(image, credit=None), jpeg_quality=90)
        for word in (*SECRETS, "xmpmeta", "8BIM", "2026:11:22", "GPS"):
            assert word.encode() not in data, (number, word)
        assert (b"Ann Example" in data) == is_kept, number
        assert (b"Exif" in data or b"eXIf" in data) == is_kept, number
        again = decode_file(data)
        assert again.dpi == pytest.approx((300, 300), abs=0.02), number
        assert (again.credit == image.credit) == is_kept, number


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_the_formats_own_resolution_counts_before_exifs(kind: str) -> None:
    exif = PillowImage.Exif()
    exif[0x011A], exif[0x011B], exif[0x0128] = 72.0, 72.0, 2
    assert decode_file(save(picture(), kind, dpi=(240, 240), exif=exif)).dpi == pytest.approx(
        (240, 240), abs=0.02
    )


@pytest.mark.parametrize(("unit", "dpi"), [(2, (72.0, 36.0)), (3, (182.88, 91.44)), (1, None)])
def test_exifs_resolution_is_in_inches_or_centimetres(
    unit: int, dpi: tuple[float, float] | None
) -> None:
    exif = PillowImage.Exif()
    exif[0x011A], exif[0x011B], exif[0x0128] = 72.0, 36.0, unit
    found = decode_file(save(picture(), "WEBP", exif=exif.tobytes())).dpi
    assert found == (None if dpi is None else pytest.approx(dpi))


def test_turning_upright_turns_the_resolution() -> None:
    exif = PillowImage.Exif()
    exif[0x0112] = 6
    assert decode_file(save(picture(), "JPEG", dpi=(300, 150), exif=exif)).dpi == (150, 300)


@pytest.mark.parametrize("per_m", [(0, 0), (0, 3000), (2**32 - 1, 2**32 - 1)])
def test_a_senseless_resolution_is_none(per_m: tuple[int, int]) -> None:
    phys = chunk(b"pHYs", struct.pack(">IIB", *per_m, 1))
    assert decode_file(png(deep_samples(1, 8), 8, GREY, before=phys)).dpi is None


def test_a_file_without_metadata_has_neither_resolution_nor_credit() -> None:
    image = decode_file(save(picture(), "PNG"))
    assert (image.dpi, image.credit) == (None, None)


@pytest.mark.parametrize("text", ["a", "abc", "abcd", "Ann", "Ünï ©", "x" * 4000])
def test_texts_are_read_back_as_they_were_written(text: str) -> None:
    exif = Exif(write_exif(Credit(artist=text, copyright=text[::-1])))
    assert exif.text(ARTIST) == text
    assert exif.text(COPYRIGHT) == text[::-1]


def test_a_broken_block_never_raises() -> None:
    chance = random.Random(1)
    for whole in (tagged_exif(random.Random(0)), oriented("<", SHORT), big_tiff()):
        for length in range(0, len(whole), 3):
            read_all(Exif(whole[:length]))
        for _ in range(1500):
            broken = bytearray(whole)
            for _ in range(4):
                broken[chance.randrange(min(160, len(broken)))] = chance.randrange(256)
            read_all(Exif(bytes(broken)))
    read_all(Exif(b"II*\x00\xff\xff\xff\xff" + bytes(20)))


def big_tiff(orientation: int = 1) -> bytes:
    """Make a BigTIFF file with all that is read of one."""
    credit = {ARTIST: "Ann Example", COPYRIGHT: "(c)", ORIENTATION: orientation}
    options = {"tiffinfo": credit, "dpi": (204, 98), "big_tiff": True}
    return save(picture(20, 30), "TIFF", **options)


@pytest.mark.parametrize("orientation", [1, 6])
def test_resolution_and_credit_of_a_bigtiff_are_read(orientation: int) -> None:
    """Its offsets and the room for values in its entries are twice as long."""
    source = big_tiff(orientation)
    assert source.startswith(b"II+\0")
    image = decode_file(source, {"TIFF"})
    assert image.credit == Credit(artist="Ann Example", copyright="(c)")
    assert image.dpi == pytest.approx((204, 98) if orientation == 1 else (98, 204))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("kind", "code"), [(LONG, "I"), (13, "I"), (16, "Q"), (18, "Q")])
def test_a_bigtiff_may_refer_to_a_directory_in_any_whole_kind(
    kind: int, code: str, order: str
) -> None:
    def write(tag: int, kind: int, value: bytes) -> bytes:
        entry = struct.pack(f"{order}HHQ", tag, kind, 1) + value.ljust(8, b"\0")
        return struct.pack(f"{order}Q", 1) + entry + bytes(8)

    for at, expected in ((52, 7), (2**32 - 1 if code == "I" else 2**64 - 1, None)):
        head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HHHQ", 43, 8, 0, 16)
        first = write(EXIF_DIRECTORY, kind, struct.pack(f"{order}{code}", at))
        second = write(COLOUR_SPACE, SHORT, struct.pack(f"{order}H", 7))
        source = head + first + second
        assert Exif(source).directory(EXIF_DIRECTORY).whole(COLOUR_SPACE) == expected


def read_all(exif: Exif) -> None:
    assert 1 <= exif.orientation <= 8
    for tag in (0x0112, 0x011A, 0x0128, ARTIST, COPYRIGHT):
        exif.whole(tag)
        exif.ratio(tag)
        exif.text(tag)


# Numbers in whatever kind a program writes them, and the Adobe RGB of cameras.


def entry(order: str, tag: int, kind: int, value: bytes, count: int = 1) -> bytes:
    return struct.pack(f"{order}HHI", tag, kind, count) + value.ljust(4, b"\0")


def number(order: str, tag: int, kind: int, value: int) -> bytes:
    return entry(order, tag, kind, struct.pack(f"{order}{KINDS[kind]}", value))


def directory(order: str, *entries: bytes) -> bytes:
    return struct.pack(f"{order}H", len(entries)) + b"".join(entries) + bytes(4)


def block(order: str, first: bytes, *others: bytes) -> bytes:
    start = b"II*\0" if order == "<" else b"MM\0*"
    return b"Exif\0\0" + start + struct.pack(f"{order}I", 8) + first + b"".join(others)


def oriented(order: str, kind: int, value: int = 6) -> bytes:
    return block(order, directory(order, number(order, ORIENTATION, kind, value)))


def camera(
    order: str = "<", index: bytes = b"R03\0", space: int = 0xFFFF, kind: int = SHORT
) -> bytes:
    """Make an EXIF block whose colour space stands in its second and third directory."""
    second, third = 8 + 18, 8 + 18 + 30
    return block(
        order,
        directory(order, number(order, EXIF_DIRECTORY, LONG, second)),
        directory(
            order,
            number(order, COLOUR_SPACE, kind, space),
            number(order, INTEROPERABILITY, LONG, third),
        ),
        directory(order, entry(order, 1, ASCII, index, len(index))),
    )


def in_png(exif: bytes) -> bytes:
    rows = np.asarray(picture(20, 30), np.uint16)
    return png(rows, 8, 2, before=chunk(b"eXIf", exif.removeprefix(b"Exif\0\0")))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_an_orientation_of_any_whole_kind_is_applied(kind: int, order: str) -> None:
    exif = oriented(order, kind)
    files = [save(picture(20, 30), each, exif=exif) for each in ("JPEG", "WEBP")]
    for source in (*files, in_png(exif)):
        assert (read_header(source).width_px, read_header(source).height_px) == (20, 30)
        assert decode_file(source).rgb.shape == (30, 20, 3)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        *((SBYTE, -6), (SSHORT, -1), (SLONG, -250), (LONG, 65_542), (BYTE, 9)),
        *((SHORT, 0), (SHORT, 9), (SHORT, 65_535)),
    ],
)
def test_a_senseless_orientation_of_any_kind_is_upright(kind: int, value: int) -> None:
    source = save(picture(20, 30), "JPEG", exif=oriented(">", kind, value))
    assert decode_file(source).rgb.shape == (20, 30, 3)


@pytest.mark.parametrize("order", ["<", ">"])
def test_an_orientation_is_read_with_and_without_prefix_and_not_from_text(order: str) -> None:
    for orientation in range(1, 9):
        exif = oriented(order, SHORT, orientation)
        assert Exif(exif).orientation == orientation
        assert Exif(exif.removeprefix(b"Exif\0\0")).orientation == orientation
    text = block(order, directory(order, entry(order, ORIENTATION, ASCII, b"6")))
    assert Exif(text).orientation == 1


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_a_cameras_adobe_rgb_becomes_a_profile(order: str, kind: str) -> None:
    source = save(picture(), kind, exif=camera(order))
    image = decode_file(source)
    assert image.icc == ADOBE
    with PillowImage.open(io.BytesIO(source)) as opened:
        assert np.array_equal(image.rgb, np.asarray(opened.convert("RGB")))


@pytest.mark.parametrize(
    "exif",
    [
        camera(index=b"R98\0"),
        camera(index=b"R03x"),
        camera(index=b""),
        camera(space=1),
        camera(space=2),
        camera()[:-20],
        b"",
    ],
)
def test_other_colour_spaces_are_not_mistaken_for_adobe_rgb(exif: bytes) -> None:
    assert not Exif(exif).is_adobe_rgb
    assert decode_file(save(picture(), "JPEG", exif=exif)).icc is None


def test_a_colour_space_written_as_a_long_counts_as_well() -> None:
    assert Exif(camera(kind=LONG)).is_adobe_rgb


def test_an_embedded_profile_counts_before_a_cameras_colour_space() -> None:
    own = make_rgb_profile(SRGB, SRGB_CURVE)
    source = save(picture(), "JPEG", exif=camera(), icc_profile=own)
    assert decode_file(source).icc == own


def test_the_profile_maps_adobe_rgbs_green_out_of_srgb() -> None:
    """Adobe RGB (1998), 4.3.1: its primaries of red and blue are sRGB's, its green is not."""
    profile = ImageCms.ImageCmsProfile(io.BytesIO(ADOBE))
    there = ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), "RGB", "RGB")

    def shown(*colour: int) -> tuple[int, ...]:
        pixel = PillowImage.new("RGB", (1, 1), colour)
        converted = ImageCms.applyTransform(pixel, there)
        assert converted is not None
        value = converted.getpixel((0, 0))
        assert isinstance(value, tuple)
        return value

    assert shown(255, 255, 255) == (255, 255, 255)
    assert shown(128, 128, 128) == pytest.approx((128, 128, 128), abs=1)
    assert shown(0, 255, 0)[:2] == (0, 255)
    assert shown(100, 150, 100)[0] < 75


def test_directories_that_refer_to_one_another_end() -> None:
    order = "<"
    looped = block(order, directory(order, number(order, EXIF_DIRECTORY, LONG, 8)))
    assert not Exif(looped).is_adobe_rgb


def test_no_more_entries_are_read_than_the_block_holds() -> None:
    order = "<"
    for count in (100, 200):
        entries = [number(order, tag, SHORT, 1) for tag in range(count)]
        exif = block(order, struct.pack("<H", 65_535) + b"".join(entries))
        assert len(Exif(exif)._entries) == count
