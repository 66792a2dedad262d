"""TIFF files of 16 bits a channel: rounded to the nearest of 8 bits, in every layout."""

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.service.image.formats.test_tiff import CMYK, HEIGHT, RGB, WIDTH, strips, tiff_of
from upscaled.image.decode import decode_file

Tags = dict[str, tuple[int, ...]]

PLANES_APART: Tags = {"_284": (2,)}
STRAIGHT, PREMULTIPLIED, UNKNOWN = {"_338": (2,)}, {"_338": (1,)}, {"_338": (0,)}


def deep_noise(channels: int) -> NDArray[np.uint16]:
    rng = np.random.default_rng(5)
    return rng.integers(0, 65_536, (HEIGHT, WIDTH, channels)).astype(np.uint16)


def deep_tiff(deep: NDArray[np.uint16], photometric: int, tags: Tags, order: str = "<") -> bytes:
    samples = deep.shape[2]
    data = strips(deep)
    if "_284" in tags:
        data = [strip for plane in range(samples) for strip in strips(deep[..., plane])]
    return tiff_of(data, 16, photometric, samples, order, **tags)


def nearest(deep: NDArray[np.generic]) -> NDArray[np.uint8]:
    return np.rint(np.asarray(deep, np.float64) / 257).astype(np.uint8)


@pytest.mark.parametrize("apart", [{}, PLANES_APART])
def test_colour_is_rounded_to_the_nearest_level(apart: Tags) -> None:
    deep = deep_noise(3)
    image = decode_file(deep_tiff(deep, RGB, apart), {"TIFF"})
    assert np.array_equal(image.rgb, nearest(deep))


@pytest.mark.parametrize("apart", [{}, PLANES_APART])
def test_alpha_is_rounded_too(apart: Tags) -> None:
    deep = deep_noise(4)
    image = decode_file(deep_tiff(deep, RGB, apart | STRAIGHT), {"TIFF"})
    assert image.alpha is not None
    assert np.array_equal(np.dstack([image.rgb, image.alpha]), nearest(deep))
    opaque = decode_file(deep_tiff(deep, RGB, apart | UNKNOWN), {"TIFF"})
    assert opaque.alpha is None
    assert np.array_equal(opaque.rgb, nearest(deep[..., :3]))


@pytest.mark.parametrize("apart", [{}, PLANES_APART])
def test_colour_that_was_multiplied_by_its_alpha_is_divided_before_it_is_rounded(
    apart: Tags,
) -> None:
    deep = deep_noise(4)
    deep[0, :9, 3] = 0
    exact = deep[..., :3] / np.maximum(deep[..., 3:], 1) * 65_535.0
    image = decode_file(deep_tiff(deep, RGB, apart | PREMULTIPLIED), {"TIFF"})
    assert image.alpha is not None
    assert np.array_equal(image.alpha, nearest(deep[..., 3]))
    off = image.rgb - np.minimum(exact, 65_535) / 257
    assert np.abs(off).max() <= 0.5 + 1 / 257


@pytest.mark.parametrize("apart", [{}, PLANES_APART])
def test_inks_are_rounded_to_the_nearest_level(apart: Tags) -> None:
    deep = deep_noise(4)
    image = decode_file(deep_tiff(deep, CMYK, apart), {"TIFF"})
    plain = decode_file(tiff_of(strips(nearest(deep)), 8, CMYK, 4), {"TIFF"})
    assert np.array_equal(image.rgb, plain.rgb)


@pytest.mark.parametrize("apart", [{}, PLANES_APART])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_it_is_turned_as_one_of_8_bits_is(orientation: int, apart: Tags) -> None:
    deep, turn = deep_noise(3), {"_274": (orientation,)}
    image = decode_file(deep_tiff(deep, RGB, apart | turn), {"TIFF"})
    plain = decode_file(tiff_of(strips(nearest(deep)), 8, RGB, 3, **turn), {"TIFF"})
    assert np.array_equal(image.rgb, plain.rgb)


def test_white_black_and_grey_are_unchanged() -> None:
    """As high bytes, 65,407 would be white and 254 would be black."""
    deep = np.zeros((HEIGHT, WIDTH, 3), np.uint16)
    deep[:, :4] = np.array([65_535, 65_407, 254, 0])[:, None]
    image = decode_file(deep_tiff(deep, RGB, {}), {"TIFF"})
    assert image.rgb[0, :4, 0].tolist() == [255, 255, 1, 0]
    assert nearest(np.array([65_406])) == 254


@pytest.mark.parametrize("apart", [False, True])
def test_the_higher_byte_may_come_first(apart: bool) -> None:
    deep = deep_noise(3)
    tags = PLANES_APART if apart else {}
    source = deep_tiff(deep.astype(">u2"), RGB, tags, order=">")
    assert np.array_equal(decode_file(source, {"TIFF"}).rgb, nearest(deep))
