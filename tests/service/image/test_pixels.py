import numpy as np

from upscaled.image.pixels import round_to_8bit, rounded
from upscaled.image.types import Image

EVERY_LEVEL = np.arange(65536, dtype=np.uint16).reshape(256, 256)


def test_every_level_is_rounded_to_the_nearest() -> None:
    expected = np.rint(EVERY_LEVEL.astype(np.float64) * 255 / 65535)
    assert np.array_equal(round_to_8bit(EVERY_LEVEL), expected)


def test_8_bit_levels_are_unchanged_by_way_of_16_bits() -> None:
    levels = np.arange(256, dtype=np.uint16)
    assert np.array_equal(round_to_8bit(levels * 257), levels)


def test_colour_and_alpha_are_rounded_and_the_rest_is_kept() -> None:
    deep = Image(EVERY_LEVEL[..., None].repeat(3, axis=2), EVERY_LEVEL, icc=b"profile")
    image = rounded(deep)
    assert deep.is_deep
    assert not image.is_deep
    assert image.alpha is not None
    assert np.array_equal(image.rgb[..., 1], image.alpha)
    assert image.alpha.dtype == np.uint8
    assert image.icc == b"profile"


def test_8_bits_are_left_alone() -> None:
    image = Image(np.zeros((2, 3, 3), np.uint8))
    assert rounded(image) is image
