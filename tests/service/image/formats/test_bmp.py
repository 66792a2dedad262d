"""BMPs of 32 bits with alpha 0 everywhere are opaque, runs fill every pixel, profiles are kept."""

import struct
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.service.image.samples import (
    count_refused,
    decode_checked,
    have_equal_pixels,
    picture,
    save,
    srgb_profile,
)
from upscaled.errors import MalformedImage, UnsupportedImageFormat
from upscaled.image.decode import decode_file
from upscaled.image.formats.bmp import has_missing_pixels
from upscaled.image.formats.table import read_header
from upscaled.image.types import Image

MASKS = {  # where each channel stands in a pixel's four bytes
    "BGRA": (0xFF0000, 0xFF00, 0xFF, 0xFF000000),
    "RGBA": (0xFF, 0xFF00, 0xFF0000, 0xFF000000),
    "ABGR": (0xFF000000, 0xFF0000, 0xFF00, 0xFF),
    "BGAR": (0xFF000000, 0xFF00, 0xFF, 0xFF0000),
}


def bmp(pixels: NDArray[np.uint8], order: str, *, top_first: bool = False) -> bytes:
    """Make a BMP of the fourth version: 32 bits a pixel, its channels placed by masks."""
    height, width = pixels.shape[:2]
    rows = pixels if top_first else pixels[::-1]
    data = rows[..., ["RGBA".index(channel) for channel in order]].tobytes()
    start = 14 + 108
    head = struct.pack("<2sIII", b"BM", start + len(data), 0, start)
    sizes = (108, width, -height if top_first else height, 1, 32, 3, len(data), 2835, 2835, 0, 0)
    info = struct.pack("<IiiHHIIiiII", *sizes) + struct.pack("<4I", *MASKS[order]) + b" niW"
    return head + info + bytes(108 - len(info)) + data


@pytest.mark.parametrize("top_first", [False, True])
@pytest.mark.parametrize("order", sorted(MASKS))
def test_alpha_that_is_0_everywhere_is_none(order: str, top_first: bool) -> None:
    pixels = np.dstack([picture(64, 70), np.zeros((64, 70), np.uint8)])
    source = bmp(pixels, order, top_first=top_first)
    assert not read_header(source, {"BMP"}).has_alpha
    assert have_equal_pixels(decode_file(source, {"BMP"}), Image(pixels[..., :3]))


@pytest.mark.parametrize("place", [(0, 0), (63, 69), (30, 7)])
@pytest.mark.parametrize("order", sorted(MASKS))
def test_a_single_visible_pixel_makes_it_alpha(order: str, place: tuple[int, int]) -> None:
    pixels = np.dstack([picture(64, 70), np.zeros((64, 70), np.uint8)])
    pixels[(*place, 3)] = 1
    source = bmp(pixels, order)
    image = decode_checked(source, {"BMP"})
    assert have_equal_pixels(image, Image(pixels[..., :3], pixels[..., 3]))


def test_a_cut_file_with_empty_alpha_is_refused() -> None:
    source = bmp(np.zeros((64, 70, 4), np.uint8), "BGRA")
    for length in range(60, len(source), 997):
        with pytest.raises(MalformedImage):
            decode_file(source[:length], {"BMP"})


def bmp_of_16_bits(pixels: NDArray[np.uint8], alpha_mask: int = 0x8000, padding: int = 0) -> bytes:
    """Make a BMP of the fourth version: five bits a colour, and alpha in the highest bit."""
    height, width = pixels.shape[:2]
    red, green, blue, alpha = np.moveaxis(pixels.astype(np.uint16) >> (3, 3, 3, 7), -1, 0)
    packed = np.full((height, width + width % 2), padding, "<u2")  # rows end at four bytes
    packed[:, :width] = (alpha << 15 | red << 10 | green << 5 | blue)[::-1]
    start = 14 + 108
    head = struct.pack("<2sIII", b"BM", start + packed.nbytes, 0, start)
    sizes = (108, width, height, 1, 16, 3, packed.nbytes, 2835, 2835, 0, 0)
    masks = struct.pack("<4I", 0x7C00, 0x3E0, 0x1F, alpha_mask)
    info = struct.pack("<IiiHHIIiiII", *sizes) + masks + b" niW"
    return head + info + bytes(108 - len(info)) + packed.tobytes()


def test_one_bit_of_alpha_beside_five_of_each_colour_is_read() -> None:
    pixels = np.dstack([picture(64, 71), np.zeros((64, 71), np.uint8)])
    pixels[10:40, 20:50, 3] = 255
    image = decode_checked(bmp_of_16_bits(pixels), {"BMP"})
    assert image.alpha is not None
    assert np.array_equal(image.alpha, pixels[..., 3])
    assert np.abs(image.rgb.astype(int) - pixels[..., :3]).max() <= 7


@pytest.mark.parametrize(
    ("alpha", "alpha_mask", "padding"), [(0, 0x8000, 0), (0, 0x8000, 0xFFFF), (255, 0, 0)]
)
def test_a_bit_that_is_0_everywhere_or_not_called_alpha_is_none(
    alpha: int, alpha_mask: int, padding: int
) -> None:
    pixels = np.dstack([picture(64, 71), np.full((64, 71), alpha, np.uint8)])
    image = decode_checked(bmp_of_16_bits(pixels, alpha_mask, padding), {"BMP"})
    assert image.alpha is None
    assert np.abs(image.rgb.astype(int) - pixels[..., :3]).max() <= 7


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "AVIF"])
def test_alpha_of_other_formats_that_is_0_everywhere_is_kept(kind: str) -> None:
    pixels = np.dstack([picture(64, 70), np.zeros((64, 70), np.uint8)])
    options = {"WEBP": {"lossless": True, "exact": True}}.get(kind, {})
    source = save(pixels, kind, **options)
    assert decode_checked(source, {kind}).has_alpha


def test_the_file_of_the_shared_cases_is_opaque(shared_dir: Path) -> None:
    source = (shared_dir / "cases" / "bmp-empty-alpha" / "bmp_v4_alpha0.bmp").read_bytes()
    assert decode_file(source, {"BMP"}).alpha is None


def bmp_of_runs(runs: bytes, *, bits: int = 8, width: int = 4, height: int = 2) -> bytes:
    """Make a run-length coded BMP with a palette of greys."""
    colours = 1 << bits
    palette = b"".join(bytes((x, x, x, 0)) for x in np.linspace(0, 255, colours).astype(np.uint8))
    start = 54 + len(palette)
    head = struct.pack("<2sIII", b"BM", start + len(runs), 0, start)
    fields = (40, width, height, 1, bits, 1 if bits == 8 else 2, len(runs), 2835, 2835, colours, 0)
    return head + struct.pack("<IiiHHIIiiII", *fields) + palette + runs


WHOLE = (
    bytes((4, 200, 0, 0, 4, 9, 0, 1)),
    bytes((4, 200, 0, 0, 4, 9, 0, 0, 0, 1)),
    bytes((4, 200, 0, 0, 4, 9)),  # many programs write no end
    bytes((0, 3, 1, 2, 3, 0, 1, 7, 0, 0, 1, 5, 3, 5, 0, 1)),
)
IN_PART = (
    b"",
    bytes((4, 200)),
    bytes((4, 200, 0, 0)),
    bytes((4, 200, 0, 1)),
    bytes((4, 200, 0, 0, 3, 9, 0, 1)),
    bytes((3, 200, 0, 0, 4, 9, 0, 1)),
    bytes((5, 200, 0, 0, 4, 9, 0, 1)),
    bytes((4, 200, 0, 2, 0, 1, 0, 1)),
    bytes((4, 200, 0, 0, 4, 9, 0, 0, 4, 9, 0, 1)),
    bytes((4, 200, 0, 0, 0, 4, 1, 2, 3)),
)


@pytest.mark.parametrize("runs", WHOLE)
def test_runs_that_fill_the_image_are_accepted(runs: bytes) -> None:
    assert not has_missing_pixels(bmp_of_runs(runs))
    assert decode_file(bmp_of_runs(runs), {"BMP"}).rgb.shape == (2, 4, 3)


@pytest.mark.parametrize("runs", IN_PART)
def test_runs_that_leave_pixels_out_are_refused(runs: bytes) -> None:
    with pytest.raises(MalformedImage):
        decode_file(bmp_of_runs(runs), {"BMP"})


def test_runs_of_half_bytes_are_counted_in_pixels() -> None:
    whole = bytes((5, 0x12, 0, 0, 0, 5, 0x12, 0x34, 0x50, 0, 0, 1))
    assert not has_missing_pixels(bmp_of_runs(whole, bits=4, width=5))
    assert has_missing_pixels(bmp_of_runs(whole, bits=4, width=6))
    assert decode_file(bmp_of_runs(whole, bits=4, width=5), {"BMP"}).rgb.shape == (2, 5, 3)


@pytest.mark.parametrize(("bits", "width", "longest"), [(8, 70, 72), (4, 70, 72), (4, 65, 72)])
def test_runs_may_extend_to_four_bytes_behind_a_row(bits: int, width: int, longest: int) -> None:
    """As ImageMagick writes them: rows are padded before they are coded."""
    for count in (width, longest):
        rows = bytes((count, 7, 0, 0)) * 2 + b"\0\1"
        assert decode_file(bmp_of_runs(rows, bits=bits, width=width), {"BMP"}).rgb.shape == (
            2,
            width,
            3,
        )
    for count in (width - 1, longest + 1):
        rows = bytes((count, 7, 0, 0)) * 2 + b"\0\1"
        with pytest.raises(MalformedImage):
            decode_file(bmp_of_runs(rows, bits=bits, width=width), {"BMP"})


def test_every_cut_of_runs_is_refused_or_the_whole_image() -> None:
    rows = b"".join(bytes((2, at, 0, 3, at, 9, at, 0, 59, 7, 0, 0)) for at in range(64))
    source = bmp_of_runs(rows + b"\0\1", width=64, height=64)
    cut = (source[:length] for length in range(len(source)))
    assert count_refused(cut, decode_file(source, {"BMP"}), {"BMP"}) >= len(source) - 4


@pytest.mark.parametrize("compression", [4, 5, 6])
def test_a_kind_of_pixels_that_is_not_decoded_is_an_unsupported_format(compression: int) -> None:
    """A JPEG or a PNG in a BMP, and masks with alpha behind a short header."""
    source = bytearray(save(picture(64, 64), "BMP"))
    struct.pack_into("<I", source, 30, compression)
    with pytest.raises(UnsupportedImageFormat):
        read_header(bytes(source), {"BMP"})


@pytest.mark.parametrize(
    ("place", "kind", "number"),
    [(14, "<I", 66), (28, "<H", 40), (30, "<I", 77), (46, "<I", 305_402_420)],
)
def test_a_number_that_no_kind_of_bmp_has_is_malformed(place: int, kind: str, number: int) -> None:
    """Of the header's size, bits a pixel, compression, and colours of the palette."""
    source = bytearray(save(picture(64, 64)[..., 0], "BMP"))
    assert read_header(bytes(source), {"BMP"}).width_px == 64
    struct.pack_into(kind, source, place, number)
    with pytest.raises(MalformedImage):
        read_header(bytes(source), {"BMP"})


@pytest.mark.parametrize(
    ("place", "kind", "number"), [(14, "<I", 16), (28, "<H", 0), (28, "<H", 2)]
)
def test_a_header_of_a_kind_that_is_not_decoded_is_an_unsupported_format(
    place: int, kind: str, number: int
) -> None:
    """Of OS/2, of a JPEG or a PNG in a BMP, and of 2 bits a pixel."""
    source = bytearray(save(picture(64, 64), "BMP"))
    struct.pack_into(kind, source, place, number)
    with pytest.raises(UnsupportedImageFormat):
        read_header(bytes(source), {"BMP"})


def bmp_with_profile(profile: bytes, kind: bytes) -> bytes:
    """Make a BMP of the fifth version, with a profile behind its pixels."""
    data = picture(64, 64)[::-1, :, ::-1].tobytes()
    start, end = 14 + 124, 14 + 124 + len(data)
    head = struct.pack("<2sIII", b"BM", end + len(profile), 0, start)
    info = struct.pack("<IiiHHIIiiII", 124, 64, 64, 1, 24, 0, len(data), 2835, 2835, 0, 0)
    placed = bytes(16) + kind + bytes(48) + struct.pack("<IIII", 4, end - 14, len(profile), 0)
    return head + info + placed + data + profile


def test_an_embedded_profile_is_kept_byte_for_byte() -> None:
    image = decode_checked(bmp_with_profile(srgb_profile(), b"DEBM"), {"BMP"})
    assert image.icc == srgb_profile()
    assert np.array_equal(image.rgb, picture(64, 64))


@pytest.mark.parametrize(
    ("profile", "kind"),
    [
        (srgb_profile(), b" niW"),
        (srgb_profile(), b"KNIL"),
        (b"no profile", b"DEBM"),
        (b"", b"DEBM"),
    ],
)
def test_a_profile_that_is_broken_or_not_announced_is_left_out(profile: bytes, kind: bytes) -> None:
    """Windows' own sRGB, and the name of another file, which is never opened."""
    image = decode_checked(bmp_with_profile(profile, kind), {"BMP"})
    assert image.icc is None
    assert np.array_equal(image.rgb, picture(64, 64))
