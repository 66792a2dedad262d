"""PNGs with every ancillary chunk broken in every way: taken, with what is sound of them."""

import struct
import tracemalloc
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.service.image.samples import (
    GREY,
    GREY_ALPHA,
    PALETTE,
    PNG_SIGNATURE,
    RGB,
    RGBA,
    chunk,
    decode_checked,
    deep_samples,
    encode,
    exif_with_orientation,
    have_equal_pixels,
    png,
)
from upscaled.decoder.pool import Decoder
from upscaled.errors import MalformedImage, UnsupportedImageFormat
from upscaled.image.colour import DISPLAY_P3, MAX_PROFILE_BYTES, SRGB_CURVE, make_rgb_profile
from upscaled.image.decode import decode_file
from upscaled.image.formats.png.structure import MAX_CHUNKS, read_png_parts
from upscaled.image.formats.table import read_header
from upscaled.image.types import Image

P3 = make_rgb_profile(DISPLAY_P3, SRGB_CURVE)
SAMPLES = deep_samples(3, 8)
HUGE = np.random.default_rng(3).bytes(2_000_000)
EXIF = exif_with_orientation(6).removeprefix(b"Exif\x00\x00")
# Every ancillary chunk of the third edition and of the registered extensions, with sound data.
ANCILLARY = {
    b"acTL": struct.pack(">II", 1, 0),
    b"bKGD": bytes(6),
    b"caBX": b"jumb" * 9,
    b"cHRM": struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000),
    b"cICP": bytes((12, 13, 0, 1)),
    b"cLLI": struct.pack(">II", 10_000_000, 2_000_000),
    b"dSIG": b"signature",
    b"eXIf": EXIF,
    b"fcTL": struct.pack(">IIIIIHHBB", 0, 30, 20, 0, 0, 1, 10, 0, 0),
    b"gAMA": (100_000).to_bytes(4, "big"),
    b"gIFg": bytes(4),
    b"gIFx": b"NETSCAPE2.0\x01\x00\x00",
    b"hIST": bytes(32),
    b"iCCP": b"P3\x00\x00" + zlib.compress(P3),
    b"iTXt": b"Title\x00\x01\x00en\x00Title\x00" + zlib.compress(b"words" * 40),
    b"mDCV": bytes(24),
    b"oFFs": struct.pack(">iiB", 1, 2, 0),
    b"pCAL": b"scale\x00" + struct.pack(">iiBB", 0, 255, 0, 2) + b"m\x000\x001",
    b"pHYs": struct.pack(">IIB", 11811, 11811, 1),
    b"sBIT": b"\x08\x08\x08",
    b"sCAL": b"\x010.1\x000.1",
    b"sPLT": b"few\x00\x08" + bytes(6 * 4),
    b"sRGB": b"\x00",
    b"sTER": b"\x01",
    b"tEXt": b"Author\x00Ann",
    b"tIME": struct.pack(">HBBBBB", 2026, 11, 27, 12, 0, 0),
    b"tRNS": struct.pack(">3H", *SAMPLES[3, 4]),
    b"zTXt": b"Comment\x00\x00" + zlib.compress(b"words" * 40),
    b"juNK": b"of no program",
    b"juNk": b"of no program",
}
DAMAGE: dict[str, Callable[[bytes, bytes], bytes]] = {
    "wrong checksum": lambda name, data: chunk(name, data)[:-1] + b"\x00",
    "no checksum at all": lambda name, data: chunk(name, data)[:-4] + bytes(4),
    "empty": lambda name, data: chunk(name, b""),
    "short": lambda name, data: chunk(name, data[: len(data) // 2]),
    "huge": lambda name, data: chunk(name, data + HUGE),
    "nonsense": lambda name, data: chunk(name, HUGE[: len(data)]),
}


@dataclass(frozen=True)
class Said:
    """Properties of the pixels that ancillary chunks have set."""

    icc: bytes | None
    has_alpha: bool
    dpi: tuple[float, float] | None
    is_turned: bool


NOTHING = Said(icc=None, has_alpha=False, dpi=None, is_turned=False)


def read(source: bytes) -> Said:
    """Decode a file, and check its pixels and its header."""
    image = decode_checked(source)
    is_turned = image.rgb.shape == (30, 20, 3)
    assert np.array_equal(np.rot90(image.rgb, k=int(is_turned)), SAMPLES)
    return Said(image.icc, image.has_alpha, image.dpi, is_turned)


@pytest.mark.parametrize("damage", sorted(DAMAGE))
@pytest.mark.parametrize("name", sorted(ANCILLARY))
def test_a_broken_ancillary_chunk_is_as_good_as_none(name: bytes, damage: str) -> None:
    broken = DAMAGE[damage](name, ANCILLARY[name])
    if damage == "nonsense" and name in (b"cICP", b"gAMA", b"pHYs", b"sRGB", b"tRNS"):
        return  # any bytes of the right length are sound
    behind_is_ignored = {b"iCCP", b"eXIf"}  # their contents say themselves where they end
    for source in (png(SAMPLES, 8, RGB, before=broken), png(SAMPLES, 8, RGB, after=broken)):
        said = read(source)
        if damage != "huge" or name not in behind_is_ignored:
            assert said == NOTHING


def test_sound_ancillary_chunks_are_used() -> None:
    """Otherwise the test above could pass because nothing is ever read."""

    def said(name: bytes) -> Said:
        return read(png(SAMPLES, 8, RGB, before=chunk(name, ANCILLARY[name])))

    assert said(b"iCCP").icc == P3
    assert said(b"cICP").icc == P3
    assert said(b"cHRM").icc is not None
    assert said(b"gAMA").icc is not None
    assert said(b"tRNS").has_alpha
    assert said(b"pHYs").dpi == pytest.approx((300, 300), abs=0.01)
    assert said(b"eXIf").is_turned
    others = set(ANCILLARY) - {b"iCCP", b"cICP", b"cHRM", b"gAMA", b"tRNS", b"pHYs", b"eXIf"}
    assert {name for name in others if said(name) == NOTHING} == others


@pytest.mark.parametrize("damage", ["wrong checksum", "empty"])
def test_a_sound_chunk_is_used_beside_broken_ones(damage: str) -> None:
    names = (b"iCCP", b"tRNS", b"pHYs", b"eXIf")
    broken = b"".join(DAMAGE[damage](name, ANCILLARY[name]) for name in ANCILLARY)
    sound = b"".join(chunk(name, ANCILLARY[name]) for name in names)
    expected = read(png(SAMPLES, 8, RGB, before=sound))
    assert expected.icc == P3
    assert expected.has_alpha
    for before in (broken + sound, sound + broken):
        assert read(png(SAMPLES, 8, RGB, before=before)) == expected


def profile_of(length: int) -> bytes:
    """Make a sound profile whose elements are followed by zeros."""
    return length.to_bytes(4, "big") + P3[4:] + bytes(length - len(P3))


@pytest.mark.parametrize(
    "length",
    [
        1_000_000,
        1_500_000,
        pytest.param(5_000_000, marks=pytest.mark.slow),
        pytest.param(MAX_PROFILE_BYTES, marks=pytest.mark.slow),
    ],
)
def test_a_sound_profile_of_any_size_is_kept_byte_for_byte(length: int) -> None:
    """Through the decoder process too, though a picture so small has little memory there."""
    icc = profile_of(length)
    source = png(SAMPLES, 8, RGB, before=chunk(b"iCCP", b"x\x00\x00" + zlib.compress(icc)))
    with Decoder({"PNG"}, processes=1) as decoder:
        image = decoder.decode(source)
    assert image.icc == icc
    for alpha in (None, np.zeros(image.rgb.shape[:2], np.uint8)):
        data = encode(Image(image.rgb, alpha, icc=image.icc))
        assert decode_file(data).icc == icc


def test_a_profile_that_no_jpeg_can_hold_is_dropped_and_the_image_kept() -> None:
    icc = zlib.compress(profile_of(MAX_PROFILE_BYTES + 1))
    assert read(png(SAMPLES, 8, RGB, before=chunk(b"iCCP", b"x\x00\x00" + icc))) == NOTHING


@pytest.fixture(scope="module")
def swelling() -> bytes:
    """Compress 100 MB of zeros to 100 KB."""
    return zlib.compress(bytes(100_000_000))


@pytest.mark.parametrize("name", [b"zTXt", b"iTXt", b"iCCP"])
@pytest.mark.parametrize("count", [1, 20])
def test_a_chunk_that_swells_is_ignored_in_little_memory(
    name: bytes, count: int, swelling: bytes
) -> None:
    """Of a profile as much is inflated as one may have."""
    start = b"a\x00\x01\x00\x00\x00" if name == b"iTXt" else b"a\x00\x00"
    bomb = chunk(name, start + swelling) * count
    source = png(SAMPLES, 8, RGB, before=bomb, after=bomb)
    tracemalloc.start()
    try:
        assert read(source) == NOTHING
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 2 * MAX_PROFILE_BYTES + 1_000_000


@pytest.mark.parametrize(
    ("colour", "samples", "sound", "broken"),
    [
        (GREY, 1, bytes(2), [b"", bytes(1), bytes(3), bytes(6)]),
        (RGB, 3, bytes(6), [b"", bytes(2), bytes(5), bytes(7)]),
        (PALETTE, 1, bytes(5), [b"", bytes(17), bytes(256), bytes(300)]),
    ],
)
def test_broken_transparency_is_left_out_and_so_is_alpha(
    colour: int, samples: int, sound: bytes, broken: list[bytes]
) -> None:
    """As libpng does. The output's format follows what is left."""
    bits = 4 if colour == PALETTE else 8
    pixels = deep_samples(samples, bits)
    plte = chunk(b"PLTE", HUGE[:48]) if colour == PALETTE else b""
    without = decode_file(png(pixels, bits, colour, before=plte))
    assert without.alpha is None
    assert decode_file(png(pixels, bits, colour, before=plte + chunk(b"tRNS", sound))).has_alpha
    wrong = [chunk(b"tRNS", data) for data in broken]
    for trns in (*wrong, chunk(b"tRNS", sound)[:-1] + b"x"):
        image = decode_checked(png(pixels, bits, colour, before=plte + trns))
        assert have_equal_pixels(image, without)


@pytest.mark.parametrize(("colour", "channels"), [(GREY_ALPHA, 2), (RGBA, 4)])
@pytest.mark.parametrize("bits", [8, 16])
def test_transparency_beside_an_alpha_channel_is_ignored(
    colour: int, channels: int, bits: int
) -> None:
    samples = deep_samples(channels, bits)
    plain = decode_file(png(samples, bits, colour)).alpha
    alpha = decode_file(png(samples, bits, colour, before=chunk(b"tRNS", bytes(6)))).alpha
    assert plain is not None
    assert alpha is not None
    assert np.array_equal(alpha, plain)


@pytest.mark.parametrize(("colour", "channels"), [(GREY, 1), (RGB, 3)])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_only_the_bits_of_the_depth_count_in_a_transparent_colour(
    colour: int, channels: int, bits: int
) -> None:
    """PNG third edition, 11.3.1.1."""
    if colour == RGB and bits < 8:
        return
    samples = deep_samples(channels, bits)
    high = [int(level) | 0xFF00 << bits & 0xFFFF for level in samples[0, 1]]
    key = struct.pack(f">{channels}H", *high)
    alpha = decode_file(png(samples, bits, colour, before=chunk(b"tRNS", key))).alpha
    assert alpha is not None
    assert np.array_equal(alpha == 0, (samples == samples[0, 1]).all(axis=-1))


def test_transparency_before_the_palette_is_ignored() -> None:
    plte, trns = chunk(b"PLTE", HUGE[:48]), chunk(b"tRNS", bytes(3))
    pixels = deep_samples(1, 4)
    assert decode_file(png(pixels, 4, PALETTE, before=plte + trns)).alpha is not None
    assert decode_file(png(pixels, 4, PALETTE, before=trns + plte)).alpha is None


@pytest.mark.parametrize(
    "plte",
    [
        *(chunk(b"PLTE", bytes(length)) for length in (0, 1, 5, 771)),
        chunk(b"PLTE", HUGE[:768])[:-1] + b"x",
        b"",
    ],
)
def test_a_broken_palette_is_refused_where_pixels_are_indices_alone(plte: bytes) -> None:
    late = chunk(b"PLTE", HUGE[:768])
    with pytest.raises(MalformedImage):
        decode_file(png(deep_samples(1, 8), 8, PALETTE, before=plte, after=late))
    assert read(png(SAMPLES, 8, RGB, before=plte)) == NOTHING


def test_a_palette_longer_than_its_indices_reach_is_accepted() -> None:
    palette = np.frombuffer(HUGE[:768], np.uint8).reshape(256, 3)
    pixels = deep_samples(1, 4)
    before = chunk(b"PLTE", palette.tobytes()) + chunk(b"tRNS", HUGE[:256])
    image = decode_file(png(pixels, 4, PALETTE, before=before))
    alphas = np.frombuffer(HUGE[:256], np.uint8)
    assert have_equal_pixels(image, Image(palette[pixels[..., 0]], alphas[pixels[..., 0]]))


def test_apple_s_own_kind_of_png_is_an_unsupported_format() -> None:
    """Xcode puts a chunk before IHDR, and leaves out the head of the compressed data."""
    sound = png(SAMPLES, 8, RGB)
    with pytest.raises(UnsupportedImageFormat):
        read_header(PNG_SIGNATURE + chunk(b"CgBI", b"\x50\0\x20\2") + sound[len(PNG_SIGNATURE) :])


def header(*fields: int) -> bytes:
    return struct.pack(">IIBBBBB", *fields)


@pytest.mark.parametrize(
    "ihdr",
    [
        chunk(b"IHDR", header(30, 20, 8, RGB, 0, 0, 0))[:-1] + b"x",
        chunk(b"IHDR", header(30, 20, 8, RGB, 1, 0, 0)),
        chunk(b"IHDR", header(30, 20, 8, RGB, 0, 1, 0)),
        chunk(b"IHDR", header(30, 20, 8, RGB, 0, 0, 2)),
        chunk(b"IHDR", header(30, 20, 8, 1, 0, 0, 0)),
        chunk(b"IHDR", header(30, 20, 8, 7, 0, 0, 0)),
        chunk(b"IHDR", header(30, 20, 4, RGB, 0, 0, 0)),
        chunk(b"IHDR", header(30, 20, 16, PALETTE, 0, 0, 0)),
        chunk(b"IHDR", header(30, 20, 3, GREY, 0, 0, 0)),
        chunk(b"IHDR", header(30, 20, 8, RGB, 0, 0, 0)[:-1]),
        chunk(b"IHDR", header(30, 20, 8, RGB, 0, 0, 0) + b"\x00"),
        chunk(b"IHDR", b""),
        chunk(b"tEXt", b"first") + chunk(b"IHDR", header(30, 20, 8, RGB, 0, 0, 0)),
        b"",
    ],
)
def test_a_broken_header_is_refused(ihdr: bytes) -> None:
    sound = png(SAMPLES, 8, RGB)
    rest = sound[len(PNG_SIGNATURE) + 25 :]
    for refusing in (decode_file, read_header):
        with pytest.raises(MalformedImage):
            refusing(PNG_SIGNATURE + ihdr + rest)


def test_a_chunk_longer_than_the_file_ends_it() -> None:
    """Before the pixels none are found; behind them nothing is missing."""
    endless = struct.pack(">I", 2**31 - 1) + b"tEXt" + b"words"
    with pytest.raises(MalformedImage):
        decode_file(png(SAMPLES, 8, RGB, before=endless))
    assert read(png(SAMPLES, 8, RGB, after=endless)) == NOTHING


def test_more_chunks_than_the_limit_are_refused() -> None:
    few = chunk(b"juNk", b"") * (MAX_CHUNKS - 3)
    source = png(SAMPLES, 8, RGB, before=few)
    assert read(source) == NOTHING
    assert read_png_parts(source).ancillary == ()  # they take no memory
    with pytest.raises(MalformedImage):
        read_header(png(SAMPLES, 8, RGB, before=few + chunk(b"juNk", b"")))


def test_shared_cases_of_ancillary_chunks_are_decoded(shared_dir: Path) -> None:
    for folder in ("png-ancillary-damage", "png-ancillary-size"):
        for path in sorted((shared_dir / "cases" / folder).glob("*.png")):
            image = decode_file(path.read_bytes())
            assert image.alpha is None, path
            assert (image.icc is not None) == (path.name == "png_iccp_1500kb.png"), path
