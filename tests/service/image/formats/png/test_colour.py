"""PNG's own ways to say what colours its pixels are, without a profile."""

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import ImageCms

from tests.service.image.samples import GREY, PALETTE, RGB, chunk, deep_samples, png, srgb_curve
from upscaled.image.colour import (
    BT2020,
    DISPLAY_P3,
    SRGB,
    SRGB_CURVE,
    Curve,
    make_grey_profile,
    make_rgb_profile,
)
from upscaled.image.decode import decode_file
from upscaled.image.types import Image

# Chromaticities x, y of white, red, green and blue, in 100,000ths.
SRGB_CHRM = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
P3_CHRM = (31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)

SRGB_CICP, P3_CICP, REC2020_CICP = (1, 13, 0, 1), (12, 13, 0, 1), (9, 14, 0, 1)
P3 = make_rgb_profile(DISPLAY_P3, SRGB_CURVE)


def gama(gamma: int) -> bytes:
    return chunk(b"gAMA", gamma.to_bytes(4, "big"))


def chrm(numbers: tuple[int, ...]) -> bytes:
    return chunk(b"cHRM", struct.pack(">8I", *numbers))


def cicp(numbers: tuple[int, ...]) -> bytes:
    return chunk(b"cICP", bytes(numbers))


def iccp(profile: bytes) -> bytes:
    return chunk(b"iCCP", b"x\x00\x00" + zlib.compress(profile))


def read(before: bytes, colour: int = RGB, bits: int = 8) -> Image:
    samples = deep_samples(1 if colour == GREY else 3, bits)
    image = decode_file(png(samples, bits, colour, before=before))
    if colour == RGB:
        assert np.array_equal(image.rgb, samples)
    return image


def to_srgb(icc: bytes, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Convert pixels by LittleCMS; the result is in 0..255."""
    transform = ImageCms.buildTransform(
        ImageCms.ImageCmsProfile(BytesIO(icc)),
        ImageCms.createProfile("sRGB"),
        "RGB",
        "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
    )
    converted = ImageCms.applyTransform(PillowImage.fromarray(pixels), transform)
    return np.asarray(converted, np.float64)


SRGB_CHUNK = chunk(b"sRGB", b"\x00")


@pytest.mark.parametrize(
    "before",
    [
        b"",
        SRGB_CHUNK,
        gama(45455),
        gama(45455) + chrm(SRGB_CHRM),
        chrm(SRGB_CHRM),
        gama(44000),
        cicp(SRGB_CICP),
        gama(0),
        cicp((9, 16, 0, 1)),  # PQ
        cicp((9, 18, 0, 1)),  # HLG
        cicp((2, 2, 0, 1)),  # not specified
        cicp((9, 14, 9, 1)),  # no RGB
        cicp((9, 14, 0, 0)),  # not of the full range
        chunk(b"cICP", b"\x0c\x0d\x00"),
        chrm((0,) * 8),
        chrm((31270, 32900, 10000, 10000, 20000, 20000, 30000, 30000)),  # on a line
        chrm((90000, 5000, *SRGB_CHRM[2:])),  # a white that the primaries do not make
        chrm((31270, 0, *SRGB_CHRM[2:])),
        iccp(make_grey_profile(SRGB_CURVE)),
        iccp(b"RGB " * 200),
        gama(1),
        gama(2**32 - 1),
    ],
)
def test_chunks_of_srgb_and_senseless_ones_give_no_profile(before: bytes) -> None:
    assert read(before).icc is None


@pytest.mark.parametrize(
    ("before", "wins"),
    [
        (cicp(P3_CICP) + iccp(make_rgb_profile(BT2020, SRGB_CURVE)) + SRGB_CHUNK, P3),
        (cicp(SRGB_CICP) + iccp(P3), None),
        (cicp((9, 16, 0, 1)) + iccp(P3), P3),
        (iccp(P3) + gama(100_000), P3),
        (iccp(b"broken") + gama(100_000), make_rgb_profile(SRGB, Curve(1.0))),
        (iccp(b"broken") + SRGB_CHUNK + gama(100_000), None),
        (SRGB_CHUNK + gama(100_000) + chrm(P3_CHRM), None),
        (iccp(P3) + iccp(make_rgb_profile(BT2020, SRGB_CURVE)), P3),
        (iccp(P3)[:-1] + b"x" + chrm(P3_CHRM), P3),
        (gama(45455) + chrm(P3_CHRM), P3),
        (gama(45455) + gama(100_000), None),
        (gama(100_000), make_rgb_profile(SRGB, Curve(1.0))),
    ],
)
def test_the_strongest_colour_chunk_counts(before: bytes, wins: bytes | None) -> None:
    assert read(before).icc == wins


@pytest.mark.parametrize("bits", [8, 16])
def test_the_gamma_chunk_becomes_the_matching_curve(bits: int) -> None:
    """gAMA 1.0 is linear light: LittleCMS shows it as the formula of sRGB does."""
    icc = read(gama(100_000), bits=bits).icc
    assert icc is not None
    light = np.arange(256) / 255
    expected = srgb_curve(light) * 255
    shown = to_srgb(icc, np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2))
    assert np.abs(shown - expected.reshape(16, 16, 1)).max() <= 1


@pytest.mark.parametrize("before", [cicp(P3_CICP), gama(45455) + chrm(P3_CHRM)])
def test_p3_is_shown_as_p3(before: bytes) -> None:
    """Apple's published matrix from linear Display P3 to linear sRGB."""
    icc = read(before).icc
    assert icc is not None
    matrix = np.array(
        [
            [1.2249401, -0.2249404, 0.0],
            [-0.0420569, 1.0420571, 0.0],
            [-0.0196376, -0.0786361, 1.0982735],
        ]
    )
    pixels = np.random.default_rng(0).integers(60, 180, (20, 20, 3), np.uint8)
    values = pixels / 255
    light = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    linear = np.clip(light @ matrix.T, 0, 1)
    expected = srgb_curve(linear)
    assert np.abs(to_srgb(icc, pixels) - expected * 255).max() <= 1.5


@pytest.mark.parametrize("numbers", [P3_CICP, REC2020_CICP, (6, 6, 0, 1), (11, 5, 0, 1)])
def test_white_of_any_described_colour_space_becomes_white(numbers: tuple[int, ...]) -> None:
    icc = read(cicp(numbers)).icc
    assert icc is not None
    assert to_srgb(icc, np.full((2, 2, 3), 255, np.uint8)).min() >= 254


@pytest.mark.parametrize("bits", [8, 16])
def test_grey_is_converted_to_neutral_grey(bits: int) -> None:
    """As grey with a profile is: linear grey 0.5 is level 188 of sRGB."""
    samples = deep_samples(1, bits)
    peak = (1 << bits) - 1
    samples[0, 0] = (peak + 1) // 2
    image = decode_file(png(samples, bits, GREY, before=gama(100_000)))
    assert image.icc is None
    assert (image.rgb[..., :1] == image.rgb[..., 1:]).all()
    light = samples / peak
    expected = srgb_curve(light)
    assert np.abs(image.rgb - expected * peak).max() <= 1.001
    assert abs(int(image.rgb[0, 0, 0]) - 187.516 / 255 * peak) <= peak / 255


def test_a_palettes_colours_are_described_too() -> None:
    plte = chunk(b"PLTE", bytes(range(48)))
    source = png(deep_samples(1, 4), 4, PALETTE, before=cicp(P3_CICP) + plte)
    assert decode_file(source).icc == P3


def test_colour_chunks_behind_the_pixels_are_ignored() -> None:
    source = png(deep_samples(3, 8), 8, RGB, after=gama(100_000))
    assert decode_file(source).icc is None
