"""TIFF files whose strips end early or are damaged, or whose pixels are laid out unusually."""

import struct
from io import BytesIO

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL.TiffImagePlugin import IFDRational

from tests.service.image.samples import picture, save
from upscaled.decoder.pool import Decoder
from upscaled.errors import MalformedImage, UnsupportedImageFormat
from upscaled.image.decode import decode_file
from upscaled.image.formats.table import read_header

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
    """libtiff continues with white lines and prints that it does."""
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


WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR, LAB = 0, 1, 2, 3, 5, 6, 8


def tiff_of(
    data: list[bytes],
    bits: int,
    photometric: int,
    samples: int = 1,
    order: str = "<",
    /,
    **tags: tuple[int, ...],
) -> bytes:
    """Write strips of 16 rows, uncompressed; `tags` as `_NUMBER=...`, `order` as in `struct`."""
    counts = tuple(map(len, data))
    offsets = tuple(8 + sum(counts[:number]) for number in range(len(counts)))
    entries = {256: (WIDTH,), 257: (HEIGHT,), 258: (bits,) * samples, 259: (1,), 278: (16,)}
    entries |= {262: (photometric,), 277: (samples,), OFFSETS: offsets, COUNTS: counts}
    entries |= {int(name[1:]): numbers for name, numbers in tags.items()}
    at = 8 + sum(counts)
    more_at, more, table = (
        at + 2 + 12 * len(entries) + 4,
        b"",
        struct.pack(f"{order}H", len(entries)),
    )
    for tag, numbers in sorted(entries.items()):
        kind, code = (4, "I") if tag in (OFFSETS, COUNTS) else (3, "H")
        value = struct.pack(f"{order}{len(numbers)}{code}", *numbers)
        place = struct.pack(f"{order}I", more_at + len(more))
        table += struct.pack(f"{order}HHI", tag, kind, len(numbers))
        table += value.ljust(4, b"\0") if len(value) <= 4 else place
        more += value if len(value) > 4 else b""
    mark = b"II" if order == "<" else b"MM"
    return struct.pack(f"{order}2sHI", mark, 42, at) + b"".join(data) + table + bytes(4) + more


def strips(samples: NDArray[np.generic]) -> list[bytes]:
    return [samples[y : y + 16].tobytes() for y in range(0, HEIGHT, 16)]


def noise(channels: int, seed: int = 1) -> NDArray[np.uint8]:
    shape = (HEIGHT, WIDTH, channels)
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


@pytest.mark.parametrize("photometric", [WHITE_IS_ZERO, BLACK_IS_ZERO])
def test_a_bilevel_drawing_marked_planar_is_not_inverted(photometric: int) -> None:
    """With one sample a pixel PlanarConfiguration means nothing (TIFF 6.0, page 38)."""
    drawn = drawing()
    packed = strips(np.packbits(drawn == bool(photometric), axis=1))
    image = decode_file(tiff_of(packed, 1, photometric, _284=(2,)), {"TIFF"})
    assert np.array_equal(image.rgb[..., 0], drawn * np.uint8(255))


@pytest.mark.parametrize("photometric", [RGB, CMYK])
def test_planes_of_16_bits_are_read_as_such(photometric: int) -> None:
    pixels = noise(3 if photometric == RGB else 4)
    samples = pixels.shape[2]
    apart = [
        strip for plane in range(samples) for strip in strips(pixels[..., plane] * np.uint16(257))
    ]
    together = decode_file(tiff_of(strips(pixels), 8, photometric, samples), {"TIFF"})
    image = decode_file(tiff_of(apart, 16, photometric, samples, _284=(2,)), {"TIFF"})
    assert np.array_equal(image.rgb, together.rgb)


def test_uncompressed_ycbcr_of_fewer_colours_than_pixels_is_read() -> None:
    """Two by two pixels share their colour, and lie together (TIFF 6.0, page 93)."""
    shown = np.kron(picture(HEIGHT // 2, WIDTH // 2), np.ones((2, 2, 1), np.uint8))
    ycbcr = np.asarray(PillowImage.fromarray(shown).convert("YCbCr"))
    light = [ycbcr[y::2, x::2, 0] for y in (0, 1) for x in (0, 1)]
    blocks = np.dstack([*light, ycbcr[::2, ::2, 1], ycbcr[::2, ::2, 2]])
    data = [blocks[y : y + 8].tobytes() for y in range(0, HEIGHT // 2, 8)]
    image = decode_file(tiff_of(data, 8, YCBCR, 3, _530=(2, 2)), {"TIFF"})
    assert np.abs(image.rgb.astype(int) - shown).max() <= 3


def test_a_colour_map_of_8_bits_is_not_black() -> None:
    levels = noise(1)[..., 0]
    colours = [*range(256), *range(255, -1, -1), *[7] * 256]
    image = decode_file(tiff_of(strips(levels), 8, PALETTE, _320=tuple(colours)), {"TIFF"})
    assert np.array_equal(image.rgb, np.dstack([levels, 255 - levels, np.full_like(levels, 7)]))


def test_a_colour_map_of_16_bits_is_rounded_as_before() -> None:
    levels = noise(1)[..., 0]
    colours = [each * 257 for each in range(256)] * 3
    image = decode_file(tiff_of(strips(levels), 8, PALETTE, _320=tuple(colours)), {"TIFF"})
    assert np.array_equal(image.rgb, np.dstack([levels] * 3))


@pytest.mark.parametrize(
    ("photometric", "samples", "tags"),
    [
        (BLACK_IS_ZERO, 1, {"_339": (2,)}),
        (BLACK_IS_ZERO, 2, {"_284": (2,), "_338": (2,)}),
        (BLACK_IS_ZERO, 2, {"_284": (2,), "_338": (1,)}),
        (PALETTE, 2, {"_284": (2,), "_338": (2,), "_320": (0,) * 384 + (65535,) * 384}),
        (RGB, 5, {"_284": (2,), "_338": (2, 0)}),
        (LAB, 3, {"_284": (2,)}),
    ],
)
def test_pixels_whose_colours_would_be_wrong_are_an_unsupported_format(
    photometric: int, samples: int, tags: dict[str, tuple[int, ...]]
) -> None:
    """Signed numbers, and planes of grey and alpha, of more than RGB and alpha, and of Lab."""
    pixels = noise(samples)
    data = [strip for plane in range(samples) for strip in strips(pixels[..., plane])]
    with pytest.raises(UnsupportedImageFormat):
        decode_file(tiff_of(data, 8, photometric, samples, **tags), {"TIFF"})


def test_a_compression_that_is_not_decoded_is_an_unsupported_format() -> None:
    """WebP, JPEG XL and a number without a meaning; the file itself may be sound."""
    for compression in (50_001, 50_002, 32_700):
        source = tiff_of(strips(noise(3)), 8, RGB, 3, _259=(compression,))
        with pytest.raises(UnsupportedImageFormat):
            decode_file(source, {"TIFF"})


@pytest.mark.parametrize(
    "tags",
    [
        {"_254": (1,), "_330": (8,)},  # NEF, ARW, most DNG: the photo lies in a directory below
        {"_50706": (1, 4, 0, 0)},  # DNG
    ],
)
def test_a_camera_s_raw_file_is_not_answered_by_its_preview(
    tags: dict[str, tuple[int, ...]],
) -> None:
    with pytest.raises(UnsupportedImageFormat) as refused:
        read_header(tiff_of(strips(noise(3)), 8, RGB, 3, **tags), {"TIFF"})
    assert refused.value.public_text == "Unsupported image format: RAW"


def test_a_file_marked_as_canon_s_raw_is_refused() -> None:
    source = tiff_of([b"CR\2\0" + strips(noise(3))[0][4:], *strips(noise(3))[1:]], 8, RGB, 3)
    with pytest.raises(UnsupportedImageFormat):
        read_header(source, {"TIFF"})


@pytest.mark.parametrize("tags", [{"_254": (1,)}, {"_254": (0,), "_330": (8,)}, {"_254": (2,)}])
def test_a_page_or_an_image_with_smaller_ones_below_is_accepted(
    tags: dict[str, tuple[int, ...]],
) -> None:
    """Pyramids have their smaller versions below; a program may call its only image reduced."""
    pixels = noise(3)
    image = decode_file(tiff_of(strips(pixels), 8, RGB, 3, **tags), {"TIFF"})
    assert np.array_equal(image.rgb, pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_resolution_is_turned_with_the_image(orientation: int) -> None:
    """Faxes have 204 by 98 pixels an inch."""
    source = save(picture(64, 96), "TIFF", dpi=(204, 98), tiffinfo={274: orientation})
    image = decode_file(source, {"TIFF"})
    expected = (204, 98) if orientation < 5 else (98, 204)
    assert image.dpi == pytest.approx(expected)


@pytest.mark.parametrize("compression", ["raw", "tiff_deflate"])
def test_a_tag_without_meaning_is_ignored_where_no_pixel_depends_on_it(compression: str) -> None:
    """libtiff prints what it thinks of it, as it does of damage."""
    source = save(picture(64, 96), "TIFF", compression=compression, tiffinfo={274: 1, 296: 2})
    for tag, value in ((274, 0), (274, 99), (296, 9)):
        stored = struct.pack("<HHI", tag, 3, 1)
        at = source.index(stored) + len(stored)
        senseless = source[:at] + struct.pack("<H", value) + source[at + 2 :]
        with Decoder({"TIFF"}, processes=1) as decoder:
            assert np.array_equal(decoder.decode(senseless).rgb, picture(64, 96)), (tag, value)


def turned(data: list[bytes]) -> list[bytes]:
    """Put the lowest bit of each byte first."""
    table = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
    return [strip.translate(table) for strip in data]


def deep_of(samples: NDArray[np.uint8], order: str) -> NDArray[np.uint16]:
    return (samples * np.uint16(257)).astype(f"{order}u2")


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("bits", "photometric", "samples", "tags"),
    [
        (8, BLACK_IS_ZERO, 1, {}),
        (16, BLACK_IS_ZERO, 1, {}),
        (16, WHITE_IS_ZERO, 1, {}),
        (8, BLACK_IS_ZERO, 2, {"_338": (2,)}),
        (8, RGB, 3, {}),
        (8, RGB, 4, {"_338": (2,)}),
        (16, RGB, 3, {}),
        (16, RGB, 4, {"_338": (2,)}),
        (8, CMYK, 4, {}),
        (16, CMYK, 4, {}),
        (8, LAB, 3, {}),
    ],
)
def test_the_order_of_bits_and_bytes_changes_no_pixel(
    bits: int, photometric: int, samples: int, tags: dict[str, tuple[int, ...]], order: str
) -> None:
    levels = noise(samples)
    plain = decode_file(tiff_of(strips(levels), 8, photometric, samples, **tags), {"TIFF"})
    data = strips(levels if bits == 8 else deep_of(levels, order))
    for first_bit, packed in ((1, data), (2, turned(data))):
        source = tiff_of(packed, bits, photometric, samples, order, **tags, _266=(first_bit,))
        image = decode_file(source, {"TIFF"})
        assert np.array_equal(image.rgb, plain.rgb)
        assert (image.alpha is None) == (plain.alpha is None)
        if image.alpha is not None and plain.alpha is not None:
            assert np.array_equal(image.alpha, plain.alpha)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("photometric", [WHITE_IS_ZERO, BLACK_IS_ZERO])
def test_grey_of_12_bits_is_read_in_every_order(photometric: int, order: str) -> None:
    levels = noise(1)[..., 0].astype(np.uint16)
    stored = levels * 16 + levels // 16
    stored = stored if photometric else 4095 - stored
    first, second = stored[:, ::2], stored[:, 1::2]
    packed = np.dstack([first >> 4, (first & 15) << 4 | second >> 8, second & 255])
    data = strips(packed.astype(np.uint8))
    for first_bit, ordered in ((1, data), (2, turned(data))):
        source = tiff_of(ordered, 12, photometric, 1, order, _266=(first_bit,))
        assert np.array_equal(decode_file(source, {"TIFF"}).rgb[..., 0], levels)


def lab_file(lab: NDArray[np.uint8], white: tuple[int, int] | None = None) -> bytes:
    """Write CIE L*a*b*; white: x and y in ten-thousandths."""
    tags = {} if white is None else {318: tuple(IFDRational(each, 10_000) for each in white)}
    return save(PillowImage.fromarray(lab, "LAB"), "TIFF", tiffinfo=tags)


# L*, a* and b* of sRGB's red, green, blue and white by the white that they are given with, as
# CIE 15 computes them of the primaries in IEC 61966-2-1, D50 by Bradford's method.
LAB_D65 = [(53.24, 80.09, 67.20), (87.73, -86.18, 83.18), (32.30, 79.19, -107.86), (100, 0, 0)]
LAB_D50 = [(54.29, 80.81, 69.89), (87.82, -79.29, 80.99), (29.57, 68.30, -112.03), (100, 0, 0)]


@pytest.mark.parametrize(
    ("white", "colours"),
    [(None, LAB_D50), ((3457, 3585), LAB_D50), ((3127, 3290), LAB_D65), ((0, 3290), LAB_D50)],
)
def test_lab_is_read_by_the_white_that_the_file_names(
    white: tuple[int, int] | None, colours: list[tuple[float, float, float]]
) -> None:
    stored = np.rint(np.array(colours) * (2.55, 1, 1)).astype(np.int16)
    lab = np.tile(stored.astype(np.uint8), (64, 16, 1))  # a* and b* with a sign
    shown = decode_file(lab_file(lab, white), {"TIFF"}).rgb[0, :4].astype(int)
    expected = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]
    assert np.abs(shown - expected).max() <= 12, shown  # of levels that are whole numbers
