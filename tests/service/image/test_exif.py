"""Numbers in EXIF blocks in whatever kind a program writes them, and cameras' Adobe RGB."""

import io
import struct

import numpy as np
import pytest
from PIL import Image as PillowImage
from PIL import ImageCms

from tests.service.image.samples import chunk, picture, png, save
from upscaled.image.decode import decode_file
from upscaled.image.header import read_header
from upscaled.image.icc import ADOBE_RGB, ADOBE_RGB_CURVE, SRGB, SRGB_CURVE, make_rgb_profile
from upscaled.image.metadata import Exif

BYTE, ASCII, SHORT, LONG, SBYTE, SSHORT, SLONG = 1, 2, 3, 4, 6, 8, 9
KINDS = {BYTE: "B", SHORT: "H", LONG: "I", SBYTE: "b", SSHORT: "h", SLONG: "i"}
ORIENTATION, EXIF_DIRECTORY, INTEROPERABILITY, COLOUR_SPACE = 0x0112, 0x8769, 0xA005, 0xA001
ADOBE = make_rgb_profile(ADOBE_RGB, ADOBE_RGB_CURVE)


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
    """An EXIF block whose colour space stands in its second and third directory."""
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
    ("kind", "value"), [(SBYTE, -6), (SSHORT, -1), (SLONG, -250), (LONG, 65_542), (BYTE, 9)]
)
def test_a_senseless_orientation_of_any_kind_is_upright(kind: int, value: int) -> None:
    source = save(picture(20, 30), "JPEG", exif=oriented(">", kind, value))
    assert decode_file(source).rgb.shape == (20, 30, 3)


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
def test_nothing_else_is_adobe_rgb(exif: bytes) -> None:
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
